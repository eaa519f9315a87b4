"""What an upstream would have got of a request: all but what is a credential."""

import base64
import binascii
import html
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ..conduct.fields import Fields, normalise
from . import pages
from .pages import Page
from .redaction import redact

_HIDDEN = "[hidden]"
_DECODED = "[token, shown decoded]"
_CREDENTIAL = re.compile(rb"authorization|cookie|jwt|token|secret|passw|credential|api-?key|signature")
"""In the name of a field, normalised, whose value is nobody's business."""

TOO_LONG = pages.text(413, "jwtproxy.test waits for no body that is longer than 64 MiB")
NO_WEBSOCKET = pages.text(400, "jwtproxy.test shows requests, and takes no WebSockets")


class Asked(NamedTuple):
    """A request as it would leave."""

    method: str
    url: str
    http_version: str
    fields: Fields
    length: int | None
    """Bytes of its body; None: that is not known yet."""
    token_fields: frozenset[bytes]
    """The names of fields that carry a token of ours, normalised."""
    rule: str | None
    """The rule that decided, where there are any."""


def page(asked: Asked, accept: str) -> Page:
    """What is told of a request, as JSON, or as HTML where the client prefers that."""
    members = tell(asked)
    own = {"Cache-Control": "no-store", "Vary": "Accept", "X-Content-Type-Options": "nosniff"}
    if pages.prefers_html(accept):
        return Page(200, _html(members), {"Content-Type": pages.HTML, "Content-Security-Policy": pages.POLICY, **own})
    return Page(200, json.dumps(members, indent=2) + "\n", {"Content-Type": pages.JSON, **own})


def tell(asked: Asked) -> dict[str, Any]:
    """The request in members that can be written as JSON, without the token itself, or its signature."""
    return {
        "method": asked.method,
        "url": redact(asked.url),
        "http_version": asked.http_version,
        "headers": _headers(asked),
        "body_bytes": asked.length,
        "token": _token(asked),
        "rule": asked.rule,
    }


def _headers(asked: Asked) -> dict[str, str]:
    """The fields by name; those of one name in one, as RFC 9110 §5.2 has it."""
    names: dict[bytes, str] = {}
    found: dict[str, str] = {}
    for name, value in asked.fields:
        said = names.setdefault(name.lower(), _text(name))
        shown = _shown(name, value, asked.token_fields)
        found[said] = f"{found[said]}, {shown}" if said in found else shown
    return found


def _shown(name: bytes, value: bytes, token_fields: frozenset[bytes]) -> str:
    plain = normalise(name)
    if plain in token_fields:
        return _DECODED
    return _HIDDEN if _CREDENTIAL.search(plain) else redact(_text(value))


def _token(asked: Asked) -> dict[str, Any] | None:
    """The token's own header and claims; None where there is none."""
    for name, value in asked.fields:
        if normalise(name) in asked.token_fields:
            header, _, rest = value.partition(b".")
            return {"field": _text(name), "header": _decoded(header), "claims": _decoded(rest.partition(b".")[0])}
    return None


def _decoded(part: bytes) -> Any:
    try:
        return json.loads(base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4)))
    except (binascii.Error, ValueError):
        return None


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")


# --- for a person


def _html(members: Mapping[str, Any]) -> str:
    title = f"{members['method']} {members['url']}"
    content = (
        "<p>The request as an upstream would have got it. The proxy has answered it itself, and contacted nobody.\n"
        f"{_told_of_token(members['token'], members['rule'])}"
        f"<h2>Header fields</h2>\n{pages.table(members['headers'])}"
        f"<h2>Request</h2>\n{pages.table(dict(_told_of_request(members)))}"
    )
    return pages.document("jwtproxy.test", content, heading=title)


def _told_of_token(token: Mapping[str, Any] | None, rule: str | None) -> str:
    why = f" by rule {html.escape(rule)}" if rule else ""
    if not token:
        return f"<p class=note>It would leave without a token{why}.\n"
    field = html.escape(token["field"])
    return (
        f"<p class=note>Signed{why}: the token is in <code>{field}</code>. Here it is decoded, without its signature.\n"
        f"<h2>Claims</h2>\n{pages.table(token['claims'])}<h2>Token header</h2>\n{pages.table(token['header'])}"
    )


def _told_of_request(members: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "version", members["http_version"]
    length = members["body_bytes"]
    yield "body", "of unknown length" if length is None else f"{length} bytes"
    if members["rule"]:
        yield "rule", members["rule"]
