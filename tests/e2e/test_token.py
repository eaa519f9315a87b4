"""The token that arrives upstream: what it says, that each request has its own, and that clients cannot choose it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from joserfc import jwt
from joserfc.errors import BadSignatureError
from joserfc.jwk import OctKey

from tests.support.clients import Http2, Raw, message, pseudo
from tests.support.harness import SECRET, BareMitmdump, Proxy, StartBare, StartProxy, thorough, token_header, verify
from tests.support.upstreams import Recorder, Seen

EVIL = "eyJhbGciOiJub25lIn0.eyJwYXlsb2FkIjp7InVzZXIiOiJldmlsIn19."


def test_the_claims_are_exactly_those_of_the_contract(proxy: Proxy, recorder: Recorder) -> None:
    """`iat` now in whole seconds, a `jti` of 128 bits or more, and a payload of user and UTC date; nothing else."""
    dates, before = {_today()}, time.time()
    seen = _send(proxy, recorder)
    dates.add(_today())
    claims = verify(seen.token)
    assert set(claims) == {"iat", "jti", "payload"}
    assert type(claims["iat"]) is int
    assert int(before) <= claims["iat"] <= time.time()
    assert isinstance(claims["jti"], str)
    assert re.fullmatch(r"[0-9a-f]{32,}|[\w-]{22,}", claims["jti"])
    assert claims["payload"] in [{"user": "username", "date": date} for date in dates]
    assert token_header(seen.token) == {"alg": "HS512", "typ": "JWT"}


def test_the_header_holds_the_bare_token(proxy: Proxy, recorder: Recorder) -> None:
    """One compact JWS, without `Bearer` and without padding."""
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+", _send(proxy, recorder).token)


def test_another_secret_does_not_verify_the_token(proxy: Proxy, recorder: Recorder) -> None:
    """The signature depends on the secret, all of it."""
    token = _send(proxy, recorder).token
    with pytest.raises(BadSignatureError):
        verify(token, SECRET[:-2] + ("00" if SECRET[-2:] != "00" else "01"))


def test_the_answer_carries_no_token(proxy: Proxy, recorder: Recorder) -> None:
    """The client never learns the token of its request."""
    with Raw(proxy.port) as client:
        reply = client.request(message("GET", f"{recorder.url}/", f"Host: {recorder.authority}"))
    assert recorder.only().token.encode() not in reply.head
    assert reply.values("x-my-jwt") == []


@pytest.mark.parametrize(
    ("args", "env"),
    [
        pytest.param((), {"JWT_USER": "robot é"}, marks=thorough),
        pytest.param(("--set", "jwt_user=robot é"), {}, marks=thorough),
        (("--set", "jwt_user=robot é"), {"JWT_USER": "loser"}),
    ],
)
def test_the_user_is_the_operators_choice(
    start_proxy: StartProxy, recorder: Recorder, args: tuple[str, ...], env: dict[str, str]
) -> None:
    """`jwt_user` comes from the environment or from `--set`, which wins."""
    payload = verify(_send(start_proxy(*args, env=env), recorder).token)["payload"]
    assert isinstance(payload, dict)
    assert payload["user"] == "robot é"


def test_bare_mitmdump_signs_too(start_bare: StartBare, recorder: Recorder) -> None:
    """`mitmdump -s addons/jwt_inject.py`, from any folder, makes the same token."""
    claims = verify(_send(start_bare(), recorder).token)
    assert set(claims) == {"iat", "jti", "payload"}


@pytest.mark.parametrize("each", [10, pytest.param(200, marks=thorough)])
def test_each_of_many_of_requests_has_a_token_of_its_own(
    start_proxy: StartProxy, recorder: Recorder, each: int
) -> None:
    """Over 50 connections at once no `jti` repeats, and each `iat` is within two seconds of its request."""
    proxy = start_proxy()
    connections = 50
    sent = asyncio.run(_many(proxy.port, recorder, connections, each))
    requests = recorder.wait(connections * each)
    claims = {seen.target: verify(seen.token) for seen in requests}
    assert len(requests) == len(claims) == connections * each
    assert len({str(claim["jti"]) for claim in claims.values()}) == connections * each
    ages = [float(str(claim["iat"])) - sent[target] for target, claim in claims.items()]
    assert -2 <= min(ages) <= max(ages) <= 2


@pytest.mark.parametrize(
    "lines",
    [
        [f"x-my-jwt: {EVIL}"],
        [f"x-my-jwt: {EVIL}"] * 3,
        [f"X-My-JWT: {EVIL}"],
        [f"X-MY-JWT: {EVIL}", f"x-mY-jWt: {EVIL}", f"X-my-Jwt: {EVIL}"],
        [f"x_my_jwt: {EVIL}"],
        [f"X_MY-JWT: {EVIL}", f"x-my_jwt: {EVIL}", f"x-my-jwt: {EVIL}"],
        ["x-my-jwt:"],
        [f"x-my-jwt: {EVIL}, {EVIL}"],
        [f"x-my-jwt: {EVIL}", "Content-Length: 0"],
        [f"x-my-jwt: {EVIL}", "Connection: keep-alive, x-my-jwt"],
    ],
    ids=["once", "thrice", "odd case", "odd cases", "underscores", "mixed", "empty", "list", "sized", "connection"],
)
def test_a_token_that_the_client_sent_is_replaced(proxy: Proxy, recorder: Recorder, lines: list[str]) -> None:
    """In any number of copies and any spelling: exactly one arrives, and it is ours."""
    seen = _send(proxy, recorder, *lines)
    assert _spellings(seen) == [b"x-my-jwt"]
    assert verify(seen.token)
    assert EVIL.encode() not in seen.head


@pytest.mark.parametrize("body", [b"small", bytes(2 << 20)], ids=["small", "streamed"])
def test_a_token_that_the_client_sent_is_replaced_on_uploads(proxy: Proxy, recorder: Recorder, body: bytes) -> None:
    """Also where the request leaves before its body has arrived."""
    seen = _send(proxy, recorder, f"X-My-Jwt: {EVIL}", f"x_my_jwt: {EVIL}", f"Content-Length: {len(body)}", body=body)
    assert _spellings(seen) == [b"x-my-jwt"]
    assert verify(seen.token)
    assert seen.size == len(body)


@pytest.mark.parametrize(
    "lines",
    [
        ["Connection: x-my-jwt"],
        ["Connection: keep-alive, X-My-JWT"],
        ["connection:x-MY-jwt,keep-alive"],
        ["Connection: keep-alive", "Connection: x-my-jwt"],
        ["Connection: x-my-jwt", "Connection: x-my-jwt , x-my-jwt"],
        ["Connection: close, x-my-jwt"],
    ],
)
def test_the_next_hop_is_not_told_to_drop_the_token(proxy: Proxy, recorder: Recorder, lines: list[str]) -> None:
    """`Connection` may not name our header: a next hop would strip it."""
    seen = _send(proxy, recorder, *lines)
    assert verify(seen.token)
    assert "x-my-jwt" not in ",".join(seen.values("connection")).lower()


@pytest.mark.parametrize(
    "line",
    [
        f"x-my-jwt : {EVIL}",
        f"x-my-jwt\t: {EVIL}",
        f"x-my-jwt\x00: {EVIL}",
        f"X-Other: folded\r\n x-my-jwt: {EVIL}",
        f"X-Other: folded\r\n\tx-my-jwt: {EVIL}",
        f" x-my-jwt: {EVIL}",
        f"X-Other: a bare CR\rx-my-jwt: {EVIL}",
        f"X-Other: a bare LF\nx-my-jwt: {EVIL}",
    ],
)
def test_a_token_in_a_malformed_line_does_not_arrive(proxy: Proxy, recorder: Recorder, line: str) -> None:
    """What a lenient upstream could read as our field is refused or made harmless (RFC 9112 §2.2, §5.1, §5.2)."""
    with Raw(proxy.port) as client:
        reply = client.request(message("GET", f"{recorder.url}/", f"Host: {recorder.authority}", line))
    assert reply.status in (200, 400)
    assert len(recorder.requests) == (reply.status == 200)
    for seen in recorder.requests:
        lines = re.split(rb"[\r\n]+", seen.head.lower())
        assert [part[:10] for part in lines if part.strip().startswith(b"x-my-jwt")] == [b"x-my-jwt: "]
        assert verify(seen.token)


@pytest.mark.parametrize("size", [5, 2 << 20], ids=["small", "large"])
@pytest.mark.parametrize("name", ["x-my-jwt", "X-My-JWT", "x_my_jwt"])
def test_a_token_in_http1_trailers_does_not_arrive(proxy: Proxy, recorder: Recorder, name: str, size: int) -> None:
    """A chunked body with the header in its trailers: the request arrives, the trailer does not."""
    body = b"%x\r\n%b\r\n0\r\n%b: %b\r\n\r\n" % (size, bytes(size), name.encode(), EVIL.encode())
    seen = _send(proxy, recorder, "Transfer-Encoding: chunked", f"Trailer: {name}", body=body)
    assert verify(seen.token)
    assert seen.size == size
    assert EVIL not in str(seen.trailers)


def test_a_connection_survives_trailers(proxy: Proxy, recorder: Recorder) -> None:
    """A connection on which trailers were sent stays good for the next request."""
    chunked = b"1\r\na\r\n0\r\nx-my-jwt: evil\r\n\r\n"
    host = f"Host: {recorder.authority}"
    with Raw(proxy.port) as client:
        for number in (1, 2, 3):
            first = message("POST", f"{recorder.url}/{number}", host, "Transfer-Encoding: chunked", body=chunked)
            assert client.request(first).status == 200
    assert len({seen.token for seen in recorder.wait(3)}) == 3


@pytest.mark.parametrize("body", [b"", b"small"])
def test_a_token_in_http2_trailers_does_not_arrive(
    proxy: Proxy, h2_recorder: Recorder, proxy_ca: Path, body: bytes
) -> None:
    """Over HTTP/2, ours is taken out of the trailers and what else they hold stays."""
    trailers = [("x-my-jwt", EVIL), ("x_my_jwt", EVIL), ("x-checksum", "1")]
    with Raw(proxy.port) as client:
        two = Http2(client.secure_tunnel(h2_recorder.authority, proxy_ca, "h2"))
        reply = two.reply(two.send(pseudo("POST", h2_recorder.authority, "/"), body, trailers))
    seen = h2_recorder.only()
    assert reply.status == 200
    assert (seen.version, seen.body, seen.trailers) == ("2", body, [(b"x-checksum", b"1")])
    assert verify(seen.token)


@pytest.mark.parametrize("length", [True, False], ids=["sized", "unsized"])
def test_http2_trailers_do_not_reach_an_http1_upstream_either(
    start_proxy: StartProxy, https_recorder: Recorder, proxy_ca: Path, length: bool
) -> None:
    """Where the client speaks HTTP/2 and the upstream does not, a request with trailers still arrives, signed."""
    proxy = start_proxy("--set", "connection_strategy=lazy")  # the client gets HTTP/2 before the upstream is asked
    fields = [*pseudo("POST", https_recorder.authority, "/"), *([("content-length", "5")] if length else [])]
    with Raw(proxy.port) as client:
        two = Http2(client.secure_tunnel(https_recorder.authority, proxy_ca, "h2"))
        reply = two.reply(two.send(fields, b"small", [("x-my-jwt", EVIL)]))
    seen = https_recorder.only()
    assert (reply.status, seen.version, seen.body) == (200, "1.1", b"small")
    assert verify(seen.token)
    assert EVIL not in str(seen.trailers)
    assert "Traceback" not in proxy.output


def test_a_token_that_the_client_sent_over_http2_is_replaced(
    proxy: Proxy, h2_recorder: Recorder, proxy_ca: Path
) -> None:
    """Copies over HTTP/2 fare no better."""
    copies = [("x-my-jwt", EVIL), ("x_my_jwt", EVIL), ("x-my-jwt", EVIL), ("x-kept", "1")]
    with Raw(proxy.port) as client:
        two = Http2(client.secure_tunnel(h2_recorder.authority, proxy_ca, "h2"))
        assert two.reply(two.send([*pseudo("GET", h2_recorder.authority, "/"), *copies])).status == 200
    seen = h2_recorder.only()
    assert _spellings(seen) == [b"x-my-jwt"]
    assert verify(seen.token)
    assert seen.values("x-kept") == ["1"]


def test_client_headers_never_choose_a_claim(proxy: Proxy, recorder: Recorder) -> None:
    """Not by a well-signed token of another time, nor by any other field; other credentials pass untouched."""
    claims = {"iat": 1, "jti": "chosen", "payload": {"user": "evil", "date": "1999-12-31"}}
    forged = jwt.encode({"alg": "HS512", "typ": "JWT"}, claims, OctKey.import_key(bytes.fromhex(SECRET)), ["HS512"])
    others = [
        f"Authorization: Bearer {forged}",
        "JWT-User: evil",
        "X-Forwarded-User: evil",
        "Date: Fri, 31 Dec 1999 23:59:59 GMT",
    ]
    seen = _send(proxy, recorder, f"x-my-jwt: {forged}", "jwt_user: evil", *others)
    made = verify(seen.token)
    assert made["iat"] != 1
    assert made["jti"] != "chosen"
    assert made["payload"] == {"user": "username", "date": _today()}
    assert seen.values("authorization") == [f"Bearer {forged}"]


def _send(proxy: Proxy | BareMitmdump, recorder: Recorder, *lines: str, body: bytes = b"") -> Seen:
    """Send one request that must succeed; how it arrived."""
    with Raw(proxy.port) as client:
        request = message(
            "POST" if body else "GET", f"{recorder.url}/", f"Host: {recorder.authority}", *lines, body=body
        )
        assert client.request(request).status == 200
    return recorder.only()


def _spellings(seen: Seen) -> list[bytes]:
    """Every field whose name a lenient upstream could take for ours, as spelled."""
    return [name for name, _ in seen.fields if name.lower().replace(b"_", b"-") == b"x-my-jwt"]


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


async def _many(port: int, recorder: Recorder, connections: int, each: int) -> dict[str, float]:
    """Send `each` requests on each connection, one after the other; when each was sent, by its target."""
    sent: dict[str, float] = {}

    async def connection(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.closing(writer):
            for index in range(each):
                target = f"/{number}/{index}"
                sent[target] = time.time()
                writer.write(message("GET", recorder.url + target, f"Host: {recorder.authority}"))
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200 "), head
                await reader.readexactly(2)
        await writer.wait_closed()

    await asyncio.wait_for(asyncio.gather(*(connection(number) for number in range(connections))), 90)
    return sent
