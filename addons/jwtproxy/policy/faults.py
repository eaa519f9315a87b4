"""How requests are refused that were wrong as their clients sent them, whoever signs, or nobody."""

from dataclasses import dataclass

from ..conduct.fields import Fields
from ..conduct.host import Fault
from ..conduct.request import RequestHead
from ..conduct.verdict import Forward, Refuse, Verdict

_REFUSALS = {
    Fault.TARGET: Refuse(400, "the request's target is neither a URL nor a path"),
    Fault.HOST: Refuse(400, "the request's host or port is not valid"),
}


def refusal(head: RequestHead, host_mismatch: str) -> Refuse | None:
    """The refusal of a request, or CONNECT, with a fault; None without.

    `host_mismatch`: what becomes of one that names another host than its tunnel's, refuse or allow.
    """
    if head.fault is None:
        return None
    if head.fault is not Fault.TUNNEL:
        return _REFUSALS[head.fault]
    return None if host_mismatch == "allow" else _misdirected(head.tunnel)


@dataclass(frozen=True)
class Unsigned:
    """The policy where nobody signs, nor asked for it: only what is wrong is refused. It needs no key, nor PyJWT."""

    host_mismatch: str = "refuse"
    has_rules = False
    signs = False

    def refusal(self, head: RequestHead) -> Refuse | None:
        """As `Policy.refusal`."""
        return refusal(head, self.host_mismatch)

    def verdict(self, head: RequestHead, now: float) -> Verdict:
        """As `Policy.verdict`; never signs."""
        return self.refusal(head) or Forward(head.fields)

    def clean_trailers(self, trailers: Fields) -> Fields:
        """All of them: none carries a token."""
        return trailers


UNSIGNED = Unsigned()


def _misdirected(tunnel: str) -> Refuse:
    """The name that the client gave stays out of it."""
    return Refuse(
        421, f"this tunnel leads to {tunnel}, but the request names another host; jwt_host_mismatch=allow permits it"
    )
