"""What is fuzzed; ``TARGETS`` is all of it."""

from tests.fuzz.targets.documents import CONFIGS, LISTINGS, MANIFESTS
from tests.fuzz.targets.files import CASSETTES, CREDENTIALS, DATABASES, HOSTS
from tests.fuzz.targets.folders import FOLDERS
from tests.fuzz.targets.headers import CHALLENGES, LINKS, PAUSES, RANGES
from tests.fuzz.targets.names import DIGESTS, REFERENCES
from tests.fuzz.targets.responses import CHUNKS, RESPONSES

__all__ = ["TARGETS"]

TARGETS = (
    REFERENCES, DIGESTS, MANIFESTS, CONFIGS, LISTINGS, CHALLENGES, LINKS, RANGES, PAUSES, CHUNKS, RESPONSES, FOLDERS,
    CASSETTES, CREDENTIALS, DATABASES, HOSTS,
)  # fmt: skip
