"""Who may use the proxy: what is not HTTP cannot be answered, and what is open to all is told of at the start."""

import logging
from collections.abc import Iterable, Iterator
from typing import Any

from mitmproxy import ctx
from mitmproxy.connection import Client
from mitmproxy.options import Options
from mitmproxy.proxy.mode_specs import ProxyMode, RegularMode, ReverseMode, UpstreamMode

from ..conduct.access import CLIENTS, STRANGER, Access
from ..conduct.addresses import parse_ip
from . import limits, stock
from .gate import Gate
from .pages_mode import others, without_pages

logger = logging.getLogger(__name__)

_HTTP = ("http", "https")


class Clients:
    """Addon hooks that keep out those who may not use the proxy where no answer could tell them so."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def client_connected(self, client: Client) -> None:
        """Hang up, unless it may ask for something, and be answered."""
        if not speaks_http(client.proxy_mode) and self._gate.access.denies_client(client.peername[0]):
            limits.reached(CLIENTS)
            client.error = STRANGER

    def running(self) -> None:
        """Say who may use the proxy, if that is anybody."""
        proxyserver = ctx.master.addons.get("proxyserver")
        servers = others(proxyserver) if proxyserver else ()
        addresses = [address for server in servers for address in server.listen_addrs]
        for warning in exposures(addresses, ctx.options, self._gate.access):
            logger.warning("jwtproxy: warning: %s", warning)


def speaks_http(mode: ProxyMode) -> bool:
    """Whether all that comes to such a listener is HTTP, so that it may be answered."""
    if isinstance(mode, ReverseMode):
        return mode.scheme in _HTTP
    return isinstance(mode, RegularMode | UpstreamMode)


def exposures(listening: Iterable[tuple[Any, ...]], options: Options, access: Access) -> Iterator[str]:
    """What others may do who reach these addresses: warnings."""
    if all((ip := parse_ip(str(address[0]))) and ip.is_loopback for address in listening):
        return
    if not access.clients and not stock.option(options, "proxyauth"):
        yield (
            "whoever reaches this port may use the proxy: jwt_allow_client (--allow-client) says which addresses may, "
            "--proxyauth asks for a password"
        )
    if not access.deny_private and not all(mode.startswith("reverse:") for mode in without_pages(options.mode)):
        yield "private and loopback addresses may be reached through the proxy: jwt_deny_private=on is recommended here"
