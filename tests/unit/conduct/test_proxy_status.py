"""Of which type a failure is, as RFC 9209 has it."""

from __future__ import annotations

import copy
import pickle

import pytest

from jwtproxy.conduct.proxy_status import ErrorType, Reason, of_connection, type_of


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        ("[Errno 111] Connect call failed ('127.0.0.1', 1)", "connection_refused"),
        ("[Errno -2] Name or service not known", "dns_error"),
        ("[Errno -3] Too many other names are being looked up", "dns_error"),
        ("label empty or too long", "dns_error"),
        ("encoding with 'idna' codec failed (UnicodeError: label too long)", "dns_error"),
        ("[Errno 110] Connection timed out", "connection_timeout"),
        ("no connection within 10 s", "connection_timeout"),
        ("[Errno 101] Network is unreachable", "destination_ip_unroutable"),
        ("[Errno 113] Connect call failed ('192.0.2.1', 80)", "destination_ip_unroutable"),
        ("Multiple exceptions: [Errno 111] Connect call failed, [Errno 101] Network is unreachable",
         "connection_refused"),
        ("[Errno 104] Connection reset by peer", "connection_terminated"),
        ("connection reset by peer", "connection_terminated"),
        ("connection closed", "connection_terminated"),
        ("server closed connection", "connection_terminated"),
        ("Certificate verify failed: self-signed certificate", "tls_certificate_error"),
        ("The remote server does not speak TLS.", "tls_protocol_error"),
        ("OpenSSL Error([('SSL routines', '', 'sslv3 alert handshake failure')])", "tls_protocol_error"),
        ("the proxy 127.0.0.1:1 does not answer as one: nonsense", "http_protocol_error"),
        ("the answer of the proxy 127.0.0.1:1 has no end", "http_protocol_error"),
        ("the proxy 127.0.0.1:1 refused the tunnel: 403 Forbidden", "destination_unavailable"),
        ("[Errno 24] Too many open files", "destination_unavailable"),
        ("", "destination_unavailable"),
    ],
)  # fmt: skip
def test_why_no_connection_was_made_tells_its_type(reason: str, error: str) -> None:
    assert of_connection(reason) == error


def test_a_reason_carries_its_type() -> None:
    reason = Reason("it is gone", ErrorType.CONNECTION_TERMINATED)
    assert reason == "it is gone"
    assert type_of(reason, ErrorType.DNS_ERROR) is ErrorType.CONNECTION_TERMINATED
    assert type_of("it is gone", ErrorType.DNS_ERROR) is ErrorType.DNS_ERROR
    for other in (copy.copy(reason), pickle.loads(pickle.dumps(reason))):  # our own
        assert (other, other.error) == (reason, reason.error)


def test_the_field_is_a_list_of_one_token_with_a_parameter() -> None:
    assert ErrorType.DNS_ERROR.field == "jwtproxy; error=dns_error"
