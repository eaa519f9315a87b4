"""A CA's certificate: what it is known by, and what does not pass for one."""

from __future__ import annotations

import hashlib
import ssl
import subprocess
from pathlib import Path

import pytest
import trustme
from mitmproxy.certs import CertStore

from jwtproxy.config.errors import SettingsError
from jwtproxy.launcher.clients.certificate import Certificate, fingerprints, with_colons, without_colons


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ca")
    CertStore.create_store(folder, "mitmproxy", 2048)
    return folder


def test_it_is_known_by_what_openssl_and_chromium_say(folder: Path) -> None:
    path = folder / "mitmproxy-ca-cert.pem"
    found = Certificate.parse(path.read_bytes(), "it")
    assert found.fingerprint == hashlib.sha256(ssl.PEM_cert_to_DER_cert(path.read_text())).hexdigest()
    # As Chromium's own documents have it made.
    line = f"openssl x509 -pubkey -noout -in {path} | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary"
    spki = subprocess.run(f"{line} | openssl enc -base64", shell=True, capture_output=True, text=True, check=True)
    assert found.spki == spki.stdout.strip()
    assert found.subject == "O=mitmproxy,CN=mitmproxy"
    assert found.not_before < found.not_after
    assert fingerprints(f"text\n{path.read_text()}\n{path.read_text()}") == {found.fingerprint}
    assert Certificate.parse(found.pem.encode(), "it") == found


def test_what_is_not_one_certificate_of_a_ca_is_refused(folder: Path) -> None:
    pem = (folder / "mitmproxy-ca-cert.pem").read_bytes()
    leaf = trustme.CA().issue_cert("127.0.0.1").cert_chain_pems[0].bytes()
    for data, said in {
        (folder / "mitmproxy-ca.pem").read_bytes(): "has a private key in it",
        pem + pem: "holds 2 certificates",
        leaf: "holds a certificate that is no CA's",
        b"<html>not found</html>": "holds no certificates",
        pem.replace(b"M", b"A"): "holds no certificates",
        b"\xff": "holds no certificates",
    }.items():
        with pytest.raises(SettingsError) as caught:
            Certificate.parse(data, "it")
        assert str(caught.value) == f"it {said}"


def test_a_fingerprint_can_be_typed_in_the_usual_ways() -> None:
    plain = "ab" * 32
    for form in (plain, plain.upper(), with_colons(plain), " ".join(["AB"] * 32)):
        assert without_colons(form, "x") == plain
    for form in ("", "ab" * 31, "ab" * 33, "xy" * 32):
        with pytest.raises(SettingsError, match="bad value"):
            without_colons(form, "--fingerprint")
