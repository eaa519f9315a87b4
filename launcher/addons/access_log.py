"""The log for programs: one JSON object for each request, on standard output."""

import asyncio
import os
from typing import Any

from mitmproxy import ctx, exceptions, http
from mitmproxy.addonmanager import Loader

from jwtproxy.config import options
from jwtproxy.config.errors import SettingsError
from jwtproxy.mitm import flows, ledger
from jwtproxy.observe import access_log

from ..lines import Lines

_GATHERED = 0.02
"""Seconds in which requests gather, for their lines to be made and handed over at once: one after the other in the
midst of others' work, they take twice as long.
"""
_STDOUT = 1
_LAST = 2.0
"""Seconds that a reader has at the end to take what is left."""


class AccessLog:
    """mitmproxy addon: declares the option, and writes lines where it says `json`."""

    def __init__(self) -> None:
        self._wanted = False
        self._lines: Lines | None = None
        self._dumper: Any = None
        """Who knows which requests are to be shown."""
        self._gathered: list[tuple[Any, ...]] = []

    def load(self, loader: Loader) -> None:
        """Declare the option."""
        options.declare(loader, access_log.OPTIONS, os.environ)

    def configure(self, updated: set[str]) -> None:
        """Check the option, and see whether anybody wants lines."""
        try:
            form = options.parse(access_log.OPTIONS, ctx.options)["log_format"]
        except SettingsError as error:
            raise exceptions.OptionsError(str(error)) from error
        self._wanted = form == "json" and getattr(ctx.options, "flow_detail", 1) > 0
        self._dumper = ctx.master.addons.get("dumper")
        self._listen()

    def running(self) -> None:
        """Everybody is there."""
        self._listen()

    def done(self) -> None:
        """Write what is left, if anybody takes it."""
        self._hand_over()
        if self._lines:
            self._lines.end(_LAST)

    def _listen(self) -> None:
        if told_by := ledger.ledger_of(ctx.options):
            told_by.tell(self._keep, wanted=self._wanted)

    def _keep(self, flow: http.HTTPFlow, *more: Any) -> None:
        if flows.is_probe(flow) or (self._dumper.filter and not self._dumper.filter(flow)):
            return
        if not self._gathered:
            asyncio.get_running_loop().call_later(_GATHERED, self._hand_over)
        self._gathered.append(ledger.row(flow, *more))

    def _hand_over(self) -> None:
        if self._gathered:
            rows, self._gathered = self._gathered, []
            self._lines = self._lines or Lines(_STDOUT, access_log.LONGEST)
            self._lines.write([access_log.as_json(row) for row in rows])
