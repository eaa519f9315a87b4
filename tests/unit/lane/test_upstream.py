"""What an upstream sends is one answer to each request, or a failure that its asker hears of once."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy.connection import ConnectionState, Server
from mitmproxy.proxy.server_hooks import ServerConnectionHookData
from mitmproxy.test import tflow

from jwtproxy.conduct import fair
from jwtproxy.conduct.heads import ReceivedResponse
from jwtproxy.lane import portions
from jwtproxy.lane.boring import Answer
from jwtproxy.lane.upstream import Upstream
from jwtproxy.mitm.limits import DEFAULT

pytestmark = pytest.mark.usefixtures("pristine")

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HINT = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
HEARD_OK = ["began 200", "went on ok", "ended"]


class Transport:
    """What an upstream's protocol writes to."""

    def __init__(self) -> None:
        self.sent = b""
        self.closed = self.paused = False

    def write(self, data: bytes) -> None:
        self.sent += data

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True

    close = abort

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class Asker:
    """Who notes all that it hears, and can be made to fail."""

    sizes = DEFAULT

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.answers: list[ReceivedResponse] = []
        self.fails_at = ""

    def _hear(self, what: str) -> None:
        if self.fails_at and what.startswith(self.fails_at):
            raise RuntimeError(what)
        if what.startswith("went on ") and self.heard[-1].startswith("went on "):
            self.heard[-1] += what.removeprefix("went on ")
        else:
            self.heard.append(what)

    def interim_came(self, head: ReceivedResponse) -> None:
        self._hear(f"interim {head.status}")

    def answer_began(self, head: ReceivedResponse) -> None:
        self.answers.append(head)
        self._hear(f"began {head.status}")

    def boring_answer_began(self, answer: Answer) -> None:
        self._hear(f"began {answer.status}")

    def answer_went_on(self, data: bytes) -> None:
        self._hear(f"went on {data.decode('latin-1')}")

    def answer_ended(self) -> None:
        self._hear("ended")

    def answer_failed(self, reason: str) -> None:
        self._hear(f"failed: {reason}")

    def answer_never_began(self, *, reused: bool) -> None:
        self._hear(f"never began{', reused' if reused else ''}")

    def upstream_lost(self, upstream: Upstream) -> None:
        self._hear("lost")

    def upstream_is_full(self, full: bool) -> None:
        self._hear(f"full {full}")

    def flush(self) -> None:
        """It has nothing to send."""

    def crash(self) -> None:
        self.heard.append("crash")


class Peer:
    """An upstream's protocol, with what is at both of its ends."""

    def __init__(self) -> None:
        self.asker, self.transport = Asker(), Transport()
        server = Server(address=("a.example", 80))
        server.state = ConnectionState.OPEN
        self.upstream = Upstream(ServerConnectionHookData(client=tflow.tclient_conn(), server=server), self.asker)
        self.upstream.connection_made(self.transport)

    @property
    def heard(self) -> list[str]:
        return self.asker.heard

    def ask(self, method: bytes = b"GET") -> Peer:
        self.upstream.ask(method, method + b" / HTTP/1.1\r\n\r\n")
        return self

    def say(self, *pieces: bytes) -> Peer:
        for piece in pieces:
            self.upstream.data_received(piece)
        return self

    def end(self, *, eof: bool = True) -> Peer:
        """The connection ends, with an end of file or without."""
        if eof:
            assert not self.upstream.eof_received(), "asyncio closes it"
        self.transport.closed = True
        self.upstream.connection_lost(None)
        return self

    def is_free(self) -> bool:
        return self.upstream.is_free

    def is_paused(self) -> bool:
        return self.transport.paused

    @property
    def is_gone(self) -> bool:
        return self.transport.closed and self.upstream.server.state is ConnectionState.CLOSED


# --- answers


def test_a_head_and_a_body_are_sent_as_they_are() -> None:
    peer = Peer().ask(b"POST")
    peer.upstream.write(b"abc")
    assert peer.transport.sent == b"POST / HTTP/1.1\r\n\r\nabc"


def test_a_connection_takes_one_request_after_another() -> None:
    peer = Peer()
    assert peer.is_free()
    for _ in range(3):
        peer.ask()
        assert not peer.is_free()
        peer.say(OK)
        peer.upstream.release()
        assert peer.is_free()
    assert peer.heard == HEARD_OK * 3
    assert not peer.transport.closed


@given(
    st.sampled_from([b"", b"\r\n", b"\r\n\n"]),
    st.lists(st.sampled_from([HINT, b"HTTP/1.1 100 Continue\r\n\r\n"]), max_size=3),
    st.sampled_from(
        [OK, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;a\r\no\r\n1\r\nk\r\n0\r\nX: a\r\n\r\n"]
    ),
    st.sets(st.integers(1, 250)),
)
def test_an_answer_is_the_same_however_it_is_cut(
    empty: bytes, interims: list[bytes], answer: bytes, cuts: set[int]
) -> None:
    """Empty lines before it, and interim answers, may come with it (RFC 9112 §2.2, RFC 9110 §15.2)."""
    peer, data = Peer().ask(), empty + b"".join(interims) + answer
    places = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    for begin, end in pairwise(places):
        assert "ended" not in peer.heard
        peer.say(data[begin:end])
    said = [f"interim {interim[9:12].decode()}" for interim in interims]
    assert peer.heard == [*said, "began 200", "went on ok", "ended"]
    peer.upstream.release()
    assert peer.is_free()


def test_the_head_is_told_as_it_came() -> None:
    peer = (
        Peer().ask().say(b"HTTP/1.1 299 So what\r\nA:  b \r\na: c\r\nTransfer-Encoding: identity\r\nX: 1\r\n 2\r\n\r\n")
    )
    (head,) = peer.asker.answers
    assert (head.version, head.status, head.reason) == (b"HTTP/1.1", 299, b"So what")
    assert head.fields == ((b"A", b"b"), (b"a", b"c"), (b"X", b"1 2"))


@pytest.mark.parametrize(
    ("method", "status", "fields"),
    [
        (b"HEAD", 200, b"Content-Length: 5\r\n"),
        (b"HEAD", 200, b"Transfer-Encoding: chunked\r\n"),
        (b"HEAD", 200, b""),
        (b"GET", 204, b""),
        (b"GET", 204, b"Content-Length: 5\r\n"),
        (b"GET", 304, b"Content-Length: 5\r\n"),
        (b"GET", 304, b"Transfer-Encoding: chunked\r\n"),
        (b"GET", 200, b"Content-Length: 0\r\n"),
    ],
)
def test_where_there_is_no_body_the_answer_ends_with_its_head(method: bytes, status: int, fields: bytes) -> None:
    """RFC 9112 §6.3, rule 1."""
    peer = Peer()
    for _ in range(2):
        peer.ask(method).say(b"HTTP/1.1 %d \r\n%b\r\n" % (status, fields))
        peer.upstream.release()
        assert peer.is_free()
    assert peer.heard == [f"began {status}", "ended"] * 2


def test_101_is_final() -> None:
    peer = Peer().ask().say(b"HTTP/1.1 101 Switching Protocols\r\n\r\n\x81\x00")
    assert peer.heard == ["began 101", "ended"]
    peer.upstream.release()
    assert peer.is_gone


# --- how answers end the connection


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.0 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n",
    ],
)
@pytest.mark.parametrize("eof", [True, False])
def test_a_body_without_a_length_ends_with_its_connection(head: bytes, eof: bool) -> None:
    peer = Peer().ask().say(head + b"\r\nab", b"c")
    assert peer.heard == ["began 200", "went on abc"]
    peer.end(eof=eof)
    assert peer.heard == ["began 200", "went on abc", "ended", "lost"]
    assert not peer.is_free()


@pytest.mark.parametrize(
    "answer",
    [
        OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
        OK.replace(b"\r\n\r\n", b"\r\nConnection: x, Close\r\n\r\n"),
        OK.replace(b"HTTP/1.1", b"HTTP/1.0"),
        OK + b"!",
        OK + OK,
    ],
    ids=["close", "list", "1.0", "extra byte", "extra answer"],
)
def test_a_connection_is_used_no_more_where_it_would_not_be_safe(answer: bytes) -> None:
    peer = Peer().ask().say(answer)
    assert peer.heard == HEARD_OK
    assert not peer.is_free()
    peer.upstream.release()
    assert peer.is_gone
    assert peer.end(eof=False).heard == [*HEARD_OK, "lost"]


def test_an_old_server_may_keep_its_connection() -> None:
    answer = OK.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"\r\n\r\n", b"\r\nConnection: keep-alive\r\n\r\n")
    peer = Peer().ask().say(answer)
    peer.upstream.release()
    assert peer.is_free()


@pytest.mark.parametrize("before", [False, True])
def test_data_that_nobody_asked_for_ends_the_connection(before: bool) -> None:
    peer = Peer()
    if before:
        peer.ask().say(OK)
        peer.upstream.release()
    heard = list(peer.heard)
    peer.say(OK)
    assert peer.is_gone
    assert peer.heard == heard, "it is no answer"
    assert not peer.is_free()


def test_an_idle_connection_that_ends_is_no_failure() -> None:
    peer = Peer().end()
    assert peer.heard == ["lost"]
    assert peer.is_gone


# --- failures

NO_END = "HTTP/1 protocol error: peer closed connection without sending complete message body"


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        (b"", ["never began"]),
        (b"\r\n", ["failed: server closed connection"]),
        (b"HTTP", ["failed: server closed connection within its answer's head"]),
        (OK[:-5], ["failed: server closed connection within its answer's head"]),
        (HINT, ["interim 103", "failed: server closed connection"]),
        (HINT + b"HTTP", ["interim 103", "failed: server closed connection within its answer's head"]),
    ],
)
@pytest.mark.parametrize("eof", [True, False])
def test_an_end_before_the_answer_is_a_failure(said: bytes, heard: list[str], eof: bool) -> None:
    peer = Peer().ask()
    if said:
        peer.say(said)
    assert peer.end(eof=eof).heard == [*heard, "lost"]
    assert peer.is_gone


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (OK[:-1], f"{NO_END} (received 1 bytes, expected 2)"),
        (OK[:-2], f"{NO_END} (received 0 bytes, expected 2)"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", f"{NO_END} (incomplete chunked read)"),
    ],
)
@pytest.mark.parametrize("eof", [True, False])
def test_an_end_within_the_answer_is_a_failure(answer: bytes, reason: str, eof: bool) -> None:
    peer = Peer().ask().say(answer).end(eof=eof)
    assert peer.heard[-2:] == [f"failed: {reason}", "lost"]
    assert "ended" not in peer.heard


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"SSH-2.0-x\r\n\r\n", "the server's answer does not begin with a status line of HTTP/1.1"),
        (b"HTTP/2.0 200 OK\r\n\r\n", "the server's answer does not begin with a status line of HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nA b\r\n\r\n", "a header line does not begin with a name and a colon"),
        (b"HTTP/1.1 200 OK\r\nA: \0\r\n\r\n", "a header value contains a control character"),
        (OK.replace(b"2\r", b"2\r\nContent-Length: 3\r"), "Content-Length is given more than once"),
        (
            OK.replace(b"2\r", b"2\r\nTransfer-Encoding: chunked\r"),
            "Content-Length and Transfer-Encoding exclude each other",
        ),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * DEFAULT.max_head, "the head of the server's answer is too long"),
    ],
    ids=["other", "version", "field", "control", "lengths", "both", "long"],
)
def test_a_malformed_head_is_a_failure(answer: bytes, reason: str) -> None:
    peer = Peer().ask().say(answer)
    assert peer.heard == [f"failed: {reason}"]
    assert peer.is_gone
    assert peer.end(eof=False).heard == [f"failed: {reason}", "lost"], "once"


def test_a_malformed_interim_answer_is_a_failure() -> None:
    peer = Peer().ask().say(HINT + b"HTTP/1.1 103\r\nA b\r\n\r\n" + OK)
    assert peer.heard == ["interim 103", "failed: a header line does not begin with a name and a colon"]


def test_malformed_chunks_are_a_failure() -> None:
    peer = Peer().ask().say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n")
    assert peer.heard[0] == "began 200"
    assert peer.heard[1] == "failed: HTTP/1 protocol error: a chunk of the body is malformed"
    assert peer.is_gone


def test_who_closes_the_connection_hears_no_more() -> None:
    """What may be written to it is lost."""
    peer = Peer().ask()
    peer.upstream.close()
    assert peer.is_gone
    sent = peer.transport.sent
    peer.upstream.write(b"abc")
    assert peer.transport.sent == sent
    assert peer.say(OK).end(eof=False).heard == ["lost"]


@pytest.mark.parametrize("moment", ["interim", "began", "ended"])
def test_who_closes_the_connection_while_it_hears_hears_no_more(monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    peer = Peer().ask()

    def close(what: str) -> None:
        peer.heard.append(what)
        if what.startswith(moment):
            peer.upstream.close()

    monkeypatch.setattr(peer.asker, "_hear", close)
    peer.say(HINT + OK)
    assert peer.heard[-1].startswith(moment)
    assert peer.is_gone


@pytest.mark.parametrize("moment", ["interim", "began", "went on", "ended", "failed"])
@pytest.mark.parametrize("at_the_end", [False, True])
def test_an_exception_is_told_as_a_crash(moment: str, at_the_end: bool) -> None:
    """asyncio would log it, and the client wait for ever."""
    peer = Peer().ask()
    if not at_the_end:
        peer.asker.fails_at = moment
        peer.say(b"HTTP/9\r\n\r\n" if moment == "failed" else HINT + OK)
        assert peer.heard[-1] == "crash"
        return
    until_closed = b"HTTP/1.1 200 OK\r\n\r\nok"
    peer.say(b"" if moment == "failed" else HINT + until_closed)
    peer.asker.fails_at = moment
    peer.end()
    if moment in ("ended", "failed"):
        assert "crash" in peer.heard
    assert peer.heard[-1] == "lost"


# --- pauses


def test_a_side_that_is_behind_makes_the_other_wait() -> None:
    peer = Peer().ask()
    peer.upstream.pause()
    assert peer.is_paused()
    peer.upstream.go_on()
    assert not peer.is_paused()
    peer.upstream.pause_writing()
    peer.upstream.resume_writing()
    assert peer.heard == ["full True", "full False"]


def test_who_is_dear_waits_for_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portions, "clock", lambda *_: 1.0)
    monkeypatch.setattr(portions, "taken", lambda *_: fair.GO)

    async def run() -> None:
        peer = Peer().ask().say(OK)
        assert peer.heard == HEARD_OK
        assert peer.is_paused()
        peer.upstream.pause()
        for _ in range(2):
            await asyncio.sleep(0)
        assert peer.is_paused(), "its asker takes no more"
        peer.upstream.go_on()
        assert not peer.is_paused()

    asyncio.run(run())


def test_an_upstream_that_waits_for_the_next_request_is_read() -> None:
    """Else nobody would notice that it closes the connection."""
    peer = Peer().ask().say(OK)
    peer.upstream.pause()
    peer.upstream.release()
    assert not peer.is_paused()


def test_it_is_a_protocol_of_asyncios() -> None:
    peer: Any = Peer()
    assert isinstance(peer.upstream, asyncio.Protocol)
