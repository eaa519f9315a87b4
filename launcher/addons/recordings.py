"""Keep tokens out of what mitmproxy's own addons record."""

from weakref import WeakSet

from mitmproxy import ctx, http

from jwtproxy.conduct import fields
from jwtproxy.mitm import stock

REDACTED = b"[token]"


class Recordings:
    """mitmproxy addon, first of all: once the answer is there, recorders (-w, hardump) see no token."""

    def __init__(self) -> None:
        self._open: WeakSet[http.HTTPFlow] = WeakSet()
        self._names: frozenset[bytes] = frozenset()
        self._saves = False
        self.idle = True
        """Whether nobody records."""

    def configure(self, updated: set[str]) -> None:
        """Find out who records."""
        self._saves = bool(stock.option(ctx.options, "save_stream_file"))
        self.idle = not (self._saves or stock.option(ctx.options, "hardump"))

    def request(self, flow: http.HTTPFlow) -> None:
        """What is still open when the proxy ends is recorded too."""
        if self._saves:
            self._open.add(flow)

    def response(self, flow: http.HTTPFlow) -> None:
        """The request has long left: its token is of no use here any more."""
        if self.idle:
            return
        if signing := ctx.master.addons.get("jwtinject"):
            self._names |= signing.policy.token_fields  # and those of rules that have gone since
        flow.request.headers.fields = tuple(
            (key, REDACTED) if fields.normalise(key) in self._names else (key, value)
            for key, value in flow.request.headers.fields
        )

    error = response

    def done(self) -> None:
        """Redact before the recorders write their rest."""
        for flow in self._open:
            self.response(flow)
