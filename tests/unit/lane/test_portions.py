"""How much is read at a time."""

import time
from types import SimpleNamespace

import pytest

from jwtproxy.conduct import fair
from jwtproxy.lane import portions


def test_a_connection_begins_small_and_grows_while_others_need_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1.0]
    monkeypatch.setattr(time, "thread_time", lambda: now[0])
    transport = SimpleNamespace(max_size=1 << 18)
    portions.begin(transport)
    assert transport.max_size == fair.FIRST
    for _ in range(9):
        size = transport.max_size
        portions.taken(transport, size, portions.clock(transport, size))
    assert transport.max_size == 1 << 18
    began = portions.clock(transport, 1 << 18)
    now[0] += 1
    assert portions.taken(transport, 1 << 18, began) == 1.0
    assert transport.max_size < 1 << 13


def test_little_is_not_timed() -> None:
    transport = SimpleNamespace(max_size=fair.FIRST)
    assert portions.clock(transport, 100) == 0.0


def test_what_speaks_tls_has_the_socket_s_transport_read_less() -> None:
    raw = SimpleNamespace(max_size=1 << 18)
    portions.begin(SimpleNamespace(raw=raw))
    assert raw.max_size == fair.FIRST
