"""h2 where one stream's fault must not end the others."""

from __future__ import annotations

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import hpack
import pytest
from hyperframe.frame import (
    DataFrame,
    ExtensionFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from jwtproxy.conduct.malformed import MalformedError
from jwtproxy.mitm.http2_connection import CONNECTION_WINDOW, STREAM_WINDOW, Connection, Leaving, Lengths
from jwtproxy.mitm.limits import DEFAULT
from tests.support import frames

HEAD = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/")]


def _config(*, client_side: bool) -> h2.config.H2Configuration:
    return h2.config.H2Configuration(
        client_side, header_encoding=False, validate_outbound_headers=False, normalize_outbound_headers=False
    )


@pytest.fixture
def peers() -> tuple[Connection, h2.connection.H2Connection]:
    """Our side, and a client that has begun to talk to it."""
    ours, client = Connection(_config(client_side=False)), h2.connection.H2Connection(_config(client_side=True))
    ours.initiate_connection()
    client.initiate_connection()
    ours.receive_data(client.data_to_send())
    client.receive_data(ours.data_to_send())
    return ours, client


def _fill(ours: Connection, client: h2.connection.H2Connection, stream: int) -> None:
    """Let the client begin a request on this stream, beside which we allow none."""
    ours.local_settings.max_concurrent_streams = 1
    ours.local_settings.acknowledge()
    client.send_headers(stream, HEAD, end_stream=False)


def _headers(stream: int, block: bytes) -> bytes:
    """A HEADERS frame of its own, the stream's last."""
    frame = HeadersFrame(stream, flags=["END_HEADERS", "END_STREAM"])
    frame.data = block
    return bytes(frame.serialize())


def test_a_stream_too_many_is_refused_and_the_others_go_on(
    peers: tuple[Connection, h2.connection.H2Connection],
) -> None:
    ours, client = peers
    _fill(ours, client, 1)
    ours.receive_data(client.data_to_send() + _headers(3, client.encoder.encode([*HEAD, (b"x-new", b"1")])))
    assert b"\0\0\4\3\0\0\0\0\3\0\0\0\7" in ours.data_to_send()  # RST_STREAM of 3: REFUSED_STREAM
    events = ours.receive_data(_headers(1, client.encoder.encode([(b"x-new", b"1")])))  # from the table
    trailers = next(event for event in events if isinstance(event, h2.events.TrailersReceived))
    assert [tuple(field) for field in trailers.headers or []] == [(b"x-new", b"1")]


@pytest.mark.parametrize("stream", [2, 1])
def test_a_stream_with_an_impossible_number_is_an_error(
    peers: tuple[Connection, h2.connection.H2Connection], stream: int
) -> None:
    ours, client = peers
    _fill(ours, client, 3)
    with pytest.raises(h2.exceptions.ProtocolError):
        ours.receive_data(client.data_to_send() + _headers(stream, client.encoder.encode(HEAD)))


def test_what_cannot_be_decompressed_is_called_so(peers: tuple[Connection, h2.connection.H2Connection]) -> None:
    ours, _ = peers
    with pytest.raises(h2.exceptions.ProtocolError) as caught:
        ours.receive_data(_headers(1, b"\xff\xff\xff\x0f"))
    assert caught.value.error_code == h2.errors.ErrorCodes.COMPRESSION_ERROR


@pytest.mark.parametrize(("error", "ends"), [(0, False), (1, True)])
def test_a_client_that_says_goodbye_still_gets_its_answers(
    peers: tuple[Connection, h2.connection.H2Connection], error: int, ends: bool
) -> None:
    ours, client = peers
    client.send_headers(1, HEAD, end_stream=True)
    ours.receive_data(client.data_to_send())
    long = b"x" * 100_000  # more than there is room for
    ours.send_headers(1, [(b":status", b"200")])
    ours.send_data(1, long, end_stream=True)
    events = ours.receive_data(GoAwayFrame(0, error_code=error).serialize())
    assert any(isinstance(event, h2.events.ConnectionTerminated) for event in events) is ends
    if ends:
        return
    assert events == [Leaving(0, 0)]
    received = b""
    while data := ours.data_to_send():
        for event in client.receive_data(data):
            if isinstance(event, h2.events.DataReceived):
                received += event.data or b""
                client.acknowledge_received_data(event.flow_controlled_length or 0, 1)
        ours.receive_data(client.data_to_send())
    assert received == long


def test_the_last_stream_that_is_told_is_none_that_there_is(
    peers: tuple[Connection, h2.connection.H2Connection],
) -> None:
    ours, client = peers
    ours.go_away()
    client.send_headers(1, HEAD, end_stream=True)
    events = ours.receive_data(client.data_to_send())
    assert any(isinstance(event, h2.events.RequestReceived) for event in events)
    (told,) = client.receive_data(ours.data_to_send())[-1:]
    assert isinstance(told, h2.events.ConnectionTerminated)
    assert (told.error_code, told.last_stream_id) == (0, 2**31 - 1)


@pytest.mark.parametrize(
    ("pieces", "length", "fits"),
    [
        ([b"ab", b"c"], 3, True),
        ([b"", b"abc"], 3, True),
        ([b"ab"], 3, False),
        ([b"ab", b"cd"], 3, False),
        ([b"ab", b"cd"], None, True),
        ([b"a"], 0, False),
    ],
)
def test_a_body_is_as_long_as_its_head_says(pieces: list[bytes], length: int | None, fits: bool) -> None:
    lengths = Lengths()
    lengths.begin(1, length)
    lengths.begin(3, 1)

    def check() -> None:
        for number, piece in enumerate(pieces, 1):
            lengths.check(1, len(piece), ended=number == len(pieces))

    if fits:
        check()
    else:
        with pytest.raises(MalformedError, match="Content-Length is not that of the body"):
            check()
    lengths.end(1)
    lengths.end(1)
    lengths.check(1, 8, ended=True)


def test_a_refused_head_that_swells_ends_the_connection_as_other_errors_do(
    peers: tuple[Connection, h2.connection.H2Connection],
) -> None:
    ours, client = peers
    _fill(ours, client, 1)
    swelling = client.encoder.encode([(b"x", b"a" * 4000)]) + b"\xbe" * 400
    with pytest.raises(h2.exceptions.ProtocolError):
        ours.receive_data(client.data_to_send() + _headers(3, swelling))


@pytest.mark.parametrize("name", [b"x-my-jwt", b"x_my_jwt", b"X-My-JWT"])
def test_a_token_is_in_nobodys_table(name: bytes) -> None:
    """RFC 7541 §7.1.3: it is a credential."""
    ours = Connection(_config(client_side=True))
    ours.secret_fields = frozenset((b"x-my-jwt",))
    ours.initiate_connection()
    ours.data_to_send()
    ours.send_headers(1, [*HEAD, (b"accept", b"a"), (name, b"token")], end_stream=True)
    read = list(hpack.Decoder().decode(ours.data_to_send()[9:], raw=True))
    assert [(tuple(field), field.indexable) for field in read[-2:]] == [
        ((b"accept", b"a"), True),
        ((name, b"token"), False),
    ]


PING = bytes(PingFrame(opaque_data=b"12345678").serialize())


def _small(frames: int) -> tuple[Connection, h2.connection.H2Connection]:
    """Our side, which takes so many frames that bring nothing, and a client that has begun to talk to it."""
    ours = Connection(_config(client_side=False), DEFAULT._replace(max_idle_frames=frames))
    client = h2.connection.H2Connection(_config(client_side=True))
    ours.initiate_connection()
    client.initiate_connection()
    ours.receive_data(client.data_to_send())
    client.receive_data(ours.data_to_send())
    return ours, client


@pytest.mark.parametrize(
    "frame",
    [
        PING,
        SettingsFrame().serialize(),
        PriorityFrame(1, depends_on=0, stream_weight=1).serialize(),
        WindowUpdateFrame(0, window_increment=1).serialize(),
        ExtensionFrame(0xBB, 0).serialize(),
        DataFrame(1).serialize(),
    ],
    ids=["ping", "settings", "priority", "window update", "unknown", "empty data"],
)
def test_who_sends_too_much_of_nothing_is_told_to_calm_down(frame: bytes) -> None:
    ours, client = _small(200)
    client.send_headers(1, HEAD)
    ours.receive_data(client.data_to_send())
    ours.receive_data(frame * 150)
    ours.data_to_send()
    with pytest.raises(h2.exceptions.DenialOfServiceError):
        ours.receive_data(frame * 400)
    assert ours.data_to_send().endswith(b"\0\0\0\x0b"), "ENHANCE_YOUR_CALM"


def test_what_gets_data_may_open_windows() -> None:
    ours, client = _small(100)
    client.send_headers(1, HEAD, end_stream=True)
    ours.receive_data(client.data_to_send())
    ours.send_headers(1, [(b":status", b"200")])
    for _ in range(200):
        ours.send_data(1, b"x" * 100)
        ours.receive_data(WindowUpdateFrame(0, window_increment=100).serialize() * 2)


def test_a_peer_may_send_no_more_on_a_stream_than_is_taken(
    peers: tuple[Connection, h2.connection.H2Connection],
) -> None:
    """Other streams of the connection do not wait for it."""
    ours, client = peers
    client.receive_data(ours.data_to_send())
    client.send_headers(1, HEAD)
    client.send_headers(3, HEAD)
    ours.receive_data(client.data_to_send())
    ours.hold(1, held=True)
    assert ours.holds
    for stream in (1, 3):
        for _ in range(STREAM_WINDOW // 16384):
            client.send_data(stream, b"x" * 16384)
        ours.receive_data(client.data_to_send())
        ours.acknowledge_received_data(STREAM_WINDOW, stream)
    client.receive_data(ours.data_to_send())
    assert client.local_flow_control_window(1) == 0
    assert client.local_flow_control_window(3) == STREAM_WINDOW
    assert client.outbound_flow_control_window == CONNECTION_WINDOW
    ours.hold(1, held=False)
    client.receive_data(ours.data_to_send())
    assert client.local_flow_control_window(1) == STREAM_WINDOW
    assert not ours.holds


def test_a_stream_that_has_ended_holds_nothing(peers: tuple[Connection, h2.connection.H2Connection]) -> None:
    ours, client = peers
    client.send_headers(1, HEAD)
    ours.receive_data(client.data_to_send())
    ours.hold(1, held=True)
    ours.hold(7, held=True)
    client.send_data(1, b"x" * 16384)
    ours.receive_data(client.data_to_send())
    ours.acknowledge_received_data(16384, 1)
    ours.reset_stream(1)
    assert not ours.holds
    ours.hold(1, held=False)
    ours.hold(7, held=False)


def test_small_pieces_that_wait_become_one(peers: tuple[Connection, h2.connection.H2Connection]) -> None:
    ours, client = peers
    client.send_headers(1, HEAD, end_stream=True)
    ours.receive_data(client.data_to_send())
    ours.send_headers(1, [(b":status", b"200")])
    for size in (*[16_000] * 4, *[1] * 6_000):  # more than the window of the stream, 65,535 bytes
        ours.send_data(1, b"x" * size)
    ours.end_stream(1)
    assert len(ours.stream_buffers[1]) == 1
    client.receive_data(ours.data_to_send())
    client.acknowledge_received_data(65_535, 1)
    ours.receive_data(client.data_to_send())
    events = client.receive_data(ours.data_to_send())
    (data,) = (event for event in events if isinstance(event, h2.events.DataReceived))
    assert len(data.data or b"") == 70_000 - 65_535
    assert any(isinstance(event, h2.events.StreamEnded) for event in events)


# --- heads that have begun


BEGINNING = frames.frame(frames.HEADERS, b"x" * 20, 5)
BEGUN: dict[str, tuple[bytes, int | None]] = {
    "nothing": (b"", None),
    "some of the preface": (frames.PREFACE[:9], 0),
    "the preface": (frames.PREFACE, None),
    "the preface and settings": (frames.PREFACE + frames.settings(), None),
    "a frame of no known type": (frames.PREFACE + frames.settings() + BEGINNING[:3], 0),
    "a head of no known stream": (frames.PREFACE + frames.settings() + BEGINNING[:8], 0),
    "a head": (frames.PREFACE + frames.settings() + BEGINNING[:12], 5),
    "a head that goes on": (frames.PREFACE + frames.settings() + BEGINNING, 5),
    "data": (frames.PREFACE + frames.settings() + frames.data(5, b"x")[:9], None),
}


@pytest.mark.parametrize(("data", "begun"), BEGUN.values(), ids=list(BEGUN))
def test_a_head_that_has_begun_is_known_by_its_stream(data: bytes, begun: int | None) -> None:
    connection = Connection(_config(client_side=False))
    connection.initiate_connection()
    connection.receive_data(data)
    assert connection.begun == begun


def test_a_head_that_has_begun_can_be_answered(peers: tuple[Connection, h2.connection.H2Connection]) -> None:
    ours, client = peers
    client.send_headers(1, HEAD)
    events = client.receive_data(ours.refuse(1, ((b":status", b"408"), (b"a", b"b")), b"late"))
    (head,) = (event for event in events if isinstance(event, h2.events.ResponseReceived))
    (body,) = (event for event in events if isinstance(event, h2.events.DataReceived))
    assert head.headers == [(b":status", b"408"), (b"a", b"b")]
    assert (body.data, body.stream_ended is not None) == (b"late", True)
