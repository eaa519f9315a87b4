"""Who hears of our leaving, and how."""

from typing import Any

import pytest
from mitmproxy.connection import ConnectionState
from mitmproxy.options import Options
from mitmproxy.proxy import events

from jwtproxy.mitm import farewell, patches
from tests.support.http2 import Http2

pytestmark = pytest.mark.usefixtures("pristine")


class Leaving:
    """A connection."""

    context: Any = None
    farewell: Any = None
    is_idle = is_heard = True
    latest = 0


def test_each_master_has_a_list_of_its_own_while_somebody_keeps_it() -> None:
    one, other, connection = Options(), Options(), Leaving()
    assert not farewell.enter(one, connection)
    kept = farewell.watch(one)
    assert farewell.watch(one) is kept
    assert farewell.enter(one, connection)
    assert list(kept) == [connection]
    assert not farewell.enter(other, connection)
    del connection
    assert not list(kept), "it is kept by others alone"


def test_a_client_is_told_and_its_streams_are_served() -> None:
    patches.install()
    client = Http2(watched=True)
    (server,) = client.leaving
    assert server.is_idle
    first = client.get("a.example")
    assert (server.is_idle, server.is_heard, server.latest) == (False, True, first)
    client.handle(events.Wakeup(server.farewell))
    assert client.told == [2**31 - 1]
    assert not server.is_heard
    client.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert client.codes == {first: "200"}
    late = client.get("a.example")  # with the answer to the ping before it
    assert server.is_heard
    client.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert client.codes == {first: "200", late: "200"}


def test_who_is_gone_needs_not_to_be_told() -> None:
    patches.install()
    client = Http2(watched=True)
    (server,) = client.leaving
    server.conn.state = ConnectionState.CLOSED
    client.handle(events.Wakeup(server.farewell))
    assert client.told == []
    assert server.is_heard
