"""Bundles hold what was trusted before, and our CA."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import certifi
import pytest
import trustme

from jwtproxy.launcher.clients import bundles
from jwtproxy.launcher.clients.certificate import blocks
from jwtproxy.launcher.clients.variables import CA_FILES, STORE_PASSWORD, Files

OURS = trustme.CA().cert_pem.bytes().decode()
THEIRS = trustme.CA().cert_pem.bytes().decode()
SYSTEM = trustme.CA().cert_pem.bytes().decode()
URL = "http://127.0.0.1:4711"


@pytest.fixture(autouse=True)
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one place where the system has its roots."""
    path = tmp_path / "system.pem"
    path.write_text(f"# what this is\n{SYSTEM}\n")
    nothing = ssl.get_default_verify_paths()._replace(openssl_cafile=str(tmp_path / "none"))
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: nothing)
    monkeypatch.setattr(bundles, "_SYSTEM", (str(tmp_path / "none"), str(path)))
    return path


def _write(tmp_path: Path, **environ: str) -> Files:
    folder = tmp_path / "folder"
    folder.mkdir(exist_ok=True)
    return bundles.write(folder, URL, OURS, {"HOME": str(tmp_path), **environ})


def _held(path: str) -> list[str]:
    return [f"{certificate}\n" for certificate in blocks(Path(path).read_text())]


def test_the_systems_roots_are_in_each(tmp_path: Path) -> None:
    files = _write(tmp_path)
    assert set(files.bundles) == set(CA_FILES)
    (path,) = set(files.bundles.values())
    assert _held(path) == [SYSTEM, OURS]
    context = ssl.create_default_context(cafile=path)
    assert len(context.get_ca_certs()) == 2


def test_where_a_system_has_none_they_are_those_of_certifi(tmp_path: Path, system: Path) -> None:
    system.unlink()
    assert bundles.system_roots({"SSL_CERT_FILE": str(tmp_path / "gone")}) == certifi.where()
    assert len(_held(_write(tmp_path).bundles["SSL_CERT_FILE"])) > 100


def test_what_the_user_trusts_by_a_variable_stays_what_it_names(tmp_path: Path) -> None:
    """Who trusts a few for some programs only does not trust more directly."""
    (tmp_path / "theirs.pem").write_text(THEIRS)
    files = _write(tmp_path, REQUESTS_CA_BUNDLE=str(tmp_path / "theirs.pem"), PIP_CERT="/no/such/file")
    assert _held(files.bundles["REQUESTS_CA_BUNDLE"]) == [THEIRS, OURS]
    assert _held(files.bundles["PIP_CERT"]) == [SYSTEM, OURS]
    assert len(set(files.bundles.values())) == 2


def test_asked_again_from_such_a_shell_it_is_the_same(tmp_path: Path) -> None:
    (tmp_path / ".wgetrc").write_text("tries = 1\n")
    once = _write(tmp_path)
    before = {path.name: path.read_bytes() for path in (tmp_path / "folder").iterdir() if path.suffix != ".p12"}
    assert _write(tmp_path, **once.bundles, WGETRC=once.wgetrc) == once
    assert {name: (tmp_path / "folder" / name).read_bytes() for name in before} == before
    assert sorted(before) == ["ca-bundle.pem", "wgetrc"]


def test_wget_reads_what_it_would_have_and_ours(tmp_path: Path) -> None:
    (tmp_path / ".wgetrc").write_text("tries = 1")
    (tmp_path / "other").write_bytes(b"user = \xff\n")
    lines = Path(_write(tmp_path).wgetrc).read_text().splitlines()
    assert lines[0] == "tries = 1"
    assert set(lines[1:]) == {
        f"ca_certificate = {tmp_path}/folder/ca-bundle.pem",
        "use_proxy = on",
        f"http_proxy = {URL}",
        f"https_proxy = {URL}",
    }
    other = _write(tmp_path, WGETRC=str(tmp_path / "other")).wgetrc
    assert Path(other).read_bytes().startswith(b"user = \xff\n")


def test_wget_reads_nothing_of_a_folder_that_is_no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the variable is not set, the system knows whose home that is."""
    (tmp_path / ".wgetrc").write_text("user_agent = evil\n")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".wgetrc").write_text("tries = 7\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert bundles._wgetrc({}) == "tries = 7\n"


def test_java_reads_the_trust_store(tmp_path: Path, system: Path) -> None:
    system.write_text(f"{SYSTEM}{THEIRS}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    store = _write(tmp_path).trust_store
    if not shutil.which("keytool"):
        pytest.skip("no Java here")
    command = ["keytool", "-J-Xshare:auto", "-list", "-keystore", store, "-storepass", STORE_PASSWORD]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "contains 3 entries" in said
    assert said.count("trustedCertEntry") == 3
