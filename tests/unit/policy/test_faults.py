"""What is refused before anyone asks who signs."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from jwtproxy.conduct.fields import Fields
from jwtproxy.conduct.host import Fault
from jwtproxy.conduct.proxy_status import ErrorType
from jwtproxy.conduct.request import RequestHead
from jwtproxy.conduct.verdict import Forward, Refuse
from jwtproxy.policy.faults import UNSIGNED, Unsigned, passing, refusal

NOW = 1_700_000_000.9
FIELDS: Fields = ((b"Host", b"a.example"), (b"Accept", b"*/*"), (b"X-My-JWT", b"a"))
HEAD = RequestHead(b"GET", "http", "a.example", 80, b"/", FIELDS, tunnel="https://t.example")

MISDIRECTED = (
    "this tunnel leads to https://t.example, but the request names another host; jwt_host_mismatch=allow permits it"
)


LOOP = "the request has been here before: two proxies lead to each other"
WRONG = ErrorType.HTTP_REQUEST_ERROR
ALLOW: Fields = ((b"Allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, CONNECT"),)
TRACE = Refuse(405, "TRACE would show the token; jwt_trace=on permits it", fields=ALLOW)


@pytest.mark.parametrize(
    ("fault", "mismatch", "expected"),
    [
        (Fault.TARGET, "allow", Refuse(400, "the request's target is neither a URL nor a path", error=WRONG)),
        (Fault.HOST, "allow", Refuse(400, "the request's host or port is not valid", error=WRONG)),
        (Fault.NO_HOST, "allow", Refuse(400, "the request has no Host header", error=WRONG)),
        (Fault.LOOP, "allow", Refuse(502, LOOP, error=ErrorType.PROXY_LOOP_DETECTED)),
        (Fault.HOPS, "allow", Refuse(200, "", fields=ALLOW)),
        (Fault.TUNNEL, "refuse", Refuse(421, MISDIRECTED)),
    ],
)
def test_each_fault_has_its_answer(fault: Fault, mismatch: str, expected: Refuse) -> None:
    for method in (b"GET", b"CONNECT", b"OPTIONS" if fault is Fault.HOPS else b"TRACE"):
        for trace in ("off", "on"):
            assert refusal(replace(HEAD, method=method, fault=fault), mismatch, trace) == expected
        assert Unsigned(mismatch).verdict(replace(HEAD, method=method, fault=fault), NOW) == expected


def test_a_trace_that_may_go_no_further_is_refused_too() -> None:
    """Its answer, for which we would repeat the request, is nobody's need (RFC 9110 §9.3.8)."""
    for trace in ("off", "on"):
        answer = refusal(replace(HEAD, method=b"TRACE", fault=Fault.HOPS), "refuse", trace)
        assert answer == Refuse(405, "TRACE is not answered here, and Max-Forwards: 0 ends its way", fields=ALLOW)


def test_what_is_sound_or_allowed_passes() -> None:
    assert refusal(HEAD, "refuse") is None
    assert refusal(replace(HEAD, fault=Fault.TUNNEL), "allow") is None


@pytest.mark.parametrize("method", [b"TRACE", b"Trace", b"trace"])  # which some servers take for the same
@pytest.mark.parametrize(("fault", "mismatch"), [(None, "refuse"), (None, "allow"), (Fault.TUNNEL, "allow")])
def test_trace_passes_only_where_that_is_asked_for(method: bytes, fault: Fault | None, mismatch: str) -> None:
    """Its answer repeats the request, with the token (RFC 9110 §9.3.8)."""
    head = replace(HEAD, method=method, fault=fault)
    assert refusal(head, mismatch) == refusal(head, mismatch, "off") == TRACE
    assert refusal(head, mismatch, "on") is None
    assert Unsigned(mismatch).refusal(head) is None, "there is no token to show"


def test_where_nobody_signs_all_fields_pass_that_are_for_more_than_one_hop() -> None:
    assert UNSIGNED.verdict(HEAD, NOW) == Forward(FIELDS)
    hop: Fields = ((b"Connection", b"x-my-jwt"), (b"Keep-Alive", b"a"), (b"Proxy-Authorization", b"a"))
    assert UNSIGNED.verdict(replace(HEAD, fields=(*FIELDS, *hop)), NOW) == Forward(FIELDS[:2])
    assert UNSIGNED.clean_trailers(FIELDS) == FIELDS
    assert not UNSIGNED.signs
    assert not UNSIGNED.has_rules
    assert UNSIGNED.host_mismatch == "refuse"


def test_nor_does_anything_name_us_in_via() -> None:
    assert not UNSIGNED.via_on_answers
    assert UNSIGNED.pseudonym == ""


def test_a_connection_field_that_is_no_list_is_refused_there_too() -> None:
    verdict = UNSIGNED.verdict(replace(HEAD, fields=((b"Connection", b'"x"'),)), NOW)
    assert verdict == Refuse(400, "Connection is not a list of tokens", error=WRONG)


@pytest.mark.parametrize(
    "changes",
    [
        *({"path": path} for path in (b"", b"a", b"/a b", b"/\r\nx-my-jwt: a", b"*", b"/a#b")),
        *({"method": method} for method in (b"", b"G T", b"A(B)")),
        {"fields": ((b"A", b"b\nc: d"),)},
        {"fields": ((b"A\r\nB", b"c"),)},
    ],
)
def test_nor_does_what_a_hook_has_broken_pass(changes: dict[str, Any]) -> None:
    verdict = UNSIGNED.verdict(replace(HEAD, **changes), NOW)
    assert isinstance(verdict, Refuse)
    assert verdict.status == 502, "its client is not to blame"
    assert verdict.error is ErrorType.PROXY_INTERNAL_ERROR


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ({}, ((b"te", b"trailers"), (b"Connection", b"TE"))),
        ({"http_version": b"HTTP/1.0"}, ()),
        ({"http_version": b"HTTP/2.0"}, ((b"te", b"trailers"),)),  # RFC 9113 §8.2.2
        ({"to_proxy": True}, ((b"proxy-authorization", b"a"), (b"te", b"trailers"), (b"Connection", b"TE"))),
    ],
)
def test_what_passes_depends_on_who_is_next(changes: dict[str, Any], left: Fields) -> None:
    fields = ((b"te", b"gzip, trailers"), (b"proxy-authorization", b"a"))
    assert passing(replace(HEAD, fields=(*FIELDS, *fields), **changes)) == (*FIELDS, *left)


def test_it_needs_no_pyjwt() -> None:
    """The pages alone are served without it."""
    code = "import sys; sys.modules['jwt'] = None; import jwtproxy.policy.faults"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
