"""What is for one hop stays here, what is for all goes on byte for byte, and what we add is said once."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwtproxy.conduct.fields import Fields
from jwtproxy.conduct.forwarding import (
    ALLOW,
    Way,
    examine,
    has_passed,
    hops_left,
    request_fields,
    response_fields,
    take_expectation,
    to_http1,
    via,
    with_date,
    with_hops_left,
    with_via,
)
from jwtproxy.conduct.host import Fault
from jwtproxy.conduct.malformed import MalformedError

NEW, OLD, TWO = b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0"
PSEUDONYM = "jwtproxy-0a1b2c3d"
OTHERS: Fields = ((b"Host", b"a"), (b"Connection2", b"close"), (b"Accept", b"*/*"), (b"accept", b"\xe9"), (b"T", b""))

NO_LIST = "Connection is not a list of tokens"
OWN = "Connection names a field that belongs to the message"


def _fields(*lines: str) -> Fields:
    """Of lines as `Host: a`."""
    pairs = (line.partition(": ") for line in lines)
    return tuple((name.encode(), value.encode("latin-1")) for name, _, value in pairs)


# --- hop by hop


@pytest.mark.parametrize(
    ("lines", "kept", "added"),
    [
        ([], [], []),
        (["Connection: close"], [], []),
        (["connection: Keep-Alive", "Keep-Alive: timeout=5", "Proxy-Connection: keep-alive"], [], []),
        (["Connection: x-a", "X-A: b", "x-a: c", "X-B: d"], ["X-B: d"], []),
        (["X-A: b", "Connection: close, X-A", "CONNECTION: x-b", "x_b: c", "x-b: d"], ["x_b: c"], []),
        (["Connection: x-a ,\tx-b,,x-c", "x-a: 1", "x-b: 2", "x-c: 3"], [], []),  # RFC 9110 §5.6.1.2
        (["Connection: ", "Connection: ,"], [], []),
        (["Upgrade: h2c", "HTTP2-Settings: a", "Connection: Upgrade, HTTP2-Settings"], [], []),
        (["Upgrade: h2c, websocket"], [], []),
        (["TE: gzip", "te: "], [], []),
        (["TE: trailers;q=0.5"], [], []),
        # what is for proxies: by default, the next hop is none (RFC 9110 §11.7)
        (["Proxy-Authorization: Basic YTpi"], [], []),
        (["proxy-authenticate: Basic", "Proxy-Authentication-Info: a", "Proxy-Foo: b"], ["Proxy-Foo: b"], []),
        # what is meant for the next hop, too, which is told that it is for that one alone
        (["TE: trailers"], [], ["TE: trailers", "Connection: TE"]),
        (["te: gzip;q=0.5, Trailers", "Connection: te, close"], [], ["te: trailers", "Connection: TE"]),
        (["Connection: Upgrade", "Upgrade: websocket"], [], ["Upgrade: websocket", "Connection: Upgrade"]),
        (["upgrade: WebSocket", "connection: UPGRADE"], [], ["upgrade: WebSocket", "Connection: Upgrade"]),
    ],
)
def test_what_is_for_one_hop_stays_here(lines: list[str], kept: list[str], added: list[str]) -> None:
    """RFC 9110 §7.6.1; all else passes, in order."""
    fields = (*OTHERS[:2], *_fields(*lines), *OTHERS[2:])
    left = (*OTHERS[:2], *_fields(*kept), *OTHERS[2:], *_fields(*added))
    assert request_fields(fields) == left
    told = [line for line in added if not line.lower().endswith(("te", "trailers"))]  # TE is a client's word
    assert response_fields(fields) == (*OTHERS[:2], *_fields(*kept), *OTHERS[2:], *_fields(*told))


@pytest.mark.parametrize(
    "lines", [["TE: trailers", "Connection: TE"], ["Upgrade: websocket", "Connection: Upgrade"], ["Connection: TE"]]
)
def test_http_1_0_has_neither_trailers_nor_upgrades(lines: list[str]) -> None:
    """RFC 9110 §7.8."""
    assert request_fields(OTHERS + _fields(*lines), version=OLD) == OTHERS


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        (["TE: trailers", "Connection: TE"], ["TE: trailers"]),
        (["te: trailers"], ["te: trailers"]),
        (["Connection: close"], []),
        (["Upgrade: websocket"], []),
    ],
)
def test_http_2_has_no_connection_to_name_it_in(lines: list[str], left: list[str]) -> None:
    """RFC 9113 §8.2.2."""
    assert request_fields(OTHERS + _fields(*lines), version=TWO) == OTHERS + _fields(*left)


@pytest.mark.parametrize("name", ["Proxy-Authorization", "proxy-authenticate", "Proxy-Authentication-Info"])
def test_what_proxies_say_to_each_other_passes_between_them(name: str) -> None:
    """RFC 9110 §11.7.1 and §11.7.2: where the next hop is one."""
    fields = OTHERS + _fields(f"{name}: a", f"{name}: b")
    assert request_fields(fields, to_proxy=True) == response_fields(fields, from_proxy=True) == fields
    assert request_fields(fields) == response_fields(fields) == OTHERS
    assert request_fields(fields + _fields("Connection: close"), to_proxy=True) == fields


@pytest.mark.parametrize(
    "value",
    ['"x-my-jwt"', "x-my-jwt;q=1", "x-my jwt", "x-my-jwt=1", "close;", "a/b", "close, é", "(x-my-jwt)", "a\x0b"],
)
def test_a_connection_field_that_is_no_list_of_tokens_is_refused(value: str) -> None:
    """Whatever the next hop takes it for, it could take our token out (RFC 9110 §7.6.1)."""
    for lines in (
        [f"Connection: {value}"],
        [f"connection: close, {value}"],
        ["Connection: close", f"Connection: {value}"],
    ):
        with pytest.raises(MalformedError) as caught:
            request_fields(OTHERS + _fields(*lines))
        assert (str(caught.value), caught.value.status) == (NO_LIST, 400)
        assert response_fields(OTHERS + _fields(*lines)) == OTHERS, "an answer's harms nobody when it is gone"


@pytest.mark.parametrize("name", ["Host", "content-length", "Transfer-Encoding", "CONTENT-TYPE"])
def test_a_connection_field_takes_nothing_out_that_the_message_needs(name: str) -> None:
    """Such requests were made to have an upstream see another message than the proxy saw."""
    for value in (name, f"close, {name}", f"{name} ,close"):
        fields = _fields(f"Connection: {value}", f"{name}: 1")
        with pytest.raises(MalformedError) as caught:
            request_fields(fields)
        assert (str(caught.value), caught.value.status) == (OWN, 400)
        assert response_fields(fields) == _fields(f"{name}: 1")


def test_framing_is_not_our_business() -> None:
    """Each carrier makes it for itself, and knows the field for that."""
    fields = _fields("Transfer-Encoding: chunked", "Content-Length: 5")
    assert request_fields(fields) == response_fields(fields) == fields


def test_what_needs_no_change_is_not_copied() -> None:
    assert request_fields(OTHERS) is response_fields(OTHERS) is OTHERS


def _any_case(name: str) -> st.SearchStrategy[bytes]:
    return st.sampled_from([name.encode(), name.lower().encode(), name.upper().encode()])


hop_names = st.sampled_from("Connection Keep-Alive Proxy-Connection TE Upgrade".split()).flatmap(_any_case)
proxy_names = st.sampled_from("Proxy-Authorization Proxy-Authenticate Proxy-Authentication-Info".split()).flatmap(
    _any_case
)
named = st.sampled_from(
    [b"close", b"x-my-jwt", b"X_My_JWT", b"x-a", b"TE", b"upgrade", b"connection", b"via", b"a;b", b"host"]
)
lists = st.lists(named, max_size=3).map(b", ".join)
hops = st.tuples(_any_case("Connection"), lists) | st.tuples(
    hop_names | proxy_names, lists | st.sampled_from([b"trailers", b"websocket", b"h2c", b"a, trailers"])
)
other_names = st.sampled_from([b"X-My-JWT", b"x_my_jwt", b"X-A", b"Host", b"Via", b"Connectio", b"A"])
others = st.tuples(other_names, st.binary(max_size=4))
any_fields = st.lists(hops | others, max_size=7).map(tuple)
no_hops = st.lists(others, max_size=5).map(tuple)
yes_or_no = st.booleans()
of_http = st.sampled_from([OLD, NEW, TWO])


def _requested(fields: Fields, version: bytes, to_proxy: bool) -> Fields | None:
    """What leaves of a request; None: nothing."""
    try:
        return request_fields(fields, version=version, to_proxy=to_proxy)
    except MalformedError:
        return None


@given(any_fields, of_http, yes_or_no)
def test_once_more_changes_nothing(fields: Fields, version: bytes, to_proxy: bool) -> None:
    """A request may be judged again, after a script has changed it."""
    left = _requested(fields, version, to_proxy)
    if left is not None:
        assert _requested(left, version, to_proxy) == left
    left = response_fields(fields, from_proxy=to_proxy)
    assert response_fields(left, from_proxy=to_proxy) == left


@given(any_fields, of_http, yes_or_no)
def test_no_connection_field_makes_the_next_hop_drop_our_token(fields: Fields, version: bytes, to_proxy: bool) -> None:
    """Whatever a client has written there, in whatever spelling: what leaves names TE and Upgrade at most."""
    left = _requested(fields, version, to_proxy) or ()
    said = [value for name, value in left if name.lower() == b"connection"]
    assert set(said) <= ({b"TE", b"Upgrade"} if version == NEW else set())


@given(any_fields)
def test_what_it_names_goes_no_further(fields: Fields) -> None:
    """RFC 9110 §7.6.1."""
    gone = {
        one.strip().lower() for name, value in fields if name.lower() == b"connection" for one in value.split(b",")
    } - {b"te", b"upgrade", b"connection"}
    left = _requested(fields, NEW, False) or ()
    assert not gone & {name.lower() for name, _ in left}


@given(no_hops, of_http, yes_or_no)
def test_fields_for_all_hops_stay_byte_for_byte(fields: Fields, version: bytes, to_proxy: bool) -> None:
    assert _requested(fields, version, to_proxy) == response_fields(fields) == fields


@given(any_fields, any_fields)
def test_no_answer_is_refused_for_it(fields: Fields, more: Fields) -> None:
    names = {name.lower() for name, _ in response_fields(fields + more)}
    assert not names & {b"keep-alive", b"proxy-connection", b"proxy-authenticate"}


@given(st.lists(st.sampled_from([b"q", b"zZ", b"7", b";", b'"', b"\xff", b" "])).map(b"".join))
def test_what_is_told_of_a_fault_holds_nothing_of_the_field(value: bytes) -> None:
    try:
        request_fields(((b"Connection", value),))
    except MalformedError as error:
        told = str(error).encode()
        assert [value[at : at + 4] for at in range(len(value) - 3) if value[at : at + 4] in told] == []


# --- Date


def test_an_answer_without_a_date_gets_one() -> None:
    """RFC 9110 §6.6.1, in the form of §5.6.7."""
    *kept, (name, value) = with_date(OTHERS)
    assert (tuple(kept), name.lower()) == (OTHERS, b"date")
    assert value.endswith(b" GMT")
    assert parsedate_to_datetime(value.decode()).tzinfo


@pytest.mark.parametrize("name", [b"Date", b"date", b"DATE"])
def test_one_that_has_it_keeps_it(name: bytes) -> None:
    fields = (*OTHERS, (name, b"once"), (b"data", b"a"))
    assert with_date(fields) is fields


# --- Via


@pytest.mark.parametrize(("version", "entry"), [(NEW, b"1.1"), (OLD, b"1.0"), (TWO, b"2")])
def test_via_tells_how_a_message_came_and_to_whom(version: bytes, entry: bytes) -> None:
    """RFC 9110 §7.6.3."""
    assert via(version, PSEUDONYM) == entry + b" jwtproxy-0a1b2c3d"


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        ([], []),
        (["Via: 1.0 fred, 1.1 a.example"], ["Via: 1.0 fred, 1.1 a.example"]),
        (["via: 1.1 a", "VIA: 1.1 b"], ["via: 1.1 a", "VIA: 1.1 b"]),
        (["Via: 1.1 me"], []),
        (["via: 1.1 me", "Via: 1.1 a"], ["Via: 1.1 a"]),
        (["X-Via: 1.1 me"], ["X-Via: 1.1 me"]),
    ],
)
def test_who_receives_a_message_is_last_in_via(lines: list[str], left: list[str]) -> None:
    """And there once, also when a request is judged again."""
    once = with_via(OTHERS + _fields(*lines), b"1.1 me")
    assert once[:-1] == OTHERS + _fields(*left)
    assert (once[-1][0].lower(), once[-1][1]) == (b"via", b"1.1 me")
    assert with_via(once, b"1.1 me") == once


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f"Via: 1.1 {PSEUDONYM}", True),
        (f"via: 2 {PSEUDONYM}", True),
        (f"VIA: 1.0 fred, 1.1 {PSEUDONYM} (a comment), 1.1 a", True),
        (f"Via: HTTP/1.1 {PSEUDONYM},1.1 a", True),
        ("Via: 1.1 jwtproxy-ffffffff", False),
        ("Via: 1.1 jwtproxy", False),
        ("Via: ", False),
        (f"X-Via: 1.1 {PSEUDONYM}", False),
        (f"Vib: 1.1 {PSEUDONYM}", False),
        ("A: b", False),
    ],
)
def test_a_message_that_has_been_here_is_known(line: str, expected: bool) -> None:
    assert has_passed(OTHERS + _fields(line), PSEUDONYM) is expected
    assert has_passed(_fields(line, "Via: 1.1 a"), PSEUDONYM) is expected


def test_who_has_no_name_recognises_nothing() -> None:
    assert not has_passed(_fields("Via: 1.1 a", "Via: "), "")


@given(no_hops, st.sampled_from([NEW, OLD, TWO]))
def test_what_we_send_on_is_recognised_when_it_comes_back(fields: Fields, version: bytes) -> None:
    assert has_passed(with_via(fields, via(version, PSEUDONYM)), PSEUDONYM)


# --- Expect


@pytest.mark.parametrize("line", ["Expect: 100-continue", "expect: 100-Continue", "EXPECT: 100-CONTINUE"])
@pytest.mark.parametrize(("version", "due"), [(NEW, True), (TWO, True), (OLD, False)])
def test_who_waits_for_leave_is_known(line: str, version: bytes, due: bool) -> None:
    """RFC 9110 §10.1.1: a client of HTTP/1.0 could not read the answer to it."""
    fields = OTHERS + _fields(line)
    assert take_expectation(version, fields + OTHERS) == (OTHERS + OTHERS, due)
    assert take_expectation(version, fields + _fields(line)) == (OTHERS, due), "once is enough"


@pytest.mark.parametrize("line", ["A: b", "Expect: ", "Expect: a", "Expected: 100-continue", "Except: 100-continue"])
def test_other_expectations_are_for_the_upstream(line: str) -> None:
    fields = OTHERS + _fields(line)
    assert take_expectation(NEW, fields) == (fields, False)


# --- Max-Forwards


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        ([], None),
        (["Max-Forwards: 0"], 0),
        (["max-forwards: 10"], 10),
        (["MAX-FORWARDS: 007"], 7),
        (["Max-Forwards: 999999999"], 999_999_999),
        (["Max-Forwards: 3", "Max-Forwards: 0"], 3),
        (["Max-Forwards: a", "Max-Forwards: 1"], 1),
        *(([f"Max-Forwards: {value}"], None) for value in ("", "-1", "+1", "1.0", "1, 1", "\xb2", "9" * 5000)),
        (["Max-Forward: 1", "Min-Forwards: 1"], None),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_how_far_a_request_may_go_is_read(lines: list[str], left: int | None) -> None:
    """RFC 9110 §7.6.2; what is no number says nothing."""
    assert hops_left(OTHERS + _fields(*lines)) == left


@pytest.mark.parametrize("lines", [[], ["Max-Forwards: 3"], ["max-forwards: 3", "A: b", "MAX-FORWARDS: 5"]])
@pytest.mark.parametrize("count", [0, 2])
def test_and_said_once(lines: list[str], count: int) -> None:
    left = with_hops_left(OTHERS + _fields(*lines), count)
    assert left[:-1] == OTHERS + _fields(*(line for line in lines if line == "A: b"))
    assert hops_left(left) == count


def test_what_is_allowed_is_a_list_of_methods() -> None:
    """RFC 9110 §10.2.1; without TRACE, as it would show the token."""
    assert ALLOW.split(b", ") == b"GET HEAD POST PUT PATCH DELETE OPTIONS CONNECT".split()


def test_nobody_upgrades_who_did_not_ask() -> None:
    """RFC 9110 §7.8: only with a Connection that says so."""
    fields = ((b"Host", b"a"), (b"Upgrade", b"websocket"))
    assert request_fields(fields) == fields[:1]
    asked = (*fields, (b"Connection", b"keep-alive, Upgrade"))
    assert request_fields(asked) == (*fields, (b"Connection", b"Upgrade"))


def test_te_is_a_clients_word() -> None:
    assert response_fields(((b"te", b"trailers"), (b"a", b"b"))) == ((b"a", b"b"),)


# --- all that a request says about its way

PASSED = f"Via: 1.1 {PSEUDONYM}"


@pytest.mark.parametrize(
    ("version", "method", "lines", "left", "expects", "fault"),
    [
        (NEW, b"GET", ["A: b"], ["A: b"], False, None),
        (NEW, b"POST", ["Expect: 100-continue", "A: b"], ["A: b"], True, None),
        (OLD, b"POST", ["Expect: 100-continue", "A: b"], ["A: b"], False, None),
        (NEW, b"GET", [PASSED], [PASSED], False, Fault.LOOP),
        (NEW, b"GET", ["Max-Forwards: 0"], ["Max-Forwards: 0"], False, None),  # it says nothing to other methods
        (NEW, b"OPTIONS", ["Max-Forwards: 0"], ["Max-Forwards: 0"], False, Fault.HOPS),
        (NEW, b"TRACE", ["Max-Forwards: 0"], ["Max-Forwards: 0"], False, Fault.HOPS),
        (NEW, b"OPTIONS", ["Max-Forwards: 2", "A: b"], ["A: b", "Max-Forwards: 1"], False, None),
        (NEW, b"OPTIONS", ["Max-Forwards: 0", PASSED], ["Max-Forwards: 0", PASSED], False, Fault.LOOP),
    ],
)
def test_what_a_request_says_about_its_way_is_heard(
    version: bytes, method: bytes, lines: list[str], left: list[str], expects: bool, fault: Fault | None
) -> None:
    assert examine(version, method, _fields(*lines), PSEUDONYM) == Way(_fields(*left), expects, fault)


def test_without_a_name_nothing_has_passed() -> None:
    fields = _fields(PASSED)
    assert examine(NEW, b"GET", fields, "") == Way(fields)


# --- from one version to another


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], ["Host: a.example"]),
        (["a: b", "host: c"], ["a: b", "host: c"]),
        (["te: trailers", "a: b"], ["Host: a.example", "a: b"]),
        (["host: c", "cookie: a=b", "x: y", "cookie: c=d", "z: z"], ["host: c", "cookie: a=b; c=d", "x: y", "z: z"]),
        (["host: c", "Cookie: a=b"], ["host: c", "Cookie: a=b"]),
    ],
)
def test_a_request_of_another_version_has_the_fields_of_http_1_1(lines: list[str], expected: list[str]) -> None:
    """Host (RFC 9112 §3.2), one Cookie (RFC 9113 §8.2.3), and no word of trailers, which cannot be sent."""
    assert to_http1(_fields(*lines), b"a.example") == _fields(*expected)
