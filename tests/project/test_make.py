"""The Makefile: what it finds, what it makes, what it leaves alone. All that it would start is a stand-in."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
UV_VERSION = re.findall(r"^UV_VERSION=(.+)$", (ROOT / ".ci/uv").read_text(), re.MULTILINE)[0]
TOOLS = ["cp", "cut", "mkdir", "od", "rm", "sed", "sh", "sleep", "sort", "touch", "tr", "uname"]

# Stands in for uv: says how it was asked to sync.
UV = f"""\
case "$1" in
--version) echo "uv {UV_VERSION}" ;;
sync) shift; echo "sync into $UV_PROJECT_ENVIRONMENT: $*"; mkdir -p .venv ;;
esac"""

# Stands in for Python: tells its version, and makes environments whose pip installs the uv above.
PYTHON = """\
case "$2" in
venv) echo "venv by $0"; mkdir -p "$3/bin"; cp "$HOME/pip" "$3/bin/python" ;;
*) echo "{minor} {path}" ;;
esac"""
PIP = """\
case "$*" in
"-m pip install "*uv==*) cp "$HOME/uv" "${0%/*}/uv" ;;
esac"""

# What pyenv puts on PATH for a version that is installed but not active.
SHIM = 'echo "pyenv: $0: command not found" >&2; exit 127'


class Checkout:
    """A copy of what make reads, in a folder whose name has a space, with a PATH and a home of its own."""

    def __init__(self, make: str, folder: Path) -> None:
        self.command = [shutil.which(make) or make]
        self.folder = folder / "a checkout"
        self.path = folder / "path"
        self.home = folder / "home"
        for made in (self.folder / "addons/jwtproxy", self.path, self.home):
            made.mkdir(parents=True)
        for name in ("Makefile", "pyproject.toml", "uv.lock", "addons/jwtproxy/__init__.py"):
            shutil.copy(ROOT / name, self.folder / name)
        shutil.copytree(ROOT / ".ci", self.folder / ".ci")
        for tool in TOOLS:
            (self.path / tool).symlink_to(shutil.which(tool) or tool)
        write_script(self.home / "uv", UV)
        write_script(self.home / "pip", PIP)
        self.dotenv = self.folder / ".env"

    def install_uv(self) -> None:
        write_script(self.path / "uv", UV)

    def install_python(self, path: Path, minor: int) -> Path:
        write_script(path, PYTHON.format(minor=minor, path=path))
        return path

    def pyenv(self, version: str) -> Path:
        """The path of Python `version` in the home's pyenv."""
        return self.home / ".pyenv/versions" / version / "bin/python"

    def pretend_built(self, program: str) -> None:
        """The state after `make build`, with this program for jwtproxy-run."""
        write_script(self.folder / ".venv/bin/jwtproxy-run", program)
        (self.folder / ".venv/bin/python").symlink_to(sys.executable)
        (self.folder / ".venv/.built").touch()

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.command, *arguments],
            cwd=self.folder,
            env={"PATH": str(self.path), "HOME": str(self.home), **variables},
            umask=0,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def make(self, *arguments: str, fails: bool = False, **variables: str) -> str:
        """What make and its children wrote."""
        with self.start(*arguments, **variables) as process:
            output, _ = process.communicate(timeout=30)
        assert (process.returncode != 0) is fails, output
        return output


@pytest.fixture(params=[name for name in ("make", "bmake") if shutil.which(name)])
def checkout(request: pytest.FixtureRequest, tmp_path: Path) -> Checkout:
    """For each make that is here: GNU's, as a rule, and perhaps BSD's."""
    return Checkout(request.param, tmp_path)


def write_script(path: Path, code: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{code}\n")
    path.chmod(0o755)


# --- help ---


def test_help_is_the_default_and_names_every_target(checkout: Checkout) -> None:
    output = checkout.make()
    assert output == checkout.make("help")
    phony = re.findall(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)[0].split()
    assert re.findall(r"^make (\S+) +\w", output, re.MULTILINE) == phony


# --- build: the interpreter ---


def test_build_passes_by_shims_that_do_not_work(checkout: Checkout) -> None:
    checkout.install_uv()
    for name in ("python3", "python3.12", "python3.13"):
        write_script(checkout.path / name, SHIM)
    python = checkout.install_python(checkout.pyenv("3.12.1"), 12)
    assert f"sync into .venv: --quiet --locked --python {python}\n" in checkout.make("build")


def test_build_takes_the_newest_by_number(checkout: Checkout) -> None:
    checkout.install_uv()
    checkout.install_python(checkout.path / "python3", 11)
    checkout.install_python(checkout.pyenv("3.9.18"), 9)
    newest = checkout.install_python(checkout.pyenv("3.13.0"), 13)
    checkout.install_python(checkout.pyenv("3.12.1"), 12)
    write_script(checkout.pyenv("3.14.0"), "exit 1")
    assert f"--python {newest}\n" in checkout.make("build")


def test_build_looks_where_pyenv_says_it_is(checkout: Checkout) -> None:
    checkout.install_uv()
    root = checkout.home / "elsewhere"
    python = checkout.install_python(root / "versions/3.12.1/bin/python", 12)
    assert f"--python {python}\n" in checkout.make("build", PYENV_ROOT=str(root))


def test_build_uses_the_base_of_an_active_environment(checkout: Checkout) -> None:
    checkout.install_uv()
    write_script(checkout.path / "python3", f'exec "{sys.executable}" "$@"')
    output = checkout.make("build", VIRTUAL_ENV=sys.prefix, UV_PROJECT_ENVIRONMENT="/nowhere")
    (python,) = re.findall(r"^sync into \.venv: .* --python (.+)$", output, re.MULTILINE)
    assert Path(python).is_relative_to(sys.base_prefix)
    assert not Path(python).is_relative_to(sys.prefix)


def test_build_lets_uv_fetch_a_python_when_none_is_new_enough(checkout: Checkout) -> None:
    checkout.install_uv()
    checkout.install_python(checkout.path / "python3", 11)
    assert "--python 3.13 --managed-python\n" in checkout.make("build")


def test_build_says_what_to_install_when_no_python_can_be_had(checkout: Checkout) -> None:
    write_script(checkout.path / "uv", '[ "$1" = cache ]')
    output = checkout.make("build", fails=True)
    assert "jwtproxy: hint: install Python 3.12, 3.13 or 3.14" in output
    assert not (checkout.folder / ".venv/.built").exists()


# --- build: uv ---


@pytest.mark.parametrize("uv", [None, SHIM], ids=["absent", "broken"])
def test_build_fetches_uv_where_none_works(checkout: Checkout, uv: str | None) -> None:
    if uv:
        write_script(checkout.path / "uv", uv)
    old = checkout.install_python(checkout.path / "python3", 9)
    output = checkout.make("build")
    assert f"fetching uv {UV_VERSION} into .uv\nvenv by {old}\n" in output
    assert "sync into .venv" in output


def test_build_fetches_uv_once(checkout: Checkout) -> None:
    checkout.install_python(checkout.path / "python3", 12)
    checkout.make("build")
    (checkout.folder / ".venv/.built").unlink()
    assert "fetching" not in checkout.make("build")


def test_build_tries_the_next_python_when_one_cannot_make_environments(checkout: Checkout) -> None:
    write_script(checkout.path / "python3", 'case "$2" in venv) exit 1;; *) echo "13 $0";; esac')
    other = checkout.install_python(checkout.pyenv("3.9.18"), 9)
    assert f"venv by {other}\n" in checkout.make("build")


def test_build_says_what_to_install_when_uv_cannot_be_had(checkout: Checkout) -> None:
    output = checkout.make("build", fails=True)
    assert "jwtproxy: error: there is no uv" in output
    assert "jwtproxy: hint: install uv" in output


# --- build: when ---


def test_build_happens_again_only_when_its_sources_change(checkout: Checkout) -> None:
    checkout.install_uv()
    assert "sync" in checkout.make("build")
    assert "sync" not in checkout.make("build")
    for name in ("pyproject.toml", "uv.lock", "addons/jwtproxy/__init__.py"):
        stamp = (checkout.folder / ".venv/.built").stat().st_mtime
        os.utime(checkout.folder / name, (stamp + 5, stamp + 5))
        assert "sync" in checkout.make("build"), name
        os.utime(checkout.folder / name, (stamp - 5, stamp - 5))


# --- run ---


def test_run_makes_a_secret_that_only_its_owner_can_read(checkout: Checkout) -> None:
    checkout.pretend_built("echo running")
    output = checkout.make("run")
    (secret,) = re.findall(r"\AJWT_SHARED_SECRET=([0-9a-f]{128})\n\Z", checkout.dotenv.read_text())
    assert checkout.dotenv.stat().st_mode & 0o777 == 0o600
    assert "made .env with a new random secret" in output
    assert "running" in output
    assert secret not in output


def test_run_makes_a_different_secret_each_time(checkout: Checkout) -> None:
    checkout.pretend_built(":")
    secrets = set()
    for _ in range(3):
        checkout.make("run")
        secrets.add(checkout.dotenv.read_text())
        checkout.dotenv.unlink()
    assert len(secrets) == 3


def test_run_never_touches_an_existing_env(checkout: Checkout) -> None:
    checkout.pretend_built(":")
    checkout.dotenv.write_text("JWT_USER=me\n")
    before = checkout.dotenv.stat()
    assert ".env" not in checkout.make("run")
    assert checkout.dotenv.read_text() == "JWT_USER=me\n"
    after = checkout.dotenv.stat()
    assert (after.st_mtime_ns, after.st_mode, after.st_ino) == (before.st_mtime_ns, before.st_mode, before.st_ino)


def test_run_never_writes_through_a_link_that_leads_nowhere_yet(checkout: Checkout) -> None:
    checkout.pretend_built(":")
    checkout.dotenv.symlink_to(checkout.home / "mounted later")
    checkout.make("run")
    assert not (checkout.home / "mounted later").exists()


def test_run_takes_the_port_from_the_environment_or_the_command_line(checkout: Checkout) -> None:
    checkout.pretend_built('echo "port=${HTTP_PORT-unset}"')
    assert "port=unset\n" in checkout.make("run")
    assert "port=9123\n" in checkout.make("run", HTTP_PORT="9123")
    assert "port=9124\n" in checkout.make("run", "HTTP_PORT=9124", HTTP_PORT="9123")


def test_run_becomes_the_proxy_so_that_signals_reach_it(checkout: Checkout) -> None:
    checkout.pretend_built('trap "echo stopped; exit 0" TERM; echo "$PPID $$"; while :; do sleep 0.05; done')
    checkout.dotenv.touch()
    with checkout.start("run") as make:
        assert make.stdout
        parent, proxy = map(int, make.stdout.readline().split())
        os.kill(proxy, signal.SIGTERM)
        output, _ = make.communicate(timeout=30)
    assert parent == make.pid
    assert output == "stopped\n"
    assert make.returncode == 0


def test_run_fails_as_the_proxy_does(checkout: Checkout) -> None:
    checkout.pretend_built("echo 'jwtproxy: error: no' >&2; exit 2")
    assert "jwtproxy: error: no\n" in checkout.make("run", fails=True)


# --- clean ---


def test_clean_removes_what_make_made_but_no_secret(checkout: Checkout) -> None:
    (checkout.path / "find").symlink_to(shutil.which("find") or "find")
    checkout.pretend_built(":")
    checkout.make("run")
    for folder in ("launcher", "tests", "addons/__pycache__", "jwtproxy.egg-info"):
        (checkout.folder / folder).mkdir()
    checkout.make("clean")
    names = {path.name for path in checkout.folder.iterdir()}
    assert names == {".ci", ".env", "Makefile", "addons", "launcher", "pyproject.toml", "tests", "uv.lock"}
    assert not (checkout.folder / "addons/__pycache__").exists()


# --- both makes ---


@pytest.mark.parametrize(
    "construct",
    [
        r"\$[({](shell|wildcard|patsubst|subst|foreach|if|or|and|call|eval|MAKEFILE_LIST|CURDIR)\b",  # functions
        r"^ *-?(ifn?eq|ifn?def|else|endif|include|define|endef|export|unexport|override)\b",  # directives
        r"^[^\t#]*%",  # pattern rules
        r"^\w+ *(:|::|\?|\+|!)= ",  # assignments that are not POSIX's, or newer than some makes
        r"(?<!\$)\$[\^+|]",  # automatic variables
        r"^\.(ONESHELL|SECONDARY|DELETE_ON_ERROR|RECIPEPREFIX|DEFAULT_GOAL)\b",  # special targets
    ],
)
def test_makefile_has_nothing_that_only_gnu_make_reads(construct: str) -> None:
    assert not re.findall(construct, MAKEFILE, re.MULTILINE)


def test_the_image_is_built_with_the_same_uv() -> None:
    assert f"\nARG UV_VERSION={UV_VERSION}\n" in (ROOT / "Dockerfile").read_text()


@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / ".ci").iterdir()))
def test_each_script_says_what_it_is_for(script: str) -> None:
    shebang, comment, *_ = (ROOT / ".ci" / script).read_text().splitlines()
    assert shebang in ("#!/bin/sh", "#!/usr/bin/env bash")
    assert comment.startswith("# ")
    assert os.access(ROOT / ".ci" / script, os.X_OK)
