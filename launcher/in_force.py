"""What is in force: every setting of ours, with its value and where that comes from; never what a secret holds."""

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mitmproxy import optmanager
from mitmproxy.options import Options

from jwtproxy.observe.sharing import URL, URL_FILE
from jwtproxy.policy.current import CurrentPolicy
from jwtproxy.stores.redis import Address
from jwtproxy.tokens.key_source import KeySource

from . import commandline, environment

_PORT = 8080  # mitmproxy's, where nothing is set
_REDIS = "redis_url"
_LISTENING = {"listen_port": "HTTP_PORT", "listen_host": "HTTP_HOST", "workers": "WORKERS"}


class Setting(NamedTuple):
    """A value, and where it comes from."""

    value: Any
    source: str
    """flag, --set, environment, .env, config.yaml or default."""
    where: str | None = None
    """What names it there: a flag, a variable, the path of a file."""


@dataclass(frozen=True)
class InForce:
    """All settings of a start that has been checked."""

    options: Mapping[str, Setting]
    """By name: ours, and where to listen."""
    token: Mapping[str, Setting]
    """How requests are signed to which no rule applies."""
    dotenv: str | None
    """Its path, if there is one."""

    def as_line(self) -> str:
        """For the greeting."""
        told = [f"{name} {_shown(setting.value)}" for name, setting in self.token.items()]
        return ", ".join([*told, f".env {_shown(self.dotenv)}"])

    def as_table(self) -> str:
        """For people: a line for each part of how requests are signed."""
        lines = [f"  {name:<9}  {_shown(value)} ({source})" for name, (value, source, _) in self.token.items()]
        redis, source, _ = self.options[_REDIS]
        lines += [f"  {'redis':<9}  {redis} ({source})"] if redis else []
        return "\n".join([*lines, f"  {'.env':<9}  {_shown(self.dotenv)}"])

    def as_json(self) -> str:
        """For programs: all there is."""
        token = {name: setting._asdict() for name, setting in self.token.items()}
        options = {name: setting._asdict() for name, setting in self.options.items()}
        return json.dumps({"token": token, "dotenv": self.dotenv, "options": options}, indent=2)


def gather(
    options: Options,
    args: argparse.Namespace,
    found: environment.Sources,
    source: KeySource,
    current: CurrentPolicy,
    redis: Address | None = None,
) -> InForce:
    """All that is in force, after everything has been set and checked."""
    dotenv = Path(environment.DOTENV).resolve()
    layers = list(_layers(options, args, found, dotenv))
    settings = {
        row.name: _setting(getattr(options, row.name) or row.default, row.name, row.variable, layers)
        for row in environment.OPTIONS
    }
    listening = {
        "listen_port": _PORT if options.listen_port is None else options.listen_port,
        "listen_host": options.listen_host or "*",
        "workers": environment.workers(args.workers, found) or "auto",
    }
    for name, value in listening.items():
        settings[name] = _setting(value, name, _LISTENING[name], layers)
    settings[_REDIS] = _setting(redis and redis.shown, URL, URL_FILE, layers)
    token = _token(settings, source, current, layers)
    return InForce(settings, token, str(dotenv) if dotenv.exists() else None)


class _Layer(NamedTuple):
    """One place where settings come from, with what names them there: an option or a variable."""

    source: str
    names: Mapping[str, str]


def _layers(options: Options, args: argparse.Namespace, found: environment.Sources, dotenv: Path) -> Iterator[_Layer]:
    """Strongest first."""
    names = (*(row.name for row in environment.OPTIONS), *_LISTENING)
    yield _Layer("flag", {name: flag for name in names if (flag := _flag(name, vars(args)))})
    yield _Layer("--set", dict.fromkeys((spec.partition("=")[0] for spec in args.setoptions), "--set"))
    environ, *files = found
    yield _Layer("environment", {name: name for name in environment.VARIABLES if environ.get(name)})
    for variables in files:
        yield _Layer(".env", {name: str(dotenv) for name in environment.VARIABLES if variables.get(name)})
    yield _Layer("config.yaml", _configured(options, args))


def _flag(name: str, given: Mapping[str, Any]) -> str:
    """The flag, ours or mitmdump's, that sets an option on this command line; empty if none does."""
    ours = commandline.FLAGS.get(name, "")
    apart = ours.removeprefix("--").replace("-", "_")  # where argparse keeps it, if not under the option's name
    if given.get(apart) is not None:
        return ours
    if given.get(name) is None:
        return ""
    return ours if ours and apart not in given else f"--{name.replace('_', '-')}"


def _configured(options: Options, args: argparse.Namespace) -> dict[str, str]:
    """What mitmproxy's configuration sets, by name: the path of its file."""
    named = dict[str, str]()
    for path in (path.expanduser() for path in commandline.config_files(options, args)):
        if path.is_file():
            said = optmanager.parse(path.read_text("utf-8"))
            named |= {name: str(path) for name, value in said.items() if value is not None}
    return named


def _setting(value: Any, name: str, variable: str, layers: list[_Layer]) -> Setting:
    for source, names in layers:
        if where := names.get(name) or names.get(variable):
            return Setting(value, source, where)
    return Setting(value, "default")


def _token(
    settings: Mapping[str, Setting], source: KeySource, current: CurrentPolicy, layers: list[_Layer]
) -> dict[str, Setting]:
    """How requests are signed to which no rule applies."""
    maker = current.policy.decisions.default
    assert maker  # nothing of ours starts without a key
    key = maker.ring.signing(time.time())
    parsed = current.settings
    place = f"{source.name} {source.path!r}" if source.path else source.name
    return {
        "key": _setting(place, source.name.lower(), source.name, layers),
        "algorithm": settings["jwt_algorithm"]._replace(value=key.algorithm),
        "kid": settings["jwt_kid"]._replace(value=key.kid or None),
        "header": settings["jwt_header"],
        "user": settings["jwt_user"],
        "ttl": settings["jwt_ttl"]._replace(value=parsed.ttl or None),
        "audience": settings["jwt_audience"]._replace(value=parsed.audience or None),
        "rules": settings["jwt_rules"]._replace(value=parsed.rules or None),
    }


def _shown(value: Any) -> str:
    """On one line, whatever is in it."""
    if value is None:
        return "none"
    text = " ".join(value) if isinstance(value, tuple) else str(value)
    return text if text.isprintable() and text.strip() == text != "" else repr(text)
