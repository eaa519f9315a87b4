"""Errors and hints are one line each."""

from __future__ import annotations

import pytest

from jwtproxy.launcher.report import report, warn


@pytest.mark.parametrize(
    ("message", "hint", "printed"),
    [
        ("no key", "", "jwtproxy: error: no key\n"),
        ("no key", "make one", "jwtproxy: error: no key\njwtproxy: hint: make one\n"),
        ("two\nlines\t here", "and\n here", "jwtproxy: error: two lines here\njwtproxy: hint: and here\n"),
        ("JWT_SHARED_SECRET is not set", "", "jwtproxy: error: JWT_SHARED_SECRET is not set\n"),
        ("Addon error: Invalid mode", "", "jwtproxy: error: invalid mode\n"),
    ],
)
def test_an_error_is_one_line_and_a_hint_another(
    message: str, hint: str, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    report(message, hint)
    assert capsys.readouterr() == ("", printed)


def test_a_warning_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    warn("look at this")
    assert capsys.readouterr() == ("", "jwtproxy: warning: look at this\n")
