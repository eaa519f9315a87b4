"""What is loaded at the start of each Python: it costs nothing, hides nothing, and has aiohttp find the proxy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jwtproxy.launcher.clients.bundles import PYTHON

PYTHONS = sorted({sys.executable, *map(str, Path("/usr/bin").glob("python3.[0-9]*[0-9]"))})
"""This one, and those of the system, which may be older."""
CLIENT = """
class ClientSession:
    def __init__(self, base=None, *, trust_env=False):
        "Made."
        self.trust_env = trust_env
"""
LOOK = """
import sys
early = [name for name in ("aiohttp", "functools", "importlib.util", "typing") if name in sys.modules]
import aiohttp.client, inspect, sitecustomize
from aiohttp import ClientSession
class Own(ClientSession): pass
print(ClientSession().trust_env, Own().trust_env, ClientSession(trust_env=False).trust_env,
      "trust_env" in inspect.signature(ClientSession).parameters, ClientSession.__init__.__doc__)
print(getattr(sitecustomize, "MINE", "ours"))
print("aiohttp" in early)
"""


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A folder with an aiohttp of the same shape."""
    folder = tmp_path / "library"
    (folder / "aiohttp").mkdir(parents=True)
    (folder / "aiohttp" / "__init__.py").write_text("from .client import ClientSession\n")
    (folder / "aiohttp" / "client.py").write_text(CLIENT)
    return folder


def _run(python: str, path: list[Path | str], code: str = LOOK) -> list[str]:
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(map(str, path)),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [python, "-W", "error", "-c", code]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=20, check=False)
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.parametrize("python", PYTHONS)
def test_aiohttp_asks_the_environment_unless_it_is_told_otherwise(python: str, library: Path) -> None:
    assert _run(python, [PYTHON, library]) == ["True True False True Made.", "ours", "False"]


@pytest.mark.parametrize("python", PYTHONS)
def test_the_next_sitecustomize_is_loaded(python: str, library: Path) -> None:
    (library / "sitecustomize.py").write_text("import sys\nMINE = 'mine'\nsys.path.append('/added')\n")
    assert _run(python, [PYTHON, library]) == ["True True False True Made.", "mine", "False"]
    (path,) = _run(python, [PYTHON, library], "import sys; print(':'.join(sys.path))")
    assert path.startswith(f":{PYTHON}:{library}:")
    assert path.endswith(":/added")


def test_what_is_wrong_with_the_next_one_is_told(library: Path) -> None:
    (library / "sitecustomize.py").write_text("import no_such_module\n")
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join([PYTHON, str(library)])}
    done = subprocess.run([sys.executable, "-c", ""], env=environ, capture_output=True, text=True, check=False)
    assert "no_such_module" in done.stderr


def test_a_python_that_imports_in_another_way_is_left_alone() -> None:
    """Version 2 would find nothing any more."""
    code = f"import runpy, sys; sys.version_info = 2, 7; runpy.run_path({PYTHON!r} + '/sitecustomize.py')"
    look = "print([one for one in sys.meta_path if type(one).__name__ == '_Finder'])"
    assert _run(sys.executable, [], f"{code}\n{look}") == ["[]"]


@pytest.mark.parametrize("python", sorted(map(str, Path("~/.pyenv/versions").expanduser().glob("2.*/bin/python"))))
def test_such_a_python_loads_the_next_one(python: str, library: Path) -> None:
    (library / "sitecustomize.py").write_text("MINE = 'mine'\n")
    look = "import sitecustomize, json; print(sitecustomize.MINE)"
    assert _run(python, [PYTHON, library], look) == ["mine"]
    assert _run(python, [PYTHON], "import json; print(json.dumps(1))") == ["1"]


def test_without_aiohttp_nothing_happens() -> None:
    code = "import importlib.util\ntry: import aiohttp.client\nexcept ImportError as error: print(error.name)"
    assert _run("/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable, [PYTHON], code) in (
        ["aiohttp"],
        [],
    )
