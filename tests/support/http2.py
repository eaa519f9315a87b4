"""A client's HTTP/2 connection, one event at a time."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any
from weakref import WeakSet

import h2.config
import h2.connection
import h2.events
from hyperframe.frame import Frame, GoAwayFrame
from mitmproxy import connection
from mitmproxy.addons import proxyserver
from mitmproxy.http import HTTPFlow
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import http
from mitmproxy.test import taddons, tflow

from jwtproxy.mitm import farewell, gate, ledger, limits, time_limits
from jwtproxy.mitm.gate import Judge
from jwtproxy.observe.counters import Counters
from jwtproxy.policy.faults import UNSIGNED

from .inside import open_gate


class _Peer(h2.connection.H2Connection):
    """h2's, which lets what is under way finish when it is told that the other side leaves (RFC 9113 §6.8)."""

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[h2.events.Event]]:
        event = h2.events.ConnectionTerminated()
        event.error_code, event.last_stream_id = frame.error_code, frame.last_stream_id
        return [], [event]


_OF_STREAMS = ("stream_buffers", "stream_trailers", "_owed")
"""Attributes of h2's connection, as mitmproxy and we extend it."""


class Http2:
    """An HTTP/2 client whose requests pass mitmproxy's layers to upstreams that answer when they are told to.

    They speak HTTP/1.1, or HTTP/2 if `both`.
    """

    def __init__(
        self,
        judge: Judge = UNSIGNED,
        *,
        stream: bool = True,
        timeout: float = 0.0,
        both: bool = False,
        watched: bool = False,
        stream_answers: bool = False,
        max_body: int = limits.DEFAULT.max_body,
        **times: float,
    ) -> None:
        """`watched`: somebody keeps a list of the connections that are to be told when we leave.

        `times`: limits, by name: head, body.
        """
        self._stream, self._stream_answers, self._both = stream, stream_answers, both
        self.far = h2.connection.H2Connection(_raw(client_side=False))
        self.asked: dict[int, list[tuple[bytes, bytes]]] = {}
        """By stream: what the upstream was asked by HTTP/2 on the last connection to it."""
        self.received = b""
        """The bodies that the upstream got by HTTP/2."""
        self.trailers: list[tuple[bytes, bytes]] = []
        """The last that the upstream got."""
        self._untaken = 0
        self.flows: list[weakref.ref[HTTPFlow]] = []
        """Those whose head has come, if they are still in memory."""
        self.heard: list[str] = []
        """The names of all hooks that were run, in order."""
        self.slow: list[commands.StartHook] | None = None
        """The hooks that have not ended, if hooks take their time."""
        self.opened: list[connection.Connection] = []
        """The connections to upstreams, in order."""
        self.told: list[int] = []
        """The last stream that is served, as the proxy has told its client when it is about to leave."""
        self.bodies: dict[int, bytes] = {}
        self.resets: dict[int, int] = {}
        self.interims: list[int] = []
        self.ended = False
        """Whether the proxy has ended the whole connection."""
        with taddons.context(proxyserver.Proxyserver()) as context:
            options = context.options
        options.add_option("jwt_response_timeout", str, f"{timeout:g}", "")
        values = {row.member: times.get(row.member.partition("_")[0], 0.0) for row in time_limits.OPTIONS}
        time_limits.hang(options, values)
        limits.hang(options, {**limits.DEFAULT._asdict(), "max_body": max_body})
        open_gate(options, judge)
        gate.count_with(options, self._count)
        self.counters = Counters()
        self._ledger = ledger.Ledger(self.counters)
        ledger.hang(options, self._ledger)
        self.statuses: list[int] = []
        """The statuses that are told of requests which are over; 0: of one that was sent no answer."""
        self._ledger.tell(lambda *over: self.statuses.append(ledger.row(*over)[9]), wanted=True)
        self.leaving = farewell.watch(options) if watched else WeakSet[Any]()
        self.counted = 0
        """How many requests have set out."""
        self.down = ""
        """Why upstreams cannot be connected to, if they cannot."""
        self.closed: list[connection.Connection] = []
        """The connections to upstreams that the proxy has closed."""
        client = tflow.tclient_conn()
        client.alpn = b"h2"
        self._client, self._layer = client, http.HttpLayer(Context(client, options), http.HTTPMode.regular)
        self._peer = _Peer(_raw(client_side=True))
        self.wakeups: list[commands.RequestWakeup] = []
        self.codes: dict[int, str] = {}
        self.upstream = b""
        self._peer.initiate_connection()
        self.handle(events.Start())
        self._send()

    def get(self, host: str) -> int:
        """The id of a new request."""
        return self.begin("GET", host, end=True)

    def begin(self, method: str, host: str, *fields: tuple[str, str], path: str = "/", end: bool = False) -> int:
        """The id of a new request, of which a body may follow."""
        pseudo = [(":method", method), (":scheme", "http"), (":authority", host), (":path", path)]
        return self.raw([*pseudo, *fields], end=end)

    def raw(self, headers: Sequence[tuple[str, str]] | Sequence[tuple[bytes, bytes]], *, end: bool = True) -> int:
        """The id of a new request with these headers."""
        stream = self._peer.get_next_available_stream_id()
        self._peer.send_headers(stream, headers, end_stream=end)
        self._send()
        return stream

    def answer(self, data: bytes, *, on: int = -1) -> None:
        """The upstream sends this, by HTTP/1.1, on the last of its connections or another."""
        self.handle(events.DataReceived(self.opened[on], data))

    def hang_up(self) -> None:
        """The upstream closes its connection."""
        self.opened[-1].state = connection.ConnectionState.CAN_WRITE
        self.handle(events.ConnectionClosed(self.opened[-1]))

    def say(self, frame: Frame) -> None:
        """The upstream sends this frame, whatever h2 thinks of it."""
        self.answer(frame.serialize())

    def make_room(self, stream: int) -> bool:
        """The upstream has taken what it got by HTTP/2; whether that was anything."""
        taken, self._untaken = self._untaken, 0
        if taken:
            self.far.increment_flow_control_window(taken)
            self.far.increment_flow_control_window(taken, stream)
            self.answer(self.far.data_to_send())
        return bool(taken)

    def answer_headers(self, stream: int, headers: Sequence[tuple[bytes, bytes]], *, end: bool = True) -> None:
        """The upstream sends a head by HTTP/2."""
        self.far.send_headers(stream, headers, end_stream=end)
        self.answer(self.far.data_to_send())

    def answer_body(self, stream: int, data: bytes) -> None:
        """The upstream sends some of a body by HTTP/2, but not its end."""
        self.far.send_data(stream, data)
        self.answer(self.far.data_to_send())

    def leave(self) -> None:
        """The client closes its connection."""
        self._client.state = connection.ConnectionState.CLOSED
        self.handle(events.ConnectionClosed(self._client))

    def body(self, stream: int, data: bytes, *trailers: tuple[str, str], end: bool = True) -> None:
        """All of the body, and perhaps trailers, unless it is not its `end`."""
        for start in range(0, len(data), 16_384):
            rest = start + 16_384 < len(data)
            self._peer.send_data(stream, data[start : start + 16_384], end_stream=end and not trailers and not rest)
        if trailers:
            self._peer.send_headers(stream, trailers, end_stream=True)
        self._send()

    def wake(self) -> None:
        """The oldest alarm rings."""
        self.handle(events.Wakeup(self.wakeups.pop(0)))

    def half(self, host: str, size: int | None = None) -> int:
        """The id of a request of whose head there are only so many bytes, or all but an end."""
        stream = self._peer.get_next_available_stream_id()
        pseudo = [(":method", "GET"), (":scheme", "http"), (":authority", host), (":path", "/")]
        self._peer.send_headers(stream, pseudo, end_stream=True)
        head = bytearray(self._peer.data_to_send())
        head[4] &= ~0x4  # END_HEADERS
        self.say_raw(bytes(head[:size]))
        return stream

    def say_raw(self, data: bytes) -> None:
        """The client sends these bytes, whatever h2 thinks of them."""
        self.handle(events.DataReceived(self._client, data))

    def waits_since(self) -> float | None:
        """Since when no request is in flight."""
        server: Any = self._layer.connections[self._client]
        since: float | None = server.waits_since
        return since

    def kept(self) -> list[str]:
        """What the proxy's connections keep of streams, by the names of attributes."""
        layers: list[Any] = [getattr(one, "child_layer", one) for one in self._layer.connections.values()]
        of_layers = (
            vars(part) for layer in layers for part in (layer, layer._lengths, getattr(layer, "_queue", layer))
        )
        of_h2 = ({name: vars(layer.h2_conn)[name] for name in _OF_STREAMS} for layer in layers)
        places = [*of_layers, *of_h2]
        return [name for place in places for name, value in place.items() if isinstance(value, dict | set) and value]

    @property
    def connections(self) -> int:
        """How many connections to upstreams the proxy keeps in mind."""
        return len(self._layer.connections) - 1

    @property
    def context(self) -> Context:
        """What all requests share."""
        return self._layer.context

    def end_hooks(self) -> None:
        """All hooks end, and those to come take no time."""
        hooks, self.slow = self.slow or [], None
        for hook in hooks:
            self._hear_hook(hook)
            self.handle(events.HookCompleted(hook))

    def room(self, stream: int) -> int:
        """How many bytes of its body the client may send."""
        return self._peer.local_flow_control_window(stream)

    def cancel(self, stream: int) -> None:
        """The client is no longer interested."""
        self._peer.reset_stream(stream, 8)
        self._send()

    def _send(self) -> None:
        self.handle(events.DataReceived(self._client, self._peer.data_to_send()))

    def _count(self) -> None:
        self.counted += 1

    def handle(self, event: events.Event) -> None:
        """Have something happen, and all that follows from it."""
        queue = [event]
        while queue:
            for command in self._layer.handle_event(queue.pop(0)):
                if isinstance(command, commands.StartHook) and self.slow is not None:
                    self.slow.append(command)
                elif isinstance(command, commands.StartHook):
                    self._hear_hook(command)
                    queue.append(events.HookCompleted(command))
                elif isinstance(command, commands.OpenConnection):
                    queue.append(self._open(command))
                elif isinstance(command, commands.RequestWakeup):
                    self.wakeups.append(command)
                elif isinstance(command, commands.SendData):
                    self._receive(command)
                else:
                    self._close(command)

    def _hear_hook(self, hook: commands.StartHook) -> None:
        self.heard.append(hook.name)
        if isinstance(hook, http.HttpRequestHeadersHook):
            self.flows.append(weakref.ref(hook.flow))
            hook.flow.request.stream = self._stream
        elif isinstance(hook, http.HttpResponseHeadersHook):
            assert hook.flow.response
            hook.flow.response.stream = self._stream_answers
        elif isinstance(hook, http.HttpErrorHook):
            self._ledger.error(hook.flow)

    def _open(self, command: commands.OpenConnection) -> events.Event:
        if self.down:
            command.connection.error = self.down
            return events.OpenConnectionCompleted(command, self.down)
        command.connection.state = connection.ConnectionState.OPEN
        command.connection.alpn = b"h2" if self._both else None
        self.opened.append(command.connection)
        self.far, self.asked = h2.connection.H2Connection(_raw(client_side=False)), {}
        return events.OpenConnectionCompleted(command, None)

    def _close(self, command: commands.Command) -> None:
        if isinstance(command, commands.CloseConnection) and command.connection is not self._client:
            command.connection.state = connection.ConnectionState.CLOSED
            self.closed.append(command.connection)

    def _receive(self, command: commands.SendData) -> None:
        if command.connection is not self._client:
            self.upstream += command.data
            if self._both and command.connection is self.opened[-1]:
                self._ask(command.data)
            return
        for event in self._peer.receive_data(command.data):
            if isinstance(event, h2.events.ConnectionTerminated):
                self.ended = True
                self.told.append(int(event.last_stream_id or 0))
            elif stream := getattr(event, "stream_id", 0):
                self._hear(stream, event)

    def _hear(self, stream: int, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ResponseReceived):
            self.codes[stream] = dict(event.headers or [])[b":status"].decode()
        elif isinstance(event, h2.events.InformationalResponseReceived):
            self.interims.append(int(dict(event.headers or [])[b":status"]))
        elif isinstance(event, h2.events.DataReceived):
            self.bodies[stream] = self.bodies.get(stream, b"") + (event.data or b"")
        elif isinstance(event, h2.events.StreamReset):
            self.resets[stream] = int(event.error_code or 0)

    def _ask(self, data: bytes) -> None:
        for event in self.far.receive_data(data):
            if isinstance(event, h2.events.DataReceived):
                self.received += event.data or b""
                self._untaken += event.flow_controlled_length or 0
            elif isinstance(event, h2.events.TrailersReceived):
                self.trailers = [(bytes(name), bytes(value)) for name, value in event.headers or []]
            elif isinstance(event, h2.events.RequestReceived):
                assert event.stream_id
                self.asked[event.stream_id] = [(bytes(name), bytes(value)) for name, value in event.headers or []]


def _raw(*, client_side: bool) -> h2.config.H2Configuration:
    """Headers as they are given, right or wrong."""
    return h2.config.H2Configuration(client_side, validate_outbound_headers=False, normalize_outbound_headers=False)
