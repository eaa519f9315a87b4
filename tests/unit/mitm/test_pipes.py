"""What a stream says once its connection is a pipe: bytes, ends and errors of either side, in the words of HTTP."""

from __future__ import annotations

from typing import Any

import pytest
from mitmproxy.connection import Client, Server
from mitmproxy.options import Options
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import http

from jwtproxy.mitm import pipes
from jwtproxy.mitm.pipes import HalfClose

CONTEXT = Context(Client(peername=("", 1), sockname=("", 2)), Options())
CONTEXT.server = Server(address=("a.example", 80))
CLIENT, SERVER, OTHER = CONTEXT.client, CONTEXT.server, Server(address=("b.example", 80))
CANCEL = http.ErrorCode.CANCEL


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (http.RequestData(1, b"a"), events.DataReceived(CLIENT, b"a")),
        (http.ResponseData(1, b"a"), events.DataReceived(SERVER, b"a")),
        (http.RequestEndOfMessage(1), events.ConnectionClosed(CLIENT)),
        (http.ResponseEndOfMessage(1), events.ConnectionClosed(SERVER)),
        (http.RequestProtocolError(1, "reset", CANCEL), events.ConnectionClosed(CLIENT)),
        (http.ResponseProtocolError(1, "reset", CANCEL), events.ConnectionClosed(SERVER)),
    ],
)
def test_an_event_of_a_stream_is_one_of_a_connection(event: events.Event, expected: events.Event) -> None:
    assert pipes.event_of(event, CONTEXT) == expected


def test_any_other_event_is_passed_on() -> None:
    start = events.Start()
    assert pipes.event_of(start, CONTEXT) is start


def _words(command: commands.Command, *, upgraded: bool) -> Any:
    """What a command becomes, in short."""
    made = pipes.command_of(command, CONTEXT, 3, upgraded=upgraded)
    if not isinstance(made, http.SendHttp):
        return made
    assert made.event.stream_id == 3
    return type(made.event), made.connection, getattr(made.event, "data", getattr(made.event, "code", None))


CLOSE = http.ErrorCode.PASSTHROUGH_CLOSE


@pytest.mark.parametrize("upgraded", [False, True])
@pytest.mark.parametrize(
    ("command", "kind", "detail"),
    [
        (commands.SendData(CLIENT, b"a"), http.ResponseData, b"a"),
        (HalfClose(CLIENT), http.ResponseEndOfMessage, None),
        (commands.CloseConnection(CLIENT), http.ResponseProtocolError, CLOSE),
        (commands.CloseTcpConnection(CLIENT, half_close=True), http.ResponseProtocolError, CLOSE),
    ],
)
def test_what_goes_to_the_client_is_an_answer(
    command: commands.Command, kind: type[http.HttpEvent], detail: Any, upgraded: bool
) -> None:
    assert _words(command, upgraded=upgraded) == (kind, CLIENT, detail)


@pytest.mark.parametrize(
    ("command", "kind", "detail"),
    [
        (commands.SendData(SERVER, b"a"), http.RequestData, b"a"),
        (HalfClose(SERVER), http.RequestEndOfMessage, None),
        (commands.CloseConnection(SERVER), http.RequestProtocolError, CLOSE),
    ],
)
def test_what_goes_to_an_upgraded_server_is_a_request(
    command: commands.Command, kind: type[http.HttpEvent], detail: Any
) -> None:
    assert _words(command, upgraded=True) == (kind, SERVER, detail)
    assert _words(command, upgraded=False) is command, "there is no HTTP on the way to the end of a tunnel"


@pytest.mark.parametrize(
    "command",
    [
        commands.SendData(OTHER, b"a"),
        commands.CloseConnection(OTHER),
        HalfClose(OTHER),
        commands.OpenConnection(CLIENT),
        commands.OpenConnection(SERVER),
        commands.Log("a"),
    ],
)
def test_all_else_is_no_concern_of_the_stream(command: commands.Command) -> None:
    assert _words(command, upgraded=True) is command


def test_raw_tcp_closes_fully() -> None:
    made = _words(commands.CloseTcpConnection(OTHER, half_close=True), upgraded=False)
    assert type(made) is commands.CloseConnection
    assert made.connection is OTHER


def test_a_half_close_is_one_to_mitmproxy() -> None:
    assert HalfClose(CLIENT).half_close
