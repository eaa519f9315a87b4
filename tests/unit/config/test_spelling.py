"""What a variable or an option that is none may mean, and when that is a mistake."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwtproxy.config import spelling
from jwtproxy.config.errors import SettingsError
from jwtproxy.config.spelling import STRICT, check, distance, is_strict, likely_option, suspects

KNOWN = (
    *"JWT_USER JWT_TTL JWT_KID JWT_TYP JWT_AUDIENCE JWT_ALGORITHM JWT_HEADER JWT_KEY_FILE JWT_KEY_DIR".split(),
    *"JWT_RULES JWT_CLAIMS JWT_SHARED_SECRET JWT_SHARED_SECRET_FILE JWT_CONNECT_TIMEOUT JWT_ALLOW_PORT".split(),
    *f"JWT_MAX_BODY JWT_MAX_BODIES HTTP_PORT HTTP_HOST WORKERS {STRICT}".split(),
)
OPTIONS = ("jwt_user", "jwt_ttl", "jwt_key_file", "jwt_audience", "jwt_connect_timeout", "listen_port", "mode")


@pytest.mark.parametrize(
    ("one", "other", "slips"),
    [
        ("", "", 0),
        ("", "ab", 2),
        ("user", "user", 0),
        ("usr", "user", 1),  # one missing
        ("userr", "user", 1),  # one too much
        ("usar", "user", 1),  # a wrong one
        ("uesr", "user", 1),  # two neighbours exchanged
        ("eusr", "user", 2),
        ("resu", "user", 3),
        ("HTTP_PROXY", "HTTP_PORT", 3),
        ("ca", "abc", 3),  # of what was exchanged, nothing may be inserted in between
    ],
)
def test_the_distance_is_the_number_of_slips(one: str, other: str, slips: int) -> None:
    assert distance(one, other) == distance(other, one) == slips


@given(st.text("ab", max_size=6), st.text("ab", max_size=6))
def test_the_distance_is_one_of_lengths_at_least_and_nothing_for_the_same_alone(one: str, other: str) -> None:
    assert abs(len(one) - len(other)) <= distance(one, other) <= max(len(one), len(other))
    assert (distance(one, other) == 0) == (one == other)


def _slips(name: str) -> set[str]:
    """All that one slip with an E or an underscore makes of a name."""
    made = {name[:at] + letter + name[at + kept :] for at in range(len(name)) for letter in "E_" for kept in (0, 1)}
    made |= {name[:at] + name[at + 1 :] for at in range(len(name))}
    made |= {name[:at] + name[at : at + 2][::-1] + name[at + 2 :] for at in range(len(name) - 1)}
    return made - {name}


@pytest.mark.parametrize("name", [name for name in KNOWN if name.startswith("JWT_")])
def test_every_slip_is_a_mistake_that_names_what_was_meant(name: str) -> None:
    rest = name.removeprefix("JWT_")
    for slip in sorted(_slips(rest) - {"KEY", *(known.removeprefix("JWT_") for known in KNOWN)}):
        (found,) = suspects({f"JWT_{slip}": "x"}, KNOWN)
        assert found.is_slip, found
        assert distance(slip, found.meant.removeprefix("JWT_")) <= 1


NEAR = {
    "JWT_USR": "JWT_USER",
    "JWT_TTLS": "JWT_TTL",
    "JWT_AUDIANCE": "JWT_AUDIENCE",
    "JWT_AUDINECE": "JWT_AUDIENCE",
    "JWT_US": "JWT_USER",
    "JWT_TTLSS": "JWT_TTL",
    "JWT_SHARED_SECERT": "JWT_SHARED_SECRET",
    "JWT_STRICTENV": STRICT,
    "JWT_ALOW_PORT": "JWT_ALLOW_PORT",
    "jwt_user": "JWT_USER",
    "JWT-USER": "JWT_USER",
    "Jwt_Usr": "JWT_USER",
}
WORDS = {
    "JWT_USERNAME": "JWT_USER",
    "JWT_EXP": "JWT_TTL",  # although JWT_TYP is two letters away
    "JWT_AUD": "JWT_AUDIENCE",  # although JWT_KID is
    "JWT_KEY": "JWT_KEY_FILE",
    "JWT_KEY_ID": "JWT_KID",  # although JWT_KEY_DIR is
    "JWT_ROLE": "JWT_CLAIMS",
    "JWT_SECRET": "JWT_SHARED_SECRET",
    "JWT_SECRET_KEY": "JWT_SHARED_SECRET",
    "JWT_PRIVATE_KEY": "JWT_KEY_FILE",
    "JWT_EXPIRES_IN": "JWT_TTL",
    "JWT_ALGO": "JWT_ALGORITHM",
    "JWT_HEADER_NAME": "JWT_HEADER",
    "JWT_CONNECT": "JWT_CONNECT_TIMEOUT",
    "JWT_PORT": "HTTP_PORT",
    "JWT_HTTP_PORT": "HTTP_PORT",
    "JWT_WORKERS": "WORKERS",
    "JWT_HTTP_PORTS": "",
    "JWT_SUB": "",  # as nothing here is what it means
    "JWT_MAX": "",  # two begin so
    "JWT_UUID": "",
    "JWT_URL": "",
    "JWT_": "",
    "JWT_COOKIE_SECURE": "",
    "HTTPPORT": "HTTP_PORT",
    "JWTUSER": "JWT_USER",
    "WORKER": "WORKERS",
}
NONE = {
    **dict.fromkeys("HTTP_PROXY HTTPS_PORT HTTP_POR WORKERSS PORT JWT JWTS MY_JWT_USER CI_JOB_JWT".split(), "x"),
    **dict.fromkeys("JWT_SERVICE_HOST JWT_SERVICE_PORT JWT_SERVICE_PORT_HTTP JWT_API_SERVICE_HOST".split(), "10.0.0.1"),
    **dict.fromkeys(
        "JWT_PORT JWT_API_PORT JWT_USR_PORT JWT_PORT_80_TCP JWT_A_PORT_53_UDP".split(), "tcp://10.0.0.1:80"
    ),
    **dict.fromkeys("JWT_PORT_80_TCP_ADDR JWT_A_B_PORT_80_TCP_PROTO JWT_PORT_80_TCP_PORT".split(), "80"),
    "JWT_USR": "",  # empty is unset
}


@pytest.mark.parametrize(
    ("name", "meant", "is_slip"),
    [
        *((name, meant, True) for name, meant in NEAR.items()),
        *((name, meant, False) for name, meant in WORDS.items()),
    ],
)
def test_what_a_variable_may_mean(name: str, meant: str, is_slip: bool) -> None:
    assert list(suspects({name: "x"}, KNOWN)) == [(name, meant, is_slip)]


@pytest.mark.parametrize("name", NONE)
def test_what_is_none_of_ours_is_left_alone(name: str) -> None:
    assert check({name: NONE[name]}, KNOWN, strict=True) == []


def test_ours_are_left_alone() -> None:
    assert check(dict.fromkeys(KNOWN, "x"), KNOWN, strict=True) == []


def test_a_slip_is_an_error() -> None:
    with pytest.raises(SettingsError) as caught:
        check({"JWT_EXP": "1", "JWT_USR": "me"}, KNOWN, place=" in .env")
    assert str(caught.value) == "unknown variable JWT_USR in .env"
    assert caught.value.hint == "did you mean JWT_USER? If not, remove it there"
    with pytest.raises(SettingsError) as caught:
        check({"JWT_USR": "me"}, KNOWN)
    assert caught.value.hint == "did you mean JWT_USER? If not, start jwtproxy without it: env -u JWT_USR jwtproxy-run"


def test_all_else_is_worth_a_line_and_what_means_nothing_one_for_all() -> None:
    found = {"JWT_A_B": "1", "JWT_EXP": "1", "JWT_USER": "me", "WORKER": "2", "JWT_C_D": "x"}
    assert check(found, KNOWN) == [
        "unknown variable JWT_EXP: did you mean JWT_TTL?",
        "unknown variable WORKER: did you mean WORKERS?",
        "unknown variables, which have no effect: JWT_A_B, JWT_C_D",
    ]


@pytest.mark.parametrize(("name", "hint"), [("JWT_EXP", "did you mean JWT_TTL? If not, start"), ("JWT_A_B", "start")])
def test_where_it_is_strict_all_are_errors(name: str, hint: str) -> None:
    with pytest.raises(SettingsError, match=rf"^unknown variable {name}$") as caught:
        check({name: "x"}, KNOWN, strict=True)
    assert caught.value.hint.startswith(hint)
    assert caught.value.hint.endswith(f"({STRICT} makes an error of it)")


def test_where_slips_are_none_they_are_worth_a_line() -> None:
    assert check({"JWT_USR": "x"}, KNOWN, slips=False) == ["unknown variable JWT_USR: did you mean JWT_USER?"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (f"JWT_SHARED_SECRET:{'ab' * 32}", "JWT_SHARED_SECRET…"),
        (f"JWT_SHARED_SECRET{'ab' * 32}", "JWT_SHARED_SECRET…"),
        (f"JWT_SHARED_SECRET_{'ab' * 32}", "JWT_SHARED_SECRET…"),
        ("JWT_SHARED SECRET", "JWT_SHARED SECRET…"),
        ("JWT_REFRESH_COOKIE_PATH", "JWT_REFRESH_COOKIE_PATH"),
    ],
)
def test_what_may_be_a_part_of_a_value_is_not_shown_either(name: str, shown: str) -> None:
    (found,) = suspects({name: "="}, KNOWN)
    assert found.shown == shown
    for strict in (True, False):
        try:
            said = " ".join(check({name: "="}, KNOWN, strict=strict))
        except SettingsError as error:
            said = f"{error} {error.hint}"
        assert shown in said
        assert "abab" not in said


def test_nothing_of_a_value_is_shown() -> None:
    for warning in check({"JWT_SECRET": "hidden", "JWT_A_B": "hidden"}, KNOWN):
        assert "hidden" not in warning


@pytest.mark.parametrize("value", ["1", "true", "on", "yes", "ON"])
def test_it_is_strict_if_told_so(value: str) -> None:
    assert is_strict(value)


@pytest.mark.parametrize("value", ["", "0", "false", "off", "no"])
def test_it_is_not_strict_otherwise(value: str) -> None:
    assert not is_strict(value)


def test_what_is_neither_is_an_error() -> None:
    with pytest.raises(SettingsError, match=rf"^bad value 'maybe' for {STRICT}$") as caught:
        is_strict("maybe")
    assert caught.value.hint == "use 1 or 0"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("jwt-ttl", "jwt_ttl"),
        ("JWT_TTL", "jwt_ttl"),
        ("ttl", "jwt_ttl"),
        ("jwt_tll", "jwt_ttl"),
        ("exp", "jwt_ttl"),
        ("jwt_exp", "jwt_ttl"),
        ("user", "jwt_user"),
        ("username", "jwt_user"),
        ("listen-port", "listen_port"),
        ("listenport", "listen_port"),
        ("mod", "mode"),
        ("jwt_connect", "jwt_connect_timeout"),
        ("foo", ""),
        ("jwt_x", ""),
        ("", ""),
    ],
)
def test_what_an_option_may_mean(name: str, meant: str) -> None:
    assert likely_option(name, OPTIONS) == meant


def test_each_word_stands_for_one_thing_and_is_no_name_itself() -> None:
    words = list(itertools.chain.from_iterable(words.split() for words in spelling._WORDS.values()))
    assert len(words) == len(set(words))
