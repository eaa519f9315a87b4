"""What has passed, by host, for who has started the proxy for one command."""

import contextlib
import json
import socket
from collections import Counter
from typing import NamedTuple, Self

from mitmproxy import ctx, http, tls
from mitmproxy.utils import strutils

from jwtproxy.conduct.destination import normalise
from jwtproxy.conduct.fields import normalise as normal_name
from jwtproxy.mitm import echo, flows, gate

from .terminal import REJECTED, tls_failure

READY = "ready\n"
"""What is said first."""
_PATIENCE = 5.0  # seconds
_MOST = 1000
_OTHERS = "others"
"""All hosts beyond so many."""


_SAID = (
    "signed: {}",
    "passed without a token, by a rule: {}",
    "refused: {}",
    "connections of clients that did not trust the CA: {}",
)


class Passed(NamedTuple):
    """How many requests there were, by host."""

    signed: dict[str, int]
    unsigned: dict[str, int]
    """By a rule."""
    refused: dict[str, int]
    distrusted: dict[str, int]
    """Connections whose client did not trust our CA."""

    @classmethod
    def read(cls, line: str) -> Self | None:
        """As `Tally` has said it; None if it has not."""
        return cls(**json.loads(line)) if line.startswith("{") and line.endswith("\n") else None

    def in_words(self) -> str:
        """For people: a line for each host."""
        lines: list[str] = []
        for said, counts in zip(_SAID, self, strict=True):
            if counts or said is _SAID[0]:
                lines.append(said.format(sum(counts.values())))
                lines += [f"  {count:>7}  {place}" for place, count in sorted(counts.items(), key=_most_first)]
        return "\n".join(lines)


class Tally:
    """mitmproxy addon, after all others: counts, says when we are ready, and at the end what was counted."""

    def __init__(self, line: socket.socket) -> None:
        """`line`: to whom it is said."""
        self._line = line
        self._passed: dict[str, Counter[str]] = {name: Counter() for name in Passed._fields}

    def running(self) -> None:
        """We are ready."""
        self._say(READY)

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Everybody has had a say."""
        if flow.error or flows.to_self(flow) or echo.is_shown(ctx.options, flow):
            return
        names = gate.gate_of(ctx.options).token_fields
        signed = any(normal_name(name) in names for name, _ in flow.request.headers.fields)
        self._count("refused" if flow.response else "signed" if signed else "unsigned", _place(flow.request))

    def tls_failed_client(self, data: tls.TlsData) -> None:
        """A client has given up."""
        if tls_failure(data.conn.error or "") in REJECTED:
            address = data.context.server.address
            place = data.conn.sni or (address[0] if address else "the proxy itself")
            self._count("distrusted", strutils.escape_control_characters(place))

    def done(self) -> None:
        """The end has come."""
        self._line.settimeout(_PATIENCE)  # many hosts do not fit into it at once
        self._say(json.dumps(self._passed) + "\n")

    def _count(self, what: str, place: str) -> None:
        counter = self._passed[what]
        counter[place if place in counter or len(counter) < _MOST else _OTHERS] += 1

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError):  # whom it was for has gone
            self._line.sendall(text.encode())


def _most_first(row: tuple[str, int]) -> tuple[int, str]:
    return -row[1], row[0]


def _place(request: http.Request) -> str:
    try:
        return normalise(request.scheme, request.host, request.port).authority
    except ValueError:
        return "?"
