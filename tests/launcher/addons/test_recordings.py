"""What mitmproxy's own addons record holds no token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mitmproxy.addons import modifyheaders, save, savehar
from mitmproxy.http import HTTPFlow
from mitmproxy.io import FlowReader
from mitmproxy.test import taddons, tflow

from jwtproxy.addons.jwt_inject import JwtInject
from jwtproxy.launcher.addons.recordings import REDACTED, Recordings
from jwtproxy.tokens.key_source import SECRET, KeySource

pytestmark = pytest.mark.usefixtures("pristine")


def _loaded(**options: Any) -> tuple[Recordings, JwtInject, Any]:
    addon, signer = Recordings(), JwtInject(KeySource(SECRET, bytes(64)))
    context = taddons.context(addon, save.Save(), savehar.SaveHar(), modifyheaders.ModifyHeaders(), signer)
    context.options.update(**options)
    context.configure(signer)
    return addon, signer, context


def _signed(signer: JwtInject, *, response: bool) -> HTTPFlow:
    flow = tflow.tflow()
    signer.requestheaders(flow)
    if response:
        flow.response = tflow.tflow(resp=True).response
    return flow


@pytest.mark.parametrize("options", [{"save_stream_file": "flows"}, {"hardump": "flows.har"}])
@pytest.mark.parametrize("header", ["x-my-jwt", "X_Identity"])
def test_once_answered_a_recorded_request_holds_no_token(options: dict[str, str], header: str) -> None:
    addon, signer, context = _loaded(jwt_header=header, **options)
    for done in (addon.response, addon.error):
        flow = _signed(signer, response=True)
        before = flow.request.headers.fields
        done(flow)
        assert flow.request.headers.fields == (*before[:-1], (header.encode(), REDACTED))
    context.master.addons.get("save").done()


def test_nor_one_in_the_header_of_a_rule() -> None:
    Path("rules.yaml").write_text("rules: [{match: ~all, header: X_Pay}]")
    addon, signer, context = _loaded(jwt_rules="rules.yaml", save_stream_file="flows")
    flow = _signed(signer, response=True)
    token = flow.request.headers["X_Pay"]
    addon.response(flow)
    context.master.addons.get("save").done()
    assert token not in str(flow.request.headers.fields)
    assert flow.request.headers["X_Pay"] == "[token]"


def test_what_is_not_recorded_is_left_alone() -> None:
    addon, signer, _ = _loaded()
    flow = _signed(signer, response=True)
    fields = flow.request.headers.fields
    addon.request(flow)
    addon.response(flow)
    addon.done()
    assert flow.request.headers.fields is fields


def test_what_is_open_at_the_end_is_recorded_without_its_token() -> None:
    addon, signer, context = _loaded(save_stream_file="flows")
    flow = _signed(signer, response=False)
    token = flow.request.headers["x-my-jwt"]
    saver = context.master.addons.get("save")
    for hook in (addon.request, saver.request):
        hook(flow)
    for recorder in (addon, saver):
        recorder.done()
    assert token.encode() not in Path("flows").read_bytes()
    with Path("flows").open("rb") as file:
        (saved,) = FlowReader(file).stream()
    assert isinstance(saved, HTTPFlow)
    assert saved.request.headers["x-my-jwt"] == "[token]"
