"""`jwtproxy.test` through real proxies: what it tells is what an upstream gets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.clients import Http2, Raw, client_context, curl, message, pseudo
from tests.support.harness import ADDONS, MIB, SECRET, Proxy, StartBare, StartProxy, rows, thorough
from tests.support.upstreams import Recorder

BOTH = ADDONS / "jwt_inject.py", ADDONS / "status.py"
LINES = ("Accept: application/json", "X-Case: 1", "X_Under: 2", "x-MY-jwt: mine", "X_My_Jwt: mine", "X-Text: caf\xe9")


def ask(port: int, target: str, *lines: str, method: str = "GET", body: bytes = b"") -> dict[str, Any]:
    """What is told of a request that goes by the proxy."""
    with Raw(port) as client:
        reply = client.request(message(method, target, *lines, body=body))
    assert reply.status == 200, reply
    return dict(json.loads(reply.body))


def count(port: int) -> int:
    """How many requests have been forwarded."""
    with Raw(port) as client:
        return int(json.loads(client.request(message("GET", "/status", "Host: x")).body)["proxied_requests"])


@pytest.mark.parametrize("kind", ["launcher", "bare"])
def test_it_tells_what_an_upstream_gets(
    start_proxy: StartProxy, start_bare: StartBare, recorder: Recorder, proxy_ca: Path, kind: str
) -> None:
    """The same request to an upstream arrives with the fields that are told; and HTTPS is the same in both versions."""
    proxy = start_proxy() if kind == "launcher" else start_bare(scripts=BOTH)
    told = ask(proxy.port, "http://jwtproxy.test/a%2Fb?c", "Host: other.example", *LINES)
    ask_upstream = message("GET", f"{recorder.url}/a%2Fb?c", f"Host: {recorder.authority}", *LINES)
    with Raw(proxy.port) as client:
        assert client.request(ask_upstream).status == 200
    arrived = {name.decode(): value.decode("utf-8", "backslashreplace") for name, value in recorder.only().fields}
    expected = {name: told["headers"].get(name, "") for name in arrived}
    assert list(told["headers"]) == list(arrived)
    assert expected == arrived | {"Host": "jwtproxy.test", "x-my-jwt": "[token, shown decoded]"}
    assert told["token"]["claims"].keys() == {"iat", "jti", "payload"}
    for version, name in (("--http1.1", "HTTP/1.1"), ("--http2", "HTTP/2")):
        done = curl(version, "--cacert", str(proxy_ca), "https://jwtproxy.test/y", proxy=proxy.url)
        told = json.loads(done.stdout)
        assert (told["http_version"], told["url"]) == (name, "https://jwtproxy.test/y")
        assert told["token"]["header"] == {"alg": "HS512", "typ": "JWT"}
    assert count(proxy.port) == 1


def test_several_requests_share_a_tunnel_and_a_strangers_certificate_is_none(proxy: Proxy, proxy_ca: Path) -> None:
    """A tunnel is as good as any; who does not trust the CA gets nowhere, as with any host."""
    with Raw(proxy.port) as client:
        client.tunnel("jwtproxy.test:443")
        client.start_tls(client_context(proxy_ca), "jwtproxy.test")
        for method in ("GET", "POST", "GET"):
            reply = client.request(message(method, "/", "Host: JWTproxy.test", "Content-Length: 0"))
            assert json.loads(reply.body)["method"] == method
    with Raw(proxy.port) as client:
        client.tunnel("jwtproxy.test:443")
        two = Http2(client.start_tls(client_context(proxy_ca, "h2"), "jwtproxy.test"))
        streams = [two.send(pseudo("POST", "jwtproxy.test", f"/{number}"), b"body") for number in range(3)]
        told = [json.loads(two.reply(stream).body) for stream in streams]
        assert [one["url"] for one in told] == [f"https://jwtproxy.test/{number}" for number in range(3)]
        assert len({one["token"]["claims"]["jti"] for one in told}) == 3
    with pytest.raises(AssertionError, match="ended with 60: "):
        curl("https://jwtproxy.test/", proxy=proxy.url)


def test_an_upload_is_not_waited_for(proxy: Proxy) -> None:
    """Neither a long one nor one of unknown length."""
    for line in (f"Content-Length: {100 * MIB}", "Transfer-Encoding: chunked"):
        with Raw(proxy.port) as client:
            client.send(message("PUT", "http://jwtproxy.test/", "Host: jwtproxy.test", line))
            reply = client.reply()
        told = json.loads(reply.body)
        assert told["body_bytes"] == (100 * MIB if "Length" in line else None)


SETTINGS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "deny-private": (("--set", "jwt_deny_private=on"), "x-my-jwt", "HS512"),
    "other-header": (("--header", "X-Other"), "x-other", "HS512"),
    "as-authorization": (("--header", "Authorization"), "authorization", "HS512"),
    "workers": (("--workers", "2"), "x-my-jwt", "HS512"),
    "upstream-mode": (("--mode", "upstream:http://127.0.0.1:1"), "x-my-jwt", "HS512"),
    "es256": (("--set", "jwt_key_file=ec.pem", "--set", "jwt_algorithm=ES256"), "x-my-jwt", "ES256"),
    "pages-on": (("--set", "jwt_pages=on"), "x-my-jwt", "HS512"),
}


@pytest.mark.parametrize(("args", "field", "algorithm"), rows(SETTINGS, "deny-private", "upstream-mode"))
def test_it_is_there_with_other_settings(
    start_proxy: StartProxy, proxy_ca: Path, tmp_path: Path, args: tuple[str, ...], field: str, algorithm: str
) -> None:
    """What keeps requests from private places, or sends them by another proxy, is not in the way."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "ec.pem").write_bytes(pem)
    proxy = start_proxy(*args, cwd=tmp_path, secret=SECRET if algorithm == "HS512" else None)
    told = ask(proxy.port, "http://jwtproxy.test/", "Host: jwtproxy.test")
    assert (told["token"]["field"].lower(), told["token"]["header"]["alg"]) == (field, algorithm)
    secure = curl("--cacert", str(proxy_ca), "https://jwtproxy.test/", proxy=proxy.url)
    assert json.loads(secure.stdout)["token"]


@pytest.mark.parametrize("length", [(), ("-H", "Content-Length:")], ids=["known", "unknown"])
def test_curl_ends_its_upload_by_http2(proxy: Proxy, proxy_ca: Path, tmp_path: Path, length: tuple[str, ...]) -> None:
    """Version 7.88 goes on for ever, at full speed, where the answer comes first and is no error."""
    (tmp_path / "body").write_bytes(bytes(3 * MIB))
    done = curl(
        "--http2",
        "--cacert",
        str(proxy_ca),
        *length,
        "-T",
        str(tmp_path / "body"),
        "https://jwtproxy.test/",
        proxy=proxy.url,
    )
    assert json.loads(done.stdout)["body_bytes"] == 3 * MIB


def test_who_waits_for_leave_to_send_gets_it(proxy: Proxy, proxy_ca: Path, tmp_path: Path) -> None:
    """At once (RFC 9110 §10.1.1); curl would go on by itself only after its own time-out."""
    (tmp_path / "body").write_bytes(bytes(MIB))
    waits = "--http2", "-H", "Expect: 100-continue", "--expect100-timeout", "60"
    done = curl(
        *waits, "--cacert", str(proxy_ca), "-T", str(tmp_path / "body"), "https://jwtproxy.test/", proxy=proxy.url
    )
    assert json.loads(done.stdout)["body_bytes"] == MIB


@thorough
def test_nor_is_it_kept_by_a_long_one(proxy: Proxy, proxy_ca: Path, tmp_path: Path) -> None:
    """It is told when to stop."""
    with (tmp_path / "body").open("wb") as body:
        body.truncate(70 * MIB)
    done = curl("--http2", "--cacert", str(proxy_ca), "-T", body.name, "https://jwtproxy.test/", proxy=proxy.url)
    assert done.stdout == b"jwtproxy: jwtproxy.test waits for no body that is longer than 64 MiB\n"


@thorough
def test_a_value_as_long_as_a_head_may_be_is_told(proxy: Proxy) -> None:
    """Nothing of it is lost, and nothing breaks."""
    told = ask(proxy.port, "http://jwtproxy.test/", "Host: jwtproxy.test", f"X-Long: {'<' * 60_000}")
    assert told["headers"]["X-Long"] == "<" * 60_000
