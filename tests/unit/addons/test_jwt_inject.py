"""The addon that signs: what leaves is signed as the settings say, or does not leave."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey
from mitmproxy import ctx, exceptions
from mitmproxy.addons import dumper, modifyheaders, termlog
from mitmproxy.http import Headers, HTTPFlow
from mitmproxy.test import taddons, tflow, tutils

from jwtproxy.addons.jwt_inject import JwtInject
from jwtproxy.config.errors import SettingsError
from jwtproxy.mitm import filters, flows, gate, response_timeout, time_limits
from jwtproxy.mitm.connect_deadline import ConnectDeadline
from jwtproxy.observe.pages import Page
from jwtproxy.policy import settings
from jwtproxy.policy.current import CurrentPolicy
from jwtproxy.tokens.key_source import SECRET, KeySource

if TYPE_CHECKING:
    from tests.support.inside import Serve, Upstream

pytestmark = pytest.mark.usefixtures("pristine")

KEY = secrets.token_bytes(64)
SOURCE = KeySource(SECRET, KEY)
ADDONS = Path(__file__).parents[3] / "addons"


def _verify(token: str, algorithm: str = "HS512") -> dict[str, Any]:
    decoded = jwt.decode(token, OctKey.import_key(KEY), algorithms=[algorithm])
    assert decoded.header == {"alg": algorithm, "typ": "JWT"}
    return decoded.claims


def _claims(flow: HTTPFlow, header: str = "x-my-jwt") -> dict[str, Any]:
    """The claims of the one token of a request."""
    (token,) = flow.request.headers.get_all(header)
    return _verify(token)


def _is_refused(flow: HTTPFlow) -> bool:
    """Whether it was answered with 502, which names no cause."""
    if not flow.response:
        return False
    assert flow.response.text == "jwtproxy: the request could not be signed and was not forwarded\n"
    return flow.response.status_code == 502


def _configured(source: KeySource | None = SOURCE, **options: Any) -> tuple[JwtInject, Any]:
    """The addon, loaded as mitmproxy loads a script: the options are set already. And its context."""
    addon = JwtInject(source)
    context = taddons.context(modifyheaders.ModifyHeaders())
    context.options.update_defer(**options)
    context.master.addons.add(addon)
    context.configure(addon)
    return addon, context


def _running(addon: JwtInject) -> None:
    async def run() -> None:
        addon.running()

    asyncio.run(run())


def _signed(addon: JwtInject, flow: HTTPFlow | None = None) -> HTTPFlow:
    flow = flow or tflow.tflow()
    addon.requestheaders(flow)
    return flow


def _last_look(addon: JwtInject, flow: HTTPFlow) -> Page | None:
    """What a stream asks just before it contacts an upstream."""
    return gate.gate_of(ctx.options).refusal_for(flow)


# --- the token


def test_a_request_gets_one_token_and_keeps_its_fields() -> None:
    addon, _ = _configured()
    flow = tflow.tflow()
    before = flow.request.headers.fields
    flow.request.headers.fields = (*before[:1], (b"X-MY_jwt", b"evil"), *before[1:], (b"x-my-jwt", b"evil"))
    claims = _claims(_signed(addon, flow))
    assert flow.response is None
    assert flow.request.headers.fields[:-1] == before
    assert set(claims) == {"iat", "jti", "payload"}
    assert claims["payload"]["user"] == "username"


def test_each_request_gets_its_own() -> None:
    addon, _ = _configured()
    assert len({_claims(_signed(addon))["jti"] for _ in range(100)}) == 100


@pytest.mark.parametrize(
    ("environ", "options", "user"),
    [
        ({}, {}, "username"),
        ({"JWT_USER": "env"}, {}, "env"),
        ({"JWT_USER": ""}, {}, "username"),
        ({"JWT_USER": "env"}, {"jwt_user": "set é"}, "set é"),
        ({}, {"jwt_user": ""}, "username"),
    ],
)
def test_the_user_is_that_of_the_settings(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], options: dict[str, Any], user: str
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    addon, _ = _configured(**options)
    assert _claims(_signed(addon))["payload"]["user"] == user


def test_the_header_is_that_of_the_settings() -> None:
    addon, context = _configured(jwt_header="X-Identity")
    flow = tflow.tflow(req=tutils.treq(headers=Headers(((b"x_identity", b"evil"), (b"x-my-jwt", b"theirs")))))
    _claims(_signed(addon, flow), "X-Identity")
    assert flow.request.headers.fields[0] == (b"x-my-jwt", b"theirs"), "which is then an ordinary one"
    context.configure(addon, jwt_header="x-other")
    _claims(_signed(addon), "x-other")


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_the_algorithm_is_that_of_the_settings(algorithm: str) -> None:
    addon, _ = _configured(jwt_algorithm=algorithm)
    _verify(_signed(addon).request.headers["x-my-jwt"], algorithm)


@pytest.mark.parametrize("in_file", [False, True])
def test_the_secret_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, in_file: bool) -> None:
    if in_file:
        (tmp_path / "secret").write_text(KEY.hex() + "\n")
        monkeypatch.setenv("JWT_SHARED_SECRET_FILE", str(tmp_path / "secret"))
    else:
        monkeypatch.setenv("JWT_SHARED_SECRET", KEY.hex())
    addon, context = _configured(source=None)
    _claims(_signed(addon))
    assert KEY.hex() not in str(list(context.options.items())), "never an option: those can be shown"


@pytest.mark.parametrize("environ", ["JWT_SHARED_SECRET", "JWT_KEY_DIR", "JWT_KEY_FILE"])
def test_a_key_that_an_option_names_beats_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, environ: str
) -> None:
    (tmp_path / "key").write_text(KEY.hex())
    monkeypatch.setenv(environ, secrets.token_bytes(64).hex() if environ == "JWT_SHARED_SECRET" else "elsewhere")
    addon, _ = _configured(source=None, jwt_key_file=str(tmp_path / "key"))
    assert caplog.messages == []
    _claims(_signed(addon))


# --- which requests


@pytest.mark.parametrize("flow", [tflow.tflow(err=True), tflow.tflow(resp=True)], ids=["failed", "answered"])
def test_what_will_not_leave_is_not_signed(flow: HTTPFlow) -> None:
    addon, _ = _configured()
    response = flow.response
    addon.requestheaders(flow)
    addon.request(flow)
    assert "x-my-jwt" not in flow.request.headers
    assert flow.response is response


def test_a_request_to_the_proxy_is_not_signed_and_never_leaves() -> None:
    addon, _ = _configured()
    flow = tflow.tflow()
    flows.mark_to_self(flow)
    addon.requestheaders(flow)
    addon.request(flow)
    assert "x-my-jwt" not in flow.request.headers
    page = addon.gate.refusal_for(flow)
    assert page
    assert page.code == 404


def test_a_request_that_stays_as_it_is_keeps_its_token() -> None:
    addon, _ = _configured()
    flow = _signed(addon)
    token = flow.request.headers["x-my-jwt"]
    addon.request(flow)
    assert addon.gate.refusal_for(flow) is None
    assert flow.request.headers["x-my-jwt"] == token


def _redirect(flow: HTTPFlow) -> None:
    flow.request.host = "elsewhere.example"


def _downgrade(flow: HTTPFlow) -> None:
    flow.request.scheme = "https"


def _remove(flow: HTTPFlow) -> None:
    del flow.request.headers["x-my-jwt"]


def _forge(flow: HTTPFlow) -> None:
    flow.request.headers["x-my-jwt"] = "forged"


def _duplicate(flow: HTTPFlow) -> None:
    flow.request.headers.add("X-My-JWT", "forged")


def _hide(flow: HTTPFlow) -> None:
    flow.request.headers["connection"] = "x-my-jwt"


@pytest.mark.parametrize("change", [_redirect, _downgrade, _remove, _forge, _duplicate, _hide])
@pytest.mark.parametrize("look", [JwtInject.request, _last_look])
def test_a_request_that_was_changed_is_signed_anew(change: Any, look: Any) -> None:
    addon, _ = _configured()
    flow = _signed(addon)
    first = _claims(flow)["jti"]
    change(flow)
    assert look(addon, flow) is None
    assert _claims(flow)["jti"] != first
    assert "connection" not in flow.request.headers


@pytest.mark.parametrize("look", [JwtInject.request, _last_look])
def test_a_request_that_never_had_headers_of_its_own_is_signed(look: Any) -> None:
    addon, _ = _configured()
    flow = tflow.tflow()
    look(addon, flow)
    _claims(flow)


def test_a_streamed_request_has_left_when_its_end_comes() -> None:
    addon, _ = _configured()
    flow = _signed(addon)
    flow.request.stream = True
    _redirect(flow)
    fields = flow.request.headers.fields
    addon.request(flow)
    assert flow.request.headers.fields is fields


def test_trailers_hold_no_copy() -> None:
    addon, _ = _configured()
    kept = (b"x-checksum", b"1")
    assert addon.gate.clean_trailers(((b"X_My_Jwt", b"evil"), kept, (b"x-my-jwt", b"evil"))) == (kept,)
    assert addon.gate.clean_trailers((kept, (b"x", b"1\r\nx-my-jwt: evil"))) == (), "nor hide one"


# --- refusing


BAD: list[tuple[dict[str, str], dict[str, Any], str]] = [
    ({}, {}, "JWT_SHARED_SECRET is not set"),
    ({"JWT_SHARED_SECRET": ""}, {}, "JWT_SHARED_SECRET is empty"),
    ({"JWT_SHARED_SECRET": "feedface"}, {}, "JWT_SHARED_SECRET has 4 bytes, HS512 needs at least 64"),
    ({"JWT_SHARED_SECRET": KEY.hex()[1:]}, {}, "odd number"),
    ({"JWT_SHARED_SECRET": KEY.hex(), "JWT_SHARED_SECRET_FILE": "x"}, {}, "both"),
    ({"JWT_SHARED_SECRET": KEY.hex(), "JWT_ALGORITHM": "none"}, {}, "bad value 'none' for jwt_algorithm"),
    ({"JWT_SHARED_SECRET": KEY.hex()}, {"jwt_response_timeout": "soon"}, "bad value 'soon' for jwt_response_timeout"),
    ({"JWT_SHARED_SECRET": KEY.hex()}, {"jwt_header": "Host"}, "bad value 'Host' for jwt_header"),
]


@pytest.mark.parametrize(("environ", "options", "message"), BAD)
def test_without_usable_settings_every_request_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    environ: dict[str, str],
    options: dict[str, Any],
    message: str,
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    addon, _ = _configured(source=None, **options)
    (said,) = caplog.messages
    assert re.match(rf"jwtproxy: error: .*{re.escape(message)}.*\njwtproxy: hint: .", said)
    assert KEY.hex()[1:] not in caplog.text
    for look in (JwtInject.requestheaders, JwtInject.request):
        flow = tflow.tflow()
        look(addon, flow)
        assert _is_refused(flow)
        assert flow.request.stream is True, "at once: its body is not waited for"
    page = addon.gate.refusal_for(tflow.tflow())
    assert page
    assert page.code == 502


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"jwt_usr": "alice"}, "unknown option 'jwt_usr'"),
    ({"jwt_connect_timeout": "maybe"}, "bad value 'maybe' for jwt_connect_timeout"),
    *(
        ({"modify_headers": [rule]}, f"modify_headers {rule!r} names the token's own header")
        for rule in ("/~q/x-my-jwt/evil", "/X_My_JWT/", "|x-my-jwt|@/dev/null")
    ),
]


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_a_script_with_a_bad_option_refuses_every_request(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, options: dict[str, Any], message: str
) -> None:
    monkeypatch.setenv("JWT_SHARED_SECRET", KEY.hex())
    addon, _ = _configured(source=None, **options)
    assert _is_refused(_signed(addon))
    assert f"jwtproxy: error: {message}\n" in caplog.text


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_built_in_with_a_bad_option_there_is_no_start(options: dict[str, Any], message: str) -> None:
    with pytest.raises(exceptions.OptionsError) as caught:
        _configured(**options)
    assert str(caught.value) == message


def test_the_option_of_the_pages_is_known_where_nobody_serves_them() -> None:
    _claims(_signed(_configured(jwt_pages="on")[0]))


def test_a_master_may_lack_the_addons_whose_options_are_looked_at(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("JWT_SHARED_SECRET", KEY.hex())
    addon = JwtInject()
    with taddons.context(addon) as context:
        assert "modify_headers" not in context.options
        context.configure(addon, jwt_user="alice")
        _running(addon)
        assert _claims(_signed(addon))["payload"]["user"] == "alice"
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_other_header_rules_are_fine() -> None:
    addon, _ = _configured(modify_headers=["/~q/x-my-jwt-2/mine", "/x-other/x-my-jwt"])
    _claims(_signed(addon))


@pytest.mark.parametrize(
    "options", [{"jwt_header": "a b"}, {"jwt_algorithm": "RS256"}, {"modify_headers": ["/x-my-jwt/evil"]}]
)
def test_a_bad_value_while_running_changes_nothing(options: dict[str, Any]) -> None:
    addon, context = _configured(jwt_user="alice")
    with pytest.raises(exceptions.OptionsError):
        context.configure(addon, **options)
    assert _claims(_signed(addon))["payload"]["user"] == "alice"


def test_good_values_while_running_count_at_once() -> None:
    addon, context = _configured(jwt_user="alice", jwt_response_timeout="7")
    assert response_timeout.limit(context.options) == 7
    context.configure(addon, jwt_user="bob", jwt_response_timeout="0")
    assert _claims(_signed(addon))["payload"]["user"] == "bob"
    assert response_timeout.limit(context.options) == 0
    context.configure(addon, showhost=True)  # not ours
    assert _claims(_signed(addon))["payload"]["user"] == "bob"


def test_the_time_to_connect_is_that_of_the_settings() -> None:
    addon, context = _configured(jwt_connect_timeout="7")
    deadline = next(one for one in addon.addons if isinstance(one, ConnectDeadline))
    assert deadline.timeout == 7
    context.configure(addon, jwt_connect_timeout="0")
    assert deadline.timeout == 0


def test_the_limits_of_time_are_those_of_the_settings() -> None:
    addon, context = _configured(jwt_head_timeout="7")
    assert time_limits.of(context.options) == (7, 120, 60, 600, 15)
    context.configure(addon, jwt_head_timeout="0", jwt_tls_timeout="0.5")
    assert time_limits.of(context.options) == (0, 120, 60, 600, 0.5)
    with pytest.raises(exceptions.OptionsError, match="bad value 'soon' for jwt_body_timeout"):
        context.configure(addon, jwt_body_timeout="soon")


def test_a_failure_to_sign_is_refused_and_not_explained(caplog: pytest.LogCaptureFixture) -> None:
    addon, _ = _configured()
    assert addon.current
    addon.current.policy = object()  # type: ignore[assignment]
    assert _is_refused(_signed(addon))
    (said,) = caplog.messages
    assert re.fullmatch(r"jwtproxy: error: a request was refused, signing failed: \w+", said)


@pytest.mark.parametrize("value", ["a\rx-my-jwt: evil", "a\nx-my-jwt: evil", "a\0b"])
def test_a_header_value_that_may_hide_another_line_is_refused(value: str, caplog: pytest.LogCaptureFixture) -> None:
    addon, _ = _configured()
    flow = tflow.tflow()
    flow.request.headers["x-other"] = value
    page = addon.gate.refusal_for(flow)
    assert page
    assert page.code == 502
    response = _signed(addon, flow).response
    assert response
    assert response.status_code == 502
    assert "evil" not in f"{response.text}{caplog.text}"


# --- rules

RULES = """\
rules:
  - {name: no more, match: ~m DELETE, block: true}
  - {name: metrics, match: ~u /metrics, sign: false}
  - {name: pay, match: "~d ^pay\\\\.example$ | ~u /pay", header: X_Pay, audience: origin, claims: {scope: pay}}
"""


def _ruled(tmp_path: Path, text: str = RULES, **options: Any) -> JwtInject:
    (tmp_path / "rules.yaml").write_text(text)
    return _configured(jwt_rules=str(tmp_path / "rules.yaml"), rawtcp=False, **options)[0]


def _asked(method: str = "GET", path: str = "/", host: str = "up.example", **fields: str) -> HTTPFlow:
    headers = Headers([(name.encode(), value.encode()) for name, value in fields.items()])
    request = tutils.treq(method=method.encode(), path=path.encode(), host=host, port=80, headers=headers)
    return tflow.tflow(req=request)


def test_a_rule_decides_on_the_token(tmp_path: Path) -> None:
    addon = _ruled(tmp_path, jwt_audience="all")
    for flow in (_asked(host="PAY.example."), _asked(path="/pay?a")):
        claims = _claims(_signed(addon, flow), "X_Pay")
        assert (claims["aud"], claims["scope"]) == (f"http://{flow.request.host.lower().rstrip('.')}", "pay")
        assert "x-my-jwt" not in flow.request.headers
        assert flow.metadata["jwtproxy_rule"] == "pay"
    flow = _signed(addon, _asked())
    assert _claims(flow)["aud"] == "all"
    assert flow.metadata["jwtproxy_rule"] == "default"


def test_where_no_token_is_wanted_none_of_a_client_passes_either(tmp_path: Path) -> None:
    addon = _ruled(tmp_path)
    flow = _signed(addon, _asked(path="/metrics", **{"X-MY_jwt": "evil", "a": "b", "x-pay": "evil"}))
    assert flow.request.headers.fields == ((b"a", b"b"),)
    assert flow.response is None
    assert addon.gate.refusal_for(flow) is None
    assert flow.request.headers.fields == ((b"a", b"b"),)
    assert flow.metadata["jwtproxy_rule"] == "metrics"


def test_the_header_of_any_rule_is_the_proxys_alone(tmp_path: Path) -> None:
    addon = _ruled(tmp_path)
    flow = _signed(addon, _asked(x_pay="evil", connection="close, X-Pay"))
    assert [name for name, _ in flow.request.headers.fields] == [b"x-my-jwt"]
    assert addon.gate.clean_trailers(((b"x-pay", b"evil"), (b"X_MY_JWT", b"evil"))) == ()


@pytest.mark.parametrize(
    ("text", "flow", "said"),
    [
        (RULES, _asked("DELETE"), "blocked by rule 'no more'"),
        ("default: block\n" + RULES, _asked(), "no rule allows this request"),
    ],
    ids=["by a rule", "by default"],
)
def test_what_is_blocked_does_not_leave(tmp_path: Path, text: str, flow: HTTPFlow, said: str) -> None:
    addon = _ruled(tmp_path, text)
    page = addon.gate.refusal_for(flow.copy())
    assert page
    assert page.code == 403
    response = _signed(addon, flow).response
    assert response
    assert (response.status_code, response.text) == (403, f"jwtproxy: {said}\n")
    assert "x-my-jwt" not in flow.request.headers


@pytest.mark.parametrize("look", [JwtInject.request, _last_look])
def test_a_request_that_another_rule_now_decides_on_is_judged_anew(tmp_path: Path, look: Any) -> None:
    addon = _ruled(tmp_path)
    flow = _signed(addon, _asked())
    flow.request.path = "/pay"
    assert look(addon, flow) is None
    _claims(flow, "X_Pay")
    assert "x-my-jwt" not in flow.request.headers
    flow.request.method = "DELETE"
    page = look(addon, flow)
    assert (page.code if page else flow.response and flow.response.status_code) == 403


def test_no_header_rule_may_touch_the_header_of_any_rule(tmp_path: Path) -> None:
    with pytest.raises(exceptions.OptionsError, match="names the token's own header"):
        _ruled(tmp_path, modify_headers=["/x-pay/evil"])


def test_without_rules_no_rule_is_named() -> None:
    assert "jwtproxy_rule" not in _signed(_configured()[0]).metadata


# --- keys and rules that change


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are looked at every few milliseconds."""
    monkeypatch.setattr("jwtproxy.policy.current.PERIOD", 0.005)


def _until(addon: JwtInject, is_so: Callable[[], bool]) -> None:
    """Run until it is so."""

    async def run() -> None:
        addon.running()
        async with asyncio.timeout(10):
            while not is_so():
                await asyncio.sleep(0.005)

    asyncio.run(run())


@pytest.mark.usefixtures("hurried")
def test_changed_files_are_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    addon = _ruled(tmp_path)
    (tmp_path / "rules.yaml").write_text("rules: [{match: ~all, issuer: new}]")
    _until(addon, lambda: bool(caplog.messages))
    (said,) = caplog.messages
    assert said.startswith("jwtproxy: reloaded: ")
    assert _claims(_signed(addon))["iss"] == "new"
    (tmp_path / "rules.yaml").write_text("rules: [{match: ~nonsense}]")
    _until(addon, lambda: len(caplog.messages) > 1)
    assert re.fullmatch(
        r"jwtproxy: error: .*rules\.yaml:1: .*; keeping the previous configuration\njwtproxy: hint: .+",
        caplog.messages[1],
    )
    assert _claims(_signed(addon))["iss"] == "new"


@pytest.mark.usefixtures("hurried")
def test_an_error_that_nobody_foresaw_does_not_end_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    addon = _ruled(tmp_path)
    assert addon.current
    answers = iter([RuntimeError("unforeseen"), None, "reloaded"])

    def poll() -> Any:
        answer = next(answers, None)
        if isinstance(answer, RuntimeError):
            raise answer
        return answer

    monkeypatch.setattr(addon.current, "poll", poll)
    _until(addon, lambda: "jwtproxy: reloaded" in caplog.messages)
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]


def test_who_asks_for_it_has_them_read_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    addon = _ruled(tmp_path)
    (tmp_path / "rules.yaml").write_text("rules: [{match: ~all, issuer: new}]")
    addon.reload()
    assert _claims(_signed(addon))["iss"] == "new"
    (said,) = caplog.messages
    assert said.startswith("jwtproxy: reloaded: ")
    JwtInject().reload()  # one without settings has nothing to read


def test_of_several_workers_none_tells(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    (tmp_path / "rules.yaml").write_text(RULES)
    values = {option.name: option.default for option in settings.OPTIONS} | {"jwt_rules": str(tmp_path / "rules.yaml")}
    read = settings.parse(SimpleNamespace(**values))
    current = CurrentPolicy(read, SOURCE, filters.compile_filter)
    addon = JwtInject(SOURCE, current, announces=False)
    with taddons.context(modifyheaders.ModifyHeaders()) as context:
        context.options.update_defer(jwt_rules=str(tmp_path / "rules.yaml"))
        context.master.addons.add(addon)
        context.configure(addon)
        assert addon.current is current, "what has been read already is not read again"
        context.configure(addon, jwt_user="other")
        assert addon.current is not current
        addon.reload()
        (tmp_path / "rules.yaml").write_text("rules: [{match: ~nonsense}]")
        addon.reload()
        assert caplog.messages == []


def test_a_key_that_has_ended_signs_nothing_more(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "key.json").write_text(json.dumps({"kty": "oct", "k": "A" * 86, "exp": time.time() + 0.3}))
    addon, _ = _configured(KeySource("JWT_KEY_FILE", None, str(tmp_path / "key.json")))
    assert _signed(addon).response is None
    time.sleep(0.35)
    assert _is_refused(_signed(addon))
    (said,) = caplog.messages
    assert re.fullmatch(r"jwtproxy: error: a request was refused: no key may sign now\njwtproxy: hint: .+", said)


def test_what_is_published_is_that_of_the_policy() -> None:
    addon, _ = _configured(jwt_jwks_max_age="7", jwt_host_mismatch="allow")
    assert addon.current
    assert addon.published == (addon.current.policy.jwks, 7)
    assert addon.policy is addon.current.policy
    assert addon.policy.host_mismatch == "allow"


def test_before_there_are_settings_nothing_is_published() -> None:
    assert JwtInject().published == ('{"keys": []}\n', 0)
    assert JwtInject().policy is None


# --- coming and going


class Rewrites:
    """An addon that comes after ours and puts in its own."""

    def requestheaders(self, flow: HTTPFlow) -> None:
        flow.request.headers["x-my-jwt"] = "forged"
        flow.request.stream = True


class Halts:
    """An addon that comes before ours and keeps it from being asked."""

    def requestheaders(self, flow: HTTPFlow) -> None:
        raise exceptions.AddonHalt

    request = requestheaders


class Raises:
    """An addon with a mistake in it."""

    def requestheaders(self, flow: HTTPFlow) -> None:
        raise ValueError

    request = requestheaders


@pytest.mark.parametrize(
    ("before", "after"), [((), ()), ((), (Rewrites(),)), ((Halts(),), ()), ((Raises(),), (Rewrites(),))]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_leaves_is_signed_whatever_other_addons_do(
    serve: Serve, upstream: type[Upstream], before: tuple[object, ...], after: tuple[object, ...], method: str
) -> None:
    async def run() -> None:
        async with upstream() as server, serve(*before, JwtInject(SOURCE), *after) as proxy, proxy.client() as client:
            for _ in range(2):
                request = server.request("X-My-JWT: evil", "Content-Length: 2", method=method, body=b"hi")
                assert (await client.ask(request)).code == 200
        for head in server.heads:
            (token,) = re.findall(rb"(?i)^x-my-jwt: (.*)\r$", head, re.MULTILINE)
            _verify(token.decode())

    asyncio.run(run())


def test_nothing_leaves_once_the_addon_is_gone(serve: Serve, upstream: type[Upstream]) -> None:
    async def run() -> None:
        addon = JwtInject(SOURCE)
        async with upstream() as server, serve(addon) as proxy:
            assert (await proxy.ask(server.request())).code == 200
            proxy.master.addons.remove(addon)
            assert not proxy.master.should_exit.is_set(), "a reload may bring the next"
            page = gate.gate_of(proxy.master.options).refusal_for(tflow.tflow())
            assert page
            assert page.code == 502
            assert len(server.heads) == 1
            await asyncio.sleep(0.05)

    with pytest.raises(SystemExit) as end:
        asyncio.run(run())
    assert end.value.code == 1


def test_a_reload_goes_on(serve: Serve, upstream: type[Upstream]) -> None:
    async def run() -> None:
        first, second = JwtInject(SOURCE), JwtInject(SOURCE)
        async with upstream() as server, serve(first) as proxy:
            proxy.master.addons.remove(first)
            proxy.master.addons.add(second)
            second.configure(set())
            await asyncio.sleep(0.05)
            assert not proxy.master.should_exit.is_set()
            assert (await proxy.ask(server.request())).code == 200

    asyncio.run(run())


def test_the_end_of_the_run_closes_the_gate(caplog: pytest.LogCaptureFixture) -> None:
    addon, context = _configured()
    assert not gate.is_shut(context.options)
    addon.done()
    assert gate.is_shut(context.options)
    assert gate.gate_of(context.options).refusal_for(tflow.tflow()) is not None
    assert caplog.messages == [], "as it should be"


# --- what people see


def _printing() -> tuple[JwtInject, Any, io.StringIO, io.StringIO]:
    flows, logs = io.StringIO(), io.StringIO()
    addon = JwtInject(SOURCE)
    context = taddons.context(termlog.TermLog(logs), dumper.Dumper(flows), modifyheaders.ModifyHeaders(), addon)
    context.configure(addon, flow_detail=4, rawtcp=False)
    return addon, context, flows, logs


def test_tokens_are_not_printed() -> None:
    addon, context, flows, logs = _printing()
    for _ in range(2):  # a second call changes nothing
        _running(addon)
    flow = _signed(addon, tflow.tflow(resp=True, req=tutils.treq(headers=Headers())))
    flow.response, response = None, flow.response
    addon.request(flow)
    flow.response = response
    token = flow.request.headers["x-my-jwt"]
    context.master.addons.get("dumper").response(flow)
    logging.getLogger("test").warning("it is %s", token)
    for printed in (flows.getvalue(), logs.getvalue()):
        assert "[token]" in printed
        assert token not in printed
        assert token.rpartition(".")[2] not in printed


def test_without_a_terminal_there_is_nothing_to_redact() -> None:
    addon, _ = _configured(rawtcp=False)
    _running(addon)


@pytest.mark.parametrize(
    ("options", "warned"),
    [
        ({"rawtcp": False}, None),
        ({"rawtcp": True}, "rawtcp is on"),
        ({"rawtcp": False, "ignore_hosts": ["example"]}, "ignore_hosts is set"),
        ({"rawtcp": False, "allow_hosts": ["example"]}, "allow_hosts is set"),
        ({"rawtcp": False, "tcp_hosts": ["example"]}, "tcp_hosts is set"),
    ],
)
def test_what_passes_unsigned_is_said_at_the_start(
    options: dict[str, Any], warned: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    addon, _ = _configured(**options)
    _running(addon)
    if warned is None:
        assert caplog.messages == []
    else:
        (said,) = caplog.messages
        assert said.startswith("jwtproxy: warning: ")
        assert warned in said
        assert "unsigned" in said


@pytest.mark.parametrize(
    ("source", "said"),
    [(None, ["jwtproxy: warning: unknown variable JWT_USR: did you mean JWT_USER?"]), (SOURCE, [])],
    ids=["script", "launcher"],
)
def test_a_script_says_which_variables_have_no_effect(
    source: KeySource | None, said: list[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher has done so itself."""
    monkeypatch.setenv("JWT_SHARED_SECRET", "00" * 64)
    monkeypatch.setenv("JWT_USR", "me")
    addon, _ = _configured(source, rawtcp=False)
    _running(addon)
    assert caplog.messages == said


def test_a_script_refuses_them_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SHARED_SECRET", "00" * 64)
    monkeypatch.setenv("JWT_STRICT_ENV", "1")
    monkeypatch.setenv("JWT_COOKIE_SECURE", "1")
    addon = JwtInject()
    with taddons.context(loadcore=False), pytest.raises(SettingsError, match="JWT_COOKIE_SECURE") as caught:
        addon._apply()
    assert "env -u JWT_COOKIE_SECURE mitmdump" in caught.value.hint


def test_a_library_that_is_missing_ends_the_start(tmp_path: Path) -> None:
    code = f"import sys; sys.modules['h11'] = None; sys.path.insert(0, {str(ADDONS)!r}); import jwt_inject"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert "ModuleNotFoundError: import of h11" in done.stderr
