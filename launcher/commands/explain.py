"""`jwtproxy-run explain METHOD URL`: which rule decides on a request, and the token it would get. Nothing is sent."""

import argparse
import asyncio
import json
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jwt
from mitmproxy.options import Options

from jwtproxy.conduct import host
from jwtproxy.conduct.destination import DEFAULT_PORTS, Destination, normalise
from jwtproxy.conduct.fields import Fields
from jwtproxy.conduct.host import Fault
from jwtproxy.conduct.request import RequestHead
from jwtproxy.conduct.verdict import Forward, Verdict
from jwtproxy.config.errors import SettingsError
from jwtproxy.policy.rules import PROXYAUTH
from jwtproxy.policy.settings import TOKEN

from .. import commandline, environment
from ..report import MISTAKEN, report

_DESCRIPTION = """\
Show which rule applies to a request, and the token it would get. Settings are read as for serving;
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
        report(str(error), error.hint)
        return MISTAKEN
    return 0


async def _explain(arguments: list[str]) -> str:
    """What to print. Raises SettingsError."""
    with commandline.preview() as master:
        args = _parser(master.options).parse_intermixed_args(arguments)
        method, url = _asked(args.filter_args)
        args.filter_args = []  # to whom else reads them, they are a filter
        fields = [_field(line) for line in args.header]
        destination, path = parse_url(url)
        _, current = commandline.configure(master, args, environment.sources(Path()))
    head = _head(method, destination, path, tuple(fields))
    decided = _told(destination, current.policy.verdict(head, time.time()))
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
        raise SettingsError(f"explain needs a method and a URL, not {' '.join(words)!r}", hint)
    method, url = words
    if not TOKEN.fullmatch(method):
        raise SettingsError(f"bad method {method!r}", hint)
    if method == "CONNECT":
        raise SettingsError("a CONNECT is never signed", "name a request inside the tunnel: GET https://…")
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
        hint = "write it as https://host:port/path, without user and password; ws and wss count as http and https"
        raise SettingsError(f"bad URL {url!r}", hint)
    scheme, address, name, port, path, query, _ = found.groups(default="")
    scheme = _SCHEMES.get(scheme.lower(), scheme.lower())
    try:
        destination = normalise(scheme, address or name, int(port) if port else DEFAULT_PORTS[scheme])
    except ValueError as error:
        raise SettingsError(f"bad URL {url!r}: {error}", "name a host and a port that can be reached") from None
    return destination, quote(f"{path or '/'}{query}", _KEPT, errors="surrogateescape")


def _head(method: str, destination: Destination, path: str, fields: Fields) -> RequestHead:
    """The request as a proxy receives it: what is https comes through a tunnel to the URL's host."""
    fault = None
    if destination.scheme != "https":
        fields = host.with_host(fields, destination)
    elif host.within_tunnel(fields, b"", destination) is None:
        fault = Fault.TUNNEL
    return RequestHead(
        method.encode(),
        *destination,
        path.encode(),
        fields,
        client=("127.0.0.1", 0),
        is_ours=True,
        user=f"<{PROXYAUTH}>",
        tunnel=destination.origin if destination.scheme == "https" else "",
        fault=fault,
    )


def _told(destination: Destination, verdict: Verdict) -> dict[str, Any]:
    """The verdict as `--json` tells it."""
    told: dict[str, Any] = {"destination": destination.origin, "rule": verdict.rule, "place": verdict.place}
    if isinstance(verdict, Forward):
        action = "sign" if verdict.header else "pass"
        token = _token(verdict)
        return told | {"action": action, "status": None, "header": verdict.header, "token": token, "reason": None}
    action = "block" if verdict.rule else "refuse"
    return told | {"action": action, "status": verdict.status, "header": None, "token": None, "reason": verdict.text}


def _token(verdict: Forward) -> dict[str, Any] | None:
    """Header and claims of the token; the signature stays here."""
    if not verdict.header:
        return None
    token = jwt.decode_complete(verdict.fields[-1][1], options={"verify_signature": False})
    return {"header": token["header"], "claims": token["payload"]}


def _in_words(decided: dict[str, Any]) -> str:
    """For people."""
    rule, place = decided["rule"], decided["place"]
    outcome = {
        "sign": f"sign: a token in {decided['header']}",
        "pass": "pass: no token",
        "block": "block: 403",
        "refuse": f"refuse: {decided['status']}, {decided['reason']}",
    }[decided["action"]]
    lines = [
        f"destination  {decided['destination']}",
        f"rule         {rule or 'none applies'}{f' ({place})' if place else ''}",
        f"action       {outcome}",
    ]
    for name, part in (decided["token"] or {}).items():
        lines += ["", f"token's {name}", json.dumps(part, indent=2, ensure_ascii=False)]
    return "\n".join(lines)
