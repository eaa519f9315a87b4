"""What is known of a request, in the one spelling that rules, filters and tokens look at."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jwtproxy.conduct.destination import Destination
from jwtproxy.conduct.host import Fault
from jwtproxy.conduct.request import RequestHead

HEAD = RequestHead(b"GET", "http", "a.example", 80, b"/x", ())


def test_a_request_is_what_it_is_made_of_and_nothing_more() -> None:
    assert (HEAD.client, HEAD.tunnel, HEAD.http_version, HEAD.fault) == (None, "", b"HTTP/1.1", None)
    whole = RequestHead(b"GET", "https", "a", 1, b"/", (), ("127.0.0.1", 5), "https://a:1", b"HTTP/2.0", Fault.TUNNEL)
    assert (whole.client, whole.tunnel, whole.http_version) == (("127.0.0.1", 5), "https://a:1", b"HTTP/2.0")
    assert whole.fault is Fault.TUNNEL


@pytest.mark.parametrize(
    ("scheme", "host", "port", "destination"),
    [
        ("http", "A.Example.", 80, Destination("http", "a.example", 80)),
        ("HTTPS", "127.1", 8443, Destination("https", "127.0.0.1", 8443)),
        ("http", "0:0::1", 80, Destination("http", "::1", 80)),
    ],
)
def test_where_it_goes_is_spelled_in_one_way(scheme: str, host: str, port: int, destination: Destination) -> None:
    assert replace(HEAD, scheme=scheme, host=host, port=port).destination == destination


@pytest.mark.parametrize(
    ("head", "url"),
    [
        (HEAD, "http://a.example/x"),
        (replace(HEAD, scheme="https"), "https://a.example:80/x"),
        (replace(HEAD, scheme="https", port=443), "https://a.example/x"),
        (replace(HEAD, host="::1", port=8080), "http://[::1]:8080/x"),
        (replace(HEAD, host="BÜCHER.example."), "http://xn--bcher-kva.example/x"),
        (replace(HEAD, method=b"OPTIONS", path=b"*"), "http://a.example"),
        (replace(HEAD, path=b"/"), "http://a.example/"),
        (replace(HEAD, path=b"/%61dmin?q=%7E"), "http://a.example/admin?q=~"),
        (replace(HEAD, path=b"/a/%2e%2e/b/./c"), "http://a.example/b/c"),
        (replace(HEAD, path=b"/a%2fb"), "http://a.example/a%2Fb"),
        (replace(HEAD, path="/é".encode()), "http://a.example/%C3%A9"),
        (replace(HEAD, path=b"/\xe9"), "http://a.example/%E9"),
        (replace(HEAD, path=b"/%e9%"), "http://a.example/%E9%25"),
        (replace(HEAD, path=b'/a b"<>\\^`{|}\x01'), "http://a.example/a%20b%22%3C%3E%5C%5E%60%7B%7C%7D%01"),
        (replace(HEAD, path=b"/-._~:/?#[]@!$&'()*+,;=%20"), "http://a.example/-._~:/?#[]@!$&'()*+,;=%20"),
    ],
)
def test_a_url_has_one_spelling_in_ascii(head: RequestHead, url: str) -> None:
    assert head.url == url


def test_its_lines_are_its_fields_with_the_host_that_it_goes_to() -> None:
    fields = ((b"Accept", b"*/*"), (b"hOsT", b"other.example"), (b"X", b"\xe9"), (b"Host", b"more"), (b"hos", b"t"))
    head = replace(HEAD, host="A.example", port=8080, fields=fields)
    assert head.lines == b"Host: a.example:8080\nAccept: */*\nX: \xe9\nhos: t\n"
    assert HEAD.lines == b"Host: a.example\n"


@pytest.mark.parametrize(("host", "port"), [("a b", 80), ("", 80), ("a", 0), ("a", 65536)])
def test_what_cannot_be_dialled_has_neither(host: str, port: int) -> None:
    head = replace(HEAD, host=host, port=port)
    for name in ("destination", "url", "lines"):
        with pytest.raises(ValueError, match=r"\w"):
            getattr(head, name)
