"""`jwtproxy-run version`."""

from __future__ import annotations

import pytest

import jwtproxy
from jwtproxy.config.errors import SettingsError
from jwtproxy.launcher.commands import version

pytestmark = pytest.mark.usefixtures("pristine")


def test_it_names_all_that_matters(capsys: pytest.CaptureFixture[str]) -> None:
    assert version.run([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"jwtproxy {jwtproxy.__version__}"
    assert [line.split(":")[0] for line in lines[1:]] == ["Mitmproxy", "Python", "OpenSSL", "Platform"]


def test_it_takes_no_words() -> None:
    with pytest.raises(SettingsError, match="unrecognized arguments: x"):
        version.run(["x"])
