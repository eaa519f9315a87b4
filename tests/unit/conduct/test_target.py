"""A target has one of the four forms of RFC 9112 §3.2, that which its method may have, or is refused."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jwtproxy.conduct.malformed import MalformedError
from jwtproxy.conduct.target import Target, check_path, check_sendable, for_next_hop, parse, split_authority, to_ascii

FORM = "the request's target is neither a URL nor a path"
AUTHORITY = "the request's host or port is not valid"
NOT_VISIBLE = "the request's target contains a space or a control character"

METHODS = st.sampled_from([b"GET", b"OPTIONS", b"CONNECT", b"connect", b"BREW"])
SYNTAX = [b"http://", b"HTTPS://", b"ws:", b"//", b"/", b"*", b":80", b":", b"@", b"?", b"#", b"%", b"%zz", b"\\"]
NAMES = [b"a", b"A.example", b"[::1]", b"xn--", b"bcher-kva"]
REFUSED = [b" ", b"\t", b"\r\n", b"\0", b"\x7f", b"\x85"]
PIECES = st.sampled_from([*SYNTAX, *NAMES, *REFUSED, "é€".encode()])
TARGETS = st.one_of(st.binary(max_size=20), st.lists(PIECES, max_size=6).map(b"".join))


# --- the four forms


@pytest.mark.parametrize(
    "path", [b"/", b"/a?b=c", b"//a.example/b", b"/?", b"/*", b'/"<>\\^`{|}', b"/%zz/%2e%2e", b"/a:1@b"]
)
@pytest.mark.parametrize("method", [b"GET", b"OPTIONS", b"BREW", b"get"])
def test_in_origin_form_only_the_path_is_known(method: bytes, path: bytes) -> None:
    """RFC 9112 §3.2.1. It stays byte for byte."""
    assert parse(method, path) == Target(path, b"", b"", "", 0)


def test_options_may_be_about_the_whole_server() -> None:
    """RFC 9112 §3.2.4."""
    assert parse(b"OPTIONS", b"*") == Target(b"*")


ABSOLUTE: list[tuple[bytes, Target]] = [
    (b"http://a.example/", Target(b"/", b"http", b"a.example", "a.example", 80)),
    (b"http://a.example/b/c?d=e", Target(b"/b/c?d=e", b"http", b"a.example", "a.example", 80)),
    (b"http://a.example:8080/", Target(b"/", b"http", b"a.example:8080", "a.example", 8080)),
    (b"http://a.example:0080/", Target(b"/", b"http", b"a.example:0080", "a.example", 80)),
    (b"http://a.example:/", Target(b"/", b"http", b"a.example:", "a.example", 80)),
    (b"https://a.example/", Target(b"/", b"https", b"a.example", "a.example", 443)),
    (b"hTTpS://A.Example/B", Target(b"/B", b"https", b"A.Example", "A.Example", 443)),
    # RFC 6455 §4.1: what follows the handshake is no HTTP, the handshake is
    (b"ws://a.example/", Target(b"/", b"http", b"a.example", "a.example", 80)),
    (b"WSS://a.example/", Target(b"/", b"https", b"a.example", "a.example", 443)),
    # RFC 9112 §3.2.1: an empty path is sent as /
    (b"http://a.example", Target(b"/", b"http", b"a.example", "a.example", 80)),
    (b"http://a.example?b=c", Target(b"/?b=c", b"http", b"a.example", "a.example", 80)),
    (b"http://a.example?", Target(b"/?", b"http", b"a.example", "a.example", 80)),
    (b"http://a.example:81?b/c", Target(b"/?b/c", b"http", b"a.example:81", "a.example", 81)),
    (b"http://a.example//b", Target(b"//b", b"http", b"a.example", "a.example", 80)),
    (b"http://a.example/?http://b/@", Target(b"/?http://b/@", b"http", b"a.example", "a.example", 80)),
    # RFC 9110 §4.2.5: the fragment is the client's own
    (b"http://a.example/b#c", Target(b"/b", b"http", b"a.example", "a.example", 80)),
    (b"http://a.example/b?c#d?e#f", Target(b"/b?c", b"http", b"a.example", "a.example", 80)),
    (b"http://a.example#/../admin", Target(b"/", b"http", b"a.example", "a.example", 80)),
    (b"http://a.example#@b.example/", Target(b"/", b"http", b"a.example", "a.example", 80)),
    # hosts
    (b"http://[::1]:81/", Target(b"/", b"http", b"[::1]:81", "::1", 81)),
    (b"http://127.1/", Target(b"/", b"http", b"127.1", "127.1", 80)),
    (b"http://my_service/", Target(b"/", b"http", b"my_service", "my_service", 80)),
    (b"http://xn--bcher-kva.example/", Target(b"/", b"http", b"xn--bcher-kva.example", "bücher.example", 80)),
    ("http://a.example/é?€".encode(), Target(b"/%C3%A9?%E2%82%AC", b"http", b"a.example", "a.example", 80)),
]  # fmt: skip


@pytest.mark.parametrize(("target", "expected"), ABSOLUTE)
@pytest.mark.parametrize("method", [b"GET", b"BREW"])
def test_in_absolute_form_all_is_known(method: bytes, target: bytes, expected: Target) -> None:
    """RFC 9112 §3.2.2."""
    assert parse(method, target) == expected


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"http://a.example", b"*"),
        (b"http://a.example#b", b"*"),
        (b"https://a.example:8443", b"*"),
        (b"http://a.example/", b"/"),
        (b"http://a.example?b", b"/?b"),
        (b"http://a.example?", b"/?"),
        (b"http://a.example/*", b"/*"),
    ],
)
def test_options_without_a_path_is_about_the_whole_server(target: bytes, path: bytes) -> None:
    """RFC 9112 §3.2.4: that is how a proxy is asked for `OPTIONS *`."""
    assert parse(b"OPTIONS", target).path == path


@pytest.mark.parametrize(
    ("target", "host", "port"),
    [
        (b"a.example:443", "a.example", 443),
        (b"A.Example.:1", "A.Example.", 1),
        (b"a.example:065535", "a.example", 65535),
        (b"[::1]:443", "::1", 443),
        (b"[fe80::1%25eth0]:443", "fe80::1%25eth0", 443),
        (b"[::ffff:127.0.0.1]:443", "::ffff:127.0.0.1", 443),
        (b"xn--bcher-kva.example:443", "bücher.example", 443),
    ],
)
def test_connect_names_host_and_port_alone(target: bytes, host: str, port: int) -> None:
    """RFC 9112 §3.2.3."""
    assert parse(b"CONNECT", target) == Target(b"", b"", target, host, port)


# --- what is none of them


@pytest.mark.parametrize(
    ("method", "target", "text"),
    [
        (b"GET", b"*", "only OPTIONS may have the target *"),
        (b"options", b"*", "only OPTIONS may have the target *"),  # methods are case-sensitive (RFC 9110 §9.1)
        (b"OPTIONS", b"**", FORM),
        (b"OPTIONS", b"*/", FORM),
        (b"GET", b"", FORM),
        (b"GET", b"a", FORM),
        (b"GET", b"a.example:80", FORM),
        (b"GET", b"a.example/b", FORM),
        (b"GET", b"?a", FORM),
        (b"GET", b"#", FORM),
        (b"GET", b"/a#b", FORM),
        (b"GET", b"/a#/../admin", FORM),
        (b"GET", b"http:", FORM),
        (b"GET", b"http:/a.example/", FORM),
        (b"GET", b"http:a.example", FORM),
        (b"GET", b"http:\\\\a.example\\", FORM),
        (b"GET", b"://a.example/", FORM),
        (b"GET", b"ftp://a.example/", FORM),
        (b"GET", b"httpx://a.example/", FORM),
        (b"GET", b"file:///etc/passwd", FORM),
        (b"GET", b"1http://a.example/", FORM),
        (b"GET", b"http://", AUTHORITY),
        (b"GET", b"http:///b", AUTHORITY),
        (b"GET", b"http://?b", AUTHORITY),
        (b"GET", b"http://#", AUTHORITY),
        (b"GET", b"http://:80/", AUTHORITY),
        (b"GET", b"http://user@a.example/", AUTHORITY),
        (b"GET", b"http://user:password@a.example/", AUTHORITY),
        (b"GET", b"http://@a.example/", AUTHORITY),
        (b"GET", b"http://a.example\\@b.example/", AUTHORITY),
        (b"GET", b"http://a.example:0/", AUTHORITY),
        (b"GET", b"http://a.example:65536/", AUTHORITY),
        (b"GET", b"http://a.example:99999999999999999999/", AUTHORITY),
        (b"GET", b"http://a.example:" + b"0" * 5000 + b"1/", AUTHORITY),
        (b"GET", b"http://a.example:+80/", AUTHORITY),
        (b"GET", b"http://a.example:-1/", AUTHORITY),
        (b"GET", b"http://a.example:http/", AUTHORITY),
        (b"GET", b"http://a.example:80:80/", AUTHORITY),
        (b"GET", b"http://::1/", AUTHORITY),
        (b"GET", b"http://[::1/", AUTHORITY),
        (b"GET", b"http://%61.example/", AUTHORITY),  # no resolver decodes it
        (b"GET", "http://bücher.example/".encode(), AUTHORITY),  # a client writes xn--bcher-kva.example
        (b"GET", b"http://[::1]a/", AUTHORITY),
        (b"GET", b"http://[a]/", AUTHORITY),
        (b"GET", b"http://[v1.a]/", AUTHORITY),
        (b"GET", b'http://a"b/', AUTHORITY),
        (b"CONNECT", b"a.example", "CONNECT needs a host and a port"),
        (b"CONNECT", b"a.example:", "CONNECT needs a host and a port"),
        (b"CONNECT", b"[::1]", "CONNECT needs a host and a port"),
        (b"CONNECT", b"a.example:0", AUTHORITY),
        (b"CONNECT", b"a.example:65536", AUTHORITY),
        (b"CONNECT", b":443", AUTHORITY),
        (b"CONNECT", b"", AUTHORITY),
        (b"CONNECT", b"/", AUTHORITY),
        (b"CONNECT", b"*", "CONNECT needs a host and a port"),
        (b"CONNECT", b"http://a.example:443", AUTHORITY),
        (b"CONNECT", b"http://a.example:443/", AUTHORITY),
        (b"CONNECT", b"user@a.example:443", AUTHORITY),
        (b"CONNECT", b"a.example/b:443", AUTHORITY),
        (b"CONNECT", b"a.example?b:443", AUTHORITY),
        (b"CONNECT", b"a.example#b:443", AUTHORITY),
        (b"CONNECT", b"a.example:443/", AUTHORITY),
        (b"CONNECT", b"[::1%/]:443", AUTHORITY),
    ],
    ids=lambda value: repr(value[:40]),
)
def test_what_a_method_may_not_have_is_refused(method: bytes, target: bytes, text: str) -> None:
    with pytest.raises(MalformedError) as caught:
        parse(method, target)
    assert (str(caught.value), caught.value.status) == (text, 400)


@pytest.mark.parametrize("port", [b"0" * 20, b"1" * 20, b"1" * 21, b"9" * 5000])
def test_a_port_is_no_way_to_keep_us_busy(port: bytes) -> None:
    """Nor to have Python refuse a number of so many digits, with an error that nobody expects."""
    with pytest.raises(MalformedError, match=AUTHORITY):
        split_authority(b"a:" + port)


# --- bytes


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"", b""),
        (b"/a%2fb~!", b"/a%2fb~!"),
        ("/?x=€".encode(), b"/?x=%E2%82%AC"),  # as curl sends it
        ("é/ü?ä#ö".encode(), b"%C3%A9/%C3%BC?%C3%A4#%C3%B6"),
        ("/%e9é".encode(), b"/%e9%C3%A9"),
        ("/\U0001f600".encode(), b"/%F0%9F%98%80"),
        ("/\x85\xa0".encode(), b"/%C2%85%C2%A0"),  # a line end and a space, to some
    ],
)
def test_other_characters_than_ascii_are_percent_encoded(target: bytes, expected: bytes) -> None:
    """RFC 3986 §2.1."""
    assert to_ascii(target) == expected


NOT_UTF_8 = [b"\xe9", b"\xff", b"\x85", b"\xc3", b"\xc0\xaf", b"\xe0\x80\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"]


@pytest.mark.parametrize("target", NOT_UTF_8)
@pytest.mark.parametrize("before", [b"/", b"http://a.example/"])
def test_what_is_not_utf_8_has_no_meaning(target: bytes, before: bytes) -> None:
    """Overlong forms, surrogates and what is beyond Unicode included (RFC 3629 §3)."""
    with pytest.raises(MalformedError, match="not UTF-8"):
        parse(b"GET", before + target)


@pytest.mark.parametrize("byte", [*range(0x21), 0x7F])
@pytest.mark.parametrize(
    "around", [b"/a%cb", b"http://a.example/a%cb", b"http://a%cexample/", "/é%cé".encode(), b"%c/"]
)
def test_a_target_has_no_space_and_no_control(byte: int, around: bytes) -> None:
    """One server cuts the target there, another does not (RFC 9112 §3.2)."""
    for method in (b"GET", b"OPTIONS", b"CONNECT"):
        with pytest.raises(MalformedError, match=NOT_VISIBLE):
            parse(method, around % byte)


@given(TARGETS)
def test_the_same_target_is_meant(target: bytes) -> None:
    try:
        written = to_ascii(target)
    except MalformedError:
        return
    assert re.fullmatch(rb"[!-~]*", written)
    assert unquote_to_bytes(written) == unquote_to_bytes(target)
    assert to_ascii(written) == written


@given(METHODS, TARGETS)
@example(b"GET", b"http://a.example/#/")
@example(b"GET", b"http://xn--a/")
def test_whatever_comes_is_refused_or_can_be_written_again(method: bytes, target: bytes) -> None:
    try:
        found = parse(method, target)
    except MalformedError:
        return
    assert re.fullmatch(rb"[!-~]*", found.path + found.authority)
    assert b"#" not in found.path
    assert 0 <= found.port < 65536
    assert bool(found.host) == bool(found.authority) == bool(found.port)
    if method == b"CONNECT":
        assert found == parse(method, found.authority)
    elif not found.scheme:
        assert found == parse(method, found.path)
    else:
        path = b"" if found.path == b"*" else found.path
        assert found == parse(method, b"%s://%s%s" % (found.scheme, found.authority, path))


@given(METHODS, st.binary(max_size=20))
def test_a_path_is_taken_as_it_is_or_not_at_all(method: bytes, path: bytes) -> None:
    try:
        assert check_path(method, path) == path
    except MalformedError:
        return
    assert path.startswith(b"/") or (method, path) == (b"OPTIONS", b"*")


# --- names


@pytest.mark.parametrize(
    ("name", "host"),
    [
        (b"xn--bcher-kva.example", "bücher.example"),
        (b"XN--bcher-kva.Example.", "bücher.Example."),
        (b"xn--ls8h.la", "\N{PILE OF POO}.la"),
        (b"xn--strae-oqa.example", "xn--strae-oqa.example"),  # straße to IDNA 2008; to 2003 that is strasse, another
        (b"xn--a", "xn--a"),
        (b"xn--", "xn--"),
        (b"a" * 70, "a" * 70),
        (b"a!$&'()*+,;=~_-.b", "a!$&'()*+,;=~_-.b"),
    ],
)
def test_names_are_shown_as_they_are_read_where_that_names_the_same(name: bytes, host: str) -> None:
    """Whether such a host can be dialled is seen when it is (RFC 3986 §3.2.2 allows more)."""
    assert split_authority(name + b":1") == (host, 1)
    assert split_authority(name) == (host, 0)


@pytest.mark.parametrize("odd", [b" ", b"\t", b"\r\n", b"\0", b"\x7f", b"\x85", b"\xc3\xbc"])
def test_what_a_hook_made_of_a_request_line_is_still_one(odd: bytes) -> None:
    check_sendable(b"GET", b"/a?b")
    for method, path in ((b"G" + odd, b"/"), (b"GET", b"/" + odd), (b"", b"/"), (b"GET", b""), (b"GET", b"a")):
        with pytest.raises(MalformedError, match=r"^the request's method or target is none that") as caught:
            check_sendable(method, path)
        assert caught.value.status == 502


@pytest.mark.parametrize(
    ("path", "to_proxy", "expected"),
    [(b"/a?b", False, b"/a?b"), (b"/a?b", True, b"http://h/a?b"), (b"*", True, b"http://h"), (b"*", False, b"*")],
)
def test_a_proxy_is_asked_for_the_whole_url(path: bytes, to_proxy: bool, expected: bytes) -> None:
    assert for_next_hop(b"http", b"h", path, to_proxy=to_proxy) == expected
