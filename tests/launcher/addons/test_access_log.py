"""What is written for programs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from mitmproxy import exceptions
from mitmproxy.flow import Error
from mitmproxy.http import HTTPFlow
from mitmproxy.options import Options
from mitmproxy.test import tflow

from jwtproxy.addons.jwt_inject import JwtInject
from jwtproxy.launcher.master import Master
from jwtproxy.mitm import flows, ledger
from jwtproxy.tokens.key_source import SECRET, KeySource

pytestmark = pytest.mark.usefixtures("pristine")


def _with(look: Callable[[Any], None], wait: float = 0.0, **options: Any) -> None:
    async def run() -> None:
        master = Master(Options())
        master.add_ours(JwtInject(KeySource(SECRET, bytes(64))))
        master.options.update(**options)
        try:
            log = master.addons.get("accesslog")
            log.running()
            told_by = ledger.ledger_of(master.options)
            assert told_by
            look(told_by)
            await asyncio.sleep(wait)
        finally:
            await master.done()

    asyncio.run(run())


def _lines(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capfd.readouterr().out.splitlines()]


@pytest.mark.parametrize("wait", [0.0, 0.1], ids=["at the end", "soon"])
def test_each_request_is_a_line(capfd: pytest.CaptureFixture[str], wait: float) -> None:
    refused, failed = tflow.tflow(resp=True), tflow.tflow()
    refused.request.method, failed.error = "CONNECT", Error("client disconnected")

    def look(log: Any) -> None:
        log.response(tflow.tflow(resp=True))
        log.response_in_lane(tflow.tflow(resp=True), 3, 4)
        log.response(tflow.twebsocketflow())
        log.websocket_end(tflow.twebsocketflow())
        log.http_connect_error(refused)
        log.error(failed)

    _with(look, wait, jwt_log_format="json")
    told = [(line["method"], line["outcome"], line.get("websocket", False)) for line in _lines(capfd)]
    expected = [("GET", "2xx", False)] * 2
    expected += [("GET", "2xx", True), ("CONNECT", "2xx", False), ("GET", "aborted", False)]
    assert told == expected


def _probe() -> HTTPFlow:
    flow = tflow.tflow(resp=True)
    flows.mark_to_self(flow)
    return flow


@pytest.mark.parametrize(
    ("flow", "options"),
    [
        (tflow.tflow(resp=True), {}),
        (tflow.tflow(resp=True), {"jwt_log_format": "json", "flow_detail": 0}),
        (tflow.tflow(resp=True), {"jwt_log_format": "json", "dumper_filter": "~m POST"}),
        (_probe(), {"jwt_log_format": "json"}),
    ],
    ids=["for people", "quiet", "filtered", "a probe"],
)
def test_what_nobody_wants_is_none(flow: HTTPFlow, options: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    _with(lambda log: log.response(flow), **options)
    assert capfd.readouterr().out == ""


def test_nothing_is_kept_for_it_while_people_read() -> None:
    _with(lambda told_by: _is(bool(told_by.keepers), False), jwt_recent="0")
    _with(lambda told_by: _is(bool(told_by.keepers), True), jwt_recent="0", jwt_log_format="json")


def _is(found: object, expected: object) -> None:
    assert found is expected


def test_another_form_is_a_mistake() -> None:
    with pytest.raises(exceptions.OptionsError, match="bad value 'xml' for jwt_log_format"):
        _with(lambda log: None, jwt_log_format="xml")
