"""A repository of a registry as a Source, and a registry as a whole.

Source: OCI distribution specification, "Pull" and "Content Discovery". As few requests as the protocol
allows: no probe of ``/v2/``, one GET for a tag, one for a blob. On Docker Hub a tag is looked up with HEAD,
since there each GET of a manifest counts as a pull.
"""

from __future__ import annotations

from contextlib import closing, suppress
from typing import Iterator

from ocidist.content.protocols import Body
from ocidist.content.verify import MemoryBody
from ocidist.errors import (
    DigestMismatch,
    InvalidDigest,
    InvalidManifest,
    NotFound,
    RegistryError,
    SizeMismatch,
    TransportError,
    quoted,
)
from ocidist.net.message import Headers, Request, Response
from ocidist.redaction import SECRETS
from ocidist.remotes.protocols import Origin
from ocidist.remotes.registry import wire
from ocidist.remotes.registry.body import ask
from ocidist.remotes.registry.session import RegistrySession
from ocidist.scope import Scope
from ocidist.spec import manifest as manifests
from ocidist.spec import mediatype
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from ocidist.spec.document import MAX_SIZE

__all__ = ["Registry", "RegistryRemote"]

_PAGE = 1000  # names asked for at a time
_MAX_PAGES = 10_000
_COUNTS_PULLS = frozenset({"docker.io"})


class RegistryRemote:
    """One repository. ``name`` is its normalised name, host first: ``docker.io/library/redis``.

    Threads may share it. Nothing is sent before the first call.
    """

    def __init__(self, session: RegistrySession, name: str) -> None:
        self.session = session
        self.name = name
        self.host, _, self.repository = name.partition("/")

    def __repr__(self) -> str:
        return f"RegistryRemote({self.name!r})"

    def origin(self, target: Descriptor) -> Origin:
        """Return this repository: whatever is read from it is there."""
        return Origin(self.host, self.repository)

    # -- Source --

    def resolve(
        self, name: str, scope: Scope, *, need_bytes: bool = False, hint: str | None = None
    ) -> tuple[Descriptor, bytes | None]:
        """Return what a tag or digest ("" is ``latest``) stands for, and a manifest's bytes, verified, if they came.

        One request; where GETs count as pulls that is a HEAD, and the bytes are None unless ``need_bytes``.
        A ``hint`` of a manifest's media type limits what a tag is asked for, and tells where a digest is looked up;
        another hint asks for a blob first (HEAD), then for a manifest. A blob's media type is the hint, or
        ``application/octet-stream``; its size is negative where the registry does not tell it.
        Raises NotFound, DigestMismatch, InvalidManifest, Unsupported.
        """
        name = name or "latest"
        pinned = Digest(name) if ":" in name else None
        document = hint is not None and mediatype.kind(hint) in ("manifest", "index")
        media_types = (mediatype.base(hint),) if hint is not None and document else ()
        if pinned is not None and hint is not None and not document:
            blob = self._blob(pinned, hint, scope)
            return (blob, None) if blob is not None else self._manifest(name, pinned, scope, ())
        try:
            if pinned is None and not need_bytes and hint is None and self.host in _COUNTS_PULLS:
                found = self._head(name, scope, media_types)
                if found is not None:
                    return found, None
            return self._manifest(name, pinned, scope, media_types)
        except NotFound as error:
            raise (self._without_tag(name, error, scope) if pinned is None else error) from error.__cause__

    def open(self, target: Descriptor, scope: Scope, *, offset: int = 0, length: int | None = None) -> Body:
        """Return one answer with the bytes of ``target``, from ``offset`` if the registry can. A negative size is unknown.

        Nothing is tried twice. Manifests and indices come from ``/manifests/``, anything else from ``/blobs/``. A foreign
        layer that the registry does not have is asked for at its ``urls``, without credentials.
        """
        if target.data is not None:
            return MemoryBody(target.data, offset, None if length is None else offset + length)
        if length == 0 or 0 <= target.size <= offset:
            return _Nothing(target, offset)
        document = mediatype.kind(target.media_type) in ("manifest", "index")
        locate = wire.manifest_url if document else wire.blob_url
        url = locate(self.host, self.repository, target.digest)

        def request(asked: str) -> Response:
            headers = _headers(range_=asked, accept=(target.media_type,) if document else ())
            return self.session.send(
                Request("GET", url, headers), scope, repository=self.repository, expect=(416,), tries=1
            )

        try:
            return ask(request, self.host, target, scope, offset=offset, length=length, ranges=not document)
        except NotFound as missing:
            if document or not target.urls:
                raise
            return self._foreign(target, scope, offset, length, missing)

    def _foreign(
        self, target: Descriptor, scope: Scope, offset: int, length: int | None, missing: NotFound
    ) -> Body:
        last: RegistryError | TransportError = missing
        for url in target.urls[:8]:
            clean = wire.clean_url(url, url)
            if wire.origin_of(clean) is None:
                continue

            def request(asked: str, url: str = clean) -> Response:
                led = Request("GET", url, _headers(range_=asked), led_by=self.session.address(self.host))
                return self.session.fetch(led, scope, expect=(416,), tries=1)

            try:
                return ask(request, wire.host_of(clean), target, scope, offset=offset, length=length)
            except (RegistryError, TransportError) as error:
                last = error
        raise last

    # -- beside the protocol --

    def ping(self, scope: Scope) -> None:
        """As :meth:`Registry.ping`, of this repository's registry."""
        Registry(self.session, self.host).ping(scope)

    def tags(self, scope: Scope) -> Iterator[str]:
        """Every tag, in the registry's order, a page at a time."""
        url = wire.tags_url(self.host, self.repository, _PAGE)
        for page in _pages(self.session, url, scope, repository=self.repository):
            try:
                found = wire.parse_tags(page)
            except InvalidManifest as error:
                raise _about(error, self.name) from None
            yield from found

    # -- requests --

    def _without_tag(self, tag: str, error: NotFound, scope: Scope) -> NotFound:
        """``error``, in other words where one more request tells which tags there are."""
        if not self.session.patient:  # another host is asked next
            return error
        request = Request(
            "GET", wire.tags_url(self.host, self.repository, _PAGE), Headers([("Accept", "application/json")])
        )
        try:
            response = self.session.send(
                request, scope, repository=self.repository, limit=wire.PAGE_LIMIT, tries=1
            )
            with closing(response):
                there = wire.parse_tags(response.read(wire.PAGE_LIMIT))
        except Exception:  # noqa: BLE001 - whatever goes wrong with it, the first error is reported
            scope.check()
            return error
        if tag in there:
            return error
        return error.worded(f"no tag {quoted(tag)} in {self.name}; {_listed(tag, there)}")

    def _send(
        self,
        method: str,
        url: str,
        headers: Headers,
        scope: Scope,
        *,
        expect: tuple[int, ...] = (),
    ) -> Response:
        return self.session.send(
            Request(method, url, headers), scope, repository=self.repository, expect=expect
        )

    def _head(self, name: str, scope: Scope, media_types: tuple[str, ...]) -> Descriptor | None:
        """What HEAD says of a manifest; None where it says too little to go by."""
        headers = _headers(accept=media_types or mediatype.ACCEPT)
        url = wire.manifest_url(self.host, self.repository, name)
        response = self._send("HEAD", url, headers, scope, expect=(400, 405, 501))
        response.close()
        size = wire.length_of(response.headers.get("Content-Length"))
        digest = _digest_of(response)
        media_type = mediatype.base(response.headers.get("Content-Type") or "")
        known = mediatype.kind(media_type) in ("manifest", "index")
        if response.status != 200 or not known or digest is None or not size:
            return None
        return Descriptor(media_type, digest, size)

    def _manifest(
        self, name: str, pinned: Digest | None, scope: Scope, media_types: tuple[str, ...]
    ) -> tuple[Descriptor, bytes]:
        """GET of a manifest: read whole, checked against its digests, then parsed."""
        headers = _headers(accept=media_types or mediatype.ACCEPT)
        url = wire.manifest_url(self.host, self.repository, name)
        response, raw = self.session.read(
            Request("GET", url, headers),
            scope,
            MAX_SIZE,
            accept=_acceptable,
            repository=self.repository,
            digest=pinned,
        )
        said = pinned if pinned is not None else _digest_of(response)
        digest = Digest.of(raw, said.algorithm if said is not None else "sha256")
        if said is not None and digest != said:
            with suppress(InvalidManifest):  # signatures are no part of what schema 1's digest is of
                manifests.parse(raw, response.headers.get("Content-Type") or "")
            where = "" if pinned is not None else " (by its Docker-Content-Digest)"
            raise DigestMismatch(said, f"{self.host} sent a manifest with digest {digest}{where}")
        media_type = response.headers.get("Content-Type") or ""
        try:
            parsed = manifests.parse(raw, media_type)
        except InvalidManifest as error:
            known = mediatype.kind(media_type) in ("manifest", "index")
            came = "" if known else f" (it came as {quoted(media_type)})"
            raise _about(error, f"{self.name}{'@' if pinned is not None else ':'}{name}", came) from None
        return parsed.descriptor(digest.algorithm), raw

    def _blob(self, digest: Digest, hint: str, scope: Scope) -> Descriptor | None:
        """What HEAD says of a blob; None for 404 alone. A server without HEAD leaves the size unknown.

        So does a store that the registry redirects to, where its URLs are signed for GET alone.
        """
        request = Request("HEAD", wire.blob_url(self.host, self.repository, digest), _headers())
        try:
            response = self.session.send(
                request,
                scope,
                repository=self.repository,
                expect=(400, 405, 501),
                expect_elsewhere=(403,),
                digest=digest,
            )
        except NotFound:
            return None
        response.close()
        size = wire.length_of(response.headers.get("Content-Length")) if response.status == 200 else None
        return Descriptor(
            mediatype.base(hint) or mediatype.OCTET_STREAM, digest, -1 if size is None else size
        )


class Registry:
    """A registry as a whole. ``host`` is its name: ``docker.io``, ``localhost:5000``."""

    def __init__(self, session: RegistrySession, host: str) -> None:
        self.session, self.host = session, host

    def __repr__(self) -> str:
        return f"Registry({self.host!r})"

    def ping(self, scope: Scope) -> None:
        """Return if the registry takes the session's credentials. Raises Unauthorized, or what stands in the way."""
        request = Request("GET", wire.ping_url(self.host), _headers())
        response = self.session.send(request, scope)
        response.close()

    def catalog(self, scope: Scope) -> Iterator[str]:
        """Every repository that the registry lists, a page at a time. Many registries refuse.

        The scope that a token is asked for is what the registry's challenge names: Quay's names none, and
        its token server refuses ``registry:catalog:*``, which others demand.
        """
        url = wire.catalog_url(self.host, _PAGE)
        for page in _pages(self.session, url, scope):
            try:
                found = wire.parse_catalog(page)
            except InvalidManifest as error:
                raise _about(error, self.host) from None
            yield from found


def _pages(session: RegistrySession, url: str, scope: Scope, *, repository: str = "") -> Iterator[bytes]:
    """The bodies of a listing's pages. A link to another host is followed without credentials."""
    host = wire.host_of(url)
    link: str | None = url
    here, foreign = "", ""
    seen: set[str] = set()
    while link is not None:
        if link in seen or len(seen) >= _MAX_PAGES:
            raise TransportError(
                host, "the pages of the listing link to each other in a circle", False, kind="redirect"
            )
        seen.add(link)
        request = Request(
            "GET",
            link,
            Headers([("Accept", "application/json")]),
            led_by=here if foreign else "",
            placed=bool(here),
        )
        response, page = session.read(
            request, scope, wire.PAGE_LIMIT, accept=_whole, foreign=foreign, repository=repository
        )
        yield page
        here, link = response.url, wire.next_link(response.headers.get_all("Link"), response.url)
        if link is None:
            return
        if not wire.same_origin(here, link):
            foreign = "a link to the next page"
        if not foreign:  # by the registry's own name again: the session knows where that is
            link = f"https://{host}/{link.partition('://')[2].partition('/')[2]}"


def _listed(tag: str, there: tuple[str, ...]) -> str:
    """Which tags there are: those that look like ``tag`` first, then the first ones, five in all."""
    if not there:
        return "there is none"
    from difflib import get_close_matches

    near = get_close_matches(tag, there[:_PAGE], 3)
    shown = list(dict.fromkeys([*near, *there[:5]]))[:5]
    more = f" and {len(there) - len(shown)} more" if len(there) > len(shown) else ""
    return (
        f"there {'is' if len(there) == 1 else 'are'}: {', '.join(quoted(name)[1:-1] for name in shown)}{more}"
    )


def _headers(*, accept: tuple[str, ...] = (), range_: str = "") -> Headers:
    headers = Headers()
    if accept:
        headers.set("Accept", wire.accept(accept))
    if range_:
        headers.set("Range", range_)
    return headers


def _digest_of(response: Response) -> Digest | None:
    """Docker-Content-Digest, if it is a digest that we can compute."""
    try:
        return Digest((response.headers.get("Docker-Content-Digest") or "").strip())
    except InvalidDigest:
        return None


def _about(error: InvalidManifest, name: str, came: str = "") -> InvalidManifest:
    """The same, naming whose document it is."""
    return InvalidManifest(f"{error.what} of {name}", error.reason + came, error.where)


def _whole(response: Response) -> None:
    """Refuse an answer that is encoded, or is none to a GET of the whole, before it is read."""
    encoding = (response.headers.get("Content-Encoding") or "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise _unusable(response, f"Content-Encoding {SECRETS.text(encoding)[:40]!r} was not asked for")
    if response.status in (204, 205, 206):
        raise _unusable(response, "not an answer to a GET of the whole")


def _acceptable(response: Response) -> None:
    """As :func:`_whole`, and no manifest that is too long."""
    _whole(response)
    length = response.length
    if length is not None and length > MAX_SIZE:
        raise _unusable(
            response, f"a manifest of {length} bytes is larger than the {MAX_SIZE >> 20} MiB limit"
        )


def _unusable(response: Response, hint: str) -> RegistryError:
    return RegistryError("GET", wire.redact(response.url), response.status, (), hint)


class _Nothing:
    """The body of no byte: nothing is asked for."""

    host = ""

    def __init__(self, target: Descriptor, offset: int) -> None:
        if 0 <= target.size < offset:
            raise SizeMismatch(target, f"byte {offset} is past its end")
        self.start, self.size = offset, target.size if target.size >= 0 else None

    def readinto(self, buffer: memoryview) -> int:
        return 0

    def close(self) -> None:
        pass
