"""An error during the start ends it; later ones are logged."""

from __future__ import annotations

import asyncio
import logging

import pytest
from mitmproxy.options import Options

from jwtproxy.config.errors import SettingsError
from jwtproxy.launcher.master import Master

pytestmark = pytest.mark.usefixtures("pristine")


def test_the_first_error_of_the_start_ends_it() -> None:
    async def run() -> None:
        master = Master(Options())
        check = master.addons.get("errorcheck")
        await check.shutdown_if_errored()
        logging.getLogger("x").error("no %s", "good")
        logging.getLogger("x").error("worse")
        with pytest.raises(SettingsError, match=r"^no good$"):
            await check.shutdown_if_errored()
        await master.done()

    asyncio.run(run())


def test_after_the_start_errors_are_logged(capsys: pytest.CaptureFixture[str]) -> None:
    async def run() -> None:
        master = Master(Options())
        logging.getLogger("x").error("early")
        master.addons.get("errorcheck").finish()
        logging.getLogger("x").error("late")
        await master.done()

    asyncio.run(run())
    assert capsys.readouterr().err == "jwtproxy: error: late\n"
