"""What several machines tell of themselves, and what one of them makes of it.

An instance is one start of the proxy, with all of its workers. It only ever tells totals, which only grow: however
often, and in whichever order they arrive, the latest counts, and nothing is counted twice.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple, Self

from .. import __version__
from .counters import Counters, Outcome

MOST_GONE = 100
"""So many of those that have gone are kept: the latest."""

_COUNTED = ("proxied_requests", "fast_lane_requests", "bytes_received", "bytes_sent")
_TEXTS = ("started_at", "seen_at", "version")
_LONGEST = 4096
"""Characters of a record that is read."""
_MOST_COUNTED = 1 << 63


class Instance(NamedTuple):
    """What one has told."""

    id: str
    started_at: str
    """By its own clock; for people."""
    seen_at: str
    """By Redis's."""
    version: str
    proxied_requests: int
    fast_lane_requests: int
    outcomes: dict[str, int]
    bytes_received: int
    bytes_sent: int
    uptime: float
    """Seconds that it had run: of two records the later is the one with more."""
    ended: bool = False
    """Whether it has said that this is its last."""

    @classmethod
    def of(cls, counters: Counters, own: str, now: float, *, ended: bool = False) -> Self:
        """Our own, as it is now. `now`: the time, in seconds since the epoch."""
        uptime = counters.uptime  # before the rest, which is then at least as new, whoever else tells it meanwhile
        status = counters.snapshot()
        outcomes = Counter({outcome.label: 0 for outcome in Outcome})
        for passed in counters.passed:
            outcomes[passed.outcome.label] += passed.requests
        received, sent = counters.bytes
        seen = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")
        requests, fast = status["proxied_requests"], status["fast_lane_requests"]
        return cls(
            *(own, status["started_at"], seen, __version__, requests, fast),
            *(dict(outcomes), received, sent, uptime, ended),
        )

    @classmethod
    def read(cls, own: str, text: str) -> Self | None:
        """That of a record; None if it is none, whoever has written it."""
        try:
            told = json.loads(text) if len(text) <= _LONGEST else None
        except (ValueError, RecursionError):
            return None
        if not isinstance(told, dict) or not _is_valid(own, told):
            return None
        return cls(own, *(told[name] for name in cls._fields[1:]))  # those of another version may tell more

    @property
    def text(self) -> str:
        """Its record."""
        return json.dumps({name: value for name, value in self._asdict().items() if name != "id"})

    def members(self, *, live: bool) -> dict[str, Any]:
        """What `/status` says of it."""
        told = {name: value for name, value in self._asdict().items() if name not in ("uptime", "ended")}
        return {"id": told.pop("id"), "state": "live" if live else "gone", **told}


class Known(NamedTuple):
    """One of the others."""

    latest: Instance
    live: bool


Others = Mapping[str, Known]


def learn(known: Others, found: Iterable[Instance], alive: set[str], *, settled: bool) -> dict[str, Known]:
    """What is known of the others from now on. `alive`: who has given a sign of life.

    `settled`: whether everybody has had time for one; if not, who was there is taken to be still there.
    """
    latest = {one.id: one for one in found}
    for name, (before, _) in known.items():
        if name not in latest or latest[name].uptime < before.uptime:
            latest[name] = before
    return {
        name: Known(one, not one.ended and (name in alive or (not settled and name in known and known[name].live)))
        for name, one in latest.items()
    }


def bounded(known: Others) -> tuple[dict[str, Known], list[str]]:
    """The same without those that have gone too long ago, and their ids."""
    gone = sorted((one for one, live in known.values() if not live), key=_latest_last)
    lost = [one.id for one in gone[:-MOST_GONE]]
    return {name: one for name, one in known.items() if name not in lost}, lost


def missing(known: Others, found: Iterable[Instance]) -> list[Instance]:
    """Those that have gone, and of which others no longer know, or less than we do: nobody but us can tell it."""
    told = {one.id: one.uptime for one in found}
    return [one for one, live in known.values() if not live and told.get(one.id, -1.0) < one.uptime]


def members(own: Instance, known: Others) -> dict[str, Any]:
    """What `/status` says of all: the sums over those that live, and each by itself, those that have gone last."""
    live = [own, *(one for one, is_live in known.values() if is_live)]
    gone = sorted((one for one, is_live in known.values() if not is_live), key=_latest_last, reverse=True)
    outcomes = Counter({outcome.label: 0 for outcome in Outcome})
    for one in live:
        outcomes.update(one.outcomes)
    sums = {name: sum(getattr(one, name) for one in live) for name in _COUNTED}
    total = {"instances": len(live), **sums, "outcomes": dict(outcomes)}
    live.sort(key=lambda one: (one.started_at, one.id))
    table = [one.members(live=True) for one in live] + [one.members(live=False) for one in gone]
    return {"total": total, "instances": table}


def _latest_last(one: Instance) -> tuple[str, str]:
    return one.seen_at, one.id


def _is_valid(own: str, told: Mapping[str, Any]) -> bool:
    """Whether all is there, and of its type: others may write to the same place."""
    outcomes, uptime, ended = told.get("outcomes"), told.get("uptime"), told.get("ended")
    return (
        all(_is_text(text) for text in (own, *(told.get(name) for name in _TEXTS)))
        and all(_is_count(told.get(name)) for name in _COUNTED)
        and isinstance(outcomes, dict)
        and all(_is_text(name) and _is_count(count) for name, count in outcomes.items())
        and isinstance(uptime, int | float)
        and 0 <= uptime < _MOST_COUNTED
        and isinstance(ended, bool)
    )


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value.isprintable() and len(value) <= 128


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < _MOST_COUNTED
