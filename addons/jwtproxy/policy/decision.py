"""Which rule decides on a request, and how its token is made."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from ..conduct.request import Matcher, RequestHead
from ..conduct.verdict import DEFAULT
from ..config.errors import SettingsError
from ..tokens.algorithms import AUTO
from ..tokens.key_source import KeySource
from ..tokens.keyring import Reader
from ..tokens.token_maker import TokenMaker
from . import rules
from .rules import BLOCK, PASS, SIGN, Rule, RuleSet
from .settings import Settings


class Decision(NamedTuple):
    """What becomes of one request, and which rule says so."""

    rule: str
    place: str | None
    """The rule's file and line."""
    action: str
    """sign, pass (without a token) or block."""
    maker: TokenMaker | None = None


@dataclass(frozen=True)
class Decisions:
    """The rules, and how the tokens of each are made."""

    default: TokenMaker | None
    """None: nothing is signed."""
    rules: RuleSet | None
    makers: Mapping[str, TokenMaker]
    """By the name of the rule."""

    def on(self, head: RequestHead) -> Decision:
        """The decision on a request: where there are rules, none may block it, whatever way a server reads its path."""
        found = self._on(head)
        if self.rules and found.action != BLOCK:
            return next((other for other in map(self._on, head.readings) if other.action == BLOCK), found)
        return found

    def _on(self, head: RequestHead) -> Decision:
        rule = self.rules.decide(head) if self.rules else None
        if rule:
            return Decision(rule.name, rule.place, rule.action, self.makers.get(rule.name))
        if self.rules and self.rules.default == BLOCK:
            return Decision(DEFAULT, None, BLOCK)
        return Decision(DEFAULT, None, SIGN if self.default else PASS, self.default)

    @property
    def all_makers(self) -> tuple[TokenMaker, ...]:
        """All ways to sign."""
        return (*((self.default,) if self.default else ()), *self.makers.values())


def load(settings: Settings, source: KeySource, compile_filter: Callable[[str], Matcher], reader: Reader) -> Decisions:
    """Read keys and rules. Raises SettingsError."""
    default = TokenMaker(settings.profile, reader.ring(source, settings.algorithm, settings.kid))
    makers = {}
    found = None
    if settings.rules:
        reader.watched.add(settings.rules)
        found = rules.load(settings.rules, compile_filter)
        makers = {rule.name: _maker(rule, default, source, reader) for rule in found.rules if rule.action == SIGN}
    default.signer(time.time())
    return Decisions(default, found, makers)


def _maker(rule: Rule, default: TokenMaker, source: KeySource, reader: Reader) -> TokenMaker:
    try:
        further = {**default.profile.claims, **rule.overrides.get("claims", {})}
        profile = replace(default.profile, **{**rule.overrides, "claims": further})
        profile.check()
        ring = default.ring
        if rule.key:
            ring = reader.ring(source.other(str(rule.key), "key"), rule.algorithm or AUTO)
        maker = TokenMaker(profile, ring)
        maker.signer(time.time())
        return maker
    except SettingsError as error:
        raise error.at(rule.place) from None
