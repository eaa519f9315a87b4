"""Why the proxy answers in place of the upstream, as programs read it: the Proxy-Status field (RFC 9209).

Of which type a failure is, is decided where it is known. Of a connection that was not made, all that is known is what
Python, OpenSSL and mitmproxy say of it.
"""

import errno
import re
from enum import StrEnum

NAME = "Proxy-Status"


class ErrorType(StrEnum):
    """The types of RFC 9209 §2.3 that occur here."""

    DNS_ERROR = "dns_error"
    DESTINATION_UNAVAILABLE = "destination_unavailable"
    DESTINATION_IP_PROHIBITED = "destination_ip_prohibited"
    DESTINATION_IP_UNROUTABLE = "destination_ip_unroutable"
    CONNECTION_REFUSED = "connection_refused"
    CONNECTION_TERMINATED = "connection_terminated"
    CONNECTION_TIMEOUT = "connection_timeout"
    CONNECTION_LIMIT_REACHED = "connection_limit_reached"
    TLS_PROTOCOL_ERROR = "tls_protocol_error"
    TLS_CERTIFICATE_ERROR = "tls_certificate_error"
    HTTP_REQUEST_ERROR = "http_request_error"
    HTTP_REQUEST_DENIED = "http_request_denied"
    HTTP_RESPONSE_INCOMPLETE = "http_response_incomplete"
    HTTP_RESPONSE_BODY_SIZE = "http_response_body_size"
    HTTP_RESPONSE_TIMEOUT = "http_response_timeout"
    HTTP_PROTOCOL_ERROR = "http_protocol_error"
    PROXY_INTERNAL_ERROR = "proxy_internal_error"
    PROXY_LOOP_DETECTED = "proxy_loop_detected"

    @property
    def field(self) -> str:
        """The value of Proxy-Status: nothing of the request, nor of an answer, is in it."""
        return f"jwtproxy; error={self}"


class Reason(str):
    """Why there is no answer, or no more of one, in words that carry their type along whatever way they go."""

    error: ErrorType
    status: int
    """That of the answer by which its client is told; 0 where it is told of nothing, or an answer has begun."""

    def __new__(cls, text: str, error: ErrorType = ErrorType.PROXY_INTERNAL_ERROR, status: int = 0) -> "Reason":
        """`error`: of which type it is."""
        reason = super().__new__(cls, text)
        reason.error, reason.status = error, status
        return reason

    def told(self, status: int) -> "Reason":
        """The same of a client that is told by an answer with this status; 0: by none."""
        return Reason(self, self.error, status)


def type_of(reason: str, otherwise: ErrorType) -> ErrorType:
    """Of which type a reason is; this one, where it does not say."""
    return reason.error if isinstance(reason, Reason) else otherwise


ERROR_NUMBER = re.compile(r"(?:Multiple exceptions: .*?)?\[Errno (-?\d+)\] (.*)")
"""As Python writes an error, and asyncio those of a name with several addresses."""

_NUMBERS = {
    errno.ECONNREFUSED: ErrorType.CONNECTION_REFUSED,
    errno.ECONNRESET: ErrorType.CONNECTION_TERMINATED,
    errno.ETIMEDOUT: ErrorType.CONNECTION_TIMEOUT,
    errno.EHOSTUNREACH: ErrorType.DESTINATION_IP_UNROUTABLE,
    errno.ENETUNREACH: ErrorType.DESTINATION_IP_UNROUTABLE,
}
_WORDS = (
    (re.compile("^no connection within "), ErrorType.CONNECTION_TIMEOUT),
    (re.compile("^[Cc]onnection (closed|reset)|^server closed connection"), ErrorType.CONNECTION_TERMINATED),
    (re.compile("^label |^encoding with 'idna'"), ErrorType.DNS_ERROR),
    (re.compile("^[Cc]ertificate verify failed"), ErrorType.TLS_CERTIFICATE_ERROR),
    (re.compile("OpenSSL| TLS\\b"), ErrorType.TLS_PROTOCOL_ERROR),
    (re.compile("^the proxy .* does not answer as one|^the answer of the proxy "), ErrorType.HTTP_PROTOCOL_ERROR),
)


def of_connection(reason: str) -> ErrorType:
    """Of which type it is that a connection was not made, in the words of whoever tried."""
    if match := ERROR_NUMBER.match(reason):
        number = int(match[1])
        return ErrorType.DNS_ERROR if number < 0 else _NUMBERS.get(number, ErrorType.DESTINATION_UNAVAILABLE)
    found = (error for words, error in _WORDS if words.search(reason))
    return next(found, ErrorType.DESTINATION_UNAVAILABLE)
