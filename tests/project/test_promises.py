"""SECURITY.md promises what tests prove, and each of these is known to fail where its promise is broken."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.project import promises
from tests.project.promises import PROMISES, ROOT, Copy, Promise
from tests.support.harness import thorough

PAGE = (ROOT / "SECURITY.md").read_text()
NAMED = re.findall(r"^\| .+ \| `([\w/.]+::\w+)` \|$", PAGE, re.MULTILINE)


def test_each_promise_names_its_test_and_each_test_has_its_fault() -> None:
    assert len(NAMED) > 30
    assert max(Counter(NAMED).values()) == 1
    assert set(NAMED) == {promise.test for promise in PROMISES}


@pytest.mark.parametrize("test", NAMED)
def test_a_test_that_is_named_exists(test: str) -> None:
    path, name = test.split("::")
    tree = ast.parse((ROOT / "tests" / path).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.test)
def test_a_fault_can_be_planted(promise: Promise) -> None:
    """It stands there once, and what comes of it is Python."""
    text = (ROOT / promise.source).read_text()
    assert text.count(promise.old) == 1
    assert promise.new != promise.old
    ast.parse(text.replace(promise.old, promise.new))


def test_nobody_reads_a_page_that_is_long() -> None:
    assert len(PAGE.splitlines()) < 110


@pytest.mark.slow
def test_a_copy_runs_its_own_code_in_processes_too(tmp_path: Path) -> None:
    copy = Copy(tmp_path)
    where = "import jwtproxy.launcher.cli, jwtproxy.conduct as it; print(jwtproxy.launcher.cli.__file__, it.__file__)"
    done = subprocess.run([copy.python, "-P", "-c", where], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.split() == [
        str(copy.root / "launcher/cli.py"),
        str(copy.root / "addons/jwtproxy/conduct/__init__.py"),
    ]
    assert (copy.python.parent / "mitmdump").read_text().count(sys.prefix + "/bin") == 0


@pytest.mark.slow
@thorough  # of what `make promises` prints; that the promises fit the sources is shown above, always
def test_what_is_not_caught_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    test = "unit/conduct/test_crowd.py::test_each_client_has_its_own_limit"
    source = "addons/jwtproxy/conduct/crowd.py"
    caught = Promise(test, source, "own >= self.most_each", "own > 9 * self.most_each")
    missed = Promise(test, source, "too many connections of this client", "go away")
    monkeypatch.setattr(promises, "PROMISES", (caught, missed))
    assert promises.main([]) == 1
    *_, first, second, total = capsys.readouterr().out.splitlines()
    assert first.endswith("| caught |")
    assert second.endswith("| not caught |")
    assert total == "2 promises, 1 faults caught"
