"""mitmproxy's flows: what we note of them, what they say as a value, and how one is answered at once."""

import os
import re
import time
from typing import Any

from mitmproxy.http import Headers, HTTPFlow, MessageData, Request, RequestData, Response, ResponseData
from mitmproxy.proxy.mode_specs import UpstreamMode

from ..conduct import forwarding
from ..conduct.fields import Fields
from ..conduct.heads import ReceivedRequest, ReceivedResponse
from ..conduct.host import Fault
from ..conduct.request import RequestHead
from ..observe import pages
from ..observe.pages import Page

RULE = "jwtproxy_rule"
"""In a flow's metadata, where there are rules: the name of the one that decided, or `default`."""

_TO_SELF, _FAULT, _TUNNEL = "jwtproxy_to_self", "jwtproxy_fault", "jwtproxy_tunnel"


def to_self(flow: HTTPFlow) -> bool:
    """Whether the request is one to the proxy itself."""
    return _TO_SELF in flow.metadata


def mark_to_self(flow: HTTPFlow) -> None:
    """Note that the request is one to the proxy itself."""
    flow.metadata[_TO_SELF] = True


def mark_fault(flow: HTTPFlow, fault: Fault) -> None:
    """Note what is wrong with the request as its client sent it."""
    flow.metadata[_FAULT] = fault.value  # a plain string, as metadata is recorded with the flow


def mark_tunnel(flow: HTTPFlow, origin: str) -> None:
    """Note what the CONNECT asked for that the request came in by."""
    flow.metadata[_TUNNEL] = origin


def head_of(flow: HTTPFlow) -> RequestHead:
    """The request as it stands now."""
    request, noted = flow.request.data, flow.metadata
    peer: Any = flow.client_conn.peername  # None of a connection that is gone, whatever its type says
    fault = noted.get(_FAULT)
    return RequestHead(
        request.method,
        request.scheme.decode("utf-8", "surrogateescape"),
        request.host,
        request.port,
        request.path,
        request.headers.fields,
        peer[:2] if peer else None,
        noted.get(_TUNNEL, ""),
        request.http_version,
        Fault(fault) if fault else None,
        to_proxy(flow),
    )


def to_proxy(flow: HTTPFlow) -> bool:
    """Whether the next hop is a proxy that gets the whole URL."""
    plain = flow.request.data.scheme == b"http" and _TUNNEL not in flow.metadata
    return plain and isinstance(flow.client_conn.proxy_mode, UpstreamMode)


def request_of(head: ReceivedRequest) -> Request:
    """A head that has come, as mitmproxy's request."""
    target = head.target
    return _message(
        Request,
        RequestData,
        http_version=head.version,
        headers=head.fields,
        host=target.host,
        port=target.port,
        method=head.method,
        scheme=target.scheme,
        authority=target.authority,
        path=target.path,
    )


def response_of(head: ReceivedResponse) -> Response:
    """A head that has come, as mitmproxy's answer."""
    return _message(
        Response,
        ResponseData,
        http_version=head.version,
        headers=head.fields,
        status_code=head.status,
        reason=head.reason,
    )


def _message[T: (Request, Response)](kind: type[T], data: type[MessageData], *, headers: Fields, **values: Any) -> T:
    """As mitmproxy makes one, without a look at the type of each value, which costs as much as signing a token."""
    message, its_headers = kind.__new__(kind), Headers.__new__(Headers)
    made: Any = data.__new__(data)
    its_headers.fields = headers
    vars(made).update(values, headers=its_headers, content=None, trailers=None, timestamp_end=None)
    made.timestamp_start = time.time()
    message.data = made
    return message


def answer_of(page: Page) -> Response:
    """A page of our own, as mitmproxy's answer."""
    response = Response.make(page.code, page.body, {**page.headers, "Server": pages.SERVER})
    response.headers.fields = forwarding.with_date(response.headers.fields)
    if page.code in (204, 304):
        del response.headers["content-length"]  # it would be that of the page (RFC 9110 §8.6)
    return response


def cannot_connect(place: str, reason: str) -> str:
    """What to tell of a connection that could not be made, without the notation of Python's exceptions."""
    if match := re.match(r"\[Errno (-?\d+)\] (.*)", reason):
        number = int(match[1])
        reason = os.strerror(number).lower() if number > 0 else match[2].lower()
    elif reason[1:2].islower():
        reason = reason[:1].lower() + reason[1:]
    return f"cannot connect to {place}: {reason}"


def complete(response: Response, *, here: bool) -> None:
    """Add what an answer lacks: Date, and who made one about the proxy. `here`: it comes from no upstream."""
    headers = response.headers
    if here and response.status_code == 407 and "server" not in headers:
        headers["Server"] = pages.SERVER
    headers.fields = forwarding.with_date(headers.fields)


def respond(flow: HTTPFlow, page: Page) -> None:
    """Answer the flow with this page at once: its body, if any, is not waited for."""
    flow.response = answer_of(page)
    if page.code == 400 and not flow.request.is_http2:
        flow.response.headers["Connection"] = "close"  # who is wrong about one message may be about where it ends
    flow.request.stream = True
