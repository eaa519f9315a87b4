"""The pages the proxy answers itself."""

import html
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

_ALLOW = "GET, HEAD, OPTIONS"
_JSON, _HTML, _TEXT = "application/json", "text/html; charset=utf-8", "text/plain; charset=utf-8"

STATUS_PATH = "/status"


@dataclass(frozen=True)
class Page:
    """One answer: status code, header fields, body. A HEAD request's body stays off the wire by its sender."""

    code: int
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)


def is_own(path: str) -> bool:
    """Whether a path, with or without a query, is that of one of our pages."""
    return path.partition("?")[0] == STATUS_PATH


def answer(method: str, path: str, accept: str, status: Callable[[], dict[str, Any]]) -> Page:
    """Answer one request made to the proxy itself. `status` gives the members of the status page when it is asked."""
    if method == "OPTIONS" and path == "*":
        return Page(204, headers={"Allow": _ALLOW})  # RFC 9110 §9.3.7: a ping
    if not is_own(path):
        return text(404, f"this is a proxy; the only page here is {STATUS_PATH}")
    if method == "OPTIONS":
        return Page(204, headers={"Allow": _ALLOW})
    if method not in ("GET", "HEAD"):
        return text(405, f"{STATUS_PATH} can only be read", Allow=_ALLOW)
    return _status(accept, status())


def text(code: int, message: str, **headers: str) -> Page:
    """A short plain answer in our voice."""
    return Page(code, f"jwtproxy: {message}\n", {"Content-Type": _TEXT, **headers})


NONE = text(404, "this is a proxy; it serves no pages here")


def _status(accept: str, members: dict[str, Any]) -> Page:
    headers = {"Cache-Control": "no-store", "Vary": "Accept"}
    wanted = parse_accept_header(accept, MIMEAccept).best_match([_JSON, "text/html", _HTML])
    if wanted and wanted != _JSON:
        return Page(200, _html(members), {"Content-Type": _HTML, **headers})
    return Page(200, json.dumps(members) + "\n", {"Content-Type": _JSON, **headers})


def _html(members: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><th scope=row>{html.escape(name)}<td>{html.escape(str(value))}\n" for name, value in members.items()
    )
    return (
        "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n"
        "<meta name=viewport content='width=device-width'>\n<title>jwtproxy</title>\n"
        "<style>body{font:16px/1.5 system-ui,sans-serif;margin:3rem;color-scheme:light dark}"
        "th{text-align:left;font-weight:400;padding-right:2rem}td{font-variant-numeric:tabular-nums}</style>\n"
        f"<h1>jwtproxy</h1>\n<table>\n{rows}</table>\n"
    )
