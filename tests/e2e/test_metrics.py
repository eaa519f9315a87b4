"""What Prometheus reads is what has passed, in all workers and by both ways, and no client chooses its size."""

from __future__ import annotations

import os
import random
import secrets
import shutil
import signal
import subprocess
import time
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.clients import Raw, Reply, message
from tests.support.harness import Process, StartProxy, rows
from tests.support.upstreams import Recorder, raw, respond
from tests.support.workers import WORKERS, await_workers, until

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def _read(proxy: Process) -> str:
    with urllib.request.urlopen(f"{proxy.url}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def _samples(proxy: Process) -> Samples:
    families = text_string_to_metric_families(_read(proxy))
    return {(one.name, tuple(sorted(one.labels.items()))): one.value for family in families for one in family.samples}


def _sum(samples: Samples, name: str, **labels: str) -> float:
    return sum(
        value for (told, given), value in samples.items() if told == name and labels.items() <= dict(given).items()
    )


def _replies(proxy: Process, *targets: str) -> list[Reply]:
    """By one connection."""
    replies = []
    with Raw(proxy.port) as client:
        for target in targets:
            client.send(message("GET", target, "Host: x"))
            replies.append(client.reply())
    return replies


def _ask(proxy: Process, *targets: str) -> list[int]:
    return [reply.status for reply in _replies(proxy, *targets)]


@pytest.mark.parametrize("workers", rows({"one": 1, "several": WORKERS}, "several"))
def test_it_agrees_with_the_status_and_with_the_upstream(workers: int, start_proxy: StartProxy) -> None:
    """Also when a worker is killed in between, which has answered all that was sent by then."""
    with Recorder() as upstream:
        upstream.route("/gone", respond(404))
        proxy = start_proxy("--workers", str(workers), "--set", f"jwt_allow_port={upstream.port}")
        found = await_workers(proxy, workers)
        good, bad = f"{upstream.url}/", f"{upstream.url}/gone"
        for half in range(2):
            with ThreadPoolExecutor(8) as pool:
                asked = [pool.submit(_ask, proxy, *[good] * 9, bad) for _ in range(10)]
                assert [one.result() for one in asked] == [[200] * 9 + [404]] * 10
            if half == 0 and workers > 1:
                os.kill(found[0], signal.SIGKILL)
                until(lambda: len(await_workers(proxy, workers)) == workers, 10, "workers")
        (refusal,) = _replies(proxy, "http://127.0.0.1:1/")
        assert refusal.status == 403
        samples = _samples(proxy)
        with urllib.request.urlopen(f"{proxy.url}/status", timeout=10) as answer:
            status = answer.read().decode()
        assert len(upstream.requests) == 200
        assert _sum(samples, "jwtproxy_proxied_requests_total") == 200
        assert '"proxied_requests": 200' in status
        assert _sum(samples, "jwtproxy_requests_total", outcome="2xx") == 180
        assert _sum(samples, "jwtproxy_requests_total", outcome="4xx") == 20
        assert _sum(samples, "jwtproxy_requests_total", outcome="refused") == 1
        assert _sum(samples, "jwtproxy_requests_total") == 201
        assert _sum(samples, "jwtproxy_refusals_total") == 1
        assert _sum(samples, "jwtproxy_upstream_seconds_count") == 200
        assert _sum(samples, "jwtproxy_signing_seconds_count") == 201
        assert _sum(samples, "jwtproxy_body_bytes_total", direction="sent") == 180 * len(b"ok") + len(refusal.body)
        assert 0 < _sum(samples, "jwtproxy_upstream_seconds_sum") < time.monotonic()
        assert _sum(samples, "jwtproxy_open_connections") <= 1


def test_failures_are_of_the_kinds_that_clients_are_told(start_proxy: StartProxy) -> None:
    """Whoever is at fault: the upstream, or a client, also one whose request cannot be read, or who leaves."""
    with Recorder() as upstream:
        upstream.route("/junk", raw(b"junk\r\n\r\n"))
        upstream.route("/short", raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok"))
        proxy = start_proxy()
        told = Counter[bytes]()
        for path in ("/junk", "/\xff", "/short"):
            with Raw(proxy.port) as client:
                client.send(message("GET", f"{upstream.url}{path}", f"Host: {upstream.authority}"))
                told.update(client.rest().partition(b"Proxy-Status: jwtproxy; error=")[2].split(b"\r\n")[:1])
        with Raw(proxy.port) as client:
            client.send(
                message("POST", f"{upstream.url}/", f"Host: {upstream.authority}", "Content-Length: 100") + b"a"
            )
        until(lambda: _sum(_samples(proxy), "jwtproxy_requests_total") == 3, 10, "requests")
        samples = _samples(proxy)
        assert told == {b"http_protocol_error": 1, b"http_request_error": 1, b"": 1}
        assert _sum(samples, "jwtproxy_upstream_errors_total") == 2
        assert _sum(samples, "jwtproxy_upstream_errors_total", kind="http_protocol_error") == 1
        assert _sum(samples, "jwtproxy_upstream_errors_total", kind="http_response_incomplete") == 1
        assert _sum(samples, "jwtproxy_refusals_total") == 1
        assert _sum(samples, "jwtproxy_refusals_total", reason="http_request_error") == 1
        assert _sum(samples, "jwtproxy_requests_total", outcome="failed") == 2
        assert _sum(samples, "jwtproxy_requests_total", outcome="aborted") == 1
        assert _sum(samples, "jwtproxy_upstream_seconds_count") == 1


@pytest.mark.parametrize("count", rows({"200": 200, "10000": 10_000}, "200"))
def test_no_client_chooses_how_many_series_there_are(count: int, start_proxy: StartProxy, tmp_path: Path) -> None:
    """Whatever hosts, paths, methods and fields they send, and which of a hundred rules those meet."""
    named = [f"- {{name: rule {number}, match: ~u /r{number}$}}" for number in range(100)]
    (tmp_path / "rules.yaml").write_text("\n  ".join(["rules:", *named]))
    with Recorder() as upstream:
        proxy = start_proxy("--rules", str(tmp_path / "rules.yaml"), "--set", f"jwt_allow_port={upstream.port}")

        def odd(number: int) -> None:
            word, rule = secrets.token_hex(4), f"r{number % 100}"
            ends = (f"{word}?{word}", rule)
            good, bad = ([f"{place}/{end}" for end in ends] for place in (upstream.url, f"http://{word}.invalid:7"))
            with Raw(proxy.port) as client:
                client.send(message(word.upper(), random.choice(good + bad), f"Host: {word}", f"{word}: {word}"))
                client.reply()

        every = [f"/r{number}" for number in range(100)]
        for place in (upstream.url, "http://x.invalid:7"):
            for target in ("/", *every):
                _ask(proxy, f"{place}{target}")
        before = _samples(proxy).keys()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(odd, range(count)))
        after = _samples(proxy)
        assert after.keys() == before
        assert _sum(after, "jwtproxy_requests_total") == 2 * 101 + count
        told = {dict(labels)["rule"] for name, labels in after if name == "jwtproxy_requests_total"}
        assert len(told) == 64
        assert _sum(after, "jwtproxy_requests_total", rule="other") >= 101 - 63


def test_promtool_has_nothing_to_say(start_proxy: StartProxy) -> None:
    if not shutil.which("promtool"):
        pytest.skip("no promtool here")
    with Recorder() as upstream:
        proxy = start_proxy()
        assert _ask(proxy, f"{upstream.url}/") == [200]
        done = subprocess.run(
            ["promtool", "check", "metrics"], input=_read(proxy), capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout + done.stderr) == (0, "")
