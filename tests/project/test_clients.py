"""What judges clients, and the matrix of the manual. Nothing here runs a client."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from jwtproxy.launcher.clients import variables
from tests.clients import report, upstreams, verdict
from tests.clients.rows import CLIENTS, Client
from tests.clients.verdict import AROUND, FAILED, SIGNED, SKIPPED, Outcome, Run

MANUAL = Path(__file__).parents[2] / "launcher/help/clients.md"
CARRIED = Client("one: two", "one {web}", "one --version", "https_proxy PYTHONPATH", "SSL_CERT_FILE")
AROUND_IT = Client("around", "around {web}", "around --version")
GOOD = Run("private", 0, 1, 0, ["1.1"])


# --- rows


def test_each_client_has_a_key_of_its_own_that_can_stand_in_a_path() -> None:
    keys = Counter(client.key for client in CLIENTS)
    assert set(keys.values()) == {1}
    assert all(key.replace("-", "").isalnum() for key in keys)


def test_what_clients_go_by_is_set_for_them() -> None:
    files = variables.Files(dict.fromkeys(variables.CA_FILES, ""), "", "", "")
    given = variables.variables("http://127.0.0.1:8080", files, {})
    assert {name for client in CLIENTS for name in f"{client.finds} {client.trusts}".split()} <= set(given)
    assert all(bool(client.finds) == bool(client.trusts) for client in CLIENTS)


# --- the verdict

WRONG = {
    "it ended with an error": (CARRIED, replace(GOOD, status=1)),
    "nothing arrived": (CARRIED, replace(GOOD, signed=0)),
    "one was not signed": (CARRIED, replace(GOOD, unsigned=1)),
    "another version of HTTP": (CARRIED, replace(GOOD, versions=["2"])),
    "two versions of HTTP": (CARRIED, replace(GOOD, versions=["1.1", "2"])),
    "HTTP/1.1 where HTTP/2 is spoken": (replace(CARRIED, two=True), GOOD),
    "signed where it should go direct": (CARRIED, replace(GOOD, kind="direct")),
    "direct where it never does": (replace(CARRIED, no_proxy=False), Run("direct", 0, 0, 1, ["1.1"])),
    "one that goes around was signed": (AROUND_IT, replace(GOOD, status=3)),
    "one that goes around was not caught": (AROUND_IT, Run("private", 1, 0, 0, [])),
    "one that goes around arrived": (AROUND_IT, Run("private", 3, 0, 1, ["1.1"])),
}


@pytest.mark.parametrize(("client", "run"), WRONG.values(), ids=WRONG)
def test_a_run_that_is_not_as_the_row_says_fails(client: Client, run: Run) -> None:
    outcome = verdict.judge(client, "1.0", [run])
    assert (outcome.result, outcome.version) == (FAILED, "1.0")
    assert run.kind in outcome.said


RIGHT = {
    "signed": (CARRIED, GOOD, SIGNED),
    "signed with HTTP/2": (replace(CARRIED, two=True), replace(GOOD, versions=["2"]), SIGNED),
    "direct, with NO_PROXY": (CARRIED, Run("direct", 0, 0, 2, ["1.1"]), SIGNED),
    "signed in spite of NO_PROXY": (replace(CARRIED, no_proxy=False), replace(GOOD, kind="direct"), SIGNED),
    "around": (AROUND_IT, Run("private", 3, 0, 0, []), AROUND),
}


@pytest.mark.parametrize(("client", "run", "result"), RIGHT.values(), ids=RIGHT)
def test_a_run_that_is_as_the_row_says_is_right(client: Client, run: Run, result: str) -> None:
    assert verdict.judge(client, "", [run]) == Outcome(client.name, result)


# --- the matrix

EMPTY = f"before\n{report.START}{report.END}after\n"


def test_a_matrix_is_written_and_read() -> None:
    outcomes = {"one: two": Outcome("one: two", SIGNED, "1.0"), "around": Outcome("around", AROUND, "2.0")}
    clients = [CARRIED, AROUND_IT]
    text = report.replaced(EMPTY, report.matrix(clients, outcomes, EMPTY))
    assert text.startswith(f"before\n{report.START}| Client |")
    assert text.endswith(f"|\n{report.END}after\n")
    assert report.rows(text) == [
        ["one: two", "1.0", "`https_proxy` + `PYTHONPATH`", "`SSL_CERT_FILE`", "–", "signed"],
        ["around", "2.0", "–", "–", "–", "**goes around**"],
    ]
    skipped = {name: Outcome(name, SKIPPED) for name in outcomes}
    assert report.replaced(text, report.matrix(clients, skipped, text)) == text, "versions are kept"


def test_a_text_without_a_place_for_the_matrix_is_left() -> None:
    assert report.rows("no marks") == []
    with pytest.raises(ValueError, match="no marks"):
        report.replaced(report.START, "")


def test_the_manual_says_what_the_rows_say() -> None:
    text = MANUAL.read_text()
    said = {client.name: Outcome(client.name, SKIPPED) for client in CLIENTS}
    assert report.replaced(text, report.matrix(CLIENTS, said, text)) == text, "run `make clients`"
    assert all(row[1] for row in report.rows(text)), "each has been seen once"


def test_a_line_says_what_came_of_a_client() -> None:
    told = report.line(CARRIED, Outcome("one: two", FAILED, "1.0", "status 1"))
    assert told.split() == ["one:", "two", "1.0", *"https_proxy PYTHONPATH SSL_CERT_FILE - failed: status 1".split()]


# --- what they ask


def test_an_index_gives_the_same_bytes_each_time_and_names_them() -> None:
    package = json.loads(upstreams.index("npm/tiny", "https://web.test/npm"))
    assert package["versions"]["1.0.0"]["dist"]["tarball"] == "https://web.test/npm/npm/tiny.tgz"
    assert gzip.decompress(upstreams.index("npm/tiny.tgz", ""))
    for place in ("simple/tiny-1.0.0-py3-none-any.whl", "npm/tiny.tgz", "cargo/tiny.crate"):
        assert upstreams.index(place, "") == upstreams.index(place, "https://web.test")
    assert upstreams.index("elsewhere", "") == b"<nothing/>"
