"""WWW-Authenticate: what registries send, and what an attacker might."""

from __future__ import annotations

import pytest

from ocidist.remotes.registry.challenge import Challenge, merge_scopes, parse_challenges, split_scopes


def one(text: str) -> Challenge:
    (found,) = parse_challenges([text])
    return found


def test_b23_the_usual_bearer_challenge() -> None:
    """Realm, service and scope of a quoted challenge."""
    found = one(
        'Bearer realm="https://auth.example/token",service="registry",scope="repository:a/b:pull,push"'
    )
    assert (found.scheme, found.realm, found.service) == ("bearer", "https://auth.example/token", "registry")
    assert found.scopes == {"repository:a/b:pull,push"}


@pytest.mark.parametrize(
    "text",
    [
        'BEARER REALM="https://a/t",Service="s"',
        'bearer realm = "https://a/t" , service = "s"',
        "Bearer realm=https://a/t,service=s",
        'Bearer\trealm="https://a/t",\tservice="s"',
        ', ,Bearer realm="https://a/t",,service="s",',
        'Bearer realm="https://a/t",\r\n service="s"',
        'Bearer realm="https://\\a/t",service="\\s"',
    ],
)
def test_b23_case_space_escapes_folding_and_bare_values(text: str) -> None:
    """One challenge, however it is written."""
    found = one(text)
    assert (found.scheme, found.realm, found.service) == ("bearer", "https://a/t", "s")


def test_b23_an_escaped_quote_does_not_end_a_string() -> None:
    """\\" inside a string is a quote, and what follows stays inside."""
    found = one('Basic realm="a \\"b\\", Bearer realm=\\"x"')
    assert found.scheme == "basic"
    assert found.realm == 'a "b", Bearer realm="x'


def test_b23_several_challenges_in_one_field_and_in_many() -> None:
    """Commas between challenges and between parameters are told apart; fields follow each other."""
    found = parse_challenges(
        [
            'Newauth realm="apps", type=1, title="Login to \\"apps\\"", Basic realm="simple"',
            "Negotiate",
            "Bearer realm=r",
        ]
    )
    assert [challenge.scheme for challenge in found] == ["newauth", "basic", "negotiate", "bearer"]
    assert found[0].params == {"realm": "apps", "type": "1", "title": 'Login to "apps"'}


def test_b23_token68_is_no_parameter() -> None:
    """Negotiate's blob is kept apart, with its padding, and ends at the comma."""
    found = parse_challenges(["Negotiate YWJj/+==, Basic realm=x"])
    assert found[0].token68 == "YWJj/+=="
    assert found[1].realm == "x"


def test_b23_an_unterminated_string_is_no_challenge() -> None:
    """What came before it stands; what it is in does not."""
    assert parse_challenges(['Bearer realm="https://a/t']) == ()
    assert [found.scheme for found in parse_challenges(['Basic realm="x", Bearer realm="https://a/t'])] == [
        "basic"
    ]
    assert parse_challenges(['Bearer realm="x\\']) == ()


def test_b23_control_characters_and_length_are_refused() -> None:
    """A field that holds a control character, or is endless, yields nothing; others still count."""
    assert (
        parse_challenges(['Bearer realm="a\x00b"', 'Basic realm="x\rX: y"', "Basic realm=y"])[0].realm == "y"
    )
    assert parse_challenges(["Bearer realm=" + "x" * 100_000]) == ()


def test_b23_the_first_of_a_repeated_parameter_counts() -> None:
    """A second realm does not replace the first."""
    assert one('Bearer realm="a", realm="b"').realm == "a"


@pytest.mark.parametrize(
    "text", ["", ",", "=", '"', '"Bearer"', "Bearer =x", "\\", "Bearer realm", "=" * 9000, '",' * 5000]
)
def test_b23_garbage_never_raises(text: str) -> None:
    """Any text gives some list of challenges, none with a realm."""
    assert all(not found.realm for found in parse_challenges([text]))


def test_an_error_is_lowercase_and_empty_without_one() -> None:
    """error=insufficient_scope, as RFC 6750 writes it."""
    assert one('Bearer realm="r",error="Insufficient_Scope"').error == "insufficient_scope"
    assert one("Bearer realm=r").error == ""


def test_b24_scopes_of_one_resource_are_united() -> None:
    """Actions merge and sort; names may hold colons; odd scopes stay as they are."""
    merged = merge_scopes(
        [
            "repository:a:pull",
            "repository:a:push,pull",
            "repository:h:5000/b:pull",
            "openid",
            "repository:a:pull",
        ]
    )
    assert merged == ("openid", "repository:a:pull,push", "repository:h:5000/b:pull")
    assert split_scopes(" a  b ") == {"a", "b"}
