"""End a recording (-w, hardump) that cannot be written with one error, and nothing else: mitmproxy would end itself."""

import asyncio
import logging
import os
import sys
from contextlib import suppress
from weakref import WeakSet

from mitmproxy import ctx, flow
from mitmproxy.addons import save, savehar
from mitmproxy.tools.dump import DumpMaster

logger = logging.getLogger(__name__)

INCOMPLETE = 1
"""The exit status of a proxy that has served, but has not recorded all."""

_done, _done_har = save.Save.done, savehar.SaveHar.done
_failed: WeakSet[object] = WeakSet()


def save_flow(self: save.Save, flow: flow.Flow) -> None:
    """Write a flow, to another file if its time has come."""
    if not self.stream:
        return
    self.active_flows.discard(flow)
    try:
        self.maybe_rotate_to_new_file()
        self.stream.add(flow)
    except OSError as error:
        _end(self, error)


def done(self: save.Save) -> None:
    """Write what is still open and close the file: at the end, or as the option is emptied."""
    try:
        _done(self)
    except OSError as error:
        _end(self, error)
    _tell_mitmdump(self)


def done_har(self: savehar.SaveHar) -> None:
    """Write the file."""
    try:
        _done_har(self)
    except OSError as error:
        _report(self, ctx.options.hardump, error)
    _tell_mitmdump(self)


def status(recorders: list[object]) -> int:
    """The exit status as far as these addons decide it."""
    return INCOMPLETE if any(recorder in _failed for recorder in recorders) else 0


def _end(recorder: save.Save, error: OSError) -> None:
    path = str(error.filename or recorder.current_path)
    if recorder.stream:
        with suppress(OSError):  # what it still holds cannot be written either
            recorder.stream.fo.close()
    recorder.stream = recorder.current_path = None
    recorder.active_flows.clear()
    _report(recorder, path, error)
    ctx.options.update(save_stream_file=None)  # nobody needs to gather whole bodies for it any more


def _report(recorder: object, path: str, error: OSError) -> None:
    reason = os.strerror(error.errno).lower() if error.errno else "error"
    logger.error("jwtproxy: error: cannot write %r: %s; its recording has ended, requests go on", path, reason)
    _failed.add(recorder)


def _tell_mitmdump(recorder: object) -> None:
    """Have a mitmdump that is about to end do so with our status; jwtproxy-run asks for it."""
    if recorder in _failed and isinstance(ctx.master, DumpMaster) and ctx.master.should_exit.is_set():
        asyncio.get_running_loop().call_soon(sys.exit, INCOMPLETE)
