"""What people see."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import mmap
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mitmproxy.flow import Error
from mitmproxy.http import Headers, HTTPFlow, Response
from mitmproxy.options import Options
from mitmproxy.proxy.context import Context
from mitmproxy.test import tflow, tutils
from mitmproxy.tls import TlsData

import jwtproxy
from jwtproxy.addons.jwt_inject import JwtInject
from jwtproxy.conduct.proxy_status import Reason
from jwtproxy.launcher.addons import terminal
from jwtproxy.launcher.master import Master
from jwtproxy.mitm import flows
from jwtproxy.observe import pages
from jwtproxy.tokens.key_source import SECRET, KeySource

pytestmark = pytest.mark.usefixtures("pristine")


class Terminal(io.StringIO):
    """Where a person reads."""

    def isatty(self) -> bool:
        return True


def _with(look: Callable[[Master], None], **options: Any) -> None:
    """Do something where all of mitmdump's addons are."""

    async def run() -> None:
        master = Master(Options())
        master.add_ours(JwtInject(KeySource(SECRET, bytes(64))))
        master.options.update(**options)
        try:
            look(master)
        finally:
            await master.done()

    asyncio.run(run())


def _flow(code: int = 200, *, to_self: bool = False, path: str = "/x", method: str = "GET") -> HTTPFlow:
    request = tutils.treq(host="up.example", port=80, path=path.encode(), method=method.encode(), timestamp_start=1.0)
    flow = tflow.tflow(req=request)
    flow.response = Response.make(code)
    flow.response.timestamp_end = 1.25
    if to_self:
        flows.mark_to_self(flow)
    return flow


def _printed(flow: HTTPFlow, capsys: pytest.CaptureFixture[str], **options: Any) -> str:
    """What is printed for a flow."""

    def look(master: Master) -> None:
        dumper = master.addons.get("dumper")
        if flow.error:
            dumper.error(flow)
        else:
            dumper.response(flow)

    _with(look, **options)
    return capsys.readouterr().out


# --- errors


def test_colours_are_for_people_who_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not terminal.colours_wanted(io.StringIO())
    assert terminal.colours_wanted(Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not terminal.colours_wanted(Terminal())


# --- requests

WHEN = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "


@pytest.mark.parametrize(
    ("flow", "line"),
    [
        (_flow(), "GET http://up.example/x 200 250ms"),
        (_flow(404, method="POST", path="/a?b=%2F"), "POST http://up.example/a?… 404 250ms"),
        (_flow(502, to_self=True), "GET http://up.example/x 502 250ms"),
        (_flow(100), "GET http://up.example/x 100 250ms"),
        (_flow(path="/\x1b[31mred\x07"), "GET http://up.example/.[31mred. 200 250ms"),
    ],
)
def test_a_request_is_one_line(flow: HTTPFlow, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert re.fullmatch(rf"{WHEN}{re.escape(line)}\n", _printed(flow, capsys))


@pytest.mark.parametrize(("status", "told"), [(0, ""), (502, "502 ")])
def test_a_failed_request_says_why(status: int, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    flow = _flow()
    flow.error = Error(Reason("connection\x1b refused").told(status))
    said = rf"{WHEN}GET http://up.example/x {told}connection\. refused [\d.]+\w+\n"
    assert re.fullmatch(said, _printed(flow, capsys))


def test_an_answer_of_our_own_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    flow = _flow(method="CONNECT")
    flow.response = flows.answer_of(pages.text(502, "cannot\x1b resolve"))
    _with(lambda master: master.addons.get("dumper").http_connect_error(flow))
    said = rf"{WHEN}CONNECT up\.example:80 502 cannot\. resolve [\d.]+\w+\n"
    assert re.fullmatch(said, capsys.readouterr().out)


UNTRUSTED = "The client does not trust the proxy's certificate for a.example (tlsv1 alert unknown ca)"


@pytest.mark.parametrize(
    ("error", "said", "hinted"),
    [
        (UNTRUSTED, "the client does not trust the proxy's CA", True),
        (
            "The client disconnected during the handshake. If this happens consistently for a.example, this may …",
            "the client closed the connection in the TLS handshake, perhaps as it does not trust the proxy's CA",
            True,
        ),
        (
            "Client and mitmproxy cannot agree on a TLS version to use. You may need to adjust mitmproxy's option.",
            "the client offers no version of TLS that tls_version_client_min allows",
            False,
        ),
        ("Cannot parse ClientHello: 00", "TLS failed: Cannot parse ClientHello: 00", False),
        ("connection closed early", "", False),
    ],
)
def test_why_tls_with_a_client_failed_is_told_with_a_hint_once(
    error: str, said: str, hinted: bool, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    client = tflow.tclient_conn()
    client.error, client.sni = error, "a.example"
    data = TlsData(client, Context(client, Options()))

    def look(master: Master) -> None:
        for _ in range(2):
            master.addons.get("dumper").tls_failed_client(data)

    _with(look)
    lines = capsys.readouterr().out.splitlines()
    told = [re.sub(r"^.*?(?=TLS )", "", line) for line in lines if "hint" not in line]
    assert told == ([f"TLS a.example {said}"] * 2 if said else [])
    hint = f"jwtproxy: hint: have clients trust {tmp_path}/.mitmproxy/mitmproxy-ca-cert.pem; see: "
    assert [line for line in lines if "hint" in line] == ([f"{hint}jwtproxy-run help https"] if hinted else [])
    _with(look, flow_detail=0)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("address", "place"), [(("192.0.2.1", 443), "192.0.2.1:443"), (None, "to the proxy itself")])
def test_it_is_told_of_addresses_too(
    address: tuple[str, int] | None, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    client = tflow.tclient_conn()
    client.error, client.sni = UNTRUSTED, None
    data = TlsData(client, Context(client, Options()))
    data.context.server.address = address
    _with(lambda master: master.addons.get("dumper").tls_failed_client(data))
    assert re.match(rf"{WHEN}TLS {place} the client does not trust the proxy's CA\n", capsys.readouterr().out)


@pytest.mark.parametrize("side", ["Client", "Server"])
@pytest.mark.parametrize(
    ("options", "told"), [({}, False), ({"flow_detail": 0}, True), ({"termlog_verbosity": "debug"}, True)]
)
def test_mitmproxys_own_line_about_it_is_for_those_who_do_not_see_ours(
    side: str, options: dict[str, Any], told: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    message = f"{side} TLS handshake failed. {UNTRUSTED}"

    def say() -> None:
        logging.getLogger("mitmproxy.proxy.server").warning(message)

    assert bool(_logged(say, capsys, **options)) is told


def test_an_unanswered_request_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    flow = _flow()
    flow.response = None
    _with(lambda master: master.addons.get("dumper").echo_flow(flow))
    assert " http://up.example/x no answer " in capsys.readouterr().out


def test_the_host_header_is_shown_if_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    flow = _flow()
    flow.request.headers["host"] = "pretty.example"
    assert "http://up.example/x" in _printed(flow, capsys)
    assert "http://pretty.example/x" in _printed(flow, capsys, showhost=True)


def test_probes_are_not_shown_while_all_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert _printed(_flow(to_self=True), capsys) == ""
    assert _printed(_flow(404, to_self=True), capsys) != ""


def test_the_rule_that_decided_is_named_last(capsys: pytest.CaptureFixture[str]) -> None:
    flow = _flow()
    assert "pay" not in _printed(flow, capsys)
    flow.metadata["jwtproxy_rule"] = "pay"
    assert re.search(r" 200 \S+ \W?(rule )?pay\W?$", _printed(flow, capsys))


@pytest.mark.parametrize(("detail", "lines"), [(0, 0), (1, 1), (2, 2)])
def test_the_detail_is_that_of_the_option(detail: int, lines: int, capsys: pytest.CaptureFixture[str]) -> None:
    printed = _printed(_flow(), capsys, flow_detail=detail)
    assert len(printed.splitlines()) == lines if lines < 2 else "content-length: 0" in printed


@pytest.mark.parametrize(("detail", "printed"), [(0, False), (1, False), (2, False), (3, True)])
def test_messages_of_websockets_are_printed_with_more_detail(
    detail: int, printed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    def look(master: Master) -> None:
        dumper = master.addons.get("dumper")
        assert dumper.wants_messages is printed
        dumper.websocket_message(tflow.twebsocketflow())
        said = capsys.readouterr().out
        assert bool(re.match(rf"{WHEN}<- http://example.com/ws text message\n", said)) is printed

    _with(look, flow_detail=detail)


def test_a_websocket_is_one_line_at_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    flow = tflow.twebsocketflow()
    assert flow.websocket
    flow.request.timestamp_start, flow.websocket.timestamp_end = 1.0, 3.5

    def look(master: Master) -> None:
        dumper = master.addons.get("dumper")
        dumper.response(flow)
        assert capsys.readouterr().out == ""
        dumper.websocket_end(flow)

    _with(look)
    assert re.fullmatch(rf"{WHEN}GET http://example.com/ws 101 2.50s\n", capsys.readouterr().out)
    _with(lambda master: master.addons.get("dumper").websocket_end(flow), flow_detail=0)
    assert capsys.readouterr().out == ""


def test_the_day_is_told_once(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [time.mktime((2026, 11, 27, 23, 59, 59, 0, 0, -1))]
    monkeypatch.setattr(time, "time", lambda: now[0])

    def look(master: Master) -> None:
        for _ in range(3):
            master.addons.get("dumper").response(_flow())
            now[0] += 0.6

    _with(look)
    starts = [line.partition(" GET")[0] for line in capsys.readouterr().out.splitlines()]
    assert starts == ["2026-11-27 23:59:59", "23:59:59", "2026-11-28 00:00:00"]


def test_of_several_workers_one_tells_the_day(capsys: pytest.CaptureFixture[str]) -> None:
    """They are forks of one, with memory that they share."""
    day = mmap.mmap(-1, terminal.DAY)

    def look(master: Master) -> None:
        dumper = master.addons.get("dumper")
        dumper.day = day
        dumper.response(_flow())

    _with(look)
    _with(look)
    first, second = capsys.readouterr().out.splitlines()
    assert re.match(rf"{WHEN}GET ", first)
    assert re.match(r"\d\d:\d\d:\d\d GET ", second)


@pytest.mark.parametrize(
    ("client", "told"), [("127.0.0.1", ""), ("::1", ""), ("::ffff:127.0.0.1", ""), ("192.0.2.7", "192.0.2.7 ")]
)
def test_clients_on_other_machines_are_named(client: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    flow = _flow()
    flow.client_conn.peername = (client, 1)
    assert re.match(rf"{WHEN}{told}GET ", _printed(flow, capsys))


SECRETS = {
    "Authorization": "Basic hunter2",
    "Cookie": "a=hunter2",
    "X-Api-Key": "hunter2",
    "Referer": "http://user:hunter2@a.example/?hunter2",
    "X-My-Jwt": "hunter2",
}


def test_what_verbose_adds_has_no_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    flow = _flow(path="/x?hunter2")
    assert flow.response
    flow.request.headers = flow.response.headers = Headers([(k.encode(), v.encode()) for k, v in SECRETS.items()])
    flow.request.content = flow.response.content = b"hunter2"
    printed = _printed(flow, capsys, flow_detail=2)
    assert "hunter2" not in printed
    for line in (
        "Authorization: Basic [secret]",
        "Cookie: [secret]",
        "X-My-Jwt: [token]",
        "Referer: http://a.example/?...",
    ):
        assert printed.count(f"    {line}\n") == 2
    assert "hunter2" in _printed(flow, capsys, flow_detail=3), "bodies are what was asked for"


def test_where_programs_read_people_do_not(capsys: pytest.CaptureFixture[str]) -> None:
    def look(master: Master) -> None:
        dumper = master.addons.get("dumper")
        assert dumper.idle
        assert not dumper.wants_messages
        dumper.http_connect_error(_flow(502))
        dumper.websocket_end(tflow.twebsocketflow())
        dumper.echo("for people")

    _with(look, jwt_log_format="json", flow_detail=3)
    assert capsys.readouterr() == ("", "for people\n")


@pytest.mark.parametrize(("code", "coloured"), [(200, True), (404, True), (101, False)])
def test_people_see_colours(code: int, coloured: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    _with(lambda master: master.addons.get("dumper").response(_flow(code)))
    assert ("\x1b[" in screen.getvalue().partition("/x ")[2]) is coloured


def test_a_reader_who_has_gone_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with contextlib.suppress(BrokenPipeError), os.fdopen(writing, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)

        def look(master: Master) -> None:
            for _ in range(2):
                master.addons.get("dumper").response(_flow())
            master.addons.get("dumper").outfp.close()

        _with(look)


# --- the greeting


@pytest.mark.parametrize(
    ("address", "url", "every"),
    [
        (("127.0.0.1", 8080), "http://127.0.0.1:8080", False),
        (("::1", 8080, 0, 0), "http://[::1]:8080", False),
        (("0.0.0.0", 9123), "http://localhost:9123", True),
        (("::", 9123, 0, 0), "http://localhost:9123", True),
    ],
)
def test_the_greeting_says_where_we_are_and_how_to_try_it(
    address: tuple[Any, ...],
    url: str,
    every: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def look(master: Master) -> None:
        monkeypatch.setattr(master.addons.get("proxyserver"), "listen_addrs", lambda: [address, ("other", 1)])
        master.addons.get("dumper").running()

    _with(look)
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith(f"jwtproxy {jwtproxy.__version__} listening on {url}")
    assert ("every address" in first) is every
    assert [line.split()[0] for line in rest] == ["status", "try", "CA"]
    assert rest[0].endswith(f" {url}/status")
    assert rest[1].endswith(f" curl --proxy {url} http://jwtproxy.test/"), "which needs no internet"
    assert f"{tmp_path}/.mitmproxy/mitmproxy-ca-cert.pem" in rest[2]


def test_without_pages_the_greeting_tries_another_host(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(master: Master) -> None:
        monkeypatch.setattr(master.addons.get("proxyserver"), "listen_addrs", lambda: [("127.0.0.1", 8080)])
        master.addons.get("dumper").running()

    _with(look, jwt_pages="off")
    assert "try     curl --proxy http://127.0.0.1:8080 http://example.com/\n" in capsys.readouterr().out


@pytest.mark.parametrize(("where", "url"), [("127.0.0.1:1", "http://127.0.0.1:1"), ("*:1", "http://localhost:1")])
@pytest.mark.parametrize("mode", ["regular", "reverse:http://a.example"])
def test_the_greeting_says_where_the_pages_are(
    where: str, url: str, mode: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(master: Master) -> None:
        monkeypatch.setattr(master.addons.get("proxyserver"), "listen_addrs", lambda: [("127.0.0.1", 8080)])
        master.addons.get("dumper").running()

    _with(look, jwt_pages=where, mode=[mode])
    assert f"  status  {url}/status\n" in capsys.readouterr().out


def test_the_greeting_says_how_requests_are_signed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(master: Master) -> None:
        monkeypatch.setattr(master.addons.get("proxyserver"), "listen_addrs", lambda: [("127.0.0.1", 8080)])
        master.addons.get("dumper").tokens = "key K, user me"
        master.addons.get("dumper").running()

    _with(look)
    assert "  tokens  key K, user me\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({}, ""),
        ({"anticache": True}, "  speed   no fast lane, as anticache is set"),
        ({"stickycookie": "."}, "  speed   no fast lane, as stickycookie is set"),
        ({"flow_detail": 3}, "  speed   no fast lane, as flow_detail is set"),
        ({"anticache": True, "jwt_fast_lane": "off"}, ""),
        ({"jwt_fast_lane": "off"}, ""),
    ],
)
def test_the_greeting_says_why_there_is_no_fast_lane(
    options: dict[str, Any], line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless nobody wants it."""

    def look(master: Master) -> None:
        monkeypatch.setattr(master.addons.get("proxyserver"), "listen_addrs", lambda: [("127.0.0.1", 8080)])
        master.addons.get("dumper").running()

    _with(look, **options)
    said = [said for said in capsys.readouterr().out.splitlines() if "fast lane" in said]
    assert said == ([line] if line else [])


def test_without_a_server_or_when_quiet_there_is_no_greeting(capsys: pytest.CaptureFixture[str]) -> None:
    def ungreeting(master: Master) -> None:
        master.addons.get("termlog").announces = False
        master.addons.get("dumper").running()

    _with(lambda master: master.addons.get("dumper").running())
    _with(lambda master: master.addons.get("dumper").running(), flow_detail=0)
    _with(ungreeting)
    assert capsys.readouterr().out == ""


# --- the log


def _logged(
    say: Callable[[], None], capsys: pytest.CaptureFixture[str], *, started: bool = True, **options: Any
) -> str:
    def look(master: Master) -> None:
        logging.getLogger().setLevel(logging.DEBUG)
        if started:
            master.addons.get("errorcheck").finish()
        say()

    _with(look, **options)
    return capsys.readouterr().err


def _everything() -> None:
    logging.getLogger("script").info("a script's info")
    logging.getLogger("mitmproxy.proxy.layer").info("a connection's story")
    logging.getLogger("mitmproxy.addons.x").warning("careful")
    logging.getLogger("mitmproxy.addons.x").error("wrong")
    logging.getLogger("ours").error("jwtproxy: error: ours")


def test_warnings_and_errors_are_in_our_voice(capsys: pytest.CaptureFixture[str]) -> None:
    first, *rest = _logged(_everything, capsys).splitlines()
    assert first.endswith("a script's info")
    assert rest == ["jwtproxy: warning: careful", "jwtproxy: error: wrong", "jwtproxy: error: ours"]


def test_what_we_say_ourselves_is_told_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    def say() -> None:
        logging.getLogger("ours").info("jwtproxy: %s is back", "all")
        logging.getLogger("ours").warning("jwtproxy: warning: %s is away", "all")

    assert _logged(say, capsys) == "jwtproxy: all is back\njwtproxy: warning: all is away\n"


def test_errors_of_the_start_are_told_at_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    said = _logged(_everything, capsys, started=False)
    assert "jwtproxy: warning: careful" in said
    assert "error" not in said


def test_verbose_tells_the_story_of_connections(capsys: pytest.CaptureFixture[str]) -> None:
    assert "a connection's story" in _logged(_everything, capsys, termlog_verbosity="debug")


def test_quiet_leaves_only_errors(capsys: pytest.CaptureFixture[str]) -> None:
    said = _logged(_everything, capsys, termlog_verbosity="error")
    assert said == "jwtproxy: error: wrong\njwtproxy: error: ours\n"


def _fail() -> None:
    try:
        raise ValueError("deep down")
    except ValueError:
        logging.getLogger("x").exception("wrong")


def test_an_exception_is_shown_with_its_cause(capsys: pytest.CaptureFixture[str]) -> None:
    said = _logged(_fail, capsys)
    assert said.startswith("jwtproxy: error: wrong\nTraceback")
    assert said.endswith("ValueError: deep down\n")


def test_people_see_errors_in_red(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    _logged(_everything, capsys)
    assert "\x1b[31mjwtproxy: error: wrong\x1b[0m\n" in screen.getvalue()


@pytest.mark.parametrize("full", [False, True])
def test_a_record_that_cannot_be_printed_ends_nothing(full: bool) -> None:
    """mitmproxy's own handler exits."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(os.open("/dev/full", os.O_WRONLY) if full else writing, "w") as lost:
        records = terminal._Records(lost)
        for _ in range(2):
            records.emit(logging.makeLogRecord({"msg": "once", "levelno": logging.INFO}))
    if full:
        os.close(writing)
