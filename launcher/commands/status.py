"""`jwtproxy-run status`: what a running proxy says of itself."""

import argparse
import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jwtproxy.observe.pages import STATUS_PATH

from .. import commandline, environment, running, usage
from ..report import report
from ..running import HINT, NoAnswerError, Proxy, named

SILENT = 1
"""The exit status where no proxy has answered."""

_DESCRIPTION = """\
Ask a running proxy for its /status, and print it. Without --proxy, the proxy is asked that listens on
this machine where these settings say; the key is not needed. The exit status is 1 if none answers."""
_EXAMPLES = """\
examples:
  jwtproxy-run status
  jwtproxy-run status --port 9090
  jwtproxy-run status --proxy http://10.0.0.7:8080 --json | jq .proxied_requests
  jwtproxy-run status --proxy http://USER:PASSWORD@10.0.0.7:8080    where --proxyauth is set
"""


def run(arguments: list[str]) -> int:
    """Print what a proxy says; the exit status. Raises SettingsError."""
    args, proxy = asyncio.run(_settings(arguments))
    try:
        said = ask(proxy)
    except NoAnswerError as error:
        report(str(error), HINT)
        return SILENT
    print(json.dumps(said) if args.json else f"{proxy.url}\n{in_words(said)}")
    return 0


async def _settings(arguments: list[str]) -> tuple[argparse.Namespace, Proxy]:
    """The flags, and whom to ask. Raises SettingsError."""
    with commandline.preview() as master:
        parser = commandline.parser(master.options)
        usage.of_command(parser, "status", "[options]", _DESCRIPTION, _EXAMPLES, (usage.TOKENS, usage.SERVING))
        own = parser.add_argument_group("status", conflict_handler="resolve")
        own.add_argument("--proxy", metavar="URL", help="the proxy to ask (where these settings would listen)")
        own.add_argument("--port", metavar="PORT", help="the port where it listens, as -p (HTTP_PORT, 8080)")
        own.add_argument("--json", action="store_true", help="print JSON, for scripts")
        args = commandline.read(parser, arguments)
        commandline.refuse(args, "status", "check")
        commandline.set_options(master.options, args, environment.options(environment.sources(Path())))
        return args, named(args.proxy) if args.proxy else running.pages(master.options)


def ask(proxy: Proxy) -> dict[str, Any]:
    """What /status says there. Raises NoAnswerError."""
    try:
        said = json.loads(running.get(proxy, STATUS_PATH, "application/json"))
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict) or "proxied_requests" not in said:
        raise running.no_page(proxy, STATUS_PATH)
    return said


def in_words(said: dict[str, Any]) -> str:
    """For people: a line for each figure, for each group of those that are not 0, each limit reached, each instance."""
    limits = said.get("limits")
    apart = ("limits", "history", "total", "instances")
    lines = [line for name, value in said.items() if name not in apart for line in _lines(name, value)]
    if total := said.get("total"):
        lines.append(("all instances", _told(total)))
    for name, limit in limits.items() if isinstance(limits, dict) else ():
        if isinstance(limit, dict) and limit.get("reached"):
            lines.append((name, f"{shown(limit.get('value'))}, reached {shown(limit['reached'])} times"))
    instances = said.get("instances")
    for one in instances if isinstance(instances, list) else ():
        if isinstance(one, dict):
            requests, state = shown(one.get("proxied_requests")), shown(one.get("state"))
            lines.append((str(one.get("id")), f"{state}, {requests} requests, seen {shown(one.get('seen_at'))}"))
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{shown(name):<{width}}  {value}" for name, value in lines)


def _lines(name: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, list):
        yield from ((name, _told(item)) for item in value)
    elif isinstance(value, dict) and any(isinstance(inner, dict) for inner in value.values()):
        yield from ((inner, _told(found)) for inner, found in value.items())
    elif value != {} and (told := _told(value)):
        yield name, told


def _told(value: object) -> str:
    if not isinstance(value, dict):
        return shown(value)
    return ", ".join(f"{shown(name)} {shown(found)}" for name, found in value.items() if found) or "none"


def shown(value: object) -> str:
    """As it is, if it can do no harm to a terminal."""
    return value if isinstance(value, str) and value.isprintable() else json.dumps(value)
