"""Words: commands, and what else people write where one belongs."""

from __future__ import annotations

import secrets
from base64 import b64encode

import pytest

from jwtproxy.config.errors import SettingsError
from jwtproxy.launcher import words
from jwtproxy.launcher.commands import COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_the_first_word_is_the_command(command: str) -> None:
    assert words.split([command, "--port", "9"]) == (command, ["--port", "9"])


@pytest.mark.parametrize("arguments", [[], ["--port", "9"], ["-p", "9", "keys"], ["--check"], ["--", "keys"]])
def test_without_one_it_serves(arguments: list[str]) -> None:
    assert words.split(arguments) == ("serve", arguments)


ASKS = "jwtproxy-run explain GET URL tells what would happen to a request, jwtproxy-run token URL prints its token"
NO_KEYS = "process lists show command lines: write a key to a file, and name that with --key FILE"
NO_PASSPHRASES = "process lists show command lines: name a file of a key's passphrase in JWT_KEY_PASSPHRASE_FILE"
STRAY = [
    ("srve", "did you mean serve?"),
    ("Serve", "did you mean serve?"),
    ("SERVER", "did you mean serve?"),
    ("start", "did you mean serve?"),
    ("run", "did you mean serve?"),
    ("proxy", "did you mean serve?"),
    ("expalin", "did you mean explain?"),
    ("key", "did you mean keys?"),
    ("tokens", "did you mean token?"),
    ("mint", "did you mean token?"),
    ("sign", "did you mean token?"),
    ("chek", "did you mean check?"),
    ("stat", "did you mean status?"),
    ("c", "did you mean ca?"),
    ("hepl", "did you mean help?"),
    ("versions", "did you mean version?"),
    ("settings", "jwtproxy-run help settings shows this topic of the manual"),
    ("Rules", "jwtproxy-run help rules shows this topic of the manual"),
    ("https://api.example/", ASKS),
    ("HTTP://x", ASKS),
    ("wss://x/", ASKS),
    ("GET https://api.example/", ASKS),
    ("~d api.example", "a filter is given with --filter '~d api.example'"),
    ("~d api.example & !~m GET", "a filter is given with --filter '~d api.example & !~m GET'"),
    ("!~m POST --port 9", "a filter is given with --filter '!~m POST'"),
    ("(~d a | ~d b)", "a filter is given with --filter '(~d a | ~d b)'"),
    ("9090", "a port is given with --port 9090"),
    ("JWT_USER=ci", "a variable comes before the command: JWT_USER=… jwtproxy-run"),
    ("jwt_user=ci", "an option is given with --set jwt_user=ci"),
    ("mine.py", "a script is given with -s mine.py"),
    ("rules.yaml", "rules are given with --rules rules.yaml"),
    ("config.yml", "rules are given with --rules config.yml"),
    ("key.pem", "a key is given with --key key.pem"),
    ("keys.jwks", "a key is given with --key keys.jwks"),
    ("xyzzy", f"the commands are {', '.join(COMMANDS)}; a filter of what is shown is given with --filter"),
    ("api.example:443", f"the commands are {', '.join(COMMANDS)}; a filter of what is shown is given with --filter"),
]


@pytest.mark.parametrize(("line", "hint"), STRAY)
def test_any_other_is_an_error_with_what_to_write(line: str, hint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        words.split(line.split())
    assert str(caught.value) == f"unknown command {line.split()[0]!r}"
    assert caught.value.hint == hint


@pytest.mark.parametrize(("line", "hint"), STRAY[::4])
def test_after_a_flag_it_is_none_either(line: str, hint: str) -> None:
    error = words.stray(line.split())
    assert str(error) == f"unexpected word {line.split()[0]!r}"
    assert error.hint == hint


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_comes_first(command: str) -> None:
    error = words.stray([command, "x"])
    assert str(error) == f"{command!r} is not the first word"
    assert error.hint == f"put it first: jwtproxy-run {command} …"


@pytest.mark.parametrize(
    ("flag", "hint"),
    [
        ("--usr", "did you mean --user?"),
        ("--prot=9", "did you mean --port?"),
        ("--jwt-ttl", "options are given with --set jwt_ttl=…"),
        ("--jwt_ttl=9", "options are given with --set jwt_ttl=…"),
        ("--secret", NO_KEYS),
        ("--jwt-shared-secret=00", NO_KEYS),
        ("--shared-secret-file=x", NO_KEYS),
        ("--password=hunter2", NO_KEYS),
        (
            "--key-passphrase=hunter2",
            NO_KEYS.partition(":")[0] + ": name a file of a key's passphrase in JWT_KEY_PASSPHRASE_FILE",
        ),
        ("--key-file", "did you mean --key?"),
        ("--keyfile=x", "did you mean --key?"),
        ("--private-key", "did you mean --key?"),
        ("--issuer", "options are given with --set jwt_issuer=…"),
        ("--subject", "options are given with --set jwt_subject=…"),
        ("--exp", "did you mean --ttl?"),
        ("--rfiles", "did you mean --rfile?"),
        ("--listen-prt", "did you mean --listen-port?"),
        ("--frobnicate", ""),
        ("--", ""),
    ],
)
def test_a_flag_may_be_misspelt(flag: str, hint: str) -> None:
    flags = ["--user", "--port", "-p", "--rfile", "--set", "--help", "--key", "--listen-port", "--cert-passphrase"]
    options = {"jwt_ttl": "--ttl", "jwt_key_file": "--key", "jwt_user": "--user", "jwt_issuer": "", "jwt_subject": ""}
    assert words.flag_hint(flag, flags, options) == hint


@pytest.mark.parametrize(
    "key", [secrets.token_hex(64), "-----BEGIN PRIVATE KEY-----\nMIIE", b64encode(bytes(range(64))).decode()]
)
def test_a_key_is_never_repeated(key: str) -> None:
    for error in (words.stray([key, key]), words.stray([f"secret={key}"])):
        assert key[-20:] not in f"{error}"
        assert error.hint == NO_KEYS
    with pytest.raises(SettingsError) as caught:
        words.split([f"x,{key}"])
    assert str(caught.value) == "unknown command 'x,…'"
    assert caught.value.hint == NO_KEYS


@pytest.mark.parametrize("name", ["JWT_SHARED_SECRET", "secret", "--key-passphrase", "--Password"])
def test_nor_is_what_is_called_a_secret(name: str) -> None:
    assert words.without_keys(f"x: {name}=hunter2 and more") == f"x: {name}=…"
    assert words.without_keys(f"--user=ci {name}") == f"--user=ci {name}"


def test_an_empty_word_is_none() -> None:
    """A variable of a shell that is not set, in quotes."""
    with pytest.raises(SettingsError, match="unknown command ''"):
        words.split([""])
