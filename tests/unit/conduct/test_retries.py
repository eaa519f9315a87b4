"""A request is sent again only where that can do no harm."""

from itertools import product

import pytest

from jwtproxy.conduct.retries import may_go_again

IDEMPOTENT = [b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"]
OTHERS = [b"POST", b"PATCH", b"CONNECT", b"get", b"LOCK", b""]


@pytest.mark.parametrize("method", [*IDEMPOTENT, *OTHERS])
def test_who_was_told_that_nothing_was_done_may_ask_again(method: bytes) -> None:
    """RFC 9113 §8.7."""
    for reused, bodiless in product((True, False), repeat=2):
        assert may_go_again(method, untouched=True, reused=reused, bodiless=bodiless, held=True)
        assert not may_go_again(method, untouched=True, reused=reused, bodiless=bodiless, held=False)


@pytest.mark.parametrize(("method", "may"), [*((one, True) for one in IDEMPOTENT), *((one, False) for one in OTHERS)])
def test_else_only_what_may_be_done_twice(method: bytes, may: bool) -> None:
    """RFC 9110 §9.2.2."""
    assert may_go_again(method, untouched=False, reused=True, bodiless=True, held=True) is may


@pytest.mark.parametrize(("reused", "bodiless"), [(False, True), (True, False), (False, False)])
def test_and_not_what_a_new_connection_ended_with_nor_what_has_a_body(reused: bool, bodiless: bool) -> None:
    assert not may_go_again(b"GET", untouched=False, reused=reused, bodiless=bodiless, held=True)
