"""A request that a command line describes, and the verdict on it. Nothing is sent, resolved or listened on."""

import argparse
import re
import time
from pathlib import Path
from urllib.parse import quote

from mitmproxy.options import Options

from jwtproxy.conduct import host
from jwtproxy.conduct.destination import DEFAULT_PORTS, Destination, normalise
from jwtproxy.conduct.fields import Fields
from jwtproxy.conduct.host import Fault
from jwtproxy.conduct.request import RequestHead
from jwtproxy.conduct.verdict import Verdict
from jwtproxy.config.errors import SettingsError
from jwtproxy.policy.rules import PROXYAUTH
from jwtproxy.policy.settings import TOKEN

from . import commandline, environment, words
from .master import Master

_URL = re.compile(
    r"(?i:(https?|wss?)://)(?:\[([0-9A-Fa-f:.]*:[^\]@]*)\]|([^/?#:@\[\]]+))(?::([0-9]*))?(/[^?#]*)?(\?[^#]*)?(#.*)?",
    re.DOTALL,
)
_SCHEMES = {"ws": "http", "wss": "https"}
_KEPT = "!$%&'()*+,/:;=?@[]"  # of a path and a query as they are typed (RFC 3986 §2)


def parser(options: Options) -> argparse.ArgumentParser:
    """The parser of jwtproxy-run for a command that takes a request, and whose -H is curl's."""
    parser = commandline.parser(options)
    # -H is mitmdump's --modify-headers, and --header our --set jwt_header, which remain.
    request = parser.add_argument_group("request", conflict_handler="resolve")
    request.add_argument(
        "-H", "--header", action="append", default=[], metavar="LINE", help="a header field, 'Name: value'; any number"
    )
    for action in parser._actions:  # argparse tells of them in no other way
        if action.dest == "filter_args":
            action.nargs = "*"
    return parser


def read(parser: argparse.ArgumentParser, arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The flags, and the words between them. Raises SettingsError."""
    args = parser.parse_intermixed_args(arguments)
    return args, args.filter_args


def decided(
    master: Master, args: argparse.Namespace, method: str, url: str, user: str = f"<{PROXYAUTH}>"
) -> tuple[Destination, Verdict]:
    """Where the request goes, and what becomes of it with these settings. Raises SettingsError.

    user: who has given the password of --proxyauth.
    """
    check_method(method)
    fields = [_field(line) for line in args.header]
    destination, path = parse_url(url)
    _, current = commandline.configure(master, args, environment.sources(Path()))
    head = _head(method, destination, path, tuple(fields), user)
    return destination, current.policy.verdict(head, time.time())


def check_method(method: str) -> None:
    """Refuse what is no method of a request. Raises SettingsError."""
    if not TOKEN.fullmatch(method):
        raise SettingsError(f"bad method {method!r}", "write the method, then the URL: GET https://api.example/")
    if method == "CONNECT":
        raise SettingsError("a CONNECT is never signed", "name a request inside the tunnel: GET https://…")


def _field(line: str) -> tuple[bytes, bytes]:
    """A header field. Raises SettingsError."""
    name, colon, value = line.partition(":")
    if not colon or not TOKEN.fullmatch(name) or re.search(r"[\r\n\0]", value):
        hint = "write it as 'Name: value'; what carries the token is set with --set jwt_header=…"
        raise SettingsError(f"bad header {line!r} for -H", hint)
    return name.encode(), value.strip().encode("utf-8", "surrogateescape")


def parse_url(url: str) -> tuple[Destination, str]:
    """Where a client of the proxy would want to go with this URL, and the path it would send. Raises SettingsError."""
    found = _URL.fullmatch(url)
    if not found:
        hint = "write it as https://host:port/path, without user and password; ws and wss count as http and https"
        raise SettingsError(f"bad URL {words.without_keys(url)!r}", hint)
    scheme, address, name, port, path, query, _ = found.groups(default="")
    scheme = _SCHEMES.get(scheme.lower(), scheme.lower())
    try:
        destination = normalise(scheme, address or name, int(port) if port else DEFAULT_PORTS[scheme])
    except ValueError as error:
        raise SettingsError(
            f"bad URL {words.without_keys(url)!r}: {error}", "name a host and a port that can be reached"
        ) from None
    return destination, quote(f"{path or '/'}{query}", _KEPT, errors="surrogateescape")


def _head(method: str, destination: Destination, path: str, fields: Fields, user: str) -> RequestHead:
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
        user=user,
        tunnel=destination.origin if destination.scheme == "https" else "",
        fault=fault,
    )
