"""What is known of the addon that signs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from jwtproxy.mitm import signer
from jwtproxy.observe import health


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
