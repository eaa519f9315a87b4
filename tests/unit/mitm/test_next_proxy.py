"""What the next proxy is told with the CONNECT that mitmproxy sends it."""

from __future__ import annotations

import pytest
from mitmproxy.connection import Client
from mitmproxy.http import Headers, HTTPFlow
from mitmproxy.proxy.mode_specs import ProxyMode
from mitmproxy.test import tflow, tutils

from jwtproxy.conduct.fields import Fields
from jwtproxy.mitm.gate import Gate
from jwtproxy.mitm.next_proxy import NextProxy
from tests.support.inside import Verdicts

SAID: Fields = (
    (b"Host", b"a"),
    (b"Via", b"1.1 other"),
    (b"Proxy-Authorization", b"Basic eDp5"),
    (b"x-my-jwt", b"evil"),
)


class Named(Verdicts):
    """A judge that has a name."""

    pseudonym = "jwtproxy-01234567"

    def __init__(self, *, via: bool) -> None:
        super().__init__()
        self.via_on_answers = via


def _connect(mode: str, fields: Fields, client: Client | None = None, host: str = "a.example") -> HTTPFlow:
    flow = tflow.tflow(req=tutils.treq(method=b"CONNECT", headers=Headers(fields), host=host))
    flow.client_conn = client or flow.client_conn
    flow.client_conn.proxy_mode = ProxyMode.parse(mode)
    return flow


@pytest.mark.parametrize(
    ("mode", "via", "own", "expected"),
    [
        (
            "upstream:http://b.example",
            True,
            (),
            (*SAID[1:3], (b"Via", b"1.1 jwtproxy-01234567")),
        ),
        ("upstream:http://b.example", False, (), SAID[1:3]),
        (
            "upstream:http://b.example",
            False,
            ((b"Proxy-Authorization", b"Basic own"),),
            ((b"Proxy-Authorization", b"Basic own"), SAID[1]),
        ),
        ("regular", False, (), ()),
    ],
)
def test_it_hears_what_the_client_says_to_proxies_and_our_name(
    mode: str, via: bool, own: Fields, expected: Fields
) -> None:
    judge = Named(via=via)
    addon = NextProxy(Gate(lambda: judge))
    asked = _connect(mode, SAID)
    addon.http_connect(asked)
    addon.http_connect(_connect(mode, SAID[:1], asked.client_conn, "another.example"))
    told = _connect(mode, own)
    told.client_conn = asked.client_conn
    addon.http_connect_upstream(told)
    assert told.request.headers.fields == expected


def test_of_a_client_that_said_nothing_it_hears_our_name_alone() -> None:
    judge = Named(via=True)
    told = _connect("upstream:http://b.example", ())
    NextProxy(Gate(lambda: judge)).http_connect_upstream(told)
    assert told.request.headers.fields == ((b"Via", b"1.1 jwtproxy-01234567"),)
