"""One exception tree. Every error ocidist raises on purpose is an :class:`OcidistError`.

Errors are values: they take positional arguments only, keep what they are about as attributes, survive
pickle (process pools, Dask), and hold no secret. Text that came from outside is quoted with ``repr``
rules, so control and bidirectional characters show as escapes wherever the message is printed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Mapping, Sequence, TypeVar

from ocidist.redaction import SECRETS

if TYPE_CHECKING:
    from ocidist.spec.descriptor import Descriptor

Kind = TypeVar("Kind", bound="OcidistError")

__all__ = [
    "AlreadyExists",
    "BlobNotFound",
    "BundleError",
    "Cancelled",
    "ContentError",
    "CredentialError",
    "DeadlineExceeded",
    "Denied",
    "DigestMismatch",
    "FailureKind",
    "InvalidDigest",
    "InvalidManifest",
    "InvalidReference",
    "LayerError",
    "LimitExceeded",
    "Locked",
    "MissingExtra",
    "NotFound",
    "OcidistError",
    "PlatformNotFound",
    "RateLimited",
    "RegistryError",
    "SizeMismatch",
    "StoreError",
    "TransferError",
    "TransportError",
    "Unauthorized",
    "UnsafeEntry",
    "Unsupported",
    "UsageError",
    "quoted",
    "visible",
]


def quoted(text: object, limit: int = 160) -> str:
    """``repr`` of a text from outside, shortened in the middle past ``limit`` characters."""
    shown = repr(SECRETS.text(str(text)))  # before it is cut
    if len(shown) > limit:
        half = limit // 2 - 2
        shown = f"{shown[:half]}…{shown[-half:]}"
    return shown


def visible(text: object) -> str:
    """``text`` with every character that doesn't print shown as an escape (``\\x1b``, ``\\u202e``).

    Escaped are control and format characters (ANSI, bidirectional overrides, zero-width ones), lone
    surrogates, line separators, spaces other than U+0020, and what is unassigned or private: the rule of
    ``str.isprintable``. Never raises. It is for display: a backslash that was there stays one.
    """
    shown = text if isinstance(text, str) else _string(text)
    if shown.isprintable():
        # A plain str also where a subclass (Digest) came in, so that its repr can't surprise anyone.
        return shown if type(shown) is str else str.__str__(shown)
    return "".join(char if char.isprintable() else _escape(char) for char in shown)


def _string(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - a repr never raises, whatever a foreign __str__ does
        return f"<{type(value).__name__}>"


_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _escape(char: str) -> str:
    code = ord(char)
    if char in _SHORT:
        return _SHORT[char]
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _restore(cls: type[Kind], args: tuple[Any, ...], state: Mapping[str, Any]) -> Kind:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error


class OcidistError(Exception):
    """Base of every error that ocidist raises on purpose; ``str(error)`` is one line.

    Secrets that this process has used or received are taken out of its text and attributes when it is made: a server
    may say them back anywhere. Its text has no character that doesn't print: those of outside are escapes, whatever
    terminal or notebook it reaches. A subclass sets its attributes first, then calls this.
    """

    def __init__(self, *args: object) -> None:
        clean = map(SECRETS.value, args)
        super().__init__(*(visible(arg) if isinstance(arg, str) else arg for arg in clean))
        vars(self).update((name, SECRETS.value(value)) for name, value in tuple(vars(self).items()))

    def worded(self: Kind, text: str) -> Kind:
        """The same error with another text."""
        return _restore(type(self), (visible(SECRETS.text(text)),), vars(self))

    def extended(self: Kind, more: str) -> Kind:
        """The same error with ``more`` at the end of its text (and of its reason, by which others quote it)."""
        other = self.worded(f"{self}{more}")
        if "reason" in vars(other):
            vars(other)["reason"] = f"{vars(self)['reason']}{more}"
        return other

    def _render_traceback_(self) -> list[str]:
        """In IPython, that line alone: what was asked can't be had, and no frame of ours says more."""
        return [f"{type(self).__name__}: {self}"]

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, self.__dict__.copy())


class UsageError(OcidistError, ValueError):
    """An argument that can't be meant: a locator of an unknown kind, a duration that is none."""


class Unsupported(OcidistError):
    """Well formed, but something this program does not do; the message names what would."""


class CredentialError(OcidistError):
    """A credentials file or helper that can't be used. ``where`` names it; no secret is shown."""

    def __init__(self, where: str, reason: str) -> None:
        self.where, self.reason = where, reason
        super().__init__(f"credentials from {where}: {reason}")


# -- values -----------------------------------------------------------------------------------------


class _Invalid(OcidistError, ValueError):
    kind = "value"

    def __init__(self, text: str, reason: str, position: int | None = None) -> None:
        self.text, self.reason, self.position = text, reason, position
        at = "" if position is None else f" at character {position + 1}"
        super().__init__(f"invalid {self.kind} {quoted(text)}{at}: {reason}")


class InvalidReference(_Invalid):
    """A reference or repository name outside the grammar of distribution/reference."""

    kind = "reference"


class InvalidDigest(_Invalid):
    """A digest outside the grammar of the OCI image specification, or of an unknown algorithm."""

    kind = "digest"


class InvalidManifest(OcidistError, ValueError):
    """A manifest, index, config or other JSON document that breaks its specification.

    ``where`` is the path inside the document (``layers[2].size``), or empty for the whole.
    """

    def __init__(self, what: str, reason: str, where: str = "") -> None:
        self.what, self.reason, self.where = what, reason, where
        super().__init__(f"invalid {what}{f' at {where}' if where else ''}: {reason}")


class PlatformNotFound(OcidistError, LookupError):
    """No image for the platform asked for; the message lists those that ``reference`` has, in an ``index`` or as a
    single image."""

    def __init__(
        self, wanted: str, available: Sequence[str], reference: str = "", *, index: bool = True
    ) -> None:
        self.wanted, self.available, self.reference, self.index = wanted, tuple(available), reference, index
        shown = ", ".join(quoted(name)[1:-1] for name in self.available[:20]) or "none"
        where = f"{reference}: " if reference else ""
        has = "the index has" if index else "the image is for"
        super().__init__(f"{where}no image for {quoted(wanted)[1:-1]}; {has} {shown}")

    def of(self, reference: str) -> PlatformNotFound:
        """Return the same, of ``reference``."""
        return PlatformNotFound(self.wanted, self.available, reference, index=self.index)


# -- network ----------------------------------------------------------------------------------------


FailureKind = Literal[
    "resolve",  # the look-up of the name
    "connect",  # no connection, or no TLS handshake, in time
    "refused",  # nobody listens
    "proxy",  # a proxy's URL that can't be used
    "tunnel",  # a proxy that gives no way through
    "plain-http",  # an answer to the TLS hello that is not TLS
    "hung-up",  # closed within the TLS handshake
    "tls",  # any other failure of TLS
    "certificate",  # signed by nobody who is trusted
    "expired",
    "not-yet-valid",
    "wrong-name",  # a certificate for another host
    "no-authorities",  # this machine trusts nobody
    "client-certificate",  # the peer wants one
    "client-refused",  # the peer refuses the one that it got
    "certificate-file",  # a file of certificates or of a key on this machine
    "cut",  # the connection ended before the answer did
    "timeout",  # nothing came for long
    "slow",  # less than the least rate
    "protocol",  # not HTTP, or not as it should be
    "redirect",  # where a request may not be led
    "request",  # what can't be sent
    "recording",  # of a cassette
    "other",
]


class TransportError(OcidistError):
    """Raised if ``host`` gave no HTTP answer: DNS, TLS, refused, reset, timed out, malformed.

    ``kind`` says what failed, ``retryable`` whether the same request may succeed when it is sent again.
    """

    def __init__(
        self, host: str, reason: str, retryable: bool = True, *, kind: FailureKind = "other"
    ) -> None:
        self.host, self.reason, self.retryable = host, reason, retryable
        self.kind: FailureKind = kind
        super().__init__(f"{host}: {reason}")


class RegistryError(OcidistError):
    """Raised if a registry answered with an error.

    ``url`` has its query redacted; ``diagnostics`` is a tuple of ``(code, message)`` pairs from the body
    (distribution-spec, "Error Codes"). ``retry_after`` is in seconds, None if the registry did not say.
    """

    def __init__(
        self,
        method: str,
        url: str,
        status: int,
        diagnostics: Sequence[tuple[str, str]] = (),
        hint: str = "",
        retry_after: float | None = None,
    ) -> None:
        self.method, self.url, self.status, self.hint = method, url, status, hint
        self.retry_after = retry_after
        self.diagnostics = tuple(diagnostics)
        said = "; ".join(
            quoted(f"{code}: {message}" if message else code)[1:-1] for code, message in self.diagnostics[:4]
        )
        parts = [f"{method} {url} answered {status}"]
        if said:
            parts.append(said)
        if hint:
            parts.append(hint)
        super().__init__(": ".join(parts))

    @property
    def host(self) -> str:
        """``host[:port]`` of the URL."""
        return self.url.partition("://")[2].partition("/")[0]

    @property
    def retryable(self) -> bool:
        """True for answers that may be different next time (408, 429 and 5xx but 501)."""
        return self.status in (408, 429) or (self.status >= 500 and self.status != 501)


class Unauthorized(RegistryError):
    """401, with the credentials at hand too."""


class Denied(RegistryError):
    """403: known, and not allowed."""


class NotFound(RegistryError):
    """404: no such repository, tag, manifest or blob."""


class RateLimited(RegistryError):
    """429."""


# -- content ----------------------------------------------------------------------------------------


class ContentError(OcidistError):
    """Content that is not there, or not what its descriptor says. ``descriptor`` is what was wanted."""

    def __init__(self, descriptor: Descriptor | str, reason: str) -> None:
        self.descriptor, self.reason = descriptor, reason
        super().__init__(f"{descriptor}: {reason}")


class DigestMismatch(ContentError):
    """The bytes hash to another digest."""


class SizeMismatch(ContentError):
    """There are fewer or more bytes than the descriptor says."""


class BlobNotFound(ContentError, LookupError):
    """No such blob here."""


class AlreadyExists(ContentError):
    """The blob is committed already: nothing is to be written."""


class Locked(ContentError):
    """Another writer, in this process or another, holds the ingest (``descriptor`` is its key)."""


class StoreError(OcidistError):
    """The store can't be read or written: full, read-only, damaged. ``path`` says where."""

    def __init__(self, path: str, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"{path}: {reason}")


class LayerError(OcidistError):
    """A layer that can't be applied. ``layer`` is its digest or "layer"; ``member`` the entry's name."""

    def __init__(self, layer: str, member: str, reason: str) -> None:
        self.layer, self.member, self.reason = layer, member, reason
        at = f", entry {quoted(member)}" if member else ""
        super().__init__(f"{layer}{at}: {reason}")


class UnsafeEntry(LayerError):
    """An entry that reaches out of the root; nothing of it was written."""


class LimitExceeded(OcidistError):
    """More than :class:`~ocidist.limits.Limits` allow. ``what`` names the layer, or the image; ``member`` the entry, if
    it is about one."""

    def __init__(self, what: str, reason: str, member: str = "") -> None:
        self.what, self.reason, self.member = what, reason, member
        at = f", entry {quoted(member)}" if member else ""
        super().__init__(f"{what}{at}: {reason}; --no-limits (in Python limits=None) lifts this limit")


class BundleError(OcidistError):
    """An image that can't be made a bundle, or a place that can't be one. ``what`` names which part of either."""

    def __init__(self, what: str, reason: str) -> None:
        self.what, self.reason = what, reason
        super().__init__(f"{what}: {reason}")


class TransferError(OcidistError):
    """A copy that failed. ``side`` is "source" or "destination"; the cause is chained.

    ``step`` says what was being done ("resolve", "fetch", "unpack", …); ``descriptor`` with what.
    """

    def __init__(self, step: str, side: str, descriptor: Descriptor | str, reason: str) -> None:
        self.step, self.side, self.descriptor, self.reason = step, side, descriptor, reason
        super().__init__(f"{step} ({side}) of {descriptor}: {reason}")


# -- ends -------------------------------------------------------------------------------------------


class Cancelled(OcidistError):
    """The scope was cancelled; what was transferred is kept and will be resumed."""

    def __init__(self, reason: str = "interrupted") -> None:
        super().__init__(reason)


class DeadlineExceeded(OcidistError):
    """The scope's deadline passed; what was transferred is kept and will be resumed.

    No TimeoutError: that is an OSError, and where those are mapped an end would become a fault of the disk.
    """

    def __init__(self, reason: str = "the time limit passed (--timeout); run it again to resume") -> None:
        super().__init__(reason)


class MissingExtra(OcidistError, ImportError):
    """An optional package is needed; the message is the pip line that installs it, or ``otherwise`` what to do."""

    def __init__(self, package: str, why: str = "", otherwise: str = "") -> None:
        self.package = package
        other = f", or {otherwise}" if otherwise else ""
        super().__init__(f"{why or 'this'} needs {package}; pip install {package}{other}")
