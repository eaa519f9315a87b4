"""One table holds the options; whatever else names them agrees with it."""

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

import jwt_inject
import status
from jwtproxy.config.options import Option
from jwtproxy.lane import switch
from jwtproxy.launcher.environment import OPTIONS
from jwtproxy.observe import access_log
from jwtproxy.policy import connections

ROOT = Path(__file__).parents[2]
HELP = ROOT / "launcher/help"
NOT_IN_COMPOSE = {"JWT_KEY_FILE", "JWT_KEY_DIR", "JWT_RULES"}
"""These name files, which would have to be mounted: a comment in compose.yaml says so."""


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What `jwtproxy-run --options` shows, by name: the line and the comment above it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JWT_", "HTTP_"))}
    environment["JWT_SHARED_SECRET"] = "00" * 64
    folder = tmp_path_factory.mktemp("options")
    environment["HOME"] = str(folder)
    command = [sys.executable, "-m", "jwtproxy.launcher", "--options"]
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return {name: shown for shown, name in re.findall(r"((?:^#.*\n)*^(\w+):.*$)", run.stdout, re.MULTILINE)}


def by_name(rows: tuple[Option, ...]) -> list[str]:
    return [row.name for row in rows]


each = pytest.mark.parametrize("row", OPTIONS, ids=by_name(OPTIONS))


def test_no_option_is_there_twice() -> None:
    assert len(set(by_name(OPTIONS))) == len(OPTIONS)


def test_the_addons_share_the_options_out() -> None:
    rooms = (jwt_inject, status, switch, connections, access_log)
    shares = [by_name(room.OPTIONS) for room in rooms]
    assert sorted(itertools.chain(*shares)) == sorted(by_name(OPTIONS))


@each
def test_its_name_is_one_of_ours(row: Option) -> None:
    assert re.fullmatch(r"jwt_[a-z]+(_[a-z]+)*", row.name)


@each
def test_its_help_is_a_sentence(row: Option) -> None:
    assert re.fullmatch(r"[A-Z][^\n]*\.", row.help)


@each
def test_its_default_is_a_value_of_its_own(row: Option) -> None:
    row.check(row.default)


@each
def test_its_topic_tells_of_it(row: Option) -> None:
    text = (HELP / f"{row.topic}.md").read_text()
    assert re.search(rf"\b({row.name}|{row.variable})\b", text)


@each
def test_the_manual_has_it_in_its_table(row: Option) -> None:
    cells = settings_table()[row.variable]
    assert cells == (row.name, row.default or "none")


def test_the_manual_has_no_other_options() -> None:
    assert {name for name, _ in settings_table().values() if name.startswith("jwt_")} == set(by_name(OPTIONS))


def settings_table() -> dict[str, tuple[str, str]]:
    """Name and default by variable, from the table in settings.md."""
    line = re.compile(r"^\| (.+?) \| `([A-Z_]+)` \| (.+?) \|", re.MULTILINE)
    rows = line.findall((HELP / "settings.md").read_text())
    return {variable: (name.strip("`").split("`")[0], default.strip("`*")) for name, variable, default in rows}


@each
def test_the_example_of_an_env_file_shows_its_default(row: Option) -> None:
    value = re.findall(rf"^#?{row.variable}=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE)
    assert len(value) == 1
    if row.name not in ("jwt_key_file", "jwt_key_dir"):  # which show how a path looks
        assert value[0] == row.default


def test_the_example_of_an_env_file_names_no_other_options() -> None:
    assert variables((ROOT / ".env.example").read_text()) == {row.variable for row in OPTIONS}


@each
def test_compose_hands_it_on(row: Option) -> None:
    environment = YAML(typ="safe").load(ROOT / "compose.yaml")["services"]["proxy"]["environment"]
    if row.variable in NOT_IN_COMPOSE:
        assert row.variable not in environment
    else:
        assert environment[row.variable] is None  # as it is outside: the default stays where it belongs


def test_compose_hands_on_no_other_options() -> None:
    environment = YAML(typ="safe").load(ROOT / "compose.yaml")["services"]["proxy"]["environment"]
    assert variables("\n".join(environment)) == {row.variable for row in OPTIONS} - NOT_IN_COMPOSE


def variables(text: str) -> set[str]:
    """The variables that lines begin with, but for those that are no options."""
    found = set(re.findall(r"^#?(JWT_[A-Z_]+)", text, re.MULTILINE))
    others = ("JWT_SHARED_SECRET", "JWT_KEY_PASSPHRASE", "JWT_STRICT_ENV", "JWT_REDIS_URL")
    return {name for name in found if not name.startswith(others)}


@each
def test_the_launcher_lists_it(row: Option, listed: dict[str, str]) -> None:
    comment, _, value = listed[row.name].rpartition("\n")
    assert value.removeprefix(f"{row.name}: ").strip("'\"") == row.default
    assert " ".join(re.sub(r"^#", "", comment, flags=re.MULTILINE).split()).startswith(row.help)


def test_the_launcher_lists_no_other_options(listed: dict[str, str]) -> None:
    assert {name for name in listed if name.startswith("jwt_")} == set(by_name(OPTIONS))


def test_every_limit_that_is_reached_has_a_line_in_status() -> None:
    source = "".join(path.read_text() for path in sorted((ROOT / "addons").rglob("*.py")))
    named = set(re.findall(r"\breached\(\"(jwt_\w+)\"\)", source))
    assert named
    assert named <= set(status.LIMITS)
    assert set(status.LIMITS) == {row.name for row in OPTIONS if row.limit}
