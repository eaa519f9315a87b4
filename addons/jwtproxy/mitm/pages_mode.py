"""A mode of mitmproxy's that serves nothing but our own pages: whatever is asked there is asked of the proxy itself.

It is one of mitmproxy's listeners like any other, so that all limits hold there, too.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from mitmproxy import exceptions
from mitmproxy.connection import Client
from mitmproxy.options import Options
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import Layer
from mitmproxy.proxy.layers import modes
from mitmproxy.proxy.mode_servers import AsyncioServerInstance
from mitmproxy.proxy.mode_specs import ProxyMode, RegularMode, UpstreamMode

from ..config.errors import SettingsError
from ..config.place import Place
from ..observe import downloads

logger = logging.getLogger(__name__)


class PagesMode(RegularMode):
    """As a flow tells, it is a regular one: others who read recorded flows know no such mode."""

    description = "the proxy's own pages"

    def get_state(self) -> str:
        """How it is written where flows are recorded."""
        return self.full_spec.replace(self.type_name, RegularMode.type_name, 1)


class PagesInstance(AsyncioServerInstance[PagesMode]):
    """A listener in this mode."""

    def make_top_layer(self, context: Context) -> Layer:
        """The same as of the regular mode."""
        return modes.HttpProxy(context)


_PREFIX = f"{PagesMode.type_name}@"


def is_for_pages(client: Client) -> bool:
    """Whether this client has come to such a listener."""
    return type(client.proxy_mode) is PagesMode


def listen(options: Options, where: Place | str) -> None:
    """Have mitmproxy listen at this place, too, or at none if it is none. Raises SettingsError."""
    ours = [f"{_PREFIX}{where.host}:{where.port}"] if isinstance(where, Place) else []
    specs = [*without_pages(options.mode), *ours]
    try:
        if specs != options.mode:
            options.update(mode=specs)
    except exceptions.OptionsError:  # in words about modes
        said = f"bad value {ours[0].removeprefix(_PREFIX)!r} for jwt_pages: the proxy itself listens there"
        raise SettingsError(said, "name another port") from None


async def start(proxyserver: Any, options: Options, where: Place | str) -> None:
    """The same where the other listeners are there already. An error is logged, which ends a start."""
    try:
        listen(options, where)
    except SettingsError as error:
        logger.error("jwtproxy: error: %s\njwtproxy: hint: %s", error, error.hint)
    await proxyserver.servers.update([ProxyMode.parse(spec) for spec in options.mode])


def without_pages(specs: Iterable[str]) -> list[str]:
    """The other modes."""
    return [spec for spec in specs if not spec.startswith(_PREFIX)]


def others(proxyserver: Any) -> list[Any]:
    """The listeners in other modes."""
    return [server for server in proxyserver.servers if type(server.mode) is not PagesMode]


def proxy_url(proxyserver: Any, client: Client, headers: Mapping[str, str]) -> str:
    """The URL by which this client, which has sent these header fields, may name the proxy.

    Empty where it cannot: the proxy stands in front of a server, or is none for HTTP.
    """
    if is_for_pages(client):
        address = _other_address(proxyserver, client)
        return f"http://{downloads.authority(*address)}" if address else ""
    if not isinstance(client.proxy_mode, RegularMode | UpstreamMode):
        return ""
    scheme = "https" if client.tls else "http"
    return f"{scheme}://{downloads.address(headers, client.sockname[:2], secure=client.tls)}"


def _other_address(proxyserver: Any, client: Client) -> tuple[str, int] | None:
    for server in others(proxyserver):
        if isinstance(server.mode, RegularMode | UpstreamMode) and server.listen_addrs:
            host, port, *_ = server.listen_addrs[0]
            return (client.sockname[0] if host in ("0.0.0.0", "::") else host), port  # noqa: S104  # compared only
    return None
