"""What somebody wants of WebSockets is kept, as far as it may be held."""

from __future__ import annotations

import pytest
from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import commands

from tests.support.websocket_layers import ALL_CLOSED, CAN_WRITE, CLOSE_4001, CLOSED, HELLO, SIDES, WebSocket


@SIDES
@pytest.mark.parametrize("state", [CAN_WRITE, CLOSED])
def test_who_vanishes_is_not_said_to_have_closed(side: str, state: ConnectionState) -> None:
    opened = WebSocket(relayed=False)
    assert opened.end(side, state) == ALL_CLOSED
    assert opened.flow.websocket
    assert opened.flow.websocket.close_code == 1006


def test_messages_are_kept_and_close_frames_pass() -> None:
    opened = WebSocket(relayed=False)
    assert opened.began == ["websocket_start"]
    opened.receive("client", HELLO)
    assert opened.flow.websocket
    assert [message.content for message in opened.flow.websocket.messages] == [b"hello"]
    ended = opened.receive("server", CLOSE_4001)
    assert ("client", CLOSE_4001) in ended
    assert ended[-1] == "websocket_end"


def test_the_oldest_messages_are_forgotten() -> None:
    opened = WebSocket(relayed=False, max_body=2 * (512 + 5))
    assert commands.Log not in [*opened.receive("client", HELLO), *opened.receive("client", HELLO)]
    assert commands.Log in opened.receive("client", HELLO), "which is said"
    assert commands.Log not in opened.receive("server", b"\x81\x02ok"), "once"
    assert opened.flow.websocket
    assert [message.content for message in opened.flow.websocket.messages] == [b"hello", b"ok"]


def test_empty_messages_are_forgotten_too() -> None:
    opened = WebSocket(relayed=False, max_body=4096)
    opened.receive("server", b"\x81\x00" * 100)
    assert opened.flow.websocket
    assert len(opened.flow.websocket.messages) == 8


def test_what_others_hold_counts_too() -> None:
    opened = WebSocket(relayed=False, max_bodies=3)
    opened.receive("client", HELLO)
    assert opened.flow.websocket
    assert [message.content for message in opened.flow.websocket.messages] == [b"hello"], "the last one stays"
    opened.receive("client", HELLO)
    assert len(opened.flow.websocket.messages) == 1


@SIDES
def test_a_message_that_is_too_large_to_be_held_ends_it(side: str) -> None:
    opened = WebSocket(relayed=False, max_body=4 * (64 + 5))
    begun = b"\x01\x85\0\0\0\0hello" if side == "client" else b"\x01\x05hello"
    more = b"\x00" + begun[1:]
    assert opened.receive(side, begun + more * 3) == []
    check_it_is_ended(opened, side, more)


@SIDES
def test_one_of_endless_empty_fragments_does_too(side: str) -> None:
    opened = WebSocket(relayed=False, max_body=640)
    more = b"\x00\x80\0\0\0\0" if side == "client" else b"\x00\x00"
    assert opened.receive(side, b"\x01" + more[1:]) == []
    for _ in range(9):
        assert opened.receive(side, more) == []
    check_it_is_ended(opened, side, more)


@SIDES
def test_each_message_begins_anew(side: str) -> None:
    opened = WebSocket(relayed=False, max_body=1100)
    more, end = (b"\x80\0\0\0\0" if side == "client" else b"\x00"), b"\x80"
    for _ in range(20):
        opened.receive(side, b"\x01" + more)
        opened.receive(side, b"\x00" + more)
        opened.receive(side, end + more)
    assert opened.flow.live, "though there were sixty fragments"


def check_it_is_ended(opened: WebSocket, side: str, more: bytes) -> None:
    ended = opened.receive(side, more)
    assert ("client", b"\x88\x11\x03\xf1message too big") in ended
    assert [word for word in ended if not isinstance(word[1], bytes)] == ALL_CLOSED
    assert opened.flow.websocket
    assert opened.flow.websocket.close_code == 1009
    assert opened.receive(side, more) == []
