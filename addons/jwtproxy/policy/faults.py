"""How requests are refused that were wrong as their clients sent them, whoever signs, or nobody."""

from dataclasses import dataclass

from ..conduct import access as going
from ..conduct import forwarding, target
from ..conduct.access import OPEN, Access
from ..conduct.fields import Fields, strip
from ..conduct.host import Fault
from ..conduct.malformed import MalformedError
from ..conduct.proxy_status import ErrorType
from ..conduct.request import RequestHead
from ..conduct.verdict import Forward, Refuse, Verdict

_REFUSALS = {
    Fault.TARGET: Refuse(400, target.NO_FORM, error=ErrorType.HTTP_REQUEST_ERROR),
    Fault.HOST: Refuse(400, target.BAD_AUTHORITY, error=ErrorType.HTTP_REQUEST_ERROR),
    Fault.NO_HOST: Refuse(400, "the request has no Host header", error=ErrorType.HTTP_REQUEST_ERROR),
    Fault.LOOP: Refuse(
        502,
        "the request has been here before: two proxies lead to each other",
        error=ErrorType.PROXY_LOOP_DETECTED,
    ),
    Fault.HOPS: Refuse(200, "", fields=((b"Allow", forwarding.ALLOW),)),
}
_TRACE = Refuse(405, "TRACE would show the token; jwt_trace=on permits it", fields=((b"Allow", forwarding.ALLOW),))

_STRANGER = Refuse(403, going.STRANGER, limit=going.CLIENTS)
_TRACE_HERE = Refuse(405, "TRACE is not answered here, and Max-Forwards: 0 ends its way", fields=_TRACE.fields)


def refusal(head: RequestHead, host_mismatch: str, trace: str = "off") -> Refuse | None:
    """The refusal of a request, or CONNECT, with a fault; None without.

    `host_mismatch`: what becomes of one that names another host than its tunnel's, refuse or allow. `trace`: on, or
    off, as an answer to TRACE repeats the request with its token (RFC 9110 §9.3.8).
    """
    if head.fault is Fault.TUNNEL and host_mismatch != "allow":
        return _misdirected(head.tunnel)
    if head.fault is Fault.HOPS and head.method == b"TRACE":
        return _TRACE_HERE
    if head.fault in _REFUSALS:
        return _REFUSALS[head.fault]
    return _TRACE if head.method.upper() == b"TRACE" and trace == "off" else None


def stranger(head: RequestHead, access: Access) -> Refuse | None:
    """The refusal of a request, or CONNECT, whose client may not use the proxy."""
    denied = access.clients and not head.is_ours and access.denies_client(head.client[0] if head.client else "")
    return _STRANGER if denied else None


def denial(head: RequestHead, access: Access) -> Refuse | None:
    """The refusal of a request, or CONNECT, to where none may go, as far as the name of the place tells that."""
    if head.is_given or not (denial := access.denies_name(head.host, head.port)):
        return None
    host = f"[{head.host}]" if ":" in head.host else head.host
    place = f"{head.scheme}://{host}:{head.port}" if head.scheme else f"{host}:{head.port}"
    return Refuse(403, going.denied(place, denial), limit=denial.limit, error=denial.error)


@dataclass(frozen=True)
class Unsigned:
    """The policy where nobody signs, nor asked for it: only what is wrong is refused. It needs no key, nor PyJWT."""

    host_mismatch: str = "refuse"
    has_rules = False
    signs = False
    pseudonym = ""
    via_on_answers = False
    token_fields = frozenset[bytes]()
    access = OPEN

    def refusal(self, head: RequestHead) -> Refuse | None:
        """As `Policy.refusal`."""
        return refusal(head, self.host_mismatch, "on")

    def verdict(self, head: RequestHead, now: float) -> Verdict:
        """As `Policy.verdict`; never signs."""
        return self.refusal(head) or forward(head)

    def clean_trailers(self, trailers: Fields) -> Fields:
        """All of them: none carries a token."""
        return trailers


UNSIGNED = Unsigned()


def forward(head: RequestHead) -> Verdict:
    """Let a request pass without a token."""
    try:
        return Forward(passing(head))
    except MalformedError as error:
        return malformed(error)


def malformed(error: MalformedError, rule: str | None = None, place: str | None = None) -> Refuse:
    """The refusal of what no message can carry: below 500 its client has sent that, else a hook has made it."""
    kind = ErrorType.HTTP_REQUEST_ERROR if error.status < 500 else ErrorType.PROXY_INTERNAL_ERROR
    return Refuse(error.status, str(error), rule, place, error=kind)


def passing(head: RequestHead, never: frozenset[bytes] = frozenset()) -> Fields:
    """What of a request's fields is for more than one hop, but for these names, normalised. Raises MalformedError."""
    target.check_sendable(head.method, head.path)
    return strip(forwarding.request_fields(head.fields, version=head.http_version, to_proxy=head.to_proxy), never)


def _misdirected(tunnel: str) -> Refuse:
    """The name that the client gave stays out of it."""
    return Refuse(
        421, f"this tunnel leads to {tunnel}, but the request names another host; jwt_host_mismatch=allow permits it"
    )
