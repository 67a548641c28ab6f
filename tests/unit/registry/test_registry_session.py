"""Redirects, retries and plain http: what one request to a registry may become."""

from __future__ import annotations

from typing import Any, Callable

import pytest

from ocidist.errors import (
    DeadlineExceeded,
    NotFound,
    OcidistError,
    RateLimited,
    RegistryError,
    TransportError,
    Unauthorized,
)
from ocidist.net.message import Headers, Request, Response
from ocidist.progress import Retrying
from ocidist.remotes.registry.credentials import Credential, StaticCredentials
from ocidist.remotes.registry.session import RegistrySession
from ocidist.scope import Scope
from ocidist.spec.digest import Digest
from tests.parts.scripted import ScriptedResponse, ScriptedTransport
from tests.unit.registry.fake import PASSWORD, FunctionTransport, QuickScope, unauthorized

URL = "https://registry.example/v2/a/blobs/x"
ANN = StaticCredentials(Credential("ann", PASSWORD))


def get(url: str = URL, **headers: str) -> Request:
    return Request("GET", url, Headers(headers.items()))


def session(
    *answers: Any, credentials: Any = None, **options: Any
) -> tuple[RegistrySession, ScriptedTransport]:
    transport = ScriptedTransport(list(answers))
    return RegistrySession(transport, credentials, jitter=lambda: 0.5, **options), transport


def to(location: str, status: int = 307) -> ScriptedResponse:
    return ScriptedResponse(status, b"moved", [("Location", location)])


def urls(transport: ScriptedTransport | FunctionTransport) -> list[str]:
    return [request.url for request in transport.requests]


# -- redirects --


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_of_a_get_is_followed(status: int) -> None:
    """Relative or absolute, the answer is that of the last hop."""
    made, transport = session(to("../other?sig=1", status), ScriptedResponse(200, b"there"))
    assert made.send(get(), QuickScope()).read(10) == b"there"
    assert urls(transport)[1] == "https://registry.example/v2/a/other?sig=1"


@pytest.mark.parametrize(
    ("location", "stays"),
    [
        ("https://registry.example/elsewhere", True),
        ("https://registry.example:443/elsewhere", True),
        ("https://registry.example:444/elsewhere", False),
        ("https://blobs.example/x", False),
        ("https://evil.registry.example/x", False),
        ("https://registry.example.evil.example/x", False),
        ("//blobs.example/x", False),
    ],
)
def test_a12_a_redirect_that_changes_the_origin_drops_credentials(location: str, stays: bool) -> None:
    """Authorization and cookies go only to the same scheme, host and port."""
    made, transport = session(
        unauthorized("Basic realm=r"), to(location), ScriptedResponse(200, b"x"), credentials=ANN
    )
    made.send(get(Cookie="c=1", Range="bytes=0-"), QuickScope())
    hop = transport.requests[-1].headers
    assert ("Authorization" in hop) is stays
    assert ("Cookie" in hop) is stays
    assert hop.get("Range") == "bytes=0-"


def test_a12_a_hop_back_does_not_bring_credentials_back() -> None:
    """Once dropped they stay dropped: the way back was chosen by another host."""
    made, transport = session(
        unauthorized("Basic realm=r"),
        to("https://other.example/"),
        to(URL),
        ScriptedResponse(),
        credentials=ANN,
    )
    made.send(get(), QuickScope())
    assert "Authorization" not in transport.requests[-1].headers


@pytest.mark.parametrize(
    "location",
    ["http://registry.example/x", "http://blobs.example/x", "file:///etc/passwd", "ftp://a/x", "data:,x", ""],
)
def test_a12_https_to_http_and_other_schemes_are_refused(location: str) -> None:
    """Nothing is sent there, and nothing is tried again."""
    if not location:
        location = "https://[::1"
    made, transport = session(to(location))
    with pytest.raises(TransportError, match="redirect") as caught:
        made.send(get(), QuickScope())
    assert not caught.value.retryable
    assert len(transport.requests) == 1


def test_a12_a_redirect_loop_is_bounded() -> None:
    """Ten hops, then an error that is not retried."""
    transport = FunctionTransport(lambda request: to(URL))
    with pytest.raises(TransportError, match="redirects"):
        RegistrySession(transport).send(get(), QuickScope())
    assert len(transport.requests) == 11


def test_a12_a_redirect_without_location_is_an_error() -> None:
    """307 with nowhere to go is the answer, as an error."""
    made, _ = session(ScriptedResponse(307))
    with pytest.raises(RegistryError, match="307"):
        made.send(get(), QuickScope())


def test_a13_a_redirect_target_that_answers_401_gets_no_credentials() -> None:
    """Another host's challenge is not answered with the registry's credentials; the registry is asked once more."""
    answers = (to("https://blobs.example/x"), unauthorized('Basic realm="give me"'))
    made, transport = session(*answers, *answers, credentials=ANN)
    with pytest.raises(Unauthorized, match="no credentials are sent to another host"):
        made.send(get(), QuickScope())
    assert all("Authorization" not in request.headers for request in transport.requests)


def test_a_signed_url_that_has_expired_is_signed_again() -> None:
    """The registry is asked for another, once; the answer is that of the new place."""
    old, new = (to(f"https://blobs.example/x?X-Amz-Date={date}") for date in (1, 2))
    made, transport = session(old, ScriptedResponse(403), new, ScriptedResponse(200))
    assert made.send(get(), QuickScope()).status == 200
    assert [request.url[-1] for request in transport.requests[1::2]] == ["1", "2"]


def test_b29_a_signed_redirect_is_not_shown() -> None:
    """The error names the host that answered, not its signature."""
    answers = (to("https://blobs.example/x?X-Amz-Signature=" + PASSWORD), ScriptedResponse(403))
    made, _ = session(*answers, *answers)
    with pytest.raises(RegistryError) as caught:
        made.send(get(), QuickScope())
    assert "blobs.example" in str(caught.value)
    assert PASSWORD not in repr(caught.value)


# -- retries --


def test_a18_a_proxy_that_wants_a_password_is_told_from_the_registry() -> None:
    """To a plain http request it answers in the registry's place."""
    made, _ = session(ScriptedResponse(407))
    with pytest.raises(
        RegistryError, match="answered 407: a proxy on the way wants another user and password"
    ):
        made.send(get(), QuickScope())


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 599])
def test_a8_what_may_pass_is_tried_five_times(status: int) -> None:
    """With growing pauses, reported each time; then the last answer is the error."""
    transport = FunctionTransport(lambda request: ScriptedResponse(status))
    scope = QuickScope()
    digest = Digest.of(b"x")
    with pytest.raises(RegistryError) as caught:
        RegistrySession(transport, jitter=lambda: 0.5).send(get(), scope, digest=digest)
    assert caught.value.status == status
    assert len(transport.requests) == 5
    assert scope.slept == [0.5, 1.0, 2.0, 4.0]
    assert [(event.digest, event.attempt) for event in scope.events] == [(digest, n) for n in (2, 3, 4, 5)]
    assert all(isinstance(event, Retrying) for event in scope.events)


@pytest.mark.parametrize("status", [400, 404, 405, 410, 501])
def test_what_will_not_pass_is_not_tried_again(status: int) -> None:
    """One request, one error."""
    made, transport = session(ScriptedResponse(status))
    with pytest.raises(RegistryError):
        made.send(get(), QuickScope())
    assert len(transport.requests) == 1


def test_jitter_spreads_the_pauses() -> None:
    """From half of the pause to one and a half."""
    for factor, expected in ((0.0, 0.25), (1.0, 0.75)):
        transport = ScriptedTransport([ScriptedResponse(503), ScriptedResponse(200)])
        scope = QuickScope()
        RegistrySession(transport, jitter=lambda factor=factor: factor).send(get(), scope)  # type: ignore[misc]
        assert scope.slept == [expected]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("7", 7.0),
        ("100000", 60.0),
        ("9" * 400, 60.0),
        ("-7", 0.5),
        ("soon", 0.5),
        ("Thu, 01 Jan 1970 00:01:55 GMT", 15.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
    ],
)
def test_a8_retry_after_is_followed_within_bounds(value: str, expected: float) -> None:
    """Seconds and dates up to a minute; nonsense means the usual pause."""
    made, _ = session(
        ScriptedResponse(429, headers=[("Retry-After", value)]),
        ScriptedResponse(200),
        wall_clock=lambda: 100.0,
    )
    scope = QuickScope()
    made.send(get(), scope)
    assert scope.slept == [expected]


def test_a8_a_pause_ends_with_the_scope() -> None:
    """A deadline is not slept past."""
    transport = FunctionTransport(lambda request: ScriptedResponse(503, headers=[("Retry-After", "60")]))
    with pytest.raises(DeadlineExceeded), Scope.within(0.05) as scope:
        RegistrySession(transport).send(get(), scope)
    assert len(transport.requests) == 1


def test_a8_rate_limits_tell_their_pause() -> None:
    """The final error carries Retry-After."""
    transport = FunctionTransport(lambda request: ScriptedResponse(429, headers=[("Retry-After", "9")]))
    with pytest.raises(RateLimited) as caught:
        RegistrySession(transport).send(get(), QuickScope())
    assert caught.value.retry_after == 9.0
    assert str(caught.value).endswith("answered 429: it limits requests; try again later")


def test_a8_an_anonymous_client_at_its_limit_is_told_to_log_in() -> None:
    """Who has no credentials may be let in more often with some."""
    token = ScriptedResponse(200, b'{"token":"anyone"}')
    full = [ScriptedResponse(429) for _ in range(5)]
    made, _ = session(unauthorized('Bearer realm="https://auth.example/t"'), token, *full)
    with pytest.raises(RateLimited, match=r"or log in: ocidist login registry.example"):
        made.send(get(), QuickScope())


def test_a1_a_body_that_is_wanted_whole_is_asked_for_again() -> None:
    """With ``limit`` a drop in the body is a failure as one before it; without, it is the reader's."""
    made, transport = session(ScriptedResponse(200, b"wh", announced=5), ScriptedResponse(200, b"whole"))
    scope = QuickScope()
    answer = made.send(get(), scope, limit=5)
    buffer = bytearray(3)
    assert answer.readinto(memoryview(buffer)) == 3
    assert (bytes(buffer), answer.read(5), answer.length, len(scope.slept)) == (b"who", b"whole", 5, 1)
    made, transport = session(ScriptedResponse(200, b"wh", announced=5))
    with pytest.raises(TransportError):
        made.send(get(), QuickScope()).read(5)
    assert len(transport.requests) == 1


def test_a1_a_body_that_always_breaks_off_is_asked_for_five_times() -> None:
    """In all: one count for what fails before, in and behind the head of an answer."""
    answers = [ScriptedResponse(503), *(ScriptedResponse(200, b"wh", announced=5) for _ in range(4))]
    made, transport = session(*answers)
    with pytest.raises(TransportError):
        made.read(get(), QuickScope(), 5)
    assert len(transport.requests) == 5


def test_failures_of_the_network_are_retried_if_they_may_pass() -> None:
    """A reset is; a refused certificate is not."""
    made, transport = session(TransportError("registry.example", "reset"), ScriptedResponse(200))
    made.send(get(), QuickScope())
    assert len(transport.requests) == 2
    made, transport = session(TransportError("registry.example", "certificate refused", False))
    with pytest.raises(TransportError):
        made.send(get(), QuickScope())
    assert len(transport.requests) == 1


def test_what_is_not_idempotent_is_not_sent_twice() -> None:
    """A POST that may have been carried out is not repeated; one that was refused with 429 is."""
    made, transport = session(TransportError("registry.example", "reset"))
    with pytest.raises(TransportError):
        made.send(Request("POST", URL), QuickScope())
    assert len(transport.requests) == 1
    made, transport = session(ScriptedResponse(503))
    with pytest.raises(RegistryError):
        made.send(Request("POST", URL), QuickScope())
    made, transport = session(ScriptedResponse(429), ScriptedResponse(202))
    assert made.send(Request("POST", URL), QuickScope()).status == 202
    made, transport = session(ScriptedResponse(503), ScriptedResponse(202))
    assert made.send(Request("POST", URL), QuickScope(), idempotent=True).status == 202


def test_a_redirect_is_resolved_anew_at_each_attempt() -> None:
    """A signed URL that fails is not reused: the registry is asked for another."""
    made, transport = session(
        to("https://blobs.example/1"),
        ScriptedResponse(503),
        to("https://blobs.example/2"),
        ScriptedResponse(200),
    )
    made.send(get(), QuickScope())
    assert urls(transport) == [URL, "https://blobs.example/1", URL, "https://blobs.example/2"]


def test_unwanted_answers_are_closed() -> None:
    """Every answer but the last is read and closed, so that its connection serves again."""
    answers = [unauthorized("Basic realm=r"), ScriptedResponse(503), to("/x"), ScriptedResponse(200, b"x")]
    made, _ = session(*answers, credentials=ANN)
    made.send(get(), QuickScope())
    assert [bool(answer.closed) for answer in answers] == [True, True, True, False]


def test_h70_an_endless_error_body_is_not_read() -> None:
    """What is over a mebibyte is dropped, and the status is the error."""

    def endless() -> Any:
        while True:
            yield b"x" * 65536

    made, _ = session(ScriptedResponse(404, endless()))
    with pytest.raises(NotFound):
        made.send(get(), QuickScope())


# -- plain http --


def plain_server(*, tls: Callable[[Request], BaseException]) -> FunctionTransport:
    """Answers http, and fails https as ``tls`` says."""

    def answer(request: Request) -> Response | BaseException:
        return tls(request) if request.url.startswith("https:") else ScriptedResponse(200, b"{}")

    return FunctionTransport(answer)


@pytest.mark.parametrize("host", ["localhost:5000", "127.0.0.1:5000", "[::1]:5000", "localhost"])
@pytest.mark.parametrize(
    "error",
    [
        TransportError("h", "does not speak TLS on this port", False, kind="plain-http"),
        TransportError("h", "connection refused", kind="refused"),
        TransportError("h", "the connection was closed in the TLS handshake", kind="hung-up"),
    ],
)
def test_loopback_falls_to_http_where_nobody_speaks_tls(host: str, error: TransportError) -> None:
    """https is tried first, once; then the host is remembered."""
    transport = plain_server(tls=lambda request: error)
    made = RegistrySession(transport)
    for _ in range(2):
        made.send(get(f"https://{host}/v2/"), QuickScope())
    assert urls(transport) == [f"https://{host}/v2/", f"http://{host}/v2/", f"http://{host}/v2/"]


@pytest.mark.parametrize("host", ["registry.example", "localhost.evil.example", "127.0.0.1.evil.example"])
def test_a19_other_hosts_never_fall_to_http(host: str) -> None:
    """Whatever goes wrong with TLS, no request leaves in the clear."""
    transport = plain_server(
        tls=lambda request: TransportError(host, "does not speak TLS on this port", False, kind="plain-http")
    )
    with pytest.raises(TransportError):
        RegistrySession(transport).send(get(f"https://{host}/v2/"), QuickScope())
    assert urls(transport) == [f"https://{host}/v2/"]


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("certificate refused: self-signed", "certificate"),
        ("TLS: unsupported protocol", "tls"),
        ("no such host", "resolve"),
    ],
)
def test_a19_a_refused_certificate_never_falls_to_http(reason: str, kind: Any) -> None:
    """Not even on loopback."""
    transport = plain_server(tls=lambda request: TransportError("localhost:5000", reason, False, kind=kind))
    with pytest.raises(TransportError, match=reason.partition(":")[0]):
        RegistrySession(transport).send(get("https://localhost:5000/v2/"), QuickScope())
    assert len(transport.requests) == 1


def test_a19_a_host_known_to_speak_tls_stays_there() -> None:
    """After one https answer, a later failure of TLS is an error."""
    down = False

    def answer(request: Request) -> Response | BaseException:
        error = TransportError("localhost", "does not speak TLS", False, kind="plain-http")
        return error if down else ScriptedResponse(200)

    transport = FunctionTransport(answer)
    made = RegistrySession(transport)
    made.send(get("https://localhost/v2/"), QuickScope())
    down = True
    with pytest.raises(TransportError):
        made.send(get("https://localhost/v2/"), QuickScope())
    assert all(url.startswith("https:") for url in urls(transport))


def test_hosts_named_plain_are_spoken_to_in_plain_http() -> None:
    """By name, and all of them with True; others stay with https."""
    made, transport = session(*[ScriptedResponse() for _ in range(3)], plain_http=["Reg.lan:5000"])
    made.send(get("https://reg.lan:5000/v2/"), QuickScope())
    made.send(get("https://reg.lan/v2/"), QuickScope())
    everywhere = RegistrySession(transport, plain_http=True)
    everywhere.send(get("https://reg.lan/v2/"), QuickScope())
    assert urls(transport) == ["http://reg.lan:5000/v2/", "https://reg.lan/v2/", "http://reg.lan/v2/"]


def test_docker_hub_is_reached_at_its_own_host() -> None:
    """docker.io in, registry-1.docker.io out."""
    made, transport = session(ScriptedResponse())
    made.send(get("https://docker.io/v2/library/redis/manifests/7?x=1"), QuickScope())
    assert urls(transport) == ["https://registry-1.docker.io/v2/library/redis/manifests/7?x=1"]


def test_the_callers_request_is_left_as_it_is() -> None:
    """Authorization is set on a copy."""
    made, _ = session(unauthorized("Basic realm=r"), ScriptedResponse(), credentials=ANN)
    request = get()
    made.send(request, QuickScope())
    assert request.headers.items() == []


def test_a7_no_encoding_is_asked_for() -> None:
    """Accept-Encoding: identity on every request."""
    made, transport = session(ScriptedResponse())
    made.send(get(), QuickScope())
    assert transport.requests[0].headers.get("Accept-Encoding") == "identity"


def test_a13_fetch_sends_no_credentials_whatever_it_is_given() -> None:
    """A request to any URL is stripped of them."""
    made, transport = session(ScriptedResponse(), credentials=ANN)
    made.fetch(get("https://elsewhere.example/x", Authorization="Basic eA==", Cookie="c"), QuickScope())
    assert {name.lower() for name, _ in transport.requests[0].headers} == {"accept-encoding"}


def test_only_our_errors_come_out() -> None:
    """Whatever a peer sends, it is an OcidistError."""
    for status, name, value in (
        (307, "Location", "\x00"),
        (307, "Location", "http://["),
        (302, "Location", "https://h:99999999/"),
        (401, "WWW-Authenticate", "\x00"),
        (401, "WWW-Authenticate", 'Bearer realm="https://[::1"'),
    ):
        transport = FunctionTransport(lambda request: ScriptedResponse(status, headers=[(name, value)]))  # noqa: B023
        with pytest.raises(OcidistError):
            RegistrySession(transport).send(get(), QuickScope())
