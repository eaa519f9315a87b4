"""What several machines tell: the latest of each counts, once."""

from __future__ import annotations

import json
import secrets
from itertools import permutations
from typing import Any

import pytest

import jwtproxy
from jwtproxy.observe import instances
from jwtproxy.observe.counters import Counters, Outcome
from jwtproxy.observe.instances import MOST_GONE, Instance, Known

NOW = 1_795_776_845.5
NONE = dict.fromkeys(("2xx", "3xx", "4xx", "5xx", "refused", "failed", "aborted"), 0)


def _instance(own: str = "a", requests: int = 0, uptime: float = 1.0, **others: Any) -> Instance:
    told = Instance(own, "2026-11-27T13:00:00.000+00:00", "", "0.1.0", requests, 0, NONE, 0, 0, uptime)
    return told._replace(**others)


def test_it_is_what_was_counted() -> None:
    counters = Counters()
    for _ in range(3):
        counters.count()
    counters.count_fast()
    counters.count_end(Outcome.SUCCESS, "one", (5, 7, True))
    counters.count_end(Outcome.SUCCESS, "two", (5, 7, False))
    counters.count_end(Outcome.REFUSED, "two", (0, 0, False))
    told = Instance.of(counters, "a", NOW)
    assert told.proxied_requests == 3
    assert told.fast_lane_requests == 1
    assert told.outcomes == {**NONE, "2xx": 2, "refused": 1}
    assert (told.bytes_received, told.bytes_sent) == (10, 14)
    assert told.version == jwtproxy.__version__
    assert told.seen_at == "2026-11-27T10:54:05.500+00:00"
    assert told.started_at == counters.snapshot()["started_at"]
    assert 0 < told.uptime <= counters.uptime
    assert not told.ended
    assert Instance.read("a", told.text) == told


VALID = json.loads(_instance(seen_at="x").text)


def test_a_record_of_another_version_may_tell_more() -> None:
    assert Instance.read("a", json.dumps({**VALID, "news": 1})) == _instance(seen_at="x")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        "[" * 4000,
        "{" + " " * 5000 + "}",
        json.dumps({**VALID, "version": "\x1b[2J"}),
        json.dumps({**VALID, "version": "x" * 200}),
        json.dumps({**VALID, "started_at": None}),
        json.dumps({**VALID, "proxied_requests": -1}),
        json.dumps({**VALID, "proxied_requests": True}),
        json.dumps({**VALID, "bytes_sent": 1.5}),
        json.dumps({**VALID, "bytes_sent": 1 << 63}),
        json.dumps({**VALID, "outcomes": []}),
        json.dumps({**VALID, "outcomes": {"2xx": "1"}}),
        json.dumps({**VALID, "outcomes": {"\n": 1}}),
        json.dumps({**VALID, "uptime": float("nan")}),
        json.dumps({**VALID, "uptime": "1"}),
        json.dumps({**VALID, "ended": 1}),
    ],
)
def test_what_others_have_written_there_is_no_record(text: str) -> None:
    assert Instance.read("a", text) is None


def test_an_id_is_printable() -> None:
    assert Instance.read("\x1b[2J", json.dumps(VALID)) is None


def test_in_whichever_order_it_is_told_the_latest_counts() -> None:
    told = [_instance(requests=number, uptime=number) for number in range(4)]
    for order in permutations(told):
        known: dict[str, Known] = {}
        for one in order:
            known = instances.learn(known, [one], {"a"}, settled=True)
        assert known == {"a": Known(told[-1], live=True)}


def test_who_gives_no_sign_of_life_is_gone_with_the_last_totals() -> None:
    known = instances.learn({}, [_instance(requests=5)], {"a"}, settled=True)
    known = instances.learn(known, [_instance(requests=5)], set(), settled=True)
    assert known == {"a": Known(_instance(requests=5), live=False)}
    again = _instance(requests=6, uptime=2)
    assert instances.learn(known, [again], {"a"}, settled=True) == {"a": Known(again, live=True)}


def test_when_redis_is_back_and_empty_everybody_has_time_to_tell_again() -> None:
    known = {"a": Known(_instance("a"), live=True), "b": Known(_instance("b"), live=False)}
    assert instances.learn(known, [], set(), settled=False) == known
    gone = {name: Known(one, live=False) for name, (one, _) in known.items()}
    assert instances.learn(known, [], set(), settled=True) == gone


def test_who_is_found_without_a_sign_of_life_was_never_there() -> None:
    assert instances.learn({}, [_instance()], set(), settled=False) == {"a": Known(_instance(), live=False)}


def test_who_has_said_good_bye_is_gone_at_once() -> None:
    last = _instance(uptime=2, ended=True)
    known = {"a": Known(_instance(), live=True)}
    assert instances.learn(known, [last], {"a"}, settled=False) == {"a": Known(last, live=False)}


def test_what_only_we_know_is_told_for_those_who_have_gone() -> None:
    gone, lives = Known(_instance("a", uptime=2), live=False), Known(_instance("b", uptime=2), live=True)
    known = {"a": gone, "b": lives}
    assert instances.missing(known, []) == [gone.latest], "who lives tells it itself"
    assert instances.missing(known, [_instance("a", uptime=1)]) == [gone.latest], "Redis has an old copy"
    assert instances.missing(known, [_instance("a", uptime=2)]) == []
    assert instances.missing(known, [_instance("a", uptime=3)]) == []


def test_only_the_latest_of_those_that_have_gone_are_kept() -> None:
    gone = {
        name: Known(_instance(name, seen_at=f"{number:04}"), live=False)
        for number in range(MOST_GONE + 2)
        for name in [secrets.token_hex(4)]
    }
    lives = {"a": Known(_instance("a", seen_at="0000"), live=True)}
    kept, lost = instances.bounded(gone | lives)
    assert lost == list(gone)[:2]
    assert kept == {name: one for name, one in (gone | lives).items() if name not in lost}
    assert instances.bounded(kept) == (kept, [])


def test_the_status_sums_over_those_that_live() -> None:
    own = _instance("own", 1, started_at="2", bytes_sent=1, outcomes={**NONE, "2xx": 1}, seen_at="s", uptime=9)
    others = {
        "b": Known(_instance("b", 10, started_at="1", fast_lane_requests=4, outcomes={"2xx": 2, "new": 1}), live=True),
        "c": Known(_instance("c", 100, seen_at="1"), live=False),
        "d": Known(_instance("d", 100, seen_at="2"), live=False),
    }
    told = instances.members(own, others)
    assert told["total"] == {
        "instances": 2,
        "proxied_requests": 11,
        "fast_lane_requests": 4,
        "bytes_received": 0,
        "bytes_sent": 1,
        "outcomes": {**NONE, "2xx": 3, "new": 1},
    }
    assert [(one["id"], one["state"]) for one in told["instances"]] == [
        ("b", "live"),
        ("own", "live"),
        ("d", "gone"),
        ("c", "gone"),
    ]
    assert told["instances"][1] == {
        "id": "own",
        "state": "live",
        "started_at": "2",
        "seen_at": "s",
        "version": "0.1.0",
        "proxied_requests": 1,
        "fast_lane_requests": 0,
        "outcomes": {**NONE, "2xx": 1},
        "bytes_received": 0,
        "bytes_sent": 1,
    }
    assert json.loads(json.dumps(told)) == told
