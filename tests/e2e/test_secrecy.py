"""What `jwtproxy-run` keeps from its scripts, and from others on the machine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.harness import StartProxy

SCRIPT = """
import ctypes, os, resource

def running():
    kept = [name for name in ("JWT_SHARED_SECRET", "JWT_KEY_PASSPHRASE") if name in os.environ]
    print("kept:", kept, resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_a_running_proxy_has_its_key_nowhere_but_in_a_memory_that_nobody_reads(
    start_proxy: StartProxy, tmp_path: Path
) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    proxy = start_proxy("-s", str(tmp_path / "script.py"), env={"JWT_KEY_PASSPHRASE": "x"})
    assert proxy.wait_for_output(r"kept: (.*)")[1] == "[] (0, 0) 0"
