"""What has become of each request, for whoever counts that, or tells of it."""

import functools
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from mitmproxy.connection import Client
from mitmproxy.flow import Error
from mitmproxy.http import HTTPFlow, RequestData, Response, ResponseData
from mitmproxy.options import Options

from ..conduct import proxy_status
from ..conduct.destination import Destination
from ..conduct.proxy_status import ErrorType, type_of
from ..conduct.verdict import DEFAULT
from ..observe.counters import Carried, Outcome
from ..observe.exchanges import Exchange, Ids, ids_of, public_path
from ..observe.redaction import redact
from . import failures, flows, gate
from .flows import RULE

_CARRIED = "jwtproxy_carried"
"""Among a flow's attributes: the bytes of both bodies, and whether it was in the fast lane."""
_LEFT = ("client disconnected", "Client disconnected", "stream reset by client", Error.KILLED_MESSAGE)
"""How errors begin that are no failure: the client has gone, or a script has ended it."""


_SHOWN = "jwtproxy_shown"
"""The same: that it was answered with itself."""


Listener = Callable[[Exchange], None]
Keep = Callable[[HTTPFlow, Outcome, Carried], None]


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
        self._counts, self._count_end = counts, counts.count_end
        self.listeners: list[Listener] = []
        """Who is told of each; while there is nobody, nothing is gathered."""
        self.keep: Keep | None = None
        """Who keeps of each, and of what was answered with itself, what is wanted later."""

    def client_connected(self, client: Client) -> None:
        """One more is there."""
        self._counts.change_open(1)

    def client_disconnected(self, client: Client) -> None:
        """It has left."""
        self._counts.change_open(-1)

    def response(self, flow: HTTPFlow) -> None:
        """The answer is complete; of a WebSocket that was only the beginning."""
        if flow.response and not _is_ours(flow) and not flows.is_websocket(flow):
            self._end(flow, _end_of_answer(flow, flow.response))
        elif self.keep and flow.response and _SHOWN in vars(flow):
            self.keep(flow, Outcome.SUCCESS, vars(flow).get(_CARRIED, _NOTHING))

    def response_in_lane(self, flow: HTTPFlow, received: int, sent: int) -> None:
        """The same of an upstream's answer, with the bytes of both bodies, in short: nearly all requests come here."""
        if self.listeners:
            note_carried(flow, received, sent, fast=True)
            self.response(flow)
            return
        assert flow.response
        data = flow.response.data
        outcome, carried = _CLASSES[data.status_code // 100], (received, sent, True)
        self._count_end(outcome, flow.metadata.get(RULE, DEFAULT), carried, _waited(flow.request.data, data))
        if self.keep:
            self.keep(flow, outcome, carried)

    def websocket_end(self, flow: HTTPFlow) -> None:
        """Nothing more passes by a WebSocket."""
        if flow.response:
            self._end(flow, _end_of_answer(flow, flow.response))

    def error(self, flow: HTTPFlow) -> None:
        """There will be no answer, or no more of it."""
        if not _is_ours(flow):
            self._end(flow, _end_of_error(flow))

    def _end(self, flow: HTTPFlow, end: _End) -> None:
        if end.kind:
            self._counts.count_kind(end.kind, refused=end.outcome is Outcome.REFUSED)
        carried = vars(flow).get(_CARRIED, _NOTHING)
        self._count_end(end.outcome, flow.metadata.get(RULE, DEFAULT), carried, end.waited)
        if self.keep:
            self.keep(flow, end.outcome, carried)
        if self.listeners:
            exchange = _exchange(flow, end)
            for listener in self.listeners:
                listener(exchange)


def reason_of(flow: HTTPFlow) -> str:
    """Why the answer of a flow that is over is ours, or why there is none; else empty."""
    if not flow.error and not flow.response:
        return "no answer"
    return redact(failures.in_our_words(flow.error.msg) if flow.error else flows.reason_of(flow))


def exchange_of(flow: HTTPFlow) -> Exchange:
    """What is told of a flow that is over, or of a CONNECT that was refused."""
    response = None if flow.error else flow.response
    return _exchange(flow, _end_of_answer(flow, response) if response else _end_of_error(flow))


def _end_of_answer(flow: HTTPFlow, response: Response) -> _End:
    if flows.reason_of(flow):
        outcome = Outcome.REFUSED if response.status_code < 500 else Outcome.FAILED
        return _End(outcome, _kind_of_answer(response))
    return _End(_CLASSES[response.data.status_code // 100], "", _waited(flow.request.data, response.data))


def _waited(asked: RequestData, answer: ResponseData) -> float:
    ended, began = asked.timestamp_end, answer.timestamp_start
    return began - (ended if ended and ended < began else asked.timestamp_start)


def _end_of_error(flow: HTTPFlow) -> _End:
    reason = flow.error.msg if flow.error else "no answer"
    if reason.startswith(_LEFT):
        return _End(Outcome.ABORTED)
    return _End(Outcome.FAILED, _kind(reason))


def _exchange(flow: HTTPFlow, end: _End) -> Exchange:
    request, response = flow.request.data, flow.response
    peer: Any = flow.client_conn.peername
    connects = request.method == b"CONNECT"
    path, has_query = public_path(request.path.decode("utf-8", "surrogateescape")) if not connects else ("", False)
    scheme = "" if connects else request.scheme.decode("utf-8", "surrogateescape")
    websocket = flow.websocket
    ended = websocket.timestamp_end if websocket else response and response.data.timestamp_end
    if flow.error:
        ended = flow.error.timestamp
    received, sent, fast = vars(flow).get(_CARRIED, _NOTHING)
    ids = ids_of(token) if end.outcome is not Outcome.REFUSED and (token := gate.token_of(flow)) else _UNSIGNED
    return Exchange(
        request.timestamp_start,
        peer[0] if peer else "",
        request.method.decode("utf-8", "surrogateescape"),
        scheme,
        _authority(scheme, request.host, request.port),
        path,
        has_query,
        response.data.status_code if response else None,
        end.outcome,
        reason_of(flow),
        flow.metadata.get(RULE, DEFAULT),
        *ids,
        fast,
        max(0.0, (ended or time.time()) - request.timestamp_start),
        end.waited,
        received,
        sent,
        websocket is not None,
    )


@functools.lru_cache(1024)
def _authority(scheme: str, host: str, port: int) -> str:
    """As it is written in a URL."""
    return Destination(scheme, host, port).authority


def _kind_of_answer(response: Response) -> str:
    """Of which type the failure is that an answer of ours tells of."""
    told: str = response.headers.get(proxy_status.NAME, "")
    return told.rpartition("=")[2]


def _kind(reason: str) -> str:
    return str(type_of(reason, ErrorType.CONNECTION_TERMINATED))


def _is_ours(flow: HTTPFlow) -> bool:
    """Whether it is asked of the proxy itself."""
    return flows.to_self(flow) or _SHOWN in vars(flow)


def hang(options: Options, ledger: Ledger) -> None:
    """Have it told of what the fast lane of the master with these options carries."""
    vars(options)[_HUNG] = ledger


def ledger_of(options: Options) -> Ledger | None:
    """Which is told of that."""
    found: Ledger | None = vars(options).get(_HUNG)
    return found


_HUNG = "jwtproxy_ledger"
_NOTHING = 0, 0, False
_UNSIGNED = Ids()
_CLASSES = defaultdict(lambda: Outcome.SUCCESS, {3: Outcome.REDIRECT, 4: Outcome.CLIENT_ERROR, 5: Outcome.SERVER_ERROR})
