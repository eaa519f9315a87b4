"""How much is taken at a time, and how many of something."""

import pytest

from jwtproxy.conduct.fair import FIRST, LEAST, TURN, Budget, portion

MOST = 1 << 18


@pytest.mark.parametrize(
    ("now", "size", "took", "then"),
    [
        (FIRST, FIRST, TURN / 4, 2 * FIRST),
        (MOST, MOST, TURN / 4, MOST),
        (FIRST, FIRST, TURN * 0.9, FIRST),
        (FIRST, 100, TURN / 100, FIRST),
        (FIRST, FIRST, 2 * TURN, FIRST // 2),
        (FIRST, FIRST, 1000 * TURN, LEAST),
        (LEAST, LEAST, 1.0, LEAST),
        (LEAST, LEAST, TURN / 4, 2 * LEAST),
    ],
)
def test_what_takes_long_is_taken_in_smaller_portions(now: int, size: int, took: float, then: int) -> None:
    assert portion(now, size, took, MOST) == then


def test_a_budget_is_so_many_at_once_and_so_many_a_second() -> None:
    budget = Budget(3, 2)
    assert [budget.spend(10.0) for _ in range(4)] == [True, True, True, False]
    assert [budget.spend(11.5) for _ in range(3)] == [True, True, False], "one was beyond it"
    assert [budget.spend(100.0) for _ in range(4)] == [True, True, True, False], "never more than at once"


def test_a_refund_is_never_more_than_at_once() -> None:
    budget = Budget(2, 0)
    assert budget.spend(0)
    budget.refund(10)
    assert [budget.spend(0) for _ in range(3)] == [True, True, False]
