"""A browser through the proxy: all that a page brings with it arrives signed, and what we show looks right."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.support import namespace
from tests.support.browser import Chromium, Tab, trust_by_key, trust_by_nss
from tests.support.clients import Raw, message
from tests.support.harness import REPO, SECRET, Process, Proxy, StartProxy, clean_env, launcher, thorough, verify
from tests.support.upstreams import Authority, Recorder, respond
from tests.support.workers import until

pytestmark = pytest.mark.skipif(bool(namespace.unable()), reason=namespace.unable())

SHOP, CDN = "www.shop.example", "cdn.shop.example"
"""Names that only the proxy has to know: the browser asks it for them."""
SCREENSHOTS = REPO / "build/screenshots"

PAGE = """<!doctype html><title>shop</title><link rel=icon href="data:,">
<link rel=stylesheet href="https://CDN/style.css">
<script src="https://CDN/code.js" crossorigin></script>
<img id=image src="https://CDN/image.svg"><iframe src="/frame"></iframe>
"""
DO_ALL = """(async () => {
  const posted = await (await fetch('/post', {method: 'POST', body: 'a=b'})).text();
  const event = await new Promise((done, fail) => {
    const source = new EventSource('/events');
    source.onmessage = one => { source.close(); done(one.data); };
    source.onerror = fail;
  });
  const message = await new Promise((done, fail) => {
    const socket = new WebSocket('wss://' + location.host + '/socket');
    socket.onopen = () => socket.send('hello');
    socket.onmessage = one => { socket.close(); done(one.data); };
    socket.onerror = fail;
  });
  return [posted, event, message, window.code, getComputedStyle(document.body).color,
    document.getElementById('image').naturalWidth];
})()"""

CONTRAST = """(() => {
  const light = color => color.map(part => part / 255)
    .map(part => part <= .04045 ? part / 12.92 : ((part + .055) / 1.055) ** 2.4)
    .reduce((sum, part, at) => sum + part * [.2126, .7152, .0722][at], 0);
  const parts = color => color.match(/[\\d.]+/g).map(Number);
  const back = element => {
    for (; element; element = element.parentElement) {
      const color = parts(getComputedStyle(element).backgroundColor);
      if (color.length < 4 || color[3] > 0) return color.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const texts = [...document.body.querySelectorAll('*')]
    .filter(one => [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim()));
  const ratios = texts.map(one => {
    const [a, b] = [light(parts(getComputedStyle(one).color).slice(0, 3)), light(back(one))].sort((x, y) => y - x);
    return (a + .05) / (b + .05);
  });
  return [Math.min(...ratios), document.documentElement.scrollWidth - innerWidth];
})()"""


class Shop:
    """Two hosts by HTTPS at one port, which note what they are asked."""

    def __init__(self, authority: Authority) -> None:
        self.tokens: dict[str, str] = {}
        self._context = authority.server_context(leaf=authority.issue("*.shop.example"))
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    def stop(self) -> None:
        """Serve no more."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(10)

    async def _serve(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self._context)
        await site.start()
        self.port = runner.addresses[0][1]
        self._ready.set()
        await self._stopping.wait()
        await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        assert request.host.split(":")[0] == (CDN if request.path in THINGS else SHOP)
        self.tokens[request.path] = request.headers.get("x-my-jwt", "")
        if request.path == "/socket":
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            await socket.send_str(f"you said {await socket.receive_str()}")
            await socket.close()
            return socket
        if request.path == "/":
            return web.Response(text=PAGE.replace("CDN", f"{CDN}:{self.port}"), content_type="text/html")
        if request.path == "/events":
            return web.Response(text="data: news\n\n", content_type="text/event-stream")
        body, kind = THINGS.get(request.path, (await request.text() or "framed", "text/plain"))
        return web.Response(text=body, content_type=kind, headers={"Access-Control-Allow-Origin": "*"})


THINGS = {
    "/style.css": ("body { color: rgb(1, 2, 3) }", "text/css"),
    "/code.js": ("window.code = 'ran'", "text/javascript"),
    "/image.svg": ('<svg xmlns="http://www.w3.org/2000/svg" width="7" height="7"/>', "image/svg+xml"),
}
ALL = {*THINGS, "/", "/frame", "/post", "/events", "/socket"}


@pytest.fixture(scope="module")
def shop(authority: Authority) -> Iterator[Shop]:
    """The upstream."""
    upstream = Shop(authority)
    yield upstream
    upstream.stop()


@pytest.fixture(scope="module")
def knowing(tmp_path_factory: pytest.TempPathFactory, confdir: Path, authority: Authority) -> Iterator[Process]:
    """A proxy that finds the shop, and a host that is not there, on this machine."""
    folder = tmp_path_factory.mktemp("knowing")
    namespace.write_files(folder, nameserver="127.0.0.1", hosts=dict.fromkeys((SHOP, CDN, "gone.example"), "127.0.0.1"))
    trust = f"ssl_verify_upstream_trusted_ca={authority.pem}"
    argv = [*namespace.with_files(folder), *launcher(), "--set", f"confdir={confdir}", "--set", trust]
    env = clean_env(folder, {"JWT_SHARED_SECRET": SECRET, "HTTP_PORT": "0"})
    with Process(argv, env=env, cwd=folder, ready=Proxy.READY) as process:
        yield process
        process.stop()
        assert "Traceback" not in process.output, process.output


@contextlib.contextmanager
def browser(folder: Path, proxy: Process, ca: Path, way: str) -> Iterator[Chromium]:
    """One that trusts the CA in this way: by NSS's database, or by a flag with the key's hash."""
    if way == "nss":
        trust_by_nss(folder, ca)
    with Chromium(folder, proxy.url, *((trust_by_key(ca),) if way == "spki" else ())) as started:
        yield started


@pytest.mark.parametrize("way", ["nss", pytest.param("spki", marks=thorough)])
def test_all_that_a_page_brings_arrives_signed_and_our_pages_look_right(
    knowing: Process, shop: Shop, proxy_ca: Path, tmp_path: Path, way: str
) -> None:
    """Page, style, script and image of another origin, frame, POST, events, WebSocket; then what we say ourselves."""
    shop.tokens.clear()
    with browser(tmp_path, knowing, proxy_ca, way) as chromium, chromium.tab() as tab:
        tab.open(f"https://{SHOP}:{shop.port}/")
        assert tab.run(DO_ALL) == ["a=b", "news", "you said hello", "ran", "rgb(1, 2, 3)", 7]
        assert tab.errors == []
        assert shop.tokens.keys() == ALL
        assert len({verify(token)["jti"] for token in shop.tokens.values()}) == len(ALL)
        if way == "nss":
            looks(tab, "echo", "https://jwtproxy.test/orders/7?sort=date")
            assert tab.errors == []
            with socket.socket() as deaf:
                deaf.bind(("127.0.0.1", 0))
                looks(tab, "failure", f"http://gone.example:{deaf.getsockname()[1]}/")
            assert all("502" in error for error in tab.errors), "which is what a browser says of any such answer"
            tab.open("http://jwtproxy.test/")
            assert "Signed" in tab.run("document.body.innerText")


SIZES: dict[str, dict[str, Any]] = {
    "light": {"width": 1100, "height": 900},
    "dark": {"width": 1100, "height": 900, "dark": True},
    "phone": {"width": 390, "height": 844, "phone": True},
    "phone-dark": {"width": 390, "height": 844, "phone": True, "dark": True},
}


def looks(tab: Any, name: str, url: str) -> None:
    """A page can be read in each light and on each screen (WCAG 2.2, 1.4.3 and 1.4.10); screenshots of it are kept."""
    tab.open(url)
    for look, size in SIZES.items():
        tab.look(**size)
        contrast, too_wide = tab.run(CONTRAST)
        assert (contrast >= 4.5, too_wide) == (True, 0), (name, look, contrast, too_wide)
        tab.screenshot(SCREENSHOTS / f"{name}-{look}.png")


# --- our own pages


FIGURES = """Object.fromEntries([...document.querySelectorAll("data")].map(one => [one.dataset.member, one.value]))"""
"""What a page shows of members."""
MOVING = re.compile(r"uptime_seconds|requests_per_second|history\..*|.*open_connections")
"""Members that change while nothing is sent, or by asking."""

HASTE = "const later = setTimeout; window.setTimeout = (act, after) => later(act, after / 10)"
"""What has a page wait a tenth of the time."""

RULES = """rules:
  - {name: "<b>&'pay", match: "~u /pay", claims: {scope: pay}}
  - {name: closed, match: "~u /closed", block: true}
  - {name: unused, match: "~u /unused"}
"""


def leaves(value: Any, at: str = "") -> Iterator[tuple[str, str]]:
    """What JSON tells, by members, as a page has it."""
    if isinstance(value, dict | list):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, f"{at}.{name}" if at else str(name))
    else:
        yield at, "" if value is None else value if isinstance(value, str) else json.dumps(value)


def send(proxy: Process, upstream: Recorder, *paths: str) -> None:
    """Each by a connection of its own, so that any worker may have it."""
    for path in paths:
        with Raw(proxy.port) as client:
            client.request(message("GET", f"{upstream.url}{path}", f"Host: {upstream.authority}"))


def read(proxy: Process, path: str) -> bytes:
    """A page of the proxy's own."""
    with urllib.request.urlopen(f"{proxy.url}{path}", timeout=10) as answer:
        return bytes(answer.read())


def comes(tab: Tab, script: str, wanted: Any) -> None:
    """Wait until this is what a script tells."""
    deadline = time.monotonic() + 10
    while (found := tab.run(script)) != wanted:
        assert time.monotonic() < deadline, (script, found)
        time.sleep(0.1)


def test_the_status_page_agrees_with_json_and_lives_with_and_without_a_script(
    start_proxy: StartProxy, tmp_path: Path
) -> None:
    """And asks nobody but the proxy, nobody while nobody looks, and says when the proxy is gone."""
    (tmp_path / "rules.yaml").write_text(RULES)
    with Recorder() as upstream, Chromium(tmp_path, "direct://") as chromium, chromium.tab() as tab:
        upstream.route("/gone", respond(404))
        proxy = start_proxy("--workers", "2", "--rules", str(tmp_path / "rules.yaml"))
        until(lambda: len(json.loads(read(proxy, "/status"))["workers"]) == 2, 10, "workers")
        send(proxy, upstream, *["/", "/pay?secret=1"] * 5, "/gone", "/closed")
        tab.ask("Page.addScriptToEvaluateOnNewDocument", source=HASTE)
        tab.open(f"{proxy.url}/status")
        shown = tab.run(FIGURES)
        told = dict(leaves(json.loads(read(proxy, "/status"))))
        ended = [name for name in told if name.startswith("ended_workers") and told[name] == "0"]
        assert {name: value for name, value in told.items() if not MOVING.fullmatch(name) and name not in ended} == {
            name: value for name, value in shown.items() if not MOVING.fullmatch(name)
        }
        assert (shown["proxied_requests"], shown["outcomes.refused"], shown["rules.<b>&'pay"]) == ("11", "1", "5")
        send(proxy, upstream, "/", "/")
        requests = f"({FIGURES}).proxied_requests"
        comes(tab, requests, "13")
        tab.run("Object.defineProperty(document, 'hidden', {configurable: true, get: () => true})")
        time.sleep(0.5)
        before = len(tab.requests)
        send(proxy, upstream, "/")
        tab.ask("Emulation.setScriptExecutionDisabled", value=True)
        time.sleep(0.5)
        assert (tab.run(requests), len(tab.requests)) == ("13", before), "nobody looks"
        looks(tab, "status", f"{proxy.url}/status")
        assert tab.run(requests) == "14", "without a script"
        looks(tab, "recent", f"{proxy.url}/recent")
        tab.ask("Emulation.setScriptExecutionDisabled", value=False)
        tab.open(f"{proxy.url}/recent")
        assert tab.run("document.querySelectorAll('details').length") == 15
        tab.run("document.querySelector('details').open = true")
        assert '"scope": "pay"' in tab.run("document.body.textContent")
        send(proxy, upstream, "/pay")
        comes(tab, "document.querySelectorAll('details').length", 16)
        assert tab.run("[...document.querySelectorAll('details')].map(one => one.open).indexOf(true)") == 1
        assert tab.errors == []
        assert [url for url in tab.requests if not url.startswith((f"{proxy.url}/", "data:", "about:"))] == []
        proxy.stop()
        comes(tab, "document.getElementById('gone').hidden", False)
