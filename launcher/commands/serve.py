"""Check everything, then run mitmdump with our addons, in one process or several."""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from mitmproxy.certs import CertStore
from mitmproxy.options import CONF_BASENAME, Options
from mitmproxy.proxy.mode_specs import ProxyMode
from mitmproxy.utils import debug

from jwtproxy.addons import status
from jwtproxy.addons.jwt_inject import JwtInject
from jwtproxy.config.errors import SettingsError
from jwtproxy.observe.counters import Counters
from jwtproxy.policy.current import KEPT, CurrentPolicy
from jwtproxy.tokens.key_source import KeySource

from .. import commandline, environment, in_force, option_checks, reference
from ..master import Master
from ..option_checks import as_settings_errors
from ..processes import capacity, descriptors, secrecy
from ..processes.sockets import Loop, bind
from ..report import MISTAKEN, report, tell
from . import version

ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)

Sockets = dict[tuple[str, int], list[socket.socket]]


@dataclass(frozen=True)
class Plan:
    """All that a process needs to serve, checked."""

    source: KeySource
    current: CurrentPolicy
    options: dict[str, Any]
    deferred: dict[str, Any]
    """Options of scripts, which are not loaded yet."""
    sockets: Sockets
    counters: Counters
    workers: int
    grace: float
    """Seconds."""
    terminal: bool
    """Whether we were started from one."""
    tokens: str = ""
    """What the start tells of how requests are signed."""


def run(arguments: list[str]) -> int:
    """Run with these arguments; the exit status."""
    _set_log_levels()
    descriptors.raise_limit()
    secrecy.seal()
    try:
        plan = asyncio.run(_plan(arguments))
        if plan is None:
            return 0
        secrecy.forget(os.environ)
        if plan.workers > 1:
            return _serve_together(plan)
        return asyncio.run(_serve(plan), loop_factory=Loop)
    except SettingsError as error:
        report(str(error), error.hint)
        return MISTAKEN


async def _plan(arguments: list[str]) -> Plan | None:
    """Check everything, and listen; None where there is nothing to serve. Raises SettingsError."""
    try:
        with commandline.preview() as master:
            return _check(master, arguments)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)


def _check(master: Master, arguments: list[str]) -> Plan | None:
    options = master.options
    args = commandline.read(commandline.parser(options), arguments)
    if args.version:
        print(version.text())
        return None
    if args.json and not args.check:
        raise SettingsError("--json without --check", "jwtproxy-run --check --json prints all settings")
    grace = commandline.grace(args)
    found = environment.sources(Path())
    if args.options or args.commands:  # which need no key
        commandline.set_options(options, args, environment.options(found))
        (reference.print_commands if args.commands else reference.print_options)(master)
        return None
    asked = environment.workers(args.workers, found)
    source, current = commandline.configure(master, args, found)
    workers, reason = capacity.decide(asked, options)
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)  # to be killed while the CA is written would spoil it
    prepare_ca(options)
    told = in_force.gather(options, args, found, source, current)
    if args.check:
        _check_options_of_scripts(master)
        print(told.as_json() if args.json else f"jwtproxy: all settings are valid\n{told.as_table()}")
        return None
    if reason and options.flow_detail:
        print(f"jwtproxy: one worker, as {reason}")
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)
    sockets = _listen(options)
    changed = {name: option.current() for name, option in options.items() if option.has_changed()}
    changed["confdir"] = options.confdir  # has mitmproxy read the CA before it listens, not after
    counters = Counters(processes=workers, limits=status.LIMITS)
    deferred, terminal = dict(options.deferred), os.isatty(0)
    return Plan(source, current, changed, deferred, sockets, counters, workers, grace, terminal, told.as_line())


def _listen(options: Options) -> Sockets:
    """Bind what the modes say. Raises SettingsError."""
    bound: Sockets = {}
    specs = list(options.mode) if options.server else []
    for index, spec in enumerate(specs):
        mode = ProxyMode.parse(spec)
        host, port = mode.listen_host(options.listen_host), mode.listen_port(options.listen_port)
        if mode.transport_protocol not in ("tcp", "both") or port is None:
            continue
        sockets = bind(host, port)
        if port == 0:
            # Who is told 0 later would take another port, each worker its own.
            port = sockets[0].getsockname()[1]
            if mode.custom_listen_port is None:
                options.listen_port = port
            else:
                specs[index] = f"{spec.removesuffix('0')}{port}"
        bound[host, port] = sockets
    if options.server:
        options.mode = specs
    return bound


def prepare_ca(options: Options) -> CertStore:
    """The CA, made if there is none, while we are alone: each worker would make its own. Raises SettingsError."""
    folder, passphrase = Path(options.confdir), options.cert_passphrase
    try:
        folder = folder.expanduser().resolve()
        secret = passphrase.encode() if passphrase else None
        return CertStore.from_store(folder, CONF_BASENAME, options.key_size, secret)
    except (OSError, RuntimeError, TypeError, ValueError) as error:  # Runtime: no home for "~"
        reason = getattr(error, "strerror", None) or str(error)
        raise SettingsError(
            f"cannot use the CA in {str(folder)!r}: {reason.lower()}",
            "use a folder this user may write to: --set confdir=FOLDER; or its passphrase: --set cert_passphrase=…",
        ) from None


def _check_options_of_scripts(master: Master) -> None:
    """See whether scripts declare what `--set` gives to nobody else. Raises SettingsError."""
    if option_checks.undeclared(master.options):
        reference.load_scripts(master)
        master.addons.get("errorcheck").check()


def _serve_together(plan: Plan) -> int:
    from ..processes import supervisor

    def work(number: int, listeners: Iterable[socket.socket], beat: Callable[[], Awaitable[None]]) -> int:
        plan.counters.use_cell(number)
        inherited = iter(listeners)
        sockets = {address: [next(inherited) for _ in own] for address, own in plan.sockets.items()}
        try:
            return asyncio.run(_serve(replace(plan, sockets=sockets), number, beat), loop_factory=Loop)
        except SettingsError as error:
            report(str(error), error.hint)
            return supervisor.NOT_BOOTED

    # Handed over: who keeps a copy keeps listening when all others have stopped.
    descriptors = [sock.detach() for sockets in plan.sockets.values() for sock in sockets]
    return supervisor.run(work, descriptors, plan.workers, plan.grace, partial(_refresh, plan))


def _refresh(plan: Plan, asked: bool) -> None:
    """Read changed keys and rules, and tell of it for all workers; stop instead when our terminal is gone."""
    if asked and _hung_up(plan):
        raise StopIteration
    change = plan.current.reload() if asked else plan.current.poll()
    if isinstance(change, SettingsError):
        report(f"{change}; {KEPT}", change.hint)
    elif change:
        tell(f"jwtproxy: {change}")


def _hung_up(plan: Plan) -> bool:
    """Whether a SIGHUP came of a closed terminal: who closes it wants us to end, all others to reload."""
    return plan.terminal and not os.isatty(0)


async def _serve(plan: Plan, number: int = 1, beat: Callable[[], Awaitable[None]] | None = None) -> int:
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
    fast_lane = master.add_ours(signing, plan.counters, announces=number == 1)
    master.addons.get("dumper").tokens = plan.tokens
    running.wrap = fast_lane.wrap
    master.connections.attend(running)
    stop = partial(signals.put_nowait, signal.SIGTERM)
    running.add_signal_handler(signal.SIGHUP, lambda: stop() if _hung_up(plan) else signing.reload())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])
    master.options.deferred.update(plan.deferred)
    with as_settings_errors():
        master.options.update(**plan.options)
    tasks = [asyncio.ensure_future(work) for work in (master.run(), beat and beat()) if work]
    serving = tasks[0]
    await _until_told(serving, signals, lambda: master.drain(plan.grace))
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


def _set_log_levels() -> None:
    """As mitmproxy's own main does."""
    logging.getLogger().setLevel(logging.DEBUG)
    for name in ("tornado", "asyncio", "hpack", "quic"):
        logging.getLogger(name).setLevel(logging.WARNING)
