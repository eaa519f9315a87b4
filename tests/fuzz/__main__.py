"""Fuzz for FUZZ_SECONDS (600) in all, or only FUZZ="keys http2".

    python -m tests.fuzz NAME FILE

tries one value again.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

from . import http1, http2, inside, websockets
from .stage import Stage
from .target import Result, Target, fuzz

FINDS = Path(".hypothesis/finds")


def targets(stage: Stage) -> dict[str, Target]:
    """All of them, by name."""
    found = [
        *inside.targets(stage.folder / "files"),
        *http1.targets(stage),
        *http2.targets(stage),
        *websockets.targets(stage),
    ]
    return {target.name: target for target in found}


def main(arguments: Sequence[str]) -> int:
    """Print a line for each target; 1 if there was a find."""
    warnings.simplefilter("ignore", FutureWarning)  # re's, of filters whose sets look nested
    with tempfile.TemporaryDirectory(prefix="fuzz") as folder, Stage(Path(folder)) as stage:
        found = targets(stage)
        if arguments:
            name, path = arguments
            wrong = found[name].check(Path(path).read_bytes()) or stage.deaf()
            print(wrong or "nothing is wrong")
            return int(bool(wrong))
        chosen = os.environ.get("FUZZ", "").split() or list(found)
        if unknown := sorted(set(chosen) - set(found)):
            print(f"FUZZ names {', '.join(unknown)}; there are {', '.join(found)}", file=sys.stderr)
            return 2
        seconds = float(os.environ.get("FUZZ_SECONDS") or 600) / len(chosen)
        return int(sum(_fuzz(found[name], stage, seconds) for name in chosen) > 0)


def _fuzz(target: Target, stage: Stage, seconds: float) -> bool:
    result = fuzz(target, seconds)
    result.wrong = result.wrong or stage.deaf()
    print(f"{target.name:15} {result.tried:7} tried  {'FOUND' if result.wrong else 'nothing'}", flush=True)
    if result.wrong:
        _show(target, result)
    return bool(result.wrong)


def _show(target: Target, result: Result) -> None:
    print(f"  {result.value!r}\n  {result.wrong[:3000]}")
    if result.value is not None:
        path = FINDS / target.name / hashlib.sha256(result.value).hexdigest()[:16]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(result.value)
        print(f"  again: .venv/bin/python -m tests.fuzz {target.name} {path}; mended: move it to tests/fuzz/corpus")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
