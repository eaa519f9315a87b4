"""Who serves a client connection, and whether an upstream holds it back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy import ctx
from mitmproxy.test import tflow

from jwtproxy.mitm import handlers

CLIENT = tflow.tclient_conn()


def _writer(unsent: int) -> Any:
    return SimpleNamespace(transport=SimpleNamespace(get_write_buffer_size=lambda: unsent))


def _serve(monkeypatch: pytest.MonkeyPatch, handler: Any) -> None:
    proxyserver = SimpleNamespace(connections={CLIENT.id: handler} if handler else {})
    addons = {"proxyserver": proxyserver}
    monkeypatch.setattr(ctx, "master", SimpleNamespace(addons=addons), raising=False)


def test_a_handler_is_found_while_its_connection_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = SimpleNamespace()
    _serve(monkeypatch, handler)
    assert handlers.handler_of(CLIENT) is handler
    _serve(monkeypatch, None)
    assert handlers.handler_of(CLIENT) is None
    assert not handlers.is_held_back(CLIENT)


def test_without_a_server_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctx, "master", SimpleNamespace(addons={}), raising=False)
    assert handlers.handler_of(CLIENT) is None
    monkeypatch.delattr(ctx, "master")
    assert handlers.handler_of(CLIENT) is None


@pytest.mark.parametrize(
    ("to_client", "to_server", "held"),
    [(0, _writer(0), False), (9, _writer(0), False), (0, _writer(9), True), (9, None, False), (9, object(), False)],
)
def test_a_client_is_held_back_by_what_its_upstream_has_yet_to_take(
    monkeypatch: pytest.MonkeyPatch, to_client: int, to_server: Any, held: bool
) -> None:
    """What it has not read itself is its own affair; a connection that is being made, or is UDP, tells nothing."""
    io = {CLIENT: SimpleNamespace(writer=_writer(to_client)), tflow.tserver_conn(): SimpleNamespace(writer=to_server)}
    _serve(monkeypatch, SimpleNamespace(transports=io))
    assert handlers.is_held_back(CLIENT) is held


def test_what_an_upstream_has_yet_to_read_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    upstream, aborted = tflow.tserver_conn(), list[bool]()
    writer = _writer(9)
    writer.transport.abort = lambda: aborted.append(True)
    for transports in ({}, {upstream: SimpleNamespace(writer=writer)}):
        _serve(monkeypatch, SimpleNamespace(transports=transports))
        handlers.abandon(CLIENT, upstream)
    _serve(monkeypatch, None)
    handlers.abandon(CLIENT, upstream)
    assert aborted == [True]


def test_when_a_head_began_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert handlers.head_began(CLIENT) == 0.0
    writer = _writer(0)
    for io, began in (({}, 0.0), ({CLIENT: SimpleNamespace(writer=object())}, 0.0)):
        _serve(monkeypatch, SimpleNamespace(transports=io))
        assert handlers.head_began(CLIENT) == began
    _serve(monkeypatch, SimpleNamespace(transports={CLIENT: SimpleNamespace(writer=writer)}))
    assert handlers.head_began(CLIENT) == 0.0
    handlers.note_head(writer.transport, 7.0)
    assert [handlers.head_began(CLIENT) for _ in range(2)] == [7.0, 0.0]
