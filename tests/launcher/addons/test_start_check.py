"""An error during the start ends it; later ones are logged."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

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


def test_a_value_that_a_scripts_option_cannot_have_ends_the_start(tmp_path: Path) -> None:
    """mitmproxy would go on without the script, and say nothing."""
    (tmp_path / "script.py").write_text("def load(loader):\n    loader.add_option('mine', int, 0, 'Of a script.')\n")

    async def run() -> None:
        master = Master(Options())
        master.options.set(f"scripts={tmp_path}/script.py", "mine=x", defer=True)
        await asyncio.wait([script.reloadtask for script in master.addons.get("scriptloader").addons])
        with pytest.raises(SettingsError, match=r"^Failed to parse option mine: not an integer: x$"):
            master.addons.get("errorcheck").check()
        await master.done()

    asyncio.run(run())


@pytest.mark.parametrize(("name", "hint"), [("mine", ""), ("min", "did you mean mine?"), ("foo", "--options")])
def test_an_option_that_no_script_has_ends_the_start_once_all_are_loaded(name: str, hint: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("def load(loader):\n    loader.add_option('mine', str, '', 'Of a script.')\n")

    async def run() -> None:
        master = Master(Options())
        master.options.set(f"scripts={tmp_path}/script.py", f"{name}=1", defer=True)
        check = master.addons.get("errorcheck")
        check.check()
        for script in master.addons.get("scriptloader").addons:
            script.loadscript()
        if hint:
            with pytest.raises(SettingsError, match=f"^unknown option '{name}'$") as caught:
                check.check()
            assert hint in caught.value.hint
        else:
            check.check()
        await master.done()

    asyncio.run(run())
