"""What is told of a request when it is over: no token, key or credential, no cookie, and nothing of a query."""

import binascii
import functools
import json
from typing import Any, NamedTuple

from ..conduct.destination import Destination
from .counters import Outcome
from .redaction import redact

_TO_STANDARD = bytes.maketrans(b"-_", b"+/")
_IAT, _JTI = b"eyJpYXQiOj", b',"jti":"'
"""How claims begin if they are ours, in Base64url, and what follows the ten digits of the time."""


class Row(NamedTuple):
    """A request that is over, as what costs little to keep of it; where there are many, as a plain tuple of that."""

    began: float
    """Seconds since the epoch."""
    ended: float
    """The same, of when all of the answer was there, or it was clear that it would not come."""
    client: str
    """The address of who has sent it; empty where nobody has, as in a replay."""
    method: bytes
    scheme: bytes
    """Empty of a CONNECT, which asks for none."""
    host: str
    port: int
    path: bytes
    """Without its query; empty of a CONNECT."""
    has_query: bool
    status: int
    """0: there was no answer."""
    outcome: int
    reason: str
    """Why the answer is ours, or why there is none; else empty."""
    rule: str
    token: bytes
    """But for its signature; empty if it has none."""
    waited: float | None
    """Seconds until an upstream has begun to answer, if one has."""
    received: int
    """Bytes of the request's body."""
    sent: int
    """Bytes of the answer's."""
    fast: bool
    """Whether it was carried by the fast lane."""
    websocket: bool = False


class Exchange(NamedTuple):
    """The same in words: a request and what has become of it; a WebSocket is one, with all that has passed."""

    began: float
    """Seconds since the epoch."""
    client: str
    """The address of who has sent it; empty where nobody has, as in a replay."""
    method: str
    scheme: str
    """Empty of a CONNECT, which asks for none."""
    authority: str
    """As it is written in a URL, without user and password."""
    path: str
    """Without its query; empty of a CONNECT."""
    has_query: bool
    status: int | None
    """Of the answer, as far as there was one."""
    outcome: Outcome
    reason: str
    """Why the answer is ours, or why there is none; else empty."""
    rule: str
    kid: str | None
    """Of the key that has signed it, if one has, and has such a name."""
    jti: str | None
    fast: bool
    """Whether it was carried by the fast lane."""
    duration: float
    """Seconds until all of the answer was there, or it was clear that it would not come."""
    waited: float | None
    """Seconds until an upstream has begun to answer, if one has."""
    received: int
    """Bytes of the request's body."""
    sent: int
    """Bytes of the answer's."""
    websocket: bool = False

    @property
    def url(self) -> str:
        """Where it went, for people: `?…` stands for a query."""
        start = f"{self.scheme}://" if self.scheme else ""
        return f"{start}{self.authority}{self.path}{'?…' if self.has_query else ''}"


def in_words(row: Row) -> Exchange:
    """What is told of it."""
    scheme = text(row.scheme)
    header, _, claims = row.token.partition(b".")
    path, hidden = public_path(text(row.path))
    return Exchange(
        began=row.began,
        client=row.client,
        method=text(row.method),
        scheme=scheme,
        authority=authority(scheme, row.host, row.port),
        path=path,
        has_query=row.has_query or hidden,
        status=row.status or None,
        outcome=Outcome(row.outcome),
        reason=redact(row.reason),
        rule=row.rule,
        kid=kid_of(header),
        jti=jti_of(claims),
        fast=row.fast,
        duration=max(0.0, row.ended - row.began),
        waited=row.waited,
        received=row.received,
        sent=row.sent,
        websocket=row.websocket,
    )


def lane(fast: bool) -> str:
    """How the way is called that a request went."""
    return "fast" if fast else "mitmproxy"


@functools.lru_cache(1024)
def authority(scheme: str, host: str, port: int) -> str:
    """A destination as it is written in a URL."""
    return Destination(scheme, host, port).authority


def text(part: bytes) -> str:
    """Some of a request as it is told; bytes that are no text stay what they are."""
    return part.decode("utf-8", "surrogateescape")


@functools.lru_cache(64)
def kid_of(header: bytes) -> str | None:
    """The name of the key of a compact JWS (RFC 7515 §3.1), by the first part of it; None where that has none."""
    return _string(_read(header), "kid")


def jti_of(claims: bytes) -> str | None:
    """The number of a compact JWS, by the second part of it; None where that has none."""
    return _usual_jti(claims) or _string(_read(claims), "jti")


def _usual_jti(claims: bytes) -> str:
    """That of claims which begin as ours do, so that they need not be read as a whole: it costs as much as the rest."""
    if not claims.startswith(_IAT):
        return ""
    try:
        part = binascii.a2b_base64(claims[20:80])  # characters 15 to 60: two digits, the name, 32 of it, the quote
    except ValueError:
        return ""
    jti = part[10:42]
    return jti.decode() if part.startswith(_JTI, 2) and part.startswith(b'"', 42) and jti.isalnum() else ""


def claims_of(token: bytes) -> Any:
    """What a compact JWS says, with or without its signature; None where there is none, or it cannot be read."""
    return _read(token.split(b".")[1]) if b"." in token else None


def public_path(path: str) -> tuple[str, bool]:
    """A path as it may be told, and whether it had a query or fragment, which may not."""
    bare, mark, _ = path.partition("?")
    bare, other, _ = bare.partition("#")
    return redact(bare) if "eyJ" in bare else bare, bool(mark or other)


def _read(part: bytes) -> object:
    try:
        return json.loads(_decoded(part))
    except (ValueError, RecursionError):
        return None


def _decoded(part: bytes) -> bytes:
    """Base64url (RFC 7515 §2), or what of it comes before something else."""
    try:
        return binascii.a2b_base64(part.translate(_TO_STANDARD) + b"==")
    except ValueError:
        return b""


def _string(members: object, name: str) -> str | None:
    value = members.get(name) if isinstance(members, dict) else None
    return value if isinstance(value, str) else None
