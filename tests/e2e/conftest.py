"""Fixtures of the end-to-end tests; see `tests/support/` for what they give."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from mitmproxy.certs import CertStore

from tests.support.harness import ADDONS, SECRET, BareMitmdump, Proxy, StartBare, StartProxy
from tests.support.mistakes import RunLauncher, Start, forked_starts
from tests.support.upstreams import Authority, Httpbin, Recorder, deaf_authority


@pytest.fixture(scope="session")
def confdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the proxy's own CA, made once (making one takes a second, and several at once race)."""
    folder = tmp_path_factory.mktemp("confdir")
    CertStore.create_store(folder, "mitmproxy", 2048)
    return folder


@pytest.fixture(scope="session")
def proxy_ca(confdir: Path) -> Path:
    """The certificate that clients of the proxy trust."""
    return confdir / "mitmproxy-ca-cert.pem"


@pytest.fixture(scope="session")
def proxy_trust(proxy_ca: Path) -> ssl.SSLContext:
    """A client context that trusts the proxy's CA, and nothing else."""
    return ssl.create_default_context(cafile=str(proxy_ca))


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The CA of the HTTPS upstreams."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def httpbin() -> Iterator[Httpbin]:
    """The general upstream."""
    with Httpbin() as server:
        yield server


@pytest.fixture(scope="session")
def proxy(tmp_path_factory: pytest.TempPathFactory, confdir: Path, authority: Authority) -> Iterator[Proxy]:
    """The shared proxy: default settings, trusting the tests' CA. It must still live, unshaken, at the end."""
    trust = f"ssl_verify_upstream_trusted_ca={authority.pem}"
    with Proxy("--set", trust, cwd=tmp_path_factory.mktemp("proxy"), confdir=confdir) as process:
        yield process
        assert process.running, process.output
        process.stop()
        assert "Traceback" not in process.output, process.output


CRASH = re.compile("^(?!.*Contentview).*\n.*Traceback", re.MULTILINE)
"""What a fault prints; mitmproxy prints one, too, of each body that it shows and that is not what it calls itself."""


@pytest.fixture
def start_proxy(tmp_path_factory: pytest.TempPathFactory, confdir: Path, authority: Authority) -> Iterator[StartProxy]:
    """Start proxies with other settings: `start_proxy(*args, env=…, secret=…, cwd=…, prepared=…, wait=…,
    fresh=…)`.

    prepared=False leaves out the prepared CA and the trust in the tests' CA (the config folder is then cwd/.mitmproxy).
    """
    started: list[Proxy] = []

    def start(
        *args: str,
        env: Mapping[str, str | None] | None = None,
        secret: str | None = SECRET,
        cwd: Path | None = None,
        prepared: bool = True,
        wait: bool = True,
        fresh: bool = False,
    ) -> Proxy:
        trust = ("--set", f"ssl_verify_upstream_trusted_ca={authority.pem}") if prepared else ()
        process = Proxy(
            *trust,
            *args,
            cwd=cwd or tmp_path_factory.mktemp("proxy"),
            env=env,
            secret=secret,
            confdir=confdir if prepared else None,
            wait=wait,
            fresh=fresh,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.stop()
    crashed = [process.output for process in started if CRASH.search(process.output)]
    assert not crashed, crashed[0]


@pytest.fixture
def start_bare(tmp_path_factory: pytest.TempPathFactory, confdir: Path) -> Iterator[StartBare]:
    """Start stock mitmdump with our scripts: `start_bare(*args, scripts=…, env=…, secret=…, rawtcp=…, wait=…)`."""
    started: list[BareMitmdump] = []

    def start(
        *args: str,
        scripts: Sequence[Path] = (ADDONS / "jwt_inject.py",),
        env: Mapping[str, str | None] | None = None,
        secret: str | None = SECRET,
        cwd: Path | None = None,
        rawtcp: bool = False,
        wait: bool = True,
        fresh: bool = False,
    ) -> BareMitmdump:
        process = BareMitmdump(
            *args,
            cwd=cwd or tmp_path_factory.mktemp("bare"),
            scripts=scripts,
            env=env,
            secret=secret,
            confdir=confdir,
            rawtcp=rawtcp,
            wait=wait,
            fresh=fresh,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.stop()


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunLauncher[Start]]:
    """What `run_launcher` does, many times faster, and whether it tried to get a port."""
    with forked_starts(tmp_path_factory.mktemp("forks")) as start:
        yield start


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """A plain HTTP upstream that records, fresh for the test."""
    with Recorder() as upstream:
        yield upstream


@pytest.fixture
def https_recorder(authority: Authority) -> Iterator[Recorder]:
    """An HTTPS upstream that speaks HTTP/1.1 only."""
    with Recorder(authority=authority, alpn=["http/1.1"]) as upstream:
        yield upstream


@pytest.fixture
def h2_recorder(authority: Authority) -> Iterator[Recorder]:
    """An HTTPS upstream that prefers HTTP/2."""
    with Recorder(authority=authority, alpn=["h2", "http/1.1"]) as upstream:
        yield upstream


@pytest.fixture
def deaf() -> Iterator[str]:
    """A URL where no connection comes about: the listener's queue is full, and the kernel drops what comes."""
    with deaf_authority() as authority:
        yield f"http://{authority}"
