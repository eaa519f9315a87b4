"""What becomes of a request: which rule decides, and the token it gets."""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

from . import claims, keyring, rules
from .claims import Profile
from .errors import SettingsError
from .headers import normalise
from .key_source import Source
from .keyring import Keyring, Reader
from .keys import Key
from .rules import DEFAULT, Matcher
from .settings import Settings
from .signing import Signer


@dataclass(frozen=True)
class Target:
    """How to sign: what the token says, and the keys it is signed with."""

    profile: Profile
    ring: Keyring

    def token(self, origin: str, now: float) -> str:
        """A token for a request made at `now` (seconds since the epoch) to this origin. Raises SettingsError."""
        return self.signer(now).sign(claims.mint(self.profile, origin, now))

    def signer(self, now: float) -> Signer:
        """What signs at this time. Raises SettingsError."""
        key = self.ring.signing(now)
        if key not in self._signers:
            self._signers[key] = key.signer(self.profile.typ)
        return self._signers[key]

    @cached_property
    def _signers(self) -> dict[Key, Signer]:
        return {}

    @cached_property
    def field(self) -> bytes:
        """The name of the header field that carries the token."""
        return self.profile.header.encode()


class Decision(NamedTuple):
    """What becomes of one request, and which rule says so."""

    rule: str
    place: str | None
    """The rule's file and line."""
    action: str
    """sign, pass (without a token) or block."""
    target: Target | None = None


@dataclass(frozen=True)
class Policy:
    """Everything that decides, read at one time."""

    default: Target
    rules: rules.RuleSet | None
    targets: Mapping[str, Target]
    """By the name of the rule."""
    since: Mapping[object, float]
    """When each key was first seen: seconds since the epoch."""
    jwks: str
    """All public keys, also those that no longer or not yet sign (RFC 7517 §5)."""

    def decide(self, flow: Any) -> Decision:
        """The decision on a request, seen as the rules see it; where there are none, the flow is not looked at."""
        rule = self.rules.decide(flow) if self.rules else None
        if rule:
            return Decision(rule.name, rule.place, rule.action, self.targets.get(rule.name))
        if self.rules and self.rules.default == "block":
            return Decision(DEFAULT, None, "block")
        return Decision(DEFAULT, None, "sign", self.default)

    def __str__(self) -> str:
        """What to tell of it, in a few words."""
        keys = {key.kid or key.place for target in self.everyone for key in target.ring.keys}
        return f"keys: {len(keys)}, rules: {len(self.rules.rules) if self.rules else 0}"

    @property
    def everyone(self) -> tuple[Target, ...]:
        """All ways to sign."""
        return (self.default, *self.targets.values())

    @cached_property
    def fields(self) -> frozenset[bytes]:
        """The normalised names of all header fields that may carry a token: no client may send any."""
        return frozenset(normalise(target.field) for target in self.everyone)

    @cached_property
    def wants_destination(self) -> bool:
        """Whether it matters where a request goes."""
        return self.rules is not None or self.default.profile.wants_origin


def load(settings: Settings, source: Source, compile_filter: Callable[[str], Matcher], reader: Reader) -> Policy:
    """Read keys and rules. Raises SettingsError."""
    default = Target(settings.profile, reader.ring(source, settings.algorithm, settings.kid))
    targets = {}
    found = None
    if settings.rules:
        reader.watched.add(settings.rules)
        found = rules.load(settings.rules, compile_filter)
        targets = {rule.name: _target(rule, default, source, reader) for rule in found.rules if rule.action == "sign"}
    default.signer(time.time())
    return Policy(default, found, targets, reader.since, _jwks((default, *targets.values())))


def _target(rule: rules.Rule, default: Target, source: Source, reader: Reader) -> Target:
    try:
        further = {**default.profile.claims, **rule.overrides.get("claims", {})}
        profile = replace(default.profile, **{**rule.overrides, "claims": further})
        profile.check()
        ring = default.ring
        if rule.key:
            ring = reader.ring(source.other(str(rule.key), "key"), rule.algorithm or "auto")
        target = Target(profile, ring)
        target.signer(time.time())
        return target
    except SettingsError as error:
        raise SettingsError(f"{rule.place}: {error}", error.hint) from None


def _jwks(targets: Iterable[Target]) -> str:
    found = keyring.unique(key for target in targets for key in target.ring.keys if key.kid)
    return json.dumps({"keys": [key.public for key in found if key.public]}, indent=1) + "\n"
