"""A request whose connection ended before anything of an answer is sent once more, if it may be."""

from __future__ import annotations

import pytest
from hyperframe.frame import GoAwayFrame, RstStreamFrame, SettingsFrame
from mitmproxy.connection import Server
from mitmproxy.proxy.layers import http
from mitmproxy.test import tflow

from jwtproxy.mitm import patches, retries
from tests.support.http2 import Http2
from tests.support.inside import Numbers

pytestmark = pytest.mark.usefixtures("pristine")

OK = [(b":status", b"200")]
REFUSED, CANCEL, INTERNAL = 7, 8, 2


@pytest.fixture(autouse=True)
def installed(pristine: None) -> None:
    patches.install()


def _goaway(last: int, code: int = 0) -> GoAwayFrame:
    return GoAwayFrame(0, last_stream_id=last, error_code=code)


def _reset(stream: int, code: int) -> RstStreamFrame:
    return RstStreamFrame(stream, error_code=code)


# --- what flows and connections tell


def test_a_flow_is_sent_a_second_time_once() -> None:
    flow = tflow.tflow()
    assert not retries.is_second_try(flow)
    retries.begin_again(flow, flow)  # no gate hangs there
    assert retries.is_second_try(flow)
    assert not retries.is_second_try(flow.copy())


def test_a_connection_tells_whether_it_was_used_and_whether_it_is_left() -> None:
    connection = Server(address=("a.example", 80))
    assert [retries.use(connection), retries.use(connection)] == [False, True]
    asks = http.GetHttpConnection(("a.example", 80), False, None)
    assert asks.connection_spec_matches(connection)
    retries.leave(connection)
    assert not asks.connection_spec_matches(connection)


# --- HTTP/2


@pytest.mark.parametrize("code", [0, INTERNAL])
def test_a_goaway_lets_what_it_names_finish_and_the_rest_goes_elsewhere(code: int) -> None:
    """RFC 9113 §6.8."""
    client = Http2(both=True)
    first, second = client.get("a.example"), client.get("a.example")
    far = client.far
    assert list(client.asked) == [1, 3]
    client.say(_goaway(1, code))
    assert len(client.opened) == 2
    assert list(client.asked) == [1], "on the other connection"
    client.answer_headers(1, OK)
    assert client.codes == {second: "200"}
    far.send_headers(1, OK, end_stream=True)
    client.answer(far.data_to_send(), on=0)
    assert client.codes == {first: "200", second: "200"}
    client.get("a.example")
    assert len(client.opened) == 2, "the new one is used"


def test_a_connection_that_is_left_is_closed_after_its_last_answer() -> None:
    client = Http2(both=True)
    client.get("a.example")
    client.say(_goaway(1))
    assert client.closed == []
    client.answer_headers(1, OK)
    assert client.closed == client.opened
    client.get("a.example")
    assert len(client.opened) == 2


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_was_refused_is_sent_once_more_whatever_its_method(method: str) -> None:
    """RFC 9113 §8.7."""
    client = Http2(both=True, stream=False)
    stream = client.begin(method, "a.example")
    client.body(stream, b"abc")
    client.say(_reset(1, REFUSED))
    assert (len(client.opened), list(client.asked)) == (2, [1])
    client.say(_reset(1, REFUSED))
    assert len(client.opened) == 2, "once"
    assert client.codes == {stream: "502"}
    assert client.bodies[stream] == b"jwtproxy: the server reset the stream (REFUSED_STREAM)\n"


def test_what_has_left_in_part_is_not_sent_again() -> None:
    client = Http2(both=True)
    stream = client.begin("POST", "a.example")
    client.body(stream, b"abc")
    client.say(_goaway(0))
    assert len(client.opened) == 1
    assert client.codes == {stream: "502"}
    assert client.bodies[stream] == b"jwtproxy: the server closed the connection (NO_ERROR)\n"


def test_a_body_of_which_nothing_has_left_goes_elsewhere() -> None:
    client = Http2(both=True)
    stream = client.begin("POST", "a.example")
    client.say(_goaway(0))
    assert len(client.opened) == 2
    client.body(stream, b"abc")
    client.answer_headers(1, OK)
    assert client.codes == {stream: "200"}


@pytest.mark.parametrize("code", [CANCEL, INTERNAL, 99])
def test_any_other_reset_is_final(code: int) -> None:
    client = Http2(both=True)
    client.get("a.example")
    client.say(_reset(1, code))
    assert len(client.opened) == 1


@pytest.mark.parametrize("earlier", [True, False])
def test_an_end_without_a_word_is_final_unless_the_connection_was_used_before(earlier: bool) -> None:
    client = Http2(both=True)
    if earlier:
        client.get("a.example")
        client.answer_headers(1, OK)
    stream = client.get("a.example")
    client.hang_up()
    assert len(client.opened) == 1 + earlier
    assert client.codes.get(stream) == (None if earlier else "502")
    if earlier:
        client.answer_headers(1, OK)
        assert client.codes[stream] == "200"


def test_what_waits_for_its_turn_goes_elsewhere() -> None:
    """mitmproxy has ten streams at most until it knows how many the server takes; it would leave the others hanging."""
    client = Http2(both=True)
    streams = [client.get("a.example") for _ in range(12)]
    assert len(client.asked) == 10
    client.say(_goaway(19))
    assert (len(client.opened), len(client.asked)) == (2, 2)
    for stream in client.asked:
        client.answer_headers(stream, OK)
    assert client.codes == dict.fromkeys(streams[10:], "200")


def test_what_was_refused_for_want_of_a_place_waits_for_one() -> None:
    """Until a server's SETTINGS are there, mitmproxy has more streams than it may take."""
    client = Http2(both=True)
    streams = [client.get("a.example") for _ in range(3)]
    client.say(SettingsFrame(0, settings={SettingsFrame.MAX_CONCURRENT_STREAMS: 1}))
    client.say(_reset(3, REFUSED))
    client.say(_reset(5, REFUSED))
    assert (len(client.opened), list(client.asked)) == (1, [1, 3, 5])
    client.answer_headers(1, OK)
    client.answer_headers(7, OK)
    client.answer_headers(9, OK)
    assert client.codes == dict.fromkeys(streams, "200")
    assert len(client.opened) == 1


def test_an_answer_in_one_piece_with_a_refusal_of_another_stream_arrives() -> None:
    """By the time that we look at it, h2 has forgotten its stream: we ask how many there are of the refused one."""
    client = Http2(both=True)
    refused, answered = client.get("a.example"), client.get("a.example")
    far = client.far
    far.reset_stream(1, REFUSED)
    far.send_headers(3, [(b":status", b"204")], end_stream=True)
    client.answer(far.data_to_send())
    assert client.codes == {answered: "204"}
    client.answer_headers(1, OK)
    assert client.codes == {answered: "204", refused: "200"}


def test_what_still_comes_of_a_stream_that_went_elsewhere_harms_nobody() -> None:
    client = Http2(both=True)
    first, second = client.get("a.example"), client.get("a.example")
    far = client.far
    client.say(_goaway(1))
    assert len(client.opened) == 2
    far.send_headers(3, OK, end_stream=True)
    far.send_headers(1, OK, end_stream=True)
    client.answer(far.data_to_send(), on=0)
    assert (client.codes, client.interims) == ({first: "200"}, [])
    client.answer_headers(1, [(b":status", b"201")])
    assert client.codes == {first: "200", second: "201"}


def test_a_connection_that_is_left_is_closed_though_its_last_stream_was_cancelled() -> None:
    client = Http2(both=True)
    stream = client.get("a.example")
    client.say(_goaway(1))
    client.cancel(stream)
    assert client.closed == client.opened


LONG = b"x" * 100_000


@pytest.mark.parametrize("goes_away", [True, False])
def test_a_body_that_waits_for_its_window_is_whole_after_a_goaway_and_so_are_its_trailers(goes_away: bool) -> None:
    client = Http2(both=True)
    stream = client.begin("POST", "a.example")
    client.body(stream, LONG[:60_000], end=False)
    client.body(stream, LONG[60_000:], ("x-sum", "1"))
    if goes_away:
        client.say(_goaway(1))
    assert client.trailers == []
    while client.make_room(1):
        pass
    assert client.received == LONG
    assert client.trailers == [(b"x-sum", b"1")]
    client.answer_headers(1, OK)
    assert client.codes == {stream: "200"}


def test_each_try_is_signed_and_all_are_counted_once() -> None:
    judge = Numbers()
    client = Http2(judge, both=True)
    client.get("a.example")
    assert client.asked[1][-1] == (b"x-number", b"1")
    client.say(_goaway(0))
    assert len(client.opened) == 2
    assert client.asked[1][-1] == (b"x-number", b"2")
    assert client.counted == 1
