"""What is fuzzed, and how long. Values are bytes: a find is a file, kept in `corpus/<target>/` once it is mended."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase

CORPUS = Path(__file__).parent / "corpus"
HANG = 20
"""Seconds after which a value is a find, whatever comes of it."""
SHRINKING = 30.0
"""Seconds for making a find smaller."""

_AT_A_TIME = 500
_DATABASE = DirectoryBasedExampleDatabase(Path(__file__).parents[2] / ".hypothesis/fuzz")


@dataclass(frozen=True)
class Target:
    """Something that reads bytes: what to give it, and what is wrong with what it then does; empty: nothing."""

    name: str
    values: st.SearchStrategy[bytes]
    check: Callable[[bytes], str]

    def kept(self) -> Iterator[Path]:
        """Values to begin with, each of which was a find once."""
        yield from sorted((CORPUS / self.name).glob("*"))


@dataclass
class Result:
    """What came of a target: how many values were tried, and one with which something is wrong."""

    tried: int = 0
    value: bytes | None = None
    wrong: str = ""


def fuzz(target: Target, seconds: float) -> Result:
    """Try values for so long, those of the corpus first; if one is a find, a small one like it."""
    result = Result()
    for path in target.kept():
        _try(target, path.read_bytes(), result)
    end = time.monotonic() + seconds
    while not result.wrong and time.monotonic() < end:
        _search(target, end, result)
    return result


def _search(target: Target, end: float, result: Result) -> None:
    @settings(
        max_examples=_AT_A_TIME,
        deadline=None,
        database=_DATABASE,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @given(target.values)
    def search(value: bytes) -> None:
        nonlocal end
        if time.monotonic() > end:
            return
        before = result.wrong
        wrong = _try(target, value, result)
        if wrong and not before:
            end = time.monotonic() + SHRINKING
        assert not wrong

    try:
        search()
    except BaseException:  # AssertionError, or hypothesis's own where a find is not one each time
        if not result.wrong:
            raise


def _try(target: Target, value: bytes, result: Result) -> str:
    """Try one value; the smallest find is noted."""
    result.tried += 1
    try:
        with _bounded():
            wrong = target.check(value)
    except Exception as error:  # whatever it is, it is a find
        wrong = f"{type(error).__name__}: {error}"
    if wrong and (result.value is None or len(value) <= len(result.value)):
        result.value, result.wrong = value, wrong
    return wrong


@contextmanager
def _bounded() -> Iterator[None]:
    def ring(*_: Any) -> None:
        raise TimeoutError(f"nothing within {HANG} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(HANG)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# --- values


@st.composite
def changed(draw: st.DrawFn, seeds: Sequence[bytes], pieces: Sequence[bytes] = (), most: int = 6) -> bytes:
    """One of these with a few changes: bits, bytes, spans, and pieces of its language."""
    value: bytes = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, most))):
        at = draw(st.integers(0, len(value)))
        end = min(len(value), at + draw(st.integers(1, 40)))
        match draw(st.integers(0, 5 if pieces else 4)):
            case 0 if at < len(value):
                value = value[:at] + bytes([value[at] ^ 1 << draw(st.integers(0, 7))]) + value[at + 1 :]
            case 1:
                value = value[:at] + value[end:]
            case 2:
                value = value[:end] + value[at:end] + value[end:]
            case 3:
                value = value[:at] + draw(st.binary(min_size=1, max_size=4)) + value[at:]
            case 4:
                value = value[:at] + draw(st.sampled_from(seeds))[-end:]
            case 5:
                value = value[:at] + draw(st.sampled_from(pieces)) + value[at:]
    return value
