"""What becomes of a request: the whole verdict, by its head alone."""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, OKPKey

from jwtproxy.conduct.fields import Fields
from jwtproxy.conduct.host import Fault
from jwtproxy.conduct.request import RequestHead
from jwtproxy.conduct.verdict import Forward, Refuse
from jwtproxy.config.errors import SettingsError
from jwtproxy.mitm.filters import compile_filter
from jwtproxy.policy import judge
from jwtproxy.policy.faults import refusal
from jwtproxy.policy.judge import Policy
from jwtproxy.policy.settings import OPTIONS, parse
from jwtproxy.tokens import key_source
from jwtproxy.tokens.key_source import KeySource
from jwtproxy.tokens.keyring import NoKeyError, Reader
from jwtproxy.tokens.new_key import generate

SECRET = secrets.token_bytes(64)
SHARED = KeySource(key_source.SECRET, SECRET)
NOW = 1_700_000_000.9
PSEUDONYM = "jwtproxy-0a1b2c3d"
PEM, OTHER, RSA = (generate(algorithm) for algorithm in ("EdDSA", "EdDSA", "RS256"))

pytestmark = pytest.mark.filterwarnings("ignore:EdDSA is deprecated")  # by RFC 9864, in favour of a new name

FIELDS: Fields = ((b"Host", b"a.example"), (b"Accept", b"*/*"), (b"X-My", b"\xe9"))
HEAD = RequestHead(b"GET", "http", "a.example", 80, b"/", FIELDS)

RULES = """\
rules:
  - name: pay
    match: ~d ^pay\\.example$
    header: X_Pay
    audience: [origin, more]
  - match: ~d ^free\\.example$
    sign: false
  - name: no more
    match: ~d ^blocked\\.example$
    block: true
  - match: ~m ^DELETE$
    user: deleter
  - match: ~d ^own\\.example$
    user: proxyauth
"""


class Loader:
    """Loads policies whose rules are in this folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.place = f"{folder}/rules.yaml"

    def __call__(self, rules: str = "", source: KeySource = SHARED, **options: str) -> Policy:
        values = {option.name: options.get(option.name.removeprefix("jwt_"), "") for option in OPTIONS}
        if rules:
            Path(self.place).write_text(rules)
            values["jwt_rules"] = self.place
        return judge.load(parse(SimpleNamespace(**values)), source, compile_filter, Reader(0), PSEUDONYM)


@pytest.fixture
def load(tmp_path: Path) -> Loader:
    for name, text in (("ed", PEM), ("other", OTHER), ("rsa", RSA)):
        (tmp_path / f"{name}.pem").write_text(text)
    return Loader(tmp_path)


def _to(host: str, **changes: Any) -> RequestHead:
    return replace(HEAD, host=host, **changes)


def _forwarded(policy: Policy, head: RequestHead) -> Forward:
    verdict = policy.verdict(head, NOW)
    assert isinstance(verdict, Forward)
    return verdict


def _claims(verdict: Forward) -> dict[str, Any]:
    """What the token says that is the last field, but for what differs each time."""
    assert verdict.header
    name, token = verdict.fields[-1]
    assert name == verdict.header.encode()
    claims = jwt.decode(token, OctKey.import_key(SECRET), algorithms=["HS512"]).claims
    del claims["jti"]
    return claims


OURS = {"iat": 1_700_000_000, "payload": {"user": "username", "date": "2023-11-14"}}


# --- without rules


@pytest.mark.parametrize("method", [b"GET", b"POST", b"OPTIONS", b"BREW", b"connect"])
def test_every_request_is_signed_and_keeps_what_it_has(load: Loader, method: bytes) -> None:
    verdict = _forwarded(load(), replace(HEAD, method=method))
    assert verdict[1:] == ("default", None, "x-my-jwt")
    assert verdict.fields[:-1] == FIELDS, "byte for byte, in order"
    assert _claims(verdict) == OURS


def test_each_request_has_a_token_of_its_own(load: Loader) -> None:
    policy = load()
    tokens = {policy.verdict(HEAD, NOW).fields[-1] for _ in range(3)}
    assert len(tokens) == 3


def test_a_connect_is_refused_for_what_is_wrong_with_it_alone(load: Loader) -> None:
    """It goes to us or to the next proxy; rules are for what comes through the tunnel."""
    policy = load("default: block\n" + RULES)
    assert policy.refusal(replace(HEAD, method=b"CONNECT", host="blocked.example")) is None


def test_what_a_script_makes_a_connect_of_is_judged_like_all_others(load: Loader) -> None:
    head = replace(HEAD, method=b"CONNECT", fields=((b"x-my-jwt", b"evil"),))
    verdict = load().verdict(head, NOW)
    assert isinstance(verdict, Forward)
    assert [name for name, _ in verdict.fields] == [b"x-my-jwt"]
    assert verdict.fields[0][1] != b"evil"
    assert isinstance(load(RULES).verdict(replace(head, host="blocked.example"), NOW), Refuse)


COPIES: list[tuple[Fields, Fields]] = [
    (((b"x-my-jwt", b"evil"),), ()),
    (((b"X-My-JWT", b"evil"), (b"A", b"b"), (b"x_my_jwt", b"evil"), (b"X_MY-JWT", b"")), ((b"A", b"b"),)),
    (((b"x-my-jwt-2", b"a"), (b"x-my", b"b"), (b"xmyjwt", b"c")),) * 2,
    (((b"Connection", b"close, x-my-jwt"),), ()),
    (((b"connection", b"X_My_JWT"), (b"Connection", b"keep-alive")), ()),
    (((b"Connection", b"X-My-JWT, TE"), (b"TE", b"trailers")), ((b"TE", b"trailers"), (b"Connection", b"TE"))),
    (((b"Connection", b"x-my-jwt"), (b"X_My_JWT", b"evil"), (b"X-My-JWT", b"evil")), ()),
    (((b"X-Pay", b"kept"),),) * 2,
]


@pytest.mark.parametrize(("sent", "kept"), COPIES)
def test_no_copy_of_the_token_leaves_but_ours_and_nothing_drops_it(load: Loader, sent: Fields, kept: Fields) -> None:
    verdict = _forwarded(load(), replace(HEAD, fields=(*FIELDS, *sent)))
    assert verdict.fields[:-1] == (*FIELDS, *kept)
    assert verdict.fields[-1][0] == b"x-my-jwt"
    assert _claims(verdict) == OURS


@pytest.mark.parametrize("value", [b"a\r\nx-my-jwt: evil", b"a\nb", b"\r", b"a\0b"])
@pytest.mark.parametrize("host", ["a.example", "free.example", "pay.example"])
def test_a_value_in_which_a_line_may_hide_is_refused(load: Loader, value: bytes, host: str) -> None:
    """Where no token is put in, too: none may come from the client."""
    verdict = load(RULES).verdict(_to(host, fields=(*FIELDS, (b"X", value))), NOW)
    assert isinstance(verdict, Refuse)
    assert verdict[:2] == (502, "a header value contains a control character")
    assert verdict.rule


@pytest.mark.parametrize("value", [b'"x-my-jwt"', b"x-my-jwt;q=1", b"x-my jwt", b"host"])
@pytest.mark.parametrize("host", ["a.example", "free.example", "pay.example"])
def test_a_connection_field_that_the_next_hop_may_take_for_our_name_is_refused(
    load: Loader, value: bytes, host: str
) -> None:
    verdict = load(RULES).verdict(_to(host, fields=(*FIELDS, (b"Connection", value))), NOW)
    assert isinstance(verdict, Refuse)
    assert (verdict.status, verdict.text.partition(" ")[0]) == (400, "Connection")
    assert verdict.rule


def test_judged_once_more_a_request_gets_another_token_and_nothing_else(load: Loader) -> None:
    """As it is after a script has changed it."""
    policy = load(via="on")
    head = replace(HEAD, fields=(*FIELDS, (b"TE", b"trailers"), (b"Upgrade", b"websocket"), (b"Via", b"1.1 a")))
    once = _forwarded(policy, head)
    twice = _forwarded(policy, replace(head, fields=once.fields))
    assert twice.fields[:-1] == once.fields[:-1]
    assert twice.fields[-1] != once.fields[-1]


# --- what the request says of its way


@pytest.mark.parametrize(
    ("option", "to_proxy", "requests", "answers"),
    [
        ("", False, False, True),
        ("auto", False, False, True),
        ("auto", True, True, True),
        ("on", False, True, True),
        ("on", True, True, True),
        ("off", False, False, False),
        ("off", True, False, False),
    ],
)
@pytest.mark.parametrize(("version", "entry"), [(b"HTTP/1.1", b"1.1"), (b"HTTP/1.0", b"1.0"), (b"HTTP/2.0", b"2")])
def test_messages_name_us_where_that_is_wished(
    load: Loader, option: str, to_proxy: bool, requests: bool, answers: bool, version: bytes, entry: bytes
) -> None:
    """RFC 9110 §7.6.3. To an origin, by default, not: some then compress nothing."""
    for policy in (load(via=option), load(RULES, via=option)):
        assert policy.via_on_answers is answers
        for host in ("a.example", "free.example"):
            head = _to(host, to_proxy=to_proxy, http_version=version)
            fields = _forwarded(policy, head).fields
            said = [value for name, value in fields if name.lower() == b"via"]
            assert said == ([entry + b" " + PSEUDONYM.encode()] if requests else [])


def test_who_came_before_is_named_before(load: Loader) -> None:
    fields = (*FIELDS, (b"via", b"1.0 fred"))
    *kept, (name, value), _ = _forwarded(load(via="on"), replace(HEAD, fields=fields)).fields
    assert (tuple(kept), name.lower(), value) == (fields, b"via", b"1.1 " + PSEUDONYM.encode())


def test_only_a_next_proxy_sees_what_is_for_proxies(load: Loader) -> None:
    fields = (*FIELDS, (b"Proxy-Authorization", b"Basic YTpi"))
    assert _forwarded(load(), replace(HEAD, fields=fields)).fields[:-1] == FIELDS
    left = _forwarded(load(via="off"), replace(HEAD, fields=fields, to_proxy=True)).fields
    assert left[:-1] == fields


@pytest.mark.parametrize("rules", ["", RULES])
def test_trace_would_show_the_token(load: Loader, rules: str) -> None:
    head = replace(HEAD, method=b"TRACE")
    policy = load(rules)
    assert policy.verdict(head, NOW) == policy.refusal(head)
    refused = policy.refusal(head)
    assert refused
    assert (refused.status, refused.rule, [name for name, _ in refused.fields]) == (405, None, [b"Allow"])
    assert "jwt_trace=on" in refused.text
    assert policy.refusal(replace(head, fault=Fault.TUNNEL)) != refused
    assert load(rules, host_mismatch="allow").refusal(replace(head, fault=Fault.TUNNEL)) == refused
    assert _claims(_forwarded(load(rules, trace="on"), head)) == OURS


# --- what was wrong as the client sent it


@pytest.mark.parametrize("mismatch", ["refuse", "allow"])
@pytest.mark.parametrize("method", [b"GET", b"CONNECT"])
@pytest.mark.parametrize(
    ("fault", "status"),
    [(Fault.TARGET, 400), (Fault.HOST, 400), (Fault.NO_HOST, 400), (Fault.LOOP, 502), (Fault.HOPS, 200)],
)
def test_what_must_not_go_on_is_answered_here(
    load: Loader, mismatch: str, method: bytes, fault: Fault, status: int
) -> None:
    """Before any rule is asked, which could not even look at it."""
    policy = load(RULES, host_mismatch=mismatch)
    head = _to("a b", method=method, fault=fault)
    refused = policy.refusal(head)
    assert policy.verdict(head, NOW) == refused == refusal(head, mismatch)
    assert refused
    assert (refused.status, refused.rule) == (status, None)


TUNNEL = "https://127.0.0.1:8443"


def test_who_names_another_host_than_the_tunnels_is_refused(load: Loader) -> None:
    """The tunnel's destination is named, and the way out; what the client said is not echoed."""
    head = _to("free.example", tunnel=TUNNEL, fault=Fault.TUNNEL, fields=((b"Host", b"other.example"),))
    verdict = load(RULES).verdict(head, NOW)
    assert isinstance(verdict, Refuse)
    assert (verdict.status, verdict.rule, verdict.place) == (421, None, None)
    assert f"this tunnel leads to {TUNNEL}, " in verdict.text
    assert "jwt_host_mismatch=allow" in verdict.text
    assert "example" not in verdict.text


def test_or_may_do_so(load: Loader) -> None:
    head = replace(HEAD, tunnel=TUNNEL, fault=Fault.TUNNEL)
    verdict = _forwarded(load(host_mismatch="allow"), head)
    assert verdict.fields[:-1] == FIELDS
    assert _claims(verdict) == OURS
    blocked = load(RULES, host_mismatch="allow").verdict(replace(head, host="blocked.example"), NOW)
    assert isinstance(blocked, Refuse), "rules go on to decide"


# --- rules


@pytest.mark.parametrize(
    ("head", "rule", "line", "claims"),
    [
        (_to("pay.example"), "pay", 2, OURS | {"aud": ["http://pay.example", "more"]}),
        (_to("PAY.example.", port=8080), "pay", 2, OURS | {"aud": ["http://pay.example:8080", "more"]}),
        (_to("pay.example", method=b"DELETE"), "pay", 2, OURS | {"aud": ["http://pay.example", "more"]}),
        (_to("a.example", method=b"DELETE"), "rule 4", 11, OURS | {"payload": OURS["payload"] | {"user": "deleter"}}),  # type: ignore[operator]
        (_to("a.example"), "default", None, OURS),
    ],
)
def test_the_rule_that_decides_says_what_the_token_says(
    load: Loader, head: RequestHead, rule: str, line: int | None, claims: dict[str, Any]
) -> None:
    verdict = _forwarded(load(RULES), head)
    assert (verdict.rule, verdict.place) == (rule, f"{load.place}:{line}" if line else None)
    assert verdict.header == ("X_Pay" if rule == "pay" else "x-my-jwt")
    assert verdict.fields[:-1] == FIELDS
    assert _claims(verdict) == claims


def test_a_rule_may_name_who_has_given_a_password(load: Loader) -> None:
    policy = load(RULES)
    for user in ("alice", "b\u00f6b", "proxyauth"):
        assert _claims(_forwarded(policy, _to("own.example", user=user)))["payload"]["user"] == user
    assert _claims(_forwarded(policy, _to("other.example", user="alice")))["payload"]["user"] == "username"


def test_where_nobody_has_nothing_is_signed_in_another_name(load: Loader) -> None:
    with pytest.raises(SettingsError, match="rule 'rule 5' puts the user of --proxyauth into the token"):
        load(RULES).verdict(_to("own.example"), NOW)


def test_who_may_not_use_the_proxy_is_refused(load: Loader) -> None:
    policy = load("", allow_client="10.0.0.0/8")
    assert isinstance(policy.verdict(replace(HEAD, client=("10.0.0.1", 1)), NOW), Forward)
    assert isinstance(policy.verdict(replace(HEAD, is_ours=True), NOW), Forward)
    for client in (("192.0.2.1", 1), None):
        refused = policy.verdict(replace(HEAD, client=client), NOW)
        assert isinstance(refused, Refuse)
        assert (refused.status, refused.limit) == (403, "jwt_allow_client")


def test_a_rule_may_let_a_request_pass_without_a_token(load: Loader) -> None:
    """And without any that the client put in, by whatever name another rule has for it."""
    copies = ((b"X-My_Jwt", b"evil"), (b"x-pay", b"evil"), (b"Connection", b"x-pay"))
    verdict = load(RULES).verdict(_to("free.example", fields=(*FIELDS, *copies)), NOW)
    assert verdict == Forward(FIELDS, "rule 2", f"{load.place}:6", None)


def test_what_any_rule_calls_the_token_passes_from_no_client(load: Loader) -> None:
    copies = ((b"X-Pay", b"evil"), (b"x_my-jwt", b"evil"))
    for host, header in (("pay.example", b"X_Pay"), ("a.example", b"x-my-jwt")):
        verdict = _forwarded(load(RULES), _to(host, fields=(*copies, *FIELDS)))
        assert (verdict.fields[:-1], verdict.fields[-1][0]) == (FIELDS, header)


def test_a_rule_may_block(load: Loader) -> None:
    for fields in (FIELDS, ((b"A", b"b\nc"),)):
        verdict = load(RULES).verdict(_to("blocked.example", fields=fields), NOW)
        assert verdict == Refuse(403, "blocked by rule 'no more'", "no more", f"{load.place}:8")


def test_what_no_rule_allows_may_be_blocked(load: Loader) -> None:
    policy = load("default: block\n" + RULES)
    assert policy.verdict(HEAD, NOW) == Refuse(403, "no rule allows this request", "default", None)
    assert _forwarded(policy, _to("pay.example")).rule == "pay"


def test_the_audience_is_where_the_request_goes(load: Loader) -> None:
    policy = load(audience="origin")
    for head in (_to("a.example", port=8443), _to("b.example", port=8443)):
        assert _claims(_forwarded(policy, head))["aud"] == f"{head.scheme}://{head.host}:8443"


# --- what cannot be decided


@pytest.mark.parametrize(("host", "port"), [("a b", 80), ("", 80), ("a.example", 0)])
def test_a_destination_that_cannot_be_dialled_matters_only_where_it_is_looked_at(
    load: Loader, host: str, port: int
) -> None:
    head = _to(host, port=port)
    assert _claims(_forwarded(load(), head)) == OURS
    assert _claims(_forwarded(load(audience="https://origin"), head)) == OURS | {"aud": "https://origin"}
    for policy in (load(audience="origin"), load(RULES)):
        with pytest.raises(ValueError, match=r"\w") as caught:
            policy.verdict(head, NOW)
        assert not isinstance(caught.value, SettingsError)
    assert load(RULES).refusal(replace(head, method=b"CONNECT")) is None


def test_while_no_key_may_sign_nothing_is_signed(load: Loader) -> None:
    jwk = {"kty": "oct", "k": "A" * 86, "exp": 4e9}
    (load.folder / "old.json").write_text(json.dumps(jwk))
    policy = load(RULES, KeySource(key_source.KEY_FILE, None, str(load.folder / "old.json")))
    assert isinstance(policy.verdict(HEAD, 4e9 - 1), Forward)
    with pytest.raises(NoKeyError):
        policy.verdict(HEAD, 4e9)
    assert isinstance(policy.verdict(_to("free.example"), 4e9), Forward), "which needs no key"
    assert isinstance(policy.verdict(_to("blocked.example"), 4e9), Refuse)
    assert (policy.lacking(4e9 - 1), policy.lacking(4e9)) == ("", "no key may sign now")


# --- trailers


@pytest.mark.parametrize(
    ("trailers", "left"),
    [
        ((), ()),
        (((b"grpc-status", b"0"), (b"X_My_JWT", b"evil"), (b"x-pay", b"evil")), ((b"grpc-status", b"0"),)),
        (((b"grpc-status", b"0"), (b"a", b"b\r\nx-my-jwt: evil")), ()),
    ],
)
def test_no_token_passes_in_trailers(load: Loader, trailers: Fields, left: Fields) -> None:
    assert load(RULES).clean_trailers(trailers) == left


# --- what it tells of itself


def test_all_public_keys_are_published_once(load: Loader) -> None:
    source = KeySource(key_source.KEY_FILE, None, str(load.folder / "other.pem"))
    rules = "rules: [{match: ~m A, key: ed.pem}, {match: ~m B, key: ed.pem}, {match: ~m C, user: x}]"
    policy = load(rules, source, kid="k1")
    text = policy.jwks
    keys = json.loads(text)["keys"]
    assert text == json.dumps({"keys": keys}, indent=1) + "\n"
    assert [key["kid"] for key in keys] == ["k1", policy.decisions.makers["rule 1"].ring.keys[0].kid]
    assert all(set(key) == {"kty", "crv", "x", "use", "alg", "kid"} for key in keys)
    assert re.findall(r"\d+", str(policy)) == ["2", "3"], "keys, rules"


@pytest.mark.parametrize(("algorithm", "expected"), [("", "EdDSA"), ("EdDSA", "EdDSA"), ("Ed25519", "Ed25519")])
def test_ed25519_is_published_under_the_name_that_signs(load: Loader, algorithm: str, expected: str) -> None:
    source = KeySource(key_source.KEY_FILE, None, str(load.folder / "ed.pem"))
    policy = load(source=source, algorithm=algorithm)
    (key,) = json.loads(policy.jwks)["keys"]
    head = jwt.decode(_forwarded(policy, HEAD).fields[-1][1], OKPKey.import_key(key), algorithms=[expected]).header
    assert (key["alg"], head["alg"], head["kid"]) == (expected, expected, key["kid"])


@pytest.mark.parametrize("kid", ["", "k1"])
def test_a_shared_secret_is_not_published(load: Loader, kid: str) -> None:
    policy = load(kid=kid)
    assert json.loads(policy.jwks) == {"keys": []}
    assert re.findall(r"\d+", str(policy).replace(kid or " ", "")) == ["1", "0"], "keys, rules"


def test_one_key_for_two_algorithms_is_an_error(load: Loader) -> None:
    """A verifier that knows one by the kid refuses the other."""
    with pytest.raises(SettingsError, match="one key two algorithms"):
        load("rules: [{match: ~m A, key: rsa.pem}, {match: ~m B, key: rsa.pem, algorithm: PS256}]")


def test_it_is_known_which_fields_may_carry_a_token(load: Loader) -> None:
    policy = load(RULES, header="X-Identity")
    assert policy.headers == {"X_Pay", "X-Identity"}
    assert policy.token_fields == {b"x-pay", b"x-identity"}
    assert load().headers == {"x-my-jwt"}


def test_it_is_known_by_which_name(load: Loader) -> None:
    assert load().pseudonym == load(via="off").pseudonym == PSEUDONYM


def test_it_is_known_whether_rules_decide(load: Loader) -> None:
    assert load(RULES).has_rules
    assert not load().has_rules


def test_it_is_known_since_when_keys_are_there(load: Loader) -> None:
    (load.folder / "keys").mkdir()
    (load.folder / "keys/a.pem").write_text(PEM)
    policy = load(source=KeySource(key_source.KEY_DIR, None, str(load.folder / "keys")))
    assert len(policy.since) == 1
    assert load().since == {}
