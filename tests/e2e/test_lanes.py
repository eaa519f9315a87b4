"""The fast lane does what the other does: the same conversations with both, byte by byte on either side.

And it carries what it is there for: the plain requests of common clients, and many of them at once.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import ssl
import subprocess
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
from hypothesis import HealthCheck, given, settings

from tests.support import corpus_talks, servers
from tests.support.clients import Raw, client_context, curl, message
from tests.support.conversations import conversations
from tests.support.harness import REPO, Proxy, rows, thorough, verify
from tests.support.lanes import Lane, Talk, compare, compare_all
from tests.support.upstreams import Authority, Recorder
from tests.support.verifiers import need

RULES = """\
rules:
  - {name: refused, match: ~u /refused, block: true}
  - {name: unsigned, match: ~u /unsigned, sign: false}
"""
SUBJECTS = conversations()
SAMPLE = {"in_turn": 25, "slowly": 12, "cut_requests": 20, "cut_answers": 24, "answers": 20, "requests": 10}
SAMPLE |= {"pipelined": 3, "interims": 3, "early": 3, "upstreams": 4, "gone": 2}
"""Of these subjects, the default run holds one conversation in so many."""
COUNTED = {"in_turn", "pipelined", "slowly", "interims", "answers"}
"""Subjects of which both lanes count the same number of requests that set out.

Where a body comes malformed, or not as a whole, together with its head, that depends: mitmproxy gathers what is short,
and reads on before it connects. The fast lane has set out by then, and may have sent some of it. Both are told 400, or
are gone, and RFC 9112 §7 and §8 leave open what has been forwarded before.
"""


@dataclass
class Pair:
    """Two proxies that differ in nothing but the lane, and a loop in which clients and upstreams of both run."""

    fast: Proxy
    slow: Proxy
    closed: int
    authority: Authority
    trust: ssl.SSLContext
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)

    def lane(self, proxy: Proxy, way: str) -> Lane:
        """One of them, as conversations of this way are held with it: regular, tunnel, tls."""
        tls = (self.authority.server_context(["http/1.1"]), self.trust) if way == "tls" else ()
        return Lane(proxy.port, self.closed, way != "regular", *tls)

    def failures(self, talks: Sequence[Talk], way: str = "regular") -> list[str]:
        """How the lanes differ in these."""
        fast, slow = self.lane(self.fast, way), self.lane(self.slow, way)
        found = self.loop.run_until_complete(compare_all(talks, lambda talk: compare(talk, fast, slow)))
        return sorted(found.values())


@pytest.fixture(scope="module")
def pair(
    tmp_path_factory: pytest.TempPathFactory, confdir: Path, proxy_ca: Path, authority: Authority
) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("lanes")
    (folder / "rules.yaml").write_text(RULES)
    sets = (f"ssl_verify_upstream_trusted_ca={authority.pem}", "jwt_rules=rules.yaml", "jwt_response_timeout=2")
    args = [part for option in sets for part in ("--set", option)]
    with ExitStack() as stack:
        fast, slow = (
            stack.enter_context(Proxy(*args, cwd=folder, confdir=confdir, env={"JWT_FAST_LANE": lane}))
            for lane in ("on", "off")
        )
        closed = stack.enter_context(socket.socket())
        closed.bind(("127.0.0.1", 0))  # taken, but nobody listens
        trust = client_context(proxy_ca, "http/1.1")
        pair = Pair(fast, slow, closed.getsockname()[1], authority, trust)
        yield pair
        pair.loop.run_until_complete(asyncio.sleep(0.1))
        pair.loop.close()
        for proxy in (fast, slow):
            assert proxy.running, proxy.output
            proxy.stop()
            assert "Traceback" not in proxy.output, proxy.output


def counts(proxy: Proxy) -> Counter[str]:
    """What the proxy has counted so far: all requests that set out, and those in the fast lane."""
    with Raw(proxy.port) as client:
        status = json.loads(client.request(message("GET", "/status", "Host: localhost")).body)
    return Counter(all=status["proxied_requests"], fast=status["fast_lane_requests"])


# --- the lanes do not differ


def test_there_are_many_conversations() -> None:
    names = [talk.name for talks in SUBJECTS.values() for talk in talks]
    assert [name for name, count in Counter(names).items() if count > 1] == []
    assert len(names) > 2000
    assert sum(len(talks[:: SAMPLE.get(subject, 1)]) for subject, talks in SUBJECTS.items()) > 200


@pytest.mark.parametrize("subject", SUBJECTS)
def test_conversations_go_the_same_way(pair: Pair, subject: str) -> None:
    fast, slow = _compare(pair, SUBJECTS[subject][:: SAMPLE.get(subject, 1)])
    assert fast == slow or subject not in COUNTED


@thorough
@pytest.mark.parametrize("subject", SAMPLE)
def test_all_others_of_these_do_too(pair: Pair, subject: str) -> None:
    fast, slow = _compare(pair, [talk for number, talk in enumerate(SUBJECTS[subject]) if number % SAMPLE[subject]])
    assert fast == slow or subject not in COUNTED


@pytest.mark.parametrize("subject", rows({name: (name,) for name in SUBJECTS}, "pipelined", "upstreams"))
def test_conversations_in_tls_go_the_same_way(pair: Pair, subject: str) -> None:
    talks = [talk for talk in SUBJECTS[subject] if not talk.plain]
    _compare(pair, talks[:: 2 * SAMPLE.get(subject, 1)], "tls")


PARTS = 12


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=thorough) for part in range(1, PARTS))])
@pytest.mark.parametrize("way", corpus_talks.WAYS)
def test_the_corpus_goes_the_same_way(pair: Pair, way: str, part: int) -> None:
    _compare(pair, list(corpus_talks.talks(way))[part::PARTS], way)


def _compare(pair: Pair, talks: Sequence[Talk], way: str = "regular") -> tuple[int, int]:
    """Fail if the lanes differ; how many requests have set out in each."""
    before = counts(pair.fast), counts(pair.slow)
    failures = pair.failures(talks, way)
    assert not failures, f"{len(failures)} conversations:\n" + "\n".join(failures)
    fast, slow = counts(pair.fast) - before[0], counts(pair.slow) - before[1]
    assert slow["fast"] == 0
    assert way != "regular" or fast["fast"] > 0
    return fast["all"], slow["all"]


TEXTS = corpus_talks.requests()
CHANGED = {
    "60 of them": pytest.param(60, id="60 of them"),
    "1000 of them": pytest.param(1000, id="1000 of them", marks=thorough),
}


@pytest.mark.parametrize("examples", CHANGED.values())
def test_so_does_what_is_changed_in_the_corpus(pair: Pair, examples: int) -> None:
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(corpus_talks.changed(TEXTS))
    def try_(talk: Talk) -> None:
        assert not pair.failures([talk])

    try_()
    assert pair.fast.running, pair.fast.output


# --- common clients are in the fast lane

Ask = Callable[[str, Recorder, Path], None]


def _curl(*args: str) -> Ask:
    return lambda proxy, upstream, folder: _check(curl(*args, upstream.url + "/", proxy=proxy, cwd=folder).stdout)


def _check(said: bytes) -> None:
    assert said.endswith(b"ok") or b"HTTP/1.1 200 " in said


def _httpx(proxy: str, upstream: Recorder, folder: Path) -> None:
    with httpx.Client(proxy=proxy, trust_env=False) as client:
        for method, body in _BODIES:
            assert client.request(method, upstream.url, **body).status_code == 200


def _aiohttp(proxy: str, upstream: Recorder, folder: Path) -> None:
    async def ask() -> None:
        async with aiohttp.ClientSession() as session:
            for method, body in _BODIES:
                async with session.request(method, upstream.url, proxy=proxy, **body) as reply:
                    assert reply.status == 200

    asyncio.run(ask())


def _urllib(proxy: str, upstream: Recorder, folder: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": proxy}))
    for data in (None, b"a=b"):
        with opener.open(upstream.url, data, timeout=10) as reply:
            assert reply.read() == b"ok"


_BODIES: Sequence[tuple[str, Mapping[str, Any]]] = (
    ("GET", {}),
    ("POST", {"data": {"a": "b"}}),
    ("PUT", {"json": {"a": "b"}}),
    ("HEAD", {}),
    ("DELETE", {}),
)

_NODE = """\
const [port, url] = JSON.parse(process.argv[1]);
const agent = new (require('http').Agent)({keepAlive: true});
const ask = (method, body) => new Promise((resolve, reject) => {
  const headers = {Host: new URL(url).host};
  const request = require('http').request({host: '127.0.0.1', port, path: url + '/', method, headers, agent});
  request.on('response', answer => answer.resume().on('end', () => resolve(answer.statusCode)));
  request.on('error', reject).end(body);
});
(async () => {
  for (const [method, body] of [['GET'], ['POST', 'a=b'], ['GET']]) console.log(await ask(method, body));
  agent.destroy();
})();
"""


def _node(proxy: str, upstream: Recorder, folder: Path) -> None:
    program = need(shutil.which("node"), "Node is not installed")
    port = int(proxy.rpartition(":")[2])
    done = _run(folder, program, "-e", _NODE, json.dumps([port, upstream.url]))
    assert done.split() == [b"200"] * 3


def _wget(*args: str) -> Ask:
    def ask(proxy: str, upstream: Recorder, folder: Path) -> None:
        program = need(shutil.which("wget"), "wget is not installed")
        options = ("--no-config", "-q", "-O", "-", "-e", "use_proxy=yes", "-e", f"http_proxy={proxy}")
        _check(_run(folder, program, *options, *args, upstream.url + "/"))

    return ask


def _java(client: str) -> Ask:
    def ask(proxy: str, upstream: Recorder, folder: Path) -> None:
        if not shutil.which("javac"):
            pytest.skip("no JDK is installed")
        quick = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
        source = str(REPO / "tests/support/Defaults.java")
        done = _run(folder, "java", *quick, source, client, proxy.rpartition(":")[2], upstream.url)
        assert done.split() == [b"200"] * 3

    return ask


def _run(folder: Path, *argv: str) -> bytes:
    done = subprocess.run(argv, cwd=folder, capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def _said(*heads: str) -> Ask:
    """What a client that need not be installed is known to say."""

    def ask(proxy: str, upstream: Recorder, folder: Path) -> None:
        with Raw(int(proxy.rpartition(":")[2])) as client:
            for head in heads:
                text = head.format(url=upstream.url, authority=upstream.authority)
                method = text.partition(" ")[0]
                assert client.request(text.replace("\n", "\r\n").encode(), method).status == 200

    return ask


GO = "{} {{url}}/ HTTP/1.1\nHost: {{authority}}\nUser-Agent: Go-http-client/1.1\n{}Accept-Encoding: gzip\n\n"
REQUESTS = (
    "{} {{url}}/ HTTP/1.1\nHost: {{authority}}\nUser-Agent: python-requests/2.32.3\nAccept-Encoding: gzip, deflate\n"
    "Accept: */*\nConnection: keep-alive\n{}\n"
)
FORM = "Content-Length: 3\nContent-Type: application/x-www-form-urlencoded\n"
CLIENTS: Mapping[str, Ask] = {
    "curl": _curl(),
    "curl -I": _curl("-I"),
    "curl -d": _curl("-d", "a=b"),
    "curl -F": _curl("-F", "a=b"),
    "curl -X DELETE": _curl("-X", "DELETE"),
    "curl --compressed -u": _curl("--compressed", "-u", "user:pass"),
    "httpx": _httpx,
    "aiohttp": _aiohttp,
    "urllib": _urllib,
    "node": _node,
    "wget": _wget(),
    "wget --post-data": _wget("--post-data", "a=b"),
    "java HttpURLConnection": _java("HttpURLConnection"),
    "java HttpClient": _java("HttpClient"),
    "go": _said(
        GO.format("GET", ""),
        GO.format("POST", FORM) + "a=b",
        GO.format("POST", "Transfer-Encoding: chunked\n") + "3\na=b\n0\n\n",
        GO.format("HEAD", ""),
    ),
    "requests": _said(REQUESTS.format("GET", ""), REQUESTS.format("POST", FORM) + "a=b", REQUESTS.format("HEAD", "")),
}


@pytest.mark.parametrize(
    "ask",
    rows({name: (ask,) for name, ask in CLIENTS.items()}, *set(CLIENTS) - {"java HttpURLConnection"}),
)
def test_what_a_client_asks_by_default_goes_fast(pair: Pair, recorder: Recorder, tmp_path: Path, ask: Ask) -> None:
    before = counts(pair.fast)
    ask(pair.fast.url, recorder, tmp_path)
    after = counts(pair.fast) - before
    assert after["all"] == len(recorder.requests) > 0
    assert after["fast"] >= 0.99 * after["all"]
    for seen in recorder.requests:
        assert verify(seen.token)


# --- many at once

CLIENTS_AT_ONCE, EACH = 100, 20
ODD_FROM = 12
"""Which request is the first odd one of a client that says such: from there on mitmproxy has the connection."""


class Answers(asyncio.Protocol):
    """An upstream that answers with the path, and keeps all tokens; requests have three bytes of body, or none."""

    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens = tokens
        self._buffer = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while found := _REQUEST.match(self._buffer):
            self._buffer = self._buffer[found.end() :]
            path = found[1] or found[2]
            tokens = re.findall(rb"(?im)^x-my-jwt: *(\S+)\r$", found[0])
            self._tokens += [(path.decode(), token.decode()) for token in tokens]
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(path), path))


_REQUEST = re.compile(rb"(?s)(?:GET (\S+) .*?\r\n\r\n|POST (\S+) .*?\r\n\r\nabc)")


@pytest.mark.parametrize("way", rows({"regular": ("regular",), "tls": ("tls",)}, "regular"))
def test_many_clients_at_once_get_their_own_answers_and_each_request_its_own_token(pair: Pair, way: str) -> None:
    before = counts(pair.fast)
    tokens = pair.loop.run_until_complete(_ask_at_once(pair, way))
    after = counts(pair.fast) - before
    asked = [f"/{client}/{number}" for client in range(CLIENTS_AT_ONCE) for number in range(EACH)]
    assert sorted(path for path, _ in tokens) == sorted(asked)
    assert after["all"] == len(asked)
    assert len({verify(token)["jti"] for _, token in tokens}) == len(asked)
    if way == "regular":
        odd = len([client for client in range(CLIENTS_AT_ONCE) if _is_odd(client, ODD_FROM)])
        assert odd
        assert after["fast"] == len(asked) - odd * (EACH - ODD_FROM)


async def _ask_at_once(pair: Pair, way: str) -> list[tuple[str, str]]:
    tokens: list[tuple[str, str]] = []
    tls = pair.authority.server_context(["http/1.1"]) if way == "tls" else None
    server = await asyncio.get_running_loop().create_server(lambda: Answers(tokens), "127.0.0.1", 0, ssl=tls)
    authority = "127.0.0.1:{1}".format(*server.sockets[0].getsockname())
    try:
        async with asyncio.TaskGroup() as group:
            for client in range(CLIENTS_AT_ONCE):
                group.create_task(_ask(pair, authority, client, in_tls=way == "tls"))
    finally:
        await servers.end(server)
    return tokens


async def _ask(pair: Pair, authority: str, client: int, *, in_tls: bool) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", pair.fast.port)
    try:
        if in_tls:
            writer.write(message("CONNECT", authority, f"Host: {authority}"))
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
            await writer.start_tls(pair.trust, server_hostname="127.0.0.1")
        for number in range(EACH):
            path = f"/{client}/{number}"
            odd = ("TE: trailers", "Connection: TE") if _is_odd(client, number) else ()
            url = path if in_tls else f"http://{authority}{path}"
            has_body = number % 3 == 1
            length = ("Content-Length: 3",) if has_body else ()
            body = b"abc" if has_body else b""
            method = "POST" if has_body else "GET"
            writer.write(message(method, url, f"Host: {authority}", *odd, *length, body=body))
            head = await reader.readuntil(b"\r\n\r\n")
            size = re.search(rb"(?i)content-length: (\d+)", head)
            assert head.startswith(b"HTTP/1.1 200 "), head
            assert size
            assert await reader.readexactly(int(size[1])) == path.encode()
    finally:
        writer.transport.abort()


def _is_odd(client: int, number: int) -> bool:
    return client % 4 == 0 and number >= ODD_FROM and number % 2 == 0
