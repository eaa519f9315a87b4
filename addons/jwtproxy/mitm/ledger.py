"""What has become of each request, for whoever counts that, or tells of it."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from mitmproxy.connection import Client
from mitmproxy.flow import Error
from mitmproxy.http import HTTPFlow, RequestData, Response, ResponseData
from mitmproxy.options import Options

from ..conduct import proxy_status
from ..conduct.proxy_status import ErrorType
from ..conduct.verdict import DEFAULT
from ..observe.counters import Carried, Outcome, outcome_of
from ..observe.exchanges import Exchange, Row, in_words
from . import failures, flows, gate
from .flows import RULE

_CARRIED = "jwtproxy_carried"
"""Among a flow's attributes: the bytes of both bodies, and whether it was in the fast lane."""
_LEFT = (flows.CLIENT_GONE, failures.GONE, "stream reset by client", Error.KILLED_MESSAGE)
"""How errors begin that are no failure: the client has gone, or a script has ended it."""


_SHOWN = "jwtproxy_shown"
"""The same: that it was answered with itself."""


Keep = Callable[[HTTPFlow, Outcome, Carried, float | None], None]
"""Keep what is wanted of a flow that is over: all that `row` needs."""


class _End(NamedTuple):
    """How a request has ended."""

    outcome: Outcome
    kind: str = ""
    """Of failure or refusal (RFC 9209)."""
    waited: float | None = None
    """Seconds until an upstream has begun to answer."""


class Counts(Protocol):
    """Who counts."""

    def count_end(self, outcome: Outcome, rule: str, carried: Carried, waited: float | None = None) -> None:
        """A request has come to its end. `waited`: seconds until an upstream has begun to answer, if one has."""
        ...

    def count_answer(self, status: int, rule: str, received: int, sent: int, waited: float) -> None:
        """The same of a request in the fast lane that an upstream has answered with this status."""
        ...

    def count_kind(self, kind: str, *, refused: bool) -> None:
        """A request was refused, or has failed, for a reason of this kind."""
        ...

    def change_open(self, more: int) -> None:
        """So many more connections of clients are open, or fewer."""
        ...


def note_carried(flow: HTTPFlow, received: int, sent: int, *, fast: bool = False) -> None:
    """Note how many bytes of the request's body, and of its answer's, have passed, and which way."""
    vars(flow)[_CARRIED] = (received, sent, fast)


def note_shown(flow: HTTPFlow) -> None:
    """Note that the proxy itself has answered, with what the request is."""
    vars(flow)[_SHOWN] = True


class Ledger:
    """mitmproxy addon: has each request counted once, when it is over. The proxy's own pages are none."""

    wants_messages = False
    """Of WebSockets: none but the end of each."""
    done_by_lane = ("response",)

    def __init__(self, counts: Counts) -> None:
        self._counts, self._count_answer = counts, counts.count_answer
        self.keepers: tuple[Keep, ...] = ()
        """Who keeps something of each, also of what was asked of the proxy itself, which is not counted."""

    def tell(self, keep: Keep, *, wanted: bool) -> None:
        """Have this called from now on, or no longer."""
        self.keepers = (*(one for one in self.keepers if one != keep), *((keep,) if wanted else ()))

    def client_connected(self, client: Client) -> None:
        """One more is there."""
        self._counts.change_open(1)

    def client_disconnected(self, client: Client) -> None:
        """It has left."""
        self._counts.change_open(-1)

    def response(self, flow: HTTPFlow) -> None:
        """The answer is complete; of a WebSocket that was only the beginning."""
        if flow.response and not flows.is_websocket(flow):
            self._end(flow, _end_of_answer(flow, flow.response))

    def response_in_lane(self, flow: HTTPFlow, received: int, sent: int) -> None:
        """The same of an upstream's answer, with the bytes of both bodies, in short: nearly all requests come here."""
        assert flow.response
        data, asked = flow.response.data, flow.request.data
        status, ended, began = data.status_code, asked.timestamp_end, data.timestamp_start
        waited = began - (ended if ended and ended < began else asked.timestamp_start)
        self._count_answer(status, flow.metadata.get(RULE, DEFAULT), received, sent, waited)
        if self.keepers:
            for keep in self.keepers:
                keep(flow, outcome_of(status), (received, sent, True), waited)

    def websocket_end(self, flow: HTTPFlow) -> None:
        """Nothing more passes by a WebSocket."""
        if flow.response:
            self._end(flow, _end_of_answer(flow, flow.response))

    def error(self, flow: HTTPFlow) -> None:
        """There will be no answer, or no more of it."""
        self._end(flow, _end_of_error(flow))

    def http_connect_error(self, flow: HTTPFlow) -> None:
        """A tunnel was refused, or could not be made; only requests are counted, and of this the kind alone."""
        end = _end_of(flow)
        if not flows.to_self(flow):
            self._count_kind(end)
        if self.keepers:
            self._keep(flow, end)

    def refuse_unread(self) -> None:
        """A request was refused that could not be read: it has no flow, and so no end of which more could be told."""
        self._counts.count_kind(ErrorType.HTTP_REQUEST_ERROR, refused=True)

    def _end(self, flow: HTTPFlow, end: _End) -> None:
        if not flows.to_self(flow) and _SHOWN not in vars(flow):
            self._count_kind(end)
            carried = vars(flow).get(_CARRIED, _NOTHING)
            self._counts.count_end(end.outcome, flow.metadata.get(RULE, DEFAULT), carried, end.waited)
        if self.keepers:
            self._keep(flow, end)

    def _count_kind(self, end: _End) -> None:
        if end.kind:
            self._counts.count_kind(end.kind, refused=end.outcome is Outcome.REFUSED)

    def _keep(self, flow: HTTPFlow, end: _End) -> None:
        if flow.response and not flow.response.data.timestamp_end:
            flow.response.data.timestamp_end = time.time()  # it was made here, and may be looked at later
        for keep in self.keepers:
            keep(flow, end.outcome, vars(flow).get(_CARRIED, _NOTHING), end.waited)


def exchange_of(flow: HTTPFlow) -> Exchange:
    """What is told of a flow that is over, or of a CONNECT that was refused."""
    end = _end_of(flow)
    return in_words(Row._make(row(flow, end.outcome, vars(flow).get(_CARRIED, _NOTHING), end.waited)))


def row(flow: HTTPFlow, outcome: Outcome, carried: Carried, waited: float | None) -> tuple[Any, ...]:
    """A Row of `observe.exchanges` as a plain tuple, of values that do not hold the flow."""
    request, response, websocket = flow.request.data, flow.response, flow.websocket
    peer: Any = flow.client_conn.peername
    scheme, path = request.scheme, request.path
    query = path.find(b"?")
    if query >= 0:
        path = path[:query]
    ended = websocket.timestamp_end if websocket else response and response.data.timestamp_end
    status = response.data.status_code if response else 0
    if flow.error:
        ended, status = flow.error.timestamp, failures.status_in(flow.error.msg) or status
    if request.method == b"CONNECT":
        scheme = path = b""
        status = 0 if flow.error else status
    token = b"" if outcome == _REFUSED and not flow.error else gate.token_of(flow)
    received, sent, fast = carried
    return (
        request.timestamp_start, ended or time.time(), peer[0] if peer else "", request.method, scheme, request.host,
        request.port, path, query >= 0, status, outcome.real,
        _reason(flow) if outcome >= _REFUSED else "", flow.metadata.get(RULE, DEFAULT), token[: token.rfind(b".")],
        waited, received, sent, fast, websocket is not None,
    )  # fmt: skip


def _reason(flow: HTTPFlow) -> str:
    if flow.error:
        return failures.in_our_words(flow.error.msg)
    return flows.reason_of(flow) if flow.response else "no answer"


def _end_of(flow: HTTPFlow) -> _End:
    response = None if flow.error else flow.response
    return _end_of_answer(flow, response) if response else _end_of_error(flow)


def _end_of_answer(flow: HTTPFlow, response: Response) -> _End:
    if flows.reason_of(flow):
        outcome = Outcome.REFUSED if response.status_code < 500 else Outcome.FAILED
        return _End(outcome, _kind_of_answer(response))
    return _End(outcome_of(response.data.status_code), "", _waited(flow.request.data, response.data))


def _waited(asked: RequestData, answer: ResponseData) -> float:
    ended, began = asked.timestamp_end, answer.timestamp_start
    return began - (ended if ended and ended < began else asked.timestamp_start)


def _end_of_error(flow: HTTPFlow) -> _End:
    reason = flow.error.msg if flow.error else "no answer"
    theirs = None if flows.reason_of(flow) else flow.response
    waited = _waited(flow.request.data, theirs.data) if theirs else None
    if reason.startswith(_LEFT):
        return _End(Outcome.ABORTED, "", waited)
    kind = failures.type_in(reason)
    outcome = Outcome.REFUSED if kind is ErrorType.HTTP_REQUEST_ERROR else Outcome.FAILED
    return _End(outcome, str(kind), waited)


def _kind_of_answer(response: Response) -> str:
    """Of which type the failure is that an answer of ours tells of."""
    told: str = response.headers.get(proxy_status.NAME, "")
    return told.rpartition("=")[2]


def hang(options: Options, ledger: Ledger) -> None:
    """Have it told of what the fast lane of the master with these options carries."""
    vars(options)[_HUNG] = ledger


def ledger_of(options: Options) -> Ledger | None:
    """Which is told of that."""
    found: Ledger | None = vars(options).get(_HUNG)
    return found


def refuse_unread(options: Options) -> None:
    """Have it counted that the master with these options has refused a request that could not be read."""
    if ledger := ledger_of(options):
        ledger.refuse_unread()


_HUNG = "jwtproxy_ledger"
_NOTHING = 0, 0, False
_REFUSED = int(Outcome.REFUSED)
"""From here on, outcomes are not an upstream's. As a number: what has names is slow."""
