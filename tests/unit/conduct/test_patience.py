"""Who guesses passwords has to wait longer and longer; who knows one does not."""

from jwtproxy.conduct.patience import Patience

WHO, OTHER = "192.0.2.1", "192.0.2.2"


def after(wrong: int, *, most: int = 3, now: float = 100.0) -> Patience:
    patience = Patience()
    for _ in range(wrong):
        assert most
        patience.was_wrong(WHO, now)
    return patience


def test_the_first_few_cost_nothing_then_each_doubles_the_wait() -> None:
    waits = [after(wrong).wait(WHO, "x", 100.0, 3) for wrong in range(12)]
    assert waits == [0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_it_ends_and_others_do_not_wait() -> None:
    patience = after(5)
    assert patience.wait(WHO, "x", 103.9, 3) == 1
    assert patience.wait(WHO, "x", 104.0, 3) == 0
    assert patience.wait(OTHER, "x", 100.0, 3) == 0


def test_without_a_limit_nobody_waits() -> None:
    assert after(100).wait(WHO, "x", 100.0, 0) == 0


def test_what_was_right_is_looked_at_for_the_same_client() -> None:
    patience = after(10)
    patience.was_right(WHO, "good")
    assert patience.wait(WHO, "good", 100.0, 3) == 0
    assert patience.wait(WHO, "other", 100.0, 3) == 60
    for _ in range(10):
        patience.was_wrong(OTHER, 100.0)
    assert patience.wait(OTHER, "good", 100.0, 3) == 60


def test_a_right_one_does_not_make_up_for_wrong_ones() -> None:
    """Who has a password of his own could guess those of others."""
    patience = after(5)
    patience.was_right(WHO, "good")
    assert patience.wait(WHO, "x", 100.0, 3) == 4


def test_wrong_ones_are_forgotten() -> None:
    patience = after(5)
    patience.was_wrong(WHO, 1000.0)
    assert patience.wait(WHO, "x", 1000.0, 3) == 0


def test_many_clients_and_passwords_do_not_fill_the_memory() -> None:
    patience = Patience()
    for number in range(3000):
        patience.was_wrong(str(number), 1.0)
        patience.was_right(str(number), "x")
    assert len(patience._wrong) <= 1024
    assert len(patience._right) <= 1024
    assert patience.wait("2999", "y", 1.0, 1) == 1


def test_passwords_are_not_kept() -> None:
    patience = Patience()
    patience.was_right(WHO, "secret")
    assert "secret" not in repr(vars(patience))
