"""Each option is one row: what is wrong with its value names option, value, variable and the way out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwtproxy.config import options
from jwtproxy.config.errors import SettingsError
from jwtproxy.config.options import (
    Option,
    check_elsewhere,
    check_known,
    declare,
    one_of,
    seconds,
    string,
    whole_seconds,
)


def _parse_even(value: str) -> int:
    if not value.isdigit() or int(value) % 2:
        raise ValueError("use an even number")
    return int(value)


def _refuse(value: str) -> None:
    raise SettingsError("it is odd", f"do not use {value}")


USER = Option("jwt_user", "nobody", string, "claims", "Who.")
SIZE = Option("jwt_size", "2", _parse_even, "limits", "How much.")
NOTE = Option("jwt_note", "", string, "claims", "What else.")
ROWS = (USER, SIZE, NOTE)


def test_an_option_has_the_variable_of_its_upper_case_name_and_a_member() -> None:
    assert (SIZE.variable, SIZE.member) == ("JWT_SIZE", "size")


@pytest.mark.parametrize(("value", "expected"), [("4", 4), ("", 2), ("0", 0)])
def test_a_value_is_checked_and_an_empty_one_means_the_default(value: str, expected: int) -> None:
    assert SIZE.check(value) == expected


@pytest.mark.parametrize("value", ["3", "a", " ", "a\nb"])
def test_a_bad_value_is_quoted_and_option_variable_and_way_out_named(value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        SIZE.check(value)
    assert str(caught.value) == f"bad value {value!r} for jwt_size"
    assert caught.value.hint == "use an even number (jwt_size or JWT_SIZE)"
    assert caught.value.__cause__ is None


def test_what_a_parser_says_itself_is_passed_on() -> None:
    with pytest.raises(SettingsError) as caught:
        SIZE._replace(parse=_refuse).check("3")
    assert (str(caught.value), caught.value.hint) == ("bad value for jwt_size: it is odd", "do not use 3")


# --- all rows together


class Loader:
    """In place of mitmproxy's."""

    def __init__(self) -> None:
        self.added = dict[str, Any]()

    def add_option(self, name: str, kind: type, default: str, help_: str) -> None:
        """Remember it."""
        self.added[name] = (kind, default, help_)


@pytest.mark.parametrize(
    ("environ", "user", "size"),
    [
        ({}, "nobody", "2"),
        ({"JWT_USER": "me", "JWT_SIZE": "3"}, "me", "3"),  # what is bad is said later, when all are known
        ({"JWT_USER": "", "jwt_size": "4"}, "nobody", "2"),
    ],
)
def test_an_option_begins_as_its_variable_says_or_as_its_default(environ: dict[str, str], user: str, size: str) -> None:
    loader = Loader()
    declare(loader, ROWS, environ)
    assert loader.added == {
        "jwt_user": (str, user, "Who."),
        "jwt_size": (str, size, "How much."),
        "jwt_note": (str, "", "What else."),
    }


def test_all_are_read_from_whatever_has_them() -> None:
    values = SimpleNamespace(jwt_user="", jwt_size="8", jwt_note="x", jwt_other="y", listen_port=1)
    assert options.parse(ROWS, values) == {"user": "nobody", "size": 8, "note": "x"}
    values.jwt_size = "9"
    with pytest.raises(SettingsError, match=r"^bad value '9' for jwt_size$"):
        options.parse(ROWS, values)
    assert options.parse((), values) == {}


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ({"jwt_user", "jwt_size", "jwt_note"}, None),
        (set(), None),
        ({"listen_port", "jwtx", "jwt", "my_jwt_user"}, None),
        ({"jwt_usr", "jwt_user"}, "jwt_usr"),
        ({"jwt_z", "jwt_a"}, "jwt_a"),
        ({"jwt_"}, "jwt_"),
        ({"jwt_Size"}, "jwt_Size"),
        ({"jwt-size"}, "jwt-size"),
        ({"JWT_USER"}, "JWT_USER"),
    ],
)
def test_a_misspelled_option_is_refused_and_all_are_listed(names: set[str], found: str | None) -> None:
    if not found:
        return check_known(names, ROWS)
    for given_names in (names, dict.fromkeys(names), iter(names)):
        with pytest.raises(SettingsError) as caught:
            check_known(given_names, ROWS)
        assert str(caught.value) == f"unknown option {found!r}"
        meant = {"jwt_usr": "user", "jwt_Size": "size", "jwt-size": "size", "JWT_USER": "user"}.get(found)
        listed = "the options are jwt_user, jwt_size, jwt_note"
        assert caught.value.hint == (f"did you mean jwt_{meant}?" if meant else listed)
    return None


@pytest.mark.parametrize("name", ["jwt_shared_secret", "jwt-key-passphrase", "jwt_shared_secret_file"])
def test_of_what_must_not_be_an_option_the_variable_is_named(name: str) -> None:
    with pytest.raises(SettingsError, match=f"^unknown option '{name}'$") as caught:
        check_known([name], ROWS)
    assert caught.value.hint.endswith(f"set the variable {name.upper().replace('-', '_')}")


def test_a_script_is_warned_of_variables_that_it_does_not_know() -> None:
    environ = {"JWT_USER": "me", "JWT_USR": "me", "JWT_SHARED_SECRET": "x", "JWT_STRICT_ENV": "0", "HTTPPORT": "1"}
    assert options.warnings(environ, ROWS) == ["unknown variable JWT_USR: did you mean JWT_USER?"]
    with pytest.raises(SettingsError, match=r"^unknown variable JWT_USR$") as caught:
        options.warnings({**environ, "JWT_STRICT_ENV": "1"}, ROWS)
    assert "env -u JWT_USR mitmdump" in caught.value.hint


class Values(dict[str, str]):
    """mitmproxy's options, as far as they are looked at."""

    def __init__(self, deferred: dict[str, Any], **declared: str) -> None:
        super().__init__(declared)
        self.deferred = deferred


@pytest.mark.parametrize(
    ("values", "environ", "bad"),
    [
        (Values({}), {}, None),
        (Values({"jwt_size": SimpleNamespace(val=["9", "8"])}), {}, None),  # of several, the last
        (Values({"jwt_size": SimpleNamespace(val=["8", "9"])}), {}, "9"),
        (Values({"jwt_size": "9"}), {}, "9"),
        (Values({"jwt_size": "8"}), {"JWT_SIZE": "9"}, None),
        (Values({}), {"JWT_SIZE": "9"}, "9"),
        (Values({}), {"JWT_SIZE": ""}, None),
        (Values({}, jwt_size="9"), {"JWT_SIZE": "9"}, None),  # who declares it checks it
    ],
)
def test_options_of_other_addons_are_checked_too(values: Values, environ: dict[str, str], bad: str | None) -> None:
    if bad is None:
        return check_elsewhere(ROWS, values, environ)
    with pytest.raises(SettingsError, match=rf"^bad value '{bad}' for jwt_size$"):
        check_elsewhere(ROWS, values, environ)
    return None


# --- parsers


@given(st.text())
def test_any_string_is_taken_as_it_is(value: str) -> None:
    assert string(value) == value


@pytest.mark.parametrize("value", ["\udcff", "a\ud800b"])
def test_what_is_not_utf_8_is_no_string(value: str) -> None:
    """The environment may hold any bytes; a claim may not."""
    with pytest.raises(ValueError, match=r"^use UTF-8$") as caught:
        string(value)
    assert not isinstance(caught.value, UnicodeError)


def test_a_choice_is_one_of_those_that_there_are() -> None:
    parse = one_of("on", "off")
    assert [parse("on"), parse("off")] == ["on", "off"]
    for value in ("On", "on ", "", "o", "on, off"):
        with pytest.raises(ValueError, match=r"^use one of on, off$"):
            parse(value)


@pytest.mark.parametrize(
    ("value", "expected"), [("0", 0), ("0.5", 0.5), ("1e3", 1000), (" 7 ", 7), ("10", 10), ("-0", 0)]
)
def test_a_time_limit_is_a_number_of_seconds(value: str, expected: float) -> None:
    assert seconds(value) == expected


@pytest.mark.parametrize(
    "value", ["-1", "-0.1", "ten", "nan", "inf", "infinity", "-inf", "10s", "1_0s", "0x10", "None", "", "1e999"]
)
def test_what_is_none_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match=r"^use a number of seconds, 0 for no limit$"):
        seconds(value)


@pytest.mark.parametrize(
    ("least", "value", "expected"),
    [
        (1, "1", 1),
        (1, "0060", 60),
        (1, "3153600000", 3_153_600_000),
        (1, "", 0),
        (0, "0", 0),
        (0, "", 0),
        (5, "5", 5),
    ],
)
def test_whole_seconds_reach_from_the_least_to_a_century(least: int, value: str, expected: int) -> None:
    assert whole_seconds(least)(value) == expected


@pytest.mark.parametrize(
    ("least", "value"),
    [
        *((1, value) for value in ("0", "-1", "1.5", "1h", "٣", "²", "+5", " 5", "1e3", "3153600001", "9" * 5000)),
        (0, "-1"),
        (5, "4"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_what_are_no_whole_seconds_is_refused(least: int, value: str) -> None:
    with pytest.raises(ValueError, match=rf"^use a whole number of seconds, {least} to 3153600000$"):
        whole_seconds(least)(value)
