"""A token says who, when and which, and nothing else."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwtproxy.config.errors import SettingsError
from jwtproxy.tokens.claims import OPTIONS, Profile, check, default_claims, mint

times = st.floats(0, 253402300799, allow_nan=False)  # to the end of the year 9999


@pytest.fixture
def far_from_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "KIRI-14")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_the_claims_are_exactly_these() -> None:
    claims = default_claims("alice", 1_700_000_000.9)
    assert re.fullmatch(r"[0-9a-f]{32,}", claims.pop("jti")), "128 bits or more"
    assert claims == {"iat": 1_700_000_000, "payload": {"user": "alice", "date": "2023-11-14"}}
    assert type(claims["iat"]) is int


@given(times, st.text())
def test_iat_and_date_are_those_of_the_request(now: float, user: str) -> None:
    claims = default_claims(user, now)
    assert claims["iat"] <= now < claims["iat"] + 1
    assert claims["payload"] == {"user": user, "date": datetime.fromtimestamp(claims["iat"], UTC).strftime("%Y-%m-%d")}


@pytest.mark.usefixtures("far_from_utc")
@pytest.mark.parametrize(
    ("now", "date"),
    [(0, "1970-01-01"), (86_399.999, "1970-01-01"), (86_400, "1970-01-02"), (1_709_164_800, "2024-02-29")],
)
def test_the_day_is_that_of_utc(now: float, date: str) -> None:
    assert default_claims("", now)["payload"]["date"] == date


def test_no_two_tokens_share_a_jti() -> None:
    assert len({default_claims("", 0)["jti"] for _ in range(10_000)}) == 10_000


def test_a_claim_changed_afterwards_does_not_change_the_next_token() -> None:
    default_claims("alice", 0)["payload"]["user"] = "mallory"
    assert default_claims("alice", 0)["payload"] == {"user": "alice", "date": "1970-01-01"}


# --- what else a token may say

ORIGIN = "https://api.example:8443"

MINTED: list[tuple[Profile, dict[str, Any]]] = [
    (Profile("alice"), {}),
    (Profile("alice", header="x-other", typ="at+jwt"), {}),
    (Profile("alice", issuer="us", subject="it"), {"iss": "us", "sub": "it"}),
    (Profile("alice", audience="https://api"), {"aud": "https://api"}),
    (Profile("alice", audience="origin"), {"aud": ORIGIN}),
    (Profile("alice", audience=("a", "origin")), {"aud": ["a", ORIGIN]}),
    (Profile("alice", audience=("a",)), {"aud": ["a"]}),
    (Profile("alice", audience=" origin "), {"aud": " origin "}),
    (Profile("alice", ttl=1), {"nbf": 1_699_999_940, "exp": 1_700_000_001}),
    (Profile("alice", claims={"scope": "a b", "deep": {"x": [1, None]}}), {"scope": "a b", "deep": {"x": [1, None]}}),
    (Profile("alice", claims={"iss": "us", "aud": ["origin"]}), {"iss": "us", "aud": ["origin"]}),
]


@pytest.mark.parametrize(("profile", "more"), MINTED)
def test_what_is_set_is_added_to_the_three(profile: Profile, more: dict[str, Any]) -> None:
    profile.check()
    claims = mint(profile, ORIGIN, 1_700_000_000.9)
    assert re.fullmatch(r"[0-9a-f]{32,}", claims.pop("jti"))
    assert claims == {"iat": 1_700_000_000, "payload": {"user": "alice", "date": "2023-11-14"}} | more
    assert all(type(claims.get(name, 0)) is int for name in ("iat", "nbf", "exp")), "NumericDate, without fractions"


@given(times, st.integers(1, 10**9))
def test_a_token_is_valid_from_a_minute_ago_for_its_ttl(now: float, ttl: int) -> None:
    claims = mint(Profile("", ttl=ttl), "", now)
    assert (claims["iat"] - claims["nbf"], claims["exp"] - claims["iat"]) == (60, ttl)


@pytest.mark.parametrize(
    ("audience", "wanted"),
    [("", False), ("origin", True), ("Origin", False), (("a", "origin"), True), (("a",), False), ("origins", False)],
)
def test_the_destination_is_wanted_where_the_audience_is_the_origin(
    audience: str | tuple[str, ...], wanted: bool
) -> None:
    assert Profile("", audience=audience).wants_origin is wanted


@pytest.mark.parametrize(
    ("profile", "name", "option"),
    [
        (Profile("", issuer="a", claims={"iss": "a"}), "iss", "jwt_issuer"),
        (Profile("", subject="a", claims={"sub": "b"}), "sub", "jwt_subject"),
        (Profile("", audience="a", claims={"aud": "b"}), "aud", "jwt_audience"),
        (Profile("", audience=("a", "b"), claims={"aud": "b"}), "aud", "jwt_audience"),
    ],
)
def test_a_claim_that_is_set_in_two_ways_is_an_error(profile: Profile, name: str, option: str) -> None:
    with pytest.raises(SettingsError, match=rf"^the claim '{name}' is set twice$") as caught:
        profile.check()
    assert option in caught.value.hint


GOOD: list[dict[str, Any]] = [
    {},
    {"iss": "a", "sub": "", "aud": "b"},
    {"aud": ["a", "b"]},
    {"scope": 5, "roles": [], "nothing": None, "Iat": 1, "client_id": {"a": True}},
]
BAD: list[tuple[dict[str, Any], str]] = [
    *(({name: 1}, f"the claim '{name}' is the proxy's own") for name in ("iat", "jti", "payload", "nbf", "exp")),
    ({"good": 1, "exp": None}, "the claim 'exp' is the proxy's own"),
    ({"iss": 5}, "the claim 'iss' is 5"),
    ({"sub": ["a"]}, r"the claim 'sub' is \['a'\]"),
    ({"aud": ""}, "the claim 'aud' is ''"),
    ({"aud": []}, r"the claim 'aud' is \[\]"),
    ({"aud": ["a", 5]}, r"the claim 'aud' is \['a', 5\]"),
    ({"aud": {"a": "b"}}, "the claim 'aud' is {'a': 'b'}"),
    ({"aud": None}, "the claim 'aud' is None"),
]


@pytest.mark.parametrize("members", GOOD)
def test_further_claims_may_be_anything_else(members: dict[str, Any]) -> None:
    check(members)


@pytest.mark.parametrize(("members", "said"), BAD)
def test_what_is_the_proxys_own_or_of_a_wrong_type_is_refused(members: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{said}$") as caught:
        check(members)
    assert caught.value.hint


# --- options


def _checked(name: str, value: str) -> Any:
    (option,) = (option for option in OPTIONS if option.name == name)
    return option.check(value)


def test_the_options_and_their_defaults() -> None:
    assert {option.name: (option.default, option.check("")) for option in OPTIONS} == {
        "jwt_user": ("username", "username"),
        "jwt_issuer": ("", ""),
        "jwt_subject": ("", ""),
        "jwt_audience": ("", ""),
        "jwt_ttl": ("", 0),
        "jwt_claims": ("", {}),
        "jwt_typ": ("JWT", "JWT"),
    }


@pytest.mark.parametrize(("value", "expected"), [("1", 1), ("0060", 60), ("0", None)])
def test_a_token_lives_for_a_second_at_least(value: str, expected: int | None) -> None:
    if expected is not None:
        assert _checked("jwt_ttl", value) == expected
        return
    with pytest.raises(SettingsError, match="bad value '0' for jwt_ttl"):
        _checked("jwt_ttl", value)


@pytest.mark.parametrize("value", ["JWT", "at+jwt", "vnd.example.x-1+jwt", "a/b", "x_!#$&^."])
def test_a_typ_is_a_media_type(value: str) -> None:
    assert _checked("jwt_typ", value) == value


@pytest.mark.parametrize("value", ["a b", "é", "JWT\n", '"JWT"', "a;b"])
def test_a_typ_that_is_none_is_an_error(value: str) -> None:
    with pytest.raises(SettingsError, match=r"for jwt_typ$") as caught:
        _checked("jwt_typ", value)
    assert "application/" in caught.value.hint


@pytest.mark.parametrize(
    ("value", "claims"),
    [
        ("{}", {}),
        (
            ' {"scope": "a b",\n "n": 1.5, "deep": {"a": [null, true]}} ',
            {"scope": "a b", "n": 1.5, "deep": {"a": [None, True]}},
        ),
        ('{"iss": "us", "aud": ["a"]}', {"iss": "us", "aud": ["a"]}),
    ],
)
def test_claims_are_a_json_object(value: str, claims: dict[str, Any]) -> None:
    assert _checked("jwt_claims", value) == claims


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("scope", "bad value 'scope' for jwt_claims"),
        ("[]", "bad value '[]' for jwt_claims"),
        ('"a"', "bad value '\"a\"' for jwt_claims"),
        ('{"a": 1,}', "bad value '{\"a\": 1,}' for jwt_claims"),
        ("{'a': 1}", "for jwt_claims"),
        ('{"a": 1, "a": 2}', "for jwt_claims"),
        ('{"a": {"b": 1, "b": 1}}', "for jwt_claims"),
        ('{"a": NaN}', "for jwt_claims"),
        ('{"a": -Infinity}', "for jwt_claims"),
        ('{"a": 1e999}', "for jwt_claims"),
        ('{"a": ' + "9" * 5000 + "}", "for jwt_claims"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "for jwt_claims"),
        ('{"exp": 5}', "bad value for jwt_claims: the claim 'exp' is the proxy's own"),
        ('{"aud": 5}', "bad value for jwt_claims: the claim 'aud' is 5"),
    ],
    ids=lambda text: text[:30],
)
def test_claims_that_are_none_are_an_error(value: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        _checked("jwt_claims", value)
    assert said in str(caught.value)
    assert caught.value.hint
