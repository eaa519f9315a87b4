"""Programs as people run them, within `jwtproxy-run exec`: they find the proxy and trust its CA as the manual says."""

from __future__ import annotations

import os

import pytest

from tests.clients import stage
from tests.clients.rows import CLIENTS
from tests.clients.verdict import FAILED, SKIPPED
from tests.support.harness import thorough

pytestmark = pytest.mark.skipif(bool(stage.unable()), reason=stage.unable())


def test_clients_do_what_their_rows_say() -> None:
    quick = [client.name for client in CLIENTS if client.quick]
    outcomes = list(stage.play(quick, together=True))
    assert {outcome.name for outcome in outcomes} == set(quick)
    failed = [f"{outcome.name}: {outcome.said}" for outcome in outcomes if outcome.result == FAILED]
    assert not failed, "\n".join(failed)
    lacking = [f"{one.name} {one.said}" for one in outcomes if one.result == SKIPPED and "old_node" not in one.said]
    if lacking and os.environ.get("CI"):
        pytest.fail(f"these are to be played here: {lacking}")


@thorough
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", [client.name for client in CLIENTS])
def test_a_client_does_so_by_the_variables_named_and_goes_direct_where_it_is_told_to(name: str) -> None:
    (outcome,) = stage.play([name])
    if outcome.result == SKIPPED:
        pytest.skip(outcome.said)
    assert outcome.result != FAILED, outcome.said
