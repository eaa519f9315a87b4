"""What mitmproxy's own addons need: whom to ask, what to stream, how many may work, what passes unsigned."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy import addons
from mitmproxy.addons import dumper, intercept, readfile
from mitmproxy.options import Options
from mitmproxy.proxy.mode_specs import ProxyMode
from mitmproxy.test import taddons

from jwtproxy.config.errors import SettingsError
from jwtproxy.mitm import stock

pytestmark = pytest.mark.usefixtures("pristine")


@pytest.fixture
def options(pristine: None) -> Iterator[Options]:
    """All options of mitmdump, nothing in use."""
    with taddons.context(
        *addons.default_addons(), dumper.Dumper(), readfile.ReadFileStdin(), loadcore=False
    ) as context:
        context.options.update(flow_detail=1, rawtcp=False)
        yield context.options


# Each option, as set by somebody who uses it; what follows.
VALUES: dict[str, Any] = {
    "anticache": True,
    "anticomp": True,
    "block_list": [":~all:404"],
    "map_local": ["|a|/nowhere"],
    "map_remote": ["|a|b"],
    "modify_body": ["/a/b"],
    "modify_headers": ["/a/b"],
    "proxyauth": "a:b",
    "upstream_auth": "a:b",
    "save_stream_file": "flows",
    "hardump": "flows.har",
    "rfile": "flows",
    "client_replay": ["flows"],
    "server_replay": ["flows"],
    "scripts": ["script.py"],
    "stickycookie": ".",
    "stickyauth": ".",
}
WHOLE_REQUESTS = set(
    "anticache anticomp block_list map_local map_remote modify_body save_stream_file hardump server_replay "
    "stickycookie stickyauth".split()
)
WHOLE_RESPONSES = {"modify_body", "save_stream_file", "hardump"}
SINGLE = {
    "save_stream_file": "-w",
    "hardump": "hardump",
    "rfile": "-r",
    "client_replay": "-C",
    "server_replay": "-S",
    "stickycookie": "stickycookie",
    "stickyauth": "stickyauth",
}


class Set:
    """Options of which one is set, whatever its addon would say to that."""

    def __init__(self, options: Options, **values: Any) -> None:
        self._options, self._values = options, values

    def __getattr__(self, name: str) -> Any:
        return self._values[name] if name in self._values else getattr(self._options, name)


def _set(options: Options, name: str, value: Any = None) -> Any:
    return Set(options, **{name: VALUES[name] if value is None else value})


def test_each_row_is_about_an_option_that_there_is(options: Options) -> None:
    assert {need.option for need in stock.NEEDS} == set(VALUES)
    for need in stock.NEEDS:
        assert need.option in options


def test_each_row_is_about_an_addon_that_mitmdump_has() -> None:
    there = {type(addon).__name__ for addon in addons.default_addons()}
    assert {need.addon for need in stock.NEEDS if need.addon} <= there


@pytest.mark.parametrize("name", VALUES)
def test_what_follows_from_an_option(options: Options, name: str) -> None:
    used = _set(options, name)
    assert stock.wants_whole_requests(used) is (name in WHOLE_REQUESTS)
    assert stock.wants_whole_responses(used) is (name in WHOLE_RESPONSES)
    flag = SINGLE.get(name)
    assert stock.single_process(used) == (f"{flag} keeps its records in one process" if flag else "")


def test_by_default_nothing_is_needed(options: Options) -> None:
    assert not stock.wants_whole_requests(options)
    assert not stock.wants_whole_responses(options)
    assert stock.single_process(options) == ""
    assert list(stock.bypasses(options)) == []


# --- whom to ask


@pytest.mark.parametrize("need", [need for need in stock.NEEDS if need.addon], ids=lambda need: need.option)
def test_an_addon_is_idle_until_one_of_its_options_is_set(options: Options, need: stock.Need) -> None:
    (addon,) = (one for one in addons.default_addons() if type(one).__name__ == need.addon)
    assert stock.is_idle(addon, options)
    assert not stock.is_idle(addon, _set(options, need.option))
    others = [name for name in VALUES if name not in {one.option for one in stock.NEEDS if one.addon == need.addon}]
    assert all(stock.is_idle(addon, _set(options, name)) for name in others)


def test_an_addon_without_a_row_is_always_asked(options: Options) -> None:
    class Mine(addons.anticache.AntiCache):
        pass

    for addon in (object(), Mine(), addons.core.Core()):
        assert not stock.is_idle(addon, options)


# --- whole bodies


@pytest.mark.parametrize(("detail", "whole"), [(0, False), (2, False), (3, True), (4, True)])
def test_bodies_that_are_shown_are_whole(options: Options, detail: int, whole: bool) -> None:
    used = _set(options, "flow_detail", detail)
    assert stock.wants_whole_requests(used) is whole
    assert stock.wants_whole_responses(used) is whole


@pytest.mark.parametrize("name", ["dumper_filter", "save_stream_filter"])
@pytest.mark.parametrize(("value", "whole"), [("~b x", True), ("~d x & ~bq y", True), ("~d x", False)])
def test_bodies_that_a_filter_looks_at_are_whole(options: Options, name: str, value: str, whole: bool) -> None:
    used = _set(options, name, value)
    assert stock.wants_whole_requests(used) is whole
    assert stock.wants_whole_responses(used) is whole


# --- messages of WebSockets


def test_nobody_wants_messages_by_default(options: Options) -> None:
    assert not stock.wants_messages(addons.default_addons(), options)


@pytest.mark.parametrize("name", VALUES)
def test_recorders_want_messages(options: Options, name: str) -> None:
    wanted = stock.wants_messages(addons.default_addons(), _set(options, name))
    assert wanted is (name in ("save_stream_file", "hardump"))


class _Hears:
    """An addon that a user may have brought."""

    def websocket_message(self, flow: Any) -> None: ...


class _Starts:
    def websocket_start(self, flow: Any) -> None: ...


class _Ends:
    addons = (object(), _Hears())


class _Deaf:
    websocket_message = None

    def request(self, flow: Any) -> None: ...


@pytest.mark.parametrize(
    ("addon", "wanted"),
    [
        (_Hears(), True),
        (_Starts(), True),
        (_Ends(), True),
        (_Deaf(), False),
        (dumper.Dumper(), True),
        (intercept.Intercept(), True),
        (SimpleNamespace(websocket_end=print), True),
        (SimpleNamespace(websocket_end=print, wants_messages=True), True),
        (SimpleNamespace(websocket_end=print, wants_messages=False), False),
    ],
)
def test_who_has_a_hook_for_websockets_wants_messages_unless_it_says_otherwise(
    options: Options, addon: object, wanted: bool
) -> None:
    assert stock.wants_messages([*addons.default_addons(), addon], options) is wanted


# --- workers


@pytest.mark.parametrize(
    ("modes", "reason"),
    [
        (["regular"], ""),
        (["upstream:http://up.example", "socks5", "reverse:http://up.example"], ""),
        (["reverse:https://up.example"], ""),
        (["regular", "dns"], "mode dns does not listen on TCP alone"),
        (["reverse:quic://up.example"], "mode reverse:quic://up.example does not listen on TCP alone"),
        (["wireguard"], "mode wireguard does not listen on TCP alone"),
    ],
)
def test_workers_share_tcp_alone(options: Options, modes: list[str], reason: str) -> None:
    assert stock.single_process(_set(options, "mode", modes)) == reason


# --- what passes unsigned


@pytest.mark.parametrize("name", ["ignore_hosts", "allow_hosts", "tcp_hosts"])
def test_hosts_that_are_let_through_are_warned_of(options: Options, name: str) -> None:
    assert list(stock.bypasses(_set(options, name, ["example"]))) == [f"{name} is set: what it matches passes unsigned"]


def test_raw_tcp_is_warned_of(options: Options) -> None:
    (said,) = stock.bypasses(_set(options, "rawtcp", True))
    assert said == (
        "rawtcp is on: tunnelled traffic whose first bytes do not look like HTTP passes unsigned; "
        "--set rawtcp=false signs or refuses it"
    )


# --- rules for headers


@pytest.mark.parametrize(
    ("rule", "refused"),
    [
        ("/~q/x-my-jwt/evil", True),
        ("/X_My_JWT/", True),
        ("|x-my-jwt|@/dev/null", True),
        ("/x-pay/evil", True),
        ("/~q/x-my-jwt-2/mine", False),
        ("/x-other/x-my-jwt", False),
    ],
)
def test_no_rule_may_be_about_a_header_that_carries_a_token(options: Options, rule: str, refused: bool) -> None:
    used = _set(options, "modify_headers", ["/harmless/x", rule])
    if not refused:
        stock.check_header_rules(used, ["X-My-JWT", "x_pay"])
        return
    with pytest.raises(SettingsError) as caught:
        stock.check_header_rules(used, ["X-My-JWT", "x_pay"])
    assert str(caught.value) == f"modify_headers {rule!r} names the token's own header"
    assert caught.value.hint == "only the proxy sets it; remove the rule"


# --- a master that lacks addons


def test_options_of_addons_that_are_not_there_are_not_set() -> None:
    bare = Options()
    stock.check_header_rules(bare, ["x-my-jwt"])
    assert not stock.wants_whole_requests(bare)
    assert not stock.wants_whole_responses(bare)
    assert stock.single_process(bare) == ""
    assert stock.is_idle(addons.anticache.AntiCache(), bare)
    assert stock.option(bare, "modify_headers") is None
    assert stock.option(bare, "modify_headers", ()) == ()
    assert stock.option(bare, "listen_host", "x") == bare.listen_host


# --- the fast lane


def test_each_quiet_hook_is_one_that_a_stock_addon_has() -> None:
    there = {type(addon).__name__: addon for addon in addons.default_addons()}
    for quiet in stock.QUIET:
        assert callable(getattr(there[quiet.addon], quiet.hook))


@pytest.mark.parametrize("quiet", stock.QUIET, ids=lambda quiet: quiet.addon)
def test_only_stock_addons_are_quiet_and_only_in_their_one_hook(quiet: stock.Quiet) -> None:
    (addon,) = (one for one in addons.default_addons() if type(one).__name__ == quiet.addon)
    regular, reverse = ProxyMode.parse("regular"), ProxyMode.parse("reverse:http://a.example")
    assert stock.is_quiet(addon, quiet.hook, regular)
    assert stock.is_quiet(addon, quiet.hook, reverse) is (quiet.unless != "reverse")
    assert not stock.is_quiet(addon, "error", regular)
    imitation = type(quiet.addon, (), {"__module__": "users"})()
    subclass: Any = type(quiet.addon, (type(addon),), {"__module__": "jwtproxy.tests", "__init__": lambda self: None})
    for other in (imitation, subclass()):
        assert not stock.is_quiet(other, quiet.hook, regular)


@pytest.mark.parametrize("name", [name for name in VALUES if name != "modify_headers"])
def test_what_needs_more_than_the_fast_lane_does_is_named(options: Options, name: str) -> None:
    assert stock.uncommon(_set(options, name)) == name


def test_by_default_and_with_rules_for_headers_nothing_is_uncommon(options: Options) -> None:
    assert stock.uncommon(options) == ""
    assert stock.uncommon(_set(options, "modify_headers")) == ""
    assert stock.uncommon(Options()) == "", "of a master that lacks addons"


def test_the_reason_is_told_as_its_option(options: Options) -> None:
    assert stock.uncommon(_set(options, "flow_detail", 3)) == "flow_detail"
    assert stock.uncommon(_set(options, "validate_inbound_headers", False)) == "validate_inbound_headers"
    assert stock.uncommon(_set(options, "body_size_limit", "1m")) == "body_size_limit"


@pytest.mark.parametrize("name", ["dumper_filter", "save_stream_filter"])
def test_a_filter_that_looks_at_bodies_is_named(options: Options, name: str) -> None:
    assert stock.uncommon(_set(options, name, "~b x")) == name
    assert stock.uncommon(_set(options, name, "~d x")) == ""
