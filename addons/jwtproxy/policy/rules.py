"""Read the rules file: which requests get other tokens, none, or a refusal."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..conduct.request import Matcher, RequestHead
from ..conduct.verdict import DEFAULT, OTHERS
from ..config import yaml
from ..config.errors import SettingsError
from ..config.yaml import Node
from ..tokens import claims, key_source
from . import settings

SIGN, PASS, BLOCK = "sign", "pass", "block"

PROXYAUTH = "proxyauth"
"""The user that stands for whom --proxyauth has asked for a password."""

_TOP = ("default", "rules")
_TOKEN = ("user", "issuer", "subject", "audience", "ttl", "claims", "typ", "header", "key", "algorithm")
_KEYS = ("name", "match", "sign", "block", *_TOKEN)
_LONGEST_NAME = 80
_EVERYTHING = "~all"
_TAKEN = {
    DEFAULT: "requests no rule matches",
    OTHERS: "all rules that metrics have no room for",
}
"""Names that stand for something else where rules are named."""


@dataclass(frozen=True)
class Rule:
    """What becomes of the requests that it matches."""

    name: str
    place: str
    """As `rules.yaml:12`."""
    matches: Matcher
    action: str
    """`sign`, `pass` (without a token) or `block`."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Fields of claims.Profile that are other than the options say."""
    key: Path | None = None
    """A key file or folder of its own."""
    algorithm: str = ""
    """How that key signs; empty leaves it to the key."""


@dataclass(frozen=True)
class RuleSet:
    """All rules, in order."""

    rules: tuple[Rule, ...]
    default: str
    """What becomes of requests that no rule matches: `sign` or `block`."""

    def decide(self, head: RequestHead) -> Rule | None:
        """The first rule that matches, if any."""
        for rule in self.rules:
            if rule.matches(head):
                return rule
        return None


def load(path: str, compile_filter: Callable[[str], Matcher]) -> RuleSet:
    """The rules of a file. Raises SettingsError with file and line."""
    top = yaml.read(path)
    members = _known(top, _TOP, "write 'rules:', and each rule under it after '- '")
    default = _default(members.get("default"))
    if "rules" not in members:
        raise top.error("there are no rules", "write 'rules:', and each rule under it after '- '")
    nodes = members["rules"].sequence()
    if not nodes:
        raise members["rules"].error("the list of rules is empty", "write a rule, or unset jwt_rules")
    rules = tuple(_rule(node, number, Path(path), compile_filter) for number, node in enumerate(nodes, 1))
    _check_names(rules)
    _check_order(nodes)
    return RuleSet(rules, default)


def _known(node: Node, keys: Iterable[str], hint: str = "") -> dict[str, Node]:
    """The members of a mapping, each with a key that has a meaning."""
    if hint and not isinstance(node.value, dict):
        raise node.error(f"{node.name} must be a mapping of keys to values", hint)
    members = node.mapping()
    for key, member in members.items():
        if key not in keys:
            close = difflib.get_close_matches(key.lower(), keys, 1)
            raise member.error(
                f"unknown key {key!r}", f"did you mean {close[0]}?" if close else f"keys are {', '.join(keys)}"
            )
    return members


def _default(node: Node | None) -> str:
    if node is None:
        return SIGN
    if node.value is None:
        raise node.error("default has no value", "use sign or block; the default is sign")
    if (default := node.text()) not in (SIGN, BLOCK):
        raise node.error(f"bad value {default!r} for default", "use sign or block; the default is sign")
    return default


def _rule(node: Node, number: int, file: Path, compile_filter: Callable[[str], Matcher]) -> Rule:
    members = _known(node, _KEYS)
    action = _action(members)
    if "match" not in members:
        raise node.error("the rule has no match", "add a filter: match: ~d ^api\\.example$; or match: ~all")
    return Rule(
        name=_name(members["name"]) if "name" in members else f"rule {number}",
        place=node.place,
        matches=_compiled(members["match"], compile_filter),
        action=action,
        overrides={key: _READERS[key](member) for key, member in members.items() if key in _READERS},
        key=_path(members["key"], file) if "key" in members else None,
        algorithm=_algorithm(members),
    )


def _action(members: Mapping[str, Node]) -> str:
    """What the rule does. Raises SettingsError where it says two things."""
    block = "block" in members and members["block"].flag()
    sign = members["sign"].flag() if "sign" in members else None
    if block and sign is not None:
        raise members["sign"].error("sign contradicts block: true", "keep one of the two")
    action = BLOCK if block else PASS if sign is False else SIGN
    if action != SIGN and (idle := next((key for key in members if key in _TOKEN), None)):
        why = "block: true" if block else "sign: false"
        raise members[idle].error(f"{idle} has no effect with {why}", "keep one of the two")
    return action


def _name(node: Node) -> str:
    name = node.text()
    if not name.isprintable() or len(name) > _LONGEST_NAME or name != name.strip():
        raise node.error(
            f"bad value {name[:_LONGEST_NAME]!r} for name", f"use at most {_LONGEST_NAME} characters on one line"
        )
    if name in _TAKEN:
        raise node.error(f"a rule must not be called {name!r}", f"that stands for {_TAKEN[name]}; use another name")
    return name


def _compiled(node: Node, compile_filter: Callable[[str], Matcher]) -> Matcher:
    if node.value is None:
        raise node.error(
            "match has no value", "use ~all for every request; a value that begins with ~ or ! may need quotes"
        )
    if isinstance(node.value, list | dict):
        raise node.error(f"match must be a string, not {node.kind}", "write the filter after the colon, such as ~all")
    text = node.text()
    try:
        return compile_filter(text)
    except SettingsError as error:
        raise node.error(str(error), error.hint) from None


def _option(node: Node) -> Any:
    """The value of a key that means what the option of that name does."""
    option, text = f"jwt_{node.name}", node.text()
    try:
        return settings.check(option, text)
    except SettingsError as error:
        hint = error.hint.removesuffix(f" ({option} or {option.upper()})")
        raise node.error(str(error).replace(option, node.name), hint) from None


def _user(node: Node) -> Any:
    return None if node.text() == PROXYAUTH else _option(node)


def _ttl(node: Node) -> int:
    if isinstance(node.value, list | dict):
        raise node.error(f"ttl must be a number, not {node.kind}", "write seconds, such as 60")
    return 0 if node.source == "0" else int(_option(node))


def _audience(node: Node) -> str | tuple[str, ...]:
    if not isinstance(node.value, list):
        return node.text()
    if not node.value:
        raise node.error("audience has no items", "list at least one, or remove it")
    return tuple(item.text() for item in node.value)


def _claims(node: Node) -> dict[str, Any]:
    members: dict[str, Any] = {key: member.plain() for key, member in node.mapping().items()}
    try:
        claims.check(members)
    except SettingsError as error:
        raise node.error(str(error), error.hint) from None
    return members


def _path(node: Node, file: Path) -> Path:
    text = node.text()
    try:
        key_source.check_path(text, node.name)  # as written: below a folder, a secret no longer looks like one
        return file.expanduser().parent / Path(text).expanduser()
    except SettingsError as error:
        raise node.error(str(error), error.hint) from None
    except RuntimeError:
        raise node.error(f"bad value {text!r} for key: no home directory for '~'", "write out the whole path") from None


def _algorithm(members: Mapping[str, Node]) -> str:
    if "algorithm" not in members:
        return ""
    if "key" not in members:
        raise members["algorithm"].error("algorithm without key", "give the rule its own key, or remove algorithm")
    algorithm = str(_option(members["algorithm"]))
    return "" if algorithm == "auto" else algorithm


def _check_names(rules: Iterable[Rule]) -> None:
    """Names stand in logs and answers: each must be one rule's."""
    places: dict[str, str] = {}
    for rule in rules:
        if rule.name in places:
            raise SettingsError(f"{rule.place}: the name {rule.name!r} is taken", f"by the rule in {places[rule.name]}")
        places[rule.name] = rule.place


def _check_order(nodes: Iterable[Node]) -> None:
    """A rule that never decides is a slip, and a block that never blocks a hole."""
    seen: dict[str, str] = {}
    for node in nodes:
        text = " ".join(node.mapping()["match"].text().split())
        if earlier := seen.get(text) or seen.get(_EVERYTHING):
            raise node.error("the rule never applies", f"the one in {earlier} matches the same requests first")
        seen[text] = node.place


_READERS: dict[str, Callable[[Node], Any]] = {
    "user": _user,
    "issuer": _option,
    "subject": _option,
    "audience": _audience,
    "ttl": _ttl,
    "claims": _claims,
    "typ": _option,
    "header": _option,
}
