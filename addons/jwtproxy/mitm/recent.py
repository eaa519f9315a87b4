"""Keeps what is shown of the last requests: for each no more than is cheap to keep, and no body, token or query.

Several workers share memory: each puts there what it has kept, a moment after something has passed and not for each
request, and reads what the others have put there.
"""

import asyncio
import time
from collections import deque
from typing import Any

from mitmproxy.http import HTTPFlow

from ..conduct.verdict import DEFAULT
from ..observe.board import Board
from ..observe.counters import Carried, Outcome
from ..observe.recent import LONGEST_PATH, LONGEST_PAYLOAD
from . import flows, gate, ledger
from .flows import RULE
from .ledger import Ledger

_MOMENT = 0.2
"""Seconds."""
_LONGEST = 256
"""Characters of anything else that is kept."""
_REFUSED = int(Outcome.REFUSED)
"""From here on, outcomes are not an upstream's. As a number: what has names is slow."""
_NOTHING = 0, 0, False


class Recent:
    """mitmproxy addon: keeps the last requests, as many as it is told to."""

    def __init__(self, told_by: Ledger, board: Board | None = None) -> None:
        """`told_by`: who knows when one is over. `board`: which all processes share, if there are several."""
        self._ledger, self._board = told_by, board
        self._rows: deque[tuple[Any, ...]] = deque(maxlen=0)
        self._next: asyncio.TimerHandle | None = None

    @property
    def most(self) -> int:
        """How many are kept."""
        return self._rows.maxlen or 0

    @most.setter
    def most(self, most: int) -> None:
        if most != self._rows.maxlen:
            self._rows = deque(self._rows, most)
        self._ledger.keep = self._keep if most else None

    @property
    def rows(self) -> list[tuple[Any, ...]]:
        """What all processes have kept."""
        return [*(self._board.others() if self._board else ()), *self._rows]

    def http_connect_error(self, flow: HTTPFlow) -> None:
        """A tunnel was refused."""
        if self.most and not flows.to_self(flow):
            self._keep(flow, ledger.exchange_of(flow).outcome, _NOTHING)

    def done(self) -> None:
        """The end has come."""
        if self._next:
            self._next.cancel()

    def _keep(self, flow: HTTPFlow, outcome: Outcome, carried: Carried) -> None:
        """Keep a row of `observe.recent`."""
        request, response = flow.request.data, flow.response
        peer: Any = flow.client_conn.peername
        scheme, path = request.scheme, request.path
        query = path.find(b"?")
        if query >= 0:
            path = path[:query]
        if request.method == b"CONNECT":
            scheme = path = b""
        ended = response.data.timestamp_end if response and not flow.websocket else 0.0
        self._rows.append((
            request.timestamp_start, ended or time.time(), peer[0] if peer else "", request.method[:_LONGEST], scheme,
            request.host, request.port, path[:LONGEST_PATH], query >= 0, response.data.status_code if response else 0,
            outcome.real, ledger.reason_of(flow)[:_LONGEST] if outcome >= _REFUSED else "",
            flow.metadata.get(RULE, DEFAULT), b"" if outcome == _REFUSED else _payload(gate.token_of(flow)), *carried,
            flow.websocket is not None,
        ))  # fmt: skip
        if self._board and not self._next:
            self._next = asyncio.get_running_loop().call_later(_MOMENT, self._put)

    def _put(self) -> None:
        self._next = None
        if self._board:
            self._board.put(self._rows)


def _payload(token: bytes) -> bytes:
    """The part with the claims, if it is not too long to be kept."""
    payload = token[token.find(b".") + 1 : token.rfind(b".")]
    return payload if len(payload) <= LONGEST_PAYLOAD else b""
