"""The conversations by which the two lanes are compared, as tables; `lanes.py` says what they are made of.

Answers are by path, so each request of a conversation that is to be answered in a way of its own has one of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

from .lanes import Arrives, Comes, Do, Pieces, Sends, Step, Talk

LARGE = 300 * 1024
_STREAMED = 2_000_000  # bytes: of a shorter body mitmproxy sends nothing before it has all of it


def ask(
    path: str = "/",
    *lines: str,
    method: str = "GET",
    body: str = "",
    to: str = "",
    version: str = "1.1",
    length: int | None = None,
) -> str:
    """A request. `to`: the suffix of its upstream's name. length: of the body, if it is not that of `body`."""
    if body and length is None and not any(line.lower().startswith("transfer-encoding") for line in lines):
        length = len(body)
    sized = [f"Content-Length: {length}"] if length is not None else []
    head = [f"{method} {{url{to}}}{path} HTTP/{version}", f"Host: {{authority{to}}}", *lines, *sized, "", ""]
    return "\r\n".join(head) + body


def post(path: str = "/", *lines: str, body: str = "abc", to: str = "", length: int | None = None) -> str:
    """A request with a body."""
    return ask(path, *lines, method="POST", body=body, to=to, length=length)


def upload(path: str, *chunks: str, lines: Sequence[str] = (), end: str = "0\r\n\r\n") -> str:
    """A request with a body in chunks."""
    return ask(path, *lines, "Transfer-Encoding: chunked", method="POST", body=in_chunks(*chunks, end=end))


def answer(body: str = "ok", *lines: str, status: str = "200 OK", length: int | None = None) -> str:
    """An answer. length: that it says its body has."""
    sized = f"Content-Length: {len(body) if length is None else length}"
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, sized, "", body])


def head_of(status: str, *lines: str, version: str = "1.1") -> str:
    """The head of an answer."""
    return "\r\n".join([f"HTTP/{version} {status}", *lines, "", ""])


def in_chunks(*chunks: str, end: str = "0\r\n\r\n") -> str:
    """A body in chunks."""
    return "".join(f"{len(chunk):x}\r\n{chunk}\r\n" for chunk in chunks) + end


_CHUNKED = "Transfer-Encoding: chunked"
_LARGE = f"{{0123456789abcdef*{LARGE // 16}}}"

# --- one request after another

Kind = tuple[str, Sequence[Step], bool]
"""A request, with `@` for its path; how it is answered; whether the connection goes on."""

BORING: Mapping[str, Kind] = {
    "GET": (ask("@"), (), True),
    "HEAD": (ask("@", method="HEAD"), (head_of("200 OK", "Content-Length: 5"),), True),
    "POST": (post("@"), (), True),
    "POST without a body": (ask("@", method="POST", length=0), (), True),
    "POST in chunks": (upload("@", "ab", "c"), (), True),
    "PUT": (ask("@", method="PUT", body="x"), (answer("", status="201 Created"),), True),
    "DELETE": (ask("@", method="DELETE"), (head_of("204 No Content"),), True),
    "OPTIONS": (ask("@", method="OPTIONS"), (answer("", "Allow: GET"),), True),
    "304": (ask("@", "If-None-Match: x"), (head_of("304 Not Modified", "ETag: x", "Content-Length: 9"),), True),
    "chunks": (ask("@"), (head_of("200 OK", _CHUNKED) + in_chunks("ab", "c"),), True),
    "an answer that ends its connection": (ask("@"), (answer("x", "Connection: close"), Do.CLOSE), True),
    "an answer by HTTP/1.0": (ask("@"), (head_of("200 OK", "Content-Length: 2", version="1.0") + "ok", Do.CLOSE), True),
    "103": (ask("@"), (head_of("103 Early Hints", "Link: </a>"), answer("x")), True),
    "hop by hop": (ask("@", "Connection: keep-alive", "Proxy-Connection: keep-alive"), (), True),
    "until it closes": (ask("@"), (head_of("200 OK") + "till", "the end", Do.CLOSE), False),
    "close": (ask("@", "Connection: close"), (), False),
    "a refused one": (ask("/refused"), (), True),
    "502": (ask("@"), (Do.CLOSE,), False),
}
ODD: Mapping[str, Kind] = {
    "TE": (ask("@", "TE: trailers", "Connection: TE"), (), True),
    "a field twice": (ask("@", "X-A: 1", "X-A: 2"), (), True),
    "Via": (ask("@", "Via: 1.1 a"), (), True),
    "Expect": (post("@", "Expect: 100-continue"), (), True),
    "another method": (ask("@", method="PROPFIND"), (), True),
    "Upgrade": (ask("@", "Connection: Upgrade", "Upgrade: other"), (), True),
    "Connection names a field": (ask("@", "Connection: X-A", "X-A: 1"), (), True),
    "a space before a line's end": (ask("@", "X-A: a "), (), True),
    "HTTP/1.0, kept": (ask("@", "Connection: keep-alive", version="1.0"), (), True),
    "Max-Forwards": (ask("@", "Max-Forwards: 0", method="OPTIONS"), (), True),
    "HTTP/1.0": (ask("@", version="1.0"), (), False),
    "no Host": ("GET {url}@ HTTP/1.1\r\n\r\n", (), False),
    "two lengths": (post("@", "Content-Length: 3"), (), False),
}


def in_turn() -> Iterator[Talk]:
    """Each kind of request after each other, on one connection."""
    kinds = {**BORING, **ODD}
    for first, second in product(kinds, kinds):
        if first in BORING or second in BORING:
            yield _sequence(f"{first}, then {second}", kinds[first], kinds[second], odd=second in ODD or first in ODD)


def _sequence(name: str, *kinds: Kind, odd: bool) -> Talk:
    says: list[Step] = []
    answers: dict[str, Sequence[Step]] = {}
    for number, (request, steps, _) in enumerate(kinds):
        path = f"/{number}"
        says += [request.replace("@", path), number + 1]
        if steps:
            answers[path] = steps
    return Talk(name, says, answers, hands_over=odd)


def pipelined() -> Iterator[Talk]:
    """Several requests at once."""
    slow: Mapping[str, Sequence[Step]] = {"/0": (Do.PAUSE, answer("slow"))}
    gets = [ask(f"/{number}") for number in range(12)]
    rows: Mapping[str, tuple[Sequence[str], int]] = {
        "2 GET": (gets[:2], 2),
        "12 GET": (gets, 12),
        "GET, HEAD, GET": ((gets[0], ask("/1", method="HEAD"), gets[2]), 3),
        "GET and POST": ((gets[0], post("/1"), gets[2], post("/3")), 4),
        "POST in chunks": ((upload("/0", "a"), upload("/1", "b"), gets[2]), 3),
        "the second is odd": ((gets[0], ask("/1", "TE: trailers"), gets[2]), 3),
        "the first is odd": ((ask("/0", "TE: trailers"), gets[1]), 2),
        "the second is malformed": ((gets[0], "GET {url}/ HTTP/1.1\r\nX A: 1\r\n\r\n", gets[2]), 2),
        "the second closes": ((gets[0], ask("/1", "Connection: close"), gets[2]), 2),
        "the second is refused": ((gets[0], ask("/refused"), gets[2]), 3),
        "the second goes elsewhere": ((gets[0], ask("/1", to="2"), gets[2], ask("/3", to="2")), 4),
        "the second cannot be reached": ((gets[0], "GET http://{closed}/ HTTP/1.1\r\nHost: {closed}\r\n\r\n"), 2),
        "the second has a large body": ((gets[0], post("/1", body=_LARGE, length=LARGE), gets[2]), 3),
        "more than waits": ([ask(f"/{number}", "X-A: {a*9000}") for number in range(12)], 12),
        "an empty line between": ((gets[0], "\r\n" + gets[1]), 2),
        "nonsense after one": ((gets[0], "\0\0\0\0"), 1),
        "the beginning of one": ((gets[0], gets[1][:20]), 1),
        "HTTP/1.0 last": ((gets[0], ask("/1", version="1.0"), gets[2]), 2),
    }
    for name, (requests, count) in rows.items():
        plain = "elsewhere" in name or "reached" in name
        hands_over = "odd" in name or "1.0" in name or "empty" in name
        says = ("".join(requests), count)
        yield Talk(f"at once: {name}", says, hands_over=hands_over, plain=plain)
        yield Talk(f"at once, slow answer: {name}", says, slow, hands_over=hands_over, plain=plain)
        if "large" not in name and "more" not in name:
            yield Talk(f"at once, in pieces: {name}", (Pieces("".join(requests), 97), count), slow, True, plain=plain)


def gone() -> Iterator[Talk]:
    """Clients that close one side of their connection."""
    later: Mapping[str, Sequence[Step]] = {"/": (Do.PAUSE, answer("x"))}
    began: Mapping[str, Sequence[Step]] = {"/": (answer("x", length=9), Do.PAUSE, "12345678")}
    rows: Mapping[str, tuple[Sequence[Step], Mapping[str, Sequence[Step]]]] = {
        "at once": ((), {}),
        "within a request's line": ((ask()[:9],), {}),
        "within a head": ((ask()[:-2],), {}),
        "before the answer": ((ask(), Arrives("\r\n\r\n")), later),
        "before the answer to a POST": ((post(), Arrives("abc")), later),
        "within the answer": ((ask(), Comes("\r\n\r\nx")), began),
        "after the answer": ((ask(), 1), {}),
        "after two answers": ((ask("/a"), 1, ask("/b"), 2), {}),
        "after the answer, within the next head": ((ask(), 1, ask("/b")[:-2]), {}),
        "within a body": ((post(body="ab", length=9),), {}),
        "within a long body": ((post(body="ab", length=_STREAMED), Arrives("ab")), {}),
        "within a chunk": ((upload("/", "abc", end="5\r\nxy"), Arrives("abc")), {}),
        "before the last chunk": ((upload("/", "abc", end=""), Arrives("abc")), {}),
        "after an odd one": ((ask("/", "TE: trailers"), 1), {}),
        "after one that is refused": ((ask("/refused"), 1), {}),
    }
    for (name, (says, answers)), how in product(rows.items(), (None, Do.CLOSE, Do.RESET)):
        end = {None: "half-closed", Do.CLOSE: "closed", Do.RESET: "reset"}[how]
        yield Talk(f"{end} {name}", (*says, how), answers, partial="body" in name or "chunk" in name, plain=how is None)
    large = {"/": (head_of("200 OK", "Content-Length: 99999999") + "{x*10000000}",)}
    for ending, name in ((None, "half-closed"), (Do.CLOSE, "closed"), (Do.RESET, "reset")):
        says = (ask(), Arrives("\r\n\r\n"), Do.PAUSE, Do.PAUSE, ending)
        yield Talk(f"{name} by one who does not read", says, large, plain=ending is None, deaf=True)


# --- early answers


def early() -> Iterator[Talk]:
    """Answers that come before the request is complete."""
    answers: Mapping[str, Sequence[Step]] = {
        "a length": (answer("no", status="413 Too Large"),),
        "chunks": (head_of("413 Too Large", _CHUNKED) + in_chunks("no"),),
        "close": (answer("no", "Connection: close", status="413 Too Large"), Do.COMPLETE),
        "close, and closes": (answer("no", "Connection: close", status="413 Too Large"), Do.CLOSE),
        "half of the connection": (answer("no", "Connection: close", status="413 Too Large"), None),
        "until it closes": (head_of("413 Too Large") + "no", Do.CLOSE),
        "204": (head_of("204 No Content"),),
        "its head": (answer("", length=2, status="413 Too Large"), Do.COMPLETE, "no"),
        "103 and an answer": (head_of("103 Early Hints"), answer("no")),
        "reset": (Do.RESET,),
        "nothing": (Do.CLOSE,),
    }
    rest = _STREAMED - 5
    bodies: Mapping[str, tuple[str, str]] = {
        "a length": (post(body="abcde", length=_STREAMED), f"{{a*{rest}}}"),
        "chunks": (upload("/", "abcde", end=""), in_chunks("fgh")),
    }
    for (name, steps), (kind, (begin, more)) in product(answers.items(), bodies.items()):
        said = {"/": (Do.EARLY, *steps)}
        plain = None in steps
        wait: Step = Comes("\r\n\r\n") if name == "its head" else 1
        yield Talk(f"early: {name}; {kind}, no more is sent", (begin, wait, Do.CLOSE), said, partial=True, plain=plain)
        if name != "its head":
            yield Talk(f"early: {name}; {kind}, the rest is sent", (begin, 1, more), said, partial=True, plain=plain)
        if not {Do.CLOSE, None} & set(steps):  # else a reset overtakes what was said (RFC 9112 §9.6)
            yield Talk(
                f"early: {name}; {kind}, all is sent at once", (begin + more, 1), said, partial=True, plain=plain
            )


# --- broken off


def cut_requests() -> Iterator[Talk]:
    """Requests that are broken off, by every length."""
    request = post("/", "X-A: b", body="abc")
    for size in range(1, len(request)):
        for name, how in (("reset", Do.RESET), ("half-close", None)):
            partial = size > request.index("\r\n\r\n")
            yield Talk(f"{name} after {size} bytes", (request[:size], how), partial=partial, plain=True)


def cut_answers() -> Iterator[Talk]:
    """Answers that are broken off, by every length, by their server and by the client."""
    rows = {
        "length": answer("abc", "X-A: b"),
        "chunks": head_of("200 OK", _CHUNKED) + in_chunks("abc", "d"),
        "close": head_of("200 OK", "Connection: close") + "abc",
        "interim": head_of("103 Early Hints") + answer("a"),
    }
    for name, said in rows.items():
        for size in range(len(said)):
            for how, end in (("closes", Do.CLOSE), ("resets", Do.RESET)):
                yield Talk(f"{name}: the server {how} after {size} bytes", (ask(), 1), {"/": (said[:size], end)})
            if size:
                client = (ask(), Sends(size), Do.RESET)
                yield Talk(f"{name}: the client resets after {size} bytes", client, {"/": (said[:size],)})


# --- at whose pace


def slowly() -> Iterator[Talk]:
    """What comes in pieces, and who reads slowly."""
    chunked = head_of("200 OK", _CHUNKED) + in_chunks("abc", "defgh")
    rows: Mapping[str, tuple[str, str]] = {
        "GET": (ask(), answer("abc")),
        "HEAD": (ask(method="HEAD"), head_of("200 OK", "Content-Length: 7")),
        "POST": (post(body="abcdefgh"), answer("abc")),
        "POST in chunks": (upload("/", "abc", "defgh"), chunked),
        "interim": (ask(), head_of("103 Early Hints", "X-A: b") + answer("x")),
        "odd": (ask("/", "TE: trailers"), chunked),
    }
    for (name, (request, said)), size in product(rows.items(), (1, 2, 5, 11, 40)):
        yield Talk(f"{name} in pieces of {size} bytes", (Pieces(request, size), 1), partial=True)
        yield Talk(f"{name}: an answer in pieces of {size} bytes", (request, 1), {"/": (Pieces(said, size),)})
    sized = {"/": (answer(_LARGE, length=LARGE),), "/2": (answer("", length=LARGE), _LARGE)}
    chunks = head_of("200 OK", _CHUNKED) + "".join("10000\r\n{x*65536}\r\n" for _ in range(5)) + "0\r\n\r\n"
    coded = {"/": (chunks,), "/2": (head_of("200 OK") + _LARGE, Do.CLOSE)}
    twice = "".join("8000\r\n{y*32768}\r\n" for _ in range(10)) + "0\r\n\r\n"
    up = ask("/", _CHUNKED, method="POST") + twice
    for slow in ((False, False), (True, False), (False, True), (True, True)):
        name = f"300 KiB, slow client {slow[0]}, slow upstream {slow[1]}"
        both = (post(body=_LARGE, length=LARGE), 1, up.replace("/ ", "/2 "), 2)
        bodies: Mapping[str, tuple[Sequence[Step], Mapping[str, Sequence[Step]]]] = {
            "down, with a length": ((ask(), 1, ask("/2"), 2), sized),
            "down, in chunks, and until it closes": ((ask(), 1, ask("/2"), 2), coded),
            "up, with a length": ((post(body=_LARGE, length=LARGE), 1, post("/2"), 2), {}),
            "up, in chunks": ((up, 1, up, 2), {}),
            "both ways": (both, sized),
        }
        for kind, (says, steps) in bodies.items():
            yield Talk(f"{name}: {kind}", says, steps, slow_client=slow[0], slow_upstream=slow[1])


# --- interim answers, and leave to send a body


def interims() -> Iterator[Talk]:
    """Answers before the final one, asked for or not."""
    early = head_of("103 Early Hints", "Link: </a>")
    go_on = head_of("100 Continue")
    rows: Mapping[str, Sequence[Step]] = {
        "103": (early + answer(),),
        "103 three times": (early * 3 + answer(),),
        "103 and later an answer": (early, Do.PAUSE, answer()),
        "100": (go_on + answer(),),
        "102": (head_of("102 Processing") + answer(),),
        "199": (head_of("199 Strange", "X-A: b") + answer(),),
        "103 with a length": (head_of("103 Early Hints", "Content-Length: 3") + answer(),),
        "103 with chunks": (head_of("103 Early Hints", _CHUNKED) + answer(),),
        "103 that closes": (head_of("103 Early Hints", "Connection: close") + answer(),),
        "103 by HTTP/1.0": (head_of("103 Early Hints", version="1.0") + answer(),),
        "103, then 204": (early + head_of("204 No Content"),),
        "103, then chunks": (early + head_of("200 OK", _CHUNKED) + in_chunks("x"),),
        "103, then nothing": (early, Do.CLOSE),
        "103, then half of a head": (early + "HTTP/1.1 20", Do.CLOSE),
        "103, then nonsense": (early + "HTTP/1.1 abc\r\n\r\n",),
        "103 malformed": (head_of("103 Early Hints", "X A: b") + answer(),),
        "64 of them": (early * 64 + answer(),),
        "65 of them": (early * 65 + answer(),),
        "101": (head_of("101 Switching Protocols", "Upgrade: x", "Connection: Upgrade") + "hello",),
        "101 without a word": (head_of("101 Switching Protocols"),),
        "103, then 101": (early + head_of("101 Switching Protocols", "Upgrade: x", "Connection: Upgrade"),),
    }
    for name, steps in rows.items():
        yield Talk(f"interim: {name}", (ask(), 1), {"/": steps})
        yield Talk(f"interim to HEAD: {name}", (ask(method="HEAD"), 1), {"/": steps})
        yield Talk(f"interim to POST: {name}", (post(), 1), {"/": steps})
        yield Talk(f"interim to a later one: {name}", (ask("/a"), 1, ask(), 2), {"/": steps})
    expect = "Expect: 100-continue"
    ready: Sequence[Step] = (Do.EARLY, head_of("100 Continue"), Do.COMPLETE, answer())
    waits = post("/", expect, body="").replace("\r\n\r\n", "\r\nContent-Length: 3\r\n\r\n")
    chunks = ask("/", expect, _CHUNKED, method="POST")
    long = post("/", expect, body="", length=_STREAMED)
    for name, says, steps in (
        ("sends at once", (post("/", expect), 1), (answer(),)),
        ("waits", (waits, Comes("100 Continue"), "abc", 1), (answer(),)),
        ("waits, in chunks", (chunks, Comes("100 Continue"), in_chunks("abc"), 1), ready),
        ("waits, a long body", (long, Comes("100 Continue"), f"{{a*{_STREAMED}}}", 1), ready),
        ("is told 417", (chunks, 1), (Do.EARLY, answer("no", status="417 Expectation Failed"))),
        ("without a body", (ask("/", expect), 1), (answer(),)),
        ("by HTTP/1.0", (post("/", expect).replace("HTTP/1.1", "HTTP/1.0"), 1), (answer(),)),
        ("of something else", (post("/", "Expect: wonders"), 1), (answer(),)),
        ("after another", (ask("/a"), 1, waits, Comes("100 Continue"), "abc", 2, ask("/b"), 3), (answer(),)),
    ):
        yield Talk(f"a client expects: {name}", says, {"/": steps}, hands_over=True, partial=True)


# --- answers


def answers() -> Iterator[Talk]:
    """What upstreams say: without bodies, of all framings, with too much, too little, or nonsense."""
    large = "HTTP/1.1 200 OK\r\nX-A: {a*%d}\r\nContent-Length: 1\r\n\r\nx"
    rows: Mapping[str, Sequence[Step]] = {
        "204": (head_of("204 No Content"),),
        "204 with a length": (head_of("204 No Content", "Content-Length: 3"),),
        "204 with a body": (answer("abc", status="204 No Content"),),
        "204 with chunks": (head_of("204 No Content", _CHUNKED) + in_chunks("a"),),
        "204 with a coding alone": (head_of("204 No Content", _CHUNKED),),
        "304": (head_of("304 Not Modified", "ETag: x"),),
        "304 with a length": (head_of("304 Not Modified", "Content-Length: 3"),),
        "304 with a body": (answer("abc", status="304 Not Modified"),),
        "304 with a coding": (head_of("304 Not Modified", _CHUNKED),),
        "304 with chunks": (head_of("304 Not Modified", _CHUNKED) + in_chunks("a"),),
        "205": (answer("", status="205 Reset Content"),),
        "a coding alone": (head_of("200 OK", _CHUNKED), Do.CLOSE),
        "an empty body": (answer(""),),
        "no reason": ("HTTP/1.1 200\r\nContent-Length: 1\r\n\r\nx",),
        "a space for a reason": ("HTTP/1.1 200 \r\nContent-Length: 1\r\n\r\nx",),
        "a reason of bytes": ("HTTP/1.1 200 d\xe9\r\nContent-Length: 1\r\n\r\nx",),
        "599": (answer("x", status="599 Strange"),),
        "999": (answer("x", status="999 Strange"),),
        "until it closes": (head_of("200 OK") + "abc", Do.CLOSE),
        "until it closes, nothing": (head_of("200 OK"), Do.CLOSE),
        "until it half-closes": (head_of("200 OK") + "abc", None),
        "until it resets": (head_of("200 OK") + "abc", Do.RESET),
        "until it closes, in pieces": (head_of("200 OK"), Pieces("abcdefgh", 3), Do.CLOSE),
        "keep-alive without a length": (head_of("200 OK", "Connection: keep-alive") + "abc", Do.CLOSE),
        "HTTP/1.0": (head_of("200 OK", version="1.0") + "abc", Do.CLOSE),
        "HTTP/1.0 with a length": (head_of("200 OK", "Content-Length: 3", version="1.0") + "abc",),
        "HTTP/1.0, kept": (head_of("200 OK", "Content-Length: 3", "Connection: keep-alive", version="1.0") + "abc",),
        "HTTP/1.0 in chunks": (head_of("200 OK", _CHUNKED, version="1.0") + in_chunks("abc"),),
        "HTTP/1.2": (head_of("200 OK", "Content-Length: 3", version="1.2") + "abc",),
        "HTTP/2.0": (head_of("200 OK", "Content-Length: 3", version="2.0") + "abc",),
        "HTTP/0.9": ("<html>", Do.CLOSE),
        "an empty line before": ("\r\n" + answer("abc"),),
        "lines that end in LF": (answer("abc").replace("\r\n", "\n"),),
        "lines that end in CR": (answer("abc").replace("\r\n", "\r"),),
        "hop by hop": (answer("x", "Connection: X-A, close", "X-A: b", "Keep-Alive: timeout=5"),),
        "Proxy-Connection": (answer("x", "Proxy-Connection: close"),),
        "Upgrade": (answer("x", "Upgrade: h2c", "Connection: Upgrade"),),
        "Trailer": (head_of("200 OK", _CHUNKED, "Trailer: X-A") + in_chunks("abc", end="0\r\nX-A: b\r\n\r\n"),),
        "Via": (answer("x", "Via: 1.1 other"),),
        "Set-Cookie twice": (answer("x", "Set-Cookie: a=1", "Set-Cookie: b=2"),),
        "a token": (answer("x", "X-My-JWT: stolen"),),
        "spelling": (answer("x", "x-LOWER-upper:  spaced  ", "X-Empty:"),),
        "Alt-Svc": (answer("x", 'Alt-Svc: h2="other:443"'),),
        "a folded value": (answer("x", "X-A: a\r\n b"),),
        "a space before a colon": (answer("x", "X-A : b"),),
        "no colon": (answer("x", "X-A"),),
        "no name": (answer("x", ": b"),),
        "NUL": (answer("x", "X-A: a\0b"),),
        "CR": (answer("x", "X-A: a\rb"),),
        "bytes": (answer("x", "X-A: \xe9\xff"),),
        "an odd name": (answer("x", "X\xe9: b"),),
        "two lengths": (answer("abc", "Content-Length: 3"),),
        "two different lengths": (answer("abc", "Content-Length: 2"),),
        "a list of lengths": (head_of("200 OK", "Content-Length: 3, 3") + "abc",),
        "a signed length": (head_of("200 OK", "Content-Length: +3") + "abc",),
        "a length with zeros": (head_of("200 OK", "Content-Length: 03") + "abc",),
        "a long length": (head_of("200 OK", "Content-Length: " + 30 * "9") + "abc",),
        "an empty length": (head_of("200 OK", "Content-Length:") + "abc",),
        "a length and chunks": (head_of("200 OK", _CHUNKED, "Content-Length: 3") + in_chunks("abc"),),
        "a length with an underscore": (answer("abc", "Content_Length: 1"),),
        "another coding": (head_of("200 OK", "Transfer-Encoding: gzip") + "abc", Do.CLOSE),
        "two codings": (head_of("200 OK", "Transfer-Encoding: gzip, chunked") + in_chunks("abc"),),
        "a coding twice": (head_of("200 OK", _CHUNKED, _CHUNKED) + in_chunks("abc"),),
        "a coding in capitals": (head_of("200 OK", "Transfer-Encoding: CHUNKED") + in_chunks("abc"),),
        "identity": (answer("abc", "Transfer-Encoding: identity"),),
        "identity alone": (head_of("200 OK", "Transfer-Encoding: identity") + "abc", Do.CLOSE),
        "less than its length": (answer("abc", length=5), Do.CLOSE),
        "less than its length, reset": (answer("abc", length=5), Do.RESET),
        "less than its length, half-closed": (answer("abc", length=5), None),
        "more than its length": (answer("abcde", length=3),),
        "another answer after it": (answer("abc") + answer("extra"),),
        "bytes after chunks": (head_of("200 OK", _CHUNKED) + in_chunks("abc") + "extra",),
        "bytes after 204": (head_of("204 No Content") + "extra",),
        "nothing": (Do.CLOSE,),
        "nothing, reset": (Do.RESET,),
        "nothing, half-closed": (None,),
        "half of a head": ("HTTP/1.1 200 OK\r\nX-", Do.CLOSE),
        "nonsense": ("nonsense\r\n\r\n",),
        "no version": ("200 OK\r\n\r\n",),
        "a short status": ("HTTP/1.1 20 OK\r\n\r\n",),
        "a long status": ("HTTP/1.1 2000 OK\r\n\r\n",),
        "status 0": ("HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n",),
        "status 099": ("HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",),
        "a negative status": ("HTTP/1.1 -20 OK\r\nContent-Length: 0\r\n\r\n",),
        "two spaces": ("HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n",),
        "a tab": ("HTTP/1.1\t200\tOK\r\nContent-Length: 0\r\n\r\n",),
        "lower case": ("http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",),
        "a long head": (large % 100_000,),
        "a head that is too long": (large % 400_000,),
        "a head that has no end": ("HTTP/1.1 200 OK\r\n{X-A: b\r\n*40000}",),
        "many fields": (answer("x", *(f"X-{number}: a" for number in range(150))),),
        **{f"chunks: {name}": (head_of("200 OK", _CHUNKED) + said, Do.CLOSE) for name, said in CHUNKS.items()},
    }
    for name, steps in rows.items():
        plain = None in steps  # there is no half of a connection in TLS
        yield Talk(f"answer: {name}", (ask("/a"), 1, ask(), 2), {"/": steps}, plain=plain)
        yield Talk(f"answer to HEAD: {name}", (ask(method="HEAD"), 1), {"/": steps}, plain=plain)
        yield Talk(f"answer to POST: {name}", (upload("/", "abc"), 1), {"/": steps}, plain=plain)


CHUNKS: Mapping[str, str] = {
    "one": "3\r\nabc\r\n0\r\n\r\n",
    "in capitals": "A\r\n0123456789\r\n0\r\n\r\n",
    "zeros before a size": "0003\r\nabc\r\n0\r\n\r\n",
    "zeros for the last": "3\r\nabc\r\n0000\r\n\r\n",
    "an extension": "3;a=b\r\nabc\r\n0;c\r\n\r\n",
    "a quoted extension": '3;a="b;c"\r\nabc\r\n0\r\n\r\n',
    "a space after a size": "3 \r\nabc\r\n0\r\n\r\n",
    "a space before a size": " 3\r\nabc\r\n0\r\n\r\n",
    "a trailer": "3\r\nabc\r\n0\r\nX-A: b\r\n\r\n",
    "a trailer with our token": "3\r\nabc\r\n0\r\nX-My-JWT: b\r\n\r\n",
    "a malformed trailer": "3\r\nabc\r\n0\r\nX A: b\r\n\r\n",
    "a length as a trailer": "3\r\nabc\r\n0\r\nContent-Length: 9\r\n\r\n",
    "no size": "\r\nabc\r\n0\r\n\r\n",
    "no number": "x\r\nabc\r\n0\r\n\r\n",
    "0x": "0x3\r\nabc\r\n0\r\n\r\n",
    "a negative size": "-3\r\nabc\r\n0\r\n\r\n",
    "a signed size": "+3\r\nabc\r\n0\r\n\r\n",
    "a huge size": "fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "20 digits": "00000000000000000003\r\nabc\r\n0\r\n\r\n",
    "21 digits": "000000000000000000003\r\nabc\r\n0\r\n\r\n",
    "an underscore": "1_0\r\n0123456789abcdef\r\n0\r\n\r\n",
    "LF after a size": "3\nabc\r\n0\r\n\r\n",
    "LF after data": "3\r\nabc\n0\r\n\r\n",
    "CR after a size": "3\rabc\r\n0\r\n\r\n",
    "no line end after data": "3\r\nabc0\r\n\r\n",
    "more than its size": "3\r\nabcd\r\n0\r\n\r\n",
    "less than its size": "5\r\nabc\r\n0\r\n\r\n",
    "LF at the end": "3\r\nabc\r\n0\r\n\n",
    "a NUL in an extension": "3;a=\0\r\nabc\r\n0\r\n\r\n",
    "no last chunk": "3\r\nabc\r\n",
    "half of the last chunk": "3\r\nabc\r\n0\r\n",
    "half of a size": "3\r\nabc\r\n1",
    "half of a chunk": "3\r\na",
}


# --- requests


def requests() -> Iterator[Talk]:
    """What clients say of hosts, targets, fields and bodies; and to the proxy itself."""
    host = "Host: {authority}\r\n"
    end = "\r\n\r\n"
    heads: Mapping[str, str] = {
        "no Host": "GET {url}/ HTTP/1.1" + end,
        "another Host": "GET {url}/ HTTP/1.1\r\nHost: {authority2}" + end,
        "Host by name": "GET {url}/ HTTP/1.1\r\nHost: a.example" + end,
        "Host without a port": "GET {url}/ HTTP/1.1\r\nHost: 127.0.0.1" + end,
        "Host twice": "GET {url}/ HTTP/1.1\r\n" + host + "Host: {authority}" + end,
        "Host twice, differently": "GET {url}/ HTTP/1.1\r\n" + host + "Host: a.example" + end,
        "an empty Host": "GET {url}/ HTTP/1.1\r\nHost:" + end,
        "Host in lower case": "GET {url}/ HTTP/1.1\r\nhost: {authority}" + end,
        "Host in a list": "GET {url}/ HTTP/1.1\r\nHost: {authority}, {authority}" + end,
        "Host with a user": "GET {url}/ HTTP/1.1\r\nHost: a@{authority}" + end,
        "Host with a path": "GET {url}/ HTTP/1.1\r\nHost: {authority}/a" + end,
        "Host with spaces": "GET {url}/ HTTP/1.1\r\nHost:   {authority}" + end,
        "Host with a tab": "GET {url}/ HTTP/1.1\r\nHost:\t{authority}\t" + end,
        "Host last": "GET {url}/ HTTP/1.1\r\nAccept: */*\r\nHost: {authority}" + end,
        "Host with LF": "GET {url}/ HTTP/1.1\r\nHost: {authority}\n\r\n\r\n",
        "another spelling of http": "GET HTTP://{authority}/ HTTP/1.1\r\n" + host + "\r\n",
        "a user": "GET http://a:b@{authority}/ HTTP/1.1\r\n" + host + "\r\n",
        "a zero before the port": "GET http://127.0.0.1:0{port}/ HTTP/1.1\r\nHost: 127.0.0.1:0{port}" + end,
        "no path": "GET {url} HTTP/1.1\r\n" + host + "\r\n",
        "a query alone": "GET {url}?a=b HTTP/1.1\r\n" + host + "\r\n",
        "a query": "GET {url}/?a=b&c[]=%20 HTTP/1.1\r\n" + host + "\r\n",
        "a fragment": "GET {url}/#a HTTP/1.1\r\n" + host + "\r\n",
        "dots": "GET {url}/a/../b/./c//d HTTP/1.1\r\n" + host + "\r\n",
        "a backslash": "GET {url}/a\\b HTTP/1.1\r\n" + host + "\r\n",
        "bytes in a path": "GET {url}/\xe9 HTTP/1.1\r\n" + host + "\r\n",
        "a brace": "GET {url}/a|b^c`d HTTP/1.1\r\n" + host + "\r\n",
        "a space in a path": "GET {url}/a b HTTP/1.1\r\n" + host + "\r\n",
        "a percent sign": "GET {url}/%zz% HTTP/1.1\r\n" + host + "\r\n",
        "a long path": "GET {url}/{a*9000} HTTP/1.1\r\n" + host + "\r\n",
        "a crowd of fields": "GET {url}/ HTTP/1.1\r\n" + host + "".join(f"X-{n}: a\r\n" for n in range(150)) + "\r\n",
        "99 fields": "GET {url}/ HTTP/1.1\r\n" + host + "".join(f"X-{n}: a\r\n" for n in range(98)) + "\r\n",
        "a large field": "GET {url}/ HTTP/1.1\r\n" + host + "X-A: {a*60000}" + end,
        "a larger field": "GET {url}/ HTTP/1.1\r\n" + host + "X-A: {a*100000}" + end,
        "too large a field": "GET {url}/ HTTP/1.1\r\n" + host + "X-A: {a*300000}" + end,
        "a head without end": "GET {url}/ HTTP/1.1\r\n" + host + "{X-A: b\r\n*40000}",
        "lines that end in LF": "GET {url}/ HTTP/1.1\nHost: {authority}\n\n",
        "one line that ends in LF": "GET {url}/ HTTP/1.1\r\nX-A: b\n" + host + "\r\n",
        "CR in a value": "GET {url}/ HTTP/1.1\r\nX-A: a\rb\r\n" + host + "\r\n",
        "NUL in a value": "GET {url}/ HTTP/1.1\r\nX-A: a\0b\r\n" + host + "\r\n",
        "a folded line": "GET {url}/ HTTP/1.1\r\nX-A: a\r\n b\r\n" + host + "\r\n",
        "a space before a colon": "GET {url}/ HTTP/1.1\r\nX-A : b\r\n" + host + "\r\n",
        "no colon": "GET {url}/ HTTP/1.1\r\nX-A\r\n" + host + "\r\n",
        "no name": "GET {url}/ HTTP/1.1\r\n: a\r\n" + host + "\r\n",
        "bytes in a value": "GET {url}/ HTTP/1.1\r\nX-A: \xe9\xff\r\n" + host + "\r\n",
        "an empty value": "GET {url}/ HTTP/1.1\r\nX-A:\r\n" + host + "\r\n",
        "spaces about a value": "GET {url}/ HTTP/1.1\r\nX-A: \t a \t b\r\n" + host + "\r\n",
        "an empty line before": "\r\nGET {url}/ HTTP/1.1\r\n" + host + "\r\n",
        "a space before": " GET {url}/ HTTP/1.1\r\n" + host + "\r\n",
        "two spaces in the line": "GET  {url}/ HTTP/1.1\r\n" + host + "\r\n",
        "a method in lower case": "get {url}/ HTTP/1.1\r\n" + host + "\r\n",
        "TRACE": "TRACE {url}/ HTTP/1.1\r\n" + host + "\r\n",
        "HTTP/1.2": "GET {url}/ HTTP/1.2\r\n" + host + "\r\n",
        "HTTP/2.0": "GET {url}/ HTTP/2.0\r\n" + host + "\r\n",
        "no version": "GET {url}/\r\n" + host + "\r\n",
        "TLS": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + 40 * "\x00",
        "nonsense": "\x00\x01\x02\x03\r\n\r\n",
        "the preface of HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "a token": "GET {url}/ HTTP/1.1\r\nX-My-JWT: stolen\r\n" + host + "\r\n",
        "a token with underscores": "GET {url}/ HTTP/1.1\r\nX_My_JWT: stolen\r\n" + host + "\r\n",
        "a token in capitals": "GET {url}/ HTTP/1.1\r\nX-MY-JWT: stolen\r\n" + host + "\r\n",
        "a token named in Connection": "GET {url}/ HTTP/1.1\r\nConnection: x-my-jwt\r\n" + host + "\r\n",
        "a length with an underscore": "POST {url}/ HTTP/1.1\r\n" + host + "Content_Length: 3\r\n\r\nabc",
        "a length and chunks": "POST {url}/ HTTP/1.1\r\n" + host + "Content-Length: 5\r\n" + _CHUNKED + end + "0" + end,
        "a signed length": "POST {url}/ HTTP/1.1\r\n" + host + "Content-Length: +3" + end + "abc",
        "a length with zeros": "POST {url}/ HTTP/1.1\r\n" + host + "Content-Length: 03" + end + "abc",
        "an empty length": "POST {url}/ HTTP/1.1\r\n" + host + "Content-Length:" + end + "abc",
        "no length": "POST {url}/ HTTP/1.1\r\n" + host + "\r\n",
        "GET with a body": "GET {url}/ HTTP/1.1\r\n" + host + "Content-Length: 3\r\n\r\nabc",
        "GET with a length of 0": "GET {url}/ HTTP/1.1\r\n" + host + "Content-Length: 0" + end,
        "DELETE with a body": "DELETE {url}/ HTTP/1.1\r\n" + host + "Content-Length: 3\r\n\r\nabc",
        "HEAD with a body": "HEAD {url}/ HTTP/1.1\r\n" + host + "Content-Length: 3\r\n\r\nabc",
        "an unknown coding": "POST {url}/ HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip" + end + "abc",
        "a coding in capitals": "POST {url}/ HTTP/1.1\r\n" + host + "Transfer-Encoding: Chunked" + end + "0" + end,
        "a bad coding": "POST {url}/ HTTP/1.1\r\n" + host + "Transfer-Encoding: xchunked" + end + "0" + end,
        "a coding twice": "POST {url}/ HTTP/1.1\r\n" + host + 2 * (_CHUNKED + "\r\n") + "\r\n0" + end,
        "keep-alive, close": ask("/", "Connection: keep-alive, close"),
        "Close": ask("/", "Connection: Close"),
        "CLOSE": ask("/", "Connection: CLOSE"),
        "an empty Connection": ask("/", "Connection:"),
        "Connection twice": ask("/", "Connection: close", "Connection: keep-alive"),
        "Proxy-Connection: close": ask("/", "Proxy-Connection: close"),
        "Proxy-Connection: Keep-Alive": ask("/", "Proxy-Connection: Keep-Alive"),
        "Keep-Alive": ask("/", "Keep-Alive: timeout=5", "Connection: keep-alive"),
        "Proxy-Authorization": ask("/", "Proxy-Authorization: Basic eDp5"),
        "Authorization": ask("/", "Authorization: Basic eDp5"),
        "TE": ask("/", "TE: trailers"),
        "Trailer": ask("/", "Trailer: X-A"),
        "Via": ask("/", "Via: 1.1 other"),
        "Max-Forwards": ask("/", "Max-Forwards: 5"),
        "Upgrade": ask("/", "Connection: Upgrade", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"),
        "WebSocket": ask("/", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
        "Cookie twice": ask("/", "Cookie: a=1", "Cookie: b=2"),
        "HTTP/1.0": ask(version="1.0"),
        "HTTP/1.0, kept": ask("/", "Connection: keep-alive", version="1.0"),
        "HTTP/1.0 without Host": "GET {url}/ HTTP/1.0" + end,
        "HTTP/1.0 with a body": ask(method="POST", body="abc", version="1.0"),
        "HTTP/1.0 in chunks": upload("/", "abc").replace("HTTP/1.1", "HTTP/1.0"),
        **{f"chunks: {name}": upload("/", end=said) for name, said in CHUNKS.items() if "0\r\n\r\n" in said},
        **{f"chunks: {name}": upload("/", end=said) for name, said in CHUNKS.items() if "0\r\n\r\n" not in said},
    }
    own = "GET {} HTTP/1.1\r\nHost: {{proxy}}\r\n\r\n"
    whole: Mapping[str, str] = {
        "own status": own.format("/status"),
        "own status, HEAD": own.format("/status").replace("GET", "HEAD"),
        "own status, POST": own.format("/status").replace("GET", "POST"),
        "own status, whole URL": own.format("http://{proxy}/status"),
        "own keys": own.format("/.well-known/jwks.json"),
        "no page": own.format("/nothing"),
        "another's status": ask("/status"),
        "OPTIONS *": own.format("*").replace("GET", "OPTIONS"),
        "a tunnel to the proxy": own.format("{proxy}").replace("GET", "CONNECT"),
        "unreachable": "GET http://{closed}/ HTTP/1.1\r\nHost: {closed}\r\n\r\n",
        "unreachable, POST": "POST http://{closed}/ HTTP/1.1\r\nHost: {closed}\r\nContent-Length: 3\r\n\r\nabc",
        "unreachable, in chunks": upload("/", "abc").replace("{url}", "http://{closed}"),
        "unreachable, HEAD": "HEAD http://{closed}/ HTTP/1.1\r\nHost: {closed}\r\n\r\n",
        "https": "GET https://{closed}/ HTTP/1.1\r\nHost: {closed}\r\n\r\n",
        "ftp": "GET ftp://{authority}/ HTTP/1.1\r\nHost: {authority}\r\n\r\n",
    }
    both: Mapping[str, str] = {
        "refused": ask("/refused"),
        "refused, HEAD": ask("/refused", method="HEAD"),
        "refused, POST": post("/refused"),
        "refused, in chunks": upload("/refused", "abc"),
        "refused, closes": ask("/refused", "Connection: close"),
        "unsigned": ask("/unsigned"),
        "unsigned, with a token": ask("/unsigned", "X-My-JWT: a"),
    }
    for table, plain in ((heads, False), (both, False), (whole, True)):
        for name, text in table.items():
            says: Sequence[Step] = (text, 1)
            open_ended = name in _WITHOUT_END
            if open_ended:
                says = (text, Do.PAUSE, Do.CLOSE)
            partial = "chunk" in name
            there = plain or "http:" in text or "HTTP:" in text
            yield Talk(f"request: {name}", says, partial=partial, hands_over=True, plain=there)
            yield Talk(
                f"later request: {name}", (ask("/a"), 1, *(2 if step == 1 else step for step in says)),
                partial=partial, hands_over=True, plain=there,
            )  # fmt: skip
    yield Talk(
        "own pages in between",
        (ask("/a"), 1, own.format("/status"), 2, ask("/b"), 3, own.format("/status"), 4, ask("/c"), 5),
        hands_over=True,
        plain=True,
    )


_WITHOUT_END = {
    "a huge size", "half of the last chunk", "half of a size", "half of a chunk", "no last chunk",
}  # fmt: skip
_WITHOUT_END = {f"chunks: {name}" for name in _WITHOUT_END} | {"TLS"}


# --- who goes first


def upstreams() -> Iterator[Talk]:
    """Upstreams that close idle connections, several of them, and one that is silent."""
    closes: Sequence[Step] = (answer("x"), Do.CLOSE)
    half: Sequence[Step] = (answer("x"), None)
    gone = (Do.GONE, Do.PAUSE)
    turns: list[Step] = []
    for number in range(6):
        turns += [ask(f"/{number}", to="2" if number % 2 else ""), number + 1]
    yield Talk("two in turn", turns, plain=True)
    yield Talk("two in turn, of which one closes", turns, {"/2": closes}, plain=True)
    yield Talk("two in turn, with an odd one", [*turns, ask("/x", "TE: trailers"), 7], hands_over=True, plain=True)
    yield Talk("two in turn, with bodies", (post("/0"), 1, post("/1", to="2"), 2), plain=True)
    yield Talk("says more later", (ask(), 1, Do.GONE, ask("/b"), 2), {"/": (answer(), Do.PAUSE, answer("extra"))})
    for name, steps in (("closes", closes), ("half-closes", half), ("resets", (answer("x"), Do.RESET))):
        plain = None in steps
        yield Talk(f"{name} when idle", (ask("/a"), 1, *gone, ask("/b"), 2), {"/a": steps}, plain=plain)
        yield Talk(f"{name} when idle, then POST", (ask("/a"), 1, *gone, post("/b"), 2), {"/a": steps}, plain=plain)
        yield Talk(
            f"{name} when idle, each time", (ask("/a"), 1, *gone, ask("/a"), 2, *gone), {"/a": steps}, plain=plain
        )
    for method in ("GET", "POST", "PUT", "DELETE"):
        for name, steps in (("closes", (Do.CLOSE,)), ("resets", (Do.RESET,)), ("begins", ("HTTP/1.1 2", Do.CLOSE))):
            says = (ask("/a"), 1, ask("/b", method=method, body="" if method in ("GET", "DELETE") else "x"), 2)
            yield Talk(f"{name} at a second request: {method}", says, {"/b": steps})
    for name, said in (("GET", ask()), ("HEAD", ask(method="HEAD")), ("POST", post()), ("chunks", upload("/", "abc"))):
        yield Talk(f"silent: {name}", (said, 1), {"/": (Do.COMPLETE,)})
    yield Talk("silent after a 103", (ask(), 1), {"/": (head_of("103 Early Hints"),)})
    yield Talk("silent within a head", (ask(), 1), {"/": ("HTTP/1.1 200 OK\r\n",)})


SUBJECTS = (in_turn, pipelined, gone, early, cut_requests, cut_answers, slowly, interims, answers, requests, upstreams)


def conversations() -> Mapping[str, list[Talk]]:
    """All of them, by subject."""
    return {subject.__name__: list(subject()) for subject in SUBJECTS}
