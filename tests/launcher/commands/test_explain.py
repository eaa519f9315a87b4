"""`explain` tells what the proxy would do, from the same settings, and does none of it."""

from __future__ import annotations

import json
import re
import secrets
import socket
from pathlib import Path
from typing import Any, NoReturn

import pytest
from mitmproxy.certs import CertStore

from jwtproxy.launcher.commands import explain

RULES = """\
rules:
  - name: pay
    match: ~d ^pay\\.example$ & ~m ^POST$
    audience: origin
    issuer: us
    ttl: 60
    header: x-pay
    typ: at+jwt
    claims: {scope: [a, é]}
  - match: ~d ^open\\.example$
    sign: false
  - name: closed
    match: '~hq "^x-close: 1$" | ~src ^10\\.'
    block: true
  - name: here
    match: ~src ^127\\.0\\.0\\.1
"""


@pytest.fixture(autouse=True)
def at_rest(pristine: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key, rules in the working directory, and nothing that listens, resolves or makes a CA."""

    def never(*args: object, **kwargs: object) -> NoReturn:
        raise AssertionError(f"{args} {kwargs}")

    monkeypatch.setenv("JWT_SHARED_SECRET", secrets.token_hex(64))
    for holder, name in ((socket.socket, "connect"), (socket.socket, "bind"), (socket, "getaddrinfo")):
        monkeypatch.setattr(holder, name, never)
    monkeypatch.setattr(CertStore, "from_store", never)
    Path("rules.yaml").write_text(RULES, encoding="utf-8")


Captured = pytest.CaptureFixture[str]
USED = ("--set", "jwt_rules=rules.yaml")


def _json(capsys: Captured, *arguments: str) -> dict[str, Any]:
    assert explain.run(["--json", *arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    said: dict[str, Any] = json.loads(out)
    return said


def _error(capsys: Captured, *arguments: str) -> str:
    assert explain.run(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err


def test_a_token_is_foretold(capsys: Captured) -> None:
    said = _json(capsys, *USED, "POST", "https://PAY.example.:443/x")
    claims = said["token"].pop("claims")
    assert said == {
        "destination": "https://pay.example",
        "rule": "pay",
        "place": "rules.yaml:2",
        "action": "sign",
        "status": None,
        "header": "x-pay",
        "token": {"header": {"alg": "HS512", "typ": "at+jwt"}},
        "reason": None,
    }
    assert (claims["aud"], claims["iss"], claims["scope"]) == ("https://pay.example", "us", ["a", "é"])
    assert (claims["exp"] - claims["iat"], claims["payload"]["user"]) == (60, "username")


@pytest.mark.parametrize(
    ("arguments", "rule", "place", "action", "status"),
    [
        (("GET", "https://open.example/"), "rule 2", "rules.yaml:10", "pass", None),
        (("GET", "https://x.example/", "-H", "X-Close: 1"), "closed", "rules.yaml:12", "block", 403),
        (("-H", "X-Close:1", "--header", "X: y", "GET", "http://x.example"), "closed", "rules.yaml:12", "block", 403),
        (("GET", "https://x.example/"), "here", "rules.yaml:15", "sign", None),
        (("GET", "https://x.example/", "-H", "Host: open.example"), None, None, "refuse", 421),
        (("GET", "http://x.example/", "-H", "Host: open.example"), "here", "rules.yaml:15", "sign", None),
        (("GET", "https://[fd00:ec2::254]/"), None, None, "refuse", 403),
        (("GET", "https://open.example/", "-H", "Host: OPEN.example:443"), "rule 2", "rules.yaml:10", "pass", None),
    ],
)
def test_who_decides(
    capsys: Captured, arguments: tuple[str, ...], rule: str | None, place: str | None, action: str, status: int | None
) -> None:
    said = _json(capsys, *USED, *arguments)
    assert (said["rule"], said["place"], said["action"], said["status"]) == (rule, place, action, status)
    assert (said["token"] is None) is (said["header"] is None) is (action != "sign")


def test_a_contradiction_may_be_allowed(capsys: Captured) -> None:
    allow = ("--set", "jwt_host_mismatch=allow")
    said = _json(capsys, *USED, *allow, "GET", "https://open.example/", "-H", "Host: other.example")
    assert (said["rule"], said["action"]) == ("rule 2", "pass")


def test_without_rules_the_default_decides(capsys: Captured) -> None:
    said = _json(capsys, "GET", "https://x.example/")
    assert (said["rule"], said["place"], said["action"], said["header"]) == ("default", None, "sign", "x-my-jwt")
    assert sorted(said["token"]["claims"]) == ["iat", "jti", "payload"]


def test_the_default_may_be_to_block(capsys: Captured) -> None:
    Path("rules.yaml").write_text("default: block\nrules: [{match: ~d ^x$}]\n")
    said = _json(capsys, *USED, "GET", "https://y/")
    assert (said["rule"], said["place"], said["action"], said["status"]) == ("default", None, "block", 403)


def test_for_people(capsys: Captured) -> None:
    assert explain.run([*USED, "POST", "https://pay.example/"]) == 0
    text = re.sub(r"(?<=iat|jti|nbf|exp|ate)\": [^,\n]+", '": …', capsys.readouterr().out)
    assert text == (
        "destination  https://pay.example\n"
        "rule         pay (rules.yaml:2)\n"
        "action       sign: a token in x-pay\n"
        "\n"
        "token's header\n"
        '{\n  "alg": "HS512",\n  "typ": "at+jwt"\n}\n'
        "\n"
        "token's claims\n"
        '{\n  "iat": …,\n  "jti": …,\n  "payload": {\n    "user": "username",\n    "date": …\n  },\n  "iss": "us",\n'
        '  "aud": "https://pay.example",\n  "nbf": …,\n  "exp": …,\n  "scope": [\n    "a",\n    "é"\n  ]\n}\n'
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("GET", "http://open.example/"), ["rule         rule 2 (rules.yaml:10)", "action       pass: no token"]),
        (("-H", "X-Close: 1", "GET", "http://x/"), ["rule         closed (rules.yaml:12)", "action       block: 403"]),
        (
            ("-H", "Host: y", "GET", "https://x/"),
            [
                "rule         none applies",
                (
                    "action       refuse: 421, this tunnel leads to https://x, but the request names another host; "
                    "jwt_host_mismatch=allow permits it"
                ),
            ],
        ),
        (
            ("GET", "http://2852039166/"),
            [
                "rule         none applies",
                (
                    "action       refuse: 403, http://169.254.169.254:80 is denied, as it is a link-local or metadata "
                    "address; jwt_allow_destination permits it"
                ),
            ],
        ),
    ],
)
def test_for_people_without_a_token(capsys: Captured, arguments: tuple[str, ...], words: list[str]) -> None:
    assert explain.run([*USED, *arguments]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == words


@pytest.mark.parametrize(
    ("environment", "dotenv", "config", "flags", "user"),
    [
        ("", "", "", (), "username"),
        ("", "", "config", (), "config"),
        ("", "dotenv", "config", (), "dotenv"),
        ("environment", "dotenv", "config", (), "environment"),
        ("environment", "dotenv", "config", ("--set", "jwt_user=flag"), "flag"),
    ],
)
def test_settings_come_from_where_they_do_when_serving(
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
    environment: str,
    dotenv: str,
    config: str,
    flags: tuple[str, ...],
    user: str,
) -> None:
    monkeypatch.setenv("JWT_USER", environment)
    Path(".env").write_text(f"JWT_USER={dotenv}\n")
    Path(".mitmproxy").mkdir()
    Path(".mitmproxy/config.yaml").write_text(f"jwt_user: {config}\n" if config else "")
    assert _json(capsys, "GET", "http://x/", *flags)["token"]["claims"]["payload"]["user"] == user


def test_options_of_mitmdump_may_stand_anywhere(capsys: Captured) -> None:
    said = _json(capsys, "-p", "9", "GET", "--modify-headers", "/~q/x/y", "http://x/", "-w", "flows", *USED)
    assert said["rule"] == "here"
    assert sorted(path.name for path in Path().iterdir()) == ["rules.yaml"]


@pytest.mark.parametrize(
    ("arguments", "said", "hint"),
    [
        ((), "explain needs a method and a URL, not ''", "GET https://api.example/"),
        (("GET",), "explain needs a method and a URL, not 'GET'", "GET https://api.example/"),
        (("GET", "http://x/", "y"), "explain needs a method and a URL, not 'GET http://x/ y'", "GET https://api"),
        (("http://x/", "GET"), "bad method 'http://x/'", "GET https://api.example/"),
        (("CONNECT", "x:443"), "a CONNECT is never signed", "a request inside the tunnel"),
        (("GET", "x"), "bad URL 'x'", "https://host:port/path"),
        (
            ("GET", "http://x/", "-H", "nonsense"),
            "bad header 'nonsense' for -H",
            "'Name: value'; what carries the token is set with --set jwt_header=…",
        ),
        (("GET", "http://x/", "-H", "a b: c"), "bad header 'a b: c' for -H", "'Name: value'"),
        (("GET", "http://x/", "-H", "a: b\r\nc: d"), "bad header 'a: b\\r\\nc: d' for -H", "'Name: value'"),
        (("GET", "http://x/", "-H"), "argument -H/--header: expected one argument", "--help"),
        (("GET", "http://x/", "--nonsense"), "unrecognized arguments: --nonsense", "--help"),
        (("GET", "http://x/", "--set", "jwt_usr=x"), "unknown option 'jwt_usr'", "jwt_user"),
        (("GET", "http://x/", "--set", "jwt_ttl=soon"), "bad value 'soon' for jwt_ttl", "seconds"),
        (("GET", "http://x/", "--set", "jwt_rules=no.yaml"), "cannot read 'no.yaml': no such file", "a file"),
        (("GET", "http://x/", "--set", "jwt_key_file=no.pem"), "no.pem", ""),
    ],
)
def test_a_mistake_is_one_line_and_a_hint(capsys: Captured, arguments: tuple[str, ...], said: str, hint: str) -> None:
    error, _, advice = _error(capsys, *arguments).partition("\n")
    assert error.startswith("jwtproxy: error: ")
    assert said in error
    assert advice.startswith("jwtproxy: hint: ")
    assert hint in advice


def test_a_mistake_in_the_rules_has_its_line(capsys: Captured) -> None:
    Path("rules.yaml").write_text("rules:\n  - match: ~d x\n    audiense: y\n")
    assert _error(capsys, *USED, "GET", "http://x/") == (
        "jwtproxy: error: rules.yaml:3: unknown key 'audiense'\njwtproxy: hint: did you mean audience?\n"
    )


def test_without_a_key_nothing_is_explained(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JWT_SHARED_SECRET")
    assert "JWT_SHARED_SECRET is not set" in _error(capsys, "GET", "http://x/")


def test_the_help(capsys: Captured) -> None:
    with pytest.raises(SystemExit) as caught:
        explain.run(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for word in ("jwtproxy-run explain [options] METHOD URL", "-H, --header LINE", "--json", "--key", "examples:"):
        assert word in text
    assert "jwtproxy-run explain --json GET" in text
    assert not {"--header NAME", "--workers", "--modify-headers"} & set(re.findall(r"--[-\w]+(?: NAME)?", text))


def test_the_whole_help_has_the_flags_of_mitmdump(capsys: Captured) -> None:
    with pytest.raises(SystemExit):
        explain.run(["--help-all"])
    assert "--modify-headers PATTERN" in capsys.readouterr().out
