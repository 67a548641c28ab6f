"""What to do about a step that failed, by the step and the error. Pure."""

from __future__ import annotations

from ocidist.errors import (
    CredentialError,
    DeadlineExceeded,
    Denied,
    FailureKind,
    NotFound,
    OcidistError,
    PlatformNotFound,
    RateLimited,
    RegistryError,
    TransportError,
    Unauthorized,
)

__all__ = ["advice_for"]

_SLOW = "a firewall may drop what is sent there; if the host is only slow, give it more time with --connect-timeout"
_CERTIFICATE: dict[str, str] = {
    "expired": "check this machine's clock; if it is right, the registry's owner must renew the certificate",
    "not-yet-valid": "set this machine's clock; by it the certificate is not valid yet",
    "wrong-name": "use a name that the certificate is for",
    "no-authorities": "install ca-certificates, or pip install certifi",
    "client-certificate": "get one from its owner, and name it with client in hosts.toml",
    "client-refused": "ask its owner for another one, and name that with client in hosts.toml",
    "certificate": "trust the authority that signed it, with --ca-cert FILE, $SSL_CERT_FILE, or ca in hosts.toml",
}  # fmt: skip


def advice_for(step: str, error: OcidistError, host: str, *, proxy: str = "", known: bool = False) -> str:
    """One sentence. ``proxy`` is HOST:PORT of one on the way; ``known``: there are credentials for ``host``."""
    if isinstance(error, DeadlineExceeded):
        if step in ("name", "connection"):
            return _transport(step, "timeout", host, proxy)
        return f"{host} accepts connections but does not answer; try again later, or ask its owner"
    if isinstance(error, PlatformNotFound):
        return "choose one of them with --platform"
    if isinstance(error, CredentialError):
        return f"repair that file or helper, or log in again: ocidist login {host}"
    if isinstance(error, TransportError):
        return _transport(step, error.kind, host, proxy)
    if isinstance(error, RegistryError):
        return _answer(step, error, host, known)
    return "the registry's content is damaged; push the image again, or ask the registry's owner"


def _transport(step: str, kind: FailureKind, host: str, proxy: str) -> str:
    if kind in _CERTIFICATE:
        return _CERTIFICATE[kind]
    if proxy and step in ("name", "connection", "TLS"):
        return f"repair the proxy {proxy} ($https_proxy, $http_proxy), or add {host} to $no_proxy"
    if kind == "proxy":
        return "set $https_proxy or $http_proxy to http://HOST:PORT, or unset it"
    if kind == "certificate-file":
        return "name a file in PEM format"
    if step == "name":
        return "check the spelling of the host, and this machine's name server (/etc/resolv.conf)"
    if kind == "refused":
        return "nothing listens on that port; check the port, and whether the registry is running"
    if kind == "plain-http":
        return "if it is meant to be plain http, use --plain-http"
    if step in ("connection", "TLS"):
        return _SLOW
    return "something on the way cuts connections, or it is not a registry; check its log, and proxies in between"


def _answer(step: str, error: RegistryError, host: str, known: bool) -> str:
    if isinstance(error, RateLimited):
        return "wait, or log in; users who log in may fetch more"
    if isinstance(error, (Unauthorized, Denied)):
        if known:
            return f"the credentials were refused, or do not allow this; log in again: ocidist login {host}"
        return f"log in: ocidist login {host}"
    if isinstance(error, NotFound):
        if step == "/v2/":
            return "no registry answers there; check the host and the port, and override_path in hosts.toml"
        if step == "manifest":
            return "check the spelling; `ocidist tags` lists the tags; a private repository needs a login"
        return "the registry has lost a part of the image; push it again"
    if error.status >= 500:
        return "the registry has failed; try again later, or ask its owner"
    return "ask the registry's owner"
