"""Passwords are compared in constant time, and wrong ones make a client wait."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from mitmproxy import ctx
from mitmproxy.addons.proxyauth import Htpasswd, ProxyAuth, SingleUser
from mitmproxy.http import HTTPFlow
from mitmproxy.proxy.layers.modes import Socks5AuthData
from mitmproxy.proxy.mode_specs import ProxyMode
from mitmproxy.test import taddons, tflow

from jwtproxy.mitm import flows, limits, patches, proxy_auth
from jwtproxy.observe.pages import Reader

pytestmark = pytest.mark.usefixtures("pristine")


@pytest.fixture
def counted(pristine: None) -> Iterator[list[str]]:
    patches.install()
    told: list[str] = []
    with taddons.context() as context:
        context.options.add_option(proxy_auth.NAME, str, "2", "")
        limits.count_with(context.options, told.append)
        yield told


def basic(text: str) -> str:
    return f"Basic {base64.b64encode(text.encode()).decode()}"


def asked(addon: ProxyAuth, given: str = "", source: str = "192.0.2.1") -> HTTPFlow:
    flow = tflow.tflow()
    flow.client_conn.peername = (source, 1)
    if given:
        flow.request.headers["Proxy-Authorization"] = given
    addon.authenticate_http(flow)
    return flow


def code(flow: HTTPFlow) -> int:
    return flow.response.status_code if flow.response else 200


def with_validator(validator: Any) -> ProxyAuth:
    addon = ProxyAuth()
    addon.validator = validator
    return addon


def test_wrong_passwords_make_a_client_wait(counted: list[str]) -> None:
    addon = with_validator(SingleUser("a:good"))
    wrong, right = basic("a:bad"), basic("a:good")
    assert code(asked(addon, right)) == 200
    assert [code(asked(addon, wrong)) for _ in range(4)] == [407, 407, 429, 429]
    flow = asked(addon, wrong)
    assert flow.response
    assert flow.response.headers["retry-after"] == "1"
    assert flow.response.text == "jwtproxy: too many wrong passwords; wait 1 s\n"
    assert code(asked(addon, basic("a:guess"))) == 429
    assert code(asked(addon, right)) == 200, "it was right before"
    assert code(asked(addon, source="192.0.2.1")) == 407, "who sends none is asked for one"
    assert code(asked(addon, right, "192.0.2.9")) == 200
    assert counted == [proxy_auth.NAME] * 4


def test_no_password_is_no_wrong_one(counted: list[str]) -> None:
    addon = with_validator(SingleUser("a:good"))
    assert {code(asked(addon)) for _ in range(9)} == {407}
    assert not counted


@pytest.mark.parametrize(
    ("mode", "status", "field"),
    [("regular", 407, "proxy-authenticate"), ("reverse:http://a:1", 401, "www-authenticate")],
)
def test_who_is_asked_for_a_password_is_asked_in_our_voice(
    counted: list[str], mode: str, status: int, field: str
) -> None:
    flow = tflow.tflow()
    flow.client_conn.proxy_mode = ProxyMode.parse(mode)
    with_validator(SingleUser("a:good")).authenticate_http(flow)
    assert flow.response
    assert (flow.response.status_code, flow.response.text) == (
        status,
        "jwtproxy: the user and password are missing or wrong\n",
    )
    assert flow.response.headers[field] == 'Basic realm="jwtproxy"'
    assert flow.response.headers["server"] == "jwtproxy"
    assert b"mitmproxy" not in b"".join(map(b": ".join, flow.response.headers.fields))
    assert not counted


def test_what_is_refused_already_stays_so(counted: list[str]) -> None:
    addon = with_validator(SingleUser("a:good"))
    flow = tflow.tflow(resp=True)
    assert flow.response
    flow.response.status_code = 403
    assert not addon.authenticate_http(flow)
    assert code(flow) == 403


def test_socks_clients_wait_too(counted: list[str]) -> None:
    addon = with_validator(SingleUser("a:good"))

    def valid(password: str) -> bool:
        data = Socks5AuthData(tflow.tclient_conn(), "a", password)
        addon.socks5_auth(data)
        return data.valid

    assert [valid(password) for password in ("bad", "bad", "good")] == [False, False, False]
    assert counted == [proxy_auth.NAME]


def test_a_password_that_is_too_long_for_bcrypt_is_a_wrong_one(counted: list[str], file: str) -> None:
    addon = with_validator(Htpasswd(file))
    given = [Socks5AuthData(tflow.tclient_conn(), "slow", "a" * 100) for _ in range(3)]
    for data in given:
        addon.socks5_auth(data)
    assert not any(data.valid for data in given)
    assert counted == [proxy_auth.NAME]


def test_without_the_option_nobody_waits(pristine: None) -> None:
    patches.install()
    with taddons.context():
        addon = with_validator(SingleUser("a:good"))
        assert {code(asked(addon, basic("a:bad"))) for _ in range(20)} == {407}


@pytest.mark.parametrize(
    ("user", "password", "right"),
    [("a", "é", True), ("a", "e", False), ("b", "é", False), ("", "", False), ("a\udcff", "é", False)],
)
def test_one_user_is_compared_in_constant_time(
    counted: list[str], monkeypatch: pytest.MonkeyPatch, user: str, password: str, right: bool
) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(first: bytes, second: bytes) -> bool:
        compared.append((first, second))
        return first == second

    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert SingleUser("a:é")(user, password) is right
    assert len(compared) == 2, "both, whatever the first says"


@pytest.fixture
def file(tmp_path: Path) -> str:
    sha = base64.b64encode(hashlib.sha1(b"one").digest()).decode()
    slow = bcrypt.hashpw(b"two", bcrypt.gensalt(4)).decode()
    (tmp_path / "users").write_text(f"sha:{{SHA}}{sha}\nslow:{slow}\n")
    return f"@{tmp_path}/users"


@pytest.mark.parametrize(
    ("user", "password", "right"),
    [
        *[("sha", "one", True), ("sha", "two", False), ("slow", "two", True), ("slow", "one", False)],
        *[("nobody", "one", False), ("", "", False)],
        *[("slow", "two" * 25, False), ("nobody", "two" * 25, False)],
    ],
)
def test_a_file_of_users_is_looked_through(
    counted: list[str], file: str, user: str, password: str, right: bool
) -> None:
    assert Htpasswd(file)(user, password) is right


def test_an_empty_file_lets_nobody_in(counted: list[str], tmp_path: Path) -> None:
    (tmp_path / "none").write_text("")
    assert not Htpasswd(f"@{tmp_path}/none")("a", "")


# --- pages of our own that are not for anyone


def own(mode: str = "regular", source: str = "192.0.2.1", **given: str) -> HTTPFlow:
    flow = tflow.tflow()
    flow.client_conn.proxy_mode = ProxyMode.parse(mode)
    flow.client_conn.peername = (source, 1)
    flow.request.headers.update({name.replace("_", "-"): value for name, value in given.items()})
    flows.mark_to_self(flow)
    return flow


def test_nobody_is_asked_before_it_is_known_which_page_it_is(counted: list[str]) -> None:
    """Who asks for a public page with the password of something else has given none that is wrong."""
    flow = own(Authorization="Bearer x", Proxy_Authorization=basic("a:bad"))
    with_validator(SingleUser("a:good")).requestheaders(flow)
    assert flow.response is None
    assert not counted


@pytest.mark.parametrize(
    ("given", "answer"), [("", 401), (basic("a:bad"), 401), ("Bearer x", 401), (basic("a:good"), 200)]
)
def test_a_page_for_users_asks_as_any_server_does(counted: list[str], given: str, answer: int) -> None:
    addons = {"proxyauth": with_validator(SingleUser("a:good"))}
    flow = own(Authorization=given) if given else own()
    assert proxy_auth.lets_in(addons, flow, Reader.USER) is (answer == 200)
    assert code(flow) == answer
    if flow.response:
        assert flow.response.headers["www-authenticate"] == 'Basic realm="jwtproxy"'


def test_who_guesses_there_waits_as_anywhere(counted: list[str]) -> None:
    addons = {"proxyauth": with_validator(SingleUser("a:good"))}
    asked_for = [own(Authorization=basic(f"a:{number}")) for number in range(4)]
    assert not any(proxy_auth.lets_in(addons, flow, Reader.USER) for flow in asked_for)
    assert [code(flow) for flow in asked_for] == [401, 401, 429, 429]


@pytest.mark.parametrize("source", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_nobody_on_this_machine_is_asked(counted: list[str], source: str) -> None:
    addons = {"proxyauth": with_validator(SingleUser("a:good"))}
    assert proxy_auth.lets_in(addons, own(source=source), Reader.USER)


def test_nor_is_anybody_where_no_password_is_set_or_a_right_one_was_given(counted: list[str]) -> None:
    assert proxy_auth.lets_in({}, own(), Reader.USER)
    assert proxy_auth.lets_in({"proxyauth": with_validator(None)}, own(), Reader.USER)
    flow = own("reverse:http://a:1")
    flow.metadata["proxyauth"] = "a", "good"
    assert proxy_auth.lets_in({"proxyauth": with_validator(SingleUser("a:good"))}, flow, Reader.USER)


def test_what_was_refused_as_any_request_is_not_asked_again(counted: list[str]) -> None:
    flow = own("reverse:http://a:1")
    flow.response = tflow.tflow(resp=True).response
    assert not proxy_auth.lets_in({"proxyauth": with_validator(SingleUser("a:good"))}, flow, Reader.USER)
    assert code(flow) == 200, "as it was"


# --- what is only for who is near


def near(source: str = "127.0.0.1", mode: str = "regular", **headers: str) -> HTTPFlow:
    """A request by this client for what is nobody else's business."""
    return own(mode, source=source, **{"Host": "localhost:8080", **headers})


@pytest.mark.parametrize(
    ("flow", "answer"),
    [
        (near(), 200),
        (near(Host="127.0.0.1:8080"), 200),
        (near("::1", Host="[::1]:8080"), 200),
        (near(Host="evil.example:8080"), 403),
        (near(Host=""), 403),
        (near("192.0.2.1"), 403),
        (near(Via="1.1 front"), 403),
        (near("192.0.2.1", Authorization=basic("a:good")), 403),
    ],
)
def test_without_a_password_only_who_is_here_and_says_so_may_have_it(
    counted: list[str], flow: HTTPFlow, answer: int
) -> None:
    assert proxy_auth.lets_in({}, flow, Reader.NEARBY) is (answer == 200)
    assert code(flow) == answer


@pytest.mark.parametrize(
    ("flow", "answer"),
    [
        (near(), 200),
        (near("192.0.2.1"), 401),
        (near("192.0.2.1", Authorization=basic("a:good"), Host="proxy.example"), 200),
        (near("192.0.2.1", Authorization=basic("a:bad")), 401),
        (near(Host="evil.example:8080"), 401),
    ],
)
def test_with_one_who_gives_it_may_have_it_too(counted: list[str], flow: HTTPFlow, answer: int) -> None:
    addons = {"proxyauth": with_validator(SingleUser("a:good"))}
    assert proxy_auth.lets_in(addons, flow, Reader.NEARBY) is (answer == 200)
    assert code(flow) == answer


@pytest.mark.parametrize(
    ("keeps", "host", "answer"),
    [(False, "localhost:1", 403), (True, "localhost:8080", 200), (True, "evil.example:8080", 403)],
)
def test_in_front_of_a_server_only_what_the_client_has_called_the_proxy_counts(
    counted: list[str], keeps: bool, host: str, answer: int
) -> None:
    """mitmproxy writes the server's name into Host there, which may be a name for this machine."""
    ctx.options.add_option("keep_host_header", bool, keeps, "")
    flow = near(mode="reverse:http://localhost:1", Host=host)
    assert proxy_auth.lets_in({}, flow, Reader.NEARBY) is (answer == 200)
    assert code(flow) == answer


@pytest.mark.parametrize(("mode", "answer"), [("regular", 401), ("reverse:http://a:1", 200)])
def test_what_a_browser_tells_any_page_s_proxy_does_not_count(counted: list[str], mode: str, answer: int) -> None:
    """A name that leads here and belongs to a stranger is asked for by the proxy, with the proxy's password."""
    flow = near(mode=mode, Host="evil.example:8080")
    flow.metadata["proxyauth"] = "a", "good"
    addons = {"proxyauth": with_validator(SingleUser("a:good"))}
    assert proxy_auth.lets_in(addons, flow, Reader.NEARBY) is (answer == 200)
    assert code(flow) == answer


def test_what_is_for_anyone_is(counted: list[str]) -> None:
    assert proxy_auth.lets_in({"proxyauth": with_validator(SingleUser("a:good"))}, own(), Reader.ANYONE)
