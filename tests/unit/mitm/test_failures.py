"""What clients are told where mitmproxy reports that a request has no answer."""

from __future__ import annotations

import pytest
from mitmproxy.proxy.layers.http import ErrorCode, ResponseProtocolError

from jwtproxy.conduct.proxy_status import ErrorType, Reason
from jwtproxy.mitm import flows
from jwtproxy.mitm.failures import in_our_words, page_of, reason_of, status_in, type_in
from jwtproxy.mitm.retries import NoAnswer

SAID = "mitmproxy would say this"
TYPED = Reason("gone", ErrorType.HTTP_RESPONSE_INCOMPLETE)


@pytest.mark.parametrize(
    ("event", "code", "detail", "error"),
    [
        (ResponseProtocolError(1, "no", ErrorCode.GENERIC_SERVER_ERROR), 502, "no", "http_protocol_error"),
        (ResponseProtocolError(1, TYPED, ErrorCode.GENERIC_SERVER_ERROR), 502, "gone", "http_response_incomplete"),
        (NoAnswer(1, "gone"), 502, "gone", "connection_terminated"),
        (ResponseProtocolError(1, "no", ErrorCode.GENERIC_CLIENT_ERROR), 400, "no", "http_request_error"),
        (ResponseProtocolError(1, SAID, ErrorCode.REQUEST_TOO_LARGE), 413,
         "the request's body exceeds body_size_limit", "http_request_error"),
        (ResponseProtocolError(1, SAID, ErrorCode.RESPONSE_TOO_LARGE), 502,
         "the answer's body exceeds body_size_limit", "http_response_body_size"),
        (ResponseProtocolError(1, SAID, ErrorCode.REQUEST_VALIDATION_FAILED), 400,
         "CONNECT is not served here: within a tunnel, or in this mode", "http_request_error"),
        (ResponseProtocolError(1, SAID, ErrorCode.RESPONSE_VALIDATION_FAILED), 502,
         "the answer is not valid HTTP", "http_protocol_error"),
    ],
)  # fmt: skip
def test_each_has_its_answer(event: ResponseProtocolError, code: int, detail: str, error: str) -> None:
    page = page_of(event)
    assert page
    assert (page.code, page.detail, page.headers["Proxy-Status"]) == (code, detail, f"jwtproxy; error={error}")
    if event.message is not SAID:
        assert (reason_of(event), reason_of(event).error) == (detail, error)
    assert reason_of(event).status == code
    assert reason_of(event, has_begun=True).status == 0


@pytest.mark.parametrize("code", [ErrorCode.KILL, ErrorCode.CANCEL, ErrorCode.CLIENT_DISCONNECTED])
def test_who_is_gone_or_cut_off_gets_none(code: ErrorCode) -> None:
    event = ResponseProtocolError(1, "no", code)
    assert page_of(event) is None
    assert reason_of(event).status == 0


def test_a_client_that_has_left_while_its_upstream_was_dialled_gets_none() -> None:
    assert reason_of(ResponseProtocolError(1, flows.CLIENT_GONE, ErrorCode.CONNECT_FAILED)).status == 0


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        ("Request body exceeds mitmproxy's body_size_limit.", 413),
        ("Response body exceeds mitmproxy's body_size_limit.", 502),
        ("mitmproxy received an HTTP CONNECT request even though …", 400),
        ("what mitmproxy says", 0),
        (TYPED, 0),
        (TYPED.told(502), 502),
    ],
)
def test_a_flows_error_tells_the_status_that_its_client_got(reason: str, status: int) -> None:
    assert status_in(reason) == status


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("Request body exceeds mitmproxy's body_size_limit.", "the request's body exceeds body_size_limit"),
        ("Response body exceeds mitmproxy's body_size_limit.", "the answer's body exceeds body_size_limit"),
        ("mitmproxy received an HTTP CONNECT request even though it is not running in regular/upstream mode. This …",
         "CONNECT is not served here: within a tunnel, or in this mode"),
        ("mitmproxy's fault", "fault"),
        ("Client disconnected.", "client disconnected"),
        ("server closed connection", "server closed connection"),
    ],
)  # fmt: skip
def test_a_flows_error_is_told_as_its_client_is(reason: str, words: str) -> None:
    assert in_our_words(reason) == words


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        ("Request body exceeds mitmproxy's body_size_limit.", ErrorType.HTTP_REQUEST_ERROR),
        ("Response body exceeds mitmproxy's body_size_limit.", ErrorType.HTTP_RESPONSE_BODY_SIZE),
        ("mitmproxy received an HTTP CONNECT request even though …", ErrorType.HTTP_REQUEST_ERROR),
        ("what mitmproxy says", ErrorType.HTTP_PROTOCOL_ERROR),
        (TYPED, ErrorType.HTTP_RESPONSE_INCOMPLETE),
    ],
)
def test_a_flows_error_is_of_the_type_that_its_client_is_told(reason: str, error: ErrorType) -> None:
    assert type_in(reason) is error
