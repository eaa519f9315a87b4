"""What is in force is told whole: each setting with its value and where that comes from, and nothing of a secret."""

from __future__ import annotations

import asyncio
import json
import secrets
from pathlib import Path
from typing import Any

import pytest

from jwtproxy.launcher import commandline, environment, in_force
from jwtproxy.launcher.in_force import InForce, Setting
from jwtproxy.observe import sharing
from jwtproxy.tokens.new_key import generate

pytestmark = pytest.mark.usefixtures("pristine")

KEY = secrets.token_hex(64)


def _gathered(*arguments: str, environ: dict[str, str] | None = None, dotenv: str = "", config: str = "") -> InForce:
    """What is in force after all that sets something has been heard."""
    folder = Path("~/.mitmproxy").expanduser()
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(config)
    if dotenv:
        Path(".env").write_text(dotenv)

    async def run() -> InForce:
        with commandline.preview() as master:
            args = commandline.parser(master.options).parse_args(list(arguments))
            found = (environ or {}, *environment.sources(Path())[1:])
            source, current = commandline.configure(master, args, found)
            return in_force.gather(master.options, args, found, source, current, sharing.find(*found))

    return asyncio.run(run())


SHARED = {"JWT_SHARED_SECRET": KEY}


def test_without_anything_all_is_by_default(tmp_path: Path) -> None:
    told = _gathered(environ=SHARED)
    assert told.options.keys() == {row.name for row in environment.OPTIONS} | {
        *("listen_port", "listen_host", "workers", "redis_url")
    }
    assert {setting.source for setting in told.options.values()} == {"default"}
    for row in environment.OPTIONS:
        assert told.options[row.name] == Setting(row.default, "default")
    assert told.options["listen_port"].value == 8080
    assert told.options["listen_host"].value == "127.0.0.1"
    assert told.options["workers"].value == 1
    assert told.as_line() == (
        "key JWT_SHARED_SECRET, algorithm HS512, kid none, header x-my-jwt, user username, ttl none, audience none, "
        "rules none, .env none"
    )
    assert told.as_table().splitlines() == [
        "  key        JWT_SHARED_SECRET (environment)",
        "  algorithm  HS512 (default)",
        "  kid        none (default)",
        "  header     x-my-jwt (default)",
        "  user       username (default)",
        "  ttl        none (default)",
        "  audience   none (default)",
        "  rules      none (default)",
        "  .env       none",
    ]


CASES: list[tuple[dict[str, Any], str, Setting]] = [
    ({"arguments": ("--allow-client", "::1")}, "jwt_allow_client", Setting("::1", "flag", "--allow-client")),
    ({"arguments": ("--port", "9")}, "listen_port", Setting(9, "flag", "--port")),
    ({"arguments": ("-p", "9")}, "listen_port", Setting(9, "flag", "--listen-port")),
    ({"arguments": ("--host", "*")}, "listen_host", Setting("*", "flag", "--host")),
    ({"arguments": ("--workers", "auto")}, "workers", Setting("auto", "flag", "--workers")),
    ({"arguments": ("--set", "jwt_user=ci")}, "jwt_user", Setting("ci", "--set", "--set")),
    ({"environ": {"JWT_USER": "me"}}, "jwt_user", Setting("me", "environment", "JWT_USER")),
    ({"environ": {"HTTP_PORT": "7"}}, "listen_port", Setting(7, "environment", "HTTP_PORT")),
    ({"dotenv": "JWT_USER=me"}, "jwt_user", Setting("me", ".env", "{}/.env")),
    ({"dotenv": "WORKERS=2"}, "workers", Setting(2, ".env", "{}/.env")),
    ({"config": "jwt_user: me"}, "jwt_user", Setting("me", "config.yaml", "{}/.mitmproxy/config.yaml")),
    ({"config": "jwt_ttl: 5"}, "jwt_ttl", Setting("5", "config.yaml", "{}/.mitmproxy/config.yaml")),
    ({"config": "jwt_user:"}, "jwt_user", Setting("username", "default")),
    ({"environ": {"JWT_USER": ""}}, "jwt_user", Setting("username", "default")),
    (
        {
            "arguments": ("--set", "jwt_user=a"),
            "environ": {"JWT_USER": "b"},
            "dotenv": "JWT_USER=c",
        },
        "jwt_user",
        Setting("a", "--set", "--set"),
    ),
    (
        {"environ": {"JWT_USER": "b"}, "dotenv": "JWT_USER=c", "config": "jwt_user: d"},
        "jwt_user",
        Setting("b", "environment", "JWT_USER"),
    ),
    ({"dotenv": "JWT_USER=c", "config": "jwt_user: d"}, "jwt_user", Setting("c", ".env", "{}/.env")),
]


@pytest.mark.parametrize(("given", "name", "expected"), CASES)
def test_each_setting_says_where_it_comes_from(
    given: dict[str, Any], name: str, expected: Setting, tmp_path: Path
) -> None:
    given = given | {"environ": SHARED | given.get("environ", {})}
    told = _gathered(*given.pop("arguments", ()), **given)
    where = expected.where and expected.where.format(tmp_path)
    assert told.options[name] == expected._replace(where=where)


def test_the_token_is_told_as_it_is_made(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text(generate("ES256"))
    (tmp_path / "rules.yaml").write_text("rules: [{match: ~d x, sign: false}]")
    told = _gathered(
        *("--set", "jwt_key_file=key.pem", "--set", "jwt_audience=a, origin"),
        environ={"JWT_KID": "one", "JWT_RULES": "rules.yaml"},
        dotenv="JWT_TTL=60\nJWT_USER='two\nlines'\nJWT_HEADER=x-own\n",
    )
    assert told.as_line() == (
        "key JWT_KEY_FILE 'key.pem', algorithm ES256, kid one, header x-own, user 'two\\nlines', ttl 60, "
        f"audience a origin, rules rules.yaml, .env {tmp_path}/.env"
    )
    token = json.loads(told.as_json())["token"]
    assert token["key"] == {"value": "JWT_KEY_FILE 'key.pem'", "source": "--set", "where": "--set"}
    assert token["audience"]["value"] == ["a", "origin"]
    assert json.loads(told.as_json())["dotenv"] == f"{tmp_path}/.env"


@pytest.mark.parametrize(
    ("environ", "dotenv", "where"),
    [
        (SHARED, "", ("JWT_SHARED_SECRET", "environment", "JWT_SHARED_SECRET")),
        ({}, f"JWT_SHARED_SECRET={KEY}", ("JWT_SHARED_SECRET", ".env", "{}/.env")),
        ({}, "JWT_SHARED_SECRET_FILE=secret", ("JWT_SHARED_SECRET_FILE 'secret'", ".env", "{}/.env")),
        ({"JWT_KEY_DIR": "keys"}, "JWT_KEY_FILE=x", ("JWT_KEY_DIR 'keys'", "environment", "JWT_KEY_DIR")),
    ],
)
def test_of_a_key_only_the_place_is_told(
    environ: dict[str, str], dotenv: str, where: tuple[str, str, str], tmp_path: Path
) -> None:
    (tmp_path / "keys").mkdir()
    for path in (tmp_path / "secret", tmp_path / "keys/a.hex"):
        path.write_text(KEY)
    told = _gathered(environ=environ, dotenv=dotenv)
    assert told.token["key"] == Setting(where[0], where[1], where[2].format(tmp_path))
    for text in (told.as_line(), told.as_table(), told.as_json()):
        assert KEY not in text


def test_a_passphrase_is_not_told() -> None:
    told = _gathered(environ=SHARED | {"JWT_KEY_PASSPHRASE": "open sesame"})
    assert "sesame" not in told.as_json() + told.as_table()


def test_of_redis_only_the_place_is_told(tmp_path: Path) -> None:
    told = _gathered(environ=SHARED, dotenv="JWT_REDIS_URL=redis://me:geheim@cache/1?password=geheim\n")
    assert told.options["redis_url"] == Setting("redis://cache:6379/1", ".env", f"{tmp_path}/.env")
    assert "  redis      redis://cache:6379/1 (.env)" in told.as_table().splitlines()
    assert "geheim" not in f"{told} {told.as_json()} {told.as_table()} {told.as_line()}"
    (tmp_path / "url").write_text("unix:///run/redis.sock")
    told = _gathered(environ=SHARED | {"JWT_REDIS_URL_FILE": "url"}, dotenv="JWT_REDIS_URL=redis://other")
    assert told.options["redis_url"] == Setting("unix:///run/redis.sock", "environment", "JWT_REDIS_URL_FILE")
