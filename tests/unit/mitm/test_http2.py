"""HTTP/2: a fault of one head ends its stream, with an answer, and not the connection."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import h2.errors
import hpack
import pytest
from hyperframe.frame import RstStreamFrame, SettingsFrame
from mitmproxy.addons import proxyserver
from mitmproxy.http import Headers
from mitmproxy.proxy import events
from mitmproxy.proxy.commands import SendData
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import http
from mitmproxy.proxy.layers.http._http2 import StreamState
from mitmproxy.test import taddons, tflow

from jwtproxy.mitm import patches, pressure
from jwtproxy.mitm.http2 import Client, Server
from jwtproxy.mitm.limits import DEFAULT
from jwtproxy.observe.counters import Outcome
from tests.support import frames
from tests.support.http2 import Http2
from tests.support.inside import Numbers, open_gate


@pytest.fixture(autouse=True)
def patched() -> Iterator[None]:
    patches.install()
    yield
    patches.undo()


METHOD, SCHEME, PATH = (b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/")
AUTHORITY = (b":authority", b"a.example")
LARGE = [(b"x-%d" % number, b"a" * 1000) for number in range(DEFAULT.max_head // 1000)]
SOUND = [METHOD, SCHEME, AUTHORITY, PATH]


def _with(*changes: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """A sound head with other values for some fields, and further ones."""
    changed = dict(changes)
    kept = [(name, changed.pop(name, value)) for name, value in SOUND]
    return [*kept, *changed.items()]


@pytest.mark.parametrize(
    ("headers", "status", "text"),
    [
        (_with((b":method", b"GET /admin")), "400", b"the request's method is not a token"),
        (_with((b":method", b"DELETE\x85")), "400", b"the request's method is not a token"),
        (_with((b":method", b"")), "400", b"the request's method is not a token"),
        (_with((b":path", b"/admin HTTP/1.1")), "400", b"the request's target contains a space"),
        (_with((b":path", b"/\x7f")), "400", b"the request's target contains a space or a control character"),
        (_with((b":path", b"/\xff")), "400", b"the request's target is not UTF-8"),
        (_with((b":path", b"")), "400", b"the request has no path"),
        (_with((b":path", b"*")), "400", b"only OPTIONS may have the target *"),
        (_with((b":path", b"/a#b")), "400", b"the request's target is neither a URL nor a path"),
        (_with((b":scheme", b"ftp")), "400", b"the request's scheme is neither http nor https"),
        (_with((b":authority", b"me@a.example")), "400", b"the request's host or port is not valid"),
        ([METHOD, SCHEME, AUTHORITY], "400", b"the request has no path"),
        (
            [METHOD, METHOD, SCHEME, AUTHORITY, PATH],
            "400",
            b"a pseudo-header field is unknown, or given",
        ),
        (_with((b":protocol", b"x")), "400", b"a pseudo-header field is unknown"),
        ([METHOD, SCHEME, (b"a", b"b"), PATH], "400", b"a header name is not a token"),
        (_with((b"X", b"y")), "400", b"a header name is not a token in lower case"),
        (_with((b"x\n", b"y")), "400", b"a header name is not a token in lower case"),
        (_with((b"x", b"a\nb")), "400", b"a header value contains a control character"),
        (_with((b"x", b" a")), "400", b"a header value contains a control character, or white space around it"),
        (_with((b"connection", b"close")), "400", b"a header is about the connection"),
        (_with((b"te", b"gzip")), "400", b"a header is about the connection"),
        (_with((b"content_length", b"1")), "400", b"Content-Length and Transfer-Encoding are written with a hyphen"),
        (_with((b"content-length", b"1")), "400", b"Content-Length announces a body, and none follows"),
        (_with((b":method", b"CONNECT")), "400", b"CONNECT has neither a scheme nor a path"),
        (
            _with(*((b"x-%d" % number, b"a" * 1000) for number in range(DEFAULT.max_head // 1000))),
            "431",
            b"the request's head",
        ),
    ],
)
def test_a_head_that_is_malformed_is_answered_on_its_stream(
    headers: list[tuple[bytes, bytes]], status: str, text: bytes
) -> None:
    client = Http2()
    stream = client.raw(headers)
    assert client.codes == {stream: status}
    assert client.bodies[stream].startswith(b"jwtproxy: " + text)
    assert client.upstream == b""
    assert not client.ended
    client.get("a.example")
    assert client.upstream.startswith(b"GET / HTTP/1.1\r\n")


def test_its_body_is_not_waited_for() -> None:
    client = Http2()
    stream = client.raw(_with((b":method", b"a b")), end=False)
    assert client.codes == {stream: "400"}
    assert client.resets == {stream: h2.errors.ErrorCodes.NO_ERROR}
    client.get("a.example")
    assert client.upstream


def test_non_ascii_bytes_of_a_path_are_escaped() -> None:
    client = Http2()
    client.raw(_with((b":path", "/?x=€".encode())))
    assert client.upstream.startswith(b"GET /?x=%E2%82%AC HTTP/1.1\r\n")


def test_trailers_that_are_malformed_end_their_stream() -> None:
    client = Http2(stream=False)
    stream = client.begin("POST", "a.example")
    client.body(stream, b"ok", (":status", "200"))
    assert client.codes == {stream: "400"}
    assert client.upstream == b""
    assert not client.ended


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_an_empty_body_has_a_length_where_servers_expect_one(method: str) -> None:
    client = Http2()
    client.begin(method, "a.example", end=True)
    assert b"content-length: 0\r\n" in client.upstream


def test_a_get_has_none() -> None:
    client = Http2()
    client.get("a.example")
    assert b"content-length" not in client.upstream


# --- answers


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ([(b":status", b"20")], b"the server's answer has no status code of three digits"),
        ([(b"x", b"y")], b"the server's answer has no status code of three digits"),
        ([(b":status", b"200"), (b"x", b"a\nb")], b"a header value contains a control character"),
        ([(b":status", b"200"), (b"X", b"a")], b"a header name is not a token in lower case"),
        ([(b":status", b"200"), (b"transfer-encoding", b"chunked")], b"a header is about the connection"),
    ],
)
def test_an_answer_that_is_malformed_is_502_on_its_stream(headers: list[tuple[bytes, bytes]], text: bytes) -> None:
    client = Http2(both=True)
    first, second = client.get("a.example"), client.get("a.example")
    client.answer_headers(first, headers)
    assert client.codes == {first: "502"}
    assert client.bodies[first].startswith(b"jwtproxy: " + text)
    client.answer_headers(second, [(b":status", b"204")])
    assert client.codes[second] == "204"


def test_what_follows_a_malformed_head_in_one_piece_does_not_end_the_connection() -> None:
    client = Http2(both=True)
    first, second = client.get("a.example"), client.get("a.example")
    client.far.send_headers(1, [(b":status", b"103"), (b"X", b"y")])
    client.answer_headers(1, [(b":status", b"200")])
    assert client.codes == {first: "502"}
    client.answer_headers(3, [(b":status", b"204")])
    assert client.codes == {first: "502", second: "204"}


def test_interim_answers_pass_where_both_sides_speak_http_2() -> None:
    client = Http2(both=True)
    stream = client.get("a.example")
    client.answer_headers(stream, [(b":status", b"103"), (b"link", b"</a>")], end=False)
    client.answer_headers(stream, [(b":status", b"200")])
    assert (client.interims, client.codes) == ([103], {stream: "200"})


def test_interim_answers_of_http_1_1_do_not() -> None:
    client = Http2()
    stream = client.get("a.example")
    client.answer(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert (client.interims, client.codes) == ([], {stream: "200"})


@pytest.mark.parametrize("both", [False, True])
def test_head_gets_no_body(both: bool) -> None:
    client = Http2(both=both)
    stream = client.raw(_with((b":method", b"HEAD"), (b":authority", b"a.example")))
    if both:
        client.answer_headers(stream, [(b":status", b"200"), (b"content-length", b"5")])
    else:
        client.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
    assert (client.codes, client.bodies) == ({stream: "200"}, {})


def test_nor_does_head_get_the_body_of_a_refusal() -> None:
    client = Http2()
    stream = client.raw(_with((b":method", b"HEAD"), (b":path", b"x")))
    assert (client.codes, client.bodies) == ({stream: "400"}, {})


def test_trailers_pass_from_http_2_to_http_2() -> None:
    client = Http2(both=True)
    stream = client.begin("POST", "a.example", ("te", "trailers"))
    client.body(stream, b"ok", ("grpc-status", "0"))
    fields = client.asked[stream]
    assert (b"te", b"trailers") in fields
    assert not any(name == b"connection" for name, _ in fields)


def test_te_stays_here_on_the_way_to_http_1_1() -> None:
    client = Http2()
    client.raw(_with((b"te", b"trailers")))
    assert b"te:" not in client.upstream.lower()


def test_a_switch_of_protocols_is_502_and_the_connection_goes_on() -> None:
    client = Http2()
    stream = client.get("a.example")
    client.answer(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")
    assert client.codes == {stream: "502"}
    assert not client.ended


@pytest.mark.parametrize("method", [b"connect", b"Connect"])
def test_only_connect_in_capitals_is_one(method: bytes) -> None:
    client = Http2()
    stream = client.raw([(b":method", method), (b":authority", b"a.example:80")])
    assert client.codes == {stream: "400"}
    assert client.upstream == b""


PING = b"\x00\x00\x08\x06\x00\x00\x00\x00\x0000000000"


@pytest.mark.parametrize("hour", [0, -3600, 3600])
@pytest.mark.parametrize(("quiet", "pings", "next_look"), [(50, 0, 8), (57.5, 1, 58), (100, 1, 58)])
def test_a_quiet_upstream_is_pinged_whatever_becomes_of_the_time_of_day(
    monkeypatch: pytest.MonkeyPatch, hour: float, quiet: float, pings: int, next_look: float
) -> None:
    now, clock = [1000.0], itertools.count(1.7e9, hour)
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("time.time", lambda: float(next(clock)))
    client = Http2(both=True)
    client.get("a.example")
    assert [wakeup.delay for wakeup in client.wakeups] == [58]
    now[0] += quiet
    client.wake()
    assert client.upstream.count(PING) == pings
    assert [wakeup.delay for wakeup in client.wakeups] == [next_look]


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2.0"])
def test_a_token_is_in_no_servers_table_whatever_version_its_request_came_by(version: str) -> None:
    """A client that prefers HTTP/1.1 and offers HTTP/2 as well gets the one, and its upstream the other."""
    with taddons.context(proxyserver.Proxyserver()) as context:
        options = context.options
    open_gate(options, Numbers())
    client = Client(Context(tflow.tclient_conn(), options))
    request = tflow.treq(http_version=version.encode(), headers=Headers(((b"x-number", b"1"),)))
    commands = [*client.handle_event(events.Start()), *client.handle_event(http.RequestHeaders(1, request, True))]
    (sent,) = [command.data for command in commands if isinstance(command, SendData)][-1:]
    (field,) = [one for one in hpack.Decoder().decode(sent[9:], raw=True) if one[0] == b"x-number"]
    assert not field.indexable


# --- what takes too long


def test_a_late_body_ends_its_stream_and_a_later_one_does_not() -> None:
    client = Http2(body=0.1, head=9)
    late = client.begin("POST", "a.example")
    (watch,) = client.wakeups
    assert watch.delay == 0.1
    time.sleep(0.07)
    living = client.begin("POST", "a.example")
    time.sleep(0.05)
    client.wake()
    assert client.codes == {late: "408"}
    assert client.bodies == {late: b"jwtproxy: nothing more of the request's body came within 0.1 s\n"}
    assert client.resets == {late: h2.errors.ErrorCodes.NO_ERROR}
    (again,) = client.wakeups
    assert 0 < again.delay < 0.1
    client.body(living, b"ok")
    client.wake()
    assert client.wakeups == [], "nothing is owed any more"
    assert client.codes == {late: "408"}
    assert not client.ended


def test_a_body_whose_answer_has_begun_is_never_late() -> None:
    client = Http2(body=0.01, stream_answers=True)
    stream = client.begin("POST", "a.example")
    client.answer(b"HTTP/1.1 200 OK\r\n\r\n")
    time.sleep(0.03)
    client.wake()
    assert (client.codes, client.resets, client.wakeups) == ({stream: "200"}, {}, [])


def test_an_interim_answer_has_it_wait_anew() -> None:
    client = Http2(body=0.1)
    client.begin("POST", "a.example", ("expect", "100-continue"))
    time.sleep(0.08)
    client.answer(b"HTTP/1.1 100 Continue\r\n\r\n")
    time.sleep(0.04)
    (watch,) = (wakeup for wakeup in client.wakeups if wakeup.delay == 0.1)
    client.handle(events.Wakeup(watch))
    assert (client.interims, client.codes) == ([100], {})


@pytest.mark.parametrize(("size", "answered"), [(3, False), (8, False), (9, True), (20, True), (None, True)])
def test_a_late_head_ends_the_connection(size: int | None, answered: bool) -> None:
    client = Http2(head=0.02, body=9)
    stream = client.half("a.example", size)
    time.sleep(0.03)
    client.wake()
    assert client.codes == ({stream: "408"} if answered else {})
    assert client.ended
    assert client.wakeups == []


@pytest.mark.parametrize("kind", [frames.DATA, frames.SETTINGS, frames.PING])
def test_other_frames_are_no_heads(kind: int) -> None:
    client = Http2(head=0.01)
    client.say_raw(frames.frame(kind, bytes(8))[:10])
    assert client.wakeups == []


def test_a_late_head_waits_for_the_answers_of_others() -> None:
    client = Http2(head=0.02)
    stream = client.get("a.example")
    late = client.half("b.example")
    time.sleep(0.03)
    client.wake()
    assert not client.ended
    client.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    client.wake()
    assert client.bodies[stream] == b"ok"
    assert client.codes[late] == "408"
    assert client.ended


def test_without_limits_nobody_is_woken() -> None:
    client = Http2()
    client.begin("POST", "a.example")
    client.say_raw(frames.frame(frames.HEADERS, b"x", 3))
    assert client.wakeups == []


def test_it_is_known_since_when_no_request_is_in_flight() -> None:
    client = Http2()
    before = client.waits_since()
    assert before is not None
    client.get("a.example")
    assert client.waits_since() is None
    client.answer(b"HTTP/1.1 204 No Content\r\n\r\n")
    after = client.waits_since()
    assert after is not None
    assert before < after <= time.monotonic()


# --- what waits, and what is over


def _one_at_a_time() -> Http2:
    """An upstream that takes one request at a time, and has one."""
    client = Http2(both=True)
    client.get("a.example")
    client.say(SettingsFrame(0, settings={SettingsFrame.MAX_CONCURRENT_STREAMS: 1}))
    return client


def _fill(client: Http2, stream: int) -> int:
    """Send as much of a body as may be sent; how much that was."""
    sent = 0
    while client.room(stream) >= 16_384 and sent < 1 << 20:
        client.body(stream, bytes(16_384), end=False)
        sent += 16_384
    return sent


def test_an_upload_waits_alone_for_an_upstream_of_http_1_1_to_read() -> None:
    client = Http2()
    upload, other = client.begin("POST", "a.example"), client.begin("POST", "b.example")
    window = client.room(upload)
    sent = _fill(client, upload)
    assert pressure.HIGH < sent <= window + pressure.HIGH
    (drain,) = client.wakeups
    assert isinstance(drain, pressure.Drain)
    assert drain.connection is client.opened[0]
    assert list(map(pressure.is_paced, client.opened)) == [True, True]
    client.wake()
    assert _fill(client, upload) > pressure.HIGH, "it has read"
    client.body(other, bytes(16_384))
    client.answer(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert client.codes == {other: "204"}


def test_a_server_that_has_read_when_its_request_is_over_is_of_no_interest() -> None:
    client = Http2()
    upload = client.begin("POST", "a.example")
    _fill(client, upload)
    client.cancel(upload)
    client.wake()
    again = client.begin("POST", "a.example")
    client.wakeups.clear()
    client.body(again, bytes(pressure.HIGH + 1))
    client.answer(b"HTTP/1.1 204 No Content\r\n\r\n")
    client.wake()
    assert client.codes == {again: "204"}


def test_a_body_that_waits_for_the_server_to_take_another_request_is_not_read_without_end() -> None:
    client = _one_at_a_time()
    upload = client.begin("POST", "a.example")
    left = client.room(upload)
    sent = 0
    while client.room(upload) >= 16_384 and sent < 4 * left:
        client.body(upload, bytes(16_384), end=False)
        sent += 16_384
    assert sent <= left + pressure.HIGH + 16_384
    assert list(client.asked) == [1]
    client.answer_headers(1, [(b":status", b"204")])
    while client.make_room(3):
        pass
    client.body(upload, b"end")
    client.make_room(3)
    assert len(client.received) == sent + 3
    client.answer_headers(3, [(b":status", b"204")])
    assert client.codes[upload] == "204"
    assert client.kept() == []


def test_a_request_that_is_given_up_while_it_waits_never_sets_out() -> None:
    client = _one_at_a_time()
    for _ in range(3):
        stream = client.begin("POST", "a.example")
        client.body(stream, b"abc", end=False)
        client.cancel(stream)
    last = client.begin("POST", "a.example")
    client.body(last, b"z", ("x-sum", "1"))
    client.answer_headers(1, [(b":status", b"204")])
    assert list(client.asked) == [1, 3]
    assert (client.received, client.trailers) == (b"z", [(b"x-sum", b"1")])
    client.answer_headers(3, [(b":status", b"204")])
    assert client.codes[last] == "204"
    assert client.kept() == []


def _answered(client: Http2, theirs: int) -> None:
    client.body(client.begin("POST", "a.example"), b"abc")
    client.answer_headers(theirs, [(b":status", b"200")], end=False)
    client.answer_headers(theirs, [(b"x-sum", b"1")])


def _answered_early(client: Http2, theirs: int) -> None:
    stream = client.begin("POST", "a.example")
    client.answer_headers(theirs, [(b":status", b"403")])
    client.body(stream, b"abc")


def _answered_early_and_cancelled(client: Http2, theirs: int) -> None:
    stream = client.begin("POST", "a.example")
    client.answer_headers(theirs, [(b":status", b"403")])
    client.cancel(stream)


def _cancelled(client: Http2, theirs: int) -> None:
    client.cancel(client.begin("POST", "a.example", ("content-length", "9")))


def _cancelled_amid_an_answer(client: Http2, theirs: int) -> None:
    stream = client.get("a.example")
    client.answer_headers(theirs, [(b":status", b"200"), (b"content-length", b"9")], end=False)
    client.cancel(stream)


def _cancelled_with_trailers_that_wait(client: Http2, theirs: int) -> None:
    stream = client.begin("POST", "a.example")
    client.body(stream, bytes(200_000), ("x-sum", "1"))
    client.cancel(stream)


def _reset(client: Http2, theirs: int) -> None:
    client.body(client.begin("POST", "a.example"), bytes(200_000), ("x-sum", "1"))
    client.say(RstStreamFrame(theirs, error_code=2))


def _malformed(client: Http2, theirs: int) -> None:
    client.get("a.example")
    client.answer_headers(theirs, [(b":status", b"20")], end=False)


def _refused(client: Http2, theirs: int) -> None:
    client.raw(_with((b":method", b"a b")), end=False)


@pytest.mark.parametrize(
    "story",
    [
        _answered,
        _answered_early,
        _answered_early_and_cancelled,
        _cancelled,
        _cancelled_amid_an_answer,
        _cancelled_with_trailers_that_wait,
        _reset,
        _malformed,
        _refused,
    ],
)
def test_nothing_is_kept_of_streams_that_are_over(story: Callable[[Http2, int], None]) -> None:
    client = Http2(both=True)
    for number in range(3):
        story(client, 2 * number + 1)
    assert client.kept() == []
    assert not client.ended


def test_what_comes_of_a_stream_that_is_over_opens_no_other() -> None:
    client = Http2(both=True)
    stream = client.begin("POST", "a.example")
    client.say(RstStreamFrame(1, error_code=2))
    client.say_raw(frames.data(stream, b"abc"))
    assert list(client.asked) == [1]
    assert client.kept() == []


@pytest.mark.parametrize("kind", [Server, Client])
def test_who_ends_with_another_as_the_connection_does_is_told_once(kind: type[Server | Client]) -> None:
    """As a tunnel by HTTP/2 does: each has a connection of its own within, and what is under way there."""
    with taddons.context(proxyserver.Proxyserver()) as tctx:
        peer: Any = kind(Context(tflow.tclient_conn(), tctx.options))
    peer.streams = dict.fromkeys((1, 3), StreamState.EXPECTING_HEADERS)
    told = []
    for command in peer.close_connection("it is over"):
        if isinstance(command, http.ReceiveHttp):
            told.append(command.event.stream_id)
            peer.streams.pop(3, None)
    assert told == [1]
    assert not peer.streams


@pytest.mark.parametrize("changes", [[(b"x", b"a\nb")], []], ids=["a fault in the head", "no answer"])
def test_a_failure_is_told_in_the_form_that_is_preferred(changes: list[tuple[bytes, bytes]]) -> None:
    client = Http2()
    stream = client.raw(_with((b"accept", b"application/json"), *changes))
    if not changes:
        client.answer(b"nonsense\r\n\r\n")
    assert client.codes == {stream: "400" if changes else "502"}
    assert client.statuses == ([] if changes else [502])
    assert client.bodies[stream].startswith(b'{"type": "about:blank", ')


# --- what is counted


def _counted(client: Http2) -> tuple[list[Outcome], dict[str, int], dict[str, int]]:
    """How requests have ended without an answer, and by which failures and refusals."""
    kinds = [
        {kind: count for kind, count in one.items() if count}
        for one in (client.counters.errors, client.counters.refusals)
    ]
    return [one.outcome for one in client.counters.passed], kinds[0], kinds[1]


UNREAD: Any = ([], {}, {"http_request_error": 1})
REFUSED: Any = ([Outcome.REFUSED], {}, {"http_request_error": 1})
DATA_OF_NONE = bytes(9)
"""A frame that ends the connection: it is of no stream."""


def test_a_head_that_cannot_be_read_is_a_refusal() -> None:
    client = Http2()
    client.raw(_with((b":method", b"GET /admin")))
    assert _counted(client) == UNREAD


def test_a_head_that_comes_too_late_is_a_refusal() -> None:
    client = Http2(head=0.02)
    client.half("a.example")
    time.sleep(0.03)
    client.wake()
    assert _counted(client) == UNREAD


@pytest.mark.parametrize("answered", [False, True])
def test_a_client_that_leaves_has_aborted_its_requests(answered: bool) -> None:
    client = Http2(stream_answers=True)
    stream = client.begin("POST", "a.example", ("content-length", "100"))
    client.body(stream, b"abcde", end=False)
    if answered:
        client.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok")
    client.leave()
    assert _counted(client) == ([Outcome.ABORTED], {}, {})
    assert client.statuses == [200 if answered else 0]
    assert client.counters.upstream.counts[-1] == answered


@pytest.mark.parametrize("whole", [False, True], ids=["a stream", "the connection"])
def test_a_client_at_fault_within_its_body_is_refused(whole: bool) -> None:
    client = Http2()
    stream = client.begin("POST", "a.example", ("content-length", "3"))
    if whole:
        client.say_raw(DATA_OF_NONE)
        assert client.ended
    else:
        client.body(stream, b"abcde")
        assert client.codes == {stream: "400"}
    assert _counted(client) == REFUSED
    assert client.statuses == [0 if whole else 400]


def test_a_body_that_comes_too_late_is_refused() -> None:
    client = Http2(body=0.02)
    stream = client.begin("POST", "a.example")
    time.sleep(0.03)
    client.wake()
    assert client.codes == {stream: "408"}
    assert _counted(client) == REFUSED
    assert client.statuses == [408]


@pytest.mark.parametrize(
    ("ends", "kind"),
    [
        (Http2.hang_up, "http_response_incomplete"),
        (lambda client: client.say(RstStreamFrame(1, error_code=2)), "http_response_incomplete"),
        (lambda client: client.answer(DATA_OF_NONE), "http_protocol_error"),
    ],
    ids=["gone", "reset", "nonsense"],
)
def test_an_answer_that_is_cut_is_a_failure_of_its_kind(ends: Callable[[Http2], None], kind: str) -> None:
    client = Http2(both=True, stream_answers=True)
    client.get("a.example")
    client.answer_headers(1, [(b":status", b"200")], end=False)
    ends(client)
    assert _counted(client) == ([Outcome.FAILED], {kind: 1}, {})
    assert client.statuses == [200]
    assert client.counters.upstream.counts[-1] == 1
