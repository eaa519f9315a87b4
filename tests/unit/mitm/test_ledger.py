"""Each request is counted once, as what has become of it."""

from __future__ import annotations

from typing import Any

import pytest
from mitmproxy.flow import Error
from mitmproxy.http import HTTPFlow
from mitmproxy.test import tflow

from jwtproxy.conduct.proxy_status import ErrorType, Reason
from jwtproxy.mitm import flows, ledger
from jwtproxy.mitm.flows import RULE
from jwtproxy.mitm.ledger import Ledger, note_carried, note_shown
from jwtproxy.observe import pages
from jwtproxy.observe.counters import Counters, Outcome, Passed


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
def counts(counters: Counters) -> Ledger:
    return Ledger(counters)


def _answered(status: int) -> HTTPFlow:
    flow = tflow.tflow(resp=True)
    assert flow.response
    flow.response.status_code = status
    return flow


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (101, Outcome.SUCCESS),
        (200, Outcome.SUCCESS),
        (304, Outcome.REDIRECT),
        (404, Outcome.CLIENT_ERROR),
        (502, Outcome.SERVER_ERROR),
        (799, Outcome.SUCCESS),
    ],
)
def test_what_an_upstream_answers_is_of_its_class(
    status: int, outcome: Outcome, counts: Ledger, counters: Counters
) -> None:
    counts.response(_answered(status))
    assert counters.passed == [Passed("default", False, outcome, 1)]
    assert counters.upstream.counts[-1] == 1


@pytest.mark.parametrize(
    ("status", "error", "outcome"),
    [(403, ErrorType.HTTP_REQUEST_DENIED, Outcome.REFUSED), (504, ErrorType.HTTP_RESPONSE_TIMEOUT, Outcome.FAILED)],
)
def test_what_we_answer_instead_is_a_refusal_or_a_failure(
    status: int, error: ErrorType, outcome: Outcome, counts: Ledger, counters: Counters
) -> None:
    flow = tflow.tflow()
    flows.respond(flow, pages.text(status, "no", error))
    counts.response(flow)
    assert counters.passed == [Passed("default", False, outcome, 1)]
    told = counters.refusals if outcome is Outcome.REFUSED else counters.errors
    assert told[error] == 1
    assert counters.upstream.counts[-1] == 0


@pytest.mark.parametrize(
    ("reason", "outcome", "kind"),
    [
        (Reason("cannot connect", ErrorType.DNS_ERROR), Outcome.FAILED, "dns_error"),
        ("what mitmproxy says", Outcome.FAILED, "connection_terminated"),
        ("client disconnected", Outcome.ABORTED, None),
        ("Client disconnected.", Outcome.ABORTED, None),
        (Error.KILLED_MESSAGE, Outcome.ABORTED, None),
    ],
)
def test_where_there_is_no_answer_somebody_has_left(
    reason: str, outcome: Outcome, kind: str | None, counts: Ledger, counters: Counters
) -> None:
    flow = tflow.tflow()
    flow.error = Error(reason)
    counts.error(flow)
    assert counters.passed == [Passed("default", False, outcome, 1)]
    assert {name: count for name, count in counters.errors.items() if count} == ({kind: 1} if kind else {})


def test_what_is_asked_of_the_proxy_itself_is_none(counts: Ledger, counters: Counters) -> None:
    own, shown, failed = _answered(200), _answered(200), tflow.tflow(err=True)
    flows.mark_to_self(own)
    flows.mark_to_self(failed)
    note_shown(shown)
    counts.response(own)
    counts.response(shown)
    counts.error(failed)
    assert counters.passed == []


def test_rule_lane_and_bytes_are_those_noted(counts: Ledger, counters: Counters) -> None:
    flow = _answered(200)
    flow.metadata[RULE] = "pay"
    note_carried(flow, 3, 4, fast=True)
    counts.response(flow)
    assert counters.passed == [Passed("pay", True, Outcome.SUCCESS, 1)]
    assert counters.bytes == (3, 4)


@pytest.mark.parametrize(
    ("ended", "waited"), [(None, 9.0), (12.0, 7.0), (25.0, 9.0)], ids=["no end", "an end", "an end after the answer"]
)
def test_an_upstream_is_asked_when_all_of_the_request_is_there(
    ended: Any, waited: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = _answered(200)
    assert flow.response
    flow.request.timestamp_start, flow.request.timestamp_end, flow.response.timestamp_start = 10.0, ended, 19.0
    counters = Counters()
    ledger.Ledger(counters).response(flow)
    assert counters.upstream.sum == pytest.approx(waited)
