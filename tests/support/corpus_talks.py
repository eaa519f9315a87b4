"""The corpus as conversations with both lanes: each case as it stands, and with a few bytes of it changed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from hypothesis import strategies as st

from .corpus import Case, fill, load
from .lanes import FENCE, Do, Exact, Status, Step, Talk

WAYS = ("regular", "tunnel", "tls")
"""The modes of the corpus in which both lanes are compared."""
AUTHORITY = "\ue000"
"""Stands for the address of the upstream, which no change may touch: nobody else is to be dialled."""
CUT = "\ue001"
"""Stands for a pause."""

_LONGEST = 1500
_BLANK = re.compile(r"\{(?!authority\})[a-z_]+\}")
_ADDRESS = re.compile(
    rf"//(?!{AUTHORITY}(?:[/?# \r\n]|$)|[/?# \r\n]|$)|CONNECT\s+(?!{AUTHORITY} )|\d{AUTHORITY}|{AUTHORITY}\d"
)


def talks(way: str) -> Iterator[Talk]:
    """The cases of a mode."""
    for case in load():
        if case.mode == way:
            yield _talk(case)


def _talk(case: Case) -> Talk:
    expect = case.expect
    says: list[Step] = [Status(piece) if isinstance(piece, int) else piece for piece in case.send]
    answer: list[Step] = [Do.EARLY] if case.early else []
    for number, piece in enumerate(case.answer or ()):
        answer += [Do.PAUSE] if number else []
        answer.append(Do.CLOSE if piece is None else Do.COMPLETE if piece is True else piece)
    if expect.refused or expect.closed or not expect.status:
        says.append(Do.ENDED)
    else:
        says.append(max(1, len(expect.final)))
    answers: Mapping[str, list[Step]] = {"*": answer} if case.answer else {}
    return Talk(
        case.name,
        says,
        answers,
        hands_over=True,
        partial=expect.partial or case.early,
        plain=None in case.send,
        methods=expect.methods or [case.method],
    )


# --- changed


def requests() -> list[str]:
    """What clients say in the corpus, where it is not long, with U+E000 for the address of the upstream."""
    found = []
    for case in load():
        text = "".join(piece for piece in case.send if isinstance(piece, str)) if case.mode == "regular" else ""
        text = text.replace("{authority}", AUTHORITY)
        if text and not _BLANK.search(text) and "*" not in text[: text.find("}") + 1]:
            found.append(text)
        elif text and not _BLANK.search(text):
            found.append(AUTHORITY.join(fill(part).decode("latin-1") for part in text.split(AUTHORITY)))
    return [text for text in found if len(text) <= _LONGEST and is_harmless(text)]


def is_harmless(text: str) -> bool:
    """Whether a request, if anybody is dialled for it, goes to the upstream."""
    return not _ADDRESS.search(text)


def changed(texts: list[str]) -> st.SearchStrategy[Talk]:
    """A conversation about a request of the corpus of which some bytes are changed; the fence follows at once."""
    return variants(texts).map(talk)


@st.composite
def variants(draw: st.DrawFn, texts: list[str]) -> str:
    """One of these with some bytes changed, and perhaps a pause."""
    text = draw(st.sampled_from(texts))
    for _ in range(draw(st.integers(1, 4))):
        change = draw(st.sampled_from(_CHANGES))
        after = change(draw, text)
        text = after if is_harmless(after) else text
    if draw(st.booleans()):
        cut = draw(st.integers(0, len(text)))
        text = text[:cut] + CUT + text[cut:]
    return text


def talk(text: str) -> Talk:
    """The conversation about a request that is changed."""
    pieces = text.split(CUT)
    fence = f"\r\n\r\nGET http://{AUTHORITY}{FENCE} HTTP/1.1\r\nHost: {AUTHORITY}\r\n\r\n"
    says: list[Step] = []
    for piece in pieces:
        says += [Exact(piece), Do.PAUSE]
    says += [Exact(fence), Do.QUIET, Do.CLOSE]
    return Talk(repr(pieces), says, hands_over=True, partial=True)


def _place(draw: st.DrawFn, text: str) -> int:
    return draw(st.integers(0, max(0, len(text) - 1)))


def _flip(draw: st.DrawFn, text: str) -> str:
    place = _place(draw, text)
    if text[place : place + 1] in ("", AUTHORITY):
        return text
    return text[:place] + chr(ord(text[place]) ^ (1 << draw(st.integers(0, 7)))) + text[place + 1 :]


def _delete(draw: st.DrawFn, text: str) -> str:
    place = _place(draw, text)
    return text[:place] + text[place + draw(st.integers(1, 8)) :]


def _insert(draw: st.DrawFn, text: str) -> str:
    place = _place(draw, text)
    more: str = draw(st.sampled_from(_BYTES))
    return text[:place] + more + text[place:]


def _duplicate(draw: st.DrawFn, text: str) -> str:
    place = _place(draw, text)
    end = place + draw(st.integers(1, 40))
    return text[:end] + text[place:end] + text[end:]


def _duplicate_line(draw: st.DrawFn, text: str) -> str:
    lines = text.split("\r\n")
    place = draw(st.integers(0, len(lines) - 1))
    return "\r\n".join([*lines[: place + 1], *lines[place:]])


_CHANGES: Sequence[Callable[[st.DrawFn, str], str]] = (_flip, _delete, _insert, _duplicate, _duplicate_line)
_BYTES = (
    *"\0\t\n\v\r !\"#,/0:;=@A\\_x\x7f\x80\x85\xa0\xff",
    "\r\n", "\n\n", "\r\n\r\n", "\r\n ", "0\r\n\r\n", ": ", "chunked", "close", "Connection: close\r\n",
    "Content-Length: 1\r\n", "Transfer-Encoding: chunked\r\n", "HTTP/1.0", "x-my-jwt: a\r\n",
    "Expect: 100-continue\r\n",
)  # fmt: skip
