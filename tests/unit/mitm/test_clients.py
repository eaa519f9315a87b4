"""Who may not use the proxy is kept out, also where nobody tells it so; what is open to all is told of."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy.connection import Client
from mitmproxy.options import Options
from mitmproxy.proxy.mode_specs import ProxyMode
from mitmproxy.test import taddons

from jwtproxy.conduct.access import STRANGER, Access
from jwtproxy.mitm import limits, pages_mode  # noqa: F401  # a mode is known once it is there
from jwtproxy.mitm.clients import Clients, exposures, speaks_http

ALLOWED = (ipaddress.ip_network("10.0.0.0/8"),)
FAR, NEAR = [("0.0.0.0", 80), ("::", 80, 0, 0)], [("127.0.0.1", 80), ("::1", 80, 0, 0)]
RESTRICT = "--proxyauth asks for a password"
DENY = "jwt_deny_private=on is recommended here"


def gate(**access: Any) -> Any:
    return SimpleNamespace(access=Access(**access))


@pytest.mark.parametrize(
    ("mode", "http"),
    [
        *[("regular", True), ("upstream:http://a.example:1", True), ("reverse:http://a.example", True)],
        *[("reverse:https://a.example", True), ("reverse:tcp://a.example:1", False), ("socks5", False)],
        *[("transparent", False), ("dns", False), ("pages@9090", True)],
    ],
)
def test_what_is_not_http_is_closed_at_once(mode: str, http: bool) -> None:
    told: list[str] = []
    spec = ProxyMode.parse(mode)
    assert speaks_http(spec) is http
    with taddons.context() as context:
        limits.count_with(context.options, told.append)
        for address, denied in (("10.1.1.1", False), ("192.0.2.1", True)):
            client = Client(peername=(address, 1), sockname=("127.0.0.1", 2), proxy_mode=spec)
            Clients(gate(clients=ALLOWED)).client_connected(client)
            assert client.error == (STRANGER if denied and not http else None)
    assert told == ([] if http else ["jwt_allow_client"])


@pytest.mark.parametrize(
    ("listening", "options", "access", "said"),
    [
        (FAR, {}, {}, [RESTRICT, DENY]),
        ([*NEAR, ("192.0.2.1", 80)], {}, {}, [RESTRICT, DENY]),
        (NEAR, {}, {}, []),
        ([], {}, {}, []),
        (FAR, {}, {"clients": ALLOWED}, [DENY]),
        (FAR, {"proxyauth": "a:b"}, {}, [DENY]),
        (FAR, {}, {"deny_private": True}, [RESTRICT]),
        (FAR, {"proxyauth": "a:b"}, {"deny_private": True}, []),
        (FAR, {"mode": ["reverse:http://a.example"]}, {}, [RESTRICT]),
    ],
)
def test_what_is_open_to_all_is_told(
    listening: Any, options: dict[str, Any], access: dict[str, Any], said: list[str]
) -> None:
    async def run() -> list[str]:
        with taddons.context() as context:
            known = context.options
            known.add_option("proxyauth", str, "", "")
            known.update(**options)
            return list(exposures(listening, known, Access(**access)))

    found = asyncio.run(run())
    assert len(found) == len(said)
    assert all(part in warning for part, warning in zip(said, found, strict=True))


def test_the_first_names_both_ways_out() -> None:
    warning, _ = exposures(FAR, Options(), Access())
    assert "jwt_allow_client (--allow-client)" in warning
    assert "--proxyauth" in warning


def test_it_is_told_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    with taddons.context() as context, caplog.at_level(logging.WARNING):
        near = SimpleNamespace(mode=ProxyMode.parse("regular"), listen_addrs=NEAR)
        pages = SimpleNamespace(mode=ProxyMode.parse("pages@9090"), listen_addrs=FAR)
        proxyserver = SimpleNamespace(name="proxyserver", servers=[near, pages])
        context.master.addons.add(proxyserver)
        Clients(gate(deny_private=True)).running()
        assert not caplog.records, "who reaches the pages alone may not use the proxy"
        proxyserver.servers = [SimpleNamespace(mode=near.mode, listen_addrs=FAR)]
        Clients(gate(deny_private=True)).running()
        (record,) = caplog.records
        assert record.getMessage().startswith("jwtproxy: warning: whoever reaches this port may use the proxy: ")
