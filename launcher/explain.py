"""`jwtproxy-run explain METHOD URL`: which rule decides on a request, and the token it would get. Nothing is sent."""

import argparse
import asyncio
import json
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mitmproxy.connection import Client, Server
from mitmproxy.http import Headers, HTTPFlow, Request
from mitmproxy.options import Options

from jwtproxy import claims, flow_filters
from jwtproxy.destination import DEFAULT_PORTS, Destination, agrees, normalise
from jwtproxy.live import Live
from jwtproxy.policy import Target
from jwtproxy.settings import TOKEN, SettingsError

from . import commandline, environment, terminal

NOT_EXPLAINED = 2

_DESCRIPTION = """\
Say which rule decides on a request, and the token it would get. Settings are read from the same places as to serve;
nothing is sent, resolved or listened on. Rules about the client's address see 127.0.0.1."""
_EXAMPLES = """\
examples:
  jwtproxy-run explain GET https://api.example/v1/things
  jwtproxy-run explain --set jwt_rules=rules.yaml -H 'Content-Type: text/plain' POST http://pay.example:8080/
  jwtproxy-run explain --json GET https://api.example/ | jq .token.claims.aud
"""

_URL = re.compile(
    r"(?i:(https?|wss?)://)(?:\[([0-9A-Fa-f:.]*:[^\]@]*)\]|([^/?#:@\[\]]+))(?::([0-9]*))?(/[^?#]*)?(\?[^#]*)?(#.*)?",
    re.DOTALL,
)
_SCHEMES = {"ws": "http", "wss": "https"}
_KEPT = "!$%&'()*+,/:;=?@[]"  # of a path and a query as they are typed (RFC 3986 §2)


def run(arguments: list[str]) -> int:
    """Explain one request; the exit status."""
    try:
        print(asyncio.run(_explain(arguments)))
    except SettingsError as error:
        terminal.report(str(error), error.hint)
        return NOT_EXPLAINED
    return 0


async def _explain(arguments: list[str]) -> str:
    """What to print. Raises SettingsError."""
    with commandline.preview() as master:
        args = _parser(master.options).parse_intermixed_args(arguments)
        method, url = _asked(args.filter_args)
        args.filter_args = []  # to whom else reads them, they are a filter
        fields = [_field(line) for line in args.header]
        destination, path = parse_url(url)
        live = commandline.configure(master, args, environment.sources(Path()))[1]
    decided = _decide(live, destination, _flow(method, destination, path, fields))
    return json.dumps(decided, indent=2) if args.json else _in_words(decided)


def _parser(options: Options) -> argparse.ArgumentParser:
    """The parser of jwtproxy-run, whose filter is our method and URL, and whose -H is curl's."""
    parser = commandline.parser(options)
    parser.prog = "jwtproxy-run explain"
    parser.usage = "%(prog)s [options] METHOD URL"
    parser.description, parser.epilog = _DESCRIPTION, _EXAMPLES
    # -H is mitmdump's for a rule about headers, whose long form remains.
    ours = parser.add_argument_group("explain", conflict_handler="resolve")
    ours.add_argument("--json", action="store_true", help="print JSON, for scripts")
    ours.add_argument(
        "-H", "--header", action="append", default=[], metavar="LINE", help="a header field, 'Name: value'; any number"
    )
    for action in parser._actions:  # argparse tells of them in no other way
        if action.dest == "filter_args":
            action.nargs, action.help = "*", argparse.SUPPRESS
    return parser


def _asked(words: list[str]) -> tuple[str, str]:
    """Method and URL. Raises SettingsError."""
    hint = "jwtproxy-run explain GET https://api.example/"
    if len(words) != 2:
        raise SettingsError(f"explain wants a method and a URL, not {' '.join(words)!r}", hint)
    method, url = words
    if not TOKEN.fullmatch(method):
        raise SettingsError(f"bad method {method!r}", hint)
    if method == "CONNECT":
        raise SettingsError("a CONNECT is never signed", "name a request inside its tunnel: GET https://…")
    return method, url


def _field(line: str) -> tuple[bytes, bytes]:
    """A header field. Raises SettingsError."""
    name, colon, value = line.partition(":")
    if not colon or not TOKEN.fullmatch(name) or re.search(r"[\r\n\0]", value):
        raise SettingsError(f"bad header {line!r} for -H", "write it as 'Name: value'")
    return name.encode(), value.strip().encode("utf-8", "surrogateescape")


def parse_url(url: str) -> tuple[Destination, str]:
    """Where a client of the proxy would want to go with this URL, and the path it would send. Raises SettingsError."""
    found = _URL.fullmatch(url)
    if not found:
        hint = "write it as https://host:port/path, without user and password; ws and wss are http and https"
        raise SettingsError(f"bad URL {url!r}", hint)
    scheme, address, name, port, path, query, _ = found.groups(default="")
    scheme = _SCHEMES.get(scheme.lower(), scheme.lower())
    try:
        destination = normalise(scheme, address or name, int(port) if port else DEFAULT_PORTS[scheme])
    except ValueError as error:
        raise SettingsError(f"bad URL {url!r}: {error}", "name a host and a port that can be reached") from None
    return destination, quote(f"{path or '/'}{query}", _KEPT, errors="surrogateescape")


def _flow(method: str, destination: Destination, path: str, fields: Iterable[tuple[bytes, bytes]]) -> HTTPFlow:
    """The request as a proxy receives it."""
    client = Client(peername=("127.0.0.1", 0), sockname=("127.0.0.1", 0))
    flow = HTTPFlow(client, Server(address=None))
    scheme, host, port = destination
    flow.request = Request(
        host=host,
        port=port,
        method=method.encode(),
        scheme=scheme.encode(),
        authority=b"",
        path=path.encode(),
        http_version=b"HTTP/1.1",
        headers=Headers(tuple(fields)),
        content=None,
        trailers=None,
        timestamp_start=time.time(),
        timestamp_end=None,
    )
    return flow


def _decide(live: Live, destination: Destination, flow: HTTPFlow) -> dict[str, Any]:
    """What becomes of the request, as `--json` says it."""
    hosts = [value for name, value in flow.request.headers.fields if name.lower() == b"host"]
    decided = {"destination": destination.origin}
    # To a tunnel the URL's host is its destination; to a proxy asked directly, Host means nothing (RFC 9112 §3.2.2).
    if destination.scheme == "https" and live.settings.host_mismatch != "allow" and not agrees(hosts, destination):
        return decided | _outcome(None, None, "refuse", 421)
    decision = live.policy.decide(flow_filters.view(flow, destination))
    status = 403 if decision.action == "block" else None
    return decided | _outcome(
        decision.rule, decision.place, decision.action, status, decision.target, destination.origin
    )


def _outcome(
    rule: str | None, place: str | None, action: str, status: int | None, target: Target | None = None, origin: str = ""
) -> dict[str, Any]:
    return {
        "rule": rule,
        "place": place,
        "action": action,
        "status": status,
        "header": target.profile.header if target else None,
        "token": _token(target, origin) if target else None,
    }


def _token(target: Target, origin: str) -> dict[str, Any]:
    """Header and claims of a token made now, which nobody signs. Raises SettingsError."""
    now = time.time()
    signer = target.ring.signing(now).signer(target.profile.typ)
    return {"header": signer.header, "claims": claims.mint(target.profile, origin, now)}


def _in_words(decided: dict[str, Any]) -> str:
    """For people."""
    rule, place = decided["rule"], decided["place"]
    outcome = {
        "sign": f"sign: a token in {decided['header']}",
        "pass": "pass: no token",
        "block": "block: 403",
        "refuse": "refuse: 421, as Host contradicts the tunnel's destination",
    }[decided["action"]]
    lines = [
        f"destination  {decided['destination']}",
        f"rule         {rule or 'none is asked'}{f' ({place})' if place else ''}",
        f"action       {outcome}",
    ]
    for name, part in (decided["token"] or {}).items():
        lines += ["", f"token's {name}", json.dumps(part, indent=2, ensure_ascii=False)]
    return "\n".join(lines)
