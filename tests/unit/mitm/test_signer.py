"""What is known of the addon that signs."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

from jwtproxy.config.errors import SettingsError
from jwtproxy.mitm import signer
from jwtproxy.observe import health
from jwtproxy.observe.metrics import Key


def _with(**known: Any) -> Any:
    return {"jwtinject": SimpleNamespace(**known)}


def _policy(lacking: str) -> Any:
    return SimpleNamespace(lacking=lambda now: lacking)


def test_without_it_nothing_is_published_and_nothing_lacking() -> None:
    """Who loads status.py alone wants nothing signed."""
    assert signer.published({}) == ('{"keys": []}\n', 0)
    assert signer.lacking({}) == ""


def test_it_lacks_what_its_policy_lacks() -> None:
    assert signer.published(_with(published=("{}", 7))) == ("{}", 7)
    assert signer.lacking(_with(policy=_policy(""))) == ""
    assert signer.lacking(_with(policy=_policy("no key may sign now"))) == "no key may sign now"
    assert signer.lacking(_with(policy=None)) == health.UNUSABLE


def test_metrics_are_told_whether_redis_is_there() -> None:
    assert signer.facts({}).redis_up is None
    assert signer.facts({"sharing": SimpleNamespace(is_up=False)}).redis_up is False


class Found:
    """A key of a ring."""

    algorithm, not_after = "ES256", math.inf

    def __init__(self, kid: str, private: bytes | None = b"x") -> None:
        self.kid, self.private = kid, private


def test_keys_and_rules_are_told_of_each_once() -> None:
    old, new, public = Found("old"), Found("new"), Found("other", None)

    def signing(now: float) -> Any:
        return new

    def nobody(now: float) -> Any:
        raise SettingsError("no key may sign now", "")

    keys = [old, new, public]
    rings = [SimpleNamespace(keys=keys, ready=lambda key: -math.inf, signing=one) for one in (signing, nobody)]
    rules = SimpleNamespace(rules=[SimpleNamespace(name="pay"), SimpleNamespace(name="rule 2")])
    decisions = SimpleNamespace(all_makers=[SimpleNamespace(ring=ring) for ring in rings], rules=rules)
    facts = signer.facts(_with(policy=SimpleNamespace(decisions=decisions)))
    assert facts.keys == [Key("old", None, None, "ES256", signs=False), Key("new", None, None, "ES256", signs=True)]
    assert facts.rules == ["pay", "rule 2"]
    assert list(signer.facts({}).keys) == list(signer.facts(_with(policy=None)).keys) == []
