"""The fast lane is on while nobody needs what it does not do, and takes what it knows the place of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy.connection import Server
from mitmproxy.options import Options
from mitmproxy.proxy.mode_specs import ProxyMode
from mitmproxy.proxy.server_hooks import ServerConnectionHookData
from mitmproxy.test import tflow

from jwtproxy.addons.jwt_inject import JwtInject
from jwtproxy.conduct.destination import Destination
from jwtproxy.lane import boring, switch
from jwtproxy.lane.switch import Lane, Route
from jwtproxy.launcher.master import Master
from jwtproxy.mitm import gate, stock, time_limits
from jwtproxy.tokens.key_source import SECRET, KeySource
from tests.support.inside import Ours

pytestmark = pytest.mark.usefixtures("pristine")

HOOKS = "requestheaders request responseheaders response error client_connected client_disconnected".split()


def _with(look: Callable[[Lane], Any], mode: str = "regular", **options: Any) -> Any:
    """What can be said of a lane of the launcher's master with these options."""

    async def run() -> Any:
        master = Master(Options())
        master.add_ours(JwtInject(KeySource(SECRET, bytes(64))), announces=False)
        try:
            master.options.update(**options)
            return look(Lane(master, ProxyMode.parse(mode), lambda: None))
        finally:
            await master.done()

    return asyncio.run(run())


# --- options

UNCOMMON: dict[str, Any] = {
    "anticache": True,
    "anticomp": True,
    "body_size_limit": "1m",
    "allow_hosts": ["a"],
    "block_list": [":~all:404"],
    "client_certs": "/nowhere",
    "client_replay": ["flows"],
    "connect_addr": "127.0.0.1",
    "dumper_filter": "~b x",
    "flow_detail": 3,
    "hardump": "flows.har",
    "ignore_hosts": ["a"],
    "intercept": "~all",
    "jwt_fast_lane": "off",
    "map_local": ["|a|/nowhere"],
    "map_remote": ["|a|b"],
    "modify_body": ["/a/b"],
    "proxy_debug": True,
    "proxyauth": "a:b",
    "request_client_cert": True,
    "rfile": "flows",
    "save_stream_file": "flows",
    "save_stream_filter": "~b x",
    "scripts": ["script.py"],
    "server_replay": ["flows"],
    "stickyauth": ".",
    "stickycookie": ".",
    "store_streamed_bodies": True,
    "stream_large_bodies": "1m",
    "tcp_hosts": ["a"],
    "upstream_auth": "a:b",
    "validate_inbound_headers": False,
}
COMMON: dict[str, Any] = {
    "flow_detail": 2,
    "dumper_filter": "~d a",
    "save_stream_filter": "~d a",
    "modify_headers": ["/a/b"],
    "ssl_insecure": True,
    "http2": False,
    "connection_strategy": "lazy",
    "normalize_outbound_headers": False,
    "tcp_timeout": 5,
    "jwt_user": "alice",
}
HARMLESS = "anticache anticomp allow_hosts body_size_limit flow_detail jwt_fast_lane modify_body stickycookie".split()


class Set:
    """Options of which one is set, whatever its addon would say to that."""

    def __init__(self, options: Options, **values: Any) -> None:
        self._options, self._values = options, values

    def __getattr__(self, name: str) -> Any:
        return self._values[name] if name in self._values else getattr(self._options, name)


def test_the_table_names_all_that_is_uncommon() -> None:
    names = {need.option for need in stock.NEEDS} - {"modify_headers"}
    assert names | set(stock._UNCOMMON) <= set(UNCOMMON)


# A master takes longer to make than all of these to ask of it, so they share one.


def test_an_option_that_it_cannot_serve_turns_it_off() -> None:
    def look(lane: Lane) -> dict[str, bool]:
        assert lane.is_on()
        assert set(UNCOMMON) - set(lane.master.options.keys()) <= {"intercept"}, "which only other programs have"
        return {
            name: Lane(
                SimpleNamespace(addons=lane.addons, options=Set(lane.master.options, **{name: value})),
                lane.mode,
                lambda: None,
            ).is_on()
            for name, value in UNCOMMON.items()
        }

    assert _with(look) == dict.fromkeys(UNCOMMON, False)


def _as_they_change(lane: Lane, values: Mapping[str, Any]) -> dict[str, list[bool]]:
    """Whether it is on before each of these options is set, while it is, and afterwards."""
    said = {}
    for name, value in values.items():
        before, said[name] = getattr(lane.master.options, name), [lane.is_on()]
        for one in (value, before):
            lane.master.options.update(**{name: one})
            said[name].append(lane.is_on())
    return said


def test_other_options_do_not() -> None:
    assert _with(lambda lane: _as_they_change(lane, COMMON)) == {name: [True, True, True] for name in COMMON}


def test_options_turn_it_off_and_on_at_run_time() -> None:
    values = {name: UNCOMMON[name] for name in HARMLESS}
    assert _with(lambda lane: _as_they_change(lane, values)) == {name: [True, False, True] for name in HARMLESS}


def test_its_limits_are_options() -> None:
    def look(lane: Lane) -> tuple[float, float, float]:
        lane.is_on()
        return lane.limits.idle, lane.response_timeout, lane.look

    def look_with_ours(lane: Lane) -> tuple[float, float, float]:
        values = {row.member: row.check("") for row in time_limits.OPTIONS}
        time_limits.hang(lane.master.options, values)
        return look(lane)

    assert _with(look) == (600, 300, 300)
    assert _with(look, tcp_timeout=5, jwt_response_timeout="0.5") == (5, 0.5, 0.5)
    assert _with(look_with_ours) == (600, 300, 30)
    assert _with(look_with_ours, tcp_timeout=5) == (5, 300, 5)


# --- hooks


class Foreign:
    """What a script brings."""

    def __init__(self, hook: str) -> None:
        setattr(self, hook, lambda *arguments: None)


@pytest.mark.parametrize("hook", [*HOOKS, "update"])
def test_a_foreign_hook_turns_it_off_while_it_is_there(hook: str) -> None:
    """It may wait, or want whole bodies: nobody knows."""

    def look(lane: Lane) -> list[bool]:
        foreign, said = Foreign(hook), [lane.is_on()]
        lane.master.addons.add(foreign)
        said.append(lane.is_on())
        lane.master.addons.remove(foreign)
        return [*said, lane.is_on()]

    assert _with(look) == [True, False, True]


def test_a_script_turns_it_off_though_its_option_is_gone() -> None:
    def look(lane: Lane) -> list[bool]:
        loader, said = lane.master.addons.get("scriptloader"), [lane.is_on()]
        for loaded in ([Foreign("request")], []):
            loader.addons = loaded
            lane.master.addons._configure_all(set())
            said.append(lane.is_on())
        return said

    assert _with(look) == [True, False, True]


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_of_ours_is_called_while_it_is_there(hook: str) -> None:
    def look(lane: Lane) -> list[bool]:
        def called(message: object) -> None:
            """Nothing to do."""

        said, addon = [], Ours(**{hook: called})
        for change in (lambda: None, lambda: lane.master.addons.add(addon), lambda: lane.master.addons.remove(addon)):
            change()
            assert lane.is_on()
            said.append(called in lane.hooks[hook])
        return said

    assert _with(look) == [False, True, False]


def test_who_has_it_done_by_the_lane_is_left_out() -> None:
    def called(message: object) -> None:
        """Nothing to do."""

    def look(lane: Lane) -> None:
        lane.master.addons.add(Ours(request=called, response=called, done_by_lane=("request",)))  # type: ignore[arg-type]
        assert lane.is_on()
        assert (called in lane.hooks["request"], called in lane.left_out["request"]) == (False, True)
        assert (called in lane.hooks["response"], called in lane.left_out["response"]) == (True, False)

    _with(look)


def test_all_are_called_but_those_that_have_nothing_to_do() -> None:
    def look(lane: Lane) -> None:
        assert lane.is_on()
        for hook in HOOKS:
            there = [step for step in lane.addons.listeners(hook) if step.hook]
            called = (*lane.hooks[hook], *lane.left_out[hook])
            left_out = {type(step.addon).__name__ for step in there if step.hook not in called}
            assert left_out <= {quiet.addon for quiet in stock.QUIET if quiet.hook == hook}
            order = [step.hook for step in there if step.hook in lane.hooks[hook]]
            assert list(lane.hooks[hook]) == order

    _with(look)


@pytest.mark.parametrize(("mode", "quiet"), [("regular", True), ("reverse:http://a.example", False)])
def test_what_is_quiet_in_one_mode_may_not_be_in_another(mode: str, quiet: bool) -> None:
    def look(lane: Lane) -> bool:
        assert lane.is_on()
        update = lane.master.addons.get("updatealtsvc")
        return update.responseheaders not in lane.hooks["responseheaders"]

    assert _with(look, mode) is quiet


# --- places


def _head(authority: bytes, path: bytes = b"/") -> boring.Head:
    return boring.Head(b"GET", authority, path, ((b"Host", authority),), 0, False)


def _place(lane: Lane, authority: bytes, path: bytes = b"/", route: Route | None = None) -> tuple[str, int] | None:
    lane.is_on()
    return lane.place(route or Route(), _head(authority, path))


@pytest.mark.parametrize(
    ("authority", "place"),
    [
        (b"a.example", ("a.example", 80)),
        (b"a.example:8080", ("a.example", 8080)),
        (b"127.0.0.1:1", ("127.0.0.1", 1)),
        (b"mitm.it", None),
        (b"mitm.it:8080", None),
        (b"jwtproxy.test", None),
        (b"jwtproxy.test:443", None),
        (b"jwtproxy.test:8080", ("jwtproxy.test", 8080)),
        (b"xn--bcher-kva.example", None),
        (b"a..b", None),
        (b"a:65536", None),
    ],
)
def test_a_place_is_known_or_mitmproxys(authority: bytes, place: tuple[str, int] | None) -> None:
    def look(lane: Lane) -> list[Any]:
        return [_place(lane, authority) for _ in range(2)]

    assert _with(look) == [place] * 2


def test_the_list_of_revoked_certificates_is_mitmproxys(tmp_path: Path) -> None:
    def look(lane: Lane) -> None:
        path = lane.master.addons.get("tlsconfig").crl_path().encode()
        assert _place(lane, b"a.example", path) is None
        assert _place(lane, b"a.example", b"/x" + path) is None
        assert _place(lane, b"a.example", path + b"x") == ("a.example", 80)

    _with(look, confdir=str(tmp_path))


def test_the_ports_of_the_proxy_itself_are_mitmproxys() -> None:
    """It knows that it must not connect to itself. They may come and go."""

    async def run() -> None:
        master = Master(Options())
        server: Any = master.addons.get("proxyserver")
        master.add_ours(JwtInject(KeySource(SECRET, bytes(64))), announces=False)
        lane = Lane(master, ProxyMode.parse("regular"), lambda: None)
        try:
            gate.shut(master.options)
            before = _place(lane, b"a.example:8080"), _place(lane, b"127.0.0.1:8081")
            assert before == (("a.example", 8080), ("127.0.0.1", 8081))
            master.options.update(listen_host="127.0.0.1", listen_port=0, server=True)
            server.is_running = True
            assert await server.setup_servers()
            (_, port), *_ = server.listen_addrs()
            assert _place(lane, b"a.example:%d" % port) is None
            assert _place(lane, b"127.0.0.1:%d" % port) is None
            await server.servers.update([])
            assert _place(lane, b"127.0.0.1:%d" % port) == ("127.0.0.1", port)
        finally:
            await master.done()

    asyncio.run(run())


def test_places_are_remembered_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []
    place = boring.place

    def count(scheme: str, authority: bytes) -> tuple[str, int] | None:
        asked.append(authority)
        return place(scheme, authority)

    monkeypatch.setattr(boring, "place", count)

    def look(lane: Lane) -> None:
        for number in [*range(10), *range(10)]:
            assert _place(lane, b"%d.example" % number)
        assert len(asked) == 10
        for number in range(5000):
            assert _place(lane, b"%d.example" % number)
        assert len(lane._places) <= switch._MOST_PLACES

    _with(look)


IN_TUNNEL = Route("https", Destination("https", "a.example", 443), ("a.example", 443), tunnel="https://a.example")


@pytest.mark.parametrize(
    ("authority", "place"),
    [
        (b"a.example", ("a.example", 443)),
        (b"A.example:443", ("a.example", 443)),
        (b"b.example", None),
        (b"a.example:80", None),
        (b"mitm.it", None),
    ],
)
def test_in_a_tunnel_a_request_names_what_it_leads_to(authority: bytes, place: tuple[str, int] | None) -> None:
    """RFC 9110 §15.5.20."""
    assert _with(lambda lane: _place(lane, authority, route=IN_TUNNEL)) == place


def test_the_pages_of_mitmproxy_are_its_own_in_a_tunnel_too() -> None:
    route = Route("https", Destination("https", "mitm.it", 443), ("mitm.it", 443), tunnel="https://mitm.it")
    assert _with(lambda lane: _place(lane, b"mitm.it", route=route)) is None


def test_what_we_answer_ourselves_is_an_ordinary_name_without_pages() -> None:
    def look(lane: Lane) -> None:
        lane.is_on()
        assert _place(lane, b"jwtproxy.test") is None
        lane.master.options.update(jwt_pages="off")
        lane.is_on()
        assert _place(lane, b"jwtproxy.test") == ("jwtproxy.test", 80)

    _with(look)


@pytest.mark.parametrize("keeps", [True, False])
def test_a_reverse_proxy_has_one_place(keeps: bool) -> None:
    def look(lane: Lane) -> None:
        lane.is_on()
        route = lane.route()
        assert route
        assert _place(lane, b"x.example", route=route) == ("up.example", 8080)
        assert (_place(lane, b"a..b", route=route) is None) is keeps
        assert (_place(lane, b"mitm.it", route=route) is None) is keeps, "who is asked for"
        host = b"x.example" if keeps else b"up.example:8080"
        assert lane.fields(route, _head(b"x.example")) == ((b"Host", host),)

    _with(look, "reverse:http://up.example:8080", keep_host_header=keeps)


@pytest.mark.parametrize("mode", ["upstream:http://a.example", "socks5", "transparent", "reverse:https://a.example"])
def test_in_other_modes_plain_connections_are_mitmproxys(mode: str) -> None:
    assert _with(Lane.route, mode) is None


def test_in_regular_mode_hosts_stay_as_they_are() -> None:
    def look(lane: Lane) -> None:
        route, head = lane.route(), _head(b"a.example")
        assert route == Route()
        assert lane.fields(Route(), head) is head.fields

    _with(look)


# --- counting


def test_what_sets_out_is_counted_here_and_where_all_is() -> None:
    counted: list[str] = []

    def look(lane: Lane) -> None:
        gate.count_with(lane.master.options, lambda: counted.append("all"))
        Lane(lane.master, lane.mode, lambda: counted.append("fast")).count()

    _with(look)
    assert sorted(counted) == ["all", "fast"]


def test_who_dials_says_for_which_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop shares out look-ups of names among clients."""
    client = tflow.tclient_conn()

    async def run() -> str:
        async def getaddrinfo(*_: Any, **__: Any) -> Any:
            raise OSError(f"asked for by {getattr(asyncio.current_task(), 'client', None)}")

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
        master = Master(Options())
        try:
            lane = Lane(master, ProxyMode.parse("regular"), lambda: None)
            data = ServerConnectionHookData(client=client, server=Server(address=("a.example", 80)))
            return (await lane.dial(data, asyncio.Protocol))[1]
        finally:
            await master.done()

    assert asyncio.run(run()) == f"asked for by {client.peername}"
