"""Each command that README.md and the manual show does what it says, as it stands there, typed by a reader."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.support import manual, namespace
from tests.support.harness import REPO, SECRET, rows

pytestmark = pytest.mark.skipif(bool(namespace.unable(network=True)), reason=namespace.unable(network=True))

PAGES = {"README": REPO / "README.md"} | {page.stem: page for page in sorted((REPO / "launcher/help").glob("*.md"))}

ELSEWHERE = {
    "make": ".ci/front-door",
    "docker": "tests/docker/acceptance.py",
    "kubectl": "there is no cluster here; tests/project/test_readme.py reads the manifest",
}
"""What is not typed here, and where it is done; with docker, the whole of its block."""


def typed(page: str) -> list[str]:
    """What is typed of a page."""
    found: list[str] = []
    for block in manual.blocks(PAGES[page].read_text()):
        if not any(line.startswith("docker ") for line in block):
            found += [line for line in block if line.split()[0] not in ELSEWHERE]
    return found


def _desk(folder: Path, authority: Path) -> None:
    """A checkout after `make run`, with what its user has, and a pipx that has nothing to do."""
    shutil.copytree(authority, folder / ".mitmproxy")
    for name in ("addons", ".venv"):
        (folder / name).symlink_to(REPO / name)
    (folder / ".env").write_text(f"JWT_SHARED_SECRET={SECRET}\n")
    (folder / "mine.py").write_text("def request(flow): ...\n")
    shutil.copy(authority / "mitmproxy-ca-cert.pem", folder / "my-ca.pem")
    (folder / "bin").mkdir()
    (folder / "bin/pipx").write_text('#!/bin/sh\n[ "$*" = "inject mitmproxy pyjwt" ]\n')
    (folder / "bin/pipx").chmod(0o755)


def _write_rules(folder: Path, text: str) -> None:
    """The file of rules that a page shows whole."""
    if block := re.search(r"^```yaml\n(default:.*?)^```$", text, re.MULTILINE | re.DOTALL):
        (folder / "rules.yaml").write_text(block[1])


@pytest.mark.parametrize("page", rows({page: page for page in PAGES if typed(page)}, "README", "rules"))
def test_what_is_shown_can_be_typed(page: str, tmp_path: Path, confdir: Path) -> None:
    text = PAGES[page].read_text()
    _desk(tmp_path, confdir)
    _write_rules(tmp_path, text)
    lines = typed(page)
    if "curl" in lines[0]:  # as `make run` has been typed before
        lines.insert(0, "jwtproxy-run")
    ran = manual.play(tmp_path, lines, {})
    expected = {line: 2 if f"$ {line}\njwtproxy: error" in text else 0 for line in lines}
    assert {one.line: one.status for one in ran} == expected, "\n".join(f"{one.line}\n{one.output}" for one in ran)
