"""Each request is counted once, as what has become of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy.flow import Error
from mitmproxy.http import HTTPFlow
from mitmproxy.test import tflow

from jwtproxy.conduct.fields import Fields
from jwtproxy.conduct.proxy_status import ErrorType, Reason
from jwtproxy.conduct.verdict import Forward
from jwtproxy.mitm import flows, gate, ledger
from jwtproxy.mitm.flows import RULE
from jwtproxy.mitm.ledger import Keep, Ledger, note_carried, note_shown
from jwtproxy.observe import pages
from jwtproxy.observe.counters import Carried, Counters, Outcome, Passed
from jwtproxy.observe.exchanges import Exchange, Row, in_words


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
def counts(counters: Counters) -> Ledger:
    return Ledger(counters)


def _into(kept: list[Row]) -> Keep:
    def keep(flow: HTTPFlow, outcome: Outcome, carried: Carried, waited: float | None) -> None:
        kept.append(Row._make(ledger.row(flow, outcome, carried, waited)))

    return keep


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


@pytest.mark.parametrize("keeps", [False, True])
def test_the_fast_lane_has_the_same_counted(keeps: bool, counts: Ledger, counters: Counters) -> None:
    kept: list[Row] = []
    counts.tell(_into(kept), wanted=keeps)
    flow = _answered(404)
    flow.metadata[RULE] = "mine"
    counts.response_in_lane(flow, 5, 7)
    assert counters.passed == [Passed("mine", True, Outcome.CLIENT_ERROR, 1)]
    assert counters.bytes == (5, 7)
    assert counters.upstream.counts[-1] == 1
    assert [(one.received, one.sent, one.fast) for one in kept] == ([(5, 7, True)] if keeps else [])


def test_who_is_told_no_longer_hears_nothing(counts: Ledger) -> None:
    kept: list[HTTPFlow] = []

    def keep(flow: HTTPFlow, *more: Any) -> None:
        kept.append(flow)

    for wanted in (True, True, False):
        counts.tell(keep, wanted=wanted)
        counts.response(_answered(200))
    assert len(kept) == 2


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


# --- what is told


def _told(flow: HTTPFlow, hook: str = "response") -> Exchange:
    """What is told of a flow, which is nothing while it is not over."""
    heard: list[Row] = []
    counts = Ledger(Counters())
    counts.tell(_into(heard), wanted=True)
    getattr(counts, hook)(flow)
    exchange = in_words(*heard)
    again = ledger.exchange_of(flow)
    assert exchange == again._replace(duration=exchange.duration)  # of what has no end it is until now
    return exchange


def _timed(flow: HTTPFlow) -> HTTPFlow:
    assert flow.response
    flow.request.timestamp_start, flow.request.timestamp_end = 10.0, 11.0
    flow.response.timestamp_start, flow.response.timestamp_end = 13.0, 14.5
    return flow


def test_an_exchange_is_told_without_secrets() -> None:
    flow = _timed(_answered(200))
    flow.request.path = "/a?password=x"
    flow.request.headers["authorization"] = "Basic x"
    note_carried(flow, 3, 4, fast=True)
    assert _told(flow) == Exchange(
        *(10.0, "127.0.0.1", "GET", "http", "address:22", "/a", True, 200, Outcome.SUCCESS, "", "default"),
        *(None, None, True, 4.5, 2.0, 3, 4),
    )


def test_what_we_answer_is_told_with_its_reason() -> None:
    flow = tflow.tflow()
    flows.respond(flow, pages.text(403, "blocked", ErrorType.HTTP_REQUEST_DENIED))
    exchange = _told(flow)
    assert (exchange.status, exchange.reason, exchange.waited) == (403, "blocked", None)


@pytest.mark.parametrize(
    ("reason", "said"),
    [("client disconnected", "client disconnected"), ("mitmproxy is tired", "the proxy is tired")],
)
def test_what_has_no_answer_is_told_with_its_reason(reason: str, said: str) -> None:
    flow = tflow.tflow()
    flow.error, flow.client_conn.peername = Error(reason), None  # type: ignore[assignment] # of one that is gone
    exchange = _told(flow, "error")
    assert (exchange.status, exchange.reason, exchange.client) == (None, said, "")
    flow.error = None
    assert ledger.exchange_of(flow).reason == "no answer"


def test_a_connect_has_neither_scheme_nor_path(counters: Counters) -> None:
    flow = _answered(502)
    flow.request.method = "CONNECT"
    assert _told(flow, "http_connect_error").url == "address:22"
    Ledger(counters).http_connect_error(flow)
    assert counters.passed == [], "it is no request"


def test_what_is_asked_of_the_proxy_is_told_and_not_counted(counts: Ledger, counters: Counters) -> None:
    flow = _answered(404)
    flows.mark_to_self(flow)
    assert _told(flow).status == 404
    counts.response(flow)
    assert counters.passed == []


def test_a_websocket_is_one_exchange_told_at_its_end(counts: Ledger, counters: Counters) -> None:
    flow = _timed(tflow.twebsocketflow())
    assert flow.websocket
    flow.websocket.timestamp_end = 20.0
    counts.response(flow)
    assert counters.passed == []
    exchange = _told(flow, "websocket_end")
    assert (exchange.websocket, exchange.status, exchange.duration) == (True, 101, 10.0)
    counts.websocket_end(flow)
    assert counters.passed == [Passed("default", False, Outcome.SUCCESS, 1)]
    assert not counts.wants_messages, "else each would be taken apart"


def _signed(flow: HTTPFlow, fields: Fields) -> HTTPFlow:
    """A flow that has passed a gate whose judge gives it these fields."""
    judge: Any = SimpleNamespace(
        has_rules=False, token_fields=frozenset((b"x-my-jwt",)), verdict=lambda head, now: Forward(fields)
    )
    assert gate.Gate(lambda: judge).refusal_for(flow) is None
    return flow


TOKEN = b"eyJraWQiOiJLMSJ9.eyJqdGkiOiI0MiJ9.c2ln"


def test_the_token_that_left_is_named_whatever_a_recording_shows() -> None:
    flow = _signed(_answered(200), ((b"a", b"b"), (b"X-My-Jwt", TOKEN)))
    flow.request.headers["x-my-jwt"] = "[token]"
    exchange = _told(flow)
    assert (exchange.kid, exchange.jti) == ("K1", "42")


def test_of_a_request_that_was_sent_twice_the_last_token_is_named() -> None:
    flow = _signed(_answered(200), ((b"X-My-Jwt", TOKEN),))
    gate.Gate(lambda: None).forget(flow)
    _signed(flow, ((b"X-My-Jwt", TOKEN.replace(b"eyJqdGkiOiI0MiJ9", b"eyJqdGkiOiI0MyJ9")),))
    assert _told(flow).jti == "43"


@pytest.mark.parametrize("fields", [(), ((b"a", TOKEN),)])
def test_what_left_without_a_token_has_none(fields: Fields) -> None:
    exchange = _told(_signed(_answered(200), fields))
    assert (exchange.kid, exchange.jti) == (None, None)


def test_what_was_refused_after_all_has_none() -> None:
    flow = _signed(tflow.tflow(), ((b"X-My-Jwt", TOKEN),))
    flows.respond(flow, pages.text(403, "no", ErrorType.HTTP_REQUEST_DENIED))
    assert _told(flow).jti is None


def test_connections_are_counted_while_they_are_open(counts: Ledger, counters: Counters) -> None:
    client = tflow.tclient_conn()
    counts.client_connected(client)
    counts.client_connected(client)
    counts.client_disconnected(client)
    assert counters.open == 1
