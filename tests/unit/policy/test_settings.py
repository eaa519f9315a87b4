"""Settings are checked whole, and what is wrong names the option, the value and the way out."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwtproxy.config.errors import SettingsError
from jwtproxy.mitm import carrying
from jwtproxy.observe import pages
from jwtproxy.policy import connections, settings
from jwtproxy.policy.settings import OPTIONS, Settings, check
from jwtproxy.tokens.claims import Profile

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
    "jwt_via": "auto",
    "jwt_trace": "off",
    "jwt_jwks_max_age": "300",
    "jwt_deny_private": "off",
    "jwt_allow_destination": "",
    "jwt_allow_port": "",
    "jwt_allow_client": "",
}
OTHERS = {
    "jwt_pages": "auto",
    "jwt_recent": "100",
    "jwt_connect_timeout": "10",
    "jwt_response_timeout": "300",
    "jwt_max_upstream_connections": "128",
    "jwt_max_failed_passwords": "5",
    "jwt_max_connections": "auto",
    "jwt_max_client_connections": "auto",
    "jwt_head_timeout": "30",
    "jwt_keepalive_timeout": "120",
    "jwt_body_timeout": "60",
    "jwt_idle_timeout": "600",
    "jwt_tls_timeout": "15",
    "jwt_max_head": "128k",
    "jwt_max_fields": "200",
    "jwt_max_idle_frames": "1000",
    "jwt_max_body": "64m",
    "jwt_max_bodies": "256m",
}
"""Those of other rooms."""


def parse(**options: str) -> Settings:
    """The settings where these options are not what they are by default."""
    return settings.parse(SimpleNamespace(**DEFAULTS | options))


def test_the_names_and_defaults_are_those_that_users_script_against() -> None:
    assert {option.name: option.default for option in OPTIONS} == DEFAULTS
    others = (*pages.OPTIONS, *carrying.OPTIONS, *connections.OPTIONS)
    assert {option.name: option.default for option in others} == OTHERS
    assert all(option.help.endswith(".") and option.topic for option in (*OPTIONS, *others))
    assert parse() == Settings(
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
        via="auto",
        trace="off",
        jwks_max_age=300,
        deny_private="off",
        allow_destination=(),
        allow_port=(),
        allow_client=(),
    )
    assert parse().profile == Profile("username")


@pytest.mark.parametrize("name", DEFAULTS)
def test_an_empty_value_means_the_default(name: str) -> None:
    assert parse(**{name: ""}) == parse()
    assert check(name, "") == getattr(parse(), name.removeprefix("jwt_"))


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("jwt_user", ["ci", "Ünï cödé", " ", "a\nb", "0"]),
        ("jwt_header", ["Authorization", "X_My_JWT", "x-forwarded-identity", "x~!#$%&'*+.^`|"]),
        ("jwt_algorithm", ["auto", "EdDSA", *(a + b for a in ("HS", "RS", "PS", "ES") for b in ("256", "384", "512"))]),
        ("jwt_algorithm", ["Ed25519"]),
        ("jwt_typ", ["JWT", "at+jwt", "vnd.example.x-1+jwt", "a/b"]),
        ("jwt_host_mismatch", ["refuse", "allow"]),
        ("jwt_via", ["auto", "on", "off"]),
        ("jwt_trace", ["off", "on"]),
        *((f"jwt_{name}", ["a", "Ünï cödé", " ", "0"]) for name in ("kid", "issuer", "subject", "audience", "rules")),
        *((f"jwt_{name}", ["a", "Ünï cödé", " ", "0"]) for name in ("key_file", "key_dir")),
    ],
)
def test_good_values_are_taken_as_they_are(option: str, values: list[str]) -> None:
    for value in values:
        assert getattr(parse(**{option: value}), option.removeprefix("jwt_")) == check(option, value) == value


@pytest.mark.parametrize(("value", "seconds"), [("1", 1), ("0060", 60), ("3153600000", 3_153_600_000)])
def test_a_ttl_is_whole_seconds(value: str, seconds: int) -> None:
    parsed = parse(jwt_ttl=value, jwt_jwks_max_age=value)
    assert (parsed.ttl, parsed.profile.ttl, parsed.jwks_max_age) == (seconds, seconds, seconds)


def test_a_jwks_need_not_be_kept() -> None:
    assert parse(jwt_jwks_max_age="0").jwks_max_age == 0


def test_what_tokens_say_is_what_the_options_say() -> None:
    said = {"user": "u", "header": "x-h", "issuer": "i", "subject": "s", "audience": "a", "typ": "t"}
    profile = parse(**{f"jwt_{name}": value for name, value in said.items()}, jwt_claims='{"b": 1}').profile
    assert profile == Profile("u", "x-h", "i", "s", "a", 0, {"b": 1}, "t")


@pytest.mark.parametrize(("option", "claim"), [("jwt_issuer", "iss"), ("jwt_subject", "sub"), ("jwt_audience", "aud")])
def test_a_claim_is_set_in_one_way(option: str, claim: str) -> None:
    with pytest.raises(SettingsError, match=f"'{claim}' is set twice") as caught:
        _ = parse(**{option: "a", "jwt_claims": f'{{"{claim}": "a"}}'}).profile
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
    ("jwt_via", ["On", "yes", "1", "auto "]),
    ("jwt_trace", ["auto", "Off", "true", "0"]),
    ("jwt_ttl", ["0", "-1", "1.5", "1h", "٣", "+5", " 5", "1e3", "3153600001", "9" * 5000]),
    ("jwt_jwks_max_age", ["-1", "0.5", "5m", "3153600001", "9" * 5000]),
    ("jwt_claims", ["scope", "[]"]),
    ("jwt_audience", ["a,", ",", "a,,b", "[]", "[1]", '["a", 2]', '["a"', '[""]', '["a"] b', "[" * 5000]),
]


@pytest.mark.parametrize(
    ("value", "audience"),
    [
        ("a", "a"),
        ("origin", "origin"),
        ("a b", "a b"),
        ("a,b", ("a", "b")),
        (" https://a , origin ", ("https://a", "origin")),
        ('["a"]', ("a",)),
        (' ["a, b", "origin"] ', ("a, b", "origin")),
    ],
)
def test_the_audience_may_be_several(value: str, audience: str | tuple[str, ...]) -> None:
    assert parse(jwt_audience=value).profile.audience == audience


@pytest.mark.parametrize(("option", "value"), [(option, value) for option, values in BAD for value in values])
def test_bad_values_are_quoted_and_the_way_out_named(option: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(**{option: value})
    assert str(caught.value) == f"bad value {value!r} for {option}"
    assert caught.value.hint.endswith(f"({option} or {option.upper()})")


@given(st.dictionaries(st.sampled_from(sorted(DEFAULTS)), st.text()))
def test_nothing_but_a_settings_error_is_ever_raised(values: dict[str, str]) -> None:
    try:
        parsed = parse(**values)
    except SettingsError:
        return
    assert parsed.user == (values.get("jwt_user") or "username")


def test_what_is_wrong_with_one_value_is_said_in_the_same_way() -> None:
    """A rule has some of the options for itself."""
    with pytest.raises(SettingsError, match=r"^bad value 'Host' for jwt_header$") as caught:
        check("jwt_header", "Host")
    assert caught.value.hint == (
        "that header has a meaning of its own in HTTP; use another name (jwt_header or JWT_HEADER)"
    )
