"""What clients are told where mitmproxy reports that a request has no answer."""

from mitmproxy.proxy.layers import http

from ..conduct.proxy_status import ErrorType, Reason, type_of
from ..observe import pages
from ..observe.pages import Page
from . import flows
from .retries import NoAnswer

_OURS = {
    http.ErrorCode.REQUEST_TOO_LARGE: ("the request's body exceeds body_size_limit", ErrorType.HTTP_REQUEST_ERROR),
    http.ErrorCode.RESPONSE_TOO_LARGE: ("the answer's body exceeds body_size_limit", ErrorType.HTTP_RESPONSE_BODY_SIZE),
    http.ErrorCode.REQUEST_VALIDATION_FAILED: (
        "CONNECT is not served here: within a tunnel, or in this mode",  # all else has been refused by then
        ErrorType.HTTP_REQUEST_ERROR,
    ),
    http.ErrorCode.RESPONSE_VALIDATION_FAILED: ("the answer is not valid HTTP", ErrorType.HTTP_PROTOCOL_ERROR),
}
"""Our words for what mitmproxy says of itself."""


GONE = "Client disconnected"
"""How mitmproxy begins where a client has left that had sent all of its request."""
_THEIRS = {
    "Request body exceeds ": http.ErrorCode.REQUEST_TOO_LARGE,
    "Response body exceeds ": http.ErrorCode.RESPONSE_TOO_LARGE,
    "mitmproxy received an HTTP CONNECT request ": http.ErrorCode.REQUEST_VALIDATION_FAILED,
}
"""How that begins in a flow's error, which does not tell the code."""


def in_our_words(reason: str) -> str:
    """What a flow's error says, as its client is told."""
    if reason.startswith(GONE):
        return flows.CLIENT_GONE
    code = _code_of(reason)
    return _OURS[code][0] if code else flows.in_our_name(reason)


def type_in(reason: str) -> ErrorType:
    """Of which type a flow's error is, as its client is told."""
    code = _code_of(reason)
    return _OURS[code][1] if code else type_of(reason, ErrorType.HTTP_PROTOCOL_ERROR)


def status_in(reason: str) -> int:
    """The status of the answer by which the client is told of a flow's error; 0 where it is told by none."""
    if isinstance(reason, Reason):
        return reason.status
    code = _code_of(reason)  # what is too large is known before any of an answer is sent
    return (code and code.http_status_code()) or 0


def _code_of(reason: str) -> http.ErrorCode | None:
    return next((code for start, code in _THEIRS.items() if reason.startswith(start)), None)


def reason_of(event: http.ResponseProtocolError, *, has_begun: bool = False) -> Reason:
    """Why there is no answer, or no more of one that has begun, with the type and status that its client is told."""
    status = event.code.http_status_code()
    told = not has_begun and event.message != flows.CLIENT_GONE
    return Reason(event.message, type_of(event.message, _otherwise(event, status)), (told and status) or 0)


def page_of(event: http.ResponseProtocolError) -> Page | None:
    """The answer in place of the one that there is not; None where its client gets none."""
    status = event.code.http_status_code()
    if status is None:
        return None
    if event.code in _OURS:
        return pages.text(status, *_OURS[event.code])
    reason = reason_of(event)
    return pages.text(status, reason, reason.error)


def _otherwise(event: http.ResponseProtocolError, status: int | None) -> ErrorType:
    if status and status < 500:
        return ErrorType.HTTP_REQUEST_ERROR
    return ErrorType.CONNECTION_TERMINATED if isinstance(event, NoAnswer) else ErrorType.HTTP_PROTOCOL_ERROR
