"""What mitmproxy's own addons and users' scripts do is what they do in mitmdump, but for the token.

Each table entry runs twice: jwtproxy-run, and stock mitmdump with a script that sets a fixed `x-my-jwt`. The same
requests must then look the same upstream, the answers the same to the client, and what is recorded the same on disk.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from mitmproxy.http import HTTPFlow
from mitmproxy.io import FlowReader

from tests.support.clients import Raw, message
from tests.support.harness import BareMitmdump, Process, Proxy, verify
from tests.support.upstreams import Recorder, chunked, reset, respond
from tests.support.workers import until

FIXED = """
def requestheaders(flow):
    flow.request.headers["x-my-jwt"] = "fixed"
"""
GONE = b"(the connection ended)"


@dataclass
class Ask:
    """One request: its path, whatever follows in the head, and its body. Over a connection of its own."""

    path: str = "/"
    lines: tuple[str, ...] = ()
    body: bytes = b""
    method: str = "GET"
    target: str = "{url}{path}"
    host: str = "{authority}"


@dataclass
class Views:
    """What was seen of one run, the token's value left out."""

    upstream: list[Any] = field(default_factory=list)
    client: list[bytes] = field(default_factory=list)
    journal: list[str] = field(default_factory=list)
    files: dict[str, Any] = field(default_factory=dict)
    output: str = ""


@dataclass
class Case:
    """Options and scripts, and the requests that show their effect. Texts may name {url}, {authority} and {dir}."""

    name: str
    args: tuple[str, ...]
    asks: Sequence[Ask] = (Ask(),)
    script: str = ""
    shows: Callable[[Views], bool] = lambda views: True
    """Whether the effect was there at all: two runs without it would be alike, too."""


def _run(case: Case, ours: bool, folder: Path, confdir: Path) -> Views:
    folder.mkdir()
    with Recorder() as upstream:
        upstream.route("/chunked", chunked(b"some ", b"pieces"))
        upstream.route("/reset", reset())
        upstream.route("/cookie", respond(200, ("set-cookie", "a=b; Path=/"), body=b"have one"))
        upstream.route("/etag", respond(304, ("etag", '"1"')))
        named = {"url": upstream.url, "authority": upstream.authority, "dir": str(folder)}
        (folder / "local").mkdir()
        (folder / "local" / "file.txt").write_text("of this machine")
        (folder / "fixed.py").write_text(FIXED)
        (folder / "mine.py").write_text(case.script)
        args = [_filled(arg, named) for arg in case.args]
        scripts = [folder / "mine.py"] if case.script else []
        process: Process
        if ours:
            brought = [part for script in scripts for part in ("-s", str(script))]
            alone = {"WORKERS": "1"}  # as mitmdump is; what is compared keeps its state in the process
            quiet = ("--set", "jwt_via=off")
            process = Proxy(*brought, *quiet, *args, cwd=folder, confdir=confdir, env=alone)
        else:
            process = BareMitmdump(*args, cwd=folder, confdir=confdir, scripts=[*scripts, folder / "fixed.py"])
        with process:
            if "def running" in case.script:  # stock mitmdump listens before it says that it is running
                until(lambda: "running" in _journal(folder), 10, "the script is told that the proxy runs")
            answers = [_ask(ask, process.port, named) for ask in case.asks]
            assert process.running
            assert process.stop() == 0, process.output
        return _views(upstream, answers, folder, process, named)


def _journal(folder: Path) -> str:
    path = folder / "journal"
    return path.read_text() if path.exists() else ""


def _filled(text: str, named: dict[str, str]) -> str:
    for name, value in named.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def _ask(ask: Ask, port: int, named: dict[str, str]) -> bytes:
    named = named | {"path": ask.path}
    lines = [f"Host: {_filled(ask.host, named)}", *ask.lines]
    if ask.body:
        lines.append(f"Content-Length: {len(ask.body)}")
    with Raw(port, timeout=5) as client:
        client.send(message(ask.method, _filled(ask.target, named), *lines, body=ask.body))
        try:
            reply = client.reply(ask.method)
        except (EOFError, ConnectionError):
            return GONE
        return reply.head + reply.body


def _views(upstream: Recorder, answers: list[bytes], folder: Path, process: Process, named: dict[str, str]) -> Views:
    views = Views(output=process.output)
    for seen in upstream.requests:
        assert isinstance(process, BareMitmdump) or verify(seen.token)
        views.upstream.append((seen.method, seen.target, _plain(seen.without_token(), named), seen.body))
    views.client = [_same(_undated(answer), named) for answer in answers]
    views.journal = _same(_journal(folder).encode(), named).decode().splitlines()
    return views


def _undated(answer: bytes) -> bytes:
    """An answer without Date and Server as a proxy adds them; of a 502, the first line."""
    if answer.startswith(b"HTTP/1.1 502 "):
        return answer.partition(b"\r\n")[0]
    return re.sub(rb"\r\n(?:date: [^\r]+|server: jwtproxy)", b"", answer, count=2, flags=re.IGNORECASE)


def _plain(fields: list[tuple[bytes, bytes]], named: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name, _same(value, named)) for name, value in fields]


def _same(data: bytes, named: dict[str, str]) -> bytes:
    """What differs between any two runs, replaced: ports, folders, moments."""
    port = named["authority"].rpartition(":")[2].encode()
    data = data.replace(named["dir"].encode(), b"DIR").replace(b":" + port, b":PORT")
    return re.sub(rb"(?i)((?:date|last-modified): )[^\r]+", rb"\1WHEN", data)


def _agree(ours: list[bytes], theirs: list[bytes]) -> None:
    """All answers are the same, but that those of mitmproxy itself come in our words."""
    assert len(ours) == len(theirs)
    for our_answer, their_answer in zip(ours, theirs, strict=True):
        if b"\r\nProxy-Status: jwtproxy; " in our_answer:
            assert our_answer.partition(b"\r\n")[0] == their_answer.partition(b"\r\n")[0]
            assert b"mitmproxy" not in our_answer
        else:
            assert our_answer == their_answer


def both(case: Case, tmp_path: Path, confdir: Path) -> tuple[Views, Views]:
    """The views of our run, and of mitmdump's."""
    with ThreadPoolExecutor(2) as pool:
        ours = pool.submit(_run, case, True, tmp_path / "ours", confdir)
        theirs = pool.submit(_run, case, False, tmp_path / "theirs", confdir)
        return ours.result(), theirs.result()


BODY = b"a body of some words"
AUTH = "Proxy-Authorization: Basic dXNlcjpwYXNz"

CASES = [
    Case(
        "modify_headers",
        ("--set", "modify_headers=/~q/X-New/one", "--set", "modify_headers=/~q/X-Old/",
         "--set", "modify_headers=/~s/X-Answer/two"),
        [Ask(lines=("X-Old: gone", "X-Kept: yes")), Ask("/up", method="POST", body=BODY), Ask("/chunked")],
        shows=lambda views: (b"X-New", b"one") in views.upstream[0][2] and b"X-Answer: two" in views.client[0],
    ),
    Case(
        "modify_body",
        ("--set", "modify_body=/~q/words/letters", "--set", "modify_body=/~s/some/no"),
        [Ask("/up", method="POST", body=BODY), Ask("/chunked")],
        shows=lambda views: b"letters" in views.upstream[0][3] and b"no pieces" in views.client[1],
    ),
    Case(
        "map_remote",
        ("--set", "map_remote=|//elsewhere.invalid|//{authority}",),
        [Ask("/x?y", target="http://elsewhere.invalid{path}", host="elsewhere.invalid"), Ask(),
         Ask("/up", target="http://elsewhere.invalid{path}", host="elsewhere.invalid", method="PUT", body=BODY)],
        shows=lambda views: len(views.upstream) == 3,
    ),
    Case(
        "map_local",
        ("--set", "map_local=|/local|{dir}/local",),
        [Ask("/local/file.txt"), Ask("/local/missing"), Ask("/local/file.txt", method="HEAD"), Ask()],
        shows=lambda views: b"of this machine" in views.client[0] and len(views.upstream) == 1,
    ),
    Case(
        "block_list",
        ("--set", "block_list=:/blocked:451", "--set", "block_list=:/dropped:444"),
        [Ask("/blocked"), Ask("/dropped"), Ask("/up", method="POST", body=BODY)],
        shows=lambda views: b"451" in views.client[0] and views.client[1] == GONE and len(views.upstream) == 1,
    ),
    Case(
        "stickycookie and stickyauth",
        ("--set", "stickycookie=.*", "--set", "stickyauth=.*"),
        [Ask("/cookie"), Ask("/later"), Ask("/later", lines=("Cookie: own=1",)),
         Ask("/a", lines=("Authorization: Basic eDp5",)), Ask("/b")],
        shows=lambda views: (b"cookie", b"a=b") in views.upstream[1][2]
        and (b"authorization", b"Basic eDp5") in views.upstream[4][2],
    ),
    Case(
        "proxyauth",
        ("--proxyauth", "user:pass"),
        [Ask(), Ask(lines=(AUTH,)), Ask(lines=("Proxy-Authorization: Basic eDp5",)),
         Ask("/up", lines=(AUTH,), method="POST", body=BODY)],
        shows=lambda views: b" 407 " in views.client[0] and len(views.upstream) == 2,
    ),
    Case(
        "onboarding, anticache, anticomp, keep_host_header and errors",
        ("--set", "anticache=true", "--set", "anticomp=true", "--set", "keep_host_header=true",
         "--set", "connection_strategy=lazy"),
        [Ask("/etag", lines=('If-None-Match: "1"', "If-Modified-Since: x", "Accept-Encoding: gzip, br")),
         Ask("/", target="http://mitm.it{path}", host="mitm.it"),
         Ask("/cert/pem", target="http://mitm.it{path}", host="mitm.it"),
         Ask("/nothing", target="http://mitm.it{path}", host="mitm.it"),
         Ask("/reset"), Ask("/chunked"), Ask(method="HEAD"), Ask(method="OPTIONS"), Ask(method="DELETE"),
         Ask("/up", method="POST", body=BODY)],
        shows=lambda views: not any(name.lower() == b"if-none-match" for name, _ in views.upstream[0][2])
        and b"BEGIN CERTIFICATE" in views.client[2] and b" 502 " in views.client[4],
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.name))
def test_an_option_does_what_it_does_in_mitmdump(case: Case, tmp_path: Path, confdir: Path) -> None:
    """Upstream and client see the same, in the same order; the requests that left had a token."""
    ours, theirs = both(case, tmp_path, confdir)
    assert case.shows(theirs), (theirs, "no effect in mitmdump itself")
    assert ours.upstream == theirs.upstream
    _agree(ours.client, theirs.client)


# --- scripts

SCRIPT = '''
import asyncio, pathlib
from mitmproxy import ctx, exceptions, http

JOURNAL = pathlib.Path(__file__).with_name("journal")

def note(*words):
    with JOURNAL.open("a") as file:
        print(*words, file=file)

def _own():
    # A script is no module that sys.modules knows: find what mitmproxy registered.
    loader = ctx.master.addons.get("scriptloader")
    return next(script.ns for script in loader.addons if script.ns.__file__ == __file__)

class Late:
    """Added when the proxy runs."""
    def requestheaders(self, flow):
        note("late requestheaders", flow.request.path)
    def request(self, flow):
        note("late request", flow.request.path)
        flow.request.headers["x-late"] = "1"
    async def response(self, flow):
        await asyncio.sleep(0)
        note("late response", flow.request.path, flow.response.status_code)
        flow.response.headers["x-late"] = "2"

class Inner:
    """Named in the script's `addons`' own `addons`."""
    def request(self, flow):
        note("inner request", flow.request.path)

class Outer:
    def __init__(self):
        self.addons = [Inner()]
    def load(self, loader):
        loader.add_option("mine", str, "unset", "Mine.")
    def configure(self, updated):
        if "mine" in updated:
            note("configure", ctx.options.mine)
    def running(self):
        note("running", ctx.options.mine)
        ctx.master.addons.add(Late())
    def done(self):
        note("done")
    def client_connected(self, client):
        note("client_connected")
    def server_connect(self, data):
        note("server_connect")
    def server_connected(self, data):
        note("server_connected")
    def requestheaders(self, flow):
        note("requestheaders", flow.request.path)
        if flow.request.path == "/halt-headers":
            raise exceptions.AddonHalt
        if flow.request.path == "/raise-headers":
            raise ValueError("in requestheaders")
    async def request(self, flow):
        path = flow.request.path
        note("request", path, flow.request.content)
        await asyncio.sleep(0.01)
        flow.request.headers["x-script"] = path
        if path == "/halt":
            raise exceptions.AddonHalt
        if path == "/raise":
            raise ValueError("in request")
        if path == "/answer":
            flow.response = http.Response.make(203, b"of the script", {"x-from": "script"})
        if path == "/kill":
            flow.kill()
        if path == "/rewrite":
            flow.request.path = "/rewritten"
            flow.request.text = "other words"
        if path == "/intercept":
            flow.intercept()
            asyncio.get_running_loop().call_later(0.2, self.resume, flow)
        if path == "/grow":
            # A hook that was not there when the addon was registered, here and in the script itself.
            type(self).responseheaders = lambda self, flow: note("grown responseheaders", flow.request.path)
            _own().response = lambda flow: note("grown response", flow.request.path)
        if path == "/shrink":
            del type(self).responseheaders
        if path == "/option":
            ctx.options.update(modify_headers=["/~q/x-set-at-run-time/1"])
        if path == "/remove":
            ctx.master.addons.remove(ctx.master.addons.get("late"))
    def resume(self, flow):
        note("resume", flow.intercepted)
        flow.request.headers["x-resumed"] = "1"
        flow.resume()
    def response(self, flow):
        note("response", flow.request.path, flow.response.status_code, flow.response.content)
        if flow.request.path == "/raise-response":
            raise ValueError("in response")
        if flow.request.path == "/halt-response":
            raise exceptions.AddonHalt
        if flow.request.path == "/kill-response":
            flow.kill()
        flow.response.headers["x-script"] = "answered"
    def error(self, flow):
        note("error", flow.request.path, flow.error.msg)

class Last:
    def request(self, flow):
        note("last request", flow.request.path)
    def response(self, flow):
        note("last response", flow.request.path)

addons = [Outer(), Last()]
'''

PATHS = (
    "/plain /halt /halt-headers /raise /raise-headers /answer /kill /intercept /reset /raise-response /halt-response "
    "/kill-response /grow /after-grow /shrink /after-shrink /option /after-option /remove /after-remove /chunked"
).split()


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory, confdir: Path) -> tuple[Views, Views]:
    """The same script run by both, asked for the same."""
    asks = [Ask(path) for path in PATHS]
    asks += [Ask("/plain", method="POST", body=BODY), Ask("/rewrite", method="POST", body=BODY)]
    return both(Case("script", ("--set", "mine=set"), asks, SCRIPT), tmp_path_factory.mktemp("scripted"), confdir)


def test_a_script_is_called_as_by_mitmdump(scripted: tuple[Views, Views]) -> None:
    """Every hook, in the same order, with the same contents, whatever raises, halts, waits, comes or goes."""
    ours, theirs = scripted
    assert {"resume True", "grown responseheaders /after-grow", "last request /plain", "inner request /plain"} <= set(
        theirs.journal
    )
    assert ours.journal == theirs.journal
    assert "done" in ours.journal


def test_what_a_script_does_has_the_effect_that_it_has_in_mitmdump(scripted: tuple[Views, Views]) -> None:
    """For the upstream and for the client of each request."""
    ours, theirs = scripted
    _agree(ours.client, theirs.client)
    assert ours.upstream == theirs.upstream


def test_what_raises_is_told_as_by_mitmdump(scripted: tuple[Views, Views]) -> None:
    """With the trace-back of the script's own line."""
    ours, theirs = scripted
    for place in ("requestheaders", "request", "response"):
        said = f"ValueError: in {place}\n"
        assert ours.output.count(said) == theirs.output.count(said) == 1


# --- what is recorded

_UNEQUAL = {"id", "client_conn", "server_conn", "timestamp_created", "timestamp_start", "timestamp_end", "timestamp"}
RECORDED = [
    Ask(lines=("X-One: 1",)),
    Ask("/up", method="POST", body=BODY),
    Ask("/chunked"),
    Ask("/reset"),
]


def _flows(path: Path) -> list[dict[str, Any]]:
    with path.open("rb") as file:
        return [_state(flow) for flow in FlowReader(file).stream() if isinstance(flow, HTTPFlow)]


def _state(flow: HTTPFlow) -> dict[str, Any]:
    """All of a flow but what differs between any two runs, the token's value and its place among the fields."""
    assert flow.request.headers.get_all("x-my-jwt") in (["[token]"], ["fixed"])
    assert not flow.metadata
    del flow.request.headers["x-my-jwt"]
    if flow.response:
        flow.response.headers.pop("date", None)
    state: dict[str, Any] = _without(flow.get_state())
    return state


def _without(state: Any) -> Any:
    if isinstance(state, dict):
        return {key: _without(value) for key, value in state.items() if key not in _UNEQUAL}
    return re.sub(r":\d{4,5}\b|\d{4,5}", "N", repr(state))


@pytest.mark.parametrize(
    ("args", "files"),
    [
        (("-w", "{dir}/flows"), "flows"),
        (
            ("--set", "save_stream_file=+{dir}/flows-%Y", "--set", "save_stream_filter=~m GET"),
            time.strftime("flows-%Y"),
        ),
    ],
    ids=["-w", "strftime, appended, filtered"],
)
def test_a_flow_file_is_what_mitmdump_writes(args: tuple[str, ...], files: str, tmp_path: Path, confdir: Path) -> None:
    """Field by field, but for the token, which is not in it."""
    ours, theirs = both(Case("save", args, RECORDED), tmp_path, confdir)
    assert ours.upstream == theirs.upstream
    saved, expected = _flows(tmp_path / "ours" / files), _flows(tmp_path / "theirs" / files)
    assert expected
    assert saved == expected
    assert b"eyJ" not in (tmp_path / "ours" / files).read_bytes()


def test_a_har_is_what_mitmdump_writes(tmp_path: Path, confdir: Path) -> None:
    """Entry by entry, but for the token, which is not in it, and for times."""
    both(Case("har", ("--set", "hardump={dir}/all.har"), RECORDED), tmp_path, confdir)
    ours, theirs = (_entries(tmp_path / name / "all.har") for name in ("ours", "theirs"))
    assert len(theirs) == len(RECORDED)
    assert ours == theirs
    assert "eyJ" not in (tmp_path / "ours" / "all.har").read_text()


def _entries(path: Path) -> list[Any]:
    entries = json.loads(path.read_text())["log"]["entries"]
    for entry in entries:
        fields = entry["request"]["headers"]
        (token,) = [one for one in fields if one["name"] == "x-my-jwt"]
        assert token["value"] in ("[token]", "fixed")
        fields.remove(token)
        answered = entry["response"]["headers"]
        answered[:] = [one for one in answered if one["name"].lower() != "date"]
        for name in ("startedDateTime", "time", "timings", "connection", "_timestamps"):
            entry.pop(name, None)
        entry["request"].pop("headersSize", None)
        entry["response"].pop("headersSize", None)
    return [re.sub(r":\d{4,5}\b|\d{4,5}", "N", json.dumps(entry)) for entry in entries]


def test_a_recorded_token_is_redacted_and_the_one_that_left_is_whole(
    tmp_path: Path, confdir: Path, recorder: Recorder
) -> None:
    """Redaction concerns what is recorded, never what is sent."""
    alone = {"WORKERS": "1"}
    (tmp_path / "flows").touch(0o644)
    with Proxy("-w", str(tmp_path / "flows"), cwd=tmp_path, confdir=confdir, env=alone) as proxy:
        with Raw(proxy.port) as client:
            client.request(message("GET", recorder.url + "/", f"Host: {recorder.authority}"))
        proxy.stop()
    assert verify(recorder.only().token)
    assert recorder.only().token.encode() not in (tmp_path / "flows").read_bytes()
    assert (tmp_path / "flows").stat().st_mode & 0o777 == 0o600
