"""Keeps what is shown of the last requests: no body, signature or query.

Flows are kept for a moment, and then what is told of them, which costs more than all the rest: of thousands in a
second, only the last hundred are worth it. Several workers share memory: each puts there what it has kept, at the end
of such a moment, and reads what the others have put there.
"""

import asyncio
from collections import deque
from typing import Any

from mitmproxy.http import HTTPFlow

from ..observe.board import Board
from ..observe.recent import shortened
from . import flows, ledger
from .ledger import Ledger

_MOMENT = 0.2
"""Seconds."""


class Recent:
    """mitmproxy addon: keeps the last requests, as many as it is told to."""

    def __init__(self, told_by: Ledger, board: Board | None = None) -> None:
        """`told_by`: who knows when one is over. `board`: which all processes share, if there are several."""
        self._ledger, self._board = told_by, board
        self._rows: deque[tuple[Any, ...]] = deque(maxlen=0)
        self._fresh: deque[tuple[Any, ...]] = deque(maxlen=0)
        """Flows of the last moment, and what else it takes to make a row."""
        self._next: asyncio.TimerHandle | None = None

    @property
    def most(self) -> int:
        """How many are kept."""
        return self._rows.maxlen or 0

    @most.setter
    def most(self, most: int) -> None:
        if most != self._rows.maxlen:
            self._rows, self._fresh = deque(self._rows, most), deque(self._fresh, most)
        self._ledger.tell(self._keep, wanted=most > 0)

    @property
    def rows(self) -> list[tuple[Any, ...]]:
        """What all processes have kept."""
        self._settle()
        return [*(self._board.others() if self._board else ()), *self._rows]

    def done(self) -> None:
        """The end has come."""
        if self._next:
            self._next.cancel()

    def _keep(self, flow: HTTPFlow, *more: Any) -> None:
        if flows.to_self(flow):
            return
        self._fresh.append((flow, *more))
        if not self._next:
            self._next = asyncio.get_running_loop().call_later(_MOMENT, self._put)

    def _put(self) -> None:
        self._next = None
        self._settle()
        if self._board:
            self._board.put(self._rows)

    def _settle(self) -> None:
        """Let go of the flows. Nothing was done for those that a hundred others have followed since."""
        fresh, self._fresh = self._fresh, deque(maxlen=self.most)
        self._rows.extend(shortened(ledger.row(*what)) for what in fresh)
