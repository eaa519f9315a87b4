"""A request as a command line describes it."""

from __future__ import annotations

import pytest

from jwtproxy.config.errors import SettingsError
from jwtproxy.launcher.asked import check_method, parse_url

URLS = [
    ("http://x", "http://x", "/"),
    ("HTTP://X.Example./", "http://x.example", "/"),
    ("https://x:443/a/b?c=d", "https://x", "/a/b?c=d"),
    ("https://x:80?c", "https://x:80", "/?c"),
    ("http://x:/#fragment", "http://x", "/"),
    ("ws://x/", "http://x", "/"),
    ("wss://x:1/", "https://x:1", "/"),
    ("http://[0::1]:8080/", "http://[::1]:8080", "/"),
    ("http://127.1/", "http://127.0.0.1", "/"),
    ("http://BÜCHER.example/", "http://xn--bcher-kva.example", "/"),
    ("http://x/é?é=%C3%A9", "http://x", "/%C3%A9?%C3%A9=%C3%A9"),
    ("http://x/a b|c", "http://x", "/a%20b%7Cc"),
    ("http://x/%61/../b%zz", "http://x", "/%61/../b%zz"),
    ("http://x/~a!$&'()*+,;=:@-._/?/?", "http://x", "/~a!$&'()*+,;=:@-._/?/?"),
]


@pytest.mark.parametrize(("url", "origin", "path"), URLS)
def test_a_url_is_what_a_client_makes_of_it(url: str, origin: str, path: str) -> None:
    destination, found = parse_url(url)
    assert (destination.origin, found) == (origin, path)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "/x",
        "//x/",
        "http:x",
        "http://",
        "http:///x",
        "http://:80/",
        "ftp://x/",
        "http://x:y/",
        "http://x:65536/",
        "http://x:0/",
        "http://a@x/",
        "http://a:b@x/",
        "http://[::1/",
        "http://::1/",
        "http://[x]/",
        "http://[1:2]/",
        "http://x y/",
        "http://x%41/",
        "http://x..y/",
        f"http://{'x' * 70}/",
    ],
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_url(url)
    assert str(caught.value).startswith(f"bad URL {url!r}")
    assert caught.value.hint


@pytest.mark.parametrize("method", ["GET", "post", "M-SEARCH", "TRACE"])
def test_what_a_request_may_have_is_a_method(method: str) -> None:
    check_method(method)


@pytest.mark.parametrize("method", ["", "G T", "https://x/", "CONNECT"])
def test_what_it_may_not_have_is_refused(method: str) -> None:
    with pytest.raises(SettingsError) as caught:
        check_method(method)
    assert caught.value.hint


def test_a_key_in_the_place_of_a_url_is_not_repeated() -> None:
    with pytest.raises(SettingsError) as caught:
        parse_url("ab" * 64)
    assert str(caught.value) == "bad URL '…'"
