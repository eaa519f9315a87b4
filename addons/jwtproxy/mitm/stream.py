"""A request and its answer inside mitmproxy: what its hooks cannot see or do, in one subclass of its HttpStream.

- A request in origin form is one to the proxy itself; by the time a hook runs, mitmproxy has forgotten the form.
- The Host of a request names where it goes: what else it says is replaced by the target's authority, and is a fault
  inside a CONNECT tunnel. Only the client's own words are examined; what hooks make of them later is the user's wish.
- An answer set by a hook is sent at once, whatever body is still to come (mitmproxy: NotImplementedError).
- Just before an upstream is contacted the gate is asked.
- An upstream that stays silent is given up with 504.
- A request that came by HTTP/2 without a length is given one, or chunks, where it goes on by HTTP/1.1 (mitmproxy: its
  body would be read as the next request).
- A connection that is upgraded to something other than a WebSocket is closed: nothing on it could be signed.
"""

import os
import re
import time
from logging import WARNING
from typing import Any

from mitmproxy.proxy import events
from mitmproxy.proxy.commands import CloseConnection, CloseTcpConnection, Log
from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.proxy.layers import http

from ..conduct import host
from ..conduct.destination import Destination, normalise
from ..conduct.host import Fault
from ..observe.pages import text
from . import flows, gate, http1, response_timeout
from .response_timeout import Alarm


class Stream(http.HttpStream):
    """One request and its answer."""

    _tunnel: Destination | None = None
    """Where a CONNECT asks to go, whatever hooks make of it."""

    def check_invalid(self, request: bool) -> CommandGenerator[bool]:
        """Note requests in origin form before mitmproxy takes their destination from Host (RFC 9112 §3.2.1)."""
        if request:
            # Some clients ask a proxy for ws://…, though a WebSocket begins with an HTTP request (RFC 6455 §4.1).
            scheme = self.flow.request.data.scheme
            self.flow.request.data.scheme = {b"ws": b"http", b"wss": b"https"}.get(scheme, scheme)
        if request and host.is_to_proxy(self.flow.request.host, enclosed=self.mode is http.HTTPMode.transparent):
            data, client = self.flow.request.data, self.context.client
            flows.mark_to_self(self.flow)
            data.host, data.port = client.sockname[:2]
            data.scheme = b"https" if client.tls else b"http"
        invalid = yield from super().check_invalid(request)
        if request and not invalid and (fault := self._examine()):
            flows.mark_fault(self.flow, fault)
            gate.gate_of(self.context.options).refuse_fault(self.flow)
        return invalid

    def start_request_stream(self) -> CommandGenerator[None]:
        """Stream the request upstream, or send the answer that a hook has set."""
        if self.flow.response:
            yield from self._answer()
        else:
            yield from super().start_request_stream()

    def make_server_connection(self) -> CommandGenerator[bool]:
        """Pass the gate, be counted, get a connection."""
        options, request = self.context.options, self.flow.request
        if request.trailers:
            request.trailers.fields = gate.gate_of(options).clean_trailers(request.trailers.fields)
        if page := gate.gate_of(options).refusal_for(self.flow):
            flows.respond(self.flow, page)
            yield from self._answer()
            return False
        gate.count(options)
        connected = yield from super().make_server_connection()
        if connected:
            if self.flow.request.is_http2 and self.context.server.alpn != b"h2":
                self._frame()
            yield from self._expect_head()
        return connected

    def state_stream_request_body(self, event: events.Event) -> CommandGenerator[None]:
        """Forward a piece of the body; after the last, wait for the answer."""
        if isinstance(event, http.RequestTrailers):
            if self.context.server.alpn != b"h2":
                return  # mitmproxy has no way to send them by HTTP/1.1
            clean = gate.gate_of(self.context.options).clean_trailers
            event.trailers.fields = clean(event.trailers.fields)
        yield from super().state_stream_request_body(event)
        if isinstance(event, http.RequestEndOfMessage):
            yield from self._expect_head()

    def state_wait_for_response_headers(self, event: events.Event) -> CommandGenerator[None]:
        """The answer has begun: stop its clock."""
        self._alarm.stop(self)
        yield from super().state_wait_for_response_headers(event)

    def handle_protocol_error(
        self, event: http.RequestProtocolError | http.ResponseProtocolError
    ) -> CommandGenerator[None]:
        """A peer is gone: stop the clock, and say it in words that help."""
        self._alarm.stop(self)
        # To mitmproxy the 100 that it sent itself (RFC 9110 §10.1.1) is an answer begun, after which no error is sent.
        client = self._parent.connections[self.context.client]
        if (begun := getattr(client, "response", None)) and http1.is_interim(begun.status_code):
            client.response = None
        if isinstance(event, http.ResponseProtocolError) and event.code is http.ErrorCode.CONNECT_FAILED:
            via = self.flow.server_conn.via
            peer = f"{via[0]}://{via[1][0]}:{via[1][1]}" if via else self._origin
            event.message = f"cannot connect to {peer}: {_reason(event.message)}"
        yield from super().handle_protocol_error(event)

    def flow_done(self) -> CommandGenerator[None]:
        """The answer is sent. What follows an upgrade to something unknown could not be signed: close."""
        response = self.flow.response
        unknown = response and response.status_code == 101 and not self.flow.websocket
        if unknown and gate.gate_of(self.context.options).signs:
            yield Log("closing the upgraded connection, as what is sent on it cannot be signed", WARNING)
            self.client_state = self.server_state = self.state_errored
            yield CloseConnection(self.context.client)
            return
        yield from super().flow_done()

    def passthrough(self, event: events.Event) -> CommandGenerator[None]:
        """Pass on what belongs to a tunnel or an upgraded connection, but for an alarm set before the upgrade."""
        yield from self._alarm.ring() if self._alarm.is_mine(event) else super().passthrough(event)

    def _handle_or_ring(self, event: events.Event) -> CommandGenerator[None]:
        """In place of `_handle_event` for the one request in many that has set the alarm."""
        if isinstance(event, events.Wakeup):
            yield from self._alarm.ring()
        else:
            yield from super()._handle_event(event)

    def _examine(self) -> Fault | None:
        """Have the request name the host it goes to and no other, before any hook runs; else what is wrong with it."""
        request = self.flow.request.data
        if not host.is_target(request.method, request.path):
            return Fault.TARGET
        try:
            if request.method == b"CONNECT":
                self._tunnel = normalise("https", request.host, request.port)
            elif self.mode is http.HTTPMode.transparent:
                return self._agree_with_tunnel()
            elif not flows.to_self(self.flow) and not self.flow.is_replay:
                target = normalise(request.scheme.decode(), request.host, request.port)
                optional = self.flow.request.is_http2
                fields = host.with_host(request.headers.fields, target, request.authority, optional=optional)
                request.headers.fields = fields
        except ValueError:
            return Fault.HOST
        return None

    def _agree_with_tunnel(self) -> Fault | None:
        """Compare what the request names with the tunnel it came in by, if any."""
        tunnel, request = self._enclosing_tunnel, self.flow.request.data
        if not tunnel:
            return None
        tunnel = normalise("https" if self.context.server.tls else "http", tunnel.host, tunnel.port)
        flows.mark_tunnel(self.flow, tunnel.origin)
        fields = host.within_tunnel(request.headers.fields, request.authority, tunnel)
        if fields is None:
            return Fault.TUNNEL
        request.headers.fields = fields
        return None

    @property
    def _enclosing_tunnel(self) -> Destination | None:
        """What the CONNECT asked for that this request came in by. One connection may carry several, over HTTP/2."""
        for layer in self.context.layers:
            if isinstance(layer, Stream):
                return layer._tunnel
        return None

    def _answer(self) -> CommandGenerator[None]:
        """Send flow.response now and forget what the client still has to say."""
        response = self.flow.response
        assert response
        response.timestamp_start = time.time()
        yield http.HttpResponseHeadersHook(self.flow)
        if (yield from self.check_killed(True)):
            return
        unfinished = self.client_state != self.state_done and self.context.client.alpn != b"h2"
        if unfinished:
            response.headers["connection"] = "close"
        self.client_state = self.state_done
        yield from self.send_response()
        if unfinished and not self.context.client.tls:
            # The rest of the body is read and dropped, lest a reset overtake the answer (RFC 9112 §9.6).
            yield CloseTcpConnection(self.context.client, half_close=True)
        self.client_state = self.server_state = self.state_errored

    def _frame(self) -> None:
        """Say how long the body is, in HTTP/1.1's way (RFC 9112 §6)."""
        request = self.flow.request
        if self.client_state == self.state_done:
            request.trailers = None
            if request.raw_content:
                request.headers["content-length"] = str(len(request.raw_content))
        elif "content-length" not in request.headers:
            request.headers["transfer-encoding"] = "chunked"

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
        message = f"no answer from {self._origin} within {seconds:g} s"
        flows.respond(self.flow, text(504, message))
        yield from self._answer()
        yield http.SendHttp(
            http.RequestProtocolError(self.stream_id, message, http.ErrorCode.CANCEL), self.context.server
        )

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


def _reason(message: str) -> str:
    """Why a connection failed, without the notation of Python's exceptions."""
    match = re.match(r"\[Errno (-?\d+)\] (.*)", message)
    if not match:
        return message[:1].lower() + message[1:] if message[1:2].islower() else message
    number = int(match[1])
    return os.strerror(number).lower() if number > 0 else match[2].lower()
