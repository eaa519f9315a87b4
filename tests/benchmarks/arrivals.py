"""Runs beside the timed ones, before an upstream that keeps the token of every request: is each one right?

A right one is the only one of its request, ours by its signature, has the claims of the contract and no other, made
now, and an id that no other token of the whole benchmark has.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from tests.support.harness import SECRET
from tests.support.upstreams import Answer, Authority, Recorder, Seen

from . import load
from .upstream import Upstream, serve_own

_KEY = OctKey.import_key(bytes.fromhex(SECRET))
_OURS = re.compile(rb"x[-_]my[-_]jwt", re.IGNORECASE)


@dataclass(frozen=True)
class Keeper:
    """An upstream that keeps the tokens of each request."""

    port: int
    tokens: Callable[[], list[list[str]]]


@contextlib.contextmanager
def keeping(protocol: str, server: Upstream) -> Iterator[Keeper]:
    """Start one beside that of the timed runs."""
    if protocol == "https/2":
        with _Http2(authority=server.authority, alpn=["h2"]) as recorder:
            yield Keeper(recorder.port, lambda: recorder.tokens)
    else:
        kept = server.folder / "tokens"
        kept.unlink(missing_ok=True)
        with serve_own(server.folder, kept) as ports:
            yield Keeper(ports[protocol], lambda: [json.loads(line) for line in kept.read_text().splitlines()])


class _Http2(Recorder):
    def __init__(self, *, authority: Authority, alpn: Sequence[str]) -> None:
        self.tokens: list[list[str]] = []
        super().__init__(authority=authority, alpn=alpn)

    def _arrived(self, seen: Seen) -> tuple[Answer, bool]:
        answer = super()._arrived(seen)
        self.requests.clear()
        self.tokens.append([value.decode("latin-1") for name, value in seen.fields if _OURS.fullmatch(name)])
        return answer


@dataclass
class Arrivals:
    """Judges tokens, and remembers their ids."""

    _ids: set[str] = field(default_factory=set)

    def check(self, server: Keeper, spec: load.Spec) -> dict[str, Any]:
        """Send this load, judge all that arrives."""
        began = time.time()
        try:
            answered = load.run(spec).requests
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            return {"checked": 0, "bad": 0, "repeated": 0, "fault": str(error).splitlines()[0]}
        return self.judge(server.tokens(), began, time.time(), answered)

    def judge(self, tokens: list[list[str]], since: float, until: float, answered: int) -> dict[str, Any]:
        """How many there were, how many of them are bad, how many have the id of another, and one fault, if any."""
        judged = [verdict(values, since, until) for values in tokens]
        faults = [fault for fault, _ in judged if fault]
        ids = [known_by for fault, known_by in judged if not fault]
        repeated = len(ids) - len(set(ids) - self._ids)
        self._ids.update(ids)
        if not tokens or len(tokens) < answered:
            faults.insert(0, f"{answered} requests were answered, {len(tokens)} arrived")
        elif repeated:
            faults.append("a token has the id of another")
        told = {"checked": len(tokens), "bad": sum(1 for fault, _ in judged if fault), "repeated": repeated}
        return told | ({"fault": faults[0]} if faults else {})


def verdict(tokens: Sequence[str], since: float, until: float) -> tuple[str, str]:
    """What is wrong with the tokens of one request, empty if nothing is, and the id."""
    if len(tokens) != 1:
        return f"{len(tokens)} tokens instead of one", ""
    try:
        token = jwt.decode(tokens[0], _KEY, algorithms=["HS512"])
    except (JoseError, ValueError) as error:
        return f"the token is not ours: {error}", ""
    if token.header != {"alg": "HS512", "typ": "JWT"}:
        return f"the header is {token.header}", ""
    return _fault(token.claims, since, until), str(token.claims.get("jti"))


def _fault(claims: dict[str, Any], since: float, until: float) -> str:
    made, known_by = claims.get("iat"), claims.get("jti")
    if type(made) is not int or not int(since) <= made <= until:
        return f"iat is {made!r}"
    if not isinstance(known_by, str) or len(known_by) < 22:  # 128 bits, in base64url
        return f"jti is {known_by!r}"
    today = datetime.fromtimestamp(made, UTC).date().isoformat()
    if claims != {"iat": made, "jti": known_by, "payload": {"user": "username", "date": today}}:
        return f"the claims are {claims}"
    return ""
