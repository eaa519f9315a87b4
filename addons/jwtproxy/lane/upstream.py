"""Towards an upstream: one answer after another, each read by conduct's rules (RFC 9112)."""

import asyncio
from typing import Any, Protocol

import h11
from mitmproxy.connection import ConnectionState
from mitmproxy.proxy.server_hooks import ServerConnectionHookData

from ..conduct import framing, heads
from ..conduct.heads import ReceivedResponse
from ..conduct.interim import is_interim
from ..conduct.malformed import MalformedError
from ..conduct.proxy_status import ErrorType, Reason
from ..mitm import retries, turns
from ..mitm.limits import Limits, check_head
from . import boring, portions
from .body import Body
from .boring import Answer

CLOSED = Reason("server closed connection", ErrorType.CONNECTION_TERMINATED)
_CUT = Reason("server closed connection within its answer's head", ErrorType.HTTP_RESPONSE_INCOMPLETE)


class Asker(Protocol):
    """Who sent a request here, and hears of its answer."""

    @property
    def sizes(self) -> Limits:
        """What heads may be."""
        ...

    def interim_came(self, head: ReceivedResponse) -> None:
        """An answer before the final one."""
        ...

    def answer_began(self, head: ReceivedResponse) -> None:
        """The final answer's head."""
        ...

    def boring_answer_began(self, answer: Answer) -> None:
        """The same, of one that is boring."""
        ...

    def answer_went_on(self, data: bytes) -> None:
        """Some of its body."""
        ...

    def answer_ended(self) -> None:
        """All of it has come."""
        ...

    def answer_failed(self, reason: str) -> None:
        """There will be none, or no more of it."""
        ...

    def answer_never_began(self, *, reused: bool) -> None:
        """The connection has ended, and nothing came. `reused`: it had carried other requests."""
        ...

    def upstream_lost(self, upstream: "Upstream") -> None:
        """The connection is gone."""
        ...

    def upstream_is_full(self, full: bool) -> None:
        """Whether it takes no more for now."""
        ...

    def flush(self) -> None:
        """That was all for now."""
        ...

    def crash(self) -> None:
        """Something that must not happen has."""
        ...


class Upstream(asyncio.Protocol):
    """One connection, of one client. Its transport may be one that speaks TLS."""

    __slots__ = (
        *("data", "server", "_asker", "_transport", "_buffer", "_method", "_body"),
        *("_waits", "_ends", "_reused", "_silent", "_is_paused", "_is_dear"),
    )

    def __init__(self, data: ServerConnectionHookData, asker: Asker) -> None:
        self.data, self.server = data, data.server
        self._asker = asker
        self._transport: Any = None
        self._buffer = b""
        self._method = b""
        self._waits = False
        """Whether an answer is due, or under way."""
        self._body: Body | None = None
        self._ends = False
        """Whether the connection ends with the answer under way."""
        self._is_paused = self._is_dear = False
        """Whether nothing is read, as nobody takes it, or as it has to wait for its turn."""
        self._reused = self._silent = False
        """Whether it had carried other requests, and whether nothing has come since the last of them."""

    @property
    def is_free(self) -> bool:
        """Whether it can take a request."""
        return not (self._waits or self._ends or self._transport.is_closing())

    def ask(self, method: bytes, head: bytes) -> None:
        """Send a request's head; `write` sends its body."""
        self._method, self._waits, self._body = method, True, None
        self._reused, self._silent = retries.use(self.server), True
        self._transport.write(head)

    def write(self, data: bytes) -> None:
        """Send some of a request's body."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def pause(self) -> None:
        """Read no more for now."""
        self._is_paused = True
        self._read_or_not()

    def go_on(self) -> None:
        """Read again."""
        self._is_paused = False
        self._read_or_not()

    def release(self) -> None:
        """Request and answer are over: wait for the next, if there can be one."""
        if self._ends:
            self.close()
        elif self._is_paused:
            self.go_on()

    def close(self) -> None:
        """End the connection, as nobody waits for anything any more."""
        self._waits = False
        self.server.state = ConnectionState.CLOSED  # at once: mitmproxy would use it again
        self._transport.abort()

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self._transport = transport
        portions.begin(transport)

    def data_received(self, data: bytes) -> None:
        """Take what the upstream sends."""
        began = portions.clock(self._transport, len(data))
        try:
            self._take(data)
        except Exception:
            self._asker.crash()
        if began and (cost := portions.taken(self._transport, len(data), began)):
            self._is_dear = True
            self._read_or_not()
            turns.queue(self._take_turn, cost)

    def _take_turn(self) -> None:
        self._is_dear = False
        self._read_or_not()

    def _read_or_not(self) -> None:
        if self._is_paused or self._is_dear:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _take(self, data: bytes) -> None:
        if not self._waits:  # nobody asked for it
            self.close()
            return
        self._silent = False
        data = self._buffer + data if self._buffer else data
        self._buffer = b""
        if self._body is None:
            data = self._take_boring_head(data)
        if self._body is None:
            data = self._take_heads(data)
        if self._body is not None:
            self._take_body(data)
        self._asker.flush()

    def eof_received(self) -> bool:
        """It says no more."""
        self._hear_of_the_end()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._hear_of_the_end()
        try:
            self._asker.upstream_lost(self)
        except Exception:
            self._asker.crash()

    def pause_writing(self) -> None:
        """It takes no more for now."""
        self._asker.upstream_is_full(True)

    def resume_writing(self) -> None:
        """It does again."""
        try:
            self._asker.upstream_is_full(False)
        except Exception:
            self._asker.crash()

    def _take_boring_head(self, data: bytes) -> bytes:
        """Read a head as most are; what comes after it, or all where it is not."""
        end = boring.find_end(data)
        answer = boring.read_answer(data[:end], self._method) if end else None
        allowed = self._asker.sizes
        if not answer or end > allowed.max_head or len(answer.fields) > allowed.max_fields:
            return data
        self._body, self._ends = Body(answer.length), answer.closes
        self._asker.boring_answer_began(answer)
        return data[end:]

    def _take_heads(self, data: bytes) -> bytes:
        """Read heads up to the final one; what comes after that."""
        try:
            while True:
                size = len(data)
                lines, data = heads.split(data)
                taken = size - len(data) if lines else size
                check_head(self._asker.sizes, taken, len(lines) - 1, of_request=False)
                if not lines:
                    self._buffer = data
                    return b""
                head = heads.response(lines)
                head = head._replace(fields=framing.without_identity(head.fields))
                length = framing.response_length(self._method, head.status, head.version, head.fields)
                if not is_interim(head.status):
                    break
                self._asker.interim_came(head)
                if not self._waits:
                    return b""
        except MalformedError as error:
            self._fail(str(error))
            return b""
        self._body = Body(length)
        self._ends = length == framing.UNTIL_CLOSED or not framing.persists(head.version, head.fields)
        self._asker.answer_began(head)
        return data

    def _take_body(self, data: bytes) -> None:
        assert self._body
        data, rest = self._body.take(data)
        if data and self._waits:
            self._asker.answer_went_on(data)
        if self._body.fault:
            self._fail(f"HTTP/1 protocol error: {self._body.fault}")
        elif self._body.ended and self._waits:
            self._end(rest)

    def _end(self, rest: bytes) -> None:
        self._waits = False
        self._ends = self._ends or bool(rest)
        self._asker.answer_ended()

    def _hear_of_the_end(self) -> None:
        try:
            self._end_here()
        except Exception:
            self._asker.crash()

    def _end_here(self) -> None:
        self.server.state = ConnectionState.CLOSED
        if not self._waits:
            return
        if self._silent:
            self.close()
            self._asker.answer_never_began(reused=self._reused)
            return
        if self._body is None:
            self._fail(_CUT if self._buffer else CLOSED)
            return
        try:
            self._body.close()
        except h11.ProtocolError as error:
            self._fail(Reason(f"HTTP/1 protocol error: {error}", ErrorType.HTTP_RESPONSE_INCOMPLETE))
        else:
            self._end(b"")
            self._asker.flush()

    def _fail(self, reason: str) -> None:
        self.close()
        self._asker.answer_failed(reason)
