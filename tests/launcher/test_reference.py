"""--options shows what holds here."""

from __future__ import annotations

import asyncio

import pytest
from ruamel.yaml import YAML

from jwtproxy.launcher import commandline, reference
from jwtproxy.launcher.environment import OPTIONS

pytestmark = pytest.mark.usefixtures("pristine")


def _listed(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    async def show() -> None:
        with commandline.preview() as master:
            reference.print_options(master)

    asyncio.run(show())
    return dict(YAML(typ="safe").load(capsys.readouterr().out))


def test_the_defaults_are_those_that_hold_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither mitmdump's, nor what the environment sets."""
    monkeypatch.setenv("JWT_USER", "ci")
    monkeypatch.setenv("HTTP_PORT", "9")
    listed = _listed(capsys)
    assert (listed["listen_host"], listed["listen_port"], listed["rawtcp"]) == ("127.0.0.1", 8080, False)
    assert {option.name: listed[option.name] for option in OPTIONS} == {row.name: row.default for row in OPTIONS}
    assert listed["flow_detail"] == 1


def test_the_commands_are_mitmproxys(capsys: pytest.CaptureFixture[str]) -> None:
    async def show() -> None:
        with commandline.preview() as master:
            reference.print_commands(master)

    asyncio.run(show())
    assert "replay.client" in capsys.readouterr().out
