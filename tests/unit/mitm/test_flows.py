"""What a flow says as a value, what we note of it, and how it is answered at once."""

from __future__ import annotations

import pytest
from mitmproxy.http import Headers, HTTPFlow, Response
from mitmproxy.test import tflow, tutils

from jwtproxy.conduct.host import Fault
from jwtproxy.conduct.proxy_status import ErrorType
from jwtproxy.conduct.request import RequestHead
from jwtproxy.mitm import flows
from jwtproxy.observe import pages
from jwtproxy.observe.pages import Page


def _flow(method: str = "GET") -> HTTPFlow:
    flow = tflow.tflow(
        req=tutils.treq(
            method=method.encode(),
            scheme=b"https",
            host="A.example",
            port=8443,
            path=b"/a?b",
            headers=Headers([(b"X-A", b"1"), (b"x-a", b"2")]),
            http_version=b"HTTP/2.0",
        )
    )
    flow.client_conn.peername = ("::1", 5, 0, 0)  # type: ignore[assignment]
    return flow


def test_a_head_is_what_the_request_says_now() -> None:
    flow = _flow("POST")
    fields = ((b"X-A", b"1"), (b"x-a", b"2"))
    expected = RequestHead(b"POST", "https", "A.example", 8443, b"/a?b", fields, ("::1", 5), "", b"HTTP/2.0", None)
    assert flows.head_of(flow) == expected
    assert flows.head_of(flow).fields is flow.request.headers.fields
    flow.request.host, flow.request.path = "b.example", "/c"
    assert (flows.head_of(flow).host, flows.head_of(flow).path) == ("b.example", b"/c")


def test_what_was_noted_is_part_of_it() -> None:
    flow = _flow()
    flows.mark_fault(flow, Fault.TUNNEL)
    flows.mark_tunnel(flow, "https://a.example")
    head = flows.head_of(flow)
    assert (head.fault, head.tunnel) == (Fault.TUNNEL, "https://a.example")
    assert all(type(noted) is str for noted in flow.metadata.values()), "it is recorded with the flow"
    assert flows.head_of(flow.copy()).fault is Fault.TUNNEL


def test_a_websocket_whose_messages_nobody_wants_is_marked() -> None:
    flow, other = _flow(), _flow()
    flows.mark_relayed(flow)
    assert flows.is_relayed(flow)
    assert not flows.is_relayed(other)


def test_a_scheme_that_is_no_text_is_kept() -> None:
    flow = _flow()
    flow.request.data.scheme = b"\xff"
    assert flows.head_of(flow).scheme == "\udcff"


def test_a_request_to_the_proxy_is_marked() -> None:
    flow, other = _flow(), _flow()
    flows.mark_to_self(flow)
    assert flows.to_self(flow)
    assert flows.to_self(flow.copy())
    assert not flows.to_self(other)


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_a_page_is_the_answer_and_the_body_is_not_waited_for(method: str) -> None:
    flow = _flow(method)
    flows.respond(flow, pages.text(405, "no", Allow="GET"))
    assert flow.response
    assert (flow.response.status_code, flow.response.text) == (405, "jwtproxy: no\n")
    assert flow.response.headers["allow"] == "GET"
    assert flow.response.headers["content-length"] == "13"
    assert flow.request.stream is True


def test_an_answer_of_ours_says_whose_it_is() -> None:
    flow = _flow()
    flows.respond(flow, pages.text(404, "no"))
    assert flow.response
    assert flow.response.headers["server"] == "jwtproxy"


def test_not_modified_has_no_length() -> None:
    flow = _flow()
    flows.respond(flow, Page(304, headers={"ETag": '"a"'}))
    assert flow.response
    assert (flow.response.headers["etag"], "content-length" in flow.response.headers) == ('"a"', False)


def test_an_answer_of_ours_says_why_it_is_and_takes_the_form_that_is_preferred() -> None:
    flow = tflow.tflow()
    flow.request.headers["accept"] = "application/json"
    flows.respond(flow, pages.text(403, "no"))
    assert flow.response
    assert flow.response.headers["content-type"] == "application/problem+json"
    assert flows.reason_of(flow) == "no"
    flow.response = Response.make(200)
    assert flows.reason_of(flow) == ""
    flow.response = None
    assert flows.reason_of(flow) == ""


@pytest.mark.parametrize(("status", "words"), [(403, "jwtproxy: block_list blocks this request\n"), (204, "")])
def test_what_block_list_answers_is_told_in_our_words(status: int, words: str) -> None:
    flow = tflow.tflow()
    flow.metadata["blocklisted"] = True
    flow.response = Response.make(status, headers={"Server": "mitmproxy 12.2.3"})
    flows.complete(flow, here=True)
    assert (flow.response.status_code, flow.response.text) == (status, words)
    assert flow.response.headers["server"] == "jwtproxy"


def test_what_mitmproxy_says_of_tls_is_told_without_its_name() -> None:
    said = "The server and mitmproxy cannot agree on a TLS version. You may adjust mitmproxy's tls_version_x option."
    reason = flows.cannot_connect("https://a:443", said)
    assert reason == (
        "cannot connect to https://a:443: the server and the proxy cannot agree on a TLS version. "
        "You may adjust tls_version_x option."
    )
    assert reason.error is ErrorType.TLS_PROTOCOL_ERROR
