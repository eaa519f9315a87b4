"""The command of clients that are run together: runs what is planned, a few at a time, and notes what came of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def _run(one: Sequence[str]) -> tuple[str, tuple[int, str]]:
    name, command, desk = one
    environment = {**os.environ, "HOME": desk}
    done = subprocess.run(
        ["timeout", "30", "sh", "-c", command], cwd=desk, env=environment, capture_output=True, text=True, check=False
    )
    return name, (done.returncode, done.stdout + done.stderr)


if __name__ == "__main__":
    desk = Path(sys.argv[1])
    with ThreadPoolExecutor(3) as pool:
        told = dict(pool.map(_run, json.loads((desk / "plan").read_text())))
    (desk / "told").write_text(json.dumps(told))
