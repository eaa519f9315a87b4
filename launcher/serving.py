"""Serve as planned, until told to stop."""

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from mitmproxy.options import Options
from mitmproxy.utils import debug

from jwtproxy.addons.jwt_inject import JwtInject

from .master import Master
from .option_checks import as_settings_errors
from .plan import ENDS, Plan
from .processes import capacity
from .processes.sockets import Loop


def set_log_levels() -> None:
    """As mitmproxy's own main does."""
    logging.getLogger().setLevel(logging.DEBUG)
    for name in ("tornado", "asyncio", "hpack", "quic"):
        logging.getLogger(name).setLevel(logging.WARNING)


def hung_up(plan: Plan) -> bool:
    """Whether a SIGHUP came of a closed terminal: who closes it wants us to end, all others to reload."""
    return plan.terminal and not os.isatty(0)


async def serve(plan: Plan, number: int = 1, beat: Callable[[], Awaitable[None]] | None = None) -> int:
    """Serve until told to stop, or there is nothing left to do (a replay has ended); the exit status.

    Raises SettingsError.
    """
    running = asyncio.get_running_loop()
    assert isinstance(running, Loop)
    signals: asyncio.Queue[int] = asyncio.Queue()
    for name in ENDS:
        running.add_signal_handler(name, signals.put_nowait, name)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # a reader of our output that goes away must not end us
    debug.register_info_dumpers()
    try:
        return await _run(plan, running, signals, number, beat)
    finally:
        # We are leaving: who asks again must not meet the interpreter's own handlers, which are back in a moment, nor a
        # loop that is half closed.
        signal.pthread_sigmask(signal.SIG_BLOCK, [*ENDS, signal.SIGHUP])
        running.stop_listening()


async def _run(
    plan: Plan,
    running: Loop,
    signals: "asyncio.Queue[int]",
    number: int,
    beat: Callable[[], Awaitable[None]] | None,
) -> int:
    running.take(plan.sockets, shared=plan.workers > 1)
    if plan.workers > 1:
        capacity.keep_to_tcp(plan.options.get("mode", ()))

    master = Master(Options())
    signing = JwtInject(plan.source, plan.current, announces=plan.workers == 1)
    fast_lane = master.add_ours(signing, plan.counters, plan.board, plan.sharing, announces=number == 1)
    master.addons.add(*plan.watchers)
    dumper = master.addons.get("dumper")
    dumper.tokens, dumper.day = plan.tokens, plan.day
    running.wrap = fast_lane.wrap
    master.connections.attend(running)
    stop = partial(signals.put_nowait, signal.SIGTERM)
    running.add_signal_handler(signal.SIGHUP, lambda: stop() if hung_up(plan) else signing.reload())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])
    master.options.deferred.update(plan.deferred)
    with as_settings_errors():
        master.options.update(**plan.options)
    tasks = [asyncio.ensure_future(work) for work in (master.run(), beat and beat()) if work]
    serving = tasks[0]
    await _until_told(serving, signals, lambda: master.drain(plan.drain_delay, plan.grace))
    if not serving.done():
        await master.cut()
    master.shutdown()
    await serving
    for task in tasks[1:]:
        task.cancel()
    return master.status


async def _until_told(
    serving: asyncio.Future[Any], signals: "asyncio.Queue[int]", drain: Callable[[], Awaitable[None]]
) -> None:
    """Return when it is time to stop: SIGINT at once, SIGTERM after requests in flight, or nothing left to do."""
    told = asyncio.ensure_future(signals.get())
    await asyncio.wait({serving, told}, return_when=asyncio.FIRST_COMPLETED)
    if told.done() and told.result() == signal.SIGTERM and not serving.done():
        draining = asyncio.ensure_future(drain())
        told = asyncio.ensure_future(signals.get())
        await asyncio.wait({serving, draining, told}, return_when=asyncio.FIRST_COMPLETED)
        draining.cancel()
    told.cancel()
