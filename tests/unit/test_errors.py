"""Errors as values: what they print, whatever text of outside they carry."""

from __future__ import annotations

import inspect
import pickle
from typing import Iterator

import pytest

import ocidist.cli.streams  # it has an error of its own
import ocidist.errors
import ocidist.net.tls  # and so has this
from ocidist.errors import OcidistError

HOSTILE = "a\x1b[31m\u202eb\x07\u200b\r\nc\ud800\x9b2J\u2066\x7f"


def classes(kind: type[OcidistError] = OcidistError) -> Iterator[type[OcidistError]]:
    """All, those of other modules of ours as well."""
    yield kind
    for child in kind.__subclasses__():
        yield from classes(child)


def made(kind: type[OcidistError]) -> OcidistError:
    """One with hostile text wherever text may go."""
    arguments: list[object] = []
    for parameter in inspect.signature(kind).parameters.values():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            continue
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            arguments.append(HOSTILE)
        elif "Sequence[tuple" in str(parameter.annotation):
            arguments.append([(HOSTILE, HOSTILE)])
        elif "Sequence" in str(parameter.annotation):
            arguments.append([HOSTILE, HOSTILE])
        elif "OSError" in str(parameter.annotation):
            arguments.append(OSError(5, HOSTILE))
        elif parameter.name == "status":
            arguments.append(500)
        elif "str" in str(parameter.annotation):
            arguments.append(HOSTILE)
        elif parameter.default is not inspect.Parameter.empty:
            arguments.append(parameter.default)
        else:
            arguments.append(HOSTILE)
    return kind(*arguments)


@pytest.mark.parametrize("kind", sorted(set(classes()), key=lambda kind: kind.__qualname__))
def test_g67_no_error_prints_what_a_terminal_obeys(kind: type[OcidistError]) -> None:
    """Controls, bidirectional overrides, lone surrogates and line breaks are escapes in its text, in IPython's line, in its
    repr and after pickle; what is escaped once is not escaped again."""
    error = made(kind)
    texts = [str(error), repr(error), *error._render_traceback_(), str(pickle.loads(pickle.dumps(error)))]
    texts.append(str(error.extended(f"; {HOSTILE}")))
    for text in texts:
        assert text.isprintable(), text
    assert str(OcidistError(str(error))) == str(error)


def test_an_extended_error_is_the_same_kind_with_more_to_say() -> None:
    """Its attributes stay, and others who quote its reason quote all of it."""
    error = ocidist.errors.SizeMismatch("sha256:00", "3 bytes")
    more = error.extended("; asked before it: one")
    assert type(more) is type(error)
    assert (str(more), more.reason) == (
        "sha256:00: 3 bytes; asked before it: one",
        "3 bytes; asked before it: one",
    )
    assert str(error) == "sha256:00: 3 bytes"
