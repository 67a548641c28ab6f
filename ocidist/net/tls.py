"""TLS: which authorities are trusted, and plain words for what can go wrong. ``ssl`` loads at first use."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Iterable

from ocidist.errors import FailureKind, TransportError, quoted
from ocidist.files import open_regular

if TYPE_CHECKING:
    import ssl
    from pathlib import Path
    from ssl import SSLContext
    from types import ModuleType

__all__ = [
    "NO_AUTHORITIES",
    "authorities",
    "explain",
    "make_context",
    "read_anyway",
    "unbelieving_context",
]

NO_AUTHORITIES = (
    "this machine has no certificate authorities: install the package ca-certificates (or pip install certifi), "
    "or name a file with --ca-cert"
)
# What OpenSSL says when the peer's first bytes are no TLS record.
_NO_RECORD = frozenset(
    {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL", "PACKET_LENGTH_TOO_LONG"}
)
# What peers say before they hang up, where that is not about a certificate that was shown.
_ALERTS: dict[str, tuple[str, FailureKind]] = {
    "CERTIFICATE_REQUIRED": (
        "it wants a client certificate; name one with client in hosts.toml",
        "client-certificate",
    ),
    "HANDSHAKE_FAILURE": (
        "it refused the handshake: no cipher is known to both, or it wants a client certificate",
        "client-certificate",
    ),
    "PROTOCOL_VERSION": ("no version of TLS is known to both", "tls"),
}
# X509_V_ERR_… of OpenSSL's x509_vfy.h
_REFUSALS: dict[int, FailureKind] = {
    9: "not-yet-valid",
    10: "expired",
    62: "wrong-name",
    64: "wrong-name",
}
_UNTRUSTED = frozenset({18, 19, 20, 21})  # a root, or an issuer, that is not among the trusted


def make_context(
    ca_file: Path | None,
    insecure: bool,
    host: str,
    ca_files: Iterable[Path] = (),
    certificates: Iterable[tuple[Path, Path | None]] = (),
) -> SSLContext:
    """A client context: the system's authorities, those of the files added. Raises TransportError(host).

    ``insecure`` checks neither chain nor name. ``certificates`` are this client's, with the files of their keys.
    """
    ssl = _ssl(host)
    context: SSLContext
    if insecure:
        context = unbelieving_context(host)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        named = [*ca_files, *([ca_file] if ca_file is not None else ())]
        for path in named:  # first: that of $SSL_CERT_FILE is opened by OpenSSL itself
            _check_regular(host, "CA file", path)
        context = ssl.create_default_context()
        context.set_alpn_protocols(["http/1.1"])
        _trust(context, host, named)
    for certificate, key in certificates:
        what = "client certificate"
        _check_regular(host, what, certificate)
        if key is not None:
            _check_regular(host, "key of a client certificate", key)
        try:
            context.load_cert_chain(certificate, key, _no_password)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise _unusable(host, f"{what} {quoted(certificate)}", error) from None
    return context


def _check_regular(host: str, what: str, path: Path) -> None:
    """OpenSSL would wait for a FIFO, whatever the time limit."""
    try:
        open_regular(path, follow=True).close()
    except (OSError, ValueError) as error:
        raise _unusable(host, f"{what} {quoted(path)}", error) from None


def _trust(context: SSLContext, host: str, files: Iterable[Path]) -> None:
    from importlib import import_module

    if not _system_authorities():
        try:
            found = import_module("certifi").where()
        except ImportError:
            pass
        else:
            context.load_verify_locations(cafile=found)
    for path in files:
        if read_anyway(path):
            continue
        try:
            context.load_verify_locations(cafile=str(path))
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise _unusable(host, f"CA file {quoted(path)}", error) from None


def _no_password() -> str:
    """A key with a password can't be used: nobody is there to be asked for it by OpenSSL."""
    raise ValueError("its key is locked with a password")


def _unusable(host: str, what: str, error: Exception) -> TransportError:
    import ssl

    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    if isinstance(error, ssl.SSLError):
        reason = (
            "no certificate in PEM form in it"
            if what.startswith("CA")
            else "its key is that of another certificate"
            if error.reason == "KEY_VALUES_MISMATCH"
            else "no certificate with its key in PEM form"
        )
    return TransportError(host, f"{what}: {reason}", False, kind="certificate-file")


def unbelieving_context(host: str) -> SSLContext:
    """A client context that trusts no authority at all, so that no handshake with it succeeds.

    Quickly made (authorities take some 15 ms to load), and enough to learn whether a peer speaks TLS.
    """
    ssl = _ssl(host)
    context: SSLContext = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["http/1.1"])
    return context


def read_anyway(ca_file: Path) -> bool:
    """True for the file of ``$SSL_CERT_FILE``, which OpenSSL reads by itself; reading it twice takes 15 ms more."""
    import ssl

    return str(ca_file) == ssl.get_default_verify_paths().cafile


def _ssl(host: str) -> ModuleType:
    try:
        import ssl
    except ImportError:
        raise TransportError(
            host, "this Python has no ssl module, so there is no https", False, kind="tls"
        ) from None
    return ssl


def authorities() -> str:
    """Where trusted authorities come from: a file, a folder, certifi's; "" where there are none."""
    from importlib.util import find_spec

    try:
        import ssl
    except ImportError:
        return ""
    if _system_authorities():
        paths = ssl.get_default_verify_paths()
        return str(paths.cafile or paths.capath)
    return "certifi" if find_spec("certifi") is not None else ""


def _system_authorities() -> bool:
    import ssl

    paths = ssl.get_default_verify_paths()
    if paths.cafile is not None:
        return True
    try:
        return paths.capath is not None and any(os.scandir(paths.capath))
    except OSError:
        return False


def explain(error: ssl.SSLError, host: str, handshake: bool, ca_file: Path | None = None) -> TransportError:
    """The TransportError for an ``ssl.SSLError``; ``handshake`` says that it came before any answer."""
    import ssl

    if isinstance(error, ssl.SSLCertVerificationError):
        reason = f"certificate refused: {error.verify_message or 'verification failed'}"
        kind = _REFUSALS.get(error.verify_code, "certificate")
        if error.verify_code in _UNTRUSTED:
            known = ca_file is not None or _system_authorities()
            reason += "; --ca-cert FILE trusts another authority" if known else f"; {NO_AUTHORITIES}"
            kind = "certificate" if known else "no-authorities"
        return TransportError(host, reason, False, kind=kind)
    said = (getattr(error, "reason", "") or "").upper()
    if handshake and said in _NO_RECORD:
        return TransportError(
            host, "does not speak TLS on this port (is it plain http?)", False, kind="plain-http"
        )
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        if handshake:
            return TransportError(host, "the connection was closed in the TLS handshake", kind="hung-up")
        return TransportError(host, "TLS ended early", kind="cut")
    alert = said.partition("ALERT_")[2]
    if alert in _ALERTS or "CERTIFICATE" in alert or alert == "UNKNOWN_CA":
        refused = f"it refused this client's certificate ({alert.replace('_', ' ').lower()})"
        said, kind = _ALERTS.get(alert, (refused, "client-refused"))
        return TransportError(host, f"TLS: {said}", False, kind=kind)
    words = said.replace("_", " ").lower() or (error.strerror or "failed")
    return TransportError(host, f"TLS: {words}", not handshake, kind="tls")
