"""mitmproxy's --proxyauth, whose passwords are compared in constant time, and cannot be guessed at any speed."""

import base64
import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Any

import bcrypt
from mitmproxy import ctx
from mitmproxy.addons import proxyauth
from mitmproxy.http import HTTPFlow
from mitmproxy.proxy.layers.modes import Socks5AuthData
from mitmproxy.proxy.mode_specs import ReverseMode

from ..conduct import nearby
from ..conduct.crowd import site
from ..conduct.patience import Patience
from ..conduct.proxy_status import ErrorType
from ..config.options import Option, number
from ..observe import pages
from ..observe.pages import Page, Reader
from . import flows, limits

_OPTION = Option(
    "jwt_max_failed_passwords",
    "5",
    number,
    "guards",
    "How many wrong passwords a client address may send to --proxyauth before it has to wait, up to a minute, until "
    "another is looked at (429); 0 = no limit.",
    limit=True,
)
OPTIONS = (_OPTION,)
NAME = _OPTION.name

_PATIENCE = "jwtproxy_patience"
"""Among the attributes of mitmproxy's addon."""
_SHA = "{SHA}"

_REALM = 'Basic realm="jwtproxy"'
_WANTED = "the user and password are missing or wrong"
_ASK_AS_PROXY = pages.text(407, _WANTED, ErrorType.HTTP_REQUEST_DENIED, **{"Proxy-Authenticate": _REALM})
_ASK_AS_SERVER = pages.text(401, _WANTED, ErrorType.HTTP_REQUEST_DENIED, **{"WWW-Authenticate": _REALM})
_ELSEWHERE = pages.text(
    403,
    "this page is for who asks from the proxy's own machine, as localhost, or gives the password of --proxyauth",
    ErrorType.HTTP_REQUEST_DENIED,
)

_authenticate = proxyauth.ProxyAuth.authenticate_http
_socks5_auth = proxyauth.ProxyAuth.socks5_auth


def authenticate_http(self: proxyauth.ProxyAuth, flow: HTTPFlow) -> bool:
    """Whether a request, or CONNECT, brings a right password; else it is answered."""
    if flow.response or flows.to_self(flow):  # refused already, whoever it is; or asked later, if at all
        return False
    as_proxy = proxyauth.is_http_proxy(flow)
    given = flow.request.headers.get(proxyauth.http_auth_header(as_proxy), "")
    asks = _ASK_AS_PROXY if as_proxy else _ASK_AS_SERVER
    return _lets_in(self, flow, given, lambda: _authenticate(self, flow), asks)


def lets_in(addons: Any, flow: HTTPFlow, reader: Reader) -> bool:
    """Whether a request to the proxy itself may have what is for these; else it is answered, as a server does.

    From this machine it may: who starts a proxy there can read its settings.
    """
    if reader is Reader.ANYONE or (_is_nearby(flow) if reader is Reader.NEARBY else _is_local(flow)):
        return True
    addon = addons.get("proxyauth")
    if not addon or not addon.validator:
        if reader is Reader.NEARBY:
            flows.respond(flow, _ELSEWHERE)
        return reader is Reader.USER
    # A proxy's password is sent by browsers on behalf of any page, a server's of its own pages alone.
    if flow.metadata.get("proxyauth") and (reader is Reader.USER or not proxyauth.is_http_proxy(flow)):
        return True
    if flow.response:  # it was asked as any request is
        return False
    given = flow.request.headers.get("Authorization", "")
    return _lets_in(addon, flow, given, lambda: _is_right(addon, given), _ASK_AS_SERVER)


def _is_local(flow: HTTPFlow) -> bool:
    return nearby.is_loopback(_client(flow))


def _is_nearby(flow: HTTPFlow) -> bool:
    if isinstance(flow.client_conn.proxy_mode, ReverseMode) and not getattr(ctx.options, "keep_host_header", False):
        return False  # its Host is the server's by now, whatever name its client has asked for
    request = flow.request
    names = [name.lower() for name in request.headers]
    return nearby.is_nearby(_client(flow), request.headers.get("host") or request.authority, names)


def _client(flow: HTTPFlow) -> str:
    peer: Any = flow.client_conn.peername
    return str(peer[0]) if peer else ""


def _lets_in(addon: proxyauth.ProxyAuth, flow: HTTPFlow, given: str, look: Callable[[], bool], asks: Page) -> bool:
    """Whether the password is right that was given, which `look` tells; else the flow is answered."""
    peer: Any = flow.client_conn.peername
    turn = _Turn(addon, peer, given)
    if turn.wait:
        text = f"too many wrong passwords; wait {turn.wait} s"
        flows.respond(flow, pages.text(429, text, ErrorType.HTTP_REQUEST_DENIED, **{"Retry-After": str(turn.wait)}))
        return False
    is_right = look()
    if not is_right:
        flows.respond(flow, asks)
    if given:  # clients ask without one first, to learn that one is wanted
        turn.end(is_right=is_right)
    return is_right


def _is_right(addon: proxyauth.ProxyAuth, given: str) -> bool:
    """Look at a password as mitmproxy does, which would read another field."""
    try:
        _, user, password = proxyauth.parse_http_basic_auth(given)
        return bool(addon.validator and addon.validator(user, password))
    except Exception:  # as there: whatever is wrong with it, or with a server that is asked, it is not right
        return False


def socks5_auth(self: proxyauth.ProxyAuth, data: Socks5AuthData) -> None:
    """Look at the password of a SOCKS client."""
    turn = _Turn(self, data.client_conn.peername, f"{data.username}:{data.password}")
    if not turn.wait:
        _socks5_auth(self, data)
        if self.validator:
            turn.end(is_right=data.valid)


def matches_one(self: proxyauth.SingleUser, username: str, password: str) -> bool:
    """Whether these are the user and password, in a time that does not tell how much of them is right."""
    user = hmac.compare_digest(_bytes(self.username), _bytes(username))
    return hmac.compare_digest(_bytes(self.password), _bytes(password)) and user


def matches_file(self: proxyauth.Htpasswd, username: str, password: str) -> bool:
    """The same for a file: who is not in it takes as long as who is."""
    users: dict[str, str] = self.htpasswd.users
    known = username in users
    hashed = users[username] if known else next(iter(users.values()), "")
    return _matches(hashed.partition(":")[0], password) and known


def _matches(hashed: str, password: str) -> bool:
    if hashed.startswith(_SHA):
        digest = base64.b64encode(hashlib.sha1(password.encode()).digest())  # noqa: S324  # the file says so
        return hmac.compare_digest(digest, hashed.removeprefix(_SHA).encode())
    try:
        return bool(hashed) and bcrypt.checkpw(password.encode(), hashed.encode())
    except ValueError:  # for bcrypt it is too long (72 bytes)
        return False


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


class _Turn:
    """A password that a client has sent, and whether it is looked at."""

    def __init__(self, addon: Any, peer: Any, given: str) -> None:
        known = vars(addon)
        if _PATIENCE not in known:
            known[_PATIENCE] = Patience()
        self._patience: Patience = known[_PATIENCE]
        self._who, self._given = site(peer[0]) if peer else "", given
        most = int(limits.value_of(ctx.options, _OPTION))
        self.wait = self._patience.wait(self._who, given, time.monotonic(), most) if given else 0
        """Seconds."""
        if self.wait:
            limits.reached(NAME)

    def end(self, *, is_right: bool) -> None:
        """It has been looked at."""
        if is_right:
            self._patience.was_right(self._who, self._given)
        else:
            self._patience.was_wrong(self._who, time.monotonic())
