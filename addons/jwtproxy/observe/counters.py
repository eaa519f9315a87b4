"""Count what passes, in however many processes."""

import time
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from enum import IntEnum
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from .. import __version__
from ..conduct.proxy_status import ErrorType
from .cells import Cells
from .history import History

SIGNING = (25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 100e-3)
"""Upper bounds of the time that a signature takes, in seconds."""
UPSTREAM = (1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""The same of the time that an upstream takes until its answer begins."""

_SIGNING_BOUNDS, _UPSTREAM_BOUNDS = array("d", SIGNING), array("d", UPSTREAM)
"""The same, side by side in memory: to look one up costs more for where it lies than for what is done."""

NO_RULE = "default"
"""The rule of requests for which there are none."""
_RULES = 64
"""Rules that are told apart."""
_KINDS = tuple(ErrorType)


class Outcome(IntEnum):
    """What has become of a request."""

    SUCCESS = 0
    REDIRECT = 1
    CLIENT_ERROR = 2
    SERVER_ERROR = 3
    REFUSED = 4
    FAILED = 5
    ABORTED = 6

    @property
    def label(self) -> str:
        """How it is told: as the class of the upstream's status, or as what the proxy did instead."""
        return ("2xx", "3xx", "4xx", "5xx", "refused", "failed", "aborted")[self]


def outcome_of(status: int) -> Outcome:
    """What an upstream's answer makes of a request. What has no known class is taken for one that has worked."""
    return _CLASSES.get(status // 100, Outcome.SUCCESS)


_CLASSES = {3: Outcome.REDIRECT, 4: Outcome.CLIENT_ERROR, 5: Outcome.SERVER_ERROR}


class Histogram(NamedTuple):
    """How many took how long."""

    bounds: Sequence[float]
    counts: Sequence[int]
    """As many as bounds, each with those before it; and one more, of all."""
    sum: float


class Passed(NamedTuple):
    """Requests of one kind."""

    rule: str
    fast: bool
    outcome: Outcome
    requests: int


class Worker(NamedTuple):
    """What a process has done that serves, or did."""

    number: int
    pid: int
    """0 of one that has ended, or does not serve yet."""
    proxied: int
    fast: int
    open: int


_OUTCOMES = len(Outcome)
_EACH = 2 * _OUTCOMES
"""Cells of a rule: one for each outcome, and the same again for the fast lane."""


def _in_a_row(*sizes: int) -> list[range]:
    return [range(first, last) for first, last in pairwise(accumulate(sizes, initial=0))]


_REQUESTS, _BYTES, _SIGNING, _UPSTREAM, _ERRORS, _REFUSALS, _RELOADS, _OPEN, _PID = _in_a_row(
    2, 2, len(SIGNING) + 1, len(UPSTREAM) + 1, len(_KINDS), len(_KINDS), 2, 1, 1
)
"""Which cells are whose. Those of limits follow, and those of rules."""
_RECEIVED, _SENT = _BYTES
_SIGNING_FIRST, _UPSTREAM_FIRST = _SIGNING.start, _UPSTREAM.start
_IN_LANE = [_OUTCOMES + int(outcome_of(status)) for status in range(0, 1000, 100)]
"""Which of a rule's cells is for the fast lane's answers, by the class of their status."""
Carried = tuple[int, int, bool]
"""Bytes of a request's body and of its answer's, and whether the fast lane has carried them."""


class Counters:
    """How long the service has run, and what it has done, in all of its processes.

    Made before they are forked. What a process has counted outlives it.
    """

    def __init__(self, processes: int = 1, limits: Iterable[str] = ()) -> None:
        """`limits`: the names of those whose reaching is counted, each by itself."""
        self._started = time.time()
        self._clock = time.monotonic()  # uptime must not jump with the wall clock
        self._reached = {name: _PID.stop + number for number, name in enumerate(limits)}
        self._kinds = {str(kind): number for number, kind in enumerate(_KINDS)}
        self._cells = Cells(_PID.stop + len(self._reached), 2, _RULES, _EACH, processes)
        self._history = History(processes)

    def use_cell(self, process: int) -> None:
        """Count as this process from now on. Numbers start at 1 and are never given twice at the same time."""
        self._cells.use_row(process)
        self._cells.begin()
        self._cells.clear(_OPEN)

    # --- by whom something happens

    def count(self) -> None:
        """One more request is on its way upstream."""
        self._cells.whole[0] += 1

    def count_fast(self) -> None:
        """That one was carried by the fast lane."""
        self._cells.whole[1] += 1

    def count_reached(self, limit: str) -> None:
        """What this limits has come to its limit once more; one that is not counted must not end what reached it."""
        if (cell := self._reached.get(limit)) is not None:
            self._cells.add(cell)

    def count_end(self, outcome: Outcome, rule: str, carried: Carried, waited: float | None = None) -> None:
        """A request has come to its end. `waited`: seconds until an upstream has begun to answer, if one has."""
        cells = self._cells
        whole = cells.whole
        received, sent, fast = carried
        whole[cells.place(rule) + (_OUTCOMES if fast else 0) + outcome] += 1
        if received:
            whole[_RECEIVED] += received
        if sent:
            whole[_SENT] += sent
        if waited is not None:
            whole[_UPSTREAM_FIRST + bisect_left(_UPSTREAM_BOUNDS, waited)] += 1
            cells.real[1] += waited

    def count_answer(self, status: int, rule: str, received: int, sent: int, waited: float) -> None:
        """The same of one in the fast lane that an upstream has answered with this status, as nearly all are."""
        cells = self._cells
        whole = cells.whole
        try:
            place = cells.places[rule]
        except KeyError:
            place = cells.place(rule)
        whole[place + _IN_LANE[status // 100]] += 1
        if received:
            whole[_RECEIVED] += received
        if sent:
            whole[_SENT] += sent
        whole[_UPSTREAM_FIRST + bisect_left(_UPSTREAM_BOUNDS, waited)] += 1
        cells.real[1] += waited

    def count_kind(self, kind: str, *, refused: bool) -> None:
        """A request was refused, or has failed, for a reason of this kind, as RFC 9209 has it."""
        if kind in self._kinds:
            self._cells.add((_REFUSALS if refused else _ERRORS).start + self._kinds[kind])

    def time_signing(self, seconds: float) -> None:
        """A request has been judged and signed."""
        cells = self._cells
        cells.whole[_SIGNING_FIRST + bisect_left(_SIGNING_BOUNDS, seconds)] += 1
        cells.real[0] += seconds

    def count_reload(self, ok: bool) -> None:
        """Changed keys or rules were taken over, or not."""
        self._cells.add(_RELOADS.start + (not ok))

    def change_open(self, more: int) -> None:
        """So many more connections of clients are open, or fewer."""
        self._cells.add(_OPEN.start, more)

    def forget_open(self, process: int) -> None:
        """A process has ended, and its connections with it."""
        self._cells.clear(_OPEN, process)
        self._cells.clear(_PID, process)

    def serve(self, pid: int) -> None:
        """This process serves from now on, and has this number."""
        self._cells.clear(_PID)
        self._cells.add(_PID.start, pid)

    def note(self) -> None:
        """Note how much there has been until now, for the rates: to be done when an interval begins, by whoever can."""
        self._history.note(self.uptime, self._total(_REQUESTS.start))

    # --- who wants to know

    @property
    def reached(self) -> dict[str, int]:
        """How often each limit was reached."""
        return {name: self._total(cell) for name, cell in self._reached.items()}

    @property
    def uptime(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._clock

    @property
    def started(self) -> float:
        """Seconds since the epoch."""
        return self._started

    @property
    def bytes(self) -> tuple[int, int]:
        """All bytes of bodies that were received from clients, and sent to them."""
        received, sent = self._cells.totals(_BYTES)
        return received, sent

    @property
    def signing(self) -> Histogram:
        """How long signatures took, in seconds."""
        return Histogram(SIGNING, self._running(_SIGNING), self._cells.real_total(0))

    @property
    def upstream(self) -> Histogram:
        """How long upstreams took until their answers began, in seconds."""
        return Histogram(UPSTREAM, self._running(_UPSTREAM), self._cells.real_total(1))

    @property
    def errors(self) -> dict[str, int]:
        """How many requests have failed, by the kind of failure."""
        return self._by_kind(_ERRORS)

    @property
    def refusals(self) -> dict[str, int]:
        """How many requests were refused, by the kind of refusal."""
        return self._by_kind(_REFUSALS)

    @property
    def reloads(self) -> tuple[int, int]:
        """How often changed keys or rules were taken over, and how often they could not be."""
        taken, failed = self._cells.totals(_RELOADS)
        return taken, failed

    @property
    def open(self) -> int:
        """Connections of clients that are open."""
        return self._total(_OPEN.start)

    @property
    def passed(self) -> list[Passed]:
        """Requests that have ended, by rule, lane and outcome, where there are any."""
        return [
            Passed(rule, fast, outcome, counts[_OUTCOMES * fast + outcome])
            for rule, counts in self._cells.by_name().items()
            for fast in (False, True)
            for outcome in Outcome
            if counts[_OUTCOMES * fast + outcome]
        ]

    @property
    def workers(self) -> list[Worker]:
        """Those that have counted, by their numbers."""
        cells = (_PID.start, _REQUESTS.start, _REQUESTS.start + 1, _OPEN.start)
        pids, *counts = (self._cells.by_row(cell) for cell in cells)
        return [Worker(number, pid, *(found[number] for found in counts)) for number, pid in pids.items()]

    @property
    def rates(self) -> list[float]:
        """Requests a second in each interval of the last minutes, the oldest first."""
        return self._history.rates(self.uptime)

    @property
    def rate(self) -> float:
        """Requests a second now."""
        return self._history.rate(self.uptime, self._total(_REQUESTS.start))

    def snapshot(self) -> dict[str, Any]:
        """The members of `/status`."""
        everything, fast = self._cells.totals(_REQUESTS)
        return {
            "uptime_seconds": round(self.uptime, 3),
            "proxied_requests": everything,
            "started_at": datetime.fromtimestamp(self._started, UTC).isoformat(timespec="milliseconds"),
            "version": __version__,
            "fast_lane_requests": fast,
        }

    def _total(self, cell: int) -> int:
        return self._cells.totals(range(cell, cell + 1))[0]

    def _by_kind(self, cells: range) -> dict[str, int]:
        return dict(zip(self._kinds, self._cells.totals(cells), strict=True))

    def _running(self, cells: range) -> list[int]:
        return [*accumulate(self._cells.totals(cells))]
