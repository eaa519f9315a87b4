"""The gate: nothing leaves without a verdict that allows it, and with exactly the fields that it gives."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from mitmproxy.http import Headers, HTTPFlow
from mitmproxy.options import Options
from mitmproxy.test import tflow, tutils

from jwtproxy.conduct.fields import Fields
from jwtproxy.conduct.host import Fault
from jwtproxy.conduct.request import RequestHead
from jwtproxy.conduct.verdict import Forward, Refuse, Verdict
from jwtproxy.config.errors import SettingsError
from jwtproxy.mitm import flows, gate
from jwtproxy.mitm.gate import Gate
from jwtproxy.observe.pages import Page
from tests.support.inside import Verdicts

UNSIGNED = "jwtproxy: the request could not be signed and was not forwarded\n"


class Signs(Verdicts):
    """A judge that gives each request another token."""

    def __init__(self, rule: str = "default", *, has_rules: bool = False) -> None:
        super().__init__()
        self._rule, self.has_rules = rule, has_rules

    def verdict(self, head: RequestHead, now: float) -> Verdict:
        self.asked.append(head)
        return Forward((*head.fields[:1], (b"x-my-jwt", b"%d" % len(self.asked))), self._rule)

    def clean_trailers(self, trailers: Fields) -> Fields:
        return trailers[:1]


class Fails(Verdicts):
    """A judge that cannot judge."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def verdict(self, head: RequestHead, now: float) -> Verdict:
        raise self._error


def _flow() -> HTTPFlow:
    return tflow.tflow(req=tutils.treq(headers=Headers([(b"a", b"b")])))


def _answer(flow: HTTPFlow) -> tuple[int, str | None] | None:
    return (flow.response.status_code, flow.response.text) if flow.response else None


def _page(page: Page | None) -> tuple[int, str] | None:
    return (page.code, page.body) if page else None


# --- verdicts


def test_a_request_leaves_with_the_fields_of_the_verdict() -> None:
    judge, flow = Signs(), _flow()
    Gate(lambda: judge).protect(flow)
    assert flow.request.headers.fields == ((b"a", b"b"), (b"x-my-jwt", b"1"))
    assert flow.response is None
    assert judge.asked == [flows.head_of(_flow())]


@pytest.mark.parametrize("status", [400, 403, 421, 502])
def test_a_refusal_has_the_status_and_words_of_the_verdict_however_often_it_is_asked_for(status: int) -> None:
    judge = Verdicts(Refuse(status, "because", "a rule"))
    open_ = Gate(lambda: judge)
    flow = _flow()
    fields = flow.request.headers.fields
    for _ in range(2):
        assert _page(open_.refusal_for(flow)) == (status, "jwtproxy: because\n")
        flow.response = None
        open_.protect(flow)
        assert _answer(flow) == (status, "jwtproxy: because\n")
    assert flow.request.headers.fields is fields
    assert len(judge.asked) == 4, "what is refused is judged again: it may change"


@pytest.mark.parametrize("look", [Gate.protect, Gate.refusal_for])
def test_a_request_to_the_proxy_is_never_judged_and_never_leaves(look: Callable[[Gate, HTTPFlow], object]) -> None:
    judge, flow = Signs(), _flow()
    flows.mark_to_self(flow)
    page = look(Gate(lambda: judge), flow)
    assert judge.asked == []
    assert flow.response is None
    assert flow.request.headers.fields == ((b"a", b"b"),)
    if look is Gate.refusal_for:
        assert _page(page) == (404, "jwtproxy: this is a proxy; it serves no pages here\n")  # type: ignore[arg-type]


@pytest.mark.parametrize(("has_rules", "noted"), [(True, "pay"), (False, None)])
def test_the_rule_that_decided_is_noted_where_there_are_rules(has_rules: bool, noted: str | None) -> None:
    judge, flow = Signs("pay", has_rules=has_rules), _flow()
    Gate(lambda: judge).protect(flow)
    assert flow.metadata.get("jwtproxy_rule") == noted


def test_the_rule_that_refused_is_noted_too() -> None:
    for rule, noted in (("no", {"jwtproxy_rule": "no"}), (None, {})):
        judge, flow = Verdicts(Refuse(403, "no", rule)), _flow()
        judge.has_rules = True
        Gate(lambda judge=judge: judge).protect(flow)  # type: ignore[misc]
        assert flow.metadata == noted


# --- what fails


def test_without_a_judge_nothing_leaves() -> None:
    shut, flow = Gate(lambda: None), _flow()
    shut.protect(flow)
    assert _answer(flow) == (502, UNSIGNED)
    assert _page(shut.refusal_for(_flow())) == (502, UNSIGNED)
    assert shut.clean_trailers(((b"a", b"b"),)) == ()
    shut.refuse(other := _flow())
    assert _answer(other) == (502, UNSIGNED), "a CONNECT would not come to the gate again"
    assert shut.access.denies_name("127.0.0.1", 80), "nor may anything be dialled for nothing"
    assert shut.signs, "nothing may pass that could not be signed"


def test_a_judge_that_fails_refuses_and_no_detail_is_told(caplog: pytest.LogCaptureFixture) -> None:
    judge, flow = Fails(RuntimeError("the key is 1234")), _flow()
    Gate(lambda: judge).protect(flow)
    assert _answer(flow) == (502, UNSIGNED)
    assert caplog.messages == ["jwtproxy: error: a request was refused, signing failed: RuntimeError"]
    assert caplog.records[0].exc_info is None
    assert flow.request.headers.fields == ((b"a", b"b"),)


def test_a_judge_that_knows_what_is_wrong_says_so_to_us_alone(caplog: pytest.LogCaptureFixture) -> None:
    judge = Fails(SettingsError("no key may sign now", "add one"))
    assert _page(Gate(lambda: judge).refusal_for(_flow())) == (502, UNSIGNED)
    (said,) = caplog.messages
    assert re.fullmatch(r"jwtproxy: error: .*: no key may sign now\njwtproxy: hint: add one", said)


# --- what was wrong as its client sent it


def test_a_fault_is_answered_before_any_hook() -> None:
    judge, flow = Verdicts(Refuse(421, "elsewhere")), _flow()
    flows.mark_fault(flow, Fault.TUNNEL)
    Gate(lambda: judge).refuse(flow)
    assert _answer(flow) == (421, "jwtproxy: elsewhere\n")
    assert [head.fault for head in judge.asked] == [Fault.TUNNEL]


def test_a_fault_that_is_allowed_is_signed_later() -> None:
    judge, flow = Signs(), _flow()
    Gate(lambda: judge).refuse(flow)
    assert flow.response is None
    assert flow.request.headers.fields == ((b"a", b"b"),)


# --- what was signed already


def test_a_request_that_stays_as_it_is_keeps_its_token() -> None:
    judge, flow = Signs(), _flow()
    looks = Gate(lambda: judge)
    looks.protect(flow)
    for _ in range(3):
        assert looks.refusal_for(flow) is None
        looks.protect(flow)
    assert flow.request.headers["x-my-jwt"] == "1"
    assert len(judge.asked) == 1


def _set(name: str, value: object) -> Callable[[HTTPFlow], None]:
    return lambda flow: setattr(flow.request, name, value)


CHANGES: dict[str, Callable[[HTTPFlow], None]] = {
    "scheme": _set("scheme", "https"),
    "host": _set("host", "other.example"),
    "port": _set("port", 99),
    "method": _set("method", "PUT"),
    "path": _set("path", "/other"),
    "field": lambda flow: flow.request.headers.add("x-my-jwt", "forged"),
    "no fields": lambda flow: flow.request.headers.clear(),
    "same fields": lambda flow: setattr(
        flow.request.headers, "fields", (*flow.request.headers.fields[:0], (b"a", b"b"))
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_request_that_was_changed_is_signed_anew(change: str) -> None:
    judge, flow = Signs(), _flow()
    looks = Gate(lambda: judge)
    looks.protect(flow)
    CHANGES[change](flow)
    assert looks.refusal_for(flow) is None
    assert flow.request.headers["x-my-jwt"] == "2"


def test_another_judge_signs_anew() -> None:
    judges = [Signs(), Signs()]
    looks, flow = Gate(lambda: judges[0]), _flow()
    looks.protect(flow)
    judges.pop(0)
    looks.protect(flow)
    assert len(judges[0].asked) == 1
    assert len(judges) == 1


@pytest.mark.parametrize(("later", "count"), [(0.9, 1), (1.1, 2), (-0.9, 1), (-1.1, 2), (-3600, 2)])
def test_a_token_stands_for_a_second_of_the_clock_either_way(
    monkeypatch: pytest.MonkeyPatch, later: float, count: int
) -> None:
    judge, flow, now = Signs(), _flow(), [1000.0]
    monkeypatch.setattr("time.time", lambda: now[0])
    looks = Gate(lambda: judge)
    looks.protect(flow)
    now[0] += later
    looks.protect(flow)
    assert len(judge.asked) == count


def test_the_signature_of_one_flow_is_not_that_of_another() -> None:
    judge = Signs()
    looks = Gate(lambda: judge)
    for count in (1, 2, 3):
        looks.protect(_flow())
        assert len(judge.asked) == count


def test_trailers_are_cleaned_by_the_judge() -> None:
    assert Gate(Signs).clean_trailers(((b"a", b"b"), (b"x-my-jwt", b"evil"))) == ((b"a", b"b"),)


# --- where it hangs


def test_where_no_gate_hangs_nothing_passes() -> None:
    options = Options()
    assert gate.is_shut(options)
    assert _page(gate.gate_of(options).refusal_for(_flow())) == (502, UNSIGNED)


def test_a_gate_hangs_at_one_master_alone() -> None:
    options, others = Options(), Options()
    hung = Gate(Signs)
    gate.hang(options, hung)
    assert gate.gate_of(options) is hung
    assert not gate.is_shut(options)
    assert gate.is_shut(others)
    gate.hang(options, other := Gate(Signs))
    assert gate.gate_of(options) is other
    gate.shut(options)
    assert gate.is_shut(options)
    assert _page(gate.gate_of(options).refusal_for(_flow())) == (502, UNSIGNED)


def test_a_gate_that_hangs_if_there_is_none_neither_replaces_nor_opens_one() -> None:
    options, first, second = Options(), Gate(Signs), Gate(Signs)
    gate.hang_if_none(options, first)
    gate.hang_if_none(options, second)
    assert gate.gate_of(options) is first
    gate.shut(options)
    gate.hang_if_none(options, second)
    assert gate.is_shut(options), "shut on purpose"
    gate.hang(options, second)
    assert gate.gate_of(options) is second


def test_each_master_counts_by_itself() -> None:
    options, others, counted = Options(), Options(), list[str]()
    gate.count(options)  # nobody wants to know
    gate.count_with(options, lambda: counted.append("one"))
    gate.count_with(others, lambda: counted.append("other"))
    gate.count(options)
    assert counted == ["one"]
    gate.count_with(options, lambda: counted.append("later"))
    gate.count(options)
    assert counted == ["one", "later"]
