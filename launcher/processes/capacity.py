"""How many workers: what was asked for, what the machine has, what the options allow."""

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mitmproxy.options import Options
from mitmproxy.proxy.mode_specs import ProxyMode

from jwtproxy.config.errors import SettingsError
from jwtproxy.mitm import stock

MEMORY_PER_WORKER = 64 * 1024 * 1024
"""Bytes that a worker must be allowed to use."""
_MOST = 512


def parse(value: str, origin: str) -> int | None:
    """A number of workers; None for `auto`. Raises SettingsError."""
    if value == "auto":
        return None
    if value.isascii() and value.isdigit() and len(value) <= 3 and 1 <= int(value) <= _MOST:
        return int(value)
    raise SettingsError(f"bad value {value!r} for {origin}", f"use a number from 1 to {_MOST}, or auto")


def decide(asked: int | None, options: Options) -> tuple[int, str]:
    """How many workers to run, and why not more where `auto` had to give way. Raises SettingsError."""
    reason = stock.single_process(options)
    if asked is None:
        return (1, reason) if reason else (usable(), "")
    if asked > 1 and reason:
        raise SettingsError(f"{asked} workers cannot be used: {reason}", "use one worker: WORKERS=1 or --workers 1")
    return asked, ""


def keep_to_tcp(modes: Iterable[str]) -> None:
    """Have a mode that would listen on UDP too, which workers cannot share, keep to TCP."""
    for spec in modes:
        if spec.startswith(stock.ALSO_UDP):
            mode: Any = ProxyMode.parse(spec)  # the one object for this spec: mitmproxy parses it once
            mode.transport_protocol = "tcp"


def usable() -> int:
    """The cores this process may use, but no more than fit into its memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = _cgroup_memory()
    fitting = cores if memory is None else memory // MEMORY_PER_WORKER
    return max(1, min(cores, _cgroup_cores() or cores, fitting, _MOST))


def _cgroup_cores() -> int | None:
    """The CPU quota of our control group, rounded up to whole cores."""
    quota, _, period = _cgroup("cpu.max", "cpu/cpu.cfs_quota_us").partition(" ")
    period = period or _cgroup("", "cpu/cpu.cfs_period_us")
    if quota.isdigit() and period.isdigit():
        return math.ceil(int(quota) / int(period))
    return None


def _cgroup_memory() -> int | None:
    """The memory limit of our control group, in bytes."""
    limit = _cgroup("memory.max", "memory/memory.limit_in_bytes")
    return int(limit) if limit.isdigit() else None


def _cgroup(unified: str, legacy: str) -> str:
    """A control file of our group, of version 2 or else 1; empty if there is none."""
    root = Path("/sys/fs/cgroup")
    own = next((line[3:] for line in _lines(Path("/proc/self/cgroup")) if line.startswith("0::")), "/").lstrip("/")
    for path in (root / own / unified, root / unified, root / legacy):
        if lines := _lines(path):
            return lines[0]
    return ""


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
