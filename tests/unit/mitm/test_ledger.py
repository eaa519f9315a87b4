"""Each request is counted once, as what has become of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from mitmproxy import ctx
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
from tests.support import servers
from tests.support.inside import Opens, Ours
from tests.support.upstreams import deaf_authority

if TYPE_CHECKING:
    from tests.support.inside import Serve, Upstream


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
        ("what mitmproxy says", Outcome.FAILED, "http_protocol_error"),
        ("Response body exceeds mitmproxy's body_size_limit.", Outcome.FAILED, "http_response_body_size"),
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


class Streams(Ours):
    """An addon that gathers no body."""

    def requestheaders(self, flow: HTTPFlow) -> None:
        flow.request.stream = True

    def responseheaders(self, flow: HTTPFlow) -> None:
        assert flow.response
        flow.response.stream = True


class Counting(Ledger):
    """That of a proxy, as the status addon has it."""

    __module__ = Ours.__module__

    def __init__(self) -> None:
        self.counters = Counters()
        super().__init__(self.counters)
        self.told: list[Row] = []
        self.tell(_into(self.told), wanted=True)

    def load(self, loader: object) -> None:
        ledger.hang(ctx.options, self)

    @property
    def statuses(self) -> list[int]:
        """Those that are told of each; 0 where its client was sent none."""
        return [row.status for row in self.told]

    @property
    def found(self) -> tuple[list[Outcome], dict[str, int], dict[str, int], int]:
        """How requests have ended, by which failures and refusals, and how many answers began."""
        errors, refusals = (
            {kind: count for kind, count in one.items() if count}
            for one in (self.counters.errors, self.counters.refusals)
        )
        outcomes = [one.outcome for one in self.counters.passed for _ in range(one.requests)]
        return outcomes, errors, refusals, self.counters.upstream.counts[-1]


@contextlib.asynccontextmanager
async def _saying(answer: bytes) -> AsyncIterator[str]:
    """An upstream that says this to a request, whatever its body, and hangs up, unless there is more of it to come."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        if answer.endswith(_STAYS):
            with contextlib.suppress(ConnectionError):
                await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield "127.0.0.1:{1}".format(*server.sockets[0].getsockname())
    await servers.end(server)


_STAYS = b"2\r\nok\r\n"
BEGUN = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + _STAYS


@pytest.mark.parametrize("lane", [False, True])
@pytest.mark.parametrize(
    ("answer", "kind", "begun"),
    [
        (b"junk\r\n\r\n", "http_protocol_error", 0),
        (b"", "connection_terminated", 0),
        (b"HTTP/1.1 2", "http_response_incomplete", 0),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", "http_response_incomplete", 1),
        (BEGUN + b"1\r\n", "http_response_incomplete", 1),
        (BEGUN + b"x\r\n", "http_protocol_error", 1),
    ],
)
def test_a_failure_is_of_the_kind_that_its_client_is_told(
    answer: bytes, kind: str, begun: int, lane: bool, serve: Serve
) -> None:
    counting = Counting()

    async def run() -> None:
        async with _saying(answer) as place, serve(counting, Opens(), Streams(), lane=lane) as proxy:
            async with proxy.client() as client:
                client.send(f"POST http://{place}/ HTTP/1.1\r\nHost: {place}\r\nContent-Length: 0\r\n\r\n".encode())
                said = await client.rest()
            assert (f"Proxy-Status: jwtproxy; error={kind}\r\n".encode() in said) == (not begun)
            assert proxy.carried == lane

    asyncio.run(run())
    assert counting.found == ([Outcome.FAILED], {kind: 1}, {}, begun)
    assert counting.statuses == [200 if begun else 502]


@pytest.mark.parametrize("lane", [False, True])
@pytest.mark.parametrize("answer", [b"", BEGUN], ids=["silent", "answering"])
@pytest.mark.parametrize("body", ["Content-Length: 100\r\n\r\nabcde", "Transfer-Encoding: chunked\r\n\r\n5\r\nab"])
def test_a_client_that_leaves_within_its_body_is_no_failure(
    body: str, answer: bytes, lane: bool, serve: Serve, upstream: type[Upstream]
) -> None:
    counting = Counting()

    async def run() -> None:
        async with (
            upstream() as silent,
            _saying(answer) as answering,
            serve(counting, Opens(), Streams(), lane=lane) as proxy,
            asyncio.timeout(5),
        ):
            place = answering if answer else silent.authority
            async with proxy.client() as client:
                client.send(f"POST http://{place}/ HTTP/1.1\r\nHost: {place}\r\n{body}".encode())
                if answer:
                    await client.head()
                else:
                    while not silent.heads:
                        await asyncio.sleep(0.01)
            while not counting.counters.passed:
                await asyncio.sleep(0.01)

    asyncio.run(run())
    assert counting.found == ([Outcome.ABORTED], {}, {}, bool(answer))
    assert counting.statuses == [200 if answer else 0]


@pytest.mark.parametrize("lane", [False, True])
@pytest.mark.parametrize("hook", [False, True])
def test_a_client_that_leaves_while_its_upstream_is_dialled_is_no_failure(hook: bool, lane: bool, serve: Serve) -> None:
    counting, dialled = Counting(), asyncio.Event()

    async def dial(data: object) -> None:
        dialled.set()
        await asyncio.sleep(9 * hook)

    async def run() -> None:
        with deaf_authority() as place:
            async with serve(counting, Opens(), Ours(server_connect=dial), lane=lane) as proxy, asyncio.timeout(5):
                async with proxy.client() as client:
                    client.send(f"GET http://{place}/ HTTP/1.1\r\nHost: {place}\r\n\r\n".encode())
                    await dialled.wait()
                    await asyncio.sleep(0.05)
                while not counting.counters.passed:
                    await asyncio.sleep(0.01)

    asyncio.run(run())
    assert counting.found == ([Outcome.ABORTED], {}, {}, 0)
    assert counting.statuses == [0]


@pytest.mark.parametrize("lane", [False, True])
@pytest.mark.parametrize("answer", [b"", BEGUN], ids=["silent", "answering"])
def test_a_client_whose_body_is_malformed_is_refused(
    answer: bytes, lane: bool, serve: Serve, upstream: type[Upstream]
) -> None:
    counting = Counting()

    async def run() -> None:
        async with (
            upstream() as silent,
            _saying(answer) as answering,
            serve(counting, Opens(), Streams(), lane=lane) as proxy,
            proxy.client() as client,
            asyncio.timeout(5),
        ):
            place = answering if answer else silent.authority
            head = f"POST http://{place}/ HTTP/1.1\r\nHost: {place}\r\nTransfer-Encoding: chunked\r\n\r\n"
            client.send(head.encode())
            if answer:
                await client.head()
            client.send(b"x\r\n")
            assert (b"error=http_request_error" in await client.rest()) == (not answer)

    asyncio.run(run())
    assert counting.found == ([Outcome.REFUSED], {}, {"http_request_error": 1}, bool(answer))
    assert counting.statuses == [200 if answer else 400]


@pytest.mark.parametrize("lane", [False, True])
@pytest.mark.parametrize("body", ["", "a"])
def test_a_client_whose_body_does_not_come_is_refused(
    body: str, lane: bool, serve: Serve, upstream: type[Upstream]
) -> None:
    counting = Counting()

    async def run() -> None:
        async with (
            upstream() as server,
            serve(counting, Opens(body=0.1), Streams(), lane=lane) as proxy,
            proxy.client() as client,
        ):
            client.send(server.request("Content-Length: 2", method="POST", body=body.encode()))
            assert (await client.reply()).code == 408

    asyncio.run(run())
    assert counting.found == ([Outcome.REFUSED], {}, {"http_request_error": 1}, 0)
    assert counting.statuses == [408]


@pytest.mark.parametrize("lane", [False, True])
def test_a_connection_that_is_not_made_is_told_with_what_its_client_got(lane: bool, serve: Serve) -> None:
    counting = Counting()

    async def run() -> None:
        async with serve(counting, Opens(), Streams(), lane=lane) as proxy, proxy.client() as client:
            client.send(b"GET http://127.0.0.1:1/ HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n")
            assert (await client.reply()).code == 502

    asyncio.run(run())
    assert counting.found == ([Outcome.FAILED], {"connection_refused": 1}, {}, 0)
    assert counting.statuses == [502]


@pytest.mark.parametrize("lane", [False, True])
@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"G(T http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", 400),
        (b"GET http://a.example:99999/ HTTP/1.1\r\nHost: a.example\r\n\r\n", 400),
        (b"GET http://a.example/\xff HTTP/1.1\r\nHost: a.example\r\n\r\n", 400),
        (b"GET http://a.example/ HTTP/1.1\r\nHost: ", 408),
    ],
)
def test_what_cannot_be_read_is_counted_among_refusals_alone(
    head: bytes, status: int, lane: bool, serve: Serve
) -> None:
    counting = Counting()

    async def run() -> None:
        async with serve(counting, Opens(head=0.1), lane=lane) as proxy, proxy.client() as client:
            client.send(head)
            assert (await client.reply()).code == status

    asyncio.run(run())
    assert counting.found == ([], {}, {"http_request_error": 1}, 0)


@pytest.mark.parametrize(
    "start", [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\4" + bytes(5), b"\5\1\0"], ids=["HTTP/2", "SOCKS"]
)
def test_what_is_not_spoken_here_is_refused_once(start: bytes, serve: Serve) -> None:
    counting = Counting()

    async def run() -> None:
        async with serve(counting, Opens()) as proxy, proxy.client() as client:
            client.send(start)
            await client.rest()

    asyncio.run(run())
    assert counting.found == ([], {}, {"http_request_error": 1}, 0)


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


@pytest.mark.parametrize(
    ("status", "error", "errors", "refusals"),
    [
        (502, ErrorType.DNS_ERROR, {"dns_error": 1}, {}),
        (403, ErrorType.DESTINATION_IP_PROHIBITED, {}, {"destination_ip_prohibited": 1}),
        (403, None, {}, {}),
    ],
)
def test_of_a_connect_that_fails_the_kind_is_counted(
    status: int, error: ErrorType | None, errors: dict[str, int], refusals: dict[str, int]
) -> None:
    """Of HTTPS, it is all that tells of an upstream that cannot be reached."""
    counting, flow = Counting(), tflow.tflow()
    flow.request.method = "CONNECT"
    flows.respond(flow, pages.text(status, "no", error))
    counting.http_connect_error(flow)
    assert counting.found == ([], errors, refusals, 0)
    flows.mark_to_self(flow)
    counting.http_connect_error(flow)
    assert counting.found == ([], errors, refusals, 0)
    assert counting.statuses == [status, status]


@pytest.mark.parametrize("hook", [False, True])
def test_a_client_that_leaves_while_its_tunnel_is_made_is_no_failure(hook: bool, serve: Serve) -> None:
    counting, dialled = Counting(), asyncio.Event()

    async def dial(data: object) -> None:
        dialled.set()
        await asyncio.sleep(9 * hook)

    async def run() -> None:
        with deaf_authority() as place:
            async with serve(counting, Opens(), Ours(server_connect=dial)) as proxy, asyncio.timeout(5):
                async with proxy.client() as client:
                    client.send(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n".encode())
                    await dialled.wait()
                    await asyncio.sleep(0.05)
                while not counting.statuses:
                    await asyncio.sleep(0.01)

    asyncio.run(run())
    assert counting.found == ([], {}, {}, 0)
    assert counting.statuses == [0]
    assert [in_words(row).outcome for row in counting.told] == [Outcome.ABORTED]


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


def test_the_token_of_a_request_that_turned_out_malformed_had_left() -> None:
    flow = _signed(tflow.tflow(), ((b"X-My-Jwt", TOKEN),))
    flow.error = Error(Reason("the request's body is malformed", ErrorType.HTTP_REQUEST_ERROR))
    assert _told(flow, "error").jti == "42"


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
