"""What is written to Redis is read from it, and errors repeat nothing that was told to it."""

from __future__ import annotations

import ast
import asyncio
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import redis as library
import trustme

from jwtproxy.stores import redis
from jwtproxy.stores.redis import Address, Redis, reason_of, write_last
from tests.support.redis_server import RedisServer, needs_redis

ROOT = Path(__file__).parents[3]
PATIENCE = 5.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as found:
        yield found


def _with[Result](url: str, use: Callable[[Redis], Awaitable[Result]]) -> Result:
    async def run() -> Result:
        client = Redis(Address.parse(url), PATIENCE)
        try:
            return await use(client)
        finally:
            await client.drop()

    return asyncio.run(run())


@needs_redis
def test_what_one_writes_another_reads(server: RedisServer) -> None:
    async def use(client: Redis) -> None:
        await client.read()
        assert await client.write("a", {"a": "1", "b": "2"}, ["never-there"], []) == set()
        now, records = await client.read()
        assert records == {"a": "1", "b": "2"}
        assert now > 1_700_000_000
        assert await client.write("c", {"c": "3"}, ["b"], ["a", "b"]) == {"a"}, "b has given no sign of life itself"
        assert (await client.read())[1] == {"a": "1", "c": "3"}

    _with(server.url, use)
    assert 0 < int(server.command("TTL", "jwtproxy:alive:a")) <= redis.LIFETIME
    assert int(server.command("TTL", redis.RECORDS)) == -1, "totals do not expire"
    write_last(Address.parse(server.url), "a", "4", PATIENCE)
    assert server.command("HGET", redis.RECORDS, "a") == "4\n"
    assert server.command("EXISTS", "jwtproxy:alive:a") == "0\n"


@needs_redis
def test_after_it_was_dropped_it_connects_again(server: RedisServer) -> None:
    async def use(client: Redis) -> None:
        await client.read()
        await client.drop()
        await client.drop()
        await client.read()

    _with(server.url, use)


@needs_redis
def test_by_a_unix_socket_and_a_number(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    with RedisServer(tmp_path, "--unixsocket", str(path)) as server:
        for url in (f"unix://{path}?db=3", f"{server.url}/3"):
            write_last(Address.parse(url), "a", url, PATIENCE)
            assert server.command("-n", "3", "HGET", redis.RECORDS, "a").strip() == url


@needs_redis
def test_with_tls_and_a_user(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    ca, chain, key = (str(tmp_path / name) for name in ("ca.pem", "chain.pem", "key.pem"))
    authority.cert_pem.write_to_path(ca)
    certificate.private_key_pem.write_to_path(key)
    certificate.cert_chain_pems[0].write_to_path(chain)
    port = RedisServer(tmp_path).port
    tls = ("--tls-cert-file", chain, "--tls-key-file", key, "--tls-ca-cert-file", ca, "--tls-auth-clients", "no")
    user = ("--user", "proxy", "on", ">p@ss/wörd", "~jwtproxy:*", "+@all")
    with RedisServer(tmp_path, "--tls-port", str(port), *tls, *user, port=port):
        password = quote("p@ss/wörd", safe="")
        place = f"@localhost:{port}?ssl_ca_certs={quote(ca)}"

        async def read(client: Redis) -> dict[str, str]:
            return (await client.read())[1]

        assert _with(f"rediss://proxy:{password}{place}", read) == {}
        write_last(Address.parse(f"rediss://proxy:{password}{place}"), "a", "1", PATIENCE)
        with pytest.raises(library.AuthenticationError) as refused:
            _with(f"rediss://proxy:wrong{place}", read)
        assert reason_of(refused.value) == "it does not accept the user and password"
        with pytest.raises(library.ConnectionError) as distrusted:
            _with(f"rediss://proxy:{password}@localhost:{port}", read)
        assert reason_of(distrusted.value) == "TLS has failed: certificate verify failed"


@needs_redis
def test_reasons_of_a_real_server(tmp_path: Path) -> None:
    async def read(client: Redis) -> None:
        await client.read()

    with RedisServer(tmp_path, "--requirepass", "sesame") as server:
        with pytest.raises(library.RedisError) as closed:
            _with(server.url, read)
        assert reason_of(closed.value) == "it does not accept the user and password"
        server.kill()
        with pytest.raises(library.ConnectionError) as refused:
            _with(server.url, read)
        assert reason_of(refused.value) == "connection refused"


@pytest.mark.parametrize(
    ("url", "shown"),
    {
        "redis://cache": "redis://cache:6379",
        "redis://me:geheim@cache:1/2": "redis://cache:1/2",
        "rediss://:geheim@[::1]:7?ssl_cert_reqs=none&password=geheim": "rediss://[::1]:7",
        "unix://me:geheim@/run/redis.sock?db=1": "unix:///run/redis.sock",
        "REDIS://cache/": "redis://cache:6379",
    }.items(),
)
def test_of_a_url_people_see_where_it_leads(url: str, shown: str) -> None:
    address = Address.parse(url)
    assert address.shown == shown
    assert "geheim" not in f"{address} {address!r}"


@pytest.mark.parametrize(
    ("url", "says"),
    {
        "geheim": "it is none of redis://",
        "http://:geheim@cache": "it is none of redis://",
        "redis://:geheim@": "it names no host",
        "redis:geheim": "it names no host",
        "redis://:ge/heim@cache": "its port is none",
        "redis://:12/geheim@cache": "it names no host",
        "redis://x:12/geheim@cache": "its path is not the number of a database",
        "redis://:ge#geheim@cache": "it has a fragment",
        "redis://cache:99999": "its port is none",
        "redis://cache/geheim": "its path is not the number of a database",
        "redis://cache?geheim=1": "its options cannot be used",
        "redis://cache?socket_timeout=geheim": "its options cannot be used",
        "redis://cache?retry=geheim": "its options cannot be used",
        "rediss://cache?ssl_cert_reqs=geheim": "its options cannot be used",
        "redis://[geheim": "it is not a URL",
        "unix://": "it names no path",
    }.items(),
)
def test_a_url_that_cannot_be_meant_is_refused_and_not_shown(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as refused:
        Address.parse(url)
    assert "geheim" not in str(refused.value)


def _caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TimeoutError("geheim"), "it does not answer"),
        (library.TimeoutError("geheim"), "it does not answer"),
        (library.ResponseError("WRONGTYPE geheim"), "it says WRONGTYPE"),
        (library.ResponseError("geheim"), "it says no"),
        (library.ConnectionError("geheim"), "it has closed the connection"),
        (_caused(library.ConnectionError("geheim"), OSError(113, "No route to host")), "no route to host"),
        (_caused(library.ConnectionError("geheim"), OSError("geheim")), "no connection"),
        (_caused(library.ConnectionError("geheim"), OSError(-2, "Name unknown")), "name unknown"),
        (_caused(library.ConnectionError("geheim"), ssl.SSLError(1, "geheim")), "TLS has failed: error"),
        (KeyError("geheim"), "KeyError"),
    ],
    ids=repr,
)
def test_a_reason_is_in_words_of_ours(error: Exception, reason: str) -> None:
    assert reason_of(error) == reason


def test_the_library_is_imported_only_where_it_is_used() -> None:
    for path in (path for folder in ("addons", "launcher") for path in (ROOT / folder).rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import | ast.ImportFrom) and not getattr(node, "level", 0):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                assert not [name for name in names if name.partition(".")[0] == "redis"], path
    code = "import sys, jwtproxy.addons.status, jwtproxy.launcher.commands.serve; print('redis' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "False\n"
