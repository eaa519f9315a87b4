"""What went wrong during the start ends it."""

import asyncio

from mitmproxy import ctx
from mitmproxy.addons import errorcheck

from jwtproxy.config.errors import SettingsError

from .. import option_checks
from ..processes.sockets import Loop


class StartCheck(errorcheck.ErrorCheck):
    """mitmproxy addon: an error logged during the start ends it."""

    name = "errorcheck"

    async def shutdown_if_errored(self) -> None:
        """Raise SettingsError for what is wrong so far."""
        await asyncio.sleep(0)  # as in mitmproxy: what is being logged right now counts too
        self.check()

    def check(self) -> None:
        """Raise SettingsError for the first error logged so far, or an option that no script has declared."""
        if self.logger.has_errored:
            raise SettingsError(self.logger.has_errored[0].getMessage(), "fix what it names; -v shows more")
        scripts = ctx.master.addons.get("scriptloader").addons
        for task in (script.reloadtask for script in scripts):
            if task and task.done() and not task.cancelled() and (error := task.exception()):
                with option_checks.as_settings_errors():
                    raise error  # of an option's value, with which mitmproxy would go on without the script
        if all(script.ns for script in scripts):
            option_checks.check_declared(ctx.options)

    def finish(self) -> None:
        """The start is over: from here on errors are logged, and clients, whose doing they may be, are let in."""
        super().finish()
        ctx.master.addons.get("termlog").starting = False
        if isinstance(loop := ctx.master.event_loop, Loop):
            loop.acceptor.open()
