"""A client's HTTP/2 connection, one event at a time."""

from __future__ import annotations

from collections.abc import Sequence

import h2.config
import h2.connection
import h2.events
from mitmproxy import connection
from mitmproxy.addons import proxyserver
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import http
from mitmproxy.test import taddons, tflow

from jwtproxy.mitm.gate import Judge
from jwtproxy.policy.faults import UNSIGNED

from .inside import open_gate


class Http2:
    """An HTTP/2 client whose requests pass mitmproxy's layers to upstreams that answer when they are told to.

    They speak HTTP/1.1, or HTTP/2 if `both`.
    """

    def __init__(
        self, judge: Judge = UNSIGNED, *, stream: bool = True, timeout: float = 0.0, both: bool = False
    ) -> None:
        self._stream, self._both = stream, both
        self._server: connection.Connection | None = None
        self.far = h2.connection.H2Connection(_raw(client_side=False))
        self.asked: dict[int, list[tuple[bytes, bytes]]] = {}
        """By stream: what the upstream was asked by HTTP/2."""
        self.bodies: dict[int, bytes] = {}
        self.resets: dict[int, int] = {}
        self.interims: list[int] = []
        self.ended = False
        """Whether the proxy has ended the whole connection."""
        with taddons.context(proxyserver.Proxyserver()) as context:
            options = context.options
        options.add_option("jwt_response_timeout", str, f"{timeout:g}", "")
        open_gate(options, judge)
        client = tflow.tclient_conn()
        client.alpn = b"h2"
        self._client, self._layer = client, http.HttpLayer(Context(client, options), http.HTTPMode.regular)
        self._peer = h2.connection.H2Connection(_raw(client_side=True))
        self.wakeups: list[commands.RequestWakeup] = []
        self.codes: dict[int, str] = {}
        self.upstream = b""
        self._peer.initiate_connection()
        self._handle(events.Start())
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

    def answer(self, data: bytes) -> None:
        """The upstream sends this, by HTTP/1.1."""
        assert self._server
        self._handle(events.DataReceived(self._server, data))

    def answer_headers(self, stream: int, headers: Sequence[tuple[bytes, bytes]], *, end: bool = True) -> None:
        """The upstream sends a head by HTTP/2."""
        self.far.send_headers(stream, headers, end_stream=end)
        self.answer(self.far.data_to_send())

    def body(self, stream: int, data: bytes, *trailers: tuple[str, str]) -> None:
        """All of the body, and perhaps trailers."""
        self._peer.send_data(stream, data, end_stream=not trailers)
        if trailers:
            self._peer.send_headers(stream, trailers, end_stream=True)
        self._send()

    def wake(self) -> None:
        """The oldest alarm rings."""
        self._handle(events.Wakeup(self.wakeups.pop(0)))

    def cancel(self, stream: int) -> None:
        """The client is no longer interested."""
        self._peer.reset_stream(stream, 8)
        self._send()

    def _send(self) -> None:
        self._handle(events.DataReceived(self._client, self._peer.data_to_send()))

    def _handle(self, event: events.Event) -> None:
        queue = [event]
        while queue:
            for command in self._layer.handle_event(queue.pop(0)):
                if isinstance(command, http.HttpRequestHeadersHook):
                    command.flow.request.stream = self._stream
                if isinstance(command, commands.StartHook):
                    queue.append(events.HookCompleted(command))
                elif isinstance(command, commands.OpenConnection):
                    command.connection.state = connection.ConnectionState.OPEN
                    command.connection.alpn = b"h2" if self._both else None
                    self._server = command.connection
                    queue.append(events.OpenConnectionCompleted(command, None))
                elif isinstance(command, commands.RequestWakeup):
                    self.wakeups.append(command)
                elif isinstance(command, commands.SendData):
                    self._receive(command)

    def _receive(self, command: commands.SendData) -> None:
        if command.connection is not self._client:
            self.upstream += command.data
            if self._both:
                self._ask(command.data)
            return
        for event in self._peer.receive_data(command.data):
            if isinstance(event, h2.events.ConnectionTerminated):
                self.ended = True
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
            if isinstance(event, h2.events.RequestReceived):
                assert event.stream_id
                self.asked[event.stream_id] = [(bytes(name), bytes(value)) for name, value in event.headers or []]


def _raw(*, client_side: bool) -> h2.config.H2Configuration:
    """Headers as they are given, right or wrong."""
    return h2.config.H2Configuration(client_side, validate_outbound_headers=False, normalize_outbound_headers=False)
