"""One spelling for each destination and each path, and no two destinations with the same."""

from __future__ import annotations

import socket
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from jwtproxy.conduct.destination import Destination, agrees, normal_path, normalise, other_paths, parse_authority

ANY_TEXT = st.text(st.characters(exclude_categories=()))  # surrogates too
HOSTS = st.one_of(
    ANY_TEXT, st.from_regex(r"[0-9a-fx.:%\[\]\u3002１]{0,20}", fullmatch=True), st.ip_addresses().map(str)
)
ESCAPES = [form % byte for byte in range(256) for form in ("%%%02x", "%%%02X")]
PIECES = st.sampled_from([*"/%.?#a;~", "..", "%2e", "%2E", "%2f", "%2F"]) | st.sampled_from(ESCAPES)
PATHS = st.one_of(ANY_TEXT, st.lists(PIECES, max_size=12).map("".join), st.lists(PIECES, max_size=12).map("/".join))
NUMBERS = st.one_of(
    *(st.integers(0, most).map(form.format) for most in (300, 1 << 33) for form in ("{:d}", "0{:o}", "0{:d}", "0x{:x}"))
)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("example.com", "example.com"),
        ("EXAMPLE.Com", "example.com"),
        ("example.com.", "example.com"),
        ("my_service", "my_service"),
        ("-a-.example", "-a-.example"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example.", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
        ("straße.example", "strasse.example"),  # IDNA 2003, as is dialled
        ("exa\xadmple.com", "example.com"),
        ("ｅxample。com", "example.com"),
        ("example．com｡", "example.com"),
        ("a․b", "a.b"),
        ("127.0.0.1", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("0x7f.0.0.1", "127.0.0.1"),
        ("0X7F000001", "127.0.0.1"),
        ("0177.0.0.01", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("１２７。0.0.1", "127.0.0.1"),
        ("①②⑦.1", "127.0.0.1"),
        ("0", "0.0.0.0"),
        ("256.1.1.1", "256.1.1.1"),  # a name to getaddrinfo
        ("08.1.1.1", "08.1.1.1"),
        ("1.2.3.4.5", "1.2.3.4.5"),
        ("::1", "::1"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("2001:DB8:0::A", "2001:db8::a"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("::FFFF:7f00:1", "127.0.0.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("fe80::1%25eth0", "fe80::1"),
    ],
)
def test_a_host_has_one_spelling(host: str, expected: str) -> None:
    assert normalise("http", host, 80) == Destination("http", expected, 80)


@pytest.mark.parametrize(
    "host",
    [
        "",
        ".",
        "..",
        ".example",
        "a..b",
        "example.com..",
        "…",
        "a b",
        " a",
        "a\n",
        "a\0",
        "a\0.example",
        "a/b",
        "a:b",
        "a@b",
        "a%41",
        "a*",
        "[::1]",
        "::1%",
        "::1%\0",
        "::1%a b",
        ":::1",
        "：：1",
        "127.0.0.1%lo",
        "127.0.0.1 x",
        "ex\udcffample",
        "x" * 64,
        "ü" * 60,
        "a." * 127 + "a",
        "::1%" + "x" * 400,
    ],
)
def test_what_cannot_be_dialled_is_no_destination(host: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        normalise("http", host, 80)


@pytest.mark.parametrize("port", [-1, 0, 65536])
def test_a_port_has_its_bounds(port: int) -> None:
    with pytest.raises(ValueError, match=str(port)):
        normalise("http", "a", port)


@pytest.mark.parametrize(
    ("scheme", "host", "port", "origin"),
    [
        ("http", "a.example", 80, "http://a.example"),
        ("HTTP", "A.example", 443, "http://a.example:443"),
        ("https", "a.example", 443, "https://a.example"),
        ("https", "a.example", 80, "https://a.example:80"),
        ("http", "::1", 80, "http://[::1]"),
        ("https", "::1", 8443, "https://[::1]:8443"),
        ("http", "::ffff:1.2.3.4", 81, "http://1.2.3.4:81"),
        ("other", "a", 80, "other://a:80"),
    ],
)
def test_an_origin_names_the_port_only_where_it_must(scheme: str, host: str, port: int, origin: str) -> None:
    destination = normalise(scheme, host, port)
    assert destination.origin == origin
    assert destination.origin.endswith(f"//{destination.authority}")


@given(HOSTS)
@example("a．b．")
def test_spelling_it_again_changes_nothing(host: str) -> None:
    try:
        once = normalise("http", host, 80)
    except ValueError:
        return
    assert normalise(once.scheme, once.host, once.port) == once
    assert once.host.isascii()
    assert once.host == once.host.lower()
    assert agrees([once.authority.encode()], once)


@given(st.lists(NUMBERS, min_size=1, max_size=4).map(".".join))
def test_an_ipv4_address_is_the_one_that_is_dialled(host: str) -> None:
    try:
        dialled = socket.getaddrinfo(host, 80, socket.AF_INET, socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except OSError:
        return
    assert normalise("http", host, 80).host == dialled[0][4][0]


# --- Host and authority values


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"a.example", ("a.example", None)),
        (b"A.Example.:080", ("A.Example.", 80)),
        (b"a:", ("a", None)),
        (b"127.1:8080", ("127.1", 8080)),
        (b"[::1]", ("::1", None)),
        (b"[::FFFF:1.2.3.4]:1", ("::FFFF:1.2.3.4", 1)),
        (b"my_service:1", ("my_service", 1)),
    ],
)
def test_a_host_value_is_host_and_port(value: bytes, expected: tuple[str, int | None]) -> None:
    assert parse_authority(value) == expected


NO_HOST_VALUES = [
    b"",
    b":80",
    b"user@a.example",
    b"user:password@a.example:80",
    b"a.example:80:80",
    b"a.example:http",
    b"a.example:+80",
    b"a.example:-80",
    b"a.example: 80",
    b"a.example, a.example",
    b"a.example a.example",
    b" a.example",
    b"a.example\r\n b.example",
    b"a.example\n",
    b"a.example\0",
    b"a.example/",
    b"a.example?",
    b"a.example#",
    b"a\\.example",
    b"http://a.example",
    b"//a.example",
    b"%61.example",
    b"::1",
    b"[::1",
    b"::1]",
    b"[]",
    b"[a.example]",
    b"[127.0.0.1]",
    b"[::1%25lo]",
    b"[::1%lo]",
    b"[v1.a]",
    b"[[::1]]",
    "bücher.example".encode(),
    b"a.example:\xd9\xa8\xd9\xa0",  # Arabic digits
    b"a" * 1_000_000,
    b"[" + b":" * 1_000_000,  # slow to match
    b"a:" + b"0" * 1_000 + b"80",
]


@pytest.mark.parametrize("value", NO_HOST_VALUES, ids=lambda value: repr(value[:30]))
def test_what_is_no_host_names_nothing(value: bytes) -> None:
    with pytest.raises(ValueError, match="host"):
        parse_authority(value)
    assert not agrees([value], Destination("http", "a.example", 80))


AGREE = {
    "http://a.example": (
        [b"a.example", b"A.EXAMPLE", b"a.example.", b"a.example:80", b"a.example:", b"a.example.:0080"],
        [
            b"b.example",
            b"a.example:443",
            b"a.example:0",
            b"a.example:65616",
            b"a.examplee",
            b"a-example",
            b"a..example",
        ],
    ),
    "https://a.example": ([b"a.example", b"a.example:443"], [b"a.example:80"]),
    "https://a.example:8443": ([b"a.example:8443"], [b"a.example", b"a.example:443", b"a.example:"]),
    "http://a.example:443": ([b"a.example:443"], [b"a.example", b"a.example:80"]),
    "http://xn--bcher-kva.example": (
        [b"xn--bcher-kva.example", b"XN--BCHER-KVA.EXAMPLE"],
        [b"bucher.example", "bücher.example".encode(), b"b%C3%BCcher.example", b"b\xfccher.example"],
    ),
    "http://127.0.0.1": (
        [b"127.0.0.1", b"127.1", b"0x7f.1", b"2130706433", b"127.0.0.1.", b"[::ffff:127.0.0.1]", b"[::ffff:7f00:1]"],
        [b"localhost", b"127.0.0.2", b"[::1]", b"[127.0.0.1]"],
    ),
    "http://[::1]:8080": (
        [b"[::1]:8080", b"[0:0::1]:08080", b"[::0.0.0.1]:8080"],
        [b"::1:8080", b"[::1]", b"[::2]:8080"],
    ),
}


@pytest.mark.parametrize("origin", AGREE)
def test_values_agree_that_name_the_destination(origin: str) -> None:
    scheme, _, authority = origin.partition("://")
    host, port = parse_authority(authority.encode())
    destination = normalise(scheme, host, port or {"http": 80, "https": 443}[scheme])
    assert destination.origin == origin
    right, wrong = AGREE[origin]
    for value in right:
        assert agrees([value], destination), value
    for value in wrong:
        assert not agrees([value], destination), value
    assert agrees(right, destination)
    assert not agrees([*right, wrong[0]], destination)
    assert not agrees([wrong[0], *right], destination)


def test_nothing_said_is_nothing_contradicted() -> None:
    assert agrees([], normalise("http", "a", 80))


@given(st.binary())
def test_any_value_is_read_or_refused(value: bytes) -> None:
    try:
        host, port = parse_authority(value)
    except ValueError:
        assert not agrees([value], normalise("http", "a", 80))
    else:
        assert value.startswith((host.encode(), b"[" + host.encode() + b"]"))
        assert port is None or value.endswith(b"%d" % port)


# --- paths


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "/"),
        ("", ""),
        ("*", "*"),
        ("/a/b?c=d", "/a/b?c=d"),
        ("/%61dmin", "/admin"),
        ("/%7Eme", "/~me"),
        ("/%2d%2E%5f%7e", "/-._~"),
        ("/a%2fb", "/a%2Fb"),
        ("/a%2Fb", "/a%2Fb"),
        ("/%e2%82%ac", "/%E2%82%AC"),
        ("/€", "/€"),
        ("/%2561", "/%2561"),
        ("/%25%36%31", "/%2561"),
        ("/%", "/%25"),
        ("/%zz", "/%25zz"),
        ("/%6", "/%256"),
        ("/%%341", "/%2541"),
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a/%2e%2E/b", "/b"),
        ("/a/.%2e/b", "/b"),
        ("/a/..%2fb", "/a/..%2Fb"),
        ("/../../b", "/b"),
        ("/a/..", "/"),
        ("/a/b/..", "/a/"),
        ("/a/.", "/a/"),
        ("/.", "/"),
        ("/..", "/"),
        ("/a/b/c/./../../g", "/a/g"),
        ("/mid/content=5/../6", "/mid/6"),
        ("//a//b", "//a//b"),
        ("//a/..", "//"),
        ("/a//../b", "/a/b"),
        ("/...", "/..."),
        ("/.a/..b/c.", "/.a/..b/c."),
        ("/a;x=1/..;/b", "/a;x=1/..;/b"),
        ("/a?b=/../%7e%2f", "/a?b=/../~%2F"),
        ("/a/..?/../b", "/?/../b"),
        ("/a%3f/../b", "/b"),
        ("/a#/../b", "/a#/../b"),
        ("relative/../path", "relative/../path"),
        ("?/..", "?/.."),
    ],
)
def test_a_path_has_one_spelling(path: str, expected: str) -> None:
    assert normal_path(path) == expected


@given(PATHS)
@example("/%%%33351")
@example("/%2%65%2e/")
def test_spelling_a_path_again_changes_nothing(path: str) -> None:
    once = normal_path(path)
    assert normal_path(once) == once
    if once.startswith("/"):
        assert not {".", ".."} & set(once.partition("?")[0].partition("#")[0].split("/"))


@given(st.lists(st.sampled_from("//a%~0123456789ABCDEF") | st.sampled_from(ESCAPES), max_size=16).map("".join))
def test_what_a_path_means_stays(path: str) -> None:
    assume(not {b".", b".."} & set(unquote_to_bytes(path).split(b"/")))  # which are resolved
    assert unquote_to_bytes(normal_path(path)) == unquote_to_bytes(path)


# --- other readings of a path


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/admin", set()),
        ("/x/../admin", set()),
        ("/a?b=//c&d=%2f", set()),
        ("*", set()),
        ("//admin", {"/admin"}),
        ("/%2Fadmin?x=//", {"/admin?x=//"}),
        ("/x/..%2fadmin", {"/admin"}),
        ("/x\\..\\admin", {"/admin"}),
        ("//x/../admin", {"/admin"}),
        ("/x//../admin", {"/admin", "/x/admin"}),
    ],
)
def test_a_path_with_what_may_be_slashes_can_be_read_in_other_ways(path: str, expected: set[str]) -> None:
    assert expected <= other_paths(path)
    assert bool(other_paths(path)) is bool(expected)


@given(st.text("/\\%2fF5cCa.", max_size=12))
def test_each_reading_begins_with_a_slash_and_has_no_two_in_a_row(path: str) -> None:
    for other in other_paths("/" + path):
        assert other.startswith("/")
