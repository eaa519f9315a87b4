"""One client connection: its requests, one after another, each with mitmproxy's flow, its hooks and our gate.

What is decided is decided elsewhere: `boring` says what may be carried here, hooks and the gate what becomes of it,
conduct how it is framed. At a head that is not boring, and where nothing is under way, the connection is given away.
"""

import asyncio
import logging
import math
import sys
import time
from collections.abc import Callable
from enum import IntEnum
from typing import Any

from mitmproxy.connection import Client, ConnectionState, Server
from mitmproxy.flow import Error
from mitmproxy.http import HTTPFlow
from mitmproxy.proxy import server_hooks
from mitmproxy.utils import human

from ..conduct import fair, framing, heads
from ..conduct.closing import still_listens
from ..conduct.forwarding import response_fields
from ..conduct.heads import ReceivedRequest, ReceivedResponse
from ..conduct.interim import Interims
from ..conduct.malformed import MalformedError
from ..conduct.proxy_status import ErrorType, Reason, type_of
from ..conduct.retries import may_go_again
from ..conduct.target import Target
from ..config.errors import trace
from ..mitm import flows, limits, response_timeout, retries, time_limits, turns, upstream_limit
from ..mitm.dispatch import call
from ..mitm.http1 import error_answer
from ..mitm.ledger import note_carried
from ..mitm.limits import Limits
from ..observe import pages
from . import boring, portions
from .body import Body
from .boring import Answer, Head
from .switch import Lane, Route
from .upstream import CLOSED, Upstream

logger = logging.getLogger(__name__)

_MOST_WAITING = 64 * 1024
"""Bytes of later requests, or of a body nobody takes yet, that are read while one is under way."""
_MOST_PIECES = 16
"""In which a head may come; one that takes more is mitmproxy's, which does not look at it from its start each time."""
_COPIED = 16 * 1024
"""Bytes up to which a head and what follows are joined, to be sent at once."""


GiveAway = Callable[["Engine", bytes, HTTPFlow | None], None]


class Pause(IntEnum):
    """Why nothing is read from the client: bits."""

    BEHIND = 1
    """It is ahead of us."""
    FULL = 2
    """The upstream takes no more."""
    DEAR = 4
    """It is to wait for its turn."""


class Engine(asyncio.Protocol):
    """The protocol of a client connection, whose transport may be one that speaks TLS."""

    # There may be thousands, and Python shares the names of thirty attributes at most: that many more take 2 KiB each.
    __slots__ = (
        *("lane", "client", "transport", "is_full", "flow"),
        *("_route", "_watchdog", "_give_away", "_upstreams", "_upstream", "_dialling"),
        *("_timer", "_active_at", "_due_at"),
        *(
            "_buffer",
            "_head",
            "_pieces",
            "_received",
            "_sent",
            "_paused",
            "_taking",
            "_over",
            "_out",
            "_body",
            "_interims",
        ),
        *("_closes", "_chunked", "_chunks_up", "_bodiless", "_answered", "_done", "_is_last", "_listens"),
    )

    def __init__(self, lane: Lane, route: Route, give_away: GiveAway) -> None:
        """`give_away`: have mitmproxy go on with these bytes, the first of which may be a request with a flow."""
        self.lane = lane
        self.client: Client | None = None
        """None until the first boring request."""
        self.transport: Any = None
        self.is_full = False
        """Whether it takes no more for now."""
        self._route = route
        self._watchdog: Any = None
        """That of mitmproxy, which owns the connections of a tunnel."""
        self._give_away = give_away
        self._upstreams: dict[tuple[str, int], Upstream] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._active_at = self._due_at = 0.0
        """When anything has happened last; when the head that has begun, or the answer, must be there, if one must."""
        self._buffer = b""
        self._head = b""
        """Of the request under way, as it came, where it may have to be given back."""
        self._pieces = 0
        self._paused = 0
        self._taking = False
        self._over = False
        """Whether nothing more is read or sent, whatever still comes."""
        self._forget()

    def be_guest(self, client: Client, upstream: Upstream, watchdog: Any) -> None:
        """Carry the requests of connections that mitmproxy has made, and whose end it sees to."""
        self.client, self._watchdog = client, watchdog
        assert self._route.address
        self._upstreams[self._route.address] = upstream

    # --- one request

    def _forget(self) -> None:
        self.flow: HTTPFlow | None = None
        self._body: Body | None = None
        """Of the request, until it has come as a whole."""
        self._upstream: Upstream | None = None
        self._dialling: asyncio.Task[None] | None = None
        self._interims: Interims | None = None
        self._out: list[bytes] = []
        self._received = self._sent = 0
        """Bytes of the bodies of the request and its answer."""
        self._closes = self._chunked = self._chunks_up = self._bodiless = self._answered = self._done = False
        self._is_last = self._listens = False
        """Whether the client said that this request is its last, and whether it has hung up since."""

    def _begin(self, head: Head, host: str, port: int) -> None:
        client = self.client
        assert client
        target = Target(head.path, self._route.scheme.encode(), b"", host, port)
        fields = self.lane.fields(self._route, head)
        request = flows.request_of(ReceivedRequest(head.method, target, b"HTTP/1.1", fields))
        request.stream = True  # bodies are never gathered here
        self.flow = flow = flows.new_flow(client, self._server_for(host, port), request)
        if self._route.tunnel:
            flows.mark_tunnel(flow, self._route.tunnel)
        self._closes = self._is_last = head.closes
        if head.length == 0:
            request.data.content = b""
        else:
            self._body, self._chunks_up = Body(head.length), head.length is framing.CHUNKED
        if not self._hear("requestheaders"):
            return
        if not self._body and not self._hear_of_the_whole_request():
            return
        if flow.response:
            self._answer_here()
        else:
            self._set_out()

    def _server_for(self, host: str, port: int) -> Server:
        upstream = self._upstreams.get((host, port))
        return upstream.server if upstream and upstream.is_free else Server(address=(host, port))

    def _hear_of_the_whole_request(self) -> bool:
        assert self.flow
        self._body = None
        self.flow.request.data.timestamp_end = time.time()
        return self._hear("request")

    def _hear(self, hook: str) -> bool:
        """Run hooks; whether the request goes on. One that waits, or kills the flow, ends it."""
        flow, hooks = self.flow, self.lane.hooks[hook]
        assert flow
        if not hooks or (call(hooks, flow) and not flow.error):
            return True
        if not flow.error:
            logger.error("jwtproxy: error: a request was refused: a hook on %s would have to wait", hook)
            reason = "the request could not be signed and was not forwarded"
            self._refuse(502, Reason(reason, ErrorType.PROXY_INTERNAL_ERROR))
        else:
            self._end_in_error()
        return False

    def _set_out(self) -> None:
        """Pass the gate, be counted, get a connection."""
        flow = self.flow
        assert flow
        if not self._may_leave():
            return
        self.lane.count()
        address = (flow.request.host, flow.request.port)
        if flow.server_conn.address != address:
            flow.server_conn = self._server_for(*address)
        upstream = self._upstreams.get(address)
        if upstream and upstream.is_free:
            self._ask(upstream)
        else:
            self._dialling = self.lane.start(self._dial(flow, address))

    def _may_leave(self) -> bool:
        """Ask the gate; what it refuses is answered."""
        assert self.flow
        flows.encode_path(self.flow.request)
        page = self.lane.gate.refusal_for(self.flow)
        if page:
            flows.respond(self.flow, page)
            self._answer_here()
        return page is None

    def _ask(self, upstream: Upstream) -> None:
        """Send the head, whose fields the gate has just seen, and what there is of the body."""
        flow = self.flow
        assert flow
        self._upstream, request = upstream, flow.request.data
        flow.server_conn = upstream.server
        if self.is_full:
            upstream.pause()
        upstream.ask(request.method, heads.write_request(request.method, request.path, request.headers.fields))
        if self._body:
            self._active_at = time.monotonic()  # until now nobody took its body
            self._pass_body()
            self._catch_up()
        else:
            self._wait_for_the_answer()

    def _pass_body(self) -> None:
        assert self._body
        data, self._buffer = self._buffer, b""
        content, self._buffer = self._body.take(data)
        self._received += len(content)
        if content and self._upstream:
            self._upstream.write(_chunk(content) if self._chunks_up else content)
        if self._body.fault:
            self._let_go()
            self._refuse(400, "the request's body is malformed")
        elif self._body.ended:
            self._end_body()

    def _end_body(self) -> None:
        if self._chunks_up and self._upstream:
            self._upstream.write(b"0\r\n\r\n")
        if not self._hear_of_the_whole_request():
            return
        if self._done:
            self._go_on()
        else:
            self._wait_for_the_answer()

    def _wait_for_the_answer(self) -> None:
        if self.lane.response_timeout and not self._answered:
            self._due_at = time.monotonic() + self.lane.response_timeout

    # --- its upstream

    async def _dial(self, flow: HTTPFlow, address: tuple[str, int]) -> None:
        try:
            await self._connect(flow, address)
        except Exception:
            self.crash()

    def _close_oldest(self) -> Server | None:
        """Close the connection that was made first, if there is one: none of them has anything to do."""
        oldest = next(iter(self._upstreams.values()), None)
        if oldest:
            oldest.close()
        return oldest.server if oldest else None

    async def _connect(self, flow: HTTPFlow, address: tuple[str, int]) -> None:
        assert self.client
        data = server_hooks.ServerConnectionHookData(client=self.client, server=flow.server_conn)
        options = self.lane.master.options
        upstream_limit.admit(options, self.client, data.server, len(self._upstreams), self._close_oldest)
        upstream, reason = await self.lane.dial(data, lambda: Upstream(data, self))
        if flow is not self.flow or self._over:
            if upstream:
                upstream.close()
            return
        self._dialling = None
        if not upstream:
            origin = f"{self._route.scheme}://{address[0]}:{address[1]}"
            if flows.is_refused(reason):
                flows.respond(flow, flows.no_connection(origin, reason))
                self._answer_here()
            else:
                self._fail(flows.cannot_connect(origin, reason))
            return
        self._upstreams[address] = upstream
        if not upstream.is_free:  # a hook waited, and it has hung up, or said what nobody asked for
            self._fail(CLOSED)
        elif self._may_leave():  # once more: it may have taken long, and a token is for now
            self._ask(upstream)

    def interim_came(self, head: ReceivedResponse) -> None:
        """Pass it on, if its client gets it."""
        self._interims = self._interims or Interims(b"HTTP/1.1")
        try:
            passes = self._interims.receive(head.status, head.version)
        except MalformedError as error:
            self._let_go()
            self._fail(str(error))
            return
        if passes:
            self._send(heads.write_response(head.status, head.reason, response_fields(head.fields)))

    def boring_answer_began(self, answer: Answer) -> None:
        """Have hooks see it, then send its head: as it is, if they left it so and the connection goes on."""
        self._due_at = 0.0
        flow = self.flow
        assert flow
        fields = self.lane.gate.named_fields(b"HTTP/1.1", answer.fields)
        head = ReceivedResponse(b"HTTP/1.1", answer.status, answer.reason, fields)
        response = flow.response = flows.response_of(head)
        response.stream = True
        if not self._hear("responseheaders"):
            return
        line = (response.data.status_code, response.data.reason)
        unchanged = response.headers.fields is fields and line == (answer.status, answer.reason)
        if self._closes or flow.response is not response or not unchanged:
            self._send_head()
            return
        self._answered, self._chunked = True, answer.length is framing.CHUNKED
        self._send(heads.written(b"HTTP/1.1 %d %s" % (response.data.status_code, response.data.reason), fields))

    def answer_began(self, head: ReceivedResponse) -> None:
        """Have hooks see it, then send its head."""
        self._due_at = 0.0
        flow = self.flow
        assert flow
        fields = self.lane.gate.answer_fields(flow, head.version, head.status, head.fields)
        flow.response = flows.response_of(head._replace(fields=fields))
        flow.response.stream = True
        if self._hear("responseheaders"):
            self._send_head()

    def answer_went_on(self, data: bytes) -> None:
        """Send some of its body."""
        self._sent += len(data)
        if not self._bodiless:
            self._send(_chunk(data) if self._chunked else data)

    def answer_ended(self) -> None:
        """Go on with the next request."""
        flow = self.flow
        assert flow
        assert flow.response
        flow.response.data.timestamp_end = time.time()
        if not self._hear("response"):
            return
        if ledger := self.lane.ledger:
            ledger.response_in_lane(flow, self._received, self._sent)
        if self._chunked:
            self._send(b"0\r\n\r\n")
        self._finish()

    def answer_failed(self, reason: str) -> None:
        """Say so."""
        self._fail(reason)

    def answer_never_began(self, *, reused: bool) -> None:
        """Send the request once more, if that can do no harm."""
        flow = self.flow
        assert flow
        method, bodiless = flow.request.data.method, flow.request.data.content == b""
        harmless = may_go_again(method, untouched=False, reused=reused, bodiless=bodiless, held=bodiless)
        if harmless and not self._done and not retries.is_second_try(flow):
            self._go_again(flow)
        else:
            self._fail(CLOSED)

    def _go_again(self, flow: HTTPFlow) -> None:
        """Send the request to another connection, with another token; in a tunnel it is mitmproxy that makes one."""
        retries.begin_again(flow, self.lane.master.options)
        self._due_at, self._upstream = 0.0, None
        if self._watchdog:
            self._buffer, self._head = self._head + self._buffer, b""
            self._forget()
            self._leave_to_mitmproxy(flow)
        elif self._may_leave():
            address = (flow.request.host, flow.request.port)
            flow.server_conn = Server(address=address)
            self._dialling = self.lane.start(self._dial(flow, address))

    def upstream_lost(self, upstream: Upstream) -> None:
        """Forget it."""
        if not self._watchdog:
            self.lane.disconnected(upstream.data)
        address: Any = upstream.server.address
        if self._upstreams.get(address) is upstream:
            del self._upstreams[address]
        if self._upstream is upstream:
            self._upstream = None
            self._resume(Pause.FULL)
            self._go_on()

    def upstream_is_full(self, full: bool) -> None:
        """Read no more of the body for now, or again."""
        if full:
            self._pause(Pause.FULL)
        else:
            self._note_activity()
            self._resume(Pause.FULL)
            self._go_on()

    # --- the answer

    def _answer_here(self) -> None:
        """Send the answer that a hook or the gate has set."""
        flow = self.flow
        assert flow
        assert flow.response
        flow.response.timestamp_start = time.time()
        if not self._hear("responseheaders"):
            return
        response = flow.response
        if self._body:
            response.headers["connection"] = "close"
        flows.complete(flow, here=True)
        response = flow.response
        response.timestamp_end = time.time()
        note_carried(flow, self._received, len(response.raw_content or b""), fast=True)
        if not self._hear("response"):
            return
        if ledger := self.lane.ledger:
            ledger.response(flow)
        if not self._send_head():
            return
        if not self._bodiless:
            content = response.raw_content or b""
            self._send(_chunk(content) + b"0\r\n\r\n" if self._chunked else content)
        self._finish()

    def _send_head(self) -> bool:
        flow = self.flow
        assert flow
        assert flow.response
        response, method = flow.response, flow.request.data.method
        framed = framing.frame_for_client(
            b"HTTP/1.1", method, response.status_code, response.headers.fields, closes=self._closes
        )
        try:
            head = heads.write_response(response.status_code, response.data.reason, framed.fields)
        except MalformedError as error:
            self._let_go()
            self._refuse(502, Reason(f"in the answer, {error}", ErrorType.PROXY_INTERNAL_ERROR))
            return False
        self._answered = True
        self._bodiless = framing.has_no_body(method, response.status_code)
        self._chunked = framed.coding is framing.CHUNKED and not self._bodiless
        self._closes = framed.closes
        self._send(head)
        return self._look_for_the_client()

    def _finish(self) -> None:
        """The answer is complete: go on, or hang up."""
        flow = self.flow
        assert flow
        assert flow.response
        flow.live = False
        self._done = True
        if flow.response.status_code == 101:  # what is sent on such a connection could not be signed
            self._close()
        elif self._closes:
            self._hang_up() if self._body else self._close()
        else:
            self._go_on()

    def _go_on(self) -> None:
        """Take the next request, if this one has left as a whole, and its answer is complete."""
        if self._done and self.flow and not self._body and not self._over and not self._paused & Pause.FULL:
            self._next()

    def _next(self) -> None:
        self.flush()
        if self._upstream:
            self._upstream.release()
        self._forget()
        if self._buffer or self._paused:
            self._take_head()

    def _send(self, data: bytes) -> None:
        if data and not self._over:
            self._out.append(data)

    def flush(self) -> None:
        """Send what has gathered: a head and what follows it in one piece."""
        out = self._out
        if not out:
            return
        self._note_activity()
        self._out = []
        if len(out) == 1:
            self.transport.write(out[0])
        elif sum(map(len, out)) <= _COPIED:
            self.transport.write(b"".join(out))
        else:
            for data in out:
                self.transport.write(data)

    # --- what goes wrong

    def _fail(self, reason: str) -> None:
        """There is no answer, or no more of it."""
        if self.flow and not self._done:
            self._refuse(502, reason)

    def _refuse(self, status: int, reason: str) -> None:
        """Tell of an error, to hooks and, if no answer has begun, to the client; it ends the connection."""
        assert self.flow
        otherwise = ErrorType.HTTP_REQUEST_ERROR if status < 500 else ErrorType.HTTP_PROTOCOL_ERROR
        reason = Reason(reason, type_of(reason, otherwise), 0 if self._answered else status)
        if not self._done:
            self.flow.error = Error(reason)
        if not self._answered:
            page = pages.text(status, reason, reason.error)
            self._send(error_answer(page, self.flow.request.data.method, flows.accept_of(self.flow)))
        self._end_in_error()

    def _end_in_error(self) -> None:
        assert self.flow
        unfinished = self._body is not None and (self._done or not self._answered)
        if not self._done:
            self._done = True
            note_carried(self.flow, self._received, self._sent, fast=True)
            call(self.lane.hooks["error"], self.flow)
            self.flow.live = False
        self._let_go()
        self._hang_up() if unfinished else self._close()

    def _let_go(self) -> None:
        """Nobody waits for the upstream any more."""
        self._due_at = 0.0
        if self._dialling:
            self._dialling.cancel()
            self._dialling = None
        if self._upstream:
            self._upstream.close()
            self._upstream = None
        self._resume(Pause.FULL)

    def _hang_up(self) -> None:
        """Close a connection of which more may come, which is dropped, lest a reset overtake what we said."""
        self.flush()
        self._over = True
        self._let_go()
        self._forget()
        self._resume(Pause.BEHIND | Pause.FULL | Pause.DEAR)
        if not self.transport.can_write_eof():
            self._close()
            return
        try:
            self.transport.write_eof()
        except OSError:  # the client has reset it, which shows only when one reads
            self.transport.abort()

    def _close(self) -> None:
        self.flush()
        self._over = True
        self.transport.close()

    # --- the client

    @property
    def is_busy(self) -> bool:
        """Whether a request waits for its answer, or for the rest of it."""
        return self.flow is not None and not self._done

    def close_if_idle(self) -> None:
        """Close the connection if no request is under way."""
        if self.flow is None and not self._buffer:
            self._close()

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self.transport = transport
        portions.begin(transport)
        self.lane.connections.add(self)
        self._active_at = time.monotonic()
        self._set_timer(self.lane.look)

    def data_received(self, data: bytes) -> None:
        """Take what the client sends."""
        if self._over:
            return
        began = portions.clock(self.transport, len(data))
        try:
            self._note_activity()
            self._buffer = self._buffer + data if self._buffer else data
            if self.flow is None:
                self._take_head()
            elif self._body and (self._upstream or self._done):
                self._pass_body()
            if self._is_ahead():
                self._pause(Pause.BEHIND)
            self.flush()
        except Exception:
            self.crash()
        if began:
            self._note_cost(len(data), began)

    def _note_cost(self, size: int, began: float) -> None:
        if not self._over and (cost := portions.taken(self.transport, size, began)):
            self._wait_for_a_turn(cost)

    def _wait_for_a_turn(self, cost: float) -> None:
        if not self._paused & Pause.DEAR:
            self._pause(Pause.DEAR)
            turns.queue(self._take_turn, cost)

    def _take_turn(self) -> None:
        if self._over:
            return
        self._resume(Pause.DEAR)
        self._go_on_taking()

    def eof_received(self) -> bool:
        """Who says no more is gone, though it may take what is left for it; or it has said that before."""
        self._listens = self._still_listens() and not self._body and not self._done
        if not self._listens:
            self._end()
        return self._listens

    def _look_for_the_client(self) -> bool:
        """Whether somebody waits for the rest of the answer; if not, that is the end."""
        if self._listens and not self._still_listens():
            self.flush()
            self._end()
            self.transport.close()
        return not self._over

    def _still_listens(self) -> bool:
        flow = self.flow
        response = flow.response if flow and self._answered else None
        return still_listens(last=self._is_last, answer=response.headers.fields if response else None)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        if self._timer:
            self._timer.cancel()
        self._end()

    def _end(self) -> None:
        """Nobody is there for whom anything could be done."""
        self.lane.connections.discard(self)
        self._over = True
        flow = self.flow
        if flow and not self._done:
            flow.error = Error(flows.CLIENT_GONE)
            note_carried(flow, self._received, self._sent, fast=True)
            call(self.lane.hooks["error"], flow)
            flow.live = False
        self._let_go()
        self._forget()
        if (
            self._watchdog and self.client
        ):  # mitmproxy's TLS takes an end that it has not read itself for one it has told
            self.client.state = ConnectionState.CLOSED
        self._leave()

    def pause_writing(self) -> None:
        """The client takes no more for now."""
        self.is_full = True
        if self._upstream:
            self._upstream.pause()

    def resume_writing(self) -> None:
        """It does again."""
        self.is_full = False
        if self._upstream:
            self._upstream.go_on()
        self._go_on_taking()

    def _go_on_taking(self) -> None:
        if self.flow is None and not self._over:
            try:
                self._take_head()
                self.flush()
            except Exception:
                self.crash()

    def _take_head(self) -> None:
        if not self._taking:  # a request that is answered here at once is followed by the next
            self._taking = True
            self._take_heads()
            self._taking = False
            self._catch_up()

    def _catch_up(self) -> None:
        if not self._is_ahead():
            self._resume(Pause.BEHIND)

    def _is_ahead(self) -> bool:
        """Whether more waits than is taken at once, later, without keeping others waiting: chunks may be dear."""
        return len(self._buffer) > (fair.FIRST if self._chunks_up else _MOST_WAITING)

    def _take_heads(self) -> None:
        """Serve the next request if it is boring; else give the connection away."""
        while self._buffer and self._may_take_one():
            end = boring.find_end(self._buffer)
            if not end:
                if not self._pieces and self.lane.limits.head:
                    self._due_at = time.monotonic() + self.lane.limits.head
                self._pieces += 1
                if self._pieces > _MOST_PIECES or not boring.may_become_one(self._buffer):
                    self._leave_to_mitmproxy()
                return
            origin_form = self._route.only is not None
            head = boring.read(self._buffer[:end], origin_form=origin_form) if self.lane.is_on() else None
            where = self.lane.place(self._route, head) if head and self._is_small(end, head) else None
            if not head or not where or not self._can_go(where) or not self._welcome():
                self._leave_to_mitmproxy()
                return
            self._head = self._buffer[:end] if self._watchdog else b""
            self._buffer = self._buffer[end:]
            if self._pieces:
                self._pieces, self._due_at = 0, 0.0
            self._begin(head, *where)
            if self.flow is None and self._buffer:  # it was answered here, and thousands may follow
                self._wait_for_a_turn(fair.GO)

    def _may_take_one(self) -> bool:
        return self.flow is None and not (self._over or self.is_full or self._paused & Pause.DEAR)

    def _is_small(self, size: int, head: Head) -> bool:
        """Whether a head is no larger than it may be."""
        return size <= self.sizes.max_head and len(head.fields) <= self.sizes.max_fields

    @property
    def sizes(self) -> Limits:
        """What heads may be."""
        return self.lane.sizes

    @property
    def head_began(self) -> float:
        """When the head began of which some has come; 0 if none has, or it only just has."""
        return self._due_at - self.lane.limits.head if self._pieces > 1 and self._due_at else 0.0

    def _can_go(self, where: tuple[str, int]) -> bool:
        """Whether there is a connection, or may be made: in a tunnel that is up to mitmproxy."""
        upstream = self._upstreams.get(where)
        return not self._watchdog or (upstream is not None and upstream.is_free)

    def _welcome(self) -> bool:
        """Have hooks hear of the client, once; whether it may stay."""
        if self.client is None:
            self.client = self.lane.welcome(self.transport)
        if self.client.error:
            self._close()
        return not self.client.error

    def _leave_to_mitmproxy(self, flow: HTTPFlow | None = None) -> None:
        """`flow`: of the first request that it is left, if that has been tried here."""
        if self._over:
            return
        self._over = True
        self.lane.connections.discard(self)
        if self._timer:
            self._timer.cancel()
        data, self._buffer = self._buffer, b""
        if self.client:  # an empty line, lest mitmproxy take for a beginning, of TLS perhaps, what is none
            data = b"\r\n" + data
        self.flush()
        self._leave()
        if flow:  # which nobody has been told of who knows of what is in flight here
            call(self.lane.left_out["requestheaders"], flow)
        self._give_away(self, data, flow)

    def _leave(self) -> None:
        """What was ours alone ends with us."""
        if self._watchdog:
            return
        for upstream in list(self._upstreams.values()):
            upstream.close()
        self._upstreams.clear()
        if self.client:
            self.client.state = ConnectionState.CLOSED
            self.lane.farewell(self.client)
            self.client = None

    def crash(self) -> None:
        """Whatever has happened: nothing goes on by chance."""
        logger.error("jwtproxy: error: a connection was closed, as carrying it failed\n%s", trace(sys.exception()))
        self._over = True
        self._let_go()
        self.transport.abort()

    def _pause(self, why: int) -> None:
        if not self._paused and not self._over:
            self.transport.pause_reading()
        self._paused |= why

    def _resume(self, why: int) -> None:
        if self._paused:
            self._paused &= ~why
            if not self._paused:
                self.transport.resume_reading()

    # --- time

    def _note_activity(self) -> None:
        self._active_at = time.monotonic()
        if self._watchdog:
            self._watchdog.register_activity()

    def _set_timer(self, left: float) -> None:
        """Look after this many seconds: no more than the shortest limit, for what may begin a moment later."""
        self._timer = self.lane.loop.call_later(left, self._ring)

    def _ring(self) -> None:
        self._timer = None
        name, at = self._next_deadline()
        left = at - time.monotonic()
        if left <= 0:
            try:
                self._be_late(name)
            except Exception:
                self.crash()
            left = self.lane.look
        self._set_timer(min(left, self.lane.look))

    def _next_deadline(self) -> tuple[str, float]:
        """Which limit comes next as things stand, and when; at infinity if none does."""
        found = self.lane.limits
        if self._due_at:
            return response_timeout.NAME if self.flow else time_limits.HEAD, self._due_at
        waits = self._over or (self.flow is None and not self._buffer)
        if waits and not self.transport.get_write_buffer_size():
            name, limit = time_limits.KEEPALIVE, found.keepalive or (self._over and found.idle)
        elif self._is_owed_a_body() and found.body:
            name, limit = time_limits.BODY, found.body
        else:
            name, limit = time_limits.IDLE, found.idle
        return name, self._active_at + (limit or math.inf)

    def _is_owed_a_body(self) -> bool:
        """Whether it is the client who is late: not while an answer is under way, nor while nobody takes its body."""
        if self._done:
            return self._body is not None and not self._paused
        return self._body is not None and self._upstream is not None and not (self._answered or self._paused)

    def _be_late(self, name: str) -> None:
        """Do what becomes of a connection at this limit."""
        if self._over:  # we have hung up, and nobody hears of it
            self.transport.abort()
            return
        limits.reached(name)
        if name == response_timeout.NAME:
            self._time_out()
        elif name == time_limits.HEAD:
            self._due_at = 0.0
            self._refuse_late_head(time_limits.late_head(self.lane.limits.head))
        elif name == time_limits.BODY:
            self._let_go()
            self._refuse(408, time_limits.late_body(self.lane.limits.body))
        elif name == time_limits.KEEPALIVE:
            self._close()
        else:
            self.transport.abort()

    def _refuse_late_head(self, message: str) -> None:
        if ledger := self.lane.ledger:
            ledger.refuse_unread()
        who = human.format_address(self.transport.get_extra_info("peername"))
        logger.warning("jwtproxy: warning: %s: %s", who, message)  # there is no flow that would be shown
        lines = self._buffer.split(b"\r\n")
        method = b"HEAD" if heads.is_head(lines[0]) else b""
        page = pages.text(408, message, ErrorType.HTTP_REQUEST_ERROR)
        self._send(error_answer(page, method, heads.accept_in(lines)))
        self._hang_up()

    def _time_out(self) -> None:
        flow = self.flow
        assert flow
        self._due_at = 0.0
        request = flow.request
        origin = f"{request.scheme}://{request.host}:{request.port}"
        self._let_go()
        message = f"no answer from {origin} within {self.lane.response_timeout:g} s"
        flows.respond(flow, pages.text(504, message, ErrorType.HTTP_RESPONSE_TIMEOUT))
        self._answer_here()
        self.flush()


def _chunk(data: bytes) -> bytes:
    """A chunk of a body; none of an empty one, which would be the last."""
    return b"%x\r\n%s\r\n" % (len(data), data) if data else b""
