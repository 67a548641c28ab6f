"""Authentication: which credential goes where, how many token requests there are, and what a bad one does."""

from __future__ import annotations

import json
import pickle
import threading
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from ocidist.errors import (
    Cancelled,
    CredentialError,
    Denied,
    OcidistError,
    RegistryError,
    TransportError,
    Unauthorized,
)
from ocidist.net.message import Request, Response
from ocidist.remotes.registry.client import Registry, RegistryRemote
from ocidist.remotes.registry.credentials import Credential, StaticCredentials
from ocidist.scope import Scope
from tests.parts import secrets
from tests.parts.scripted import ScriptedResponse
from tests.parts.watched import shows_a_secret
from tests.unit.registry.fake import PASSWORD, FakeRegistry, QuickScope, read, unauthorized

ANN = StaticCredentials(Credential("ann", PASSWORD))


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Entered:
    """Counts the calls that have come to where they lead a token request, or wait for it."""

    def __init__(self, remote: RegistryRemote) -> None:
        self._usual = remote.session.auth._token
        self._count = 0
        self._changed = threading.Condition()
        remote.session.auth._token = self._token  # type: ignore[assignment,method-assign]

    def _token(self, *args: Any) -> Any:
        with self._changed:
            self._count += 1
            self._changed.notify_all()
        return self._usual(*args)

    def wait(self, count: int) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._count >= count, 5)


def repository(fake: FakeRegistry, credentials: Any = None, **options: Any) -> RegistryRemote:
    fake.add_manifest({"config": None, "layers": []}, "latest")
    return RegistryRemote(fake.session(credentials, **options), f"{fake.host}/team/app")


def token_requests(fake: FakeRegistry) -> list[Request]:
    return [request for request in fake.transport.requests if request.url.startswith(fake.realm)]


def query(request: Request) -> dict[str, list[str]]:
    return parse_qs(urlsplit(request.url).query)


def test_a_cold_pull_asks_for_one_token_and_uses_it_from_then_on() -> None:
    """Manifest, 401, token, manifest; each blob is then one request: no probe, no second 401."""
    fake = FakeRegistry(guard="bearer")
    remote = repository(fake)
    blobs = [fake.add_blob(data) for data in (b"config", b"layer")]
    scope = QuickScope()
    remote.resolve("latest", scope)
    for digest in blobs:
        read(remote.open(_descriptor(digest, fake), scope))
    assert [line.partition("?")[0] for line in fake.transport.lines] == [
        "GET https://registry.example/v2/team/app/manifests/latest",
        "GET https://auth.example/token",
        "GET https://registry.example/v2/team/app/manifests/latest",
        f"GET https://registry.example/v2/team/app/blobs/{blobs[0]}",
        f"GET https://registry.example/v2/team/app/blobs/{blobs[1]}",
    ]
    (asked,) = token_requests(fake)
    assert query(asked) == {"service": ["registry.example"], "scope": ["repository:team/app:pull"]}
    assert "Authorization" not in asked.headers


def test_another_repository_gets_a_token_of_its_own_at_once() -> None:
    """The challenge is known, so the second repository costs no 401."""
    fake = FakeRegistry(guard="bearer")
    one = repository(fake)
    one.resolve("latest", QuickScope())
    count = len(fake.transport.requests)
    RegistryRemote(one.session, f"{fake.host}/other").resolve("latest", QuickScope())
    first, second = fake.transport.requests[count:]
    assert query(first)["scope"] == ["repository:other:pull"]
    assert second.headers.get("Authorization") == "Bearer " + fake.token_of(2)


def test_basic_is_sent_after_the_challenge_and_then_at_once() -> None:
    """One 401, then every request carries the password, to this registry."""
    fake = FakeRegistry(guard="basic")
    remote = repository(fake, ANN)
    remote.resolve("latest", QuickScope())
    remote.resolve("latest", QuickScope())
    sent = [request.headers.get("Authorization") is not None for request in fake.transport.requests]
    assert sent == [False, True, True]


def test_wrong_basic_credentials_are_unauthorized_after_one_try() -> None:
    """The same password is not sent again and again."""
    fake = FakeRegistry(guard="basic")
    remote = repository(fake, StaticCredentials(Credential("ann", "wr0ng")))
    with pytest.raises(Unauthorized) as caught:
        remote.resolve("latest", QuickScope())
    assert len(fake.transport.requests) == 2
    assert "wr0ng" not in repr(caught.value)


def test_anonymous_at_a_basic_registry_says_how_to_log_in() -> None:
    """No credentials, one request, and a hint."""
    fake = FakeRegistry(guard="basic")
    with pytest.raises(Unauthorized, match=r"ocidist login registry\.example"):
        repository(fake).resolve("latest", QuickScope())
    assert len(fake.transport.requests) == 1


def test_credentials_go_to_the_token_server_and_not_to_the_registry() -> None:
    """With Bearer the password is the token server's alone."""
    fake = FakeRegistry(guard="bearer")
    repository(fake, ANN).resolve("latest", QuickScope())
    (asked,) = token_requests(fake)
    assert (asked.headers.get("Authorization") or "").startswith("Basic ")
    assert query(asked)["account"] == ["ann"]
    others = [request for request in fake.transport.requests if request is not asked]
    assert all(not (request.headers.get("Authorization") or "").startswith("Basic") for request in others)


def test_an_identity_token_is_posted() -> None:
    """OAuth2: grant_type=refresh_token in a form, never in a URL."""
    fake = FakeRegistry(guard="bearer")
    fake.token = lambda request: fake.give(["repository:team/app:pull"])  # type: ignore[method-assign]
    repository(fake, StaticCredentials(Credential(identity_token="idt"))).resolve("latest", QuickScope())
    (asked,) = token_requests(fake)
    assert asked.method == "POST"
    assert isinstance(asked.body, bytes)
    form = parse_qs(asked.body.decode())
    assert form["grant_type"] == ["refresh_token"]
    assert form["refresh_token"] == ["idt"]
    assert form["scope"] == ["repository:team/app:pull"]
    assert "idt" not in asked.url


@pytest.mark.parametrize("status", [400, 404, 405])
def test_a_token_server_without_post_is_asked_with_get(status: int) -> None:
    """An identity token with a password beside it falls back to Basic."""
    fake = FakeRegistry(guard="bearer")
    usual = fake.token
    fake.token = (  # type: ignore[method-assign]
        lambda request: ScriptedResponse(status) if request.method == "POST" else usual(request)
    )
    credentials = StaticCredentials(Credential("ann", PASSWORD, "idt"))
    repository(fake, credentials).resolve("latest", QuickScope())
    assert [request.method for request in token_requests(fake)] == ["POST", "GET"]


def test_a_token_server_without_get_is_asked_with_the_password_grant() -> None:
    """405 to GET: user name and password go in a form."""
    fake = FakeRegistry(guard="bearer")
    fake.token = (  # type: ignore[method-assign]
        lambda request: (
            ScriptedResponse(405) if request.method == "GET" else fake.give(["repository:team/app:pull"])
        )
    )
    repository(fake, ANN).resolve("latest", QuickScope())
    body = token_requests(fake)[1].body
    assert isinstance(body, bytes)
    form = parse_qs(body.decode())
    assert (form["grant_type"], form["username"], form["password"]) == (["password"], ["ann"], [PASSWORD])


def test_a_registry_token_is_sent_as_it_is() -> None:
    """registrytoken of Docker's file needs no token server."""
    fake = FakeRegistry(guard="bearer")
    fake.valid["ready"] = {"repository:team/app:pull"}
    repository(fake, StaticCredentials(Credential(registry_token="ready"))).resolve("latest", QuickScope())
    assert token_requests(fake) == []


def test_refused_by_the_token_server_is_unauthorized() -> None:
    """The token server's own words, once, and no password."""
    fake = FakeRegistry(guard="bearer")
    with pytest.raises(Unauthorized, match="incorrect username or password") as caught:
        repository(fake, StaticCredentials(Credential("ann", "wr0ng"))).resolve("latest", QuickScope())
    assert len(token_requests(fake)) == 1
    assert "wr0ng" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (
            403,
            "GET https://auth.example/token[^ ]* answered 403: .*registry.example refused the credentials given for this call .user ann.*",
        ),
        (
            404,
            "POST https://auth.example/token answered 404: .*the token server of registry.example gives no token",
        ),
        (429, "GET .* answered 429: .*the token server of registry.example gives no token"),
    ],
)
def test_a_token_server_that_gives_none_says_why(status: int, said: str) -> None:
    """The method that was answered, and only refusals are about the credentials; a 429 keeps its Retry-After."""
    fake = FakeRegistry(guard="bearer")
    fake.token = lambda request: ScriptedResponse(status, b"{}", [("Retry-After", "9")])  # type: ignore[method-assign]
    with pytest.raises(RegistryError, match=said) as caught:
        repository(fake, ANN).resolve("latest", QuickScope())
    assert getattr(caught.value, "retry_after", 9.0) == 9.0


def test_a1_a_token_that_breaks_off_is_asked_for_again() -> None:
    """After a pause, as any failure of the network; a refusal that breaks off is one all the same."""
    fake = FakeRegistry(guard="bearer")
    usual, cut = fake.token, [ScriptedResponse(200, b'{"tok', announced=40)]
    fake.token = lambda request: cut.pop() if cut else usual(request)  # type: ignore[method-assign]
    scope = QuickScope()
    repository(fake, ANN).resolve("latest", scope)
    assert (scope.slept, len(token_requests(fake))) == ([0.5], 2)
    fake.token = lambda request: ScriptedResponse(403, b"{", announced=40)  # type: ignore[method-assign]
    with pytest.raises(Denied):
        repository(fake, ANN).resolve("latest", QuickScope())


def test_a16_a_token_that_is_asked_for_with_post_may_be_asked_for_twice() -> None:
    """A connection that was closed while it was idle ends no pull."""
    fake = FakeRegistry(guard="bearer")
    ends = [TransportError("auth.example", "the connection was closed without an answer")]

    def token(request: Request) -> Response | BaseException:
        assert request.method == "POST"
        return ends.pop() if ends else fake.give(["repository:team/app:pull"])

    fake.token = token  # type: ignore[assignment,method-assign]
    identity = StaticCredentials(Credential(identity_token="refresh"))
    repository(fake, identity).resolve("latest", QuickScope())
    assert [request.method for request in token_requests(fake)] == ["POST", "POST"]


def test_ping_checks_credentials() -> None:
    """What login does: GET /v2/, answering its challenge."""
    for guard in ("basic", "bearer"):
        Registry(FakeRegistry(guard=guard).session(ANN), "registry.example").ping(QuickScope())
        with pytest.raises(Unauthorized):
            Registry(
                FakeRegistry(guard=guard).session(StaticCredentials(Credential("ann", "no"))),
                "registry.example",
            ).ping(QuickScope())


# -- where credentials do not go --


@pytest.mark.parametrize(
    "realm", ["auth.example", "registry.example", "registry.example:8080", "localhost:1", "plain.lan"]
)
@pytest.mark.parametrize("credential", [None, Credential("ann", PASSWORD), Credential("ann", "", "idt")])
def test_b21_i76_an_http_realm_of_an_https_registry_is_not_asked(
    realm: str, credential: Credential | None
) -> None:
    """Wherever it is, and with no credentials either: what it answered could be anybody's."""
    fake = FakeRegistry(guard="bearer")
    fake.realm = f"http://{realm}/token"
    with pytest.raises(TransportError, match="token server from https to http") as caught:
        repository(
            fake, StaticCredentials(credential) if credential else None, plain_http=["plain.lan"]
        ).resolve("latest", QuickScope())
    assert not caught.value.retryable
    assert token_requests(fake) == []


@pytest.mark.parametrize(
    ("host", "realm", "plain", "goes"),
    [
        ("reg.lan:5000", "http://reg.lan:5001/token", ["reg.lan:5000"], True),
        ("reg.lan:5000", "http://auth.lan/token", ["reg.lan:5000", "auth.lan"], True),
        ("reg.lan:5000", "https://auth.lan/token", ["reg.lan:5000"], True),
        ("reg.lan:5000", "http://auth.lan/token", ["reg.lan:5000"], False),
        ("reg.lan:5000", "http://auth.lan/token", True, False),
        ("reg.lan:5000", "http://127.0.0.1:5001/token", True, True),
    ],
)
def test_a13_credentials_go_to_a_realm_over_https_or_plain_hosts_alone(
    host: str, realm: str, plain: Any, goes: bool
) -> None:
    """A plain-http registry's password goes to its own host, loopback, hosts named plain, or https."""
    fake = FakeRegistry(host, guard="bearer", scheme="http")
    fake.realm = realm
    repository(fake, ANN, plain_http=plain).resolve("latest", QuickScope())
    (asked,) = token_requests(fake)
    assert ("Authorization" in asked.headers) is goes


@pytest.mark.parametrize(
    "realm",
    [
        "ftp://a/t",
        "/token",
        "https:///token",
        "https://u:p@a/t",
        "https://a/t\u00e9",
        "https://a:x/",
        "javascript:1",
    ],
)
def test_a_realm_that_is_no_url_is_refused(realm: str) -> None:
    """Nothing is sent to it."""
    fake = FakeRegistry(guard="bearer")
    fake.realm = realm
    with pytest.raises(TransportError, match="token server"):
        repository(fake, ANN).resolve("latest", QuickScope())
    assert len(fake.transport.requests) == 1


def test_a13_a_redirected_token_request_loses_the_password() -> None:
    """A token server's redirect to another host does not carry Basic credentials there."""
    fake = FakeRegistry(guard="bearer")

    def elsewhere(request: Request) -> Response:
        return fake.give(["repository:team/app:pull"])

    fake.token = lambda request: ScriptedResponse(302, headers=[("Location", "https://evil.example/t")])  # type: ignore[method-assign]
    fake.elsewhere = elsewhere  # type: ignore[method-assign]
    repository(fake, ANN).resolve("latest", QuickScope())
    (asked,) = [request for request in fake.transport.requests if "evil" in request.url]
    assert "Authorization" not in asked.headers


def test_a13_a_post_to_the_token_server_is_not_redirected() -> None:
    """The secret is in the body: a redirect is an error."""
    fake = FakeRegistry(guard="bearer")
    fake.token = lambda request: ScriptedResponse(307, headers=[("Location", "https://evil.example/t")])  # type: ignore[method-assign]
    with pytest.raises(OcidistError):
        repository(fake, StaticCredentials(Credential(identity_token="idt"))).resolve("latest", QuickScope())
    assert all("evil" not in line for line in fake.transport.lines)


def test_credentials_that_cannot_be_read_are_loud() -> None:
    """A corrupt file does not turn into an anonymous pull."""

    class Broken:
        def get(self, *_: Any, **__: Any) -> Credential | None:
            raise CredentialError("config.json", "is not JSON")

    with pytest.raises(CredentialError):
        repository(FakeRegistry(guard="bearer"), Broken()).resolve("latest", QuickScope())


@pytest.mark.parametrize("known", [False, True], ids=["anyone", "ann"])
def test_b23_a_token_that_ran_out_is_renewed_whatever_the_challenge_names(known: bool) -> None:
    """Harbor answers Basic to a refused token: another token is asked for before a password is sent there."""
    fake = FakeRegistry(guard="bearer")
    usual = fake.refusal

    def refusal(request: Request) -> Response | None:
        refused = usual(request)
        tried = "Authorization" in request.headers
        return unauthorized('Basic realm="harbor"') if refused is not None and tried else refused

    fake.refusal = refusal  # type: ignore[method-assign]
    remote = repository(fake, StaticCredentials(Credential("ann", PASSWORD)) if known else None)
    remote.resolve("latest", QuickScope())
    fake.valid.clear()
    remote.resolve("latest", QuickScope())
    assert len(token_requests(fake)) == 2
    sent = [
        r.headers.get("Authorization", "") for r in fake.transport.requests if r not in token_requests(fake)
    ]
    assert not any(value.startswith("Basic") for value in sent if value)


def test_a_basic_challenge_without_credentials_is_final() -> None:
    """No loop: one request, then the registry's own answer."""
    fake = FakeRegistry(guard="basic")
    with pytest.raises(Unauthorized):
        repository(fake).resolve("latest", QuickScope())
    assert len(fake.transport.requests) == 1


def test_the_catalog_is_asked_for_with_the_scope_of_its_challenge() -> None:
    """``registry:catalog:*`` where the registry demands it; none where its challenge names none (Quay)."""
    for named, wanted in (("registry:catalog:*", ["registry:catalog:*"]), ("", None)):
        fake = FakeRegistry(guard="bearer")
        fake.scope_of = lambda request, named=named: named  # type: ignore[method-assign,misc]
        with pytest.raises(OcidistError):  # it has no catalog; that it was let in is enough
            list(Registry(fake.session(), fake.host).catalog(QuickScope()))
        assert [query(request).get("scope") for request in token_requests(fake)] == [wanted]


# -- scopes --


def test_b24_insufficient_scope_is_retried_once_with_merged_scopes() -> None:
    """The registry asks for more than was thought: one more token with both, then success."""
    fake = FakeRegistry(guard="bearer")
    remote = repository(fake)
    usual = fake.refusal

    def refusal(request: Request) -> Response | None:
        refused = usual(request)
        held = fake.valid.get((request.headers.get("Authorization") or "").removeprefix("Bearer "), set())
        if refused is None and "repository:team/base:pull" not in held:
            more = f'Bearer realm="{fake.realm}",service="s",scope="repository:team/base:pull",error="insufficient_scope"'
            return unauthorized(more, 403, "DENIED")
        return refused

    fake.refusal = refusal  # type: ignore[method-assign]
    remote.resolve("latest", QuickScope())
    asked = [query(request)["scope"] for request in token_requests(fake)]
    assert asked[-1] == ["repository:team/app:pull", "repository:team/base:pull"]
    assert len(asked) == 2
    remote.resolve("latest", QuickScope())
    assert len(token_requests(fake)) == 2


@pytest.mark.parametrize("status", [401, 403])
def test_b24_a_scope_that_is_never_enough_ends_with_the_answer_in_full(status: int) -> None:
    """One retry; then the registry's own error."""
    fake = FakeRegistry(guard="bearer")
    challenge = f'Bearer realm="{fake.realm}",scope="repository:team/app:push",error="insufficient_scope"'
    fake.refusal = lambda request: unauthorized(challenge, status, "DENIED")  # type: ignore[method-assign]
    with pytest.raises((Denied, Unauthorized)) as caught:
        repository(fake).resolve("latest", QuickScope())
    assert caught.value.status == status
    assert caught.value.diagnostics == (("DENIED", "authentication required"),)
    assert len(token_requests(fake)) <= 2


def test_b24_scopes_that_grow_forever_are_bounded() -> None:
    """A registry that names a new scope each time is given up on."""
    fake = FakeRegistry(guard="bearer")
    count = iter(range(1000))
    fake.refusal = lambda request: unauthorized(  # type: ignore[method-assign]
        f'Bearer realm="{fake.realm}",scope="repository:x{next(count)}:pull",error="insufficient_scope"'
    )
    with pytest.raises(Unauthorized):
        repository(fake).resolve("latest", QuickScope())
    assert len(fake.transport.requests) < 10


def test_a_plain_403_is_no_matter_of_tokens() -> None:
    """Without insufficient_scope nothing is asked again."""
    fake = FakeRegistry(guard="bearer")
    fake.refusal = lambda request: unauthorized(f'Bearer realm="{fake.realm}"', 403, "DENIED")  # type: ignore[method-assign]
    with pytest.raises(Denied, match="DENIED"):
        repository(fake).resolve("latest", QuickScope())
    assert len(fake.transport.requests) == 1


# -- tokens --


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"",
        b"[]",
        b"null",
        b"{}",
        b'{"token": ""}',
        b'{"token": 7}',
        b'{"token": "a\\r\\nX: y"}',
        b'{"access_token": "a b"}',
        b'{"token": "caf\\u00e9"}',
        b"[" * 100_000,
    ],
)
def test_b25_a_token_that_is_none_is_refused(body: bytes) -> None:
    """Not JSON, no token, or characters that would end the header: an error, and no retry with it."""
    fake = FakeRegistry(guard="bearer")
    fake.token = lambda request: ScriptedResponse(200, body)  # type: ignore[method-assign]
    with pytest.raises(OcidistError):
        repository(fake).resolve("latest", QuickScope())
    assert len(fake.transport.requests) == 2


def test_b25_access_token_is_a_token() -> None:
    """OAuth2's name for it."""
    fake = FakeRegistry(guard="bearer")
    fake.valid["other"] = {"repository:team/app:pull"}
    fake.token = lambda request: ScriptedResponse(200, b'{"access_token": "other"}')  # type: ignore[method-assign]
    repository(fake).resolve("latest", QuickScope())


@pytest.mark.parametrize(
    "life",
    [
        0,
        -5,
        1,
        None,
        "soon",
        True,
        float("1e300"),
        [],
        59.5,
        pytest.param(-(10**400), id="-1e400"),
        pytest.param(10**400, id="1e400"),
    ],
)
def test_b25_a_token_lives_at_least_a_minute(life: Any) -> None:
    """Whatever expires_in says, it serves for 60 seconds; then there is another one."""
    clock = Clock()
    fake = FakeRegistry(guard="bearer")
    usual = fake.give

    def short(request: Request) -> Response:
        return usual(parse_qs(urlsplit(request.url).query)["scope"], expires_in=life)

    fake.token = short  # type: ignore[method-assign]
    remote = repository(fake, clock=clock)
    remote.resolve("latest", QuickScope())
    clock.now += 59
    remote.resolve("latest", QuickScope())
    assert fake.tokens_given == 1
    clock.now += 2
    remote.resolve("latest", QuickScope())
    assert fake.tokens_given == 2


def test_i74_a_token_that_no_header_can_hold_is_refused_at_once() -> None:
    """Searching all that is shown for a mebibyte of escapes took seconds that no time limit ended."""
    fake = FakeRegistry(guard="bearer")
    body = b'{"token": "%s"}' % (b"%41" * (340 << 10))
    fake.token = lambda request: ScriptedResponse(200, body)  # type: ignore[method-assign]
    with pytest.raises(TransportError, match="the token is longer than 65536 characters"):
        repository(fake).resolve("latest", QuickScope())


def test_h70_a_token_body_over_a_mebibyte_is_refused() -> None:
    """It is not read to its end."""
    fake = FakeRegistry(guard="bearer")
    served = []

    def endless() -> Any:
        while True:
            served.append(1)
            yield b" " * 65536

    fake.token = lambda request: ScriptedResponse(200, endless())  # type: ignore[method-assign]
    with pytest.raises(TransportError):
        repository(fake).resolve("latest", QuickScope())
    assert len(served) < 40


def test_a_token_that_the_registry_no_longer_takes_is_replaced() -> None:
    """401 with a cached token: one new token, and the request again."""
    fake = FakeRegistry(guard="bearer")
    remote = repository(fake)
    remote.resolve("latest", QuickScope())
    fake.valid.clear()
    remote.resolve("latest", QuickScope())
    assert fake.tokens_given == 2


def test_a_token_that_is_never_taken_is_unauthorized() -> None:
    """A fresh token that is refused is not asked for again."""
    fake = FakeRegistry(guard="bearer")
    fake.refusal = lambda request: unauthorized(f'Bearer realm="{fake.realm}"')  # type: ignore[method-assign]
    with pytest.raises(Unauthorized):
        repository(fake).resolve("latest", QuickScope())
    assert fake.tokens_given == 1


def test_b30_fifty_threads_share_one_token_request() -> None:
    """One scope, fifty threads: the token server is asked once."""
    fake = FakeRegistry(guard="bearer")
    remote = repository(fake)
    usual, together = fake.token, threading.Barrier(50)
    entered = Entered(remote)
    arrived = threading.Event()

    def slow(request: Request) -> Response:
        arrived.wait(5)
        return usual(request)

    fake.token = slow  # type: ignore[method-assign]
    errors: list[BaseException] = []

    def work() -> None:
        try:
            together.wait(5)
            remote.resolve("latest", QuickScope())
        except BaseException as error:  # noqa: BLE001 - reported by the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(50)]
    for thread in threads:
        thread.start()
    assert entered.wait(50)
    arrived.set()
    for thread in threads:
        thread.join(10)
    assert errors == []
    assert fake.tokens_given == 1


def test_b30_a_failure_is_not_cached() -> None:
    """The next call asks anew, and succeeds."""
    fake = FakeRegistry(guard="bearer")
    usual = fake.token
    fake.token = lambda request: ScriptedResponse(403, b"{}")  # type: ignore[method-assign]
    remote = repository(fake)
    with pytest.raises(Denied):
        remote.resolve("latest", QuickScope())
    fake.token = usual  # type: ignore[method-assign]
    remote.resolve("latest", QuickScope())


def test_b30_a_leader_that_is_cancelled_does_not_fail_the_others() -> None:
    """Who waited for the token asks in its place."""
    fake = FakeRegistry(guard="bearer")
    remote = repository(fake)
    entered = Entered(remote)
    usual = fake.token
    inside, follower_waits = threading.Event(), threading.Event()
    calls: list[int] = []

    def token(request: Request) -> Response:
        calls.append(1)
        if len(calls) > 1:
            return usual(request)
        inside.set()
        follower_waits.wait(5)
        raise Cancelled()

    fake.token = token  # type: ignore[method-assign]
    outcomes: dict[str, Any] = {}

    def work(name: str) -> None:
        try:
            outcomes[name] = remote.resolve("latest", QuickScope())[0]
        except OcidistError as error:
            outcomes[name] = error

    leader = threading.Thread(target=work, args=["leader"])
    leader.start()
    assert inside.wait(5)
    follower = threading.Thread(target=work, args=["follower"])
    follower.start()
    assert entered.wait(2)
    follower_waits.set()
    leader.join(5)
    follower.join(5)
    assert isinstance(outcomes["leader"], Cancelled)
    assert not isinstance(outcomes["follower"], Exception)


def test_waiting_for_a_token_ends_with_the_scope() -> None:
    """A thread that waits for another's token request is cancelled at once."""
    fake = FakeRegistry(guard="bearer")
    remote = repository(fake)
    inside, end = threading.Event(), threading.Event()
    usual = fake.token

    def token(request: Request) -> Response:
        inside.set()
        end.wait(5)
        return usual(request)

    fake.token = token  # type: ignore[method-assign]
    leader = threading.Thread(target=lambda: remote.resolve("latest", QuickScope()))
    leader.start()
    assert inside.wait(5)
    scope = Scope()
    threading.Timer(0.05, scope.cancel).start()
    with pytest.raises(Cancelled):
        remote.resolve("latest", scope)
    end.set()
    leader.join(5)


def test_b25_a_token_that_comes_encoded_is_told() -> None:
    """It was not asked for so, and is not read."""
    fake = FakeRegistry(guard="bearer")
    fake.token = lambda request: ScriptedResponse(200, b"\x1f\x8b", [("Content-Encoding", "gzip")])  # type: ignore[method-assign]
    with pytest.raises(RegistryError, match="it came with Content-Encoding 'gzip', which was not asked for"):
        repository(fake, ANN).resolve("latest", QuickScope())


def test_b29_no_secret_in_errors_reprs_or_pickles() -> None:
    """Passwords and tokens are in none of what a person or a log sees."""
    fake = FakeRegistry(guard="bearer")
    unguessable = secrets.make()
    fake.valid[unguessable] = set()
    fake.token = lambda request: ScriptedResponse(200, json.dumps({"token": unguessable}).encode())  # type: ignore[method-assign]
    remote = repository(fake, ANN)
    with pytest.raises(Unauthorized) as caught:
        remote.resolve("latest", QuickScope())
    shown = [
        repr(caught.value),
        str(caught.value),
        repr(remote),
        repr(remote.session),
        repr(vars(caught.value)),
    ]
    shown += [repr(request) for request in fake.transport.requests]
    shown.append(repr(pickle.loads(pickle.dumps(caught.value))))
    shown.append(repr(list(remote.session.auth._tokens.values())))
    for text in shown:
        assert unguessable not in text
        assert PASSWORD not in text
        assert not shows_a_secret(text)


def _descriptor(digest: Any, fake: FakeRegistry) -> Any:
    from ocidist.spec.descriptor import Descriptor

    return Descriptor("application/octet-stream", digest, len(fake.blobs[digest]))
