"""Let bodies flow through instead of gathering them, wherever nobody needs them whole."""

from typing import Any

from mitmproxy import ctx, http

from jwtproxy.mitm import flows, stock

STREAM_ABOVE = 64 * 1024
"""Bytes. A shorter request body of known length is sent whole, so that hooks on `request` see it before it leaves."""


class Streaming:
    """mitmproxy addon: stream responses, WebSockets, and requests that are long or of unknown length."""

    done_by_lane = ("requestheaders", "responseheaders")

    def __init__(self) -> None:
        self._whole_requests = self._whole_responses = False

    def configure(self, updated: set[str]) -> None:
        """Find out whether an option needs whole bodies."""
        self._whole_requests = stock.wants_whole_requests(ctx.options)
        self._whole_responses = stock.wants_whole_responses(ctx.options)

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Stream the request if its length is unknown, or long unless stream_large_bodies says from where on."""
        if flow.request.stream or self._whole_requests or _script_has("request"):
            return
        length = flow.request.headers.get("content-length")
        if length is None:
            # Without either header HTTP/1.1 has no body and HTTP/2 any; where there is none this has no effect.
            flow.request.stream = flow.request.is_http2 or "transfer-encoding" in flow.request.headers
        elif ctx.options.stream_large_bodies is None:
            flow.request.stream = length.isascii() and length.isdigit() and int(length) > STREAM_ABOVE

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Stream the answer, and what may follow an upgrade."""
        assert flow.response
        if not flow.response.stream and not (self._whole_responses or _script_has("response")):
            flow.response.stream = True
        if flow.response.status_code == 101 and not stock.wants_messages(ctx.master.addons.chain, ctx.options):
            flows.mark_relayed(flow)


def _script_has(hook: str) -> bool:
    """Whether a user's script has this hook: it may read or change the body there."""
    scripts = ctx.master.addons.get("scriptloader").addons
    return bool(scripts) and any(hasattr(addon, hook) for addon in _members(scripts))


def _members(scripts: list[Any]) -> list[Any]:
    return [addon for script in scripts for module in script.addons for addon in _family(module)]


def _family(addon: Any) -> list[Any]:
    return [addon, *(member for child in getattr(addon, "addons", ()) for member in _family(child))]
