"""The corpus of `tests/corpus/*.jsonl`: messages as data, what shall come of them, and whether it did.

Each line is a case. `mode` says how the client reaches its upstream:
- `regular`, `reverse`, `upstream`: HTTP/1.1 to a proxy that runs in this mode; `trace`, `via-on`, `via-off`: to one in
  regular mode with jwt_trace=on, jwt_via=on, jwt_via=off;
- `tunnel`: HTTP/1.1 in a CONNECT tunnel, in plain words; `tls`: encrypted;
- `h2`, `h2-reverse`: HTTP/2 over TLS to the proxy, which goes on by HTTP/1.1; `h2-tunnel`: in a tunnel to an upstream
  that speaks HTTP/2.

`send` is what the client sends, piece by piece, with a pause between: bytes (as Latin-1), a status code to wait for
first, null: the end of its side. Over HTTP/2 the pieces are header lists and data; the last one ends the stream, unless
that is null. `answer` is what the upstream answers, in the same way, once the request is complete, or, where `early` is
true, once its head is; true waits for the rest. `{authority}`, `{port}` and `{proxy}` stand for addresses,
`{pseudonym}` for the proxy's own in Via, `{a*9}` for nine a's. `corpus_runs.py` tries them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .readers import READERS, Message, Reading

CORPUS = Path(__file__).resolve().parents[1] / "corpus"
FENCE = "/fence"
"""The target of a request that follows a case by HTTP/2: what arrives after it has nothing to do with the case."""

_TOKEN = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]+")
_FILLER = re.compile(rb"\{([^{}]+)\*([0-9]+)\}")

Fill = Callable[[str], bytes]


@dataclass(frozen=True)
class Expect:
    """What shall come of a case.

    status: of the answer, 0 for none; statuses: of several. reset: an end of the stream without answer is as good. cut:
    the answer is not complete. reply, reply_has, reply_lacks: body, fields and missing fields of the last answer; a
    value that begins with `~` is a pattern. interim: the interim answers. closed: the proxy closes the connection, as
    it does after a refusal.
    arrives: method and target of what the upstream gets; body, has, lacks, trailers: of the first of them. partial: of
    a request that is not complete, some may arrive.
    """

    status: int = 200
    statuses: Sequence[int] = ()
    reset: bool = False
    arrives: Sequence[str] = ()
    body: str | None = None
    has: Mapping[str, str] = field(default_factory=dict)
    lacks: Sequence[str] = ()
    trailers: Mapping[str, str] | None = None
    partial: bool = False
    cut: bool = False
    reply: str | None = None
    reply_has: Mapping[str, str] = field(default_factory=dict)
    reply_lacks: Sequence[str] = ()
    interim: Sequence[int] = ()
    closed: bool = False

    @property
    def refused(self) -> bool:
        """Whether the proxy does not understand the request, or does not want to."""
        return self.status in (400, 431, 501, 505) and not self.statuses and not self.arrives

    @property
    def final(self) -> list[int]:
        """The answers, by their status codes."""
        return [*self.statuses] or ([self.status] if self.status else [])

    @property
    def methods(self) -> list[str]:
        """The methods of the requests that are answered."""
        return [line.partition(" ")[0] for line in self.arrives]


@dataclass(frozen=True)
class Case:
    """One line of the corpus."""

    name: str
    rule: str
    mode: str
    send: Sequence[Any]
    expect: Expect
    answer: Sequence[Any] | None = None
    early: bool = False
    method: str = "GET"

    @property
    def by_http2(self) -> bool:
        """Whether the client speaks HTTP/2."""
        return self.mode.startswith("h2")


def load(*names: str) -> Iterator[Case]:
    """The cases of these files, or of all."""
    for path in sorted(CORPUS.glob("*.jsonl")):
        if not names or path.stem in names:
            yield from map(_case, path.read_text().splitlines())


def _case(line: str) -> Case:
    row = json.loads(line)
    method = row.get("method", "GET")
    row.setdefault("send", plain(row["mode"], method))
    if "answer" in row:
        row["expect"].setdefault("arrives", [f"{method} {_target(row['mode'], '/')}"])
    return Case(**{**row, "expect": Expect(**row["expect"])})


def _target(mode: str, path: str) -> str:
    """How a request in this mode names a path of its upstream, on the way out."""
    return f"http://{{authority}}{path}" if mode == "upstream" else path


def plain(mode: str, method: str, path: str = "/") -> list[Any]:
    """A request about which there is nothing to say."""
    if mode.startswith("h2"):
        scheme = "https" if mode == "h2-tunnel" else "http"
        return [[[":method", method], [":scheme", scheme], [":authority", "{authority}"], [":path", path]]]
    target = path if mode in ("tunnel", "tls", "reverse") else f"http://{{authority}}{path}"
    return [f"{method} {target} HTTP/1.1\r\nHost: {{authority}}\r\n\r\n"]


@dataclass
class Seen:
    """What came of a case: the bytes that reached the upstream, by connection, and those that reached the client.

    Of HTTP/2 they are what a careless gateway to HTTP/1.1 makes of it. ended: the proxy closed the connection.
    """

    upstream: list[bytes] = field(default_factory=list)
    client: bytes = b""
    ended: bool = False
    faults: list[str] = field(default_factory=list)


def fill(text: str, **values: str) -> bytes:
    """The bytes that a text of the corpus stands for."""
    if "{" not in text:
        return text.encode("latin-1")
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    return _FILLER.sub(lambda found: found[1] * int(found[2]), text.encode("latin-1"))


def judge(case: Case, seen: Seen, fill: Fill) -> list[str]:
    """What is wrong with what came of a case."""
    return [*seen.faults, *_judge_upstream(case.expect, seen, fill), *_judge_client(case, seen, fill)]


def judge_arrived(data: bytes) -> Iterator[str]:
    """What is wrong with what came by one connection of an upstream, whatever was sent."""
    readings = [reader.requests(data) for reader in READERS]
    yield from _disagreement(readings)
    for request in readings[0].messages:
        yield from _judge_request(request)


def _judge_upstream(expect: Expect, seen: Seen, fill: Fill) -> Iterator[str]:
    arrived: list[Message] = []
    for data in seen.upstream:
        readings = [reader.requests(data) for reader in READERS]
        yield from _disagreement(readings)
        if readings[0].rest and not expect.partial:
            yield f"an unreadable request at the upstream: {readings[0].rest[:200]!r}"
        arrived += [request for request in readings[0].messages if not request.line.endswith(FENCE)]
    wanted, lines = [fill(line).decode("latin-1") for line in expect.arrives], [request.line for request in arrived]
    if lines != wanted:
        yield f"{lines} arrived, not {wanted}"
    for request in arrived:
        yield from _judge_request(request)
    if arrived and wanted:
        yield from _judge_fields("request", arrived[0], expect.has, expect.lacks, fill)
        if expect.body is not None and arrived[0].body != fill(expect.body):
            yield f"the body {arrived[0].body[:200]!r} arrived"
        trailers = {name.decode(): value.decode("latin-1") for name, value in arrived[0].trailers}
        if trailers != dict(expect.trailers or {}):
            yield f"the trailers {trailers} arrived"


def _judge_request(request: Message) -> Iterator[str]:
    tokens = request.values("x-my-jwt")
    if request.start[0] == b"CONNECT":
        if tokens:
            yield "a token on CONNECT"
    elif len(tokens) != 1 or not _TOKEN.fullmatch(tokens[0]):
        yield f"the tokens {tokens} arrived"
    if any(name == b"x-my-jwt" for name, _ in request.trailers):
        yield "a token arrived in trailers"
    options = {option.strip().lower() for value in request.values("connection") for option in value.split(",")}
    if not options <= {"close", "keep-alive", "te", "upgrade"}:
        yield f"the connection options {sorted(options)} arrived"


def _judge_client(case: Case, seen: Seen, fill: Fill) -> Iterator[str]:
    expect = case.expect
    methods = expect.methods or [case.method]
    readings = [reader.answers(seen.client, methods) for reader in READERS]
    yield from _disagreement(readings)
    reading = readings[0]
    codes, interim = [answer.status for answer in reading.final], [a.status for a in reading.messages if a.is_interim]
    if reading.rest and not expect.cut:
        yield f"more than answers: {reading.rest[:200]!r}"
    if codes != expect.final and not (expect.reset and not codes):
        shown = reading.final[-1].body[:200] if reading.final else b""
        yield f"the answers {codes} came, not {expect.final}: {shown!r}"
    if interim != [*expect.interim]:
        yield f"the interim answers {interim} came"
    if not reading.final:
        return
    answer = reading.final[-1]
    yield from _judge_fields("answer", answer, expect.reply_has, expect.reply_lacks, fill)
    if expect.reply is not None and answer.body != fill(expect.reply):
        yield f"the body {answer.body[:200]!r} was answered"
    if answer.status == expect.status in (400, 421, 431, 501, 502, 505) and not expect.reply:
        yield from _judge_refusal(case, answer)
    if not case.by_http2 and (expect.closed or expect.refused) and not seen.ended:
        yield "the connection stays open"


def _judge_refusal(case: Case, answer: Message) -> Iterator[str]:
    """What our own answers are like."""
    if not answer.body.startswith(b"jwtproxy: ") and case.method != "HEAD":
        yield f"the answer is {answer.body[:200]!r}"
    if b"canary" in answer.body:
        yield f"the answer repeats what the client sent: {answer.body[:200]!r}"
    if answer.values("server") != ["jwtproxy"]:
        yield f"the answer's fields are {answer.fields}"
    if case.expect.refused and not case.by_http2 and answer.values("connection") != ["close"]:
        yield f"the answer says Connection: {answer.values('connection')}"


def _disagreement(readings: Sequence[Reading]) -> Iterator[str]:
    for reader, reading in zip(READERS[1:], readings[1:], strict=True):
        if reading.messages != readings[0].messages:
            yield f"the {reader.name} reader reads {reading.messages}, the strict one {readings[0].messages}"


def _judge_fields(
    kind: str, message: Message, has: Mapping[str, str], lacks: Sequence[str], fill: Fill
) -> Iterator[str]:
    for name, wanted in has.items():
        values = message.values(name)
        pattern = wanted[1:] if wanted.startswith("~") else re.escape(fill(wanted).decode("latin-1"))
        if not values or not re.fullmatch(pattern, ", ".join(values)):
            yield f"the {kind} has {name}: {str(values)[:200]}, not {wanted[:200]}"
    for name in lacks:
        if message.values(name):
            yield f"the {kind} has {name}: {message.values(name)}"
