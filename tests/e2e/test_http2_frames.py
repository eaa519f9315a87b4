"""What RFC 9113 says MUST be done with a client's frames, by frames of our own: in a tunnel and in reverse mode.

Each case of `tests/support/frame_cases.py` is a connection of its own, and after its frames comes a sound request. The
upstream never sees a refused request, and one token in each that it sees.
"""

from __future__ import annotations

import functools
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.clients import Raw, client_context
from tests.support.frame_cases import (
    CASES,
    CONCURRENT,
    INITIAL_WINDOW,
    LAST,
    PROTOCOL,
    REFUSED,
    TOGETHER,
    WINDOW,
    Asks,
    Case,
    Must,
)
from tests.support.frames import END_HEADERS, GOAWAY, PING, Peer, data, frame, settings, window_update
from tests.support.harness import Proxy, verify
from tests.support.upstreams import Authority, Recorder, Seen, respond

KNOWN = {
    "SETTINGS acknowledged with a payload": "h2 says PROTOCOL_ERROR of what hyperframe cannot parse; all ends the same",
    "WINDOW_UPDATE with the reserved bit": "hyperframe takes the bit for a part of the number; no client sets it",
}
"""What the proxy does otherwise, and why it is not mended."""

MODES = ["tunnel", "reverse"]

NUMBERS = {name: str(number) for number, name in enumerate(CASES)}
"""Where the requests of a case go."""
NAMES = {number: name for name, number in NUMBERS.items()}


@dataclass
class Place:
    """A proxy in one mode, its upstream, and how to get an HTTP/2 connection to it."""

    mode: str
    proxy: Proxy
    upstream: Recorder
    trust: ssl.SSLContext

    def connect(self) -> Peer:
        """A connection that has agreed on h2, and has sent nothing of it."""
        client = Raw(self.proxy.port, timeout=2)
        if self.mode == "tunnel":
            client.tunnel(self.upstream.authority)
        return Peer(client.start_tls(self.trust))

    def ask(self, peer: Peer, place: str, stream: int = 1) -> Asks:
        """The requests of one case."""
        return Asks(self.upstream.authority, place, peer.settings, stream)


@pytest.fixture(scope="module", params=MODES)
def place(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    confdir: Path,
    proxy_ca: Path,
    authority: Authority,
) -> Iterator[Place]:
    """A tunnel to an upstream that speaks HTTP/2, or a reverse proxy of one that speaks HTTP/1.1."""
    alpn = ["h2"] if request.param == "tunnel" else ["http/1.1"]
    with Recorder(authority=authority, alpn=alpn) as upstream:
        mode = "regular" if request.param == "tunnel" else f"reverse:{upstream.url}"
        trust = f"ssl_verify_upstream_trusted_ca={authority.pem}"
        folder = tmp_path_factory.mktemp("frames")
        with Proxy("--mode", mode, "--set", trust, cwd=folder, confdir=confdir) as proxy:
            yield Place(request.param, proxy, upstream, client_context(proxy_ca, "h2"))
            assert proxy.running, proxy.output
            proxy.stop()
            assert "Traceback" not in proxy.output, proxy.output


def test_what_must_follow_each_frame(place: Place) -> None:
    """All cases at once, on connections of their own."""
    cases = {name: case for name, case in CASES.items() if name not in KNOWN}
    if faults := _faults(place, cases):
        pytest.fail(faults, pytrace=False)


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.xfail(reason=KNOWN[name])) for name in KNOWN])
def test_what_is_known_to_be_otherwise(place: Place, name: str) -> None:
    """When it is mended, its line in KNOWN has to go."""
    assert _faults(place, {name: CASES[name]}) == ""


def _faults(place: Place, cases: dict[str, Case]) -> str:
    """What went wrong, each with the name of its case."""
    before = len(place.upstream.requests)
    shared = [name for name in cases if name in TOGETHER]
    groups = [shared[at :: len(shared) // 8 + 1] for at in range(len(shared) // 8 + 1)]
    with ThreadPoolExecutor(8) as pool:
        sound = {name for names in pool.map(lambda names: _run_together(place, names), groups) for name in names}
        alone = [name for name in cases if name not in sound]
        found = dict(zip(alone, pool.map(lambda name: _run(place, name), alone), strict=True))
    for seen in place.upstream.requests[before:]:
        if fault := _arrived(seen):
            name = NAMES.get(seen.path.partition("/")[2].partition("/")[0], "a request that no case has sent")
            found[name] = f"{found.get(name, '')} {fault}"
    found["what the upstream could not read"] = ", ".join(map(repr, place.upstream.garbage))
    return "\n".join(f"{name}: {fault}" for name, fault in found.items() if fault)


def _arrived(seen: Seen) -> str:
    """What is wrong with a request that the upstream saw."""
    kind = seen.path.rpartition("/")[2]
    if kind not in ("sound", "cut") or (kind == "cut" and seen.complete):
        return f"arrived: {seen.method} {seen.target}, body {seen.complete and seen.body!r}"
    bodiless = seen.method == "GET" or seen.values("content-length") == ["0"]
    wrong = seen.complete and (seen.body.strip(b"o") or bool(seen.body) is bodiless)
    if wrong or (seen.version == "1.1" and len(seen.values("cookie")) > 1):
        return f"arrived changed: {seen.fields} {seen.body!r}"
    verify(seen.token)
    return ""


def _run_together(place: Place, names: list[str]) -> list[str]:
    """These cases on one connection; the names again, or none if anything was wrong, as each then has to run alone."""
    with place.connect() as peer:
        peer.open()
        asks = {name: place.ask(peer, NUMBERS[name], 2 * at + 1) for at, name in enumerate(names)}
        steps = [step for name, ask in asks.items() for step in TOGETHER[name].steps(ask)]
        sound = [ask.get(LAST) for ask in asks.values()]
        peer.send(*(step for step in steps if isinstance(step, bytes)), sound[0])
        wrong = [name for name, ask in asks.items() if _judge(peer, TOGETHER[name], ask)]
    return [] if wrong else names


def _run(place: Place, name: str) -> str:
    """What is wrong with what followed the frames of a case; empty: nothing."""
    try:
        return _follow(place, NUMBERS[name], CASES[name])
    except Exception as error:  # the others are to run all the same
        return repr(error)


def _follow(place: Place, number: str, case: Case) -> str:
    with place.connect() as peer:
        if case.opened:
            peer.open()
        ask = place.ask(peer, number)
        *steps, last = case.steps(ask)
        for step in steps:
            if isinstance(step, bytes):
                peer.send(step)
            elif not peer.until(functools.partial(peer.ended.__contains__, step)):
                return f"no answer on stream {step}"
        assert isinstance(last, bytes)
        peer.send(last, ask.get(LAST))
        return _judge(peer, case, ask)


def _judge(peer: Peer, case: Case, ask: Asks) -> str:
    def answered() -> bool:
        settled = peer.ended | set(peer.resets)
        return ask.sound <= settled and (case.must.goes_on or ask.stream in settled)

    peer.until(lambda: peer.goaway is not None or answered())
    if peer.goaway is not None or peer.closed:
        return _judge_end(peer, case.must)
    code = peer.resets.get(ask.stream) or None  # NO_ERROR may follow an answer (§8.1)
    status = peer.statuses.get(ask.stream, 0)
    refused = code is not None or 400 <= status < 500 or status == 501
    if refused and not (case.must.stream is not None and code in (None, *case.must.stream)):
        return f"refused on the stream: {code} {status}"
    if not refused and not case.must.goes_on:
        return f"not refused: {peer.statuses} {peer.resets}"
    sound = ask.sound - {ask.stream if refused else 0}
    if any(peer.statuses.get(stream) != 200 for stream in sound) or not case.then(peer):
        return f"{peer.statuses} {peer.resets}, pongs {peer.pongs}, {peer.acks} acknowledgements"
    return ""


def _judge_end(peer: Peer, must: Must) -> str:
    if must.connection is None or peer.goaway not in (None, *must.connection):
        return f"the connection ended, code {peer.goaway}"
    return "" if peer.until(lambda: peer.closed) else "GOAWAY, but the connection stays open"


LONG = b"0123456789" * 8000
"""An answer that is longer than the window of a connection is at first."""


@pytest.fixture
def long_answer(place: Place) -> str:
    """What to ask for to get one."""
    place.upstream.route("/long/sound", respond(200, body=LONG))
    return "long"


def test_an_answer_fills_the_window_and_no_more(place: Place, long_answer: str) -> None:
    """RFC 9113 §6.9.1, with a window of 10 bytes; the value that comes last in SETTINGS counts (§6.5.3)."""
    with place.connect() as peer:
        peer.open((INITIAL_WINDOW, 1), (INITIAL_WINDOW, 10))
        peer.send(place.ask(peer, long_answer).get())
        assert _size(peer, 10) == 10
        peer.send(window_update(1, 7))
        assert _size(peer, 17) == 17
        peer.send(window_update(0, 100), window_update(1, len(LONG)))
        assert _size(peer, 0xFFFF + 100) == 0xFFFF + 100
        peer.send(window_update(0, len(LONG)))
        assert peer.until(lambda: 1 in peer.ended)
        assert peer.bodies[1] == LONG


def test_an_answer_fills_the_window_of_the_connection_and_no_more(place: Place, long_answer: str) -> None:
    """RFC 9113 §6.9.2: SETTINGS do not change it; two streams share it."""
    with place.connect() as peer:
        peer.open((INITIAL_WINDOW, WINDOW))
        ask = place.ask(peer, long_answer)
        peer.send(ask.get(1), ask.get(3))
        assert _size(peer, 0xFFFF, 1, 3) == 0xFFFF
        peer.send(window_update(0, 2 * len(LONG)))
        assert peer.until(lambda: {1, 3} <= peer.ended)
        assert peer.bodies[1] == peer.bodies[3] == LONG


def test_a_window_may_become_negative(place: Place, long_answer: str) -> None:
    """RFC 9113 §6.9.2: what was sent counts against a window that SETTINGS make smaller."""
    with place.connect() as peer:
        peer.open((INITIAL_WINDOW, 10))
        peer.send(place.ask(peer, long_answer).get())
        assert _size(peer, 10) == 10
        peer.send(settings((INITIAL_WINDOW, 5)), window_update(1, 5))  # -5, and then 0
        assert _size(peer, 10) == 10
        peer.send(window_update(1, 3))
        assert _size(peer, 13) == 13


def test_no_more_streams_than_the_proxy_said(place: Place) -> None:
    """RFC 9113 §5.1.2: one more is refused; the others go on, and the next is served when one of them has ended."""
    with place.connect() as peer:
        peer.open()
        ask = place.ask(peer, "many")
        limit = peer.settings[CONCURRENT]
        assert 100 <= limit <= 1000  # fewer would slow clients down (§6.5.2)
        last = 2 * limit + 1
        peer.send(*(ask.post(stream, ("content-length", "2")) for stream in range(1, last, 2)))
        peer.send(ask.bad(stream=last, method="POST", flags=END_HEADERS), data(last, b"oo"))
        assert peer.until(lambda: last in peer.resets)
        assert peer.resets[last] in (PROTOCOL, REFUSED)
        peer.send(data(1, b"oo"))
        assert peer.until(lambda: 1 in peer.ended)
        peer.send(ask.get(last + 2))
        assert peer.until(lambda: last + 2 in peer.ended)
        assert peer.statuses == {1: 200, last + 2: 200}
    assert [seen.path for seen in place.upstream.requests if seen.path.startswith("/many/")] == ["/many/sound"] * 2


def test_a_client_that_goes_away_gets_its_answer(place: Place) -> None:
    """RFC 9113 §6.8: GOAWAY lets what is under way come to its end."""
    with place.connect() as peer:
        peer.open()
        peer.send(place.ask(peer, "leaving").get(), frame(GOAWAY, bytes(8)))
        assert peer.until(lambda: 1 in peer.ended)
        assert peer.statuses == {1: 200}


@pytest.mark.skipif(not shutil.which("h2spec"), reason="h2spec is not installed")
def test_h2spec_finds_nothing(place: Place) -> None:
    """In reverse mode, as it knows no proxies."""
    if place.mode == "reverse":
        command = ["h2spec", "-t", "-k", "-o", "2", "-h", "127.0.0.1", "-p", str(place.proxy.port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stdout


def _size(peer: Peer, least: int, *streams: int) -> int:
    """How much of the bodies of these streams (of stream 1) is there, when nothing more comes."""

    def size() -> int:
        return sum(len(peer.bodies[stream]) for stream in streams or [1])

    peer.until(lambda: size() >= least)
    pongs = len(peer.pongs)
    peer.send(frame(PING, bytes(8)))
    assert peer.until(lambda: len(peer.pongs) > pongs)
    peer.until(lambda: False, timeout=0.05)  # as the upstream may have more, which the PING did not wait for
    return size()
