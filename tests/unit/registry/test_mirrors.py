"""Several hosts for one registry: what each is sent, who is asked next, and whose credentials go where."""

from __future__ import annotations

from typing import Any, Callable

import pytest

from ocidist.content.verify import MemoryBody
from ocidist.errors import (
    DeadlineExceeded,
    InvalidManifest,
    NotFound,
    OcidistError,
    RegistryError,
    TransportError,
    Unsupported,
)
from ocidist.net.message import Headers, Request
from ocidist.progress import Retrying
from ocidist.remotes.registry.client import RegistryRemote
from ocidist.remotes.registry.hosts_toml import CAPABILITIES, Endpoint
from ocidist.remotes.registry.mirrors import EndpointTransport, Mirrored, Place, is_own
from ocidist.remotes.registry.session import RegistrySession
from ocidist.scope import Scope
from ocidist.spec.descriptor import Descriptor
from ocidist.spec.digest import Digest
from tests.parts.scripted import ScriptedResponse, ScriptedTransport
from tests.unit.registry.fake import FakeRegistry, QuickScope, read

TARGET = Descriptor("application/vnd.oci.image.layer.v1.tar", Digest.of(b"x"), 1)
ENDPOINT = Endpoint("https://m.example/proxy/v2", header=(("X-Key", "k"),))


def sent(url: str, endpoint: Endpoint = ENDPOINT, namespace: str = "registry.example:5000") -> Request:
    inner = ScriptedTransport([ScriptedResponse(200)])
    EndpointTransport(inner, endpoint, "m.example", namespace).send(Request("GET", url, Headers()), Scope())
    return inner.requests[0]


@pytest.mark.parametrize(
    ("asked", "goes"),
    [
        (
            "https://m.example/v2/a/tags/list?n=9",
            "https://m.example/proxy/v2/a/tags/list?n=9&ns=registry.example:5000",
        ),
        ("https://m.example/v2/", "https://m.example/proxy/v2/?ns=registry.example:5000"),
        (
            "https://m.example/proxy/v2/a?ns=registry.example:5000",
            "https://m.example/proxy/v2/a?ns=registry.example:5000",
        ),
        ("https://auth.example/token?x=1", "https://auth.example/token?x=1"),
        ("https://m.example:444/v2/", "https://m.example:444/v2/"),
    ],
)
def test_requests_to_an_endpoint_get_its_path_its_header_and_the_registrys_name(
    asked: str, goes: str
) -> None:
    """Others, to token servers and where redirects lead, get none of it."""
    request = sent(asked)
    assert request.url == goes
    assert ("X-Key" in request.headers) == ("ns=" in goes)


@pytest.mark.parametrize(
    ("url", "goes"),
    [
        (
            "https://m.example/v2/proxy/a/tags/list?last=1",
            "https://m.example/v2/proxy/a/tags/list?last=1&ns=r.example",
        ),
        ("https://m.example/v2/a/blobs/x", "https://m.example/v2/a/blobs/x"),
        ("https://m.example/v2/proxyish/x", "https://m.example/v2/proxyish/x"),
        ("https://m.example/storage?sig=s", "https://m.example/storage?sig=s"),
    ],
)
def test_what_an_endpoint_leads_to_keeps_its_path(url: str, goes: str) -> None:
    """Its own redirects and links have whole paths. A storage beside it is not told for which registry it is asked."""
    inner = ScriptedTransport([ScriptedResponse(200)])
    endpoint = EndpointTransport(inner, Endpoint("https://m.example/v2/proxy"), "m.example", "r.example")
    endpoint.send(Request("GET", url, Headers(), placed=True), Scope())
    assert inner.requests[0].url == goes


def under_a_path(*answers: ScriptedResponse) -> tuple[RegistryRemote, ScriptedTransport]:
    """A registry at m.example/v2/proxy that answers so."""
    inner = ScriptedTransport([*answers])
    session = RegistrySession(
        EndpointTransport(inner, Endpoint("https://m.example/v2/proxy"), "m.example", ""), attempts=1
    )
    return RegistryRemote(session, "m.example/a"), inner


def test_pages_of_a_registry_under_a_path_are_where_its_links_lead() -> None:
    """The path is not put in front of itself, whether the link is absolute or not."""
    remote, inner = under_a_path(
        ScriptedResponse(200, b'{"tags":["1"]}', [("Link", '</v2/proxy/a/tags/list?last=1>; rel="next"')]),
        ScriptedResponse(
            200, b'{"tags":["2"]}', [("Link", '<https://m.example/v2/proxy/a/tags/list?last=2>; rel="next"')]
        ),
        ScriptedResponse(200, b'{"tags":["3"]}'),
    )
    assert list(remote.tags(QuickScope())) == ["1", "2", "3"]
    assert {request.url.partition("?")[0] for request in inner.requests} == {
        "https://m.example/v2/proxy/a/tags/list"
    }


def test_a_redirect_of_a_registry_under_a_path_leads_where_it_says() -> None:
    """Also out of that path, on the same host."""
    remote, inner = under_a_path(
        ScriptedResponse(307, headers=[("Location", "/v2/store/x")]), ScriptedResponse(200, b"x")
    )
    assert read(remote.open(TARGET, QuickScope())) == b"x"
    assert [request.url for request in inner.requests] == [
        f"https://m.example/v2/proxy/a/blobs/{TARGET.digest}",
        "https://m.example/v2/store/x",
    ]


def test_a_path_may_replace_v2_altogether() -> None:
    """With override_path; the registry itself is not told its own name."""
    assert sent("https://m.example/v2/a", Endpoint("https://m.example/"), "").url == "https://m.example/a"


def test_whose_own_an_endpoint_is() -> None:
    """The registry's by its name, and Docker Hub's by the name of the host that answers for it."""
    assert is_own(Endpoint(), "any.example")
    assert is_own(Endpoint("https://registry-1.docker.io/v2"), "docker.io")
    assert is_own(Endpoint("http://a.example:5000/v2"), "A.example:5000")
    assert not is_own(ENDPOINT, "docker.io")


class Guarded(FakeRegistry):
    """m.example, which redirects to what the blob's name stands for, and whatever else answers."""

    def elsewhere(self, request: Request) -> Any:
        return ScriptedResponse(200, b"layer")


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("https://m.example/v2/a/blobs/layer", True),
        ("https://m.example:444/v2/a/layer", True),
        ("https://other.example/layer", True),
        ("http://m.example/v2/a/layer", False),
    ],
)
@pytest.mark.parametrize("way", ["foreign", "redirect", "realm"])
def test_i75_a_configured_header_goes_to_the_endpoint_alone(url: str, asked: bool, way: str) -> None:
    """Not to a foreign URL, a realm or another origin, be it the same host: the whole origin and who asked for it decide."""
    fake = Guarded("m.example", guard="bearer" if way == "realm" else "")
    fake.realm = url if way == "realm" else fake.realm
    digest = fake.add_blob(b"layer") if way != "foreign" else Digest.of(b"layer")
    if way == "redirect":
        fake.blob = lambda request, name: (  # type: ignore[method-assign]
            ScriptedResponse(200, b"layer")
            if request.url == url
            else ScriptedResponse(307, headers=[("Location", url)])
        )
    transport = EndpointTransport(
        fake.transport, Endpoint("https://m.example/v2", header=(("X-Key", "k"),)), "m.example", ""
    )
    remote = RegistryRemote(RegistrySession(transport, attempts=1), "m.example/a")
    target = Descriptor("application/vnd.oci.image.layer.v1.tar", digest, 5, urls=(url,))
    try:
        remote.open(target, QuickScope()).close()
        assert asked
    except OcidistError:
        assert not asked or way != "redirect"
    led = [request for request in fake.transport.requests if request.url.startswith(url)]
    assert bool(led) is asked
    same = way == "redirect" and url.startswith("https://m.example/")
    for request in fake.transport.requests:
        own = request not in led or same
        assert ("X-Key" in request.headers) is own
        assert bool(request.led_by) is not own
        assert request.certified is (own or (way == "realm" and url.startswith("https://m.example/")))


class Host(RegistryRemote):
    """A place that answers as it is told, and notes what it is asked."""

    def __init__(self, host: str, *answers: object) -> None:
        self.host, self.answers, self.asked = host, list(answers), 0

    def _next(self) -> Any:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def resolve(self, *_: Any, **__: Any) -> Any:
        return self._next()

    def open(self, *_: Any, **__: Any) -> Any:
        return self._next()

    def tags(self, scope: Scope) -> Any:
        yield from self._next()


def mirrored(
    *hosts: Host, capabilities: Callable[[Host], frozenset[str]] = lambda _: CAPABILITIES
) -> Mirrored:
    return Mirrored("registry.example/a", [Place(host, capabilities(host)) for host in hosts])


def missing(host: str) -> NotFound:
    return NotFound("GET", f"https://{host}/v2/", 404)


def test_the_next_is_asked_where_one_fails_and_it_is_said() -> None:
    """A failure of the network, a refusal, then the answer; the last one's error is the error."""
    first, second = Host("one", TransportError("one", "connection refused")), Host("two", missing("two"))
    scope = QuickScope()
    assert mirrored(first, second, Host("three", "found")).resolve("1", scope) == "found"
    assert [event.why for event in scope.events if isinstance(event, Retrying)] == [
        "one: connection refused; asking two",
        "two: it answered 404; asking three",
    ]
    with pytest.raises(NotFound, match="two"):
        mirrored(first, second).resolve("1", QuickScope())


def test_only_those_with_the_capability_are_asked() -> None:
    """One that may be pulled from is not asked what a tag is; where none may, that is said."""
    only = Host("pull", MemoryBody(b"x"))
    both = Host("own", "found")
    source = mirrored(
        only, both, capabilities=lambda host: frozenset({"pull"}) if host is only else CAPABILITIES
    )
    assert source.resolve("1", QuickScope()) == "found"
    assert read(source.open(TARGET, QuickScope())) == b"x"
    assert (only.asked, both.asked) == (1, 1)
    with pytest.raises(Unsupported, match="none of its hosts has the capability 'resolve'"):
        mirrored(only, capabilities=lambda _: frozenset({"pull"})).resolve("1", QuickScope())


def test_bytes_that_did_not_do_are_asked_for_at_the_next_place() -> None:
    """Whoever asks for an object again has not been served well; after the last comes the first."""
    one, two = Host("one", MemoryBody(b"1", host="one")), Host("two", MemoryBody(b"2", host="two"))
    source = mirrored(one, two)
    assert [source.open(TARGET, QuickScope()).host for _ in range(3)] == ["one", "two", "one"]  # type: ignore[attr-defined]


def test_tags_are_those_of_the_first_place_that_lists_them() -> None:
    """Also none at all."""
    refuses = Host("one", missing("one"))
    assert list(mirrored(refuses, Host("two", ["a", "b"])).tags(QuickScope())) == ["a", "b"]
    assert list(mirrored(Host("two", []), Host("three", ["c"])).tags(QuickScope())) == []
    with pytest.raises(RegistryError):
        list(mirrored(refuses).tags(QuickScope()))


def cut(*tags: str, error: Exception) -> Any:
    """A list that breaks off."""
    yield from tags
    raise error


def test_i85_a_list_of_tags_that_breaks_off_is_gone_on_with_at_the_next_place() -> None:
    """From its beginning and without a name twice; that is said, and the last place's error names them all."""
    bad = InvalidManifest("tag list", "not JSON")
    hosts = (
        Host("one", cut("a", "b", error=TransportError("one", "reset"))),
        Host("two", cut("b", "z", error=bad)),
        Host("three", ["z", "y", "a", "y"]),
    )
    scope = QuickScope()
    assert list(mirrored(*hosts).tags(scope)) == ["a", "b", "z", "y", "y"]
    assert [event.why for event in scope.events if isinstance(event, Retrying)] == [
        "one: reset; asking two",
        "two: invalid tag list: not JSON; asking three",
    ]
    found = mirrored(
        Host("one", cut("a", error=missing("one"))), Host("two", cut("a", "b", error=missing("two")))
    ).tags(QuickScope())
    assert [next(found), next(found)] == ["a", "b"]
    with pytest.raises(NotFound, match="asked before it: one: it answered 404"):
        next(found)


def test_the_end_of_the_time_is_the_end() -> None:
    """A deadline is no reason to ask the next."""
    last = Host("two", "found")
    with pytest.raises(DeadlineExceeded):
        mirrored(Host("one", DeadlineExceeded("late")), last).resolve("1", QuickScope())
    assert last.asked == 0
