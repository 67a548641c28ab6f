"""What to do about a step that failed, by the step and the error. Pure."""

from __future__ import annotations

from ocidist.errors import (
    CredentialError,
    DeadlineExceeded,
    Denied,
    NotFound,
    OcidistError,
    PlatformNotFound,
    RateLimited,
    RegistryError,
    TransportError,
    Unauthorized,
)

__all__ = ["advice_for"]

_SLOW = "a firewall may drop what is sent there; if it is only slow, give it more with --connect-timeout"
# Of a refused certificate: what OpenSSL says, and what to do. The first that fits counts.
_CERTIFICATE = (
    ("certificate has expired", "the registry's certificate is past its time; if this machine's clock is right, "
     "its owner has to renew it"),
    ("not yet valid", "set this machine's clock: the certificate begins in its future"),
    ("mismatch", "the certificate is for another name: use a name that it has"),
    ("is not valid for", "the certificate is for another name: use a name that it has"),
    ("no certificate authorities", "install ca-certificates, or pip install certifi"),
    ("certificate refused", "name the authority that signed it: --ca-cert FILE, $SSL_CERT_FILE, or ca in hosts.toml"),
)  # fmt: skip


def advice_for(step: str, error: OcidistError, host: str, *, proxy: str = "", known: bool = False) -> str:
    """One sentence. ``proxy`` is HOST:PORT of one on the way; ``known``: there are credentials for ``host``."""
    if isinstance(error, DeadlineExceeded):
        if step in ("name", "connection"):
            return _transport(step, "", host, proxy)
        return f"{host} took the connection and says nothing; try later, or ask its owner"
    if isinstance(error, PlatformNotFound):
        return "choose one of those with --platform"
    if isinstance(error, CredentialError):
        return f"mend that file or helper, or log in anew: ocidist login {host}"
    if isinstance(error, TransportError):
        return _transport(step, error.reason, host, proxy)
    if isinstance(error, RegistryError):
        return _answer(step, error, host, known)
    return "the registry's content is broken: push the image anew, or ask the registry's owner"


def _transport(step: str, reason: str, host: str, proxy: str) -> str:
    for said, advice in _CERTIFICATE:
        if said in reason:
            return advice
    if proxy and step in ("name", "connection", "TLS"):
        return f"mend the proxy {proxy} ($https_proxy, $http_proxy), or add {host} to $no_proxy"
    if "proxies of kind" in reason or "the proxy's URL" in reason:
        return "set $https_proxy or $http_proxy to http://HOST:PORT, or unset it"
    if "CA file" in reason or "client certificate" in reason:
        return "name a file in PEM form"
    if step == "name":
        return "look at the spelling of the host, and at this machine's name server (/etc/resolv.conf)"
    if "connection refused" in reason:
        return "nobody listens on that port: look at the port, and whether the registry runs"
    if "does not speak TLS" in reason:
        return "if it is meant to be plain http, say --plain-http"
    if step in ("connection", "TLS"):
        return _SLOW
    return "something on the way cuts connections, or it is no registry: look at its log, and at proxies in between"


def _answer(step: str, error: RegistryError, host: str, known: bool) -> str:
    if isinstance(error, RateLimited):
        return "wait, or log in: known users may fetch more"
    if isinstance(error, (Unauthorized, Denied)):
        if known:
            return f"the credentials are refused, or don't reach so far; log in anew: ocidist login {host}"
        return f"log in: ocidist login {host}"
    if isinstance(error, NotFound):
        if step == "/v2/":
            return (
                "no registry answers there: look at the host and the port, and at override_path in hosts.toml"
            )
        if step == "manifest":
            return (
                "look at the spelling; ocidist tags lists what there is; a private repository needs a login"
            )
        return "the registry has lost a part of the image: push it anew"
    if error.status >= 500:
        return "the registry is out of order: try later, or ask its owner"
    return "ask the registry's owner"
