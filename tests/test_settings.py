"""Settings are checked whole, and what is wrong names the option, the value and the way out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwtproxy.settings import OPTIONS, Settings, SettingsError, defaults, parse, unknown, unknown_error

DEFAULTS = {
    "jwt_user": "username",
    "jwt_header": "x-my-jwt",
    "jwt_algorithm": "HS512",
    "jwt_pages": "auto",
    "jwt_connect_timeout": "10",
    "jwt_response_timeout": "300",
}


def test_the_names_and_defaults_are_those_that_users_script_against() -> None:
    assert {option.name: option.default for option in OPTIONS} == DEFAULTS == defaults({})
    assert parse(DEFAULTS) == Settings("username", "x-my-jwt", "HS512", "auto", 10, 300)


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
        ("jwt_algorithm", ["HS256", "HS384", "HS512"]),
        ("jwt_pages", ["auto", "on", "off"]),
    ],
)
def test_good_values_are_taken_as_they_are(option: str, values: list[str]) -> None:
    for value in values:
        assert getattr(parse(DEFAULTS | {option: value}), option.removeprefix("jwt_")) == value


@pytest.mark.parametrize(("value", "seconds"), [("0", 0), ("0.5", 0.5), ("1e3", 1000), (" 7 ", 7)])
def test_time_outs_are_seconds(value: str, seconds: float) -> None:
    parsed = parse(DEFAULTS | {"jwt_connect_timeout": value, "jwt_response_timeout": value})
    assert (parsed.connect_timeout, parsed.response_timeout) == (seconds, seconds)


BAD = [
    ("jwt_header", ["a b", "x:y", "é", "x-my-jwt\r\nevil: 1", "x\n", '"x"', "("]),
    (
        "jwt_header",
        ["Host", "content-length", "Content_Length", "TRANSFER-ENCODING", "connection", "cookie", "Via", "te"],
    ),
    ("jwt_algorithm", ["none", "hs512", "RS256", "HS512 "]),
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
