"""A token says who, when and which, and nothing else."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwtproxy.claims import default_claims

times = st.floats(0, 253402300799, allow_nan=False)  # to the end of the year 9999


@pytest.fixture
def far_from_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "KIRI-14")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_the_claims_are_exactly_these() -> None:
    claims = default_claims("alice", 1_700_000_000.9)
    assert re.fullmatch(r"[0-9a-f]{32,}", claims.pop("jti")), "128 bits or more"
    assert claims == {"iat": 1_700_000_000, "payload": {"user": "alice", "date": "2023-11-14"}}
    assert type(claims["iat"]) is int


@given(times, st.text())
def test_iat_and_date_are_those_of_the_request(now: float, user: str) -> None:
    claims = default_claims(user, now)
    assert claims["iat"] <= now < claims["iat"] + 1
    assert claims["payload"] == {"user": user, "date": datetime.fromtimestamp(claims["iat"], UTC).strftime("%Y-%m-%d")}


@pytest.mark.usefixtures("far_from_utc")
@pytest.mark.parametrize(
    ("now", "date"),
    [(0, "1970-01-01"), (86_399.999, "1970-01-01"), (86_400, "1970-01-02"), (1_709_164_800, "2024-02-29")],
)
def test_the_day_is_that_of_utc(now: float, date: str) -> None:
    assert default_claims("", now)["payload"]["date"] == date


def test_no_two_tokens_share_a_jti() -> None:
    assert len({default_claims("", 0)["jti"] for _ in range(10_000)}) == 10_000


def test_a_claim_changed_afterwards_does_not_change_the_next_token() -> None:
    default_claims("alice", 0)["payload"]["user"] = "mallory"
    assert default_claims("alice", 0)["payload"] == {"user": "alice", "date": "1970-01-01"}
