"""Check everything, then run mitmdump with our addons, in one process or several."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

from jwtproxy.config.errors import SettingsError
from jwtproxy.config.options import parse
from jwtproxy.mitm import pages_mode
from jwtproxy.observe import pages, sharing
from jwtproxy.observe.sharing import Sharing
from jwtproxy.policy.current import KEPT

from .. import commandline, environment, in_force, option_checks, reference
from ..master import Master
from ..plan import Plan, prepare_ca
from ..processes import capacity, descriptors, secrecy
from ..processes.sockets import Loop
from ..report import MISTAKEN, report, tell, tell_on_stderr
from ..serving import hung_up, serve, set_log_levels
from . import version


def run(arguments: list[str]) -> int:
    """Run with these arguments; the exit status."""
    set_log_levels()
    descriptors.raise_limit()
    secrecy.seal()
    try:
        plan = asyncio.run(_plan(arguments))
        if plan is None:
            return 0
        secrecy.forget(os.environ)
        try:
            return _serve_together(plan) if plan.workers > 1 else asyncio.run(serve(plan), loop_factory=Loop)
        finally:
            if plan.sharing:
                plan.sharing.leave()
    except SettingsError as error:
        report(str(error), error.hint)
        return MISTAKEN


async def _plan(arguments: list[str]) -> Plan | None:
    """Check everything, and listen; None where there is nothing to serve. Raises SettingsError."""
    with commandline.preview() as master:
        return _check(master, arguments)


def _check(master: Master, arguments: list[str]) -> Plan | None:
    options = master.options
    args = commandline.read(commandline.parser(options), arguments)
    if args.version:
        print(version.text())
        return None
    if args.json and not args.check:
        raise SettingsError("--json without --check", "jwtproxy-run --check --json prints all settings")
    grace, delay = commandline.grace(args), commandline.drain_delay(args)
    found = environment.sources(Path())
    if args.options or args.commands:  # which need no key
        commandline.set_options(options, args, environment.options(found))
        (reference.print_commands if args.commands else reference.print_options)(master)
        return None
    asked = environment.workers(args.workers, found)
    source, current = commandline.configure(master, args, found)
    workers, reason = capacity.decide(asked, options)
    prepare_ca(options)
    pages_mode.listen(options, parse(pages.OPTIONS, options)["pages"])
    redis = sharing.find(*found)
    told = in_force.gather(options, args, found, source, current, redis)
    if args.check:
        _check_options_of_scripts(master)
        print(told.as_json() if args.json else f"jwtproxy: all settings are valid\n{told.as_table()}")
        return None
    if reason and options.flow_detail:
        _say(f"one worker, as {reason}", options.jwt_log_format)
    plan = Plan.listening(options, source, current, workers, grace)
    return replace(plan, tokens=told.as_line(), drain_delay=delay, sharing=Sharing(plan.counters, redis))


def _check_options_of_scripts(master: Master) -> None:
    """See whether scripts declare what `--set` gives to nobody else. Raises SettingsError."""
    if option_checks.undeclared(master.options):
        reference.load_scripts(master)
        master.addons.get("errorcheck").check()


def _serve_together(plan: Plan) -> int:
    from ..processes import supervisor

    def work(number: int, listeners: Iterable[socket.socket], beat: Callable[[], Awaitable[None]]) -> int:
        plan.counters.use_cell(number)
        if plan.board:
            plan.board.use_place(number)
        inherited = iter(listeners)
        sockets = {address: [next(inherited) for _ in own] for address, own in plan.sockets.items()}
        try:
            return asyncio.run(serve(replace(plan, sockets=sockets), number, beat), loop_factory=Loop)
        except SettingsError as error:
            report(str(error), error.hint)
            return supervisor.NOT_BOOTED

    # Handed over: who keeps a copy keeps listening when all others have stopped.
    descriptors = [sock.detach() for sock in plan.all_sockets]
    grace, refresh = plan.drain_delay + plan.grace, partial(_refresh, plan)
    plan.counters.use_cell(0)
    return supervisor.run(work, descriptors, plan.workers, grace, refresh, plan.counters.forget_open)


def _refresh(plan: Plan, asked: bool) -> None:
    """Read changed keys and rules, and tell of it for all workers; stop instead when our terminal is gone."""
    if asked and hung_up(plan):
        raise StopIteration
    change = plan.current.reload() if asked else plan.current.poll()
    if change:
        plan.counters.count_reload(isinstance(change, str))
    if isinstance(change, SettingsError):
        report(f"{change}; {KEPT}", change.hint)
    elif change:
        _say(str(change), str(plan.options.get("jwt_log_format", "")))


def _say(message: str, log_format: str) -> None:
    """Tell people on stdout, unless that is for programs."""
    (tell_on_stderr if log_format == "json" else tell)(message)
