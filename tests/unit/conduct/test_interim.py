"""Which interim answers a client gets, and when it is told to send its body."""

from __future__ import annotations

import pytest

from jwtproxy.conduct.interim import LIMIT, Interims, is_interim
from jwtproxy.conduct.malformed import MalformedError

NEW, OLD, TWO = b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0"


@pytest.mark.parametrize(
    ("code", "interim"), [(99, False), (100, True), (101, False), (102, True), (103, True), (199, True), (200, False)]
)
def test_a_final_response_follows_every_interim_one_but_101(code: int, interim: bool) -> None:
    assert is_interim(code) is interim


@pytest.mark.parametrize("status", [100, 102, 103])
@pytest.mark.parametrize(
    ("client", "upstream", "passes"),
    [(NEW, NEW, True), (TWO, TWO, True), (NEW, TWO, False), (TWO, NEW, False), (OLD, NEW, False), (OLD, OLD, False)],
)
def test_it_passes_where_both_sides_speak_the_same_version(
    client: bytes, upstream: bytes, status: int, passes: bool
) -> None:
    assert Interims(client).receive(status, upstream) is passes


@pytest.mark.parametrize("upstream", [NEW, TWO])
def test_who_waits_for_leave_gets_it_once_whatever_the_upstream_speaks(upstream: bytes) -> None:
    interims = Interims(NEW, expects=True)
    assert interims.waits
    assert [interims.receive(100, upstream) for _ in range(3)] == [True, False, False]
    assert not interims.waits


def test_who_was_told_by_us_is_not_told_again() -> None:
    interims = Interims(NEW, expects=True)
    assert interims.end()
    assert not interims.end()
    assert not interims.receive(100, NEW)
    assert interims.receive(103, NEW)


def test_another_interim_answer_gives_no_leave() -> None:
    interims = Interims(NEW, expects=True)
    assert interims.receive(103, NEW)
    assert interims.waits


@pytest.mark.parametrize("version", [NEW, OLD, TWO])
def test_there_is_an_end_to_them(version: bytes) -> None:
    interims = Interims(version)
    for _ in range(LIMIT):
        interims.receive(103, NEW)
    with pytest.raises(MalformedError, match=r"^the server sent more than 64 interim answers$"):
        interims.receive(103, NEW)
