"""A request and its answer inside mitmproxy: what its hooks cannot see or do, in one subclass of its HttpStream.

- A request in origin form is one to the proxy itself; by the time a hook runs, mitmproxy has forgotten the form.
- The Host of a request names where it goes: what else it says is replaced by the target's authority, and is a fault
  inside a CONNECT tunnel. Only the client's own words are examined; what hooks make of them later is the user's wish.
- An answer set by a hook is sent at once, whatever body is still to come (mitmproxy: NotImplementedError).
- Just before an upstream is contacted the gate is asked.
- What is asked of `jwtproxy.test` is answered there, with what an upstream would have got.
- An upstream that stays silent is given up with 504.
- A request that came by HTTP/2 without a length is given one, or chunks, where it goes on by HTTP/1.1 (mitmproxy: its
  body would be read as the next request).
- A connection that is upgraded to something other than a WebSocket is closed: nothing on it could be signed.
- What is for one hop only stays here, interim answers pass, and no body follows where there can be none.
"""

import functools
import time
from contextlib import suppress
from logging import WARNING
from typing import Any

from mitmproxy.connection import Server
from mitmproxy.flow import Error
from mitmproxy.http import Response
from mitmproxy.proxy import events
from mitmproxy.proxy.commands import CloseConnection, Command, Log, OpenConnection, RequestWakeup
from mitmproxy.proxy.layer import CommandGenerator, NextLayer
from mitmproxy.proxy.layers import http
from mitmproxy.utils import human

from ..conduct import forwarding, framing, host, interim
from ..conduct.destination import Destination, normalise
from ..conduct.fields import Fields
from ..conduct.heads import ReceivedResponse
from ..conduct.host import Fault
from ..conduct.interim import Interims
from ..conduct.malformed import MalformedError
from ..conduct.proxy_status import ErrorType
from ..conduct.retries import may_go_again
from ..observe.pages import text
from . import echo, failures, flows, forgetting, gate, http1, limits, pipes, response_timeout, retries, turns
from .ledger import note_carried, note_shown
from .pages_mode import is_for_pages
from .pressure import HIGH, Pressure
from .response_timeout import Alarm
from .retries import NoAnswer
from .websocket_messages import Messages
from .websocket_relay import Relay
from .whole_bodies import Held, refusal

_BODY = (http.ResponseData, http.ResponseTrailers)
_DATA = (http.RequestData, http.ResponseData)
_AT_ONCE = 4
"""Requests of an HTTP/2 connection that begin at one go of the event loop; of HTTP/1.1 they come one after another."""


class Stream(http.HttpStream):
    """One request and its answer."""

    _interims: Interims | None = None
    """Where the client waits for leave to send its body, or an interim answer has come."""
    _patience: RequestWakeup | None = None
    _ended = False
    """Whether the answer was over before the request."""
    _passed = False
    """Whether any of the body has been passed on as it came."""
    _reused = False
    """Whether the connection to the upstream had carried other requests."""
    _cut = False
    """Whether the answer said that no body is wanted."""
    _drained: int | None = None
    """Bytes of a body that was let in and thrown away, where that is done."""

    tunnel: Destination | None = None
    """Where a CONNECT asks to go, whatever hooks make of it."""

    _received = _sent = 0
    """Bytes of the bodies of the request and its answer."""
    _held = 0
    """Bytes of the request that wait until we go on."""
    _is_blocked = False
    """Whether the upstream takes no more of the request."""
    _is_full = False
    """Whether the client has been told to wait, for either reason."""
    _is_over = False
    """Whether nothing more will happen."""
    _shared_alarm: Alarm | None = None
    """All that is left of it when it is over: others may wait for what it has set."""

    def handle_event(self, event: events.Event) -> CommandGenerator[None]:
        """Take an event."""
        if self._shared_alarm:
            if self._shared_alarm.is_mine(event):
                yield from self._shared_alarm.ring()
            return
        if isinstance(event, Pressure):
            yield from self._take_pressure(event)
        else:
            if isinstance(event, _DATA):
                self._note_bytes(event)
            yield from super().handle_event(event)
            if self._held and not self._paused:
                self._held = 0
        if self._is_full != (self._is_blocked or self._held > HIGH):
            self._is_full = not self._is_full
            yield from self._press(Pressure(self.stream_id, self._is_full, of_request=True))
        if self._paused is None and (self._is_over or self._has_failed):
            yield from self._let_go()

    def _note_bytes(self, event: http.RequestData | http.ResponseData) -> None:
        if isinstance(event, http.RequestData):
            self._received += len(event.data)
            if self._paused:
                self._held += len(event.data)  # until what is awaited is there; its sender is to wait, too
        else:
            self._sent += len(event.data)
        if "flow" in vars(self):  # while a request waits for its turn, there is none
            note_carried(self.flow, self._received, self._sent)

    def _take_pressure(self, event: Pressure) -> CommandGenerator[None]:
        if event.of_request:
            self._is_blocked = event.full
        else:
            yield from self._press(event)

    @property
    def _has_failed(self) -> bool:
        return bool(self.server_state == self.state_errored == self.client_state)

    def _let_go(self) -> CommandGenerator[None]:
        """Free all at once, the flow with its bodies above all; the collector would come late."""
        alarm = self._alarm
        alarm.stop(self)
        yield http.DropStream(self.stream_id)  # which mitmproxy forgets of those that are killed
        vars(self).clear()  # of methods bound to it, which make it refer to itself
        self._shared_alarm = alarm

    def _press(self, event: Pressure) -> CommandGenerator[None]:
        """Tell where the message comes from, if it comes from a peer, by a version of HTTP that is ours."""
        sender = self.context.client if event.of_request else self.context.server
        layer = self._parent.connections.get(sender)
        ours = isinstance(layer, http.Http1Server | http.Http2Server) if event.of_request else layer is not None
        if ours and sender.transport_protocol == "tcp" and not isinstance(layer, http.HttpStream):
            yield http.SendHttp(event, sender)

    def check_invalid(self, request: bool) -> CommandGenerator[bool]:
        """Note requests in origin form before mitmproxy takes their destination from Host (RFC 9112 §3.2.1)."""
        client = self.context.client
        enclosed = self.mode is http.HTTPMode.transparent
        if request and (is_for_pages(client) or host.is_to_proxy(self.flow.request.host, enclosed=enclosed)):
            data = self.flow.request.data
            flows.mark_to_self(self.flow)
            data.host, data.port = client.sockname[:2]
            data.scheme = b"https" if client.tls else b"http"
        invalid = yield from super().check_invalid(request)
        if request and not invalid:
            if fault := self._examine():
                flows.mark_fault(self.flow, fault)
            if fault or self._is_strangers():
                gate.gate_of(self.context.options).refuse(self.flow)
        return invalid

    def _is_strangers(self) -> bool:
        """Whether it is for others, but its client may not use the proxy."""
        if flows.to_self(self.flow) or self.flow.is_replay:
            return False
        return gate.gate_of(self.context.options).access.denies_client(self.context.client.peername[0])

    def state_wait_for_request_headers(self, event: http.RequestHeaders) -> CommandGenerator[None]:
        """Begin the request. Who waits for leave to send a body that we gather gets it at once."""
        if not turns.may_begin(self.context.client, _AT_ONCE if event.request.is_http2 else 1):
            yield turns.Turn(self.context.client)
            if any(isinstance(later, http.RequestProtocolError) for later in self._paused_event_queue):
                self._paused_event_queue.clear()
                self._is_over = True
                return
        yield from super().state_wait_for_request_headers(event)
        if self._expects and self.client_state == self.state_consume_request_body:
            yield from self._continue()

    def state_consume_request_body(self, event: events.Event) -> CommandGenerator[None]:
        """Gather the body."""
        if isinstance(event, http.RequestData) and (exceeded := self._held_request.change(len(event.data))):
            flows.respond(self.flow, refusal(exceeded, of_request=True))
            yield from self._answer()
        else:
            yield from super().state_consume_request_body(event)

    def state_consume_response_body(self, event: events.Event) -> CommandGenerator[None]:
        """Gather the answer's body."""
        if isinstance(event, http.ResponseData) and (exceeded := self._held_answer.change(len(event.data))):
            self.server_state = self.state_errored
            flows.respond(self.flow, refusal(exceeded, of_request=False))
            yield from self._answer()
            yield self._abandon("the answer is too large to be held whole")
        else:
            yield from super().state_consume_response_body(event)

    @functools.cached_property
    def _held_request(self) -> Held:
        return Held(self.context.options)

    @functools.cached_property
    def _held_answer(self) -> Held:
        return Held(self.context.options)

    def start_request_stream(self) -> CommandGenerator[None]:
        """Stream the request upstream, or send the answer that a hook has set."""
        if self.flow.response:
            yield from self._answer()
            return
        yield from super().start_request_stream()
        if self._drained is not None:
            self.client_state = self.state_drain
            if self._expects:
                yield from self._continue()
        elif self._expects:
            self._handle_event = self._handle_or_ring
            self._patience = RequestWakeup(interim.PATIENCE)
            yield self._patience

    def make_server_connection(self) -> CommandGenerator[bool]:
        """Pass the gate, be counted, get a connection."""
        options, request = self.context.options, self.flow.request
        flows.encode_path(request)
        if request.trailers:
            request.trailers.fields = gate.gate_of(options).clean_trailers(request.trailers.fields)
        if page := gate.gate_of(options).refusal_for(self.flow):
            flows.respond(self.flow, page)
            yield from self._answer()
            return False
        if self._is_for_echo:
            yield from self._show()
            return False
        if not retries.is_second_try(self.flow):
            gate.count(options)
        forgetting.forget(self.context.layers)
        connected = yield from super().make_server_connection()
        if not connected:
            forgetting.pass_over(self._parent.context.server)
        else:
            self._reused = retries.use(self.context.server)
            if request.data.http_version != b"HTTP/1.1" and self.context.server.alpn != b"h2":
                self._speak_http1()
            if self._expects:
                self.flow.request.headers["expect"] = "100-continue"
            yield from self._expect_head()
        return connected

    def state_stream_request_body(self, event: events.Event) -> CommandGenerator[None]:
        """Forward a piece of the body; after the last, wait for the answer."""
        if isinstance(event, http.RequestTrailers):
            if self.context.server.alpn != b"h2":
                return  # mitmproxy has no way to send them by HTTP/1.1
            clean = gate.gate_of(self.context.options).clean_trailers
            event.trailers.fields = clean(event.trailers.fields)
        self._passed = self._passed or bool(isinstance(event, http.RequestData) and event.data)
        yield from super().state_stream_request_body(event)
        if isinstance(event, http.RequestEndOfMessage):
            yield from self._expect_head()

    def state_wait_for_response_headers(self, event: http.ResponseHeaders) -> CommandGenerator[None]:
        """The answer has begun: stop its clock. Or one before it: pass it on."""
        response = event.response
        if interim.is_interim(response.status_code):
            yield from self._pass_interim(response)
            return
        if response.status_code == 101 and self.flow.request.data.http_version != b"HTTP/1.1":
            version = "HTTP/2" if self.flow.request.is_http2 else "HTTP/1.0"
            yield from self._give_up(f"the server switches protocols, which {version} does not allow")
            return
        self._alarm.stop(self)
        answer_fields = gate.gate_of(self.context.options).answer_fields
        fields = answer_fields(self.flow, response.data.http_version, response.status_code, response.headers.fields)
        waited = self._interims is not None and self._interims.end() and self.client_state != self.state_done
        if waited and not self.flow.request.is_http2:  # whether a body or the next request follows, nobody could tell
            fields = (*fields, (b"Connection", b"close"))
            self._cut = True
        response.headers.fields = fields
        yield from super().state_wait_for_response_headers(event)

    def send_response(self, already_streamed: bool = False) -> CommandGenerator[None]:
        """Send the answer, or the rest of it; no body where there can be none (RFC 9110 §6.4.1)."""
        if not already_streamed:
            flows.complete(self.flow, here=self.server_state != self.state_consume_response_body)
        response = self.flow.response
        assert response
        if not already_streamed:
            note_carried(self.flow, self._received, len(response.raw_content or b""))
        bodiless = framing.has_no_body(self.flow.request.data.method, response.status_code)
        for command in super().send_response(already_streamed):
            if not (bodiless and _sends(command, _BODY)):
                yield command
        if self.server_state == self.state_done and self.client_state != self.state_done:
            # mitmproxy would end the answer when the request ends, of which the client may wait to send the rest.
            self._ended = True
            yield http.SendHttp(http.ResponseEndOfMessage(self.stream_id), self.context.client)
        if self._cut:
            yield self._abandon("answered before its body")
            yield from self._leave()

    def handle_connect(self) -> CommandGenerator[None]:
        """Open a tunnel, of which there may be several by one connection, to a server of its own."""
        if self.mode is http.HTTPMode.regular:
            self.context.server = self.flow.server_conn = Server(address=None)
        yield from super().handle_connect()

    def handle_connect_regular(self) -> CommandGenerator[None]:
        """Connect before the answer, where that is wanted, which says what failed in our words."""
        self._judge_tunnel()
        if not self.flow.response and self._is_for_echo:
            yield from self._land()
            return
        if not self.flow.response and self.context.options.connection_strategy == "eager":
            server = self.context.server
            if error := (yield OpenConnection(server)):
                if error == flows.CLIENT_GONE:
                    self.flow.error = Error(error)  # whatever is answered, nobody gets it
                place = human.format_address(server.address)
                flows.respond(self.flow, flows.no_connection(place, error))
        self.child_layer = NextLayer(self.context)
        yield from self.handle_connect_finish()

    def handle_connect_upstream(self) -> CommandGenerator[None]:
        """Answer at once where the next proxy must not be asked for such a tunnel."""
        self._judge_tunnel()
        if not self.flow.response and self._is_for_echo:
            yield from self._land()
            return
        yield from super().handle_connect_upstream()

    @property
    def _is_for_echo(self) -> bool:
        """Whether it asks for what we answer, by where it would go."""
        request = self.flow.request.data
        return echo.answers(self.context.options, self.context.client, request.host, request.port)

    def _land(self) -> CommandGenerator[None]:
        """Open a tunnel that leads nowhere but here."""
        self.child_layer = echo.Island(self.context)
        yield from self.handle_connect_finish()

    def _show(self) -> CommandGenerator[None]:
        """Answer with what would have been sent.

        By HTTP/2 its body is let in first, if it is not too long, as some clients (curl 7.88) never end an upload that
        was answered before its end, unless with an error.
        """
        request = self.flow.request
        if request.data.http_version == b"HTTP/1.0":
            self._speak_http1()
        complete, told = self.client_state == self.state_done, request.headers.get("content-length", "")
        if request.is_http2 and not complete:
            self._drained = 0
            return
        if complete:
            length: int | None = self._drained or len(request.raw_content or b"")
        else:
            length = int(told) if told.isdecimal() else None
        note_shown(self.flow)
        flows.respond(self.flow, echo.page(self.flow, gate.gate_of(self.context.options), length))
        yield from self._answer()

    def state_drain(self, event: events.Event) -> CommandGenerator[None]:
        """Let in a piece of a body that nobody wants; answer after the last."""
        assert self._drained is not None
        if isinstance(event, http.RequestData):
            self._drained += len(event.data)
        if isinstance(event, http.RequestEndOfMessage):
            self.client_state = self.state_done
            yield from self._show()
        elif self._drained > echo.MOST_DRAINED:
            flows.respond(self.flow, echo.TOO_LONG)
            yield from self._answer()

    def _judge_tunnel(self) -> None:
        """Refuse a tunnel to where none may go, now that hooks have had their say about where that is."""
        response = self.flow.response
        if not response or framing.is_tunnel(b"CONNECT", response.status_code):
            gate.gate_of(self.context.options).refuse(self.flow)

    def handle_connect_finish(self) -> CommandGenerator[None]:
        """Answer a CONNECT."""
        if response := self.flow.response:
            flows.complete(self.flow, here=True)
            if framing.is_tunnel(b"CONNECT", response.status_code):
                response.raw_content = b""
        yield from super().handle_connect_finish()

    def handle_protocol_error(
        self, event: http.RequestProtocolError | http.ResponseProtocolError
    ) -> CommandGenerator[None]:
        """A peer is gone: stop the clock, and say it in words that help."""
        self._alarm.stop(self)
        if isinstance(event, NoAnswer) and self._may_go_again(event):
            yield from self._go_again()
            return
        if _has_no_connection(event):
            via = self.flow.server_conn.via
            peer = f"{via[0]}://{via[1][0]}:{via[1][1]}" if via else self._origin
            if flows.is_refused(event.message):
                self.server_state = self.state_errored
                flows.respond(self.flow, flows.no_connection(peer, event.message))
                yield from self._answer()
                return
            event.message = flows.cannot_connect(peer, event.message)
        if isinstance(event, http.ResponseProtocolError):
            event.message = failures.reason_of(event, has_begun=self.server_state == self.state_stream_response_body)
        if self._ended and self.client_state == self.state_stream_request_body:
            yield self._abandon(event.message)  # mitmproxy would have the upstream wait for the rest of the request
        if isinstance(event, http.RequestProtocolError) and self._is_told:
            yield from self.state_stream_response_body(http.ResponseEndOfMessage(self.stream_id))
            yield self._abandon(event.message)
        yield from super().handle_protocol_error(event)
        self._is_over = True

    @property
    def _is_told(self) -> bool:
        """Whether the client has all of the answer, but for its end, which who knows the length does not wait for."""
        response = self.flow.response
        if self.server_state != self.state_stream_response_body or not response or callable(response.stream):
            return False
        with suppress(MalformedError):
            method, fields = self.flow.request.data.method, response.headers.fields
            return framing.response_length(method, response.status_code, b"HTTP/1.1", fields) == self._sent
        return False

    def _may_go_again(self, event: NoAnswer) -> bool:
        """Whether the request is sent once more."""
        waits = self.server_state == self.state_wait_for_response_headers and not self.flow.error
        heard = self._interims is not None and not self._interims.waits
        if not waits or heard or retries.is_second_try(self.flow) or self.flow.websocket:
            return False
        request, complete = self.flow.request, self.client_state == self.state_done
        return may_go_again(
            request.data.method,
            untouched=event.untouched,
            reused=self._reused,
            bodiless=complete and not (request.raw_content or request.trailers or self._passed),
            held=not self._passed and (complete or self.client_state == self.state_stream_request_body),
        )

    def _go_again(self) -> CommandGenerator[None]:
        """Send the request to another connection, with another token."""
        request = self.flow.request
        retries.begin_again(self.flow, self.context.options)
        yield Log(f"sending the request once more, as nothing of an answer came from {self._origin}")
        if not (yield from self.make_server_connection()):
            return
        complete = self.client_state == self.state_done
        content, trailers = request.raw_content, request.trailers
        ends = complete and not (content or trailers)
        parts: list[http.HttpEvent] = [http.RequestHeaders(self.stream_id, request, ends)]
        if complete and content:
            parts.append(http.RequestData(self.stream_id, content))
        if complete and trailers:
            parts.append(http.RequestTrailers(self.stream_id, trailers))
        if complete:
            parts.append(http.RequestEndOfMessage(self.stream_id))
        for part in parts:
            yield http.SendHttp(part, self.context.server)

    def flow_done(self) -> CommandGenerator[None]:
        """The answer is sent. What follows an upgrade to something unknown could not be signed: close."""
        response = self.flow.response
        if not flows.is_websocket(self.flow):
            self.flow.websocket = None
        unknown = response and response.status_code == 101 and not self.flow.websocket
        if unknown and gate.gate_of(self.context.options).signs:
            yield Log("closing the upgraded connection, as what is sent on it cannot be signed", WARNING)
            self.client_state = self.server_state = self.state_errored
            yield CloseConnection(self.context.client)
            return
        relayed = self.flow.websocket and flows.is_relayed(self.flow)
        for command in self._relay() if relayed else super().flow_done():
            if not (self._ended and _sends(command, http.ResponseEndOfMessage)):
                yield command
            self._is_over = self._is_over or isinstance(command, http.DropStream)

    def _relay(self) -> CommandGenerator[None]:
        """As mitmproxy begins a WebSocket, but with a layer of ours."""
        self.child_layer = Relay(self.context, self.flow)
        self._handle_event = self.passthrough
        yield from self.child_layer.handle_event(events.Start())
        yield http.SendHttp(http.ResponseEndOfMessage(self.stream_id), self.context.client)

    def passthrough(self, event: events.Event) -> CommandGenerator[None]:
        """Pass on what belongs to a tunnel or an upgraded connection, but for an alarm set before the upgrade."""
        if isinstance(event, events.Wakeup) and event.command is self._patience:
            return
        if self._alarm.is_mine(event):
            yield from self._alarm.ring()
            return
        assert self.child_layer
        assert self.flow.response
        upgraded = self.flow.response.status_code == 101
        for command in self.child_layer.handle_event(pipes.event_of(event, self.context)):
            yield pipes.command_of(command, self.context, self.stream_id, upgraded=upgraded)
        self._is_over = isinstance(self.child_layer, Messages) and self.child_layer.is_over

    def _handle_or_ring(self, event: events.Event) -> CommandGenerator[None]:
        """In place of `_handle_event` for the one request in many that has set the alarm."""
        if not isinstance(event, events.Wakeup):
            yield from super()._handle_event(event)
        elif event.command is not self._patience:
            yield from self._alarm.ring()
        elif self._expects and self.client_state == self.state_stream_request_body:
            yield from self._continue()

    def _continue(self) -> CommandGenerator[None]:
        """Have the client send its body (RFC 9110 §10.1.1)."""
        assert self._interims
        self._interims.end()
        yield self._interim(100, ())

    def _pass_interim(self, response: Response) -> CommandGenerator[None]:
        """Pass an interim answer on where the client understands it (RFC 9110 §15.2)."""
        self._interims = self._interims or Interims(self.flow.request.data.http_version)
        try:
            passes = self._interims.receive(response.status_code, response.data.http_version)
        except MalformedError as error:
            yield from self._give_up(str(error))
            return
        if passes:
            fields = forwarding.response_fields(response.headers.fields)
            yield self._interim(response.status_code, fields, response.data.reason)

    def _interim(self, status: int, fields: Fields, reason: bytes = b"") -> http.SendHttp:
        response = flows.response_of(ReceivedResponse(b"HTTP/1.1", status, reason, fields))
        return http.SendHttp(http.ResponseHeaders(self.stream_id, response), self.context.client)

    def _give_up(self, message: str) -> CommandGenerator[None]:
        yield self._abandon(message)
        code = http.ErrorCode.GENERIC_SERVER_ERROR
        yield from self.handle_protocol_error(http.ResponseProtocolError(self.stream_id, message, code))

    def _abandon(self, message: str) -> http.SendHttp:
        """Tell the upstream that nobody waits for it any more."""
        error = http.RequestProtocolError(self.stream_id, message, http.ErrorCode.CANCEL)
        return http.SendHttp(error, self.context.server)

    def _examine(self) -> Fault | None:
        """Have the request name the host it goes to and no other, before any hook runs; else what is wrong with it."""
        request = self.flow.request.data
        if not host.is_target(request.method, request.path):
            return Fault.TARGET
        if not flows.to_self(self.flow) and not self.flow.is_replay and (fault := self._examine_way()):
            return fault
        try:
            if self.flow.request.method == "CONNECT":  # as mitmproxy understands it
                self.tunnel = normalise("https", request.host, request.port)
            elif self.mode is http.HTTPMode.transparent:
                return self._agree_with_tunnel()
            elif not flows.to_self(self.flow) and not self.flow.is_replay:
                target = normalise(request.scheme.decode(), request.host, request.port)
                optional = self.flow.request.is_http2
                if request.http_version == b"HTTP/1.1" and not host.count_hosts(request.headers.fields):
                    return Fault.NO_HOST
                fields = host.with_host(request.headers.fields, target, request.authority, optional=optional)
                request.headers.fields = fields
        except ValueError:
            return Fault.HOST
        return None

    def _examine_way(self) -> Fault | None:
        """Take note of what the request says about its way."""
        request, headers = self.flow.request.data, self.flow.request.headers
        pseudonym = gate.gate_of(self.context.options).pseudonym
        way = forwarding.examine(request.http_version, request.method, headers.fields, pseudonym)
        headers.fields = way.fields
        if way.expects:
            self._interims = Interims(request.http_version, expects=True)
        return way.fault

    def _agree_with_tunnel(self) -> Fault | None:
        """Compare what the request names with the tunnel it came in by, if any."""
        tunnel, request, http2 = self._enclosing_tunnel, self.flow.request.data, self.flow.request.is_http2
        named = host.count_hosts(request.headers.fields)
        if not named and (request.http_version == b"HTTP/1.1" or (http2 and not request.authority)):
            return Fault.NO_HOST
        if not tunnel:
            return self._agree_with_itself(named)
        tunnel = normalise("https" if self.context.server.tls else "http", tunnel.host, tunnel.port)
        flows.mark_tunnel(self.flow, tunnel.origin)
        fields = host.within_tunnel(request.headers.fields, request.authority, tunnel)
        if fields is None:
            return Fault.TUNNEL
        request.headers.fields = fields
        if not http2:
            request.authority = b""  # a server gets the path alone (RFC 9112 §3.2.1)
        return None

    def _agree_with_itself(self, named: int) -> Fault | None:
        """Where no tunnel leads and all goes to one upstream: what is in Host may reach it."""
        request = self.flow.request.data
        if request.authority and not self.flow.request.is_http2:  # a whole URL (RFC 9112 §3.2.2)
            target = normalise(request.scheme.decode(), request.host, request.port)
            request.headers.fields = host.with_host(request.headers.fields, target, request.authority)
            request.authority = b""
        elif named > 1:
            return Fault.HOST
        return None

    @property
    def _enclosing_tunnel(self) -> Destination | None:
        """What the CONNECT asked for that this request came in by. One connection may carry several, over HTTP/2."""
        for layer in self.context.layers:
            if isinstance(layer, Stream):
                return layer.tunnel
        return None

    def _answer(self) -> CommandGenerator[None]:
        """Send flow.response now and forget what the client still has to say."""
        response = self.flow.response
        assert response
        response.timestamp_start = time.time()
        yield http.HttpResponseHeadersHook(self.flow)
        if (yield from self.check_killed(True)):
            return
        unfinished = self.client_state != self.state_done and not self.flow.request.is_http2
        if unfinished:
            response.headers["connection"] = "close"
        self.client_state = self.state_done
        yield from self.send_response()
        if unfinished:
            yield from self._leave()
        self.client_state = self.server_state = self.state_errored

    def _leave(self) -> CommandGenerator[None]:
        """Close a connection whose client has not said all."""
        self.client_state = self.server_state = self.state_errored
        yield http1.hang_up(self.context.client)

    def _speak_http1(self) -> None:
        """Put a request that came by another version into the words of HTTP/1.1."""
        request = self.flow.request
        authority = request.data.authority or normalise(request.scheme, request.host, request.port).authority.encode()
        request.headers.fields = forwarding.to_http1(request.headers.fields, authority)
        if request.data.http_version == b"HTTP/1.0":
            return
        if not flows.to_proxy(self.flow):
            request.authority = b""
        length = None
        if self.client_state == self.state_done:
            request.trailers, length = None, len(request.raw_content or b"")
        request.headers.fields = framing.frame_request(request.data.method, length, request.headers.fields)

    def _expect_head(self) -> CommandGenerator[None]:
        """Start the clock if the request is complete, unless it begins a WebSocket."""
        waiting = self.client_state == self.state_done and self.server_state == self.state_wait_for_response_headers
        upgrade = self.flow.request.headers.get("upgrade", "")
        if not waiting or upgrade.lower() == "websocket":
            return
        limit = response_timeout.limit(self.context.options)
        if limit and (yield from self._alarm.start(self, limit, self._time_out)):
            self._handle_event = self._handle_or_ring

    def _time_out(self, seconds: float) -> CommandGenerator[None]:
        self.server_state = self.state_errored  # an answer that comes after all is dropped
        limits.reached(response_timeout.NAME)
        message = f"no answer from {self._origin} within {seconds:g} s"
        flows.respond(self.flow, text(504, message, ErrorType.HTTP_RESPONSE_TIMEOUT))
        yield from self._answer()
        yield self._abandon(message)

    @property
    def _expects(self) -> bool:
        """Whether the client waits for leave to send its body."""
        return self._interims is not None and self._interims.waits

    @property
    def _alarm(self) -> Alarm:
        """The alarm of this connection, kept by the layer that all its streams share."""
        parent = self._parent
        if not hasattr(parent, "jwtproxy_alarm"):
            parent.jwtproxy_alarm = Alarm()
        alarm: Alarm = parent.jwtproxy_alarm
        return alarm

    @property
    def _parent(self) -> Any:
        """The HttpLayer of this connection."""
        return self.context.layers[self.context.layers.index(self) - 1]

    @property
    def _origin(self) -> str:
        request = self.flow.request
        return f"{request.scheme}://{request.host}:{request.port}"


def _has_no_connection(event: http.RequestProtocolError | http.ResponseProtocolError) -> bool:
    """Whether it tells that no connection could be made, and not that its client has left meanwhile."""
    return event.code is http.ErrorCode.CONNECT_FAILED and event.message != flows.CLIENT_GONE


def _sends(command: Command, kinds: Any) -> bool:
    return isinstance(command, http.SendHttp) and isinstance(command.event, kinds)
