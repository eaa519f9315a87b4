"""The gate: nothing leaves a master without a verdict that allows it, and with exactly the fields that it gives.

Hooks alone cannot promise that: another addon may halt them, switch streaming on or rewrite headers later, and a script
may be gone. So every stream asks the gate once more just before it contacts an upstream. All that a stream can reach
is its master's options; there the gate hangs, one for each master, and where none does, nothing passes.
"""

import logging
import time
from collections.abc import Callable
from http.client import NO_CONTENT
from typing import NamedTuple, Protocol

from mitmproxy.http import HTTPFlow
from mitmproxy.options import Options

from ..conduct import forwarding, framing
from ..conduct.access import Access
from ..conduct.fields import Fields, normalise
from ..conduct.proxy_status import ErrorType
from ..conduct.request import RequestHead
from ..conduct.verdict import Refuse, Verdict
from ..config.errors import SettingsError
from ..observe import pages
from ..observe.pages import Page
from . import limits
from .flows import RULE, head_of, respond, to_proxy, to_self

logger = logging.getLogger(__name__)

_FRESH = 1.0
"""Seconds for which a token stands for its request; one whose body took longer gets another when it leaves.

By the time of day, as `iat` has it: where the clock was set meanwhile, either way, the token says a wrong time.
"""

_SIGNED = "jwtproxy_signed"
"""Among a flow's attributes, which neither copies nor recordings of it have."""

_NARROW = Access(deny_private=True)
_UNSIGNED = pages.text(502, "the request could not be signed and was not forwarded", ErrorType.PROXY_INTERNAL_ERROR)


class Judge(Protocol):
    """Who makes verdicts; another one once anything changes that they depend on."""

    @property
    def has_rules(self) -> bool:
        """Whether it is worth noting which rule decided."""
        ...

    @property
    def signs(self) -> bool:
        """Whether any request is signed."""
        ...

    @property
    def pseudonym(self) -> str:
        """Our name in Via; empty where there is none."""
        ...

    @property
    def via_on_answers(self) -> bool:
        """Whether answers say that they came by us."""
        ...

    @property
    def token_fields(self) -> frozenset[bytes]:
        """The names of all header fields that may carry a token, normalised."""
        ...

    @property
    def access(self) -> Access:
        """Where requests may go."""
        ...

    def refusal(self, head: RequestHead) -> Refuse | None:
        """How a request, or CONNECT, is refused that was wrong as its client sent it, or asks for what none may."""
        ...

    def verdict(self, head: RequestHead, now: float) -> Verdict:
        """What becomes of a request, but for a CONNECT, at `now`, in seconds since the epoch."""
        ...

    def clean_trailers(self, trailers: Fields) -> Fields:
        """What may pass of a request's trailers."""
        ...


class _Signed(NamedTuple):
    """What a request looked like when it was signed, and by what."""

    fields: Fields
    decided_by: tuple[bytes, str, int, bytes, bytes]
    judge: Judge
    at: float


class Gate:
    """Applies verdicts to flows, and remembers what it has signed."""

    def __init__(self, judge: Callable[[], Judge | None]) -> None:
        """`judge`: who makes verdicts now; nothing passes while that is None."""
        self._judge = judge
        self.tell_time: Callable[[float], None] = lambda seconds: None
        """Who is told how many seconds each verdict took."""

    def protect(self, flow: HTTPFlow) -> None:
        """Sign the request, or answer it at once, unless that is done or it is one to the proxy itself."""
        if not to_self(flow) and (page := self.refusal_for(flow)):
            respond(flow, page)

    @property
    def signs(self) -> bool:
        """Whether what passes is signed, so that what cannot be must not pass."""
        judge = self._judge()
        return judge is None or judge.signs

    @property
    def pseudonym(self) -> str:
        """Our name in Via; empty where there is none."""
        judge = self._judge()
        return judge.pseudonym if judge else ""

    @property
    def token_fields(self) -> frozenset[bytes]:
        """The names of all header fields that may carry a token, normalised."""
        judge = self._judge()
        return judge.token_fields if judge else frozenset()

    def answer_fields(self, flow: HTTPFlow, version: bytes, status: int, fields: Fields) -> Fields:
        """What the client gets to see of an answer's fields, which came by this version of HTTP."""
        if status == NO_CONTENT:  # it has no body, nor a length of one (RFC 9110 §8.6)
            fields = framing.without_framing(fields)
        kept = forwarding.with_date(forwarding.response_fields(fields, from_proxy=to_proxy(flow)))
        return self.named_fields(version, kept)

    def named_fields(self, version: bytes, fields: Fields) -> Fields:
        """An answer's fields, with our name where it is told."""
        judge = self._judge()
        if judge and judge.via_on_answers:
            return forwarding.with_via(fields, forwarding.via(version, judge.pseudonym))
        return fields

    def connect_fields(self, fields: Fields) -> Fields:
        """The fields of a CONNECT to the next proxy."""
        judge = self._judge()
        if judge and judge.via_on_answers:  # auto means a next proxy, too
            return forwarding.with_via(fields, forwarding.via(b"HTTP/1.1", judge.pseudonym))
        return fields

    @property
    def access(self) -> Access:
        """Where connections may go; while no request passes, hardly anywhere."""
        judge = self._judge()
        return judge.access if judge else _NARROW

    def refuse(self, flow: HTTPFlow) -> None:
        """Answer a request, or CONNECT, that was wrong as its client sent it, or asks for what none may."""
        judge = self._judge()
        if judge is None:
            respond(flow, _UNSIGNED)
        elif refusal := judge.refusal(head_of(flow)):
            respond(flow, _page(refusal))

    def refusal_for(self, flow: HTTPFlow) -> Page | None:
        """The last look before an upstream is contacted: None if signed as it stands or now, else the refusal."""
        if to_self(flow):
            return pages.NONE
        if self._is_signed(flow):
            return None
        return self._sign(flow)

    def forget(self, flow: HTTPFlow) -> None:
        """Have the request signed anew when it is looked at next, as it is sent a second time."""
        vars(flow).pop(_SIGNED, None)

    def clean_trailers(self, trailers: Fields) -> Fields:
        """What may pass of a request's trailers."""
        judge = self._judge()
        return judge.clean_trailers(trailers) if judge else ()

    def _is_signed(self, flow: HTTPFlow) -> bool:
        # The very tuple we made: any change to the fields would have made another.
        signed = vars(flow).get(_SIGNED)
        return (
            signed is not None
            and signed.fields is flow.request.headers.fields
            and signed.decided_by == _decided_by(flow)
            and signed.judge is self._judge()
            and abs(time.time() - signed.at) < _FRESH
        )

    def _sign(self, flow: HTTPFlow) -> Page | None:
        """Attach a token, or say how to refuse. Whatever goes wrong, the request must not leave; why stays with us."""
        began = time.perf_counter()
        try:
            page = self._apply(flow)
            self.tell_time(time.perf_counter() - began)
            return page
        except SettingsError as error:
            logger.error("jwtproxy: error: a request was refused: %s\njwtproxy: hint: %s", error, error.hint)
        except Exception as error:
            logger.error("jwtproxy: error: a request was refused, signing failed: %s", type(error).__name__)
        return _UNSIGNED

    def _apply(self, flow: HTTPFlow) -> Page | None:
        judge, now = self._judge(), time.time()
        if judge is None:
            return _UNSIGNED
        verdict = judge.verdict(head_of(flow), now)
        if judge.has_rules and verdict.rule:
            flow.metadata[RULE] = verdict.rule
        if isinstance(verdict, Refuse):
            return _page(verdict)
        flow.request.headers.fields = verdict.fields
        vars(flow)[_SIGNED] = _Signed(verdict.fields, _decided_by(flow), judge, now)
        return None


_SHUT = Gate(lambda: None)
_HUNG, _COUNT = "jwtproxy_gate", "jwtproxy_count"


def hang(options: Options, gate: Gate) -> None:
    """Have all streams of the master with these options pass this gate."""
    vars(options)[_HUNG] = gate  # past what mitmproxy takes for the setting of an option


def hang_if_none(options: Options, gate: Gate) -> None:
    """The same, but a gate that hangs there already stays, open or shut."""
    vars(options).setdefault(_HUNG, gate)


def shut(options: Options) -> None:
    """Let nothing pass any more."""
    hang(options, _SHUT)


def is_shut(options: Options) -> bool:
    """Whether nobody answers for what would pass."""
    return gate_of(options) is _SHUT


def gate_of(options: Options) -> Gate:
    """The gate that the streams of the master with these options pass."""
    gate: Gate = vars(options).get(_HUNG, _SHUT)
    return gate


def count_with(options: Options, count: Callable[[], None]) -> None:
    """Have this called for each request that sets out for an upstream."""
    vars(options)[_COUNT] = count


def count(options: Options) -> None:
    """One more request sets out for an upstream."""
    if counter := vars(options).get(_COUNT):
        counter()


def token_of(flow: HTTPFlow) -> bytes:
    """The token that was signed last for a request, whatever has become of its fields since; empty if none was."""
    signed: _Signed | None = vars(flow).get(_SIGNED)
    if not signed or not signed.fields:
        return b""
    name, value = signed.fields[-1]  # where the judge puts it; no client's has passed
    known = signed.judge.token_fields
    return value if name in known or normalise(name) in known else b""


def _page(refusal: Refuse) -> Page:
    limits.reached(refusal.limit)
    fields = {name.decode(): value.decode() for name, value in refusal.fields}
    if not refusal.text:
        return Page(refusal.status, "", fields)
    return pages.text(refusal.status, refusal.text, refusal.error, **fields)


def _decided_by(flow: HTTPFlow) -> tuple[bytes, str, int, bytes, bytes]:
    """What, beside the header fields, a verdict depends on."""
    request = flow.request.data
    return request.scheme, request.host, request.port, request.method, request.path
