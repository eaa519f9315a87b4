"""The pages the proxy answers itself."""

import base64
import functools
import hashlib
import html
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from pathlib import Path
from typing import Any, NamedTuple

from werkzeug.datastructures import MIMEAccept
from werkzeug.http import generate_etag, parse_accept_header, parse_etags

from ..conduct import heads, proxy_status
from ..conduct.proxy_status import ErrorType
from ..config import place
from ..config.options import Option, number
from ..config.place import Place

_ALLOW = "GET, HEAD, OPTIONS"
JSON, HTML, TEXT = "application/json", "text/html; charset=utf-8", "text/plain; charset=utf-8"
_JWKS = "application/jwk-set+json"  # RFC 7517 §8.5.2
_PROBLEM = "application/problem+json"  # RFC 9457 §3
_KINDS = {"text/plain": TEXT, _PROBLEM: _PROBLEM, JSON: _PROBLEM, "text/html": HTML}
_FORMS = {f"{kind}{charset}": form for kind, form in _KINDS.items() for charset in ("", "; charset=utf-8")}
"""Of what we have to say: what clients may ask for, and what they get then; the first where anything will do."""
_LONGEST_ACCEPT = 1024
"""Characters of one that is read: it is not worth more to know in what form somebody is answered."""

SERVER = "jwtproxy"
"""Who answers, on every answer of our own."""

HOME_PATH = "/"
STATUS_PATH = "/status"
RECENT_PATH = "/recent"
LIVE_PATH, READY_PATH = "/livez", "/readyz"
"""Whether the proxy serves at all, and whether it should be sent requests now."""
METRICS_PATH = "/metrics"
JWKS_PATH = "/.well-known/jwks.json"
PEM_PATH, DER_PATH, PKCS12_PATH = "/ca.pem", "/ca.cer", "/ca.p12"
"""The certificate of the CA, and never its key, in the forms that systems want."""
PAC_PATH = "/proxy.pac"

_WHETHER = ("auto", "on", "off")
_MOST_KEPT = 1000


def _where(value: str) -> str | Place:
    if value in _WHETHER:
        return value
    if found := place.parse(value):
        return found
    raise ValueError(f"use one of {', '.join(_WHETHER)}, or HOST:PORT")


def _kept(value: str) -> int:
    try:
        kept = number(value)
    except ValueError:
        kept = _MOST_KEPT + 1
    if kept > _MOST_KEPT:
        raise ValueError(f"use a whole number up to {_MOST_KEPT:,}, 0 for none")
    return kept


OPTIONS = (
    Option(
        "jwt_pages",
        "auto",
        _where,
        "pages",
        "Whether the proxy serves its own pages, such as /status: auto (on in regular and upstream mode), on or off; "
        "or the HOST:PORT where it does instead.",
    ),
    Option(
        "jwt_recent",
        "100",
        _kept,
        "pages",
        "How many of the last requests /recent shows to who asks from this machine; 0 = none are kept.",
    ),
)

_WITH_304 = ("Cache-Control", "ETag")  # RFC 9110 §15.4.5

NOTHING_PUBLISHED = '{"keys": []}\n', 0
"""A JWKS without keys, and for how many seconds it may be kept."""


class Reader(Enum):
    """Who may read a page."""

    ANYONE = auto()
    USER = auto()
    """Who gives the password that `--proxyauth` asks for, or asks from this machine; where it asks for none, anyone."""
    NEARBY = auto()
    """Who gives that password, or asks from this machine by a name for it."""


class Own(NamedTuple):
    """One of our pages."""

    reader: Reader
    what: str
    """It is, in a few words."""


PAGES = {
    HOME_PATH: Own(Reader.USER, "what this is, and how to use it"),
    STATUS_PATH: Own(Reader.USER, "how the proxy does"),
    RECENT_PATH: Own(Reader.NEARBY, "what has become of the last requests"),
    LIVE_PATH: Own(Reader.ANYONE, "whether it serves"),
    READY_PATH: Own(Reader.ANYONE, "whether it takes requests"),
    METRICS_PATH: Own(Reader.USER, "what Prometheus reads"),
    JWKS_PATH: Own(Reader.ANYONE, "the public keys"),
    PEM_PATH: Own(Reader.ANYONE, "the certificate that clients need for HTTPS"),
    DER_PATH: Own(Reader.ANYONE, "the same in DER"),
    PKCS12_PATH: Own(Reader.ANYONE, "the same in PKCS#12"),
    PAC_PATH: Own(Reader.ANYONE, "a script by which browsers find the proxy"),
}
"""All there are, by their paths."""


@dataclass(frozen=True)
class Page:
    """One answer: status code, header fields, body. A HEAD request's body stays off the wire by its sender."""

    code: int
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    detail: str = ""
    """What it says in one line, where that may take other forms."""
    data: bytes = b""
    """Its body where that is no text."""


Read = Callable[[Mapping[str, str]], Page]
"""Make a page for a request with these header fields."""


def is_own(path: str) -> bool:
    """Whether a path, with or without a query, is that of one of our pages where only the path can tell.

    There the root is another's.
    """
    return _without_query(path) in PAGES.keys() - {HOME_PATH}


def reader_of(path: str) -> Reader:
    """Who may read what is at this path."""
    own = PAGES.get(_without_query(path))
    return own.reader if own else Reader.ANYONE


def _without_query(path: str) -> str:
    return path.partition("?")[0]


def answer(method: str, path: str, headers: Mapping[str, str], read: Mapping[str, Read]) -> Page:
    """Answer one request made to the proxy itself; `read` makes each of our pages."""
    if method == "OPTIONS" and path == "*":
        return Page(204, headers={"Allow": _ALLOW})  # RFC 9110 §9.3.7: a ping
    path = _without_query(path)
    if path not in PAGES:
        return text(404, "this is a proxy; / lists the pages that it has")
    if method == "OPTIONS":
        return Page(204, headers={"Allow": _ALLOW})
    if method not in ("GET", "HEAD"):
        return text(405, f"{path} is read-only", Allow=_ALLOW)
    return read[path](headers)


def prefers_html(accept: str, otherwise: str = JSON) -> bool:
    """Whether a client that sends this Accept prefers HTML to JSON, or to what it gets otherwise."""
    wanted = parse_accept_header(accept[:_LONGEST_ACCEPT], MIMEAccept).best_match([otherwise, "text/html", HTML])
    return bool(wanted) and wanted != otherwise


def jwks(headers: Mapping[str, str], body: str, max_age: int) -> Page:
    """The public keys, which may be kept for `max_age` seconds (RFC 9111 §5.2.2.1), or that they are as before."""
    etag = generate_etag(body.encode())
    own = {"Cache-Control": f"public, max-age={max_age}", "ETag": f'"{etag}"'}
    return unless_known(headers, etag, Page(200, body, {"Content-Type": _JWKS, **own}))


def unless_known(headers: Mapping[str, str], etag: str, page: Page) -> Page:
    """The page, or, to a client that has what this tag names, only that it is as before (RFC 9110 §13.1.2)."""
    if parse_etags(headers.get("if-none-match")).contains_weak(etag):
        return Page(304, headers={name: value for name, value in page.headers.items() if name in _WITH_304})
    return page


def text(code: int, message: str, error: ErrorType | None = None, **headers: str) -> Page:
    """A short answer in our voice: plain, unless it is given another form.

    `error`: where it takes the place of an upstream's answer, of which type that failure is.
    """
    told = {proxy_status.NAME: error.field} if error else {}
    fields = {"Content-Type": TEXT, **told, **headers, "Vary": "Accept"}
    return Page(code, f"jwtproxy: {message}\n", fields, message)


def in_form(page: Page, accept: str) -> Page:
    """The page as a client wants it who sends this Accept: in plain text, HTML, or as RFC 9457 has it, in JSON."""
    if not page.detail or accept in ("", "*/*") or len(accept) > _LONGEST_ACCEPT:
        return page
    form = _FORMS[parse_accept_header(accept, MIMEAccept).best_match(_FORMS, TEXT)]
    if form == TEXT:
        return page
    if form == _PROBLEM:
        title = heads.phrase(page.code).decode()
        members = {"type": "about:blank", "title": title, "status": page.code, "detail": page.detail}
        body = json.dumps(members) + "\n"
    else:
        body = document(heads.status_text(page.code), f"<p>jwtproxy: {html.escape(page.detail)}\n")
    return replace(page, body=body, headers={**page.headers, "Content-Type": form})


NONE = text(404, "this is a proxy; it serves no pages here")


def _flat(members: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The members, and those of members that are objects, in a row."""
    for name, value in members.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{inner}", found) for inner, found in _flat(value))
        else:
            yield name, value


def table(members: Mapping[str, Any]) -> str:
    """The members in the rows of a table, in HTML."""
    rows = "".join(
        f"<tr><th scope=row>{html.escape(name)}<td>{html.escape(str(value))}\n" for name, value in _flat(members)
    )
    return f"<table>\n{rows}</table>\n"


_STYLE = (
    ":root{color-scheme:light dark;--line:light-dark(#d8dce3,#3a4150);--quiet:light-dark(#535c6b,#a5aebd);"
    "--back:light-dark(#fff,#14171c);--text:light-dark(#1a1e26,#e6e9ef);--note:light-dark(#eef3fb,#1e2734)}"
    "*{box-sizing:border-box}body{font:16px/1.5 system-ui,sans-serif;background:var(--back);color:var(--text);"
    "max-width:50rem;margin:0 auto;padding:2.5rem 1.25rem 4rem;overflow-wrap:anywhere}"
    "h1{font-size:1.5rem;line-height:1.25;margin:0 0 1rem}h2{font-size:1rem;margin:2rem 0 .5rem}"
    "code,td{font-family:ui-monospace,monospace;font-size:.875em}"
    "table{width:100%;border-collapse:collapse}tr{border-bottom:1px solid var(--line)}"
    "th,td{text-align:left;vertical-align:baseline;padding:.4rem 0}"
    "th{width:1%;min-width:12rem;font-weight:400;color:var(--quiet);padding-right:1.5rem;"
    "overflow-wrap:break-word}td{font-variant-numeric:tabular-nums}"
    ".note{background:var(--note);border-radius:.5rem;padding:.75rem 1rem}"
    "@media(max-width:36rem){body{padding-top:1.5rem}h1{font-size:1.25rem}"
    "table,tbody,tr,th,td{display:block;width:auto}tr{padding:.4rem 0}"
    "th,td{padding:0}th{font-size:.875em}}"
)


def asset(name: str) -> str:
    """What a page has of style or script, from the file of this name."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def policy(style: str = "", script: str = "") -> str:
    """The Content-Security-Policy of a page in HTML that has this style beside the common one, and this script.

    The script may ask the proxy itself, and nobody else.
    """
    styles = " ".join(_hash(one) for one in (_STYLE, style) if one)
    scripts = f"script-src {_hash(script)}; connect-src 'self'; " if script else ""
    return (
        f"default-src 'none'; style-src {styles}; {scripts}img-src data:; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )


@functools.cache
def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


POLICY = policy()
"""That of a page that has neither."""


def document(title: str, content: str, heading: str = "", style: str = "") -> str:
    """A page in HTML. `content`: of its body, in HTML; `heading`: in place of the title, as plain as that."""
    own = f"<style>{style}</style>\n" if style else ""
    return (
        "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n"
        f"<meta name=viewport content='width=device-width,initial-scale=1'>\n<title>{html.escape(title)}</title>\n"
        f"<link rel=icon href='data:,'>\n<style>{_STYLE}</style>\n{own}"
        f"<h1>{html.escape(heading or title)}</h1>\n{content}"
    )
