"""Labels of blobs that mean something, in containerd's names.

Source: containerd, docs/garbage-collection.md and ``core/remotes/docker/handler.go``.
"""

from __future__ import annotations

__all__ = ["CONTENT_LABEL", "ROOT_LABEL", "SNAPSHOT_LABEL", "SOURCE_LABEL", "merged"]

SOURCE_LABEL = "containerd.io/distribution.source."
"""With the host behind it: in which repositories of a registry the blob is known, separated by commas."""
ROOT_LABEL = "containerd.io/gc.root"
"""The blob stays, whatever names it."""
CONTENT_LABEL = "containerd.io/gc.ref.content"
"""With a suffix: the digest of another blob that stays as long as this one."""
SNAPSHOT_LABEL = "containerd.io/gc.ref.snapshot."
"""With a snapshotter's name behind it: the key of a snapshot that stays as long as the blob."""


def merged(key: str, old: str | None, new: str) -> str:
    """Return the value of a label that had ``old`` and is given ``new``: the repositories of a source add up."""
    if old is None or not key.startswith(SOURCE_LABEL):
        return new
    return ",".join(sorted({part for part in f"{old},{new}".split(",") if part}))
