"""Bodies flow through, wherever nobody needs them whole."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mitmproxy.http import Headers, HTTPFlow
from mitmproxy.options import Options
from mitmproxy.test import tflow, tutils

from jwtproxy.launcher.addons.streaming import STREAM_ABOVE, Streaming
from jwtproxy.launcher.master import Master
from jwtproxy.mitm import flows

pytestmark = pytest.mark.usefixtures("pristine")

SIZED, LONG, CHUNKED = (
    {"content-length": "5"},
    {"content-length": str(STREAM_ABOVE + 1)},
    {"transfer-encoding": "chunked"},
)


def _flow(version: str = "HTTP/1.1", **fields: str) -> HTTPFlow:
    headers = Headers([(name.encode(), value.encode()) for name, value in fields.items()])
    return tflow.tflow(req=tutils.treq(http_version=version.encode(), headers=headers), resp=True)


def _with(look: Callable[[Streaming], Any], *, script: Path | None = None, **options: Any) -> Any:
    """What the addon says among all of mitmdump's, with these options and perhaps a script."""

    async def run() -> Any:
        master, addon = Master(Options()), Streaming()
        master.addons.add(addon)
        master.options.update(flow_detail=1)
        master.options.update(**options)
        if script:
            master.options.update(scripts=[str(script)])
            for loaded in master.addons.get("scriptloader").addons:
                loaded.loadscript()
                loaded.reloadtask.cancel()
        try:
            return look(addon)
        finally:
            await master.done()

    return asyncio.run(run())


def _request(fields: dict[str, str], version: str = "HTTP/1.1", before: bool = False) -> Callable[[Streaming], bool]:
    def look(addon: Streaming) -> bool:
        flow = _flow(version, **fields)
        flow.request.stream = before
        addon.requestheaders(flow)
        return bool(flow.request.stream)

    return look


def _response(before: Any = False) -> Callable[[Streaming], Any]:
    def look(addon: Streaming) -> Any:
        flow = _flow()
        assert flow.response
        flow.response.stream = before
        addon.responseheaders(flow)
        return flow.response.stream

    return look


@pytest.mark.parametrize(
    ("fields", "version", "streamed"),
    [
        ({}, "HTTP/1.1", False),
        ({}, "HTTP/2.0", True),
        (SIZED, "HTTP/1.1", False),
        (SIZED, "HTTP/2.0", False),
        ({"content-length": str(STREAM_ABOVE)}, "HTTP/1.1", False),
        (LONG, "HTTP/1.1", True),
        (LONG, "HTTP/2.0", True),
        (CHUNKED, "HTTP/1.1", True),
        ({"content-length": "nonsense"}, "HTTP/1.1", False),
    ],
)
def test_requests_that_are_long_or_of_unknown_length_are_streamed(
    fields: dict[str, str], version: str, streamed: bool
) -> None:
    assert _with(_request(fields, version)) is streamed


def test_every_answer_is_streamed() -> None:
    assert _with(_response()) is True


def test_what_an_addon_does_with_each_piece_is_kept() -> None:
    assert _with(_response(before=str.upper)) is str.upper


def test_the_option_says_from_where_on_a_sized_request_is_streamed() -> None:
    for streamed in (False, True):  # mitmproxy has decided by it already
        assert _with(_request(LONG, before=streamed), stream_large_bodies="2m") is streamed
    assert _with(_request(CHUNKED), stream_large_bodies="2m") is True


@pytest.mark.parametrize(
    ("options", "requests", "responses"),
    [
        ({"modify_body": ["/a/b"]}, False, False),
        ({"flow_detail": 3}, False, False),
        ({"dumper_filter": "~b secret"}, False, False),
        ({"save_stream_filter": "~bs secret"}, False, False),
        ({"dumper_filter": "~u x"}, True, True),
        ({"hardump": "flows.har"}, False, False),
        ({"map_remote": ["|a|b"]}, False, True),
        ({"block_list": ["/x/404"]}, False, True),
        ({"anticache": True}, False, True),
        ({"stickycookie": "."}, False, True),
        ({"flow_detail": 2}, True, True),
        ({"modify_headers": ["/a/b"]}, True, True),
    ],
)
def test_options_that_need_whole_bodies_get_them(options: dict[str, Any], requests: bool, responses: bool) -> None:
    for fields in (LONG, CHUNKED):
        assert _with(_request(fields), **options) is requests
    assert bool(_with(_response(), **options)) is responses


@pytest.mark.parametrize(
    ("code", "requests", "responses"),
    [
        ("def request(flow): pass", False, True),
        ("def response(flow): pass", True, False),
        ("def requestheaders(flow): pass", True, True),
        ("class A:\n    def request(self, flow): pass\naddons = [A()]", False, True),
        ("class A:\n    def response(self, flow): pass\nclass B:\n    addons = [A()]\naddons = [B()]", True, False),
        ("def broken(", True, True),
    ],
)
def test_scripts_that_may_read_bodies_get_them(tmp_path: Path, code: str, requests: bool, responses: bool) -> None:
    script = tmp_path / "script.py"
    script.write_text(code)
    assert _with(_request(LONG), script=script) is requests
    assert bool(_with(_response(), script=script)) is responses


# --- WebSockets


def _relayed(status: int = 101) -> Callable[[Streaming], bool]:
    def look(addon: Streaming) -> bool:
        flow = _flow()
        assert flow.response
        flow.response.status_code = status
        addon.responseheaders(flow)
        return flows.is_relayed(flow)

    return look


def test_only_what_follows_an_upgrade_is_relayed() -> None:
    assert _with(_relayed()) is True
    assert _with(_relayed(200)) is False


@pytest.mark.parametrize(
    ("options", "relayed"),
    [
        ({"hardump": "flows.har"}, False),
        ({"flow_detail": 3}, False),
        ({"flow_detail": 2}, True),
        ({"flow_detail": 0}, True),
        ({"modify_body": ["/a/b"]}, True),
    ],
)
def test_options_that_need_messages_get_them(options: dict[str, Any], relayed: bool) -> None:
    assert _with(_relayed(), **options) is relayed


@pytest.mark.parametrize(
    ("code", "relayed"),
    [
        ("def websocket_message(flow): pass", False),
        ("def websocket_start(flow): pass", False),
        ("class A:\n    def websocket_end(self, flow): pass\naddons = [A()]", False),
        ("def response(flow): pass", True),
        ("def broken(", True),
    ],
)
def test_scripts_that_want_messages_get_them(tmp_path: Path, code: str, relayed: bool) -> None:
    script = tmp_path / "script.py"
    script.write_text(code)
    assert _with(_relayed(), script=script) is relayed
