"""What people see while it serves: a few lines at the start, a line for each request, warnings and errors."""

import functools
import logging
import mmap
import os
import sys
import time
from pathlib import Path
from typing import IO, Any

from mitmproxy import ctx, http, log, tls
from mitmproxy.addons import dumper, termlog
from mitmproxy.contrib import click as miniclick
from mitmproxy.proxy.mode_specs import ProxyMode, RegularMode, UpstreamMode
from mitmproxy.utils import human, strutils, vt_codes

from jwtproxy import __version__
from jwtproxy.conduct.addresses import parse_ip
from jwtproxy.conduct.destination import Destination
from jwtproxy.conduct.echo import NAME
from jwtproxy.config import place
from jwtproxy.mitm import failures, flows, gate, ledger, stock
from jwtproxy.observe import redaction
from jwtproxy.observe.exchanges import Exchange

from ..report import put

_TLS_FAILED = ("Client TLS handshake failed.", "Server TLS handshake failed.")
"""How mitmproxy begins to tell of that, of each attempt."""
_UNTRUSTED = "the client does not trust the proxy's CA"
_CLOSED = "the client closed the connection in the TLS handshake, perhaps as it does not trust the proxy's CA"
REJECTED = (_UNTRUSTED, _CLOSED)
"""Why TLS fails with a client that does not trust us, or may not."""

_OURS = "jwtproxy: "
"""How all lines begin that we say ourselves, but for those of requests."""

DAY = len("2026-11-27 ")
"""Bytes that it takes to know of which day the last line was."""

_FIELDS, _BODIES = 2, 3
"""From which flow_detail on header fields are printed, and bodies."""

_COLOURS = {2: "green", 3: "magenta", 4: "red", 5: "red"}


def colours_wanted(stream: IO[str]) -> bool:
    """Whether to colour what is written there: only for a person (https://no-color.org)."""
    return vt_codes.ensure_supported(stream) and not os.environ.get("NO_COLOR")


class Logs(termlog.TermLog):
    """mitmproxy addon: log records on stderr, warnings and errors in our voice."""

    name = "termlog"

    def __init__(self) -> None:
        self.logger = _Records(sys.stderr)
        self.logger.install()
        self.logger.setFormatter(_Formatter(colorize=colours_wanted(sys.stderr)))
        self.logger.addFilter(self._wanted)
        self.starting = True
        self.announces = True
        """Whether to tell of the start; of several workers, one does."""

    def configure(self, updated: set[str]) -> None:
        """Follow the verbosity."""
        super().configure(updated)
        if updated & {"termlog_verbosity", "scripts"}:
            # A record costs as much as signing a token, and each connection makes several; scripts may listen to them.
            heard = ctx.options.termlog_verbosity == "debug" or ctx.options.scripts
            logging.getLogger("mitmproxy.proxy.server").setLevel(logging.NOTSET if heard else logging.WARNING)

    def _wanted(self, record: logging.LogRecord) -> bool:
        """Not yet: errors of the start are reported once, at its end. Not ours to repeat: each connection's story."""
        if self.starting and (record.levelno >= logging.ERROR or not self.announces):
            return False
        if (
            str(record.msg).startswith(_TLS_FAILED) and ctx.options.flow_detail > 0
        ):  # told by the request's line, or ours
            return bool(ctx.options.termlog_verbosity == "debug")
        chatter = record.levelno <= logging.INFO and record.name.startswith("mitmproxy.")
        return not chatter or ctx.options.termlog_verbosity == "debug"


class _Records(termlog.TermLogHandler):
    """mitmproxy's own, but a proxy has better to do than to end as nobody reads of it, or not fast enough."""

    def emit(self, record: logging.LogRecord) -> None:
        put(self.format(record), self.file)


class _Formatter(log.MitmFormatter):
    """mitmproxy's own, but for what we say ourselves, and for warnings and errors, which start as all our errors do."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        is_ours = message.startswith(_OURS)
        if record.levelno < logging.WARNING and not is_ours:
            return super().format(record)
        if not is_ours:
            message = f"jwtproxy: {'error' if record.levelno >= logging.ERROR else 'warning'}: {message}"
        if record.exc_info:
            message = f"{message}\n{self.formatException(record.exc_info)}"
        return miniclick.style(message, fg=log.LOG_COLORS.get(record.levelno)) if self.colorize else message


class Requests(dumper.Dumper):
    """mitmproxy addon: mitmdump's output in our form, which is one line per request, and without credentials."""

    name = "dumper"

    def __init__(self) -> None:
        super().__init__()
        self.out_has_vt_codes = colours_wanted(self.outfp)
        self._for_programs = False
        self._day = ""
        """Of the last line here."""
        self.day: bytearray | mmap.mmap = bytearray(DAY)
        """The same of all workers, where they share it."""
        self._hinted = False
        """Whether it has been told how clients come to trust us."""
        self.idle = False
        """Whether nothing is to be printed of flows."""
        self.tokens = ""
        """What the greeting tells of how requests are signed."""

    def configure(self, updated: set[str]) -> None:
        """Follow the detail that is wanted. Where the log is for programs, people read on stderr, and not of each."""
        super().configure(updated)
        for_programs = getattr(ctx.options, "jwt_log_format", "text") == "json"  # not declared yet at the start
        self.idle = for_programs or ctx.options.flow_detail == 0
        if self._for_programs != for_programs:
            self._for_programs, self.outfp = for_programs, sys.stderr if for_programs else sys.stdout
            self.out_has_vt_codes = colours_wanted(self.outfp)

    def running(self) -> None:
        """Say where we are and how to try it."""
        if ctx.master.addons.get("termlog").announces and ctx.options.flow_detail > 0:
            self._greet(ctx.master.addons.get("proxyserver").listen_addrs())

    def match(self, f: http.HTTPFlow) -> bool:
        """Whether to print this."""
        return not self._for_programs and bool(super().match(f))

    def echo(self, text: str, ident: int | None = None, **style: Any) -> None:
        """Print; into the void once nobody reads us any more."""
        put(self.style(dumper.indent(ident, text) if ident else text, **style), self.outfp)

    def echo_flow(self, f: http.HTTPFlow) -> None:
        """Print one flow: in a line, and its fields and bodies as far as they are wanted."""
        detail = ctx.options.flow_detail
        if detail < _FIELDS and flows.is_probe(f):
            return
        self._echo_line(f)
        for name, message in (("request", f.request), ("answer", f.response)) if detail >= _FIELDS else ():
            if message:
                self.echo(f"--- {name}", fg="magenta", ident=4)
                self._echo_headers(message.headers)
                if detail >= _BODIES:
                    self._echo_message(message, f)
                self._echo_trailers(message.trailers)

    def response(self, f: http.HTTPFlow) -> None:
        """The answer is complete; of a WebSocket that was only the beginning."""
        if not flows.is_websocket(f):
            super().response(f)

    def tls_failed_client(self, data: tls.TlsData) -> None:
        """Tell why a client gets nowhere, which it may have shown nobody."""
        if ctx.options.flow_detail == 0 or not (reason := tls_failure(data.conn.error or "")):
            return
        address = data.context.server.address  # none where the client takes the proxy itself for one with TLS
        place = data.conn.sni or (human.format_address(address) if address else "to the proxy itself")
        line = strutils.escape_control_characters(f"TLS {place} {reason}")
        peer: Any = data.conn.peername
        self.echo(f"{self._start(peer[0] if peer else '')}{line}", fg="red")
        if reason in REJECTED and not self._hinted:
            self._hinted = True
            self.echo(f"jwtproxy: hint: have clients trust {_certificate()}; see: jwtproxy-run help https")

    @property
    def wants_messages(self) -> bool:
        """Whether to print the messages of WebSockets."""
        return bool(ctx.options.flow_detail >= _BODIES) and not self._for_programs

    def websocket_message(self, f: http.HTTPFlow) -> None:
        """A message has come."""
        if self.wants_messages and self.match(f) and f.websocket:
            message = f.websocket.messages[-1]
            exchange = ledger.exchange_of(f)
            arrow = "->" if message.from_client else "<-"
            line = strutils.escape_control_characters(f"{arrow} {exchange.url} {message.type.name.lower()} message")
            self.echo(f"{self._start(exchange.client)}{line}")
            self._echo_message(message, f)

    def websocket_end(self, f: http.HTTPFlow) -> None:
        """A WebSocket has ended."""
        if self.match(f):
            self.echo_flow(f)

    def _echo_headers(self, headers: http.Headers) -> None:
        names = gate.gate_of(ctx.options).token_fields
        for name, value in redaction.fields(headers.fields, names):
            field = self.style(strutils.bytes_to_escaped_str(name), fg="blue")
            self.echo(f"{field}: {strutils.bytes_to_escaped_str(value)}", ident=4)

    def _echo_line(self, flow: http.HTTPFlow) -> None:
        exchange = ledger.exchange_of(flow)
        if ctx.options.showhost and exchange.scheme:
            shown = Destination(exchange.scheme, flow.request.pretty_host, flow.request.port)
            exchange = exchange._replace(authority=shown.authority)
        method = self.style(strutils.escape_control_characters(exchange.method), bold=True)
        url = strutils.escape_control_characters(exchange.url)
        rule = f" ({flow.metadata[flows.RULE]})" if flows.RULE in flow.metadata else ""
        took = human.pretty_duration(exchange.duration)
        self.echo(f"{self._start(exchange.client)}{method} {url} {self._outcome(flow, exchange)} {took}{rule}")

    def _start(self, client: str) -> str:
        """When, and of whom: the day in its first line, and who is on another machine."""
        day, clock = _now(int(time.time()))
        new = day if day != self._day and self._begins(day) else ""
        return f"{new}{clock}{'' if _is_here(client) else f'{client} '}"

    def _begins(self, day: str) -> bool:
        """Whether no other worker has had a line of that day."""
        self._day, told = day, day.encode()
        if self.day[:] == told:
            return False
        self.day[:] = told
        return True

    def _outcome(self, flow: http.HTTPFlow, exchange: Exchange) -> str:
        reason = strutils.escape_control_characters(exchange.reason)
        if exchange.status is None or (flow.error and not failures.status_in(flow.error.msg)):
            return self.style(reason, fg="red")
        colour = {"fg": colour} if (colour := _COLOURS.get(exchange.status // 100)) else {}
        return f"{self.style(str(exchange.status), **colour)}{f' {reason}' if reason else ''}"

    def _greet(self, addresses: list[tuple[Any, ...]]) -> None:
        if not addresses:
            return
        # The first is enough: the others differ in family, or belong to modes whose users know them.
        host, port, *_ = addresses[0]
        url = f"http://{_dialable(host)}:{port}"
        every = " (every address of this machine)" if host in ("0.0.0.0", "::") else ""  # noqa: S104  # compared only
        self.echo(f"jwtproxy {__version__} listening on {url}{every}", bold=True)
        explicit = isinstance(ProxyMode.parse(ctx.options.mode[0]), (RegularMode, UpstreamMode))
        if pages := _pages(url, explicit=explicit):
            self.echo(f"  status  {pages}/status")
        if explicit:
            has_pages = ctx.options.jwt_pages != "off"
            self.echo(f"  try     curl --proxy {url} http://{NAME if has_pages else 'example.com'}/")
        if self.tokens:
            self.echo(f"  tokens  {self.tokens}")
        if ctx.options.jwt_fast_lane == "on" and (name := stock.uncommon(ctx.options)):
            self.echo(f"  speed   no fast lane, as {name} is set")
        self.echo(f"  CA      {_certificate()} (for HTTPS, have clients trust it)")


def _pages(url: str, *, explicit: bool) -> str:
    """Where our own pages are, if that is known of the proxy at this URL."""
    where = ctx.options.jwt_pages
    if found := place.parse(where):
        return f"http://{_dialable(found.host or '::')}:{found.port}"
    return url if explicit and where != "off" else ""


def _dialable(host: str) -> str:
    if host in ("0.0.0.0", "::"):  # noqa: S104  # compared only
        return "localhost"
    return f"[{host}]" if ":" in host else host


def _certificate() -> Path:
    return (Path(ctx.options.confdir).expanduser() / "mitmproxy-ca-cert.pem").resolve()


def tls_failure(error: str) -> str:
    """Why TLS with a client has failed, of what mitmproxy says at length; empty where there is nothing to tell."""
    if error.startswith("The client does not trust "):
        return _UNTRUSTED
    if error.startswith("The client disconnected "):
        return _CLOSED
    if error == "connection closed early":
        return ""
    if error.startswith("Client and mitmproxy cannot agree "):
        return "the client offers no version of TLS that tls_version_client_min allows"
    return f"TLS failed: {error}"


@functools.lru_cache(1)  # many requests end in one second
def _now(epoch: int) -> tuple[str, str]:
    """The day, and the time of day, in this machine's zone."""
    now = time.localtime(epoch)
    return time.strftime("%Y-%m-%d ", now), time.strftime("%H:%M:%S ", now)


@functools.lru_cache(1024)
def _is_here(client: str) -> bool:
    """Whether a client is on this machine, or is none."""
    address = parse_ip(client)
    return not client or (address is not None and address.is_loopback)
