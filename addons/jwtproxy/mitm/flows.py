"""mitmproxy's flows: what we note of them, what they say as a value, and how one is answered at once."""

import os
import random
import time
from contextlib import suppress
from typing import Any

from mitmproxy.connection import Client, Server
from mitmproxy.http import Headers, HTTPFlow, MessageData, Request, RequestData, Response, ResponseData
from mitmproxy.proxy.mode_specs import ReverseMode, UpstreamMode

from ..conduct import forwarding, heads
from ..conduct.access import denial_in, denied
from ..conduct.crowd import TOO_MANY_UPSTREAM, is_full
from ..conduct.fields import Fields
from ..conduct.heads import ReceivedRequest, ReceivedResponse
from ..conduct.host import Fault
from ..conduct.malformed import MalformedError
from ..conduct.proxy_status import ERROR_NUMBER, ErrorType, Reason, of_connection
from ..conduct.request import RequestHead
from ..conduct.target import to_ascii
from ..observe import pages
from ..observe.pages import Page

RULE = "jwtproxy_rule"
"""In a flow's metadata, where there are rules: the name of the one that decided, or `default`."""

_TO_SELF, _FAULT, _TUNNEL = "jwtproxy_to_self", "jwtproxy_fault", "jwtproxy_tunnel"
_RELAYED = "jwtproxy_relayed"
_REASON = "jwtproxy_reason"
"""Among an answer's attributes, if it is ours."""
_BLOCKED = "blocklisted"
_USER = "proxyauth"
"""Where mitmproxy notes what its `block_list` has answered, and user and password."""

CLIENT_GONE = "client disconnected"
"""Why nobody waits for the answer any more."""

_SCHEMES = {b"http": "http", b"https": "https"}


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


def mark_relayed(flow: HTTPFlow) -> None:
    """Note that nobody wants the messages, if it becomes a WebSocket."""
    flow.metadata[_RELAYED] = True


def is_relayed(flow: HTTPFlow) -> bool:
    """Whether nobody wants the messages of this WebSocket."""
    return _RELAYED in flow.metadata


def is_probe(flow: HTTPFlow) -> bool:
    """Whether it is for one of our own pages, while all is well: probes ask for them every few seconds."""
    return to_self(flow) and flow.response is not None and flow.response.status_code < 400


def is_websocket(flow: HTTPFlow) -> bool:
    """Whether it has become one that its client has asked for (RFC 9110 §7.8)."""
    return flow.websocket is not None and flow.request.headers.get("upgrade", "").lower() == "websocket"


def head_of(flow: HTTPFlow) -> RequestHead:
    """The request as it stands now."""
    request, noted, mode = flow.request.data, flow.metadata, flow.client_conn.proxy_mode
    peer: Any = flow.client_conn.peername  # None of a connection that is gone, whatever its type says
    fault = noted.get(_FAULT)
    return RequestHead(
        request.method,
        _SCHEMES.get(request.scheme) or request.scheme.decode("utf-8", "surrogateescape"),
        request.host,
        request.port,
        request.path,
        request.headers.fields,
        peer[:2] if peer else None,
        noted.get(_TUNNEL, ""),
        request.http_version,
        Fault(fault) if fault else None,
        to_proxy(flow),
        type(mode) is ReverseMode and mode.address == (request.host, request.port),
        flow.is_replay is not None,
        noted[_USER][0] if _USER in noted else "",
    )


def to_proxy(flow: HTTPFlow) -> bool:
    """Whether the next hop is a proxy that gets the whole URL."""
    plain = flow.request.data.scheme == b"http" and _TUNNEL not in flow.metadata
    return plain and type(flow.client_conn.proxy_mode) is UpstreamMode  # isinstance has Python ask an abstract class


def request_of(head: ReceivedRequest) -> Request:
    """A head that has come, as mitmproxy's request."""
    method, target, version, fields = head
    path, scheme, authority, host, port = target
    return _filled(Request, RequestData, {
        "http_version": version, "headers": _headers(fields), "content": None, "trailers": None,
        "timestamp_start": time.time(), "timestamp_end": None, "host": host, "port": port, "method": method,
        "scheme": scheme, "authority": authority, "path": path,
    })  # fmt: skip


def response_of(head: ReceivedResponse) -> Response:
    """A head that has come, as mitmproxy's answer."""
    version, status, reason, fields = head
    return _filled(Response, ResponseData, {
        "http_version": version, "headers": _headers(fields), "content": None, "trailers": None,
        "timestamp_start": time.time(), "timestamp_end": None, "status_code": status, "reason": reason,
    })  # fmt: skip


def _filled[T: (Request, Response)](kind: type[T], data_kind: type[MessageData], values: dict[str, Any]) -> T:
    """As mitmproxy makes one, without a look at the type of each value.

    That costs as much as signing a token, and leaves exceptions to the collector, with all their frames refer to.
    """
    message = kind.__new__(kind)
    data: Any = data_kind.__new__(data_kind)
    data.__dict__ = values
    message.data = data
    return message


def _headers(fields: Fields) -> Headers:
    headers = Headers.__new__(Headers)
    headers.fields = fields
    return headers


def encode_path(request: Request) -> None:
    """Write a path that a hook has set as a client would have to (RFC 3986 §2.1)."""
    if not request.data.path.isascii():
        with suppress(MalformedError):  # which the gate refuses
            request.data.path = to_ascii(request.data.path)


def answer_of(page: Page, accept: str = "") -> Response:
    """A page of our own, as mitmproxy's answer, for a client that sends this Accept."""
    page = pages.in_form(page, accept)
    body = page.data or page.body.encode()
    headers = {**page.headers, "Server": pages.SERVER}
    if page.code not in (204, 304):  # it would be that of the page (RFC 9110 §8.6)
        headers["content-length"] = str(len(body))
    fields = forwarding.with_date(tuple((name.encode(), value.encode()) for name, value in headers.items()))
    response = response_of(ReceivedResponse(b"HTTP/1.1", page.code, heads.phrase(page.code), fields))
    response.data.content, response.data.timestamp_end = body, time.time()
    vars(response)[_REASON] = page.detail
    return response


def reason_of(flow: HTTPFlow) -> str:
    """Why the answer is ours; empty where it is another's, or nothing is wrong."""
    return vars(flow.response).get(_REASON, "") if flow.response else ""


def accept_of(flow: HTTPFlow) -> str:
    """In what form its client wants to be answered."""
    accept: str = flow.request.headers.get("accept", "")
    return accept


def new_flow(client: Client, server: Server, request: Request) -> HTTPFlow:
    """As mitmproxy makes one, with an identifier of the same kind (RFC 9562 §5.4) in a tenth of the time."""
    flow = HTTPFlow.__new__(HTTPFlow)
    vars(flow).update(_BLANK, client_conn=client, server_conn=server, request=request, metadata={}, live=True)
    digits = f"{random.getrandbits(128):032x}"  # it is no secret, and drawn from another seed after a fork
    flow.id = f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:]}"
    flow.timestamp_created = request.data.timestamp_start
    return flow


_BLANK: dict[str, Any] = vars(HTTPFlow(Any, Any))  # type: ignore[arg-type] # its other attributes, which no flow changes
_VARIANT = {digit: "89ab"[int(digit, 16) % 4] for digit in "0123456789abcdef"}


def no_connection(place: str, reason: str) -> Page:
    """The answer where no connection could be made to this place, or none may be made."""
    if denial := denial_in(reason):
        return pages.text(403, denied(place, denial), denial.error)
    if is_full(reason):
        said = cannot_connect(place, TOO_MANY_UPSTREAM)
        return pages.text(503, said, ErrorType.CONNECTION_LIMIT_REACHED)
    said = cannot_connect(place, reason)
    return pages.text(502, said, said.error)


def is_refused(reason: str) -> bool:
    """Whether no connection was made because none may be."""
    return bool(denial_in(reason)) or is_full(reason)


def cannot_connect(place: str, reason: str) -> Reason:
    """What to tell of a connection that could not be made: in words, and with none of the addresses that were tried."""
    error = of_connection(reason)
    if match := ERROR_NUMBER.match(reason):
        number = int(match[1])
        reason = os.strerror(number).lower() if number > 0 else match[2].lower()
    elif reason[1:2].islower():
        reason = reason[:1].lower() + reason[1:]
    return Reason(f"cannot connect to {place}: {in_our_name(reason)}", error)


def in_our_name(reason: str) -> str:
    """What mitmproxy says, where that names mitmproxy."""
    return reason.replace("mitmproxy's ", "").replace("mitmproxy", "the proxy")


def complete(flow: HTTPFlow, *, here: bool) -> None:
    """Add what an answer lacks: Date, and, of mitmproxy's own, who made it, and why. `here`: it is no upstream's."""
    response = flow.response
    assert response
    if here and _BLOCKED in flow.metadata and response.headers.get("server", "").startswith("mitmproxy"):
        response.headers["Server"] = pages.SERVER
        if response.status_code >= 400 and not response.raw_content:
            page = pages.text(response.status_code, "block_list blocks this request", ErrorType.HTTP_REQUEST_DENIED)
            response = flow.response = answer_of(page, accept_of(flow))
    response.headers.fields = forwarding.with_date(response.headers.fields)


def respond(flow: HTTPFlow, page: Page) -> None:
    """Answer the flow with this page at once: its body, if any, is not waited for."""
    flow.response = answer_of(page, accept_of(flow))
    if page.code == 400 and not flow.request.is_http2:
        flow.response.headers["Connection"] = "close"  # who is wrong about one message may be about where it ends
    flow.request.stream = True
