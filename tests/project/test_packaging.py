"""The package as users install it: offline, outside the source tree, into environments of its own."""

import itertools
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.support.harness import thorough

ROOT = Path(__file__).parents[2]
VERSION = re.findall(r'^__version__ = "(.+)"$', (ROOT / "addons/jwtproxy/__init__.py").read_text(), re.MULTILINE)[0]
DIST_INFO = f"jwtproxy-{VERSION}.dist-info"

pytestmark = pytest.mark.slow


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the source: a build leaves files behind."""
    copy = tmp_path / "source"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("addons", "launcher", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


class Environment:
    """A virtual environment that holds nothing yet."""

    def __init__(self, folder: Path) -> None:
        run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
        self.bin = folder / "bin"
        self.site_packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))

    def install(self, wheel: Path) -> set[str]:
        """Install a wheel without its dependencies; what site-packages gained."""
        before = self._names()
        options: list[str | Path] = ["--isolated", "--disable-pip-version-check", "--python", self.bin / "python"]
        run(sys.executable, "-m", "pip", *options, "install", "--no-index", "--no-deps", wheel, cwd=self.bin)
        return self._names() - before

    def importable(self, *modules: str) -> set[str]:
        """Those of the modules that an import would find."""
        code = "import sys; from importlib.util import find_spec; print(*filter(find_spec, sys.argv[1:]))"
        return set(run(self.bin / "python", "-c", code, *modules, cwd=self.bin).split())

    def borrow_dependencies(self) -> None:
        """Let the environment import what the one of the tests has, but not its editable jwtproxy."""
        (self.site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def _names(self) -> set[str]:
        return {path.name for path in self.site_packages.iterdir()} - {"__pycache__"}


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path / "environment")


def run(*command: str | Path, cwd: Path) -> str:
    """What the command printed; it must succeed, and see nothing of this process's settings."""
    done = subprocess.run(
        command, cwd=cwd, env={"PATH": os.defpath, "HOME": str(cwd)}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(source: Path, kind: str) -> Path:
    """What a build front end without isolation does; kind: sdist, wheel or editable."""
    out = source.parent / kind
    out.mkdir()
    hook = f"from setuptools import build_meta; build_meta.build_{kind}(r'{out}')"
    run(sys.executable, "-c", hook, cwd=source)
    (built,) = out.iterdir()
    return built


def wheel_names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def installed_names() -> set[str]:
    """What the wheel must hold, after the source."""
    sources = [
        ("jwtproxy", "addons/jwtproxy", "**/*.py"),
        ("jwtproxy", "addons/jwtproxy", "**/*.css"),
        ("jwtproxy", "addons/jwtproxy", "**/*.js"),
        ("jwtproxy/addons", "addons", "*.py"),
        ("jwtproxy/launcher", "launcher", "**/*.py"),
        ("jwtproxy/launcher", "launcher", "help/*"),
    ]
    modules = {
        f"{package}/{path.relative_to(ROOT / folder)}"
        for package, folder, pattern in sources
        for path in (ROOT / folder).glob(pattern)
    }
    metadata = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE", "top_level.txt"}
    return modules | {"jwtproxy/py.typed"} | {f"{DIST_INFO}/{name}" for name in metadata}


def test_wheel_holds_the_package_and_nothing_else(source: Path) -> None:
    assert wheel_names(build(source, "wheel")) == installed_names()


def test_sdist_holds_all_that_the_wheel_needs(source: Path, tmp_path: Path) -> None:
    shutil.unpack_archive(build(source, "sdist"), tmp_path, filter="data")
    assert wheel_names(build(tmp_path / f"jwtproxy-{VERSION}", "wheel")) == installed_names()


def test_wheel_installs_into_an_empty_environment_and_runs(source: Path, environment: Environment) -> None:
    assert environment.install(build(source, "wheel")) == {"jwtproxy", DIST_INFO}
    assert environment.importable("addons", "launcher") == set()
    shutil.rmtree(source)
    environment.borrow_dependencies()
    assert VERSION in run(environment.bin / "jwtproxy-run", "--version", cwd=environment.bin)
    assert run(environment.bin / "jwtproxy-health", "--help", cwd=environment.bin).startswith("usage: jwtproxy-health")
    assert run(environment.bin / "jwtproxy-run", "help", "keys", cwd=environment.bin).startswith("# Keys\n")
    where = "import jwtproxy.launcher.cli, jwtproxy.addons.status as it; print(it.__file__)"
    status = run(environment.bin / "python", "-c", where, cwd=environment.bin).strip()
    assert Path(status) == environment.site_packages / "jwtproxy/addons/status.py"


@thorough
def test_editable_install_runs_the_source_as_it_is_now(source: Path, environment: Environment) -> None:
    gained = environment.install(build(source, "editable"))
    assert {name for name in gained if "__editable__" not in name} == {DIST_INFO}
    assert environment.importable("addons", "launcher") == set()
    environment.borrow_dependencies()
    assert VERSION in run(environment.bin / "jwtproxy-run", "--version", cwd=environment.bin)
    assert run(environment.bin / "jwtproxy-run", "help", "keys", cwd=environment.bin).startswith("# Keys\n")
    for module, path in {"": "addons/jwtproxy", ".addons": "addons", ".launcher": "launcher"}.items():
        (source / path / "new.py").write_text("")
        where = f"import jwtproxy{module}.new as it; print(it.__file__)"
        assert (
            Path(run(environment.bin / "python", "-c", where, cwd=environment.bin).strip()) == source / path / "new.py"
        )


def test_lock_names_no_host_but_pypi() -> None:
    hosts = set(re.findall(r"[a-z+]+://([^/\"]+)", (ROOT / "uv.lock").read_text()))
    assert hosts == {"pypi.org", "files.pythonhosted.org"}


def test_every_dependency_says_why_it_is_there() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    project = tomllib.loads(text)
    entries = [project["project"]["dependencies"], *project["dependency-groups"].values()]
    requirements = [entry for entry in itertools.chain(*entries) if isinstance(entry, str)]
    assert requirements
    for requirement in requirements:
        assert re.search(rf'^ *"{re.escape(requirement)}", # \w', text, re.MULTILINE), requirement
