"""`jwtproxy-run ca`: what it tells of the certificate, and what it does to the databases of NSS and the system."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from mitmproxy.certs import CertStore

from jwtproxy.config.errors import SettingsError
from jwtproxy.launcher import running
from jwtproxy.launcher.clients import trust
from jwtproxy.launcher.clients.certificate import Certificate, with_colons
from jwtproxy.launcher.commands import ca

pytestmark = pytest.mark.usefixtures("pristine")

Captured = pytest.CaptureFixture[str]
needs_certutil = pytest.mark.skipif(not shutil.which("certutil"), reason="no certutil: libnss3-tools")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a CA."""
    folder = tmp_path_factory.mktemp("confdir")
    CertStore.create_store(folder, "mitmproxy", 2048)
    return folder


@pytest.fixture
def confdir(made: Path, tmp_path: Path) -> Path:
    """That of the user whose home is the test's folder."""
    return Path(shutil.copytree(made, tmp_path / ".mitmproxy"))


@pytest.fixture
def certificate(confdir: Path) -> Certificate:
    return Certificate.parse((confdir / "mitmproxy-ca-cert.pem").read_bytes(), "it")


def _run(capsys: Captured, *arguments: str) -> list[str]:
    """The lines that it prints when all goes well."""
    assert ca.run([*arguments]) == 0
    printed, errors = capsys.readouterr()
    assert errors == ""
    return printed.splitlines()


def _refused(*arguments: str) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        ca.run([*arguments])
    return caught.value


# --- show


def test_it_is_shown(capsys: Captured, confdir: Path, certificate: Certificate) -> None:
    for words in ((), ("show",)):
        shown = dict(line.split(maxsplit=1) for line in _run(capsys, *words))
        assert shown == json.loads(_run(capsys, *words, "--json")[0])
        assert shown["certificate"] == str(confdir / "mitmproxy-ca-cert.pem")
        assert shown["fingerprint_sha256"] == with_colons(certificate.fingerprint)
        assert shown["spki_sha256"] == certificate.spki


def test_it_is_made_as_a_start_makes_it(capsys: Captured, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    (shown,) = _run(capsys, "--json", "--set", f"confdir={folder}")
    assert json.loads(shown)["certificate"] == str(folder / "mitmproxy-ca-cert.pem")
    assert stat.S_IMODE((folder / "mitmproxy-ca.pem").stat().st_mode) == 0o600
    assert _run(capsys, "--json", "--set", f"confdir={folder}") == [shown]


@pytest.mark.parametrize("arguments", [["trust", "--dry-run"], ["untrust"]])
def test_none_is_made_to_do_nothing_with_it(arguments: list[str], tmp_path: Path) -> None:
    assert "there is no CA in" in str(_refused(*arguments))
    assert not (tmp_path / ".mitmproxy").exists()


def test_a_ca_of_ones_own_needs_its_certificate_beside_it(confdir: Path) -> None:
    path = confdir / "mitmproxy-ca-cert.pem"
    steps: list[Callable[[], object]] = [path.unlink, path.mkdir, path.rmdir, lambda: path.write_text("x")]
    for damage in steps:
        damage()
        error = _refused()
        assert "does not hold the certificate of the CA that is used" in str(error)
        assert error.hint == f"openssl x509 -in {confdir}/mitmproxy-ca.pem -out {path}"


def test_that_of_root_is_not_that_of_who_typed_sudo(
    capsys: Captured, confdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_USER", "ann")
    _run(capsys)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path.replace("~root", str(confdir.parent)))
    assert ca.run(["--set", f"confdir={confdir}"]) == 0
    assert capsys.readouterr().err == (
        "jwtproxy: warning: this is the CA of root, not of ann: --set confdir=~ann/.mitmproxy names the other\n"
    )


# --- of a running proxy


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch, certificate: Certificate) -> Callable[[str], None]:
    """What a proxy answers that is asked for its certificate, wherever it is said to be."""

    def answer(text: str) -> None:
        monkeypatch.setattr(running, "get", lambda proxy, path, accept: text.encode())

    answer(certificate.pem)
    return answer


@pytest.mark.usefixtures("page")
def test_a_proxy_tells_of_its_own(capsys: Captured, certificate: Certificate, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / ".mitmproxy")
    for url in ("http://127.0.0.1:8080", "10.0.0.7:8080"):
        shown = json.loads(_run(capsys, "--json", "--proxy", url)[0])
        assert shown["certificate"] == f"http://{url.removeprefix('http://')}/ca.pem"
        assert shown["fingerprint_sha256"] == with_colons(certificate.fingerprint)
    assert not (tmp_path / ".mitmproxy").exists()


@pytest.mark.usefixtures("page")
def test_a_network_is_not_trusted_with_it(capsys: Captured, certificate: Certificate) -> None:
    """Whoever is on the way could give another."""
    plain = ["trust", "--dry-run", "--system", "--proxy", "http://10.0.0.7:8080"]
    assert "needs its fingerprint" in str(_refused(*plain))
    assert "has another fingerprint" in str(_refused(*plain, "--fingerprint", "ab" * 32))
    assert "bad value 'x' for --fingerprint" in str(_refused(*plain, "--fingerprint", "x"))
    told = _run(capsys, *plain, "--fingerprint", with_colons(certificate.fingerprint))
    assert told[0].endswith(with_colons(certificate.fingerprint))


def test_a_page_that_is_none_is_refused(page: Callable[[str], None], made: Path) -> None:
    whole = (made / "mitmproxy-ca.pem").read_text()
    for text, said in ((whole, "has a private key"), ("<p>", "holds no certificates")):
        page(text)
        assert f"http://127.0.0.1:9/ca.pem {said}" in str(_refused("trust", "--nss", "--proxy", "127.0.0.1:9"))


def test_nobody_there_is_an_error(capsys: Captured) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert ca.run(["--proxy", "127.0.0.1:{1}".format(*free.getsockname())]) == 1
    assert "nobody answers at" in capsys.readouterr().err


# --- NSS


def _listed(database: Path) -> str:
    return subprocess.check_output(["certutil", "-L", "-d", f"sql:{database}"], text=True)


@needs_certutil
def test_nss_comes_to_trust_it_and_forgets_it(capsys: Captured, tmp_path: Path, certificate: Certificate) -> None:
    """And nothing else: another CA of mitmproxy's has the same subject."""
    database, name = tmp_path / ".pki/nssdb", trust.name_of(certificate.fingerprint)
    dry = _run(capsys, "trust", "--nss", "--dry-run")
    assert not database.exists()
    assert _run(capsys, "trust", "--nss") == [*dry, "jwtproxy: done"]
    assert f"{name} " in _listed(database)
    assert stat.S_IMODE(database.stat().st_mode) == 0o700
    assert f"sql:{database}: has it already" in _run(capsys, "trust", "--nss")

    other = tmp_path / "other"
    _run(capsys, "trust", "--nss", "--set", f"confdir={other}")
    before = _listed(database)
    assert before.count("jwtproxy-") == 2
    _run(capsys, "untrust", "--nss")
    assert name not in _listed(database)
    assert _listed(database).count(" C,, ") == 1
    assert f"sql:{database}: does not have it" in _run(capsys, "untrust", "--nss")

    # Its CA is gone by now, but not its fingerprint.
    gone = Certificate.parse((other / "mitmproxy-ca-cert.pem").read_bytes(), "it").fingerprint
    shutil.rmtree(other)
    _run(capsys, "untrust", "--nss", "--fingerprint", gone)
    assert "jwtproxy-" not in _listed(database)


@needs_certutil
def test_profiles_of_firefox_are_found(capsys: Captured, tmp_path: Path, certificate: Certificate) -> None:
    profile = tmp_path / ".mozilla/firefox/x.default"
    profile.mkdir(parents=True)
    subprocess.run(["certutil", "-N", "--empty-password", "-d", f"sql:{profile}"], check=True)
    _run(capsys, "trust", "--nss")
    assert trust.name_of(certificate.fingerprint) in _listed(profile)
    assert not (tmp_path / ".pki").exists()


@needs_certutil
def test_a_tool_that_fails_is_an_error(capsys: Captured, tmp_path: Path, certificate: Certificate) -> None:
    database = tmp_path / ".pki/nssdb"
    database.mkdir(parents=True)
    (database / "cert9.db").write_text("this is no database")
    assert ca.run(["trust", "--nss"]) == 1
    printed, errors = capsys.readouterr()
    assert "done" not in printed
    assert errors.startswith(f"jwtproxy: error: cannot run certutil -A -d sql:{database} ")
    assert "(exit status 255)" in errors


# --- the system's store


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of a system's store, and root; update-ca-certificates notes how it was run, or fails if told to."""
    folder, tools = tmp_path / "store", tmp_path / "bin"
    folder.mkdir()
    tools.mkdir()
    tool = tools / "update-ca-certificates"
    lines = [
        "#!/bin/sh",
        f'echo "$* $(ls {folder})" >>{tmp_path}/runs',
        f"[ ! -e {tmp_path}/fail ] || {{ echo no >&2; exit 3; }}",
    ]
    tool.write_text("\n".join(lines))
    tool.chmod(0o755)
    monkeypatch.setattr(ca, "_path", lambda: f"{tools}:/usr/bin:/bin")
    monkeypatch.setattr(trust, "STORES", (trust.STORES[1]._replace(folder=str(folder)),))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return folder


def test_a_system_comes_to_trust_it_and_forgets_it(
    capsys: Captured, store: Path, tmp_path: Path, certificate: Certificate
) -> None:
    path = store / f"{trust.name_of(certificate.fingerprint)}.crt"
    dry = _run(capsys, "trust", "--dry-run")
    assert [*store.iterdir()] == []
    assert _run(capsys, "trust") == [*dry, "jwtproxy: done"]
    assert path.read_text() == certificate.pem
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert f"{path}: has it already" in _run(capsys, "trust", "--system")
    (store / "other.crt").write_text("x")
    _run(capsys, "untrust")
    assert [*store.iterdir()] == [store / "other.crt"]
    assert f"{path}: does not have it" in _run(capsys, "untrust")
    assert (tmp_path / "runs").read_text() == f" {path.name}\n--fresh other.crt\n"


def test_a_store_that_cannot_be_renewed_is_as_it_was(
    capsys: Captured, store: Path, tmp_path: Path, certificate: Certificate
) -> None:
    path = store / f"{trust.name_of(certificate.fingerprint)}.crt"
    (tmp_path / "fail").touch()
    assert ca.run(["trust"]) == 1
    assert "cannot run update-ca-certificates: no (exit status 3)" in capsys.readouterr().err
    assert [*store.iterdir()] == []
    (tmp_path / "fail").unlink()
    _run(capsys, "trust")
    (tmp_path / "fail").touch()
    assert ca.run(["untrust"]) == 1
    assert path.read_text() == certificate.pem

    assert (tmp_path / "runs").read_text().splitlines()[:2] == [f" {path.name}", " "]


def test_a_file_that_cannot_be_written_is_an_error(
    capsys: Captured, store: Path, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, mode: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fchmod", full)
    assert ca.run(["trust"]) == 1
    assert ".crt: no space left on device\n" in capsys.readouterr().err
    assert [*store.iterdir()] == []


def test_a_name_of_ours_with_other_contents_is_left_alone(store: Path, certificate: Certificate) -> None:
    path = store / f"{trust.name_of(certificate.fingerprint)}.crt"
    path.write_text("x")
    for command in ("trust", "untrust"):
        assert "does not hold what it is named for" in str(_refused(command))
    assert path.read_text() == "x"


def test_without_root_nothing_is_done(
    capsys: Captured, store: Path, tmp_path: Path, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not half of it either: what root has to type is said."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    error = _refused("trust")
    path = store / f"{trust.name_of(certificate.fingerprint)}.crt"
    typed = f"sudo install -m 644 {tmp_path}/.mitmproxy/mitmproxy-ca-cert.pem {path} && sudo update-ca-certificates"
    assert typed in error.hint
    assert (capsys.readouterr().out, [*store.iterdir()], (tmp_path / "runs").exists()) == ("", [], False)
    assert f"write {path}" in _run(capsys, "trust", "--dry-run")


@pytest.mark.parametrize(
    ("arguments", "said", "hint"),
    [
        (["turst"], "unknown command 'ca turst'", "ca trust"),
        (["trust", "x"], "unexpected word 'x'", "the commands are"),
        (["trust", "--json"], "--json means nothing to ca trust", "--help"),
        (["--check"], "--check means nothing to ca", "--help"),
        (["--dry-run"], "unrecognized arguments: --dry-run", "--help"),
        (["--proxy", "https://x"], "bad URL 'https://x' for --proxy", "http://"),
    ],
)
def test_a_mistake_is_named(arguments: list[str], said: str, hint: str) -> None:
    error = _refused(*arguments)
    assert said in str(error)
    assert hint in error.hint


def test_each_has_help(capsys: Captured) -> None:
    assert _run(capsys, "--help")[0] == "usage: jwtproxy-run ca [COMMAND] [options]"
    for command, name in (("show", "ca"), ("trust", "ca trust"), ("untrust", "ca untrust")):
        with pytest.raises(SystemExit):
            ca.run([command, "--help"])
        assert capsys.readouterr().out.startswith(f"usage: jwtproxy-run {name} [options]")
