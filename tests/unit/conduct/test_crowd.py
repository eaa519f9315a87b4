"""How many connections there are, of all clients and of each."""

import pytest

from jwtproxy.conduct.crowd import (
    TOO_MANY_UPSTREAM,
    Crowd,
    Full,
    is_full,
    most_each_for,
    most_for,
    most_upstream_for,
    site,
)


def crowd(most: int = 0, most_each: int = 0) -> Crowd:
    made = Crowd()
    made.most, made.most_each = most, most_each
    return made


def test_without_a_limit_there_is_always_room() -> None:
    there = crowd()
    assert {there.enter("a") for _ in range(1000)} == {None}
    assert there.size == 1000


def test_all_clients_share_the_first_limit() -> None:
    there = crowd(most=3)
    assert [there.enter(who) for who in "abcd"] == [None, None, None, Full.ALL]
    there.leave("b")
    assert there.enter("d") is None
    assert there.enter("e") is Full.ALL


def test_each_client_has_its_own_limit() -> None:
    there = crowd(most=3, most_each=2)
    assert [there.enter(who) for who in "aaab"] == [None, None, Full.CLIENT, None]
    there.leave("a")
    assert there.enter("a") is None
    assert there.enter("a") is Full.ALL


def test_who_was_not_let_in_is_not_counted() -> None:
    there = crowd(most_each=1)
    assert [there.enter("a") for _ in range(3)] == [None, Full.CLIENT, Full.CLIENT]
    there.leave("a")
    assert there.size == 0


def test_clients_that_have_left_are_forgotten() -> None:
    there = crowd()
    for number in range(100):
        there.enter(str(number))
    for number in range(100):
        there.leave(str(number))
    assert there._each == {}


@pytest.mark.parametrize(("full", "text"), [(Full.ALL, "too many connections"), (Full.CLIENT, "of this client")])
def test_a_client_is_told(full: Full, text: str) -> None:
    assert text in full.text


@pytest.mark.parametrize(
    ("descriptors", "most"), [(8, 1), (34, 1), (64, 16), (1024, 496), (2048, 1008), (1 << 20, 16_384)]
)
def test_two_descriptors_are_for_each_connection(descriptors: int, most: int) -> None:
    assert most_for(descriptors) == most


@pytest.mark.parametrize(("most", "each"), [(0, 0), (1, 1), (2, 1), (1008, 504)])
def test_one_client_may_have_half(most: int, each: int) -> None:
    assert most_each_for(most) == each


@pytest.mark.parametrize(("most", "upstream"), [(0, 0), (2, 500), (500, 500), (900, 900)])
def test_each_may_have_an_upstream_and_few_may_have_many(most: int, upstream: int) -> None:
    assert most_upstream_for(most, 500) == upstream


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:0:0:2", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_an_ipv6_network_is_one_client(address: str, expected: str) -> None:
    assert site(address) == expected


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (TOO_MANY_UPSTREAM, True),
        (f"Connection killed: {TOO_MANY_UPSTREAM}", True),
        (f"the proxy says: {TOO_MANY_UPSTREAM}", False),
        ("connection refused", False),
    ],
)
def test_the_reason_is_known_again(reason: str, expected: bool) -> None:
    assert is_full(reason) is expected
