"""What may become of a request."""

from __future__ import annotations

import pytest

from jwtproxy.conduct.verdict import DEFAULT, Forward, Refuse, Verdict


def test_where_no_rule_decided_it_is_said_so() -> None:
    assert DEFAULT == "default", "users read it in logs, and no rule may be called so"
    assert Forward(()) == Forward((), "default", None, None)


def test_a_refusal_that_asked_no_rule_names_none() -> None:
    assert Refuse(400, "no") == Refuse(400, "no", None, None, ())


@pytest.mark.parametrize("verdict", [Forward(((b"A", b"b"),), "r", "f:1", "x-my-jwt"), Refuse(403, "no", "r", "f:1")])
def test_either_says_which_rule_decided_and_where_it_stands(verdict: Verdict) -> None:
    assert (verdict.rule, verdict.place) == ("r", "f:1")
