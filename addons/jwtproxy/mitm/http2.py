"""HTTP/2 as mitmproxy carries it, with heads by conduct's rules: a fault ends its stream, not the connection."""

import math
import time
from logging import WARNING
from typing import Any

import h2.errors
import h2.events
import h2.exceptions
from mitmproxy.connection import ConnectionState
from mitmproxy.http import Request
from mitmproxy.proxy import events
from mitmproxy.proxy.commands import CloseConnection, Log, RequestWakeup, SendData
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.proxy.layers import http
from mitmproxy.proxy.layers.http import _http2
from mitmproxy.utils import human

from ..conduct import framing, heads, http2
from ..conduct.fields import Fields, check
from ..conduct.heads import ReceivedResponse
from ..conduct.interim import is_interim
from ..conduct.malformed import MalformedError
from ..conduct.proxy_status import ErrorType, Reason
from ..observe import pages
from ..observe.pages import Page
from . import failures, farewell, flows, gate, handlers, ledger, limits, retries, time_limits
from .dispatch import Address
from .http2_connection import Connection, Leaving, Lengths
from .http2_queue import Queue
from .limits import check_head, limits_of
from .pressure import Backlog, Pressure, waiting
from .retries import NoAnswer


class Server(http.Http2Server):
    """Towards the client."""

    _greeted = False
    _reads = False
    """Whether what came at once is being taken; it is so while we get what follows from a part of it."""

    h2_conn: Connection

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.h2_conn = Connection(self.h2_conf, limits_of(context.options))
        self._lengths, self._backlog = Lengths(), Backlog()
        self._over: set[int] = set()
        """The streams of which we have sent all, or which were reset."""
        self._heads: set[int] = set()
        """The streams of HEAD requests, which are answered without a body."""
        self.farewell = Address()
        self._unheard = False
        """Whether the client has not yet confirmed that it knows that we leave."""
        self._bodies: dict[int, float] = {}
        """The streams that owe more of a body, and since when; not those whose answer has begun: gRPC is slow."""
        self._head_at = 0.0
        """When a head began that is not complete."""
        self._idle_at = time.monotonic()
        self._watch: RequestWakeup | None = None
        """What wakes us to see whether either takes too long."""

    is_tunnel = False

    @property
    def waits_since(self) -> float | None:
        """Since when nobody has asked for anything; None while a request is in flight; see `idle_timeout`."""
        return self._idle_at if self.is_idle else None

    def _handle_event(self, event: events.Event) -> CommandGenerator[None]:
        if isinstance(event, events.Start) and farewell.enter(self.context.options, self):
            yield self.farewell
        if isinstance(event, events.Wakeup) and event.command is self.farewell:
            yield from self._say_farewell()
        elif isinstance(event, events.Wakeup):
            yield from self._look()
        elif isinstance(event, Pressure):
            self.h2_conn.hold(event.stream_id, held=event.full)
            yield from self._flush()
        elif isinstance(event, events.DataReceived):
            self._reads = True
            yield from self._take(event)
            self._reads = False
            yield from self._await_the_rest()
        else:
            yield from self._take(event)
        if self.h2_conn.stream_buffers or self._backlog:
            for stream, full in self._backlog.changes(waiting(self.h2_conn)):
                yield http.ReceiveHttp(Pressure(stream, full, of_request=False))
        self._forget()

    def _take(self, event: events.Event) -> CommandGenerator[None]:
        if isinstance(event, http.ResponseHeaders):
            self._note_answer(event)
            if event.response.is_http2:
                event.response.headers.fields = _lowered(event.response.headers.fields)
        if isinstance(event, http.ResponseTrailers) and not _is_sendable(event.trailers.fields):
            return  # only a hook can have made them
        if isinstance(event, http.ResponseHeaders) and not _is_sendable(
            event.response.headers.fields, event.response.status_code
        ):
            message = "the answer contains a header that HTTP/2 cannot carry"
            code = http.ErrorCode.GENERIC_SERVER_ERROR
            event = http.ResponseProtocolError(event.stream_id, message, code)
        if isinstance(event, http.ResponseProtocolError) and self._tell(event):
            yield from self._flush()
        else:
            yield from super()._handle_event(event)
        if isinstance(event, http.ResponseEndOfMessage | http.ResponseProtocolError):
            self._end(event.stream_id)

    def _note_answer(self, event: http.ResponseHeaders) -> None:
        """A final one has begun; another tells the client, perhaps, to go on."""
        if not is_interim(event.response.status_code):
            self._bodies.pop(event.stream_id, None)
        elif event.stream_id in self._bodies:
            self._bodies[event.stream_id] = time.monotonic()

    def _note_progress(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.StreamReset):
            self._end(_id(event))
        elif isinstance(event, h2.events.StreamEnded):
            self._bodies.pop(_id(event), None)
            self._idle_at = time.monotonic()
        elif isinstance(event, h2.events.DataReceived) and event.stream_id in self._bodies:
            self._bodies[_id(event)] = time.monotonic()

    def _end(self, stream: int) -> None:
        self._heads.discard(stream)
        self._bodies.pop(stream, None)
        self._idle_at = time.monotonic()
        self._over.add(stream)

    def _forget(self) -> None:
        """Keep nothing of the streams that are over, unless more that came of them is still being taken."""
        if self._over and not self._reads:
            _forget_closed(self)

    def handle_h2_event(self, event: h2.events.Event) -> CommandGenerator[bool]:
        """Take a head, or anything else; true where the connection is over."""
        if not self._greeted:  # RFC 9113 §3.4
            self._greeted = True
            if not isinstance(event, h2.events.RemoteSettingsChanged | h2.exceptions.ProtocolError):
                yield from self.protocol_error("the client did not begin with SETTINGS")
                return True
        if isinstance(event, h2.events.PingAckReceived):
            self._unheard = False
        if isinstance(event, Leaving):
            return False  # we open no streams towards a client, and what is under way is answered (RFC 9113 §6.8)
        try:
            if isinstance(event, h2.events.RequestReceived):
                yield self._receive(event)
                return False
            _check_body(self._lengths, event)
            self._note_progress(event)
        except MalformedError as error:
            yield from self._refuse(event, error)
            return False
        return (yield from super().handle_h2_event(event))

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way."""
        return all(map(self.is_closed, self.streams))

    @property
    def latest(self) -> int:
        """The number of the last request."""
        return int(self.h2_conn.highest_inbound_stream_id)

    @property
    def is_heard(self) -> bool:
        """Whether the client knows that we leave, or is gone."""
        return not self._unheard or self.conn.state is not ConnectionState.OPEN

    def _say_farewell(self) -> CommandGenerator[None]:
        """Have the client open no more streams; those that it has opened till it knows that are served."""
        if self.conn.state is ConnectionState.OPEN:
            self._unheard = True
            self.h2_conn.go_away()
            self.h2_conn.ping(b"farewell")
            yield from self._flush()

    def _receive(self, event: h2.events.RequestReceived) -> http.ReceiveHttp:
        headers, ended, stream = _raw(event.headers), bool(event.stream_ended), _id(event)
        if (b":method", b"HEAD") in headers:
            self._heads.add(stream)
        allowed = limits_of(self.context.options)
        check_head(allowed, http2.size(headers), 0, of_request=True)
        head = http2.request(headers, ended=ended)
        check_head(allowed, 0, len(head.fields), of_request=True)
        if not ended:
            self._bodies[stream] = time.monotonic()
            if any(name == b"content-length" for name, _ in head.fields):
                self._lengths.begin(stream, framing.request_length(b"HTTP/1.1", head.fields))
        self.streams[stream] = _http2.StreamState.HEADERS_RECEIVED
        return http.ReceiveHttp(http.RequestHeaders(stream, flows.request_of(head), ended))

    def _refuse(self, event: Any, error: MalformedError) -> CommandGenerator[None]:
        _set_aside(self.h2_conn, self._lengths, event)
        accept = ""
        if isinstance(event, h2.events.RequestReceived):
            accept = dict(_raw(event.headers)).get(b"accept", b"").decode("latin-1")
        yield from self._refuse_stream(_id(event), error, accept)

    def _refuse_stream(self, stream: int, error: MalformedError, accept: str = "") -> CommandGenerator[None]:
        if stream not in self.streams:  # there is no flow, and so no line of the terminal's
            ledger.refuse_unread(self.context.options)
            yield Log(f"{human.format_address(self.conn.peername)}: {error}", WARNING)
        else:  # its head has passed already
            code = http.ErrorCode.GENERIC_CLIENT_ERROR
            status = error.status if self._may_send_page(stream) else 0
            reason = Reason(str(error), ErrorType.HTTP_REQUEST_ERROR, status)
            yield http.ReceiveHttp(http.RequestProtocolError(stream, reason, code))
        page = pages.text(error.status, str(error), ErrorType.HTTP_REQUEST_ERROR)
        if not self._send_page(stream, page, accept) and not self.is_closed(stream):
            self.h2_conn.reset_stream(stream, h2.errors.ErrorCodes.PROTOCOL_ERROR)
        self.streams.pop(stream, None)
        self._end(stream)
        yield from self._flush()

    def _await_the_rest(self) -> CommandGenerator[None]:
        """See to it that a look is taken before what is incomplete takes too long."""
        if self.h2_conn.begun is None:
            self._head_at = 0.0
        elif not self._head_at:
            self._head_at = time.monotonic()
        if not self._watch and (self._head_at or self._bodies) and (look := self._shortest_limit):
            self._watch = RequestWakeup(look)
            yield self._watch

    def _look(self) -> CommandGenerator[None]:
        """Refuse what takes too long; look again while anything is incomplete."""
        self._watch = None
        found, now = time_limits.of(self.context.options), time.monotonic()
        head_due = self._head_at + (found.head or math.inf) if self._head_at else math.inf
        if head_due <= now and self.is_idle:  # else others' answers would be cut
            yield from self._refuse_head(found.head)
            return
        yield from self._refuse_late_bodies(found.body, now)
        dues = [head_due, *(at + (found.body or math.inf) for at in self._bodies.values())]
        if (look := self._shortest_limit) and (self._head_at or self._bodies):
            left = min((due - now for due in dues if due > now), default=look)
            self._watch = RequestWakeup(min(look, left))
            yield self._watch

    def _refuse_late_bodies(self, limit: float, now: float) -> CommandGenerator[None]:
        late = [stream for stream, at in self._bodies.items() if limit and at + limit <= now]
        if late and (self.h2_conn.holds or handlers.is_held_back(self.context.client)):
            self._bodies.update(dict.fromkeys(late, now))
            return
        for stream in late:
            limits.reached(time_limits.BODY)
            self._lengths.end(stream)
            yield from self._refuse_stream(stream, MalformedError(time_limits.late_body(limit), 408))

    def _refuse_head(self, limit: float) -> CommandGenerator[None]:
        """The rest of it would have to come before anything else may: the connection cannot be used any more."""
        limits.reached(time_limits.HEAD)
        ledger.refuse_unread(self.context.options)
        message = time_limits.late_head(limit)
        yield Log(f"{human.format_address(self.conn.peername)}: {message}", WARNING)
        if stream := self.h2_conn.begun:
            answer = flows.answer_of(pages.text(408, message, ErrorType.HTTP_REQUEST_ERROR))
            fields = ((b":status", b"408"), *_lowered(answer.headers.fields))
            yield from self._flush()
            yield SendData(self.conn, self.h2_conn.refuse(stream, fields, answer.raw_content or b""))
        yield from self.protocol_error(message, h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)

    @property
    def _shortest_limit(self) -> float:
        found = time_limits.of(self.context.options)
        return time_limits.shortest(found.head, found.body)

    def close_connection(self, msg: str) -> CommandGenerator[None]:
        """Fail what is under way: the client has gone, or does not speak HTTP/2."""
        gone = msg == _CLOSED
        yield from _fail_all(self, flows.CLIENT_GONE if gone else Reason(msg, ErrorType.HTTP_REQUEST_ERROR))

    def _tell(self, event: http.ResponseProtocolError) -> bool:
        page = failures.page_of(event)
        return page is not None and self._send_page(event.stream_id, page)

    def _send_page(self, stream: int, page: Page, accept: str = "") -> bool:
        """Answer with a page of our own, if nothing of an answer has been sent. `accept`: where no flow tells it."""
        if not self._may_send_page(stream):
            return False
        answer = flows.answer_of(page, accept or self._accept_of(stream))
        head = [(b":status", b"%d" % page.code), *_lowered(answer.headers.fields)]
        bodiless = stream in self._heads
        self.h2_conn.send_headers(stream, head, end_stream=bodiless)
        if not bodiless:
            self.h2_conn.send_data(stream, answer.raw_content or b"", end_stream=True)
        if not self.is_closed(stream) and not self.h2_conn.stream_buffers.get(stream):
            self.h2_conn.reset_stream(stream, h2.errors.ErrorCodes.NO_ERROR)  # RFC 9113 §8.1
        return True

    def _may_send_page(self, stream: int) -> bool:
        """Whether it can be sent, and nothing of an answer has been."""
        return self.is_open_for_us(stream) and not self.h2_conn.streams[stream].state_machine.headers_sent

    def _accept_of(self, stream: int) -> str:
        """In what form a client wants its answer: asked where that fails, and so not kept of each request."""
        layers: list[Any] = self.context.layers
        parent = layers[layers.index(self) - 1]
        flow = getattr(getattr(parent, "streams", {}).get(stream), "flow", None)
        return flows.accept_of(flow) if flow else ""

    def _flush(self) -> CommandGenerator[None]:
        if data := self.h2_conn.data_to_send():
            yield SendData(self.conn, data)


def _fail_all(peer: Any, message: str) -> CommandGenerator[None]:
    """Close the connection and fail what is under way, of which each may end others: mitmproxy expects that of none."""
    yield CloseConnection(peer.conn)
    error = peer.ReceiveProtocolError
    for stream in list(peer.streams):
        if stream in peer.streams:
            yield http.ReceiveHttp(error(stream, message, error.code))
    peer.streams.clear()
    peer._handle_event = peer.done


def _forget_closed(peer: Any) -> list[int]:
    """Keep nothing of the streams that are over and closed, which these are."""
    closed = list(filter(peer.is_closed, peer._over))
    for stream in closed:
        peer._over.remove(stream)
        peer._lengths.end(stream)
        peer.streams.pop(stream, None)
        peer.h2_conn.forget(stream)
    return closed


class Client(http.Http2Client):
    """Towards the upstream."""

    _leaves = False
    """Whether it takes no more requests."""
    _reads = False
    """As the server's."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._unsent: set[int] = set()
        """Requests that will never set out by this connection, by their streams towards the client."""
        self.h2_conn: Connection = Connection(self.h2_conf, limits_of(context.options))
        self.h2_conn.local_settings.enable_push = 0  # as mitmproxy has it
        self.h2_conn.local_settings.acknowledge()
        self._lengths, self._backlog = Lengths(), Backlog()
        self._queue = Queue()
        self._over: set[int] = set()
        """The streams on which nothing more comes, or which we have given up."""
        self._active_at = time.monotonic()

    def _handle_event(self, event: events.Event) -> CommandGenerator[None]:
        if isinstance(event, Pressure):
            yield from self._press(event)
            return
        if isinstance(event, http.RequestHeaders):
            self._prepare(event.request)
        yield from self._offer(event)
        while self._queue and self._has_place:
            for kept in self._queue.take():
                yield from self._offer(kept)
        while self._unsent:
            yield http.ReceiveHttp(NoAnswer(self._unsent.pop(), "server closed connection", untouched=True))
        if self.h2_conn.stream_buffers or self._queue or self._backlog:
            yield from self._tell_pressure()
        self._forget()
        if self._leaves and all(map(self.is_closed, self.streams)) and self.conn.state & ConnectionState.CAN_WRITE:
            yield CloseConnection(self.conn)

    def _prepare(self, request: Request) -> None:
        self.h2_conn.secret_fields = gate.gate_of(self.context.options).token_fields
        if request.is_http2:
            request.headers.fields = _lowered(request.headers.fields)

    @property
    def _has_place(self) -> bool:
        """Whether the server takes another request."""
        most = self.provisional_max_concurrency or self.h2_conn.remote_settings.max_concurrent_streams
        return bool(self.h2_conn.open_outbound_streams < most)

    def _offer(self, event: events.Event) -> CommandGenerator[None]:
        """Have mitmproxy take it, unless it is of a request that has to wait, or of none any more."""
        outer, self._reads = self._reads, self._reads or not isinstance(event, http.HttpEvent)
        if self._is_ready(event):
            for command in self._handle_event2(event):
                if not isinstance(command, http.ReceiveHttp) or self._is_awaited(command.event):
                    yield command
            if isinstance(event, http.RequestProtocolError):
                self._over.add(event.stream_id)
        self._reads = outer

    def _is_ready(self, event: events.Event) -> bool:
        """Give what is of a request the number that its stream has here; otherwise keep it, while it waits for one.

        The client's own would not do: they may come in another order.
        """
        if not isinstance(event, http.HttpEvent):
            return True
        if isinstance(event, http.RequestHeaders) and self._has_place:
            ours = self.h2_conn.get_next_available_stream_id()
            self.our_stream_id[event.stream_id], self.their_stream_id[ours] = ours, event.stream_id
        if event.stream_id not in self.our_stream_id:
            self._queue.add(event)
            return False
        event.stream_id = self.our_stream_id[event.stream_id]
        return True

    def _is_awaited(self, event: http.HttpEvent) -> bool:
        """Give what is of an answer the client's number again, if it is of a stream that there is."""
        theirs = self.their_stream_id.get(event.stream_id)
        event.stream_id = theirs or 0
        return theirs is not None

    def _forget(self) -> None:
        """Keep nothing of the streams that are over, as the server does."""
        if self._reads or not self._over:
            return
        for ours in _forget_closed(self):
            theirs = self.their_stream_id.pop(ours, 0)
            if self.our_stream_id.get(theirs) == ours:  # else it went again by this very connection
                del self.our_stream_id[theirs]

    def _press(self, event: Pressure) -> CommandGenerator[None]:
        """The client takes no more of an answer for now, or does again."""
        if event.stream_id in self.our_stream_id:
            self.h2_conn.hold(self.our_stream_id[event.stream_id], held=event.full)
            if data := self.h2_conn.data_to_send():
                yield SendData(self.conn, data)

    def _tell_pressure(self) -> CommandGenerator[None]:
        theirs = self.their_stream_id
        sizes = {theirs[ours]: size for ours, size in waiting(self.h2_conn).items() if ours in theirs}
        for stream, full in self._backlog.changes(sizes | self._queue.sizes()):
            yield http.ReceiveHttp(Pressure(stream, full, of_request=True))

    def close_connection(self, msg: str) -> CommandGenerator[None]:
        """Fail what is under way."""
        self._leave()
        for stream, state in list(self.streams.items()):
            if msg == _CLOSED and state is _http2.StreamState.EXPECTING_HEADERS:
                del self.streams[stream]
                yield http.ReceiveHttp(NoAnswer(stream, "server closed connection"))
        yield from _fail_all(self, Reason(msg, ErrorType.HTTP_RESPONSE_INCOMPLETE) if msg == _CLOSED else msg)

    def _leave(self) -> None:
        """Take no more requests, not even those that wait for one to end."""
        self._leaves = True
        retries.leave(self.conn)
        self._unsent.update(self._queue.clear())

    def _go_away(self, event: Leaving) -> CommandGenerator[None]:
        """The server takes no more streams, and will not answer those after the last that it names."""
        self._leave()
        reason = f"the server closed the connection ({_name(event.error_code)})"
        for stream in [stream for stream in self.streams if stream > event.last_stream_id]:
            yield from self._give_up(stream, reason)

    def _give_up(self, stream: int, reason: str) -> CommandGenerator[None]:
        """The server says that it has done nothing of what this stream asked for."""
        untouched = self.streams.pop(stream) is _http2.StreamState.EXPECTING_HEADERS
        self._lengths.end(stream)
        self.our_stream_id.pop(self.their_stream_id[stream], None)  # it may go again by this very connection
        if not self.is_closed(stream):
            self.h2_conn.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)  # what still comes of it is nobody's
        yield http.ReceiveHttp(NoAnswer(stream, reason, untouched=untouched))
        self._over.add(stream)

    def _handle_event2(self, event: events.Event) -> CommandGenerator[None]:
        if isinstance(event, events.Wakeup):
            yield from self._keep_alive()
        else:
            self._active_at = time.monotonic()
            yield from super()._handle_event2(event)

    def _keep_alive(self) -> CommandGenerator[None]:
        """As mitmproxy, but not by the time of day: set back, that would end the pings."""
        period, now = self.context.options.http2_ping_keepalive, time.monotonic()
        if now - self._active_at + 1 > period:  # a second early is not worth another look
            self._active_at = now
            self.h2_conn.ping(b"0" * 8)
            yield SendData(self.conn, self.h2_conn.data_to_send())
        yield RequestWakeup(self._active_at + period - now)

    def handle_h2_event(self, event: h2.events.Event) -> CommandGenerator[bool]:
        """Take a head, or anything else; true where the connection is over."""
        if isinstance(event, Leaving):
            yield from self._go_away(event)
            return False
        if isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
            self._over.add(_id(event))
        if isinstance(event, h2.events.StreamReset) and _id(event) in self.streams:
            yield from self._reset(event)
            return False
        if isinstance(event, h2.events.TrailersReceived) and _id(event) not in self.streams:
            return False  # of one that we have given up, and whose request may go again
        try:
            if isinstance(event, h2.events.ResponseReceived | h2.events.InformationalResponseReceived):
                if self.streams.get(_id(event)) is _http2.StreamState.EXPECTING_HEADERS:  # else we have given it up
                    yield self._receive(event, ended=bool(getattr(event, "stream_ended", None)))
                return False
            _check_body(self._lengths, event)
        except MalformedError as error:
            yield from self._refuse_answer(event, error)
            return False
        return (yield from super().handle_h2_event(event))

    def _refuse_answer(self, event: Any, error: MalformedError) -> CommandGenerator[None]:
        """End a stream whose answer has a fault."""
        stream = _id(event)
        _set_aside(self.h2_conn, self._lengths, event)
        if not self.is_closed(stream):
            self.h2_conn.reset_stream(stream, h2.errors.ErrorCodes.PROTOCOL_ERROR)
        self.streams.pop(stream, None)
        code = http.ErrorCode.GENERIC_SERVER_ERROR
        yield http.ReceiveHttp(http.ResponseProtocolError(stream, str(error), code))
        self._over.add(stream)

    def _reset(self, event: h2.events.StreamReset) -> CommandGenerator[None]:
        """The server has ended one stream."""
        who = "the server reset the stream" if event.remote_reset else "the server's stream was malformed"
        stream, reason = _id(event), f"{who} ({_name(event.error_code)})"
        self._lengths.end(stream)
        if event.error_code == h2.errors.ErrorCodes.REFUSED_STREAM:
            if self.h2_conn.open_outbound_streams < self.h2_conn.remote_settings.max_concurrent_streams:
                self._leave()  # there is no place on it for reasons of its own; else there will be one
            yield from self._give_up(stream, reason)
            return
        if self.streams.pop(stream) is _http2.StreamState.HEADERS_RECEIVED and event.remote_reset:
            reason = Reason(reason, ErrorType.HTTP_RESPONSE_INCOMPLETE)
        code = _CODES.get(int(event.error_code or 0), http.ErrorCode.GENERIC_SERVER_ERROR)
        yield http.ReceiveHttp(http.ResponseProtocolError(stream, reason, code))

    def _receive(self, event: Any, *, ended: bool) -> http.ReceiveHttp:
        headers = _raw(event.headers)
        status, fields = http2.response(headers)
        check_head(limits_of(self.context.options), http2.size(headers), len(fields), of_request=False)
        if not 100 <= status < 200:
            stream = self.h2_conn.streams.get(event.stream_id)  # h2 may have forgotten one that ended in the same piece
            method = stream and stream.request_method
            length = framing.response_length(method or b"", status, b"HTTP/1.1", fields)
            if length != framing.UNTIL_CLOSED and not ended:
                self._lengths.begin(event.stream_id, length)
            self.streams[event.stream_id] = _http2.StreamState.HEADERS_RECEIVED
        response = flows.response_of(ReceivedResponse(b"HTTP/2.0", status, b"", fields))
        return http.ReceiveHttp(http.ResponseHeaders(event.stream_id, response, ended))


_CLOSED = "peer closed connection"
_CODES: dict[int, http.ErrorCode] = {
    h2.errors.ErrorCodes.CANCEL: http.ErrorCode.CANCEL,
    h2.errors.ErrorCodes.HTTP_1_1_REQUIRED: http.ErrorCode.HTTP_1_1_REQUIRED,
}


def _name(code: int | None) -> str:
    """Of an error (RFC 9113 §7)."""
    try:
        return h2.errors.ErrorCodes(code or 0).name
    except ValueError:
        return str(code)


def _check_body(lengths: Lengths, event: h2.events.Event) -> None:
    """Look at what follows a head. Raises MalformedError."""
    if isinstance(event, h2.events.DataReceived | h2.events.TrailersReceived):
        size = len(event.data or b"") if isinstance(event, h2.events.DataReceived) else 0
        lengths.check(_id(event), size, ended=event.stream_ended is not None)
    if isinstance(event, h2.events.TrailersReceived):
        event.headers = list(http2.trailers(_raw(event.headers)))
    if isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
        lengths.end(_id(event))


def _set_aside(connection: Any, lengths: Lengths, event: Any) -> None:
    """Expect nothing more of a stream, of which what came still counts for the connection's window."""
    lengths.end(_id(event))
    if isinstance(event, h2.events.DataReceived):
        connection.acknowledge_received_data(event.flow_controlled_length, _id(event))


def _raw(headers: Any) -> list[tuple[bytes, bytes]]:
    return [(bytes(name), bytes(value)) for name, value in headers]


def _lowered(fields: Fields) -> Fields:
    """Names as HTTP/2 has them (RFC 9113 §8.2): of messages that came by it mitmproxy would log each that is not."""
    return tuple((name.lower(), value) for name, value in fields)


def _id(event: Any) -> int:
    return int(event.stream_id)


def _is_sendable(fields: Fields, status: int = 200) -> bool:
    """Whether what a hook may have made of it is still an answer."""
    try:
        check(fields)
        heads.check_status(status)
    except MalformedError:
        return False
    return True
