"""What the proxy stands on gives way under load: each request is answered or refused, and signed; it recovers."""

from __future__ import annotations

import pytest

from tests.chaos.faults import FAULTS, Fault
from tests.chaos.play import play
from tests.support.harness import rows


@pytest.mark.timeout(120)
@pytest.mark.parametrize("workers", rows({"1": 1, "3": 3}, "1"))
def test_the_promises_are_kept(workers: int) -> None:
    chosen = [fault for fault in FAULTS if not _is_slow(fault)]
    assert play(workers, print, 0.2, chosen) == []


def _is_slow(fault: Fault) -> bool:
    return fault.least > 1
