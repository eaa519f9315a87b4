"""The certificate of the CA that is in use."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs12
from mitmproxy.certs import CertStore

from jwtproxy.mitm import authority


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a CA."""
    path = tmp_path_factory.mktemp("ca")
    CertStore.create_store(path, "mitmproxy", 2048)
    return path


def _addons(folder: Path) -> Any:
    return {"tlsconfig": SimpleNamespace(certstore=CertStore.from_store(folder, "mitmproxy", 2048))}


def test_each_form_holds_the_certificate_and_no_key(folder: Path) -> None:
    forms, _ = authority.certificate(_addons(folder))
    pem = (folder / "mitmproxy-ca-cert.pem").read_bytes()
    expected = x509.load_pem_x509_certificate(pem)
    assert forms.keys() == {"/ca.pem", "/ca.cer", "/ca.p12"}
    assert forms["/ca.pem"] == pem
    assert x509.load_der_x509_certificate(forms["/ca.cer"]) == expected
    key, own, others = pkcs12.load_key_and_certificates(forms["/ca.p12"], None)
    assert (key, own or others[0]) == (None, expected)
    key, *_ = pkcs12.load_key_and_certificates((folder / "mitmproxy-ca.p12").read_bytes(), None)
    assert key, "the file that must not be given out"
    assert not any(b"PRIVATE" in form for form in forms.values())


def test_the_tag_is_that_of_the_certificate(folder: Path, tmp_path: Path) -> None:
    CertStore.create_store(tmp_path, "mitmproxy", 2048)
    tags = [authority.certificate(_addons(where))[1] for where in (folder, folder, tmp_path)]
    assert tags[0] == tags[1] != tags[2]


def test_it_is_the_one_in_use_whatever_becomes_of_its_files(tmp_path: Path) -> None:
    CertStore.create_store(tmp_path, "mitmproxy", 2048)
    addons = _addons(tmp_path)
    before = authority.certificate(addons)[0]["/ca.pem"]
    for path in tmp_path.iterdir():
        path.unlink()
    assert authority.certificate(addons)[0]["/ca.pem"] == before


@pytest.mark.parametrize("addons", [{}, {"tlsconfig": SimpleNamespace(certstore=None)}, {"tlsconfig": object()}])
def test_there_may_be_none(addons: Any) -> None:
    assert authority.certificate(addons) == ({}, "")
