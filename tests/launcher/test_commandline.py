"""Flags, --set, variables and config.yaml: which of them counts, and what is wrong with them."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from mitmproxy.options import Options

from jwtproxy.addons.jwt_inject import JwtInject
from jwtproxy.config.errors import SettingsError
from jwtproxy.launcher import commandline, option_checks
from jwtproxy.launcher.commands import COMMANDS, explain, keys, status, token
from jwtproxy.launcher.environment import OPTIONS
from jwtproxy.launcher.master import Master
from jwtproxy.policy.current import CurrentPolicy
from jwtproxy.tokens.key_source import SECRET, KeySource

pytestmark = pytest.mark.usefixtures("pristine")

KEY = secrets.token_bytes(64)


def _options(*arguments: str, config: str = "", **variables: object) -> dict[str, Any]:
    """All options as they are after all that sets them has been heard."""
    folder = Path("~/.mitmproxy").expanduser()
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(config)

    async def run() -> dict[str, Any]:
        master = Master(Options())
        args = commandline.parser(master.options).parse_args(list(arguments))
        commandline.set_options(master.options, args, variables)
        with option_checks.as_settings_errors():
            master.add_ours(JwtInject(KeySource(SECRET, KEY)))
        option_checks.check(master.options)
        return {name: option.current() for name, option in master.options.items()}

    return asyncio.run(run())


def _error(*arguments: str, config: str = "", **variables: object) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        _options(*arguments, config=config, **variables)
    return caught.value


def test_the_defaults_are_safe() -> None:
    options = _options()
    assert options["listen_host"] == "127.0.0.1"
    assert options["rawtcp"] is False
    assert options["jwt_user"] == "username"


PRECEDENCE: list[tuple[tuple[str, ...], str, dict[str, object], dict[str, object]]] = [
    ((), "listen_port: 1", {}, {"listen_port": 1}),
    ((), "listen_port: 1", {"listen_port": 2}, {"listen_port": 2}),
    (("--set", "listen_port=3"), "listen_port: 1", {"listen_port": 2}, {"listen_port": 3}),
    (("-p", "4"), "listen_port: 1", {"listen_port": 2}, {"listen_port": 4}),
    (("--port", "4", "-p", "4", "--set", "listen_port=4"), "listen_port: 1", {"listen_port": 2}, {"listen_port": 4}),
    (("--host", "::1"), "listen_host: 10.0.0.1", {"listen_host": "10.0.0.2"}, {"listen_host": "::1"}),
    (("--host", "*"), "", {}, {"listen_host": ""}),
    (("--host", "*", "--listen-host", ""), "", {}, {"listen_host": ""}),
    ((), "jwt_user: config", {}, {"jwt_user": "config"}),
    ((), "jwt_user: config", {"jwt_user": "variable"}, {"jwt_user": "variable"}),
    (("--set", "jwt_user=set"), "jwt_user: config", {"jwt_user": "variable"}, {"jwt_user": "set"}),
    (
        (),
        "jwt_connect_timeout: 5\njwt_response_timeout: 0.5",
        {},
        {"jwt_connect_timeout": "5", "jwt_response_timeout": "0.5"},
    ),
    (("--allow-client", "10.0.0.0/8"), "", {"jwt_allow_client": "::1"}, {"jwt_allow_client": "10.0.0.0/8"}),
    (("--allow-client", "::1", "--allow-client", "::2,::3"), "", {}, {"jwt_allow_client": "::1,::2,::3"}),
    (("--allow-client", "::1", "--set", "jwt_allow_client=::1"), "", {}, {"jwt_allow_client": "::1"}),
    (("--user", "flag"), "jwt_user: config", {"jwt_user": "variable"}, {"jwt_user": "flag"}),
    (("--user", "a=b", "--set", "jwt_user=a=b"), "", {}, {"jwt_user": "a=b"}),
    (("--user", ""), "", {"jwt_user": "variable"}, {"jwt_user": ""}),
    (
        ("--audience", "origin", "--ttl", "60", "--header", "x-own"),
        "jwt_audience: config\njwt_header: x-config",
        {"jwt_ttl": "5"},
        {"jwt_audience": "origin", "jwt_ttl": "60", "jwt_header": "x-own"},
    ),
    ((), "rawtcp: true", {}, {"rawtcp": True}),
    (("--set", "rawtcp=false"), "rawtcp: true", {}, {"rawtcp": False}),
]


@pytest.mark.parametrize(("arguments", "config", "variables", "expected"), PRECEDENCE)
def test_the_nearer_setting_wins(
    arguments: tuple[str, ...], config: str, variables: dict[str, object], expected: dict[str, object]
) -> None:
    options = _options(*arguments, config=config, **variables)
    assert {name: options[name] for name in expected} == expected


def test_another_confdir_has_another_config(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/config.yml").write_text("jwt_user: other")
    assert _options("--set", f"confdir={tmp_path}/other", config="jwt_user: config")["jwt_user"] == "other"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("-q",), {"termlog_verbosity": "error", "flow_detail": 0}),
        (("--check",), {"termlog_verbosity": "error", "flow_detail": 0}),
        (("-v",), {"termlog_verbosity": "debug", "flow_detail": 2}),
        (("--filter", "~u /x"), {"dumper_filter": "~u /x", "save_stream_filter": "~u /x", "readfile_filter": "~u /x"}),
        (("--mode", "reverse:http://up.example"), {"connection_strategy": "lazy"}),
        (("--mode", "reverse:http://up.example", "--mode", "regular@9"), {"connection_strategy": "eager"}),
        (("-k", "-n", "--mode", "socks5"), {"ssl_insecure": True, "server": False, "mode": ["socks5"]}),
    ],
)
def test_the_flags_of_mitmdump_do_what_they_do_there(arguments: tuple[str, ...], expected: dict[str, object]) -> None:
    options = _options(*arguments)
    assert {name: options[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--port", "1", "-p", "2"), "--port 1 and --listen-port 2 contradict each other"),
        (("--port", "1", "--set", "listen_port=2"), "--port 1 and --listen-port 2 contradict each other"),
        (
            ("--allow-client", "::1", "--set", "jwt_allow_client=::2"),
            "--allow-client ::1 and --set jwt_allow_client=::2 contradict each other",
        ),
        (("--user", "a", "--set", "jwt_user=b"), "--user a and --set jwt_user=b contradict each other"),
        (("--key", "a", "--set", "jwt_key_file=b"), "--key a and --set jwt_key_file=b contradict each other"),
        (("--host", "::1", "--listen-host", "::"), "--host ::1 and --listen-host :: contradict each other"),
    ],
)
def test_two_answers_to_one_question_are_an_error(arguments: tuple[str, ...], said: str) -> None:
    error = _error(*arguments)
    assert str(error) == said
    assert error.hint == "keep one of the two"


@pytest.mark.parametrize(
    ("arguments", "said", "hint"),
    [
        (("--nonsense",), "--nonsense", "--help"),
        (("--usr", "ci"), "unrecognized arguments: --usr", "did you mean --user?"),
        (("--tll=9",), "unrecognized arguments: --tll=9", "did you mean --ttl?"),
        (("--anticahe",), "unrecognized arguments: --anticahe", "did you mean --anticache?"),
        (("--jwt-via", "on"), "unrecognized arguments: --jwt-via", "options are given with --set jwt_via=…"),
        (("--jwt_ttl=9",), "unrecognized arguments: --jwt_ttl=9", "options are given with --set jwt_ttl=…"),
        (("--port", "http"), "bad value 'http' for --port", "65535"),
        (("--set", "jwt_usr=x"), "unknown option 'jwt_usr'", "jwt_user"),
        (("--set", "jwt_pages=maybe"), "bad value 'maybe' for jwt_pages", "JWT_PAGES"),
        (("--allow-client", "10.0.0.1/8"), "bad value '10.0.0.1/8' for jwt_allow_client", "as 10.0.0.0/8"),
        (("--ttl", "soon"), "bad value 'soon' for jwt_ttl", "seconds"),
        (("--header", "a b"), "bad value 'a b' for jwt_header", "name"),
        (("--filter", "~zz"), "~zz", "--options"),
        (("--set", "jwt_algorithm=none"), "bad value 'none' for jwt_algorithm", "HS512"),
        (("--set", "jwt_connect_timeout=soon"), "bad value 'soon' for jwt_connect_timeout", "seconds"),
        (("--port", "65536"), "bad value '65536' for --port", "65535"),
        (("-p", "-1"), "bad value -1 for the port", "65535"),
        (("--set", "listen_port=x"), "x", "--options"),
        (("--ignore-hosts", "["), "bad value '[' for ignore_hosts", "regular expression"),
        (("--allow-hosts", "("), "bad value '(' for allow_hosts", "regular expression"),
        (("--set", "tcp_hosts=*"), "bad value '*' for tcp_hosts", "regular expression"),
        (("--mode", "nonsense"), "nonsense", "--options"),
        (("--set", "termlog_verbosity=loud"), "'loud' for termlog_verbosity", "debug"),
        (("--set", "modify_headers=/x-my-jwt/evil"), "names the token's own header", "remove the rule"),
    ],
)
def test_a_mistake_is_named_with_the_way_out(arguments: tuple[str, ...], said: str, hint: str) -> None:
    error = _error(*arguments)
    assert said in str(error)
    assert hint in error.hint


@pytest.mark.parametrize(
    "config", ["listen_port: [1]", "listen_port: http", "- a\n- b", "{", "jwt_usr: x", "jwt_pages: maybe", "a: b: c"]
)
def test_a_broken_config_is_an_error(config: str) -> None:
    error = _error(config=config)
    assert str(error)
    assert error.hint


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_config_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch(0)
    error = _error("--set", f"confdir={tmp_path}")
    assert str(error) == f"cannot read {tmp_path}/config.yaml: permission denied"


def test_a_script_may_have_options_of_its_own() -> None:
    assert _options("--set", "mine=1", config="theirs: 2")["jwt_user"] == "username"


# --- the key


def _configured(
    *arguments: str, environ: dict[str, str] | None = None, dotenv: dict[str, str] | None = None, config: str = ""
) -> tuple[KeySource, CurrentPolicy]:
    """The source of the key, and the policy, after all that names one has been heard."""
    folder = Path("~/.mitmproxy").expanduser()
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(config)

    async def run() -> tuple[KeySource, CurrentPolicy]:
        with commandline.preview() as master:
            args = commandline.parser(master.options).parse_args(list(arguments))
            return commandline.configure(master, args, (environ or {}, dotenv or {}))

    return asyncio.run(run())


def _set(**options: str) -> tuple[str, ...]:
    return tuple(word for name, value in options.items() for word in ("--set", f"{name}={value}"))


SHARED = {SECRET: KEY.hex()}
KEYS: list[tuple[tuple[str, ...], dict[str, str], dict[str, str], str, str]] = [
    # flags, environment, .env, config.yaml, the source that wins
    ((), SHARED, {}, "", "JWT_SHARED_SECRET "),
    ((), {}, SHARED, "jwt_key_dir: keys", "JWT_SHARED_SECRET "),
    ((), {}, {"JWT_KEY_FILE": "key"}, "jwt_key_dir: keys", "JWT_KEY_FILE key"),
    ((), {"JWT_KEY_FILE": "key"}, SHARED, "", "JWT_KEY_FILE key"),
    ((), {"JWT_SHARED_SECRET_FILE": "key"}, {"JWT_KEY_DIR": "keys"}, "", "JWT_SHARED_SECRET_FILE key"),
    ((), {"JWT_KEY_FILE": ""}, {"JWT_KEY_DIR": "keys"}, "", "JWT_KEY_DIR keys"),
    ((), {}, {}, "jwt_key_file: key", "JWT_KEY_FILE key"),
    ((), {}, {}, "jwt_key_dir: keys", "JWT_KEY_DIR keys"),
    (_set(jwt_key_file="key"), SHARED, {}, "", "JWT_KEY_FILE key"),
    (_set(jwt_key_file="key"), {"JWT_KEY_DIR": "keys"}, SHARED, "jwt_key_dir: keys", "JWT_KEY_FILE key"),
    (_set(jwt_key_dir="keys"), {"JWT_KEY_FILE": "key"}, {}, "", "JWT_KEY_DIR keys"),
    (_set(jwt_key_file=""), SHARED, {}, "", "JWT_SHARED_SECRET "),
    (("--key", "key"), SHARED, {"JWT_KEY_DIR": "keys"}, "jwt_key_dir: keys", "JWT_KEY_FILE key"),
    (("--key", "key", *_set(jwt_key_file="key")), {"JWT_KEY_FILE": "other"}, {}, "", "JWT_KEY_FILE key"),
]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A key, and a folder with one, in the working directory."""
    (tmp_path / "keys").mkdir()
    for path in (tmp_path / "key", tmp_path / "keys" / "a"):
        path.write_text(KEY.hex())
    return tmp_path


@pytest.mark.parametrize(("arguments", "environ", "dotenv", "config", "won"), KEYS)
@pytest.mark.usefixtures("files")
def test_the_nearest_key_wins(
    arguments: tuple[str, ...], environ: dict[str, str], dotenv: dict[str, str], config: str, won: str
) -> None:
    source, live = _configured(*arguments, environ=environ, dotenv=dotenv, config=config)
    assert f"{source.name} {source.path}" == won
    assert live.policy.decisions.all_makers[0].ring.signing(0).private == KEY


TWICE: list[tuple[tuple[str, ...], dict[str, str], dict[str, str], str]] = [
    (_set(jwt_key_file="key", jwt_key_dir="keys"), {}, {}, ""),
    (_set(jwt_key_file="key", jwt_key_dir="keys"), SHARED, {}, ""),
    (("--key", "key", *_set(jwt_key_dir="keys")), SHARED, {}, ""),
    ((), SHARED | {"JWT_KEY_FILE": "key"}, {}, ""),
    ((), {}, {"JWT_KEY_DIR": "keys", "JWT_KEY_FILE": "key"}, ""),
    ((), {}, {}, "jwt_key_file: key\njwt_key_dir: keys"),
]


@pytest.mark.parametrize(("arguments", "environ", "dotenv", "config"), TWICE)
@pytest.mark.usefixtures("files")
def test_two_keys_from_one_place_contradict_each_other(
    arguments: tuple[str, ...], environ: dict[str, str], dotenv: dict[str, str], config: str
) -> None:
    with pytest.raises(SettingsError, match=r"^both JWT_\w+ and JWT_\w+ are set$"):
        _configured(*arguments, environ=environ, dotenv=dotenv, config=config)


@pytest.mark.parametrize(
    ("arguments", "environ", "said"),
    [
        ((), {}, "JWT_SHARED_SECRET is not set"),
        (_set(jwt_key_dri="keys"), {}, "unknown option 'jwt_key_dri'"),  # why there is no key
        (_set(jwt_key_file="missing"), {}, "cannot read JWT_KEY_FILE 'missing': no such file or directory"),
        (("--key", "missing"), SHARED, "cannot read JWT_KEY_FILE 'missing': no such file or directory"),
        (("--rules", "missing.yaml"), SHARED, "cannot read 'missing.yaml': no such file or directory"),
        (_set(jwt_key_file="key", jwt_algorithm="RS256"), {}, "holds a shared secret, which does not fit RS256"),
        (_set(jwt_key_dir="keys", jwt_kid="k"), {}, "jwt_kid is set, but 'keys' is a folder of keys"),
        (_set(jwt_rules="missing.yaml"), SHARED, "cannot read 'missing.yaml': no such file or directory"),
        (_set(jwt_issuer="a", jwt_claims='{"iss": "b"}'), SHARED, "the claim 'iss' is set twice"),
        (_set(jwt_rules="rules.yaml"), SHARED, "rules.yaml:1: "),
        (_set(jwt_ttl="soon"), SHARED, "bad value 'soon' for jwt_ttl"),
        (_set(modify_headers="/x-pay/evil", jwt_rules="pay.yaml"), SHARED, "names the token's own header"),
    ],
)
def test_a_mistake_about_keys_and_rules_is_named(
    files: Path, arguments: tuple[str, ...], environ: dict[str, str], said: str
) -> None:
    (files / "rules.yaml").write_text("rules: [{match: ~nonsense}]")
    (files / "pay.yaml").write_text("rules: [{match: ~all, header: X_Pay}]")
    with pytest.raises(SettingsError) as caught:
        _configured(*arguments, environ=environ)
    assert said in str(caught.value)
    assert caught.value.hint
    assert "--options" not in caught.value.hint


def test_the_pass_phrase_may_come_from_anywhere_below() -> None:
    source, _ = _configured(environ=SHARED, dotenv={"JWT_KEY_PASSPHRASE": "open sesame"})
    assert source.other("x", "key").read_passphrase() == b"open sesame"


@pytest.mark.parametrize(("arguments", "grace"), [((), 8.0), (("--grace", "0"), 0.0), (("--grace", "2.5"), 2.5)])
def test_the_grace_is_in_seconds(arguments: tuple[str, ...], grace: float) -> None:
    assert commandline.grace(commandline.parser(Options()).parse_args(list(arguments))) == grace


@pytest.mark.parametrize(("arguments", "delay"), [((), 0.0), (("--drain-delay", "5"), 5.0)])
def test_and_so_is_what_comes_before(arguments: tuple[str, ...], delay: float) -> None:
    assert commandline.drain_delay(commandline.parser(Options()).parse_args(list(arguments))) == delay


@pytest.mark.parametrize("value", ["-1", "nan", "soon", "inf", ""])
@pytest.mark.parametrize(("flag", "of"), [("--grace", commandline.grace), ("--drain-delay", commandline.drain_delay)])
def test_a_time_that_is_none_is_an_error(value: str, flag: str, of: Callable[[Any], float]) -> None:
    args = commandline.parser(Options()).parse_args([flag, value])
    with pytest.raises(SettingsError, match=f"for {flag}"):
        of(args)


@pytest.mark.parametrize(
    "arguments", [["keys"], ["--check", "serve"], ["~u", "/x", "--port", "9"], ["--port", "9", "--", "x"], [""]]
)
def test_no_word_means_nothing(arguments: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        commandline.read(commandline.parser(Options()), arguments)
    assert caught.value.hint


def test_no_error_repeats_a_key() -> None:
    key = KEY.hex()
    mistakes = [("--key", key, "--set", "jwt_key_file=x"), ("--key", "x", "--set", f"jwt_key_file={key}")]
    for arguments in [*mistakes, (f"--secret={key}",), ("--secret", key)]:
        error = _error(*arguments)
        assert key[:20] not in f"{error} {error.hint}"
        assert "file" in error.hint


def test_the_flags_of_our_options_give_the_names_of_our_options() -> None:
    names = {name for name, _, _ in commandline._FLAGS.values()}
    assert names < {option.name for option in OPTIONS}


def test_the_help_teaches(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """On one screen."""
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as caught:
        _options("--help")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert 24 <= len(text.splitlines()) <= 50
    for word in ("jwtproxy-run", *COMMANDS, "--check", "--workers", "--key", "JWT_SHARED_SECRET", "HTTP_PORT"):
        assert word in text
    assert text.partition("examples:\n")[2].count("\n") == 5
    assert "--modify-headers" not in text


def test_the_whole_help_has_the_flags_of_mitmdump_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _options("--help-all")
    text = capsys.readouterr().out
    for word in ("usage: jwtproxy-run [COMMAND]", "--key", "--modify-headers", "--mode", "examples:", "JWT_KEY_DIR"):
        assert word in text
    assert "filter_args" not in text


# --- what is misspelt


@pytest.mark.parametrize(
    ("arguments", "environ", "config", "said", "hint"),
    [
        ((), {"JWT_USR": "me"}, "", "unknown variable JWT_USR", "did you mean JWT_USER?"),
        ((), {"JWT_EXP": "5", "JWT_STRICT_ENV": "1"}, "", "unknown variable JWT_EXP", "did you mean JWT_TTL?"),
        (_set(foo="1"), {}, "", "unknown option 'foo'", "--options"),
        (("--set", "jwt-ttl=5"), {}, "", "unknown option 'jwt-ttl'", "did you mean jwt_ttl?"),
        ((), {}, "jwt-ttl: 5", "unknown option 'jwt-ttl'", "did you mean jwt_ttl?"),
        ((), {}, "JWT_TTL: 5", "unknown option 'JWT_TTL'", "did you mean jwt_ttl?"),
    ],
)
def test_what_is_misspelt_is_refused(
    arguments: tuple[str, ...], environ: dict[str, str], config: str, said: str, hint: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        _configured(*arguments, environ=SHARED | environ, config=config)
    assert str(caught.value) == said
    assert hint in caught.value.hint


def test_what_may_be_another_programs_is_worth_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    _configured(environ=SHARED | {"JWT_EXP": "5"}, config="web_port: 1\nfoo: 2")
    assert capsys.readouterr() == ("", "jwtproxy: warning: unknown variable JWT_EXP: did you mean JWT_TTL?\n")
    _configured("-q", environ=SHARED | {"JWT_EXP": "5"})
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("files")
def test_a_mistake_is_told_without_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SettingsError, match="for jwt_ttl"):
        _configured("--set", "jwt_ttl=soon", environ=SHARED | {"JWT_EXP": "5"})
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        (keys, ("list", "--check")),
        (keys, ("jwks", "--json")),
        (token, ("--json", "https://a.example/")),
        (token, ("--check", "https://a.example/")),
        (explain, ("--check", "GET", "https://a.example/")),
        (status, ("--check",)),
    ],
)
@pytest.mark.usefixtures("files")
def test_a_flag_that_means_nothing_to_a_command_is_refused(
    module: ModuleType, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    flag = next(word for word in arguments if word.startswith("--"))
    try:
        assert module.run(list(arguments)) == 2
        said = capsys.readouterr().err
    except SettingsError as error:
        said = str(error)
    assert f"{flag} means nothing to " in said
