"""What is wrong with a setting is one error, which can be told where it stands."""

from __future__ import annotations

import pytest

from jwtproxy.config.errors import SettingsError, trace


def test_an_error_says_what_is_wrong_and_names_the_way_out() -> None:
    error = SettingsError("what is wrong", "the way out")
    assert (str(error), error.hint) == ("what is wrong", "the way out")
    assert isinstance(error, ValueError)


def test_an_error_may_come_without_a_hint() -> None:
    assert SettingsError("what is wrong").hint == ""


def test_what_is_not_printable_is_escaped() -> None:
    """It comes from a file or a library; a terminal would obey it, and a line break would begin another entry."""
    error = SettingsError("bad range 0-\x08\n", "not \x1b[31m, ö is").at("a\udc80.yaml:3")
    assert str(error) == r"a\udc80.yaml:3: bad range 0-\x08\n"
    assert error.hint == r"not \x1b[31m, ö is"


def test_an_error_can_be_told_its_place() -> None:
    error = SettingsError("what is wrong", "the way out")
    assert error.at("rules.yaml:3") is error, "so that whoever knows its kind still does"
    assert (str(error), error.hint) == ("rules.yaml:3: what is wrong", "the way out")


def test_a_kind_of_error_stays_one_with_all_it_knows() -> None:
    class LaterError(SettingsError):
        """One that knows more, and is made otherwise."""

        def __init__(self, until: float) -> None:
            super().__init__("not yet", "wait")
            self.until = until

    with pytest.raises(LaterError, match=r"^here: not yet$") as caught:
        raise LaterError(5).at("here") from None
    assert (caught.value.until, caught.value.hint) == (5, "wait")


def test_an_unforeseen_error_is_told_without_its_words() -> None:
    words = "hunter" + "2"
    try:
        raise KeyError(words)
    except KeyError as error:
        told = trace(error)
    assert told.startswith("Traceback (most recent call last):\n  File ")
    assert "raise KeyError(words)" in told
    assert told.endswith("\nKeyError")
    assert words not in told
    assert trace(None) == ""
