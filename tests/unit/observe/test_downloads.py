"""The files that a client needs to use the proxy."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwtproxy.observe import downloads, pages

FORMS = {"/ca.pem": b"-----BEGIN", "/ca.cer": b"\x30\x82", "/ca.p12": b"\x30\x83"}
LOCAL = ("192.0.2.7", 8080)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/ca.pem", "application/x-pem-file"),
        ("/ca.cer", "application/x-x509-ca-cert"),
        ("/ca.p12", "application/x-pkcs12"),
    ],
)
def test_the_certificate_is_a_file_in_the_form_that_the_path_names(path: str, kind: str) -> None:
    page = downloads.certificate(path, FORMS, "tag", {})
    assert (page.code, page.data, page.headers["Content-Type"]) == (200, FORMS[path], kind)
    assert page.headers["Content-Disposition"] == f'attachment; filename="jwtproxy-{path[1:]}"'


def test_who_has_the_certificate_gets_no_body_and_each_form_has_a_tag_of_its_own() -> None:
    tags = {path: downloads.certificate(path, FORMS, "tag", {}).headers["ETag"] for path in FORMS}
    assert len(set(tags.values())) == 3
    for path, tag in tags.items():
        page = downloads.certificate(path, FORMS, "tag", {"if-none-match": tag})
        assert (page.code, page.data, set(page.headers)) == (304, b"", {"ETag", "Cache-Control"})
        assert downloads.certificate(path, FORMS, "other", {"if-none-match": tag}).code == 200


def test_without_a_ca_it_says_so() -> None:
    page = downloads.certificate("/ca.pem", {}, "", {})
    assert (page.code, page.body) == (503, "jwtproxy: the proxy has no CA whose certificate it could give out\n")


def _way(host: str | None, local: tuple[str, int] = LOCAL, *, secure: bool = False) -> str:
    place = downloads.address({} if host is None else {"host": host}, local, secure=secure)
    page = downloads.autoconfig(f"{'https' if secure else 'http'}://{place}")
    assert page.headers["Content-Type"] == "application/x-ns-proxy-autoconfig"
    found = re.fullmatch(r'function FindProxyForURL\(url, host\) \{\n  return "([^"\n]+)";\n\}\n', page.body)
    assert found, page.body
    return found[1]


@pytest.mark.parametrize(
    ("host", "way"),
    [
        ("localhost:9090", "PROXY localhost:9090"),
        ("Proxy.Example.", "PROXY Proxy.Example.:80"),
        ("my_proxy:1", "PROXY my_proxy:1"),
        ("xn--caf-dma.example:81", "PROXY xn--caf-dma.example:81"),
        ("[::1]:8080", "PROXY [::1]:8080"),
        ("10.1.2.3", "PROXY 10.1.2.3:80"),
    ],
)
def test_the_script_names_the_proxy_as_its_client_does(host: str, way: str) -> None:
    assert _way(host) == way


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        ":80",
        "a:",
        "a:0",
        "a:65536",
        "a:99999999",
        "a b",
        'a";alert(1);"',
        "a\\",
        "a;DIRECT",
        "a:80; DIRECT",
        "a, b",
        "caf\xe9",
        "\u0661:\u0661",
        "a:\u0661",
        "[::1",
        "[:::]:1",
        "[1.2]:1",
        "user@a",
        "a/b",
        "-a",
        "a\n",
        "x" * 400,
    ],
)
def test_what_is_no_plain_host_leaves_the_address_that_was_asked(host: str | None) -> None:
    assert _way(host) == "PROXY 192.0.2.7:8080"


@pytest.mark.parametrize(
    ("local", "secure", "way"),
    [
        (("::1", 8080), False, "PROXY [::1]:8080"),
        (("::ffff:192.0.2.7", 8080), False, "PROXY 192.0.2.7:8080"),
        (("fe80::1%eth0", 1), False, "PROXY [fe80::1]:1"),
        (LOCAL, True, "HTTPS 192.0.2.7:8080"),
    ],
)
def test_the_address_is_written_as_browsers_read_it(local: tuple[str, int], secure: bool, way: str) -> None:
    assert _way(None, local, secure=secure) == way


def test_a_proxy_by_tls_has_another_port_where_none_is_named() -> None:
    assert _way("proxy.example", secure=True) == "HTTPS proxy.example:443"


@given(st.text())
def test_nothing_gets_out_of_its_string(host: str) -> None:
    assert re.fullmatch(r"PROXY [0-9A-Za-z.:\[\]_-]+:[0-9]{1,5}", _way(host))


def test_all_of_them_are_own_pages() -> None:
    assert all(pages.is_own(path) for path in (*downloads.KINDS, pages.PAC_PATH))
