"""`jwtproxy-run status`: what a running proxy says of itself."""

import argparse
import asyncio
import http.client
import ipaddress
import json
from pathlib import Path
from typing import Any, NamedTuple

from mitmproxy.options import Options
from mitmproxy.proxy.mode_specs import ProxyMode

from jwtproxy.conduct.destination import Destination
from jwtproxy.config.errors import SettingsError
from jwtproxy.observe.pages import STATUS_PATH

from .. import asked, commandline, environment, usage
from ..report import report

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
"""
_TIMEOUT = 5.0  # seconds of silence
_LONGEST = 1 << 20  # bytes of an answer
HINT = "jwtproxy-run serve starts one; --proxy http://HOST:PORT asks another"
"""What to do where none has answered."""


class NoAnswerError(Exception):
    """Nobody has answered, or somebody else."""


class Proxy(NamedTuple):
    """Whom to ask."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """How it is told to people."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


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
        return args, named(args.proxy) if args.proxy else listening(master.options)


def named(url: str) -> Proxy:
    """The proxy with this URL, or host and port. Raises SettingsError."""
    destination: Destination
    destination, _ = asked.parse_url(url if "://" in url else f"http://{url}")
    if destination.scheme != "http":
        raise SettingsError(f"bad URL {url!r} for --proxy", "use http://: the proxy's own pages have no TLS")
    return Proxy(destination.host, destination.port)


def listening(options: Options) -> Proxy:
    """The proxy on this machine that would listen with these settings. Raises SettingsError."""
    mode = ProxyMode.parse(options.mode[0])
    host, port = mode.listen_host(options.listen_host) or "127.0.0.1", mode.listen_port(options.listen_port)
    if host in ("0.0.0.0", "::"):  # noqa: S104  # compared only
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"  # noqa: S104
    if not port:
        raise SettingsError("the port of the proxy is not known", "use --proxy http://HOST:PORT")
    proxy = Proxy(host, port)
    if not is_here(host):
        raise SettingsError(f"{host!r} may be another machine, and is not asked", f"use --proxy {proxy.url}")
    return proxy


def ask(proxy: Proxy) -> dict[str, Any]:
    """What /status says there. Raises NoAnswerError."""
    stranger = NoAnswerError(f"who answers at {proxy.url} is no jwtproxy, or shows no status (jwt_pages)")
    try:
        said = json.loads(fetch(proxy, STATUS_PATH, "application/json", stranger))
    except (ValueError, RecursionError):
        raise stranger from None
    if not isinstance(said, dict) or "proxied_requests" not in said:
        raise stranger
    return said


def fetch(proxy: Proxy, path: str, accept: str, stranger: NoAnswerError) -> bytes:
    """A page of its own, asked for directly whatever proxies the environment names. Raises NoAnswerError.

    stranger: what to raise where somebody answers, but not with the page.
    """
    connection = http.client.HTTPConnection(proxy.host, proxy.port, timeout=_TIMEOUT)
    try:
        connection.request("GET", path, headers={"Accept": accept})
        answer = connection.getresponse()
        body = answer.read(_LONGEST)
    except http.client.HTTPException:
        raise stranger from None
    except OSError as error:
        reason = (error.strerror or str(error) or "error").lower()
        raise NoAnswerError(f"nobody answers at {proxy.url}: {reason}") from None
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise stranger
    return body


def in_words(said: dict[str, Any]) -> str:
    """For people: a line for each member, and for each limit that was reached."""
    limits = said.get("limits")
    lines = [(name, shown(value)) for name, value in said.items() if name != "limits"]
    for name, limit in limits.items() if isinstance(limits, dict) else ():
        if isinstance(limit, dict) and limit.get("reached"):
            lines.append((name, f"{shown(limit.get('value'))}, reached {shown(limit['reached'])} times"))
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{shown(name):<{width}}  {value}" for name, value in lines)


def shown(value: object) -> str:
    """As it is, if it can do no harm to a terminal."""
    return value if isinstance(value, str) and value.isprintable() else json.dumps(value)


def is_here(host: str) -> bool:
    """Whether what is sent there stays on this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
