"""HTTP/1.1 as mitmproxy carries it, with heads, framing and persistence by conduct's rules.

mitmproxy's own is lenient with heads, says nothing to a client whose chunks are malformed, hangs on empty lines, and
asks the fields of a flow, which hooks and we change, whether a connection goes on.
"""

import math
import re
import time
from logging import WARNING
from typing import Any

import h11
from mitmproxy import http as model
from mitmproxy.connection import Connection, ConnectionState
from mitmproxy.net.http.http1 import assemble
from mitmproxy.proxy import events
from mitmproxy.proxy.commands import CloseConnection, CloseTcpConnection, Log, RequestWakeup, SendData
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.proxy.layers import http
from mitmproxy.proxy.layers.http import _http1
from mitmproxy.proxy.layers.http._upstream_proxy import HttpUpstreamProxy
from mitmproxy.utils import human

from ..conduct import framing, heads, target
from ..conduct.closing import still_listens
from ..conduct.interim import is_interim
from ..conduct.malformed import MalformedError
from ..conduct.proxy_status import ErrorType, Reason
from ..observe import pages
from ..observe.pages import Page
from . import failures, flows, handlers, ledger, limits, pressure, prior_knowledge, socks, time_limits
from .limits import check_head, limits_of
from .pipes import HalfClose
from .pressure import Pressure, Why
from .retries import NoAnswer

_MALFORMED = Reason("the request's body is malformed", ErrorType.HTTP_REQUEST_ERROR)
LONGEST_LINE = 64 * 1024
"""Bytes of a chunk's size with its extensions, or of the trailers."""


class Server(http.Http1Server):
    """Towards the client."""

    _begun = False
    """Whether enough has come to know that the client does not begin with HTTP/2."""
    _ends = False
    """Whether the client wants its connection closed after the present request (RFC 9112 §9.3)."""
    _is_last = False
    """Whether the client said so of the present request."""
    _listens = False
    """Whether it has said all, and yet waits for its answer."""
    _over = False
    """Whether nothing more is sent, whatever still comes of the answer."""
    given_back: model.HTTPFlow | None = None
    """That of the next request, which the fast lane has tried in vain."""
    _framing: int | None = 0
    """How the body of the present answer is sent, as `framing.frame_response` has it."""
    lent = False
    """Whether the fast lane serves the connection, by clocks of its own."""
    _lingers = False
    """Whether we have hung up, and drop what still comes."""
    _since = 0.0
    """When the head began that is not complete, or the last came of a body that is not; 0 = neither."""
    _watch: RequestWakeup | None = None
    """What wakes us to see whether either takes too long."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._idle_at = time.monotonic()
        """Since when no request has been in flight, if none is."""
        self._since = handlers.head_began(context.client)

    @property
    def waits_since(self) -> float | None:
        """Since when nobody has asked for anything; None while a request is in flight; see `idle_timeout`."""
        if self.lent:
            return math.inf
        waits = self._lingers or (self.state == self.read_headers and not self.buf)
        return self._idle_at if waits else None

    @property
    def is_tunnel(self) -> bool:
        """Whether what comes is no longer for us."""
        return bool(self.state == self.passthrough)

    def take_back(self, flow: model.HTTPFlow | None, began: float) -> None:
        """Serve the connection again.

        `flow`: that of the next request, which the fast lane has tried in vain. `began`: when the head did of which
        some has come; 0 if none has.
        """
        self.lent, self.given_back, self._since, self._idle_at = False, flow, began, time.monotonic()

    def _handle_event(self, event: events.Event) -> CommandGenerator[None]:
        if isinstance(event, events.Wakeup) and event.command is self._watch:
            return self._look()
        return super()._handle_event(event)

    def read_headers(self, event: events.ConnectionEvent) -> CommandGenerator[None]:
        """Take a piece of a head."""
        if not isinstance(event, events.DataReceived):
            if self.buf:
                yield Log("the client closed the connection before its request was complete")
            yield CloseConnection(self.conn)
            return
        if not self._begun and (said := socks.refuse(self.context, bytes(self.buf))):
            ledger.refuse_unread(self.context.options)
            yield SendData(self.conn, said)
            yield from self._hang_up()
            return
        if self._begins_with_http2():
            yield from self._refuse_http2()
            return
        lines = _head_lines(self.buf)
        try:
            if not lines:
                _check_head(self.context, [], len(self.buf), of_request=True)
                if self.buf:
                    yield from self._await_more(self._since or time.monotonic())
                return
            self._since = 0.0
            _check_head(self.context, lines, 0, of_request=True)
            head = heads.request(lines)
            length = framing.request_length(head.version, head.fields)
        except MalformedError as error:
            yield from self._refuse(error, lines)
            return
        self._ends = self._is_last = not framing.persists(head.version, head.fields)
        self.request = flows.request_of(head)
        flow, self.given_back = self.given_back, None
        yield http.ReceiveHttp(http.RequestHeaders(self.stream_id, self.request, length == 0, flow))
        self.body_reader = _http1.make_body_reader(length)
        self.state = self.read_body
        yield from self.state(event)

    def wait(self, event: events.Event) -> CommandGenerator[None]:
        """Take what comes while an answer is due: nobody may be left to take that (RFC 9112 §9.6)."""
        answer = self.response.headers.fields if self.response and self._answered else None
        if isinstance(event, events.ConnectionClosed) and still_listens(last=self._is_last, answer=answer):
            self._listens = self.conn.state is ConnectionState.CAN_WRITE
            if self._listens:
                return
        yield from super().wait(event)
        if len(self.buf) > pressure.HIGH:
            pressure.turn(self.conn, Why.BEHIND, shut=True)

    def read_body(self, event: events.Event) -> CommandGenerator[None]:
        """Take a piece of a body. One that is malformed is refused, where mitmproxy would only close."""
        for command in super().read_body(event):
            if isinstance(command, http.ReceiveHttp) and isinstance(command.event, http.RequestProtocolError):
                malformed = _MALFORMED.told(0 if self._answered else 400)
                command.event.message = malformed if isinstance(event, events.DataReceived) else flows.CLIENT_GONE
            elif isinstance(command, CloseConnection) and isinstance(event, events.DataReceived) and not self._answered:
                yield from self._send_page(pages.text(400, _MALFORMED, _MALFORMED.error))
            yield command
        if self.state == self.read_body and isinstance(event, events.DataReceived):
            yield from self._await_more(time.monotonic())

    def send(self, event: http.HttpEvent) -> CommandGenerator[None]:
        """Send a part of an answer."""
        if isinstance(event, Pressure):
            pressure.turn(self.conn, Why.HELD, shut=event.full and event.stream_id == self.stream_id)
            return
        assert event.stream_id == self.stream_id
        if self._over:
            return
        if isinstance(event, http.ResponseHeaders):
            yield from self._send_head(event)
        elif isinstance(event, http.ResponseData):
            if data := _chunk(event.data) if self._chunked else event.data:
                yield SendData(self.conn, data)
        elif isinstance(event, http.ResponseEndOfMessage):
            yield from self._send_end()
        elif isinstance(event, http.ResponseProtocolError):  # not trailers, which mitmproxy has no way to send
            yield from self._give_up(failures.page_of(event))

    def mark_done(self, *, request: bool = False, response: bool = False) -> CommandGenerator[None]:
        """Note that one side has said all; after both have, go on, close, or become a pipe."""
        self.request_done |= request
        self.response_done |= response
        if not (self.request_done and self.response_done):
            if self.response_done and self._ends:
                yield from self._hang_up()
            elif self.response_done and self.state == self.read_body:
                yield from self._await_more(time.monotonic())
            elif self.request_done:
                self.state = self.wait
            return
        assert self.request
        assert self.response
        if framing.is_tunnel(self.request.data.method, self.response.status_code):
            pressure.turn(self.conn, Why.BEHIND | Why.HELD, shut=False)
            yield from self.make_pipe()
        elif self._ends:
            yield CloseConnection(self.conn)
            self.state = self.done
        else:
            yield from self._next()

    def _next(self) -> CommandGenerator[None]:
        """Take the next request, of which some may have come already."""
        self.request_done = self.response_done = False
        self.request = self.response = None
        pressure.turn(self.conn, Why.HELD, shut=False)
        self.stream_id += 2
        self.state = self.read_headers
        self._idle_at, self._since = time.monotonic(), 0.0
        if self.buf:
            yield from self.state(events.DataReceived(self.conn, b""))
        if self.state != self.wait or len(self.buf) <= pressure.HIGH:
            pressure.turn(self.conn, Why.BEHIND, shut=False)

    @property
    def _answered(self) -> bool:
        return self.response is not None and not is_interim(self.response.status_code)

    @property
    def _chunked(self) -> bool:
        return self._framing is framing.CHUNKED

    def _send_head(self, event: http.ResponseHeaders) -> CommandGenerator[None]:
        try:
            head = self._head(event.response)
        except MalformedError as error:  # only a hook can have made it
            yield from self._give_up(pages.text(502, f"in the answer, {error}", ErrorType.PROXY_INTERNAL_ERROR))
        else:
            self.response = event.response
            if not self._answered:
                self._since = time.monotonic()  # the client may have waited for it
            yield SendData(self.conn, head)
            if self._listens and not still_listens(last=True, answer=event.response.headers.fields):
                self._listens = False
                yield from super().wait(events.ConnectionClosed(self.conn))

    def _head(self, response: model.Response) -> bytes:
        """The head of an answer in our version, framed for this client (RFC 9112 §6, RFC 9110 §2.5)."""
        assert self.request
        request, status, fields = self.request.data, response.status_code, response.headers.fields
        if not is_interim(status):
            framed = framing.frame_for_client(request.http_version, request.method, status, fields, closes=self._ends)
            self._framing, fields, self._ends = framed
        return heads.write_response(status, response.data.reason, fields)

    def _begins_with_http2(self) -> bool:
        """Whether the connection does; asked until that is known."""
        if self._begun:
            return False
        start, preface = bytes(self.buf), prior_knowledge.PREFACE
        self._begun = len(start) >= len(preface) or not preface.startswith(start)
        return start.startswith(preface)

    def _refuse_http2(self) -> CommandGenerator[None]:
        refusal, data = prior_knowledge.Refusal(self.conn), bytes(self.buf)
        ledger.refuse_unread(self.context.options)

        def refuse(event: events.Event) -> CommandGenerator[None]:
            yield from self._drop(event)
            yield from refusal.handle_event(event)

        self.state = refuse
        yield from self._drop(events.DataReceived(self.conn, data))
        yield from refusal.begin(data)

    def _refuse(self, error: MalformedError, lines: list[bytes] | None = None) -> CommandGenerator[None]:
        """Answer a head with a fault, which these lines are, or one that is not complete."""
        # There is no flow, and so no line of the terminal's for what was asked.
        ledger.refuse_unread(self.context.options)
        yield Log(f"{human.format_address(self.conn.peername)}: {error}", WARNING)
        lines = lines or bytes(self.buf).split(b"\r\n")
        page = pages.text(error.status, str(error), ErrorType.HTTP_REQUEST_ERROR)
        method = b"HEAD" if heads.is_head(lines[0]) else b""
        yield SendData(self.conn, error_answer(page, method, heads.accept_in(lines)))
        yield from self._hang_up()

    def _hang_up(self) -> CommandGenerator[None]:
        self._lingers, self._idle_at = True, time.monotonic()
        pressure.turn(self.conn, Why.BEHIND | Why.HELD, shut=False)
        yield hang_up(self.conn)
        self.state = self._drop

    def _await_more(self, since: float) -> CommandGenerator[None]:
        """See to it that a look is taken before what has begun, or gone on, takes too long."""
        self._since = since
        if not self._watch and (look := self._shortest_limit):
            self._watch = RequestWakeup(since + look - time.monotonic())
            yield self._watch

    def _look(self) -> CommandGenerator[None]:
        """Refuse what takes too long, or look again."""
        self._watch = None
        in_head = self.state == self.read_headers and bool(self.buf)
        found, look = time_limits.of(self.context.options), self._shortest_limit
        limit = found.head if in_head else found.body
        if not look or not (in_head or self.state == self.read_body):
            return
        if not in_head and not self._is_owed_a_body:
            self._since = time.monotonic()
        left = self._since + (limit or math.inf) - time.monotonic()
        if left > 0:
            self._watch = RequestWakeup(min(look, left))
            yield self._watch
        elif in_head:
            limits.reached(time_limits.HEAD)
            yield from self._refuse(MalformedError(time_limits.late_head(limit), 408))
        else:
            limits.reached(time_limits.BODY)
            yield from self._refuse_late_body(time_limits.late_body(limit))

    @property
    def _shortest_limit(self) -> float:
        found = time_limits.of(self.context.options)
        return time_limits.shortest(found.head, found.body)

    @property
    def _is_owed_a_body(self) -> bool:
        """Whether the client is late: not while an answer is under way, nor while nobody reads what it sends."""
        return (self.response_done or not self._answered) and not handlers.is_held_back(self.context.client)

    def _refuse_late_body(self, message: str) -> CommandGenerator[None]:
        if not self._answered:
            yield from self._send_page(pages.text(408, message, ErrorType.HTTP_REQUEST_ERROR))
        self._over = True
        yield from self._hang_up()
        reason = Reason(message, ErrorType.HTTP_REQUEST_ERROR, 0 if self._answered else 408)
        yield http.ReceiveHttp(http.RequestProtocolError(self.stream_id, reason, http.ErrorCode.CANCEL))

    def _send_end(self) -> CommandGenerator[None]:
        if self.state == self.passthrough:
            yield HalfClose(self.conn)
            return
        if self._chunked:
            yield SendData(self.conn, b"0\r\n\r\n")
        yield from self.mark_done(response=True)

    def make_pipe(self) -> CommandGenerator[None]:
        """Become a pipe; line breaks after a CONNECT are none of what passes, as mitmproxy has it."""
        assert self.request
        yield from super().make_pipe() if self.request.data.method == b"CONNECT" else _pass_on_all(self)

    def _give_up(self, page: Page | None) -> CommandGenerator[None]:
        """Close the connection, after a page that says why if no answer has begun."""
        # A pipe may have been closed by half already.
        needed = ConnectionState.OPEN if self.state == self.passthrough else ConnectionState.CAN_WRITE
        if not self.conn.state & needed:
            return
        if page and not self._answered:
            yield from self._send_page(page)
        yield CloseConnection(self.conn)
        self._over = True

    def _drop(self, event: events.Event) -> CommandGenerator[None]:
        """Keep nothing of what still comes."""
        self.buf.maybe_extract_at_most(len(self.buf))
        yield from ()

    def _send_page(self, page: Page) -> CommandGenerator[None]:
        request = self.request
        method, accept = (request.data.method, request.headers.get("accept", "")) if request else (b"", "")
        yield SendData(self.conn, error_answer(page, method, accept))


class Client(http.Http1Client):
    """Towards the upstream."""

    _ends = False
    """Whether the upstream closes its connection after the present answer."""
    _sent = 0
    """Bytes of the body since the upstream had last read nearly all."""
    _drain: pressure.Drain | None = None
    """What wakes us when it has again."""

    def _handle_event(self, event: events.Event) -> CommandGenerator[None]:
        if not isinstance(event, events.Wakeup):
            yield from super()._handle_event(event)
            return
        assert self.stream_id is not None
        self._drain, self._sent = None, 0
        yield http.ReceiveHttp(Pressure(self.stream_id, full=False, of_request=True))

    def send(self, event: http.HttpEvent) -> CommandGenerator[None]:
        """Send a part of a request."""
        if isinstance(event, Pressure):
            pressure.turn(self.conn, Why.HELD, shut=event.full and event.stream_id == self.stream_id)
            return
        if isinstance(event, http.RequestHeaders):
            self.stream_id, self.request = event.stream_id, event.request
            if event.request.is_http2:
                pressure.pace(self.conn)
            try:
                yield SendData(self.conn, _request_head(event.request))
            except MalformedError as error:  # the gate refuses what is like that, so it should not come here
                yield from self._fail(str(error))
            return
        if self.state == self.passthrough and not isinstance(event, http.RequestProtocolError):
            yield SendData(self.conn, event.data) if isinstance(event, http.RequestData) else HalfClose(self.conn)
            return
        if isinstance(event, http.RequestData) and not event.data:
            return  # an empty DATA frame: to mitmproxy the last chunk, and what follows would be another request
        yield from super().send(event)
        if pressure.is_paced(pressure.carrier_of(self.conn)):
            yield from self._pace(event)

    def _pace(self, event: http.HttpEvent) -> CommandGenerator[None]:
        """Have the stream wait while the upstream does not read: its client's connection has others."""
        if isinstance(event, http.RequestProtocolError):
            handlers.abandon(self.context.client, self.conn)
        elif isinstance(event, http.RequestData):
            self._sent += len(event.data)
        if self._sent > pressure.HIGH and not self._drain:
            self._drain = pressure.Drain(self.conn)
            yield self._drain
            yield http.ReceiveHttp(Pressure(event.stream_id, full=True, of_request=True))

    def read_headers(self, event: events.ConnectionEvent) -> CommandGenerator[None]:
        """Take a piece of a head, of which interim answers may stand before the final one (RFC 9110 §15.2)."""
        if not isinstance(event, events.DataReceived) or not self.request:
            yield from self._end_unexpectedly(event)
            return
        while self.state == self.read_headers:
            lines = _head_lines(self.buf)
            try:
                if not lines:
                    _check_head(self.context, [], len(self.buf), of_request=False)
                    return
                _check_head(self.context, lines, 0, of_request=False)
                head = heads.response(lines)
                head = head._replace(fields=framing.without_identity(head.fields))
                method = self.request.data.method
                length = framing.response_length(method, head.status, head.version, head.fields)
            except MalformedError as error:
                yield from self._fail(str(error))
                return
            response = flows.response_of(head)
            assert self.stream_id is not None
            yield http.ReceiveHttp(http.ResponseHeaders(self.stream_id, response, length == 0))
            if is_interim(head.status):
                continue
            self.response = response
            self._ends = length == framing.UNTIL_CLOSED or not framing.persists(head.version, head.fields)
            self.body_reader = _http1.make_body_reader(length)
            self.state = self.read_body
            yield from self.state(event)

    def read_body(self, event: events.Event) -> CommandGenerator[None]:
        """Take a piece of a body, or its end, which may be none."""
        if isinstance(event, events.ConnectionClosed):
            return self._end_body(event)
        return super().read_body(event)

    def _end_body(self, event: events.Event) -> CommandGenerator[None]:
        for command in super().read_body(event):
            if isinstance(command, http.ReceiveHttp) and isinstance(command.event, http.ResponseProtocolError):
                command.event.message = Reason(command.event.message, ErrorType.HTTP_RESPONSE_INCOMPLETE)
            yield command

    def mark_done(self, *, request: bool = False, response: bool = False) -> CommandGenerator[None]:
        """Note that one side has said all; after both have, wait for the next request, close, or become a pipe."""
        self.request_done |= request
        self.response_done |= response
        if not (self.request_done and self.response_done):
            self.state = self._answered_early if self.response_done else self.state
            return
        assert self.request
        assert self.response
        if framing.is_tunnel(self.request.data.method, self.response.status_code):
            yield from self.make_pipe()
            return
        if self._ends or self._is_for_one_request or self.buf:
            yield CloseConnection(self.conn)
            self.state = self.done
            return
        self.request_done = self.response_done = False
        self.request = self.response = None
        pressure.turn(self.conn, Why.HELD, shut=False)
        self.stream_id = None
        self.state = self.read_headers

    def make_pipe(self) -> CommandGenerator[None]:
        """Become a pipe, with what has come already."""
        yield from _pass_on_all(self)

    def _answered_early(self, event: events.ConnectionEvent) -> CommandGenerator[None]:
        """While the rest of the request is sent: what else comes is nobody's, and who goes has said all."""
        self.buf.maybe_extract_at_most(len(self.buf))
        if isinstance(event, events.ConnectionClosed) and self.conn.state & ConnectionState.CAN_WRITE:
            yield CloseConnection(self.conn)

    @property
    def _is_for_one_request(self) -> bool:
        """As those that come by HTTP/2 could not share a connection whose answer ends with it, they never do."""
        assert self.request
        return self.request.is_http2 or self.request.is_http3

    def _end_unexpectedly(self, event: events.ConnectionEvent) -> CommandGenerator[None]:
        if isinstance(event, events.DataReceived):
            yield Log("the server sent data that nobody asked for")
            yield CloseConnection(self.conn)
            return
        if self.conn.state & ConnectionState.CAN_WRITE:
            yield CloseConnection(self.conn)
        if self.stream_id and self.buf:
            reason = "server closed connection within its answer's head"
            yield self._error(Reason(reason, ErrorType.HTTP_RESPONSE_INCOMPLETE))
        elif self.stream_id:
            yield http.ReceiveHttp(NoAnswer(self.stream_id, "server closed connection"))

    def _fail(self, message: str) -> CommandGenerator[None]:
        yield CloseConnection(self.conn)
        yield self._error(message)
        self.state = self.done

    def _error(self, message: str) -> http.ReceiveHttp:
        assert self.stream_id
        code = http.ErrorCode.GENERIC_SERVER_ERROR
        return http.ReceiveHttp(http.ResponseProtocolError(self.stream_id, message, code))


class Tunnel(HttpUpstreamProxy):
    """Through the next proxy: its answer to CONNECT is read as others are."""

    def start_handshake(self) -> CommandGenerator[None]:
        """Ask for the tunnel. What the connection within it is not to send, this one is not to read."""
        pressure.share(self.conn, self.tunnel_connection)
        yield from super().start_handshake()

    def receive_handshake_data(self, data: bytes) -> CommandGenerator[tuple[bool, str | None]]:
        """Take a piece of its answer: whether the tunnel is there, or why it never will be."""
        if not self.send_connect:
            return (yield from super().receive_handshake_data(data))
        self.buf += data
        place = human.format_address(self.tunnel_connection.address)
        while lines := _head_lines(self.buf):
            try:
                head = heads.response(lines)
            except MalformedError as error:
                return False, f"the proxy {place} does not answer as one: {error}"
            if is_interim(head.status):
                continue
            if not 200 <= head.status < 300:
                return False, f"the proxy {place} refused the tunnel: {heads.status_text(head.status)}"
            if self.buf:
                yield from self.receive_data(bytes(self.buf))
                del self.buf
            return True, None
        too_long = len(self.buf) > limits_of(self.context.options).max_head
        return False, f"the answer of the proxy {place} has no end" if too_long else None


def error_answer(page: Page, method: bytes = b"", accept: str = "") -> bytes:
    """An answer of our own, after which the connection is closed; to HEAD without its body."""
    response = flows.answer_of(page, accept)
    response.headers["Connection"] = "close"
    head: bytes = assemble.assemble_response_head(response)
    return head if framing.has_no_body(method, page.code) else head + (response.raw_content or b"")


def hang_up(connection: Connection) -> CloseConnection:
    """Close a connection of which more may come, which is read and dropped, lest a reset overtake what we said.

    RFC 9112 §9.6. There is no half of a connection in TLS.
    """
    return CloseConnection(connection) if connection.tls else CloseTcpConnection(connection, half_close=True)


def _pass_on_all(peer: Server | Client) -> CommandGenerator[None]:
    """Become a pipe, in which what has come already is first; mitmproxy drops line breaks that it begins with."""
    peer.state = peer.passthrough
    if data := peer.buf.maybe_extract_at_most(len(peer.buf)):
        yield from peer.state(events.DataReceived(peer.conn, bytes(data)))


def _head_lines(buffer: Any) -> list[bytes] | None:
    """The lines of the head that the buffer begins with; None if it is not complete.

    What h11 takes for a head without a line is an empty line before one, to be skipped (RFC 9112 §2.2).
    """
    while (lines := buffer.maybe_extract_lines()) == []:
        pass
    return lines and [bytes(line) for line in lines]


def _check_head(context: Context, lines: list[bytes], more: int, *, of_request: bool) -> None:
    """Look at the size of a head, which these lines are, and so many bytes more. Raises MalformedError."""
    size = sum(map(len, lines)) + 2 * len(lines) + more
    check_head(limits_of(context.options), size, len(lines) - 1, of_request=of_request)


def _request_head(request: model.Request) -> bytes:
    """The head of a request in our version (RFC 9110 §2.5)."""
    data = request.data
    whole = bool(data.authority)
    line = target.for_next_hop(data.scheme, data.authority, data.path, to_proxy=whole)
    return heads.write_request(data.method, line, request.headers.fields)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data) if data else b""


_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")


class ChunkedBody(_http1.ChunkedReader):
    """h11's reader of chunked bodies, without the trailers, as RFC 9110 §6.5.1 allows; mitmproxy cannot take them.

    All that has come is one piece: passing on each by itself is what a chunk of a byte costs.
    """

    _ended = False
    _fault: h11.ProtocolError | None = None

    def __call__(self, buf: Any) -> Any:
        """The next piece of the body. Raises `h11.ProtocolError` after what came before a fault."""
        pieces = self._read(buf)
        if pieces:
            return h11.Data(data=b"".join(pieces))
        if self._fault:
            raise self._fault
        return h11.EndOfMessage() if self._ended else None

    def _read(self, buf: Any) -> list[bytes]:
        pieces: list[bytes] = []
        try:
            while not (self._ended or self._fault):
                pieces += self._skim(buf)
                event = super().__call__(buf)
                if event is None:
                    break
                if isinstance(event, h11.EndOfMessage):
                    self._ended = True
                else:
                    pieces.append(bytes(event.data))
        except h11.ProtocolError:  # whose words hold what has come
            self._fault = h11.RemoteProtocolError("a chunk of the body is malformed")
        if not self._ended and len(buf) > LONGEST_LINE:  # h11 would wait for its end, whatever memory that takes
            self._fault = h11.RemoteProtocolError("a line within a chunked body is too long")
        return pieces

    def _skim(self, buf: Any) -> list[bytes]:
        """The chunks that have come as a whole and have no extensions: h11 takes ten times as long for small ones."""
        if self._bytes_in_chunk or self._bytes_to_discard or self._reading_trailer:
            return []
        data, at = bytes(buf), 0
        pieces: list[bytes] = []
        while (line := _CHUNK_LINE.match(data, at)) and (size := int(line[1], 16)):
            end = line.end() + size
            if data[end : end + 2] != b"\r\n":
                break
            pieces.append(data[line.end() : end])
            at = end + 2
        if at:
            buf.maybe_extract_at_most(at)
        return pieces
