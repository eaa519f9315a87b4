"""For how long the result of a look-up is known, and whose look-up is next."""

from __future__ import annotations

import itertools
from collections.abc import Hashable

import pytest

from jwtproxy.conduct.names import (
    BAD_FOR,
    GOOD_FOR,
    LONGEST_LINE,
    MOST_ADDRESSES,
    MOST_NAMES,
    PLACES,
    STALE_FOR,
    Memory,
    Turns,
)

NOW = 1000.0
ERROR = OSError("no such name")


# --- what is known


@pytest.mark.parametrize(
    ("later", "fresh", "stale"),
    [(0, True, True), (GOOD_FOR - 1, True, True), (GOOD_FOR, False, True), (STALE_FOR, False, False)],
)
def test_a_result_is_known_for_seconds_and_better_than_nothing_for_a_minute(
    later: float, fresh: bool, stale: bool
) -> None:
    memory = Memory[list[str]]()
    memory.keep("a", ["1"], NOW)
    assert memory.answer("a", NOW + later) == (["1"] if fresh else None)
    assert memory.answer("a", NOW + later, STALE_FOR) == (["1"] if stale else None)
    assert memory.failure("a", NOW + later) is None
    assert memory.answer("b", NOW) is None


@pytest.mark.parametrize(("later", "known"), [(0, True), (BAD_FOR - 0.1, True), (BAD_FOR, False)])
def test_a_failure_is_known_for_seconds(later: float, known: bool) -> None:
    memory = Memory[list[str]]()
    memory.keep_failure("a", ERROR, NOW)
    assert memory.failure("a", NOW + later) is (ERROR if known else None)
    assert memory.answer("a", NOW + later) is None


def test_a_failure_is_not_known_longer_than_a_result() -> None:
    assert BAD_FOR <= GOOD_FOR < STALE_FOR


def test_the_last_look_up_counts() -> None:
    memory = Memory[list[str]]()
    memory.keep("a", ["1"], NOW)
    memory.keep_failure("a", ERROR, NOW)
    assert (memory.answer("a", NOW, STALE_FOR), memory.failure("a", NOW)) == (None, ERROR)
    memory.keep("a", ["2"], NOW)
    assert (memory.answer("a", NOW), memory.failure("a", NOW)) == (["2"], None)


def test_what_is_known_longest_makes_room_and_failures_never_push_out_results() -> None:
    memory = Memory[list[str]]()
    for number in range(MOST_NAMES):
        memory.keep(number, [""], NOW)
    memory.keep(0, [""], NOW)  # which is the newest now
    for number in range(3 * MOST_NAMES):
        memory.keep_failure(f"bad{number}", ERROR, NOW)
    assert all(memory.answer(number, NOW) for number in range(MOST_NAMES))
    assert sum(memory.failure(f"bad{number}", NOW) is ERROR for number in range(3 * MOST_NAMES)) == MOST_NAMES
    memory.keep("one more", [""], NOW)
    assert [number for number in range(MOST_NAMES) if not memory.answer(number, NOW)] == [1]


@pytest.mark.parametrize(("addresses", "known"), [(MOST_ADDRESSES, True), (MOST_ADDRESSES + 1, False)])
def test_a_name_with_very_many_addresses_is_not_kept(addresses: int, known: bool) -> None:
    memory = Memory[list[str]]()
    memory.keep("a", ["1"] * addresses, NOW)
    assert (memory.answer("a", NOW) is not None) is known


# --- whose turn it is


def _taken(turns: Turns[str]) -> list[tuple[Hashable, Hashable]]:
    """All that may begin now."""
    return list(itertools.takewhile(bool, iter(turns.take, None)))


def _ask(turns: Turns[str], asker: str, count: int) -> int:
    """Ask for that many names; how many get into the line."""
    return sum(turns.wait(asker, f"{asker}{number}") for number in range(count))


def test_nobody_waits_where_there_are_places() -> None:
    turns = Turns[str]()
    assert turns.take() is None
    assert turns.wait("a", "x")
    assert turns.take() == ("a", "x")
    assert turns.take() is None


def test_one_alone_gets_half_of_the_places_in_the_order_of_its_names() -> None:
    turns = Turns[str](8)
    _ask(turns, "a", 20)
    assert _taken(turns) == [("a", f"a{number}") for number in range(4)]
    turns.give_back("a")
    assert _taken(turns) == [("a", "a4")]


def test_for_60_names_at_once_there_are_places() -> None:
    turns = Turns[str]()
    _ask(turns, "a", 61)
    assert len(_taken(turns)) == 61 <= PLACES / 2


@pytest.mark.parametrize("greedy", [1, 2, 3, 4, 5, 6])
def test_there_is_a_place_for_the_next_who_asks(greedy: int) -> None:
    turns = Turns[str]()
    for number in range(greedy):
        _ask(turns, f"greedy{number}", LONGEST_LINE)
        _taken(turns)
    turns.wait("modest", "x")
    assert ("modest", "x") in _taken(turns)


def test_who_wait_take_turns() -> None:
    turns = Turns[str](2)
    turns.wait("first", "x")
    assert turns.take() == ("first", "x")
    for asker in ("a", "b", "c"):
        _ask(turns, asker, 2)
    order = []
    for _ in range(6):
        (turn,) = _taken(turns)
        order.append(turn[1])
        turns.give_back(turn[0])
    assert order == ["a0", "b0", "c0", "a1", "b1", "c1"]


def test_a_name_that_two_ask_for_begins_in_the_first_turn_of_either() -> None:
    turns = Turns[str](4)
    _ask(turns, "a", 10)
    assert len(_taken(turns)) == 2
    turns.wait("a", "wanted")
    turns.wait("b", "wanted")
    assert _taken(turns) == [("b", "wanted")]
    for _ in range(2):
        turns.give_back("a")
    turns.give_back("b")
    names = [name for _, name in _taken(turns)]
    assert "wanted" not in names, "it is not looked up again"


def test_who_has_too_many_waiting_is_turned_away_alone() -> None:
    turns = Turns[str](0)
    assert _ask(turns, "a", 2 * LONGEST_LINE) == LONGEST_LINE
    assert turns.wait("a", "a0"), "this one waits already"
    assert turns.wait("b", "x")


def test_a_name_that_nobody_wants_any_more_gets_no_turn() -> None:
    turns = Turns[str]()
    for asker, name in (("a", "x"), ("a", "y"), ("b", "x")):
        turns.wait(asker, name)
    turns.leave("x")
    assert _taken(turns) == [("a", "y")]
    turns.give_back("a")
    assert (turns._lines, dict(turns._taken), turns._free) == ({}, {}, PLACES), "nothing is left behind"
