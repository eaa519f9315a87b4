"""How much is read at a time."""

from types import SimpleNamespace

from jwtproxy.conduct import fair
from jwtproxy.lane import portions


def test_a_connection_begins_small_and_grows_while_others_need_not_wait() -> None:
    transport = SimpleNamespace(max_size=1 << 18)
    portions.begin(transport)
    assert transport.max_size == fair.FIRST
    for _ in range(9):
        portions.taken(transport, transport.max_size, 0.0)
    assert transport.max_size == 1 << 18
    portions.taken(transport, 1 << 18, 1.0)
    assert transport.max_size < 1 << 13


def test_what_speaks_tls_has_the_socket_s_transport_read_less() -> None:
    raw = SimpleNamespace(max_size=1 << 18)
    portions.begin(SimpleNamespace(raw=raw))
    assert raw.max_size == fair.FIRST
