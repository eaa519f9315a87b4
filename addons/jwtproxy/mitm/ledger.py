"""What has become of each request, for whoever counts that."""

from collections import defaultdict
from typing import Protocol

from mitmproxy.flow import Error
from mitmproxy.http import HTTPFlow, Response

from ..conduct import proxy_status
from ..conduct.proxy_status import ErrorType, type_of
from ..conduct.verdict import DEFAULT
from ..observe.counters import Carried, Outcome
from . import flows
from .flows import RULE

_CARRIED = "jwtproxy_carried"
"""Among a flow's attributes: the bytes of both bodies, and whether it was in the fast lane."""
_LEFT = ("client disconnected", "Client disconnected", "stream reset by client", Error.KILLED_MESSAGE)
"""How errors begin that are no failure: the client has gone, or a script has ended it."""


_SHOWN = "jwtproxy_shown"
"""The same: that it was answered with itself."""


class Counts(Protocol):
    """Who counts."""

    def count_end(self, outcome: Outcome, rule: str, carried: Carried, waited: float | None = None) -> None:
        """A request has come to its end. `waited`: seconds until an upstream has begun to answer, if one has."""
        ...

    def count_kind(self, kind: str, *, refused: bool) -> None:
        """A request was refused, or has failed, for a reason of this kind."""
        ...


def note_carried(flow: HTTPFlow, received: int, sent: int, *, fast: bool = False) -> None:
    """Note how many bytes of the request's body, and of its answer's, have passed, and which way."""
    vars(flow)[_CARRIED] = (received, sent, fast)


def note_shown(flow: HTTPFlow) -> None:
    """Note that the proxy itself has answered, with what the request is."""
    vars(flow)[_SHOWN] = True


class Ledger:
    """mitmproxy addon: has each request counted once, when it is over. The proxy's own pages are none."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    def response(self, flow: HTTPFlow) -> None:
        """The answer is complete."""
        response = flow.response
        if response is None or _is_ours(flow):
            return
        if flows.reason_of(flow):
            refused = response.status_code < 500
            self._counts.count_kind(_kind_of_answer(response), refused=refused)
            self._end(flow, Outcome.REFUSED if refused else Outcome.FAILED)
            return
        asked, data = flow.request.data, response.data
        began, ended = data.timestamp_start, asked.timestamp_end
        waited = began - (ended if ended and ended < began else asked.timestamp_start)
        self._end(flow, _CLASSES[data.status_code // 100], waited)

    def error(self, flow: HTTPFlow) -> None:
        """There will be no answer, or no more of it."""
        if _is_ours(flow):
            return
        reason = flow.error.msg if flow.error else ""
        left = reason.startswith(_LEFT)
        if not left:
            self._counts.count_kind(_kind(reason), refused=False)
        self._end(flow, Outcome.ABORTED if left else Outcome.FAILED)

    def _end(self, flow: HTTPFlow, outcome: Outcome, waited: float | None = None) -> None:
        rule, carried = flow.metadata.get(RULE, DEFAULT), vars(flow).get(_CARRIED, _NOTHING)
        self._counts.count_end(outcome, rule, carried, waited)


def _kind_of_answer(response: Response) -> str:
    """Of which type the failure is that an answer of ours tells of."""
    told: str = response.headers.get(proxy_status.NAME, "")
    return told.rpartition("=")[2]


def _kind(reason: str) -> str:
    return str(type_of(reason, ErrorType.CONNECTION_TERMINATED))


def _is_ours(flow: HTTPFlow) -> bool:
    """Whether it is asked of the proxy itself."""
    return flows.to_self(flow) or _SHOWN in vars(flow)


_NOTHING = 0, 0, False
_CLASSES = defaultdict(lambda: Outcome.SUCCESS, {3: Outcome.REDIRECT, 4: Outcome.CLIENT_ERROR, 5: Outcome.SERVER_ERROR})
