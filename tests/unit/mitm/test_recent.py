"""What is kept of the last requests, and what is not."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from http import HTTPStatus
from types import SimpleNamespace

import pytest
from mitmproxy.flow import Error
from mitmproxy.http import HTTPFlow
from mitmproxy.test import tflow

from jwtproxy.conduct.proxy_status import ErrorType
from jwtproxy.mitm import flows, gate
from jwtproxy.mitm.ledger import Ledger, note_carried, note_shown
from jwtproxy.mitm.recent import Recent
from jwtproxy.observe import pages
from jwtproxy.observe.board import Board
from jwtproxy.observe.counters import Counters, Outcome
from jwtproxy.observe.exchanges import Row


class Kept:
    """Who counts, and who keeps."""

    def __init__(self, most: int = 100, board: Board | None = None) -> None:
        self.ledger = Ledger(Counters())
        self.recent = Recent(self.ledger, board)
        self.recent.most = most
        if not board:  # nobody needs the timer: who asks gets all
            self.recent._next = SimpleNamespace(cancel=lambda: None)  # type: ignore[assignment]

    @property
    def rows(self) -> list[Row]:
        return [Row._make(row) for row in self.recent.rows]


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """That of each flow."""
    monkeypatch.setattr(gate, "token_of", lambda flow: b"head.payload.signature")
    return b"head.payload"


def _answered(path: str = "/a?password=x", status: int = 200) -> HTTPFlow:
    flow = tflow.tflow(resp=True)
    assert flow.response
    flow.request.path, flow.response.status_code = path, status
    flow.request.timestamp_start, flow.request.timestamp_end = 10.0, 11.0
    flow.response.timestamp_start, flow.response.timestamp_end = 14.0, 14.5
    flow.request.headers["authorization"], flow.request.content = "Basic secret", b"secret"
    return flow


def test_of_each_request_is_kept_what_is_told_of_it(kept: Kept, token: bytes) -> None:
    flow = _answered()
    note_carried(flow, 3, 4, fast=True)
    flow.metadata[flows.RULE] = "pay"
    kept.ledger.response(flow)
    assert kept.rows == [
        Row(
            *(10.0, 14.5, "127.0.0.1", b"GET", b"http", "address", 22, b"/a", True, 200),
            *(int(Outcome.SUCCESS), "", "pay", token, 3.0, 3, 4, True, False),
        )
    ]
    assert all(word not in repr(kept.recent.rows) for word in ("secret", "password", "signature"))


def test_no_more_than_so_many_are_kept_and_none_if_nobody_wants_them() -> None:
    kept = Kept(2)
    for path in ("/a", "/b", "/c"):
        kept.ledger.response(_answered(path))
    assert [row.path for row in kept.rows] == [b"/b", b"/c"]
    kept.recent.most = 1
    assert [row.path for row in kept.rows] == [b"/c"]
    kept.recent.most = 0
    assert kept.ledger.keepers == ()
    kept.ledger.response(_answered())
    assert kept.rows == []


def test_what_is_long_is_cut(kept: Kept) -> None:
    kept.ledger.response(_answered("/" + "x" * 100_000))
    (row,) = kept.rows
    assert len(row.path) == 1024


def test_nothing_holds_the_flow_for_long() -> None:
    async def run() -> None:
        board = Board(100)
        board.use_place(1)
        kept, flow = Kept(board=board), _answered()
        kept.ledger.response(flow)
        await asyncio.sleep(0.3)
        gc.collect()
        assert sys.getrefcount(flow) == 2
        assert [row.path for row in kept.rows] == [b"/a"]

    asyncio.run(run())


def test_a_failure_is_kept_with_its_reason(kept: Kept, token: bytes) -> None:
    failed, refused = tflow.tflow(), _answered()
    failed.error = Error("mitmproxy is tired")
    kept.ledger.error(failed)
    flows.respond(refused, pages.text(403, "blocked", ErrorType.HTTP_REQUEST_DENIED))
    kept.ledger.response(refused)
    first, second = kept.rows
    assert (first.status, first.outcome, first.reason) == (0, Outcome.FAILED, "the proxy is tired")
    assert first.token == token
    assert (second.status, second.outcome, second.reason, second.token) == (403, Outcome.REFUSED, "blocked", b"")
    assert abs(first.ended - time.time()) < 60


def test_what_the_proxy_has_shown_is_kept_and_its_own_pages_are_not(kept: Kept) -> None:
    shown, own = _answered(), _answered()
    note_shown(shown)
    flows.mark_to_self(own)
    kept.ledger.response(shown)
    kept.ledger.response(own)
    assert [row.outcome for row in kept.rows] == [Outcome.SUCCESS]


def test_a_tunnel_is_kept_if_it_was_refused(kept: Kept) -> None:
    flow, own = _answered(), _answered()
    flow.request.method = "CONNECT"
    flows.respond(flow, pages.text(403, "blocked", ErrorType.HTTP_REQUEST_DENIED))
    flows.mark_to_self(own)
    kept.ledger.http_connect_error(flow)
    kept.ledger.http_connect_error(own)
    (row,) = kept.rows
    assert (row.scheme, row.path, row.outcome, row.reason) == (b"", b"", Outcome.REFUSED, "blocked")
    kept.recent.most = 0
    kept.ledger.http_connect_error(flow)
    assert kept.rows == []


def test_a_websocket_is_kept_at_its_end(kept: Kept) -> None:
    flow = tflow.twebsocketflow()
    kept.ledger.response(flow)
    assert kept.rows == []
    kept.ledger.websocket_end(flow)
    (row,) = kept.rows
    assert (row.websocket, row.status, row.ended) == (True, 101, 946681205)


def test_several_processes_read_what_each_has_kept_a_moment_later() -> None:
    async def run() -> None:
        board = Board(100)
        board.use_place(1)
        one = Kept(board=board)
        for _ in range(3):
            one.ledger.response(_answered("/one"))
        odd = _answered("/odd")
        assert odd.response
        odd.response.data.status_code = HTTPStatus.OK
        one.ledger.response(odd)
        await asyncio.sleep(0.3)
        board.use_place(2)
        other = Kept(board=board)
        other.ledger.response(_answered("/two"))
        assert [row.path for row in other.rows] == [b"/one"] * 3 + [b"/two"]
        other.recent.done()
        await asyncio.sleep(0.3)
        board.use_place(3)
        assert len(board.others()) == 3, "who has ended writes no more"

    asyncio.run(run())
