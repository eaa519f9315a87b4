"""Heads and bodies of HTTP/1.1, in both lanes at once: these do the same, and nothing arrives unsigned or unclear."""

from __future__ import annotations

import asyncio
import itertools
import re
import socket
from collections.abc import Sequence

from hypothesis import strategies as st

from tests.support import corpus_talks
from tests.support.conversations import CHUNKS, conversations
from tests.support.corpus import fill, load
from tests.support.corpus_talks import AUTHORITY, CUT
from tests.support.lanes import TRIES, Do, Exact, Lane, Step, Talk, differences, hold

from .stage import Stage, unsigned
from .target import Target, changed

_METHODS = (b"GET ", b"HEAD ", b"POST ")
_WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nextra"
_KEPT = b"\xff"
"""At the end of an answer: the upstream keeps the connection open."""
_HEAD = f"POST http://{AUTHORITY}/ HTTP/1.1\r\nHost: {AUTHORITY}\r\nTransfer-Encoding: chunked\r\n\r\n"
_PIECES = [piece.encode("latin-1") for piece in (
    *"\0\t\n\r :;,=\"\x7f\x80\xff", "\r\n", "\n\n", "\r\n\r\n", "\r\n ", "0\r\n\r\n", "HTTP/1.1 200 OK\r\n",
    "HTTP/1.0 ", "HTTP/1.1 103 Early Hints\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n", "204", "304", "101", "999",
    "Content-Length: 1\r\n", "Content-Length: 0\r\n", "Transfer-Encoding: chunked\r\n", "Transfer-Encoding: gzip\r\n",
    "Connection: close\r\n", "Connection: keep-alive\r\n", "Upgrade: websocket\r\n", "Trailer: a\r\n",
    "Set-Cookie: a=b\r\n", "Via: 1.1 a\r\n", "Date: x\r\n",
)]  # fmt: skip


def targets(stage: Stage) -> list[Target]:
    """All of them."""

    def check(talk: Talk) -> str:
        return stage.run(_compare(stage, talk)) or stage.shaken()

    def check_request(value: bytes) -> str:
        return check(corpus_talks.talk(value.decode()))

    heads = corpus_talks.variants(corpus_talks.requests()).map(str.encode)
    bodies = corpus_talks.variants([_HEAD + said for said in CHUNKS.values()]).map(str.encode)
    said = changed(_answers(), [*_PIECES, _WHOLE])
    ends = st.sampled_from([b"", b"", _KEPT, _WHOLE + _KEPT, CUT.encode() + _WHOLE + _KEPT])
    answers = st.tuples(st.sampled_from(_METHODS), said, ends).map(b"".join)
    return [
        Target("requests", heads, check_request),
        Target("chunks", bodies, check_request),
        Target("answers", answers, lambda value: check(_answered(value))),
    ]


def _answers() -> list[bytes]:
    """What upstreams answer in the corpus, and in conversations, where it is not long."""
    steps: list[Sequence[object]] = [case.answer or () for case in load() if not case.by_http2]
    steps += [answer for talk in conversations()["answers"] for answer in talk.answers.values()]
    texts = ["".join(part for part in parts if isinstance(part, str)) for parts in steps]
    found = {fill(text) for text in texts if text and "{" not in re.sub(r"\{[^{}]+\*\d+\}", "", text)}
    return sorted(text for text in found if len(text) <= 1500)


def _answered(value: bytes) -> Talk:
    """The conversation in which an upstream says this, and closes the connection or waits for more."""
    method, _, said = value.partition(b" ")
    ends: list[Step] = [] if said.endswith(_KEPT) else [Do.CLOSE]
    said = said.removesuffix(_KEPT)
    pieces = [Exact(piece.decode("latin-1")) for piece in said.split(CUT.encode())]
    steps: list[Step] = [step for piece in pieces for step in (piece, Do.PAUSE)]
    ask = f"{method.decode()} {{url}}/ HTTP/1.1\r\nHost: {{authority}}\r\nContent-Length: 0\r\n\r\n"
    says: list[Step] = [ask, 1, *([Do.GONE] if ends else [Do.PAUSE, Do.PAUSE])]
    return Talk(repr(value), says, {"*": [*steps, *ends]}, hands_over=True, partial=True)


async def _compare(stage: Stage, talk: Talk) -> str:
    """How the lanes differ each time it is tried; what arrived is judged each time."""
    found: list[str] = []
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # taken, but nobody listens
        lanes = [Lane(stage.proxy(name).port, closed.getsockname()[1]) for name in ("fast", "slow")]
        for _ in range(TRIES):
            fast, slow = await asyncio.gather(*(hold(talk, lane) for lane in lanes))
            if wrong := unsigned(itertools.chain(fast.arrived, slow.arrived)):
                return "; ".join(wrong)
            if not (found := differences(talk, fast, slow)):
                return ""
    return "; ".join(found)
