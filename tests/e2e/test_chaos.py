"""What the proxy stands on gives way under load: each request is answered or refused, and signed; it recovers."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.harness import REPO, rows

FEW = "disk full,upstream killed,key file broken,no descriptors,no memory"
"""Faults that are felt at once; they are about all that it stands on, but for names and workers."""
ROUNDS = {"few": ("1", FEW), "1": ("1", ""), "3": ("3", "")}


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize(("workers", "faults"), rows(ROUNDS, "few"))
def test_the_promises_are_kept(workers: str, faults: str) -> None:
    env = {**os.environ, "CHAOS_SECONDS": "10", "CHAOS_WORKERS": workers, "CHAOS_FAULTS": faults}
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos"], cwd=REPO, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "a worker killed" in done.stdout or workers == "1"
