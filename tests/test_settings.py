"""Settings are checked whole, and what is wrong names the option, the value and the way out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwtproxy.claims import Profile
from jwtproxy.settings import OPTIONS, Settings, SettingsError, defaults, parse, unknown, unknown_error

DEFAULTS = {
    "jwt_user": "username",
    "jwt_header": "x-my-jwt",
    "jwt_algorithm": "auto",
    "jwt_key_file": "",
    "jwt_key_dir": "",
    "jwt_kid": "",
    "jwt_issuer": "",
    "jwt_subject": "",
    "jwt_audience": "",
    "jwt_ttl": "",
    "jwt_claims": "",
    "jwt_typ": "JWT",
    "jwt_rules": "",
    "jwt_host_mismatch": "refuse",
    "jwt_jwks_max_age": "300",
    "jwt_pages": "auto",
    "jwt_connect_timeout": "10",
    "jwt_response_timeout": "300",
}


def test_the_names_and_defaults_are_those_that_users_script_against() -> None:
    assert {option.name: option.default for option in OPTIONS} == DEFAULTS == defaults({})
    assert parse(DEFAULTS) == Settings(
        user="username",
        header="x-my-jwt",
        algorithm="auto",
        key_file="",
        key_dir="",
        kid="",
        issuer="",
        subject="",
        audience="",
        ttl=0,
        claims={},
        typ="JWT",
        rules="",
        host_mismatch="refuse",
        jwks_max_age=300,
        pages="auto",
        connect_timeout=10,
        response_timeout=300,
    )
    assert parse(DEFAULTS).profile == Profile("username")


@pytest.mark.parametrize("name", DEFAULTS)
def test_every_option_has_the_variable_of_its_upper_case_name(name: str) -> None:
    assert defaults({name.upper(): "given"}) == DEFAULTS | {name: "given"}
    assert defaults({name.upper(): ""}) == DEFAULTS, "empty means unset"
    assert parse(DEFAULTS | {name: ""}) == parse(DEFAULTS), "empty means the default"


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("jwt_user", ["ci", "Ünï cödé", " ", "a\nb", "0"]),
        ("jwt_header", ["Authorization", "X_My_JWT", "x-forwarded-identity", "x~!#$%&'*+.^`|"]),
        ("jwt_algorithm", ["auto", "EdDSA", *(a + b for a in ("HS", "RS", "PS", "ES") for b in ("256", "384", "512"))]),
        ("jwt_typ", ["JWT", "at+jwt", "vnd.example.x-1+jwt", "a/b"]),
        ("jwt_host_mismatch", ["refuse", "allow"]),
        ("jwt_pages", ["auto", "on", "off"]),
        *((f"jwt_{name}", ["a", "Ünï cödé", " ", "0"]) for name in ("kid", "issuer", "subject", "audience", "rules")),
    ],
)
def test_good_values_are_taken_as_they_are(option: str, values: list[str]) -> None:
    for value in values:
        assert getattr(parse(DEFAULTS | {option: value}), option.removeprefix("jwt_")) == value


@pytest.mark.parametrize(("value", "seconds"), [("0", 0), ("0.5", 0.5), ("1e3", 1000), (" 7 ", 7)])
def test_time_outs_are_seconds(value: str, seconds: float) -> None:
    parsed = parse(DEFAULTS | {"jwt_connect_timeout": value, "jwt_response_timeout": value})
    assert (parsed.connect_timeout, parsed.response_timeout) == (seconds, seconds)


@pytest.mark.parametrize(("value", "seconds"), [("1", 1), ("0060", 60), ("3153600000", 3_153_600_000)])
def test_a_ttl_is_whole_seconds(value: str, seconds: int) -> None:
    parsed = parse(DEFAULTS | {"jwt_ttl": value, "jwt_jwks_max_age": value})
    assert (parsed.ttl, parsed.profile.ttl, parsed.jwks_max_age) == (seconds, seconds, seconds)


def test_a_jwks_need_not_be_kept() -> None:
    assert parse(DEFAULTS | {"jwt_jwks_max_age": "0"}).jwks_max_age == 0


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
    assert parse(DEFAULTS | {"jwt_claims": value}).claims == claims


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
        parse(DEFAULTS | {"jwt_claims": value})
    assert said in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(("option", "claim"), [("jwt_issuer", "iss"), ("jwt_subject", "sub"), ("jwt_audience", "aud")])
def test_a_claim_is_set_in_one_way(option: str, claim: str) -> None:
    with pytest.raises(SettingsError, match=f"'{claim}' is set twice") as caught:
        _ = parse(DEFAULTS | {option: "a", "jwt_claims": f'{{"{claim}": "a"}}'}).profile
    assert option in caught.value.hint


BAD = [
    ("jwt_header", ["a b", "x:y", "é", "x-my-jwt\r\nevil: 1", "x\n", '"x"', "("]),
    (
        "jwt_header",
        ["Host", "content-length", "Content_Length", "TRANSFER-ENCODING", "connection", "cookie", "Via", "te"],
    ),
    ("jwt_algorithm", ["none", "hs512", "ES256K", "HS512 ", "Auto"]),
    ("jwt_typ", ["a b", "é", "JWT\n", '"JWT"', "a;b"]),
    ("jwt_host_mismatch", ["421", "Allow", "yes"]),
    ("jwt_ttl", ["0", "-1", "1.5", "1h", "٣", "+5", " 5", "1e3", "3153600001", "9" * 5000]),
    ("jwt_jwks_max_age", ["-1", "0.5", "5m", "3153600001", "9" * 5000]),
    ("jwt_pages", ["yes", "ON", "1"]),
    ("jwt_connect_timeout", ["-1", "ten", "nan", "inf", "10s", "1_0s"]),
    ("jwt_response_timeout", ["-0.1", "infinity", "0x10", "None"]),
]


@pytest.mark.parametrize(("option", "value"), [(option, value) for option, values in BAD for value in values])
def test_bad_values_are_quoted_and_the_way_out_named(option: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(DEFAULTS | {option: value})
    assert str(caught.value) == f"bad value {value!r} for {option}"
    assert caught.value.hint.endswith(f"({option} or {option.upper()})")


@given(st.dictionaries(st.sampled_from(sorted(DEFAULTS)), st.text()))
def test_nothing_but_a_settings_error_is_ever_raised(values: dict[str, str]) -> None:
    try:
        parsed = parse(DEFAULTS | values)
    except SettingsError:
        return
    assert parsed.user == (values.get("jwt_user") or "username")


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (set(DEFAULTS), None),
        (set(), None),
        ({"listen_port", "jwtx", "JWT_USER"}, None),
        ({"jwt_usr", "jwt_user"}, "jwt_usr"),
        ({"jwt_z", "jwt_a"}, "jwt_a"),
        ({"jwt_"}, "jwt_"),
    ],
)
def test_a_misspelled_option_is_found(names: set[str], found: str | None) -> None:
    assert unknown(names) == found
    assert unknown(dict.fromkeys(names)) == found


def test_the_error_for_a_misspelled_option_lists_all() -> None:
    error = unknown_error("jwt_usr")
    assert str(error) == "unknown option 'jwt_usr'"
    assert all(name in error.hint for name in DEFAULTS)


def test_an_error_may_come_without_a_hint() -> None:
    assert SettingsError("what is wrong").hint == ""
