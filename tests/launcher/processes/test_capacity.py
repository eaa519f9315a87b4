"""How many workers serve."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from mitmproxy.options import Options
from mitmproxy.proxy.mode_specs import ProxyMode

from jwtproxy.config.errors import SettingsError
from jwtproxy.launcher.master import Master
from jwtproxy.launcher.processes import capacity

pytestmark = pytest.mark.usefixtures("pristine")


def _decide(asked: int | None, **options: Any) -> tuple[int, str]:
    async def run() -> tuple[int, str]:
        master = Master(Options())
        master.options.update(**options)
        return capacity.decide(asked, master.options)

    return asyncio.run(run())


def test_what_is_asked_for_is_what_runs() -> None:
    assert [_decide(asked) for asked in (1, 2, 512)] == [(1, ""), (2, ""), (512, "")]
    assert _decide(None) == (capacity.usable(), "")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"hardump": "x.har"}, "hardump"),
        ({"stickycookie": "."}, "stickycookie"),
        ({"stickyauth": "."}, "stickyauth"),
        ({"mode": ["dns"]}, "mode dns"),
        ({"mode": ["regular", "reverse:udp://up.example:9"]}, "mode reverse:udp"),
    ],
)
def test_what_must_be_in_one_process_is(options: dict[str, Any], named: str) -> None:
    assert _decide(1, **options) == (1, "")
    workers, reason = _decide(None, **options)
    assert workers == 1
    assert named in reason
    with pytest.raises(SettingsError, match=f"^2 workers cannot be used: .*{named}") as caught:
        _decide(2, **options)
    assert "WORKERS=1" in caught.value.hint


def test_a_mode_that_would_also_listen_on_udp_can_keep_to_tcp() -> None:
    specs = ["reverse:https://shared.example", "regular", "reverse:udp://up.example:9"]
    capacity.keep_to_tcp(specs)
    assert [ProxyMode.parse(spec).transport_protocol for spec in specs] == ["tcp", "tcp", "udp"]


def test_at_least_one_worker_and_no_more_than_cores() -> None:
    assert 1 <= capacity.usable() <= 512


@pytest.mark.parametrize(
    ("files", "workers"),
    [
        ({}, 64),
        ({"memory.max": "max", "cpu.max": "max 100000"}, 64),
        ({"memory.max": str(3 * capacity.MEMORY_PER_WORKER + 1)}, 3),
        ({"memory.max": "1"}, 1),
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "400000 100000", "memory.max": str(10 * capacity.MEMORY_PER_WORKER)}, 4),
        ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64),
        ({"memory/memory.limit_in_bytes": str(5 * capacity.MEMORY_PER_WORKER)}, 5),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_the_limits_of_the_control_group_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], workers: int, nested: bool
) -> None:
    own, legacy = ("own/group", any("/" in name for name in files)) if nested else ("", False)
    (tmp_path / "self").write_text(f"1:name=systemd:/x\n0::/{own}\n")
    for name, content in files.items():
        path = tmp_path / "cgroup" / ("" if legacy else own) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    places = {"/sys/fs/cgroup": tmp_path / "cgroup", "/proc/self/cgroup": tmp_path / "self"}
    monkeypatch.setattr(capacity, "Path", lambda path: places[path])
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    assert capacity.usable() == workers
