"""A client's HTTP/2 connection, one event at a time."""

from __future__ import annotations

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
    """An HTTP/2 client whose requests pass mitmproxy's layers to HTTP/1.1 upstreams that never answer."""

    def __init__(self, judge: Judge = UNSIGNED, *, stream: bool = True, timeout: float = 0.0) -> None:
        self._stream = stream
        with taddons.context(proxyserver.Proxyserver()) as context:
            options = context.options
        options.add_option("jwt_response_timeout", str, f"{timeout:g}", "")
        open_gate(options, judge)
        client = tflow.tclient_conn()
        client.alpn = b"h2"
        self._client, self._layer = client, http.HttpLayer(Context(client, options), http.HTTPMode.regular)
        self._peer = h2.connection.H2Connection(h2.config.H2Configuration(validate_outbound_headers=False))
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
        stream = self._peer.get_next_available_stream_id()
        pseudo = [(":method", method), (":scheme", "http"), (":authority", host), (":path", path)]
        self._peer.send_headers(stream, [*pseudo, *fields], end_stream=end)
        self._send()
        return stream

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
                    queue.append(events.OpenConnectionCompleted(command, None))
                elif isinstance(command, commands.RequestWakeup):
                    self.wakeups.append(command)
                elif isinstance(command, commands.SendData):
                    self._receive(command)

    def _receive(self, command: commands.SendData) -> None:
        if command.connection is not self._client:
            self.upstream += command.data
            return
        for event in self._peer.receive_data(command.data):
            if isinstance(event, h2.events.ResponseReceived):
                assert event.stream_id
                self.codes[event.stream_id] = dict(event.headers or [])[b":status"].decode()
