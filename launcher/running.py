"""A proxy that runs already: which it is, and what its own pages say."""

import http.client
import ipaddress
from base64 import b64encode
from typing import NamedTuple
from urllib.parse import unquote

from mitmproxy.options import Options
from mitmproxy.proxy.mode_specs import ProxyMode

from jwtproxy.conduct.destination import Destination
from jwtproxy.config import place
from jwtproxy.config.errors import SettingsError
from jwtproxy.observe.pages import PEM_PATH

from . import asked
from .clients.certificate import Certificate

HINT = "jwtproxy-run serve starts one; --proxy http://HOST:PORT asks another"
"""What to do where none answers."""
_TIMEOUT = 5.0  # seconds of silence
_LONGEST = 1 << 20  # bytes of an answer


class NoAnswerError(Exception):
    """Nobody has answered, or somebody else."""


class Proxy(NamedTuple):
    """Whom to ask."""

    host: str
    port: int
    user: str = ""
    """With password, as URLs have them, where it wants any."""

    @property
    def url(self) -> str:
        """How it is told to people."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


class Reach(NamedTuple):
    """How programs get to a proxy."""

    url: str
    """With user and password, if it wants any."""
    ca: str
    """The certificate of its authority, in PEM."""


def named(url: str) -> Proxy:
    """The proxy with this URL, or host and port; user and password may stand in it. Raises SettingsError."""
    scheme, _, rest = url.rpartition("://")
    user, _, place = rest.rpartition("@")
    url = f"{scheme or 'http'}://{place}"
    destination: Destination
    destination, _ = asked.parse_url(url)
    if destination.scheme != "http":
        raise SettingsError(f"bad URL {url!r} for --proxy", "use http://: the proxy's own pages have no TLS")
    return Proxy(destination.host, destination.port, user)


def listening(options: Options) -> Proxy:
    """The proxy on this machine that would listen with these settings. Raises SettingsError."""
    mode = ProxyMode.parse(options.mode[0])
    return _here(mode.listen_host(options.listen_host), mode.listen_port(options.listen_port))


def pages(options: Options) -> Proxy:
    """Where that has its own pages. Raises SettingsError."""
    said = options.deferred.get("jwt_pages", "")  # nobody has declared it
    apart = place.parse(str(said.val[-1] if hasattr(said, "val") else said))
    return _here(*apart) if apart else listening(options)


def _here(host: str, port: int | None) -> Proxy:
    host = host or "127.0.0.1"
    if not port:
        raise SettingsError("the port of the proxy is not known", "use --proxy http://HOST:PORT")
    proxy = dialable(host, port)
    if not is_here(proxy.host):
        raise SettingsError(f"{host!r} may be another machine, and is not asked", f"use --proxy {proxy.url}")
    return proxy


def dialable(host: str, port: int) -> Proxy:
    """The proxy on this machine that listens there."""
    return Proxy({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port)  # noqa: S104  # compared only


def get(proxy: Proxy, path: str, accept: str) -> bytes:
    """One of its own pages, asked for directly, whatever proxies the environment names. Raises NoAnswerError."""
    connection = http.client.HTTPConnection(proxy.host, proxy.port, timeout=_TIMEOUT)
    headers = {"Accept": accept}
    if proxy.user:
        headers["Authorization"] = f"Basic {b64encode(unquote(proxy.user).encode()).decode()}"
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        body = answer.read(_LONGEST)
    except (http.client.HTTPException, ValueError):
        raise no_page(proxy, path) from None
    except OSError as error:
        reason = (error.strerror or str(error) or "error").lower()
        raise NoAnswerError(f"nobody answers at {proxy.url}: {reason}") from None
    finally:
        connection.close()
    if answer.status == http.client.UNAUTHORIZED:
        raise NoAnswerError(
            f"who answers at {proxy.url} wants the right user and password: --proxy http://USER:PASSWORD@HOST:PORT"
        )
    if answer.status != http.client.OK:
        raise no_page(proxy, path)
    return body


def no_page(proxy: Proxy, path: str) -> NoAnswerError:
    """The mistake of taking something else for a proxy that has this page."""
    return NoAnswerError(f"who answers at {proxy.url} is no jwtproxy, or shows no {path} (jwt_pages)")


def reach(proxy: Proxy, pages: Proxy | None = None) -> Reach:
    """How programs get there. pages: where its own are, if apart. Raises SettingsError."""
    there = pages or proxy
    try:
        ca = Certificate.parse(get(there, PEM_PATH, "*/*"), f"{there.url}{PEM_PATH}")
    except NoAnswerError as error:
        raise SettingsError(str(error), HINT) from None
    return Reach(proxy.url.replace("//", f"//{proxy.user}@") if proxy.user else proxy.url, ca.pem)


def reach_named(url: str) -> Reach:
    """The same for the proxy with this URL, in which user and password may stand. Raises SettingsError."""
    return reach(named(url))


def is_here(host: str) -> bool:
    """Whether what is sent there stays on this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
