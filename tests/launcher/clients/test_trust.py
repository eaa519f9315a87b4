"""What is to be done for a certificate to be trusted, on each kind of system."""

from __future__ import annotations

from pathlib import Path

import pytest

from jwtproxy.config.errors import SettingsError
from jwtproxy.launcher.clients import trust
from jwtproxy.launcher.clients.trust import STORES, Plan, Step

OURS = "0123456789abcdef" * 4
NAME = "jwtproxy-0123456789abcdef"
FEDORA, DEBIAN, ARCH, SUSE = STORES
TOOLS = {"update-ca-trust", "update-ca-certificates"}


def _lines(plan: Plan) -> list[str]:
    return [str(step) for step in plan.steps]


@pytest.mark.parametrize(
    ("store", "path", "update", "renew"),
    [
        (FEDORA, f"/etc/pki/ca-trust/source/anchors/{NAME}.pem", "update-ca-trust", "update-ca-trust"),
        (
            DEBIAN,
            f"/usr/local/share/ca-certificates/{NAME}.crt",
            "update-ca-certificates",
            "update-ca-certificates --fresh",
        ),
        (ARCH, f"/etc/ca-certificates/trust-source/anchors/{NAME}.crt", "update-ca-trust", "update-ca-trust"),
        (SUSE, f"/etc/pki/trust/anchors/{NAME}.pem", "update-ca-certificates", "update-ca-certificates --fresh"),
    ],
)
def test_a_system_gets_a_file_and_runs_its_tool(store: trust.Store, path: str, update: str, renew: str) -> None:
    assert trust.store_of("linux", [store.folder], TOOLS) == store
    assert _lines(trust.system(store, OURS, None, True)) == [f"write {path}", f"run {update}"]
    assert _lines(trust.system(store, OURS, {OURS}, False)) == [f"remove {path}", f"run {renew}"]


def test_nothing_is_done_twice() -> None:
    assert trust.system(DEBIAN, OURS, {OURS}, True).steps == ()
    assert trust.system(DEBIAN, OURS, None, False).steps == ()
    assert trust.nss(Path("/db"), OURS, {OURS}, True).steps == ()
    assert trust.nss(Path("/db"), OURS, frozenset(), False).steps == ()
    assert trust.nss(Path("/db"), OURS, None, False).steps == ()


@pytest.mark.parametrize("trusted", [True, False])
def test_a_file_that_holds_something_else_is_left_alone(trusted: bool) -> None:
    for there in (frozenset[str](), {"ff" * 32}):
        with pytest.raises(SettingsError, match="does not hold what it is named for"):
            trust.system(DEBIAN, OURS, there, trusted)


def test_a_database_of_nss() -> None:
    """Where another certificate has the same subject, as all CAs of mitmproxy do, NSS tells of it, too."""
    add = f"run certutil -A -d sql:/db -n {NAME} -t C,, <certificate"
    assert _lines(trust.nss(Path("/db"), OURS, {"ff" * 32}, True)) == [add]
    made = ["make /db", "run certutil -N --empty-password -d sql:/db", add]
    assert _lines(trust.nss(Path("/db"), OURS, None, True)) == made
    remove = [f"run certutil -D -d sql:/db -n {NAME}"]
    assert _lines(trust.nss(Path("/db"), OURS, {OURS, "ff" * 32}, False)) == remove
    assert trust.nss(Path("/db"), OURS, {"ff" * 32}, False).steps == ()


@pytest.mark.parametrize(
    ("platform", "folders", "tools", "said", "hint"),
    [
        ("linux", [], TOOLS, "there is no update-ca-certificates or update-ca-trust", "package ca-certificates"),
        ("linux", [DEBIAN.folder], [], "there is no update-ca-certificates", "--nss alone"),
        ("linux", [FEDORA.folder], {"update-ca-certificates"}, "there is no update-ca-trust", "--nss alone"),
        ("darwin", [DEBIAN.folder], TOOLS, "the keychains of macOS", "security add-trusted-cert"),
    ],
)
def test_what_is_missing_is_named(platform: str, folders: list[str], tools: list[str], said: str, hint: str) -> None:
    with pytest.raises(SettingsError, match=said) as caught:
        trust.store_of(platform, folders, tools)
    assert hint in caught.value.hint


def test_certutil_comes_in_a_package_of_its_own() -> None:
    trust.check_certutil([], [])
    trust.check_certutil([trust.CERTUTIL], [Path("/db")])
    with pytest.raises(SettingsError, match="there is no certutil for the NSS database '/db'") as caught:
        trust.check_certutil(TOOLS, [Path("/db")])
    assert "libnss3-tools" in caught.value.hint


def test_who_is_not_root_is_told_what_root_types() -> None:
    adding, removing = trust.system(DEBIAN, OURS, None, True), trust.system(DEBIAN, OURS, {OURS}, False)
    path = f"/usr/local/share/ca-certificates/{NAME}.crt"
    url = "http://127.0.0.1:8080/ca.pem"
    fetched = f"curl -fsS --noproxy '*' {url} | sudo tee {path} >/dev/null && sudo update-ca-certificates"
    for plan, source, typed in (
        (adding, "/my ca.pem", f"sudo install -m 644 '/my ca.pem' {path} && sudo update-ca-certificates"),
        (adding, url, fetched),
        (removing, "", f"sudo rm {path} && sudo update-ca-certificates --fresh"),
    ):
        with pytest.raises(SettingsError, match="only root can change the system's store") as caught:
            trust.check_root(plan, False, source)
        assert caught.value.hint == f"{typed}; or use --nss alone, which needs no root"
        trust.check_root(plan, True, source)
    trust.check_root(Plan("x", ()), False, "")


def test_a_step_is_told_as_it_is_typed() -> None:
    assert str(Step("write", ("/a b",))) == "write '/a b'"
