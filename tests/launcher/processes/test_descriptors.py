"""The limit of descriptors is raised as far as it goes."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from jwtproxy.launcher.processes import descriptors


@pytest.fixture(autouse=True)
def limits() -> Iterator[tuple[int, int]]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_soft_limit_becomes_the_hard_one(limits: tuple[int, int]) -> None:
    hard = limits[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard - 1, hard))
    assert descriptors.limit() == hard - 1
    descriptors.raise_limit()
    assert descriptors.limit() == hard


def test_a_system_that_refuses_leaves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    before = descriptors.limit()
    descriptors.raise_limit()
    assert descriptors.limit() == before


def test_no_limit_is_a_high_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert descriptors.limit() > 1 << 20
