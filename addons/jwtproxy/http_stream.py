"""The seam inside mitmproxy: what its hooks cannot see or do, in one subclass of its HttpStream.

- A request in origin form is one to the proxy itself; by the time a hook runs, mitmproxy has forgotten the form.
- The Host of a request names where it goes: what else it says is replaced by the target's authority, and refused inside
  a CONNECT tunnel. Only the client's own words are judged; what hooks make of them later is the user's wish.
- An answer set by a hook is sent at once, whatever body is still to come (mitmproxy: NotImplementedError).
- Just before an upstream is contacted the gate is asked, so that nothing passes a request by it: no other addon that
  halts the hooks, switches streaming on or rewrites headers, and no script that is gone.
- An upstream that stays silent is given up with 504.
- A request that came by HTTP/2 without a length is given one, or chunks, where it goes on by HTTP/1.1 (mitmproxy: its
  body would be read as the next request).
- A connection that is upgraded to something other than a WebSocket is closed: nothing on it could be signed.

Installed once, by whichever addon loads first; it stays when a script is reloaded or removed.
"""

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from logging import WARNING
from typing import Any

from mitmproxy.http import HTTPFlow, Response
from mitmproxy.proxy import events
from mitmproxy.proxy.commands import CloseConnection, CloseTcpConnection, Log, RequestWakeup
from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.proxy.layers import http

from . import http1
from .destination import Destination, agrees, normalise
from .headers import Fields
from .pages import Page, text

TO_SELF = "jwtproxy_to_self"
MISDIRECTED = "jwtproxy_misdirected"
INVALID = "jwtproxy_invalid"
NOTHING_PUBLISHED = '{"keys": []}\n', 0


@dataclass
class Seam:
    """What the addons plug in."""

    gate: Callable[[HTTPFlow], Page | None] | None = None
    """Asked before a request leaves; a page refuses it."""
    clean: Callable[[Fields], Fields] = lambda fields: fields
    """What may pass of a request's trailers."""
    forwarded: Callable[[], None] = lambda: None
    """Told that a request is on its way upstream."""
    response_timeout: float = 0.0
    """Seconds from the last byte of a request to the head of its answer; 0 = no limit."""
    published: Callable[[], tuple[str, int]] = lambda: NOTHING_PUBLISHED
    """The JWKS that the proxy's own page shows, and for how many seconds it may be kept."""
    host_mismatch: str = "refuse"
    """What becomes of a request that names another host than the CONNECT tunnel it is in: refuse or allow."""


seam = Seam()


def to_self(flow: HTTPFlow) -> bool:
    """Whether the request is one to the proxy itself."""
    return TO_SELF in flow.metadata


def mark_to_self(flow: HTTPFlow) -> None:
    """Note that the request is one to the proxy itself."""
    flow.metadata[TO_SELF] = True


def refusal(flow: HTTPFlow) -> Page | None:
    """How a request is refused whose target is none, or contradicts the tunnel it is in; None: it is good."""
    if INVALID in flow.metadata:
        return text(400, flow.metadata[INVALID])
    tunnel = flow.metadata.get(MISDIRECTED)
    return _misdirected(tunnel) if tunnel else None


def respond(flow: HTTPFlow, page: Page) -> None:
    """Answer the flow with this page at once: its body, if any, is not waited for."""
    flow.response = Response.make(page.code, page.body, page.headers)
    if flow.request.method == "HEAD":
        flow.response.data.content = b""  # its length stays in the header (RFC 9110 §9.3.2)
    if page.code == 304:
        del flow.response.headers["content-length"]  # it would be that of the page (RFC 9110 §8.6)
    flow.request.stream = True


@dataclass
class _Alarm:
    """One timer for all requests of a client connection: a sleeping task for each would outlive it by minutes."""

    waiting: dict["Stream", float] = field(default_factory=dict)
    running: bool = False


class Stream(http.HttpStream):
    """One request and its answer."""

    _wakeup: RequestWakeup | None = None
    _tunnel: Destination | None = None
    """Where a CONNECT asks to go, whatever hooks make of it."""

    def check_invalid(self, request: bool) -> CommandGenerator[bool]:
        """Note requests in origin form before mitmproxy takes their destination from Host (RFC 9112 §3.2.1)."""
        if request:
            # Some clients ask a proxy for ws://…, though a WebSocket begins with an HTTP request (RFC 6455 §4.1).
            scheme = self.flow.request.data.scheme
            self.flow.request.data.scheme = {b"ws": b"http", b"wss": b"https"}.get(scheme, scheme)
        if request and self.mode is not http.HTTPMode.transparent and not self.flow.request.host:
            data, client = self.flow.request.data, self.context.client
            mark_to_self(self.flow)
            data.host, data.port = client.sockname[:2]
            data.scheme = b"https" if client.tls else b"http"
        invalid = yield from super().check_invalid(request)
        if request and not invalid:
            self._check_host()
        return invalid

    def start_request_stream(self) -> CommandGenerator[None]:
        """Stream the request upstream, or send the answer that a hook has set."""
        if self.flow.response:
            yield from self._answer()
        else:
            yield from super().start_request_stream()

    def make_server_connection(self) -> CommandGenerator[bool]:
        """Pass the gate, be counted, get a connection."""
        if self.flow.request.trailers:
            self.flow.request.trailers.fields = seam.clean(self.flow.request.trailers.fields)
        if page := refusal(self.flow) or (seam.gate and seam.gate(self.flow)):
            respond(self.flow, page)
            yield from self._answer()
            return False
        seam.forwarded()
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
            event.trailers.fields = seam.clean(event.trailers.fields)
        yield from super().state_stream_request_body(event)
        if isinstance(event, http.RequestEndOfMessage):
            yield from self._expect_head()

    def state_wait_for_response_headers(self, event: events.Event) -> CommandGenerator[None]:
        """The answer has begun: stop its clock."""
        self._alarm.waiting.pop(self, None)
        yield from super().state_wait_for_response_headers(event)

    def handle_protocol_error(
        self, event: http.RequestProtocolError | http.ResponseProtocolError
    ) -> CommandGenerator[None]:
        """A peer is gone: stop the clock, and say it in words that help."""
        self._alarm.waiting.pop(self, None)
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
        if seam.gate and response and response.status_code == 101 and not self.flow.websocket:
            yield Log("the upgraded connection is closed, as what is sent there cannot be signed", WARNING)
            self.client_state = self.server_state = self.state_errored
            yield CloseConnection(self.context.client)
            return
        yield from super().flow_done()

    def passthrough(self, event: events.Event) -> CommandGenerator[None]:
        """Pass on what belongs to a tunnel or an upgraded connection, but for an alarm set before the upgrade."""
        ours = isinstance(event, events.Wakeup) and event.command is self._wakeup
        yield from self._ring() if ours else super().passthrough(event)

    def _handle_or_ring(self, event: events.Event) -> CommandGenerator[None]:
        """In place of `_handle_event` for the one request in many that has set the alarm."""
        if isinstance(event, events.Wakeup):
            yield from self._ring()
        else:
            yield from super()._handle_event(event)

    def _check_host(self) -> None:
        """Let the request name the host it goes to and no other, or refuse it; both before any hook runs."""
        request = self.flow.request.data
        if not _is_target(request.method, request.path):
            self._refuse("the request's target is neither a URL nor a path")
            return
        try:
            if request.method == b"CONNECT":
                self._tunnel = normalise("https", request.host, request.port)
            elif self.mode is http.HTTPMode.transparent:
                if tunnel := self._enclosing_tunnel:
                    scheme = "https" if self.context.server.tls else "http"
                    self._compare_host(normalise(scheme, tunnel.host, tunnel.port))
            elif not to_self(self.flow) and not self.flow.is_replay:
                self._set_host(normalise(request.scheme.decode(), request.host, request.port))
        except ValueError:
            self._refuse("there can be no such host or port")

    def _refuse(self, message: str) -> None:
        self.flow.metadata[INVALID] = message
        respond(self.flow, text(400, message))

    def _set_host(self, target: Destination) -> None:
        """Replace Host by the target's authority, unless it says the same (RFC 9112 §3.2.2, RFC 9113 §8.3.1)."""
        request = self.flow.request
        hosts = _hosts(request.headers.fields)
        if (len(hosts) == 1 and agrees(hosts, target)) or (request.is_http2 and not hosts):
            return
        named = request.data.authority
        authority = named if agrees((named,), target) else target.authority.encode()
        if hosts:
            request.headers.set_all("Host", [authority])
        else:
            request.headers.insert(0, "Host", authority)

    def _compare_host(self, tunnel: Destination) -> None:
        """Refuse what names another host than the tunnel's, in Host or in the target; several that agree become one."""
        headers, authority = self.flow.request.headers, self.flow.request.data.authority
        hosts = _hosts(headers.fields)
        if agrees([*hosts, authority] if authority else hosts, tunnel):
            if len(hosts) > 1:
                headers.set_all("Host", hosts[:1])
        elif seam.host_mismatch != "allow":
            self.flow.metadata[MISDIRECTED] = tunnel.origin
            respond(self.flow, _misdirected(tunnel.origin))

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
        if not (seam.response_timeout and waiting) or upgrade.lower() == "websocket":
            return
        alarm = self._alarm
        alarm.waiting[self] = time.monotonic() + seam.response_timeout
        if not alarm.running:
            alarm.running = True
            self._handle_event = self._handle_or_ring
            yield self._wake_after(seam.response_timeout)

    def _wake_after(self, seconds: float) -> RequestWakeup:
        self._wakeup = RequestWakeup(seconds)
        return self._wakeup

    def _ring(self) -> CommandGenerator[None]:
        """Time out every request of this connection whose time is up, then sleep until the next one's."""
        alarm = self._alarm
        while alarm.waiting:
            stream, deadline = next(iter(alarm.waiting.items()))  # the oldest: all wait equally long
            if (left := deadline - time.monotonic()) > 0:
                yield self._wake_after(left)
                return
            del alarm.waiting[stream]
            yield from stream._time_out()
        alarm.running = False

    def _time_out(self) -> CommandGenerator[None]:
        self.server_state = self.state_errored  # an answer that comes after all is dropped
        message = f"no answer from {self._origin} within {seam.response_timeout:g} s"
        respond(self.flow, text(504, message))
        yield from self._answer()
        yield http.SendHttp(
            http.RequestProtocolError(self.stream_id, message, http.ErrorCode.CANCEL), self.context.server
        )

    @property
    def _alarm(self) -> _Alarm:
        """The alarm of this connection, kept by the layer that all its streams share."""
        parent = self._parent
        if not hasattr(parent, "jwtproxy_alarm"):
            parent.jwtproxy_alarm = _Alarm()
        alarm: _Alarm = parent.jwtproxy_alarm
        return alarm

    @property
    def _parent(self) -> Any:
        """The HttpLayer of this connection."""
        return self.context.layers[self.context.layers.index(self) - 1]

    @property
    def _origin(self) -> str:
        request = self.flow.request
        return f"{request.scheme}://{request.host}:{request.port}"


def _is_target(method: bytes, path: bytes) -> bool:
    """Whether RFC 9112 §3.2 allows this (`*` for any method). What else HTTP/2 sends could pass for part of a host."""
    return method == b"CONNECT" or path == b"*" or (path.startswith(b"/") and b"#" not in path)


def _hosts(fields: Fields) -> list[bytes]:
    return [value for name, value in fields if len(name) == 4 and name.lower() == b"host"]


def _misdirected(tunnel: str) -> Page:
    """RFC 9110 §15.5.20. The name that the client gave stays out of it."""
    return text(
        421, f"this tunnel leads to {tunnel}, the request names another host; jwt_host_mismatch=allow permits it"
    )


def _reason(message: str) -> str:
    """Why a connection failed, without the notation of Python's exceptions."""
    match = re.match(r"\[Errno (-?\d+)\] (.*)", message)
    if not match:
        return message[:1].lower() + message[1:] if message[1:2].islower() else message
    number = int(match[1])
    return os.strerror(number).lower() if number > 0 else match[2].lower()


_RELIED_ON = (
    "_handle_event check_invalid check_killed flow_done handle_protocol_error make_server_connection passthrough "
    "send_response start_request_stream state_done state_errored state_stream_request_body "
    "state_wait_for_response_headers"
).split()


def install() -> None:
    """Bind our classes in mitmproxy's place. Raises RuntimeError where this mitmproxy lacks what they rely on."""
    if issubclass(http.HttpStream, Stream):
        return
    missing = [name for name in _RELIED_ON if not hasattr(http.HttpStream, name)] + http1.missing()
    if missing:
        raise RuntimeError(f"this mitmproxy is not one jwtproxy was made for: it lacks {', '.join(missing)}")
    http.HttpStream = Stream  # type: ignore[misc]
    http1.install()
