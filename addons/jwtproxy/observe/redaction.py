"""Keep tokens, other credentials and what passes out of what people read."""

import re
from collections.abc import Container, Iterator
from typing import Any

from ..conduct.fields import Fields, normalise

# A compact JWS starts with base64url of '{"'. It may be cut short, as mitmproxy does with long log records.
_JWS = re.compile(r"eyJ[\w-]{4,}(?:\.[\w-]*){0,2}")

_NAMES = r"[\w.%-]*(?:token|secret|passw|signature|credential|api[-_]?key)[\w.%-]*|key|sig|auth|pwd|pass"
_IN_QUERY = re.compile(rf"(?i)([?&;](?=[\w.%-]*+=[^&;#\s\x1b])(?:{_NAMES})=)[^&;#\s\x1b]+")
"""A parameter that is a credential by its name (RFC 6750 §2.3, signed URLs, API keys).

It looks first whether there is one at all: else it would try each part of a long name that is none with all others.
"""

_BYTES = re.compile(r"""\bb(?:'(?:[^'\\]|\\.)*+'|"(?:[^"\\]|\\.)*+")""", re.DOTALL)
"""As Python writes them."""


_WITH_SCHEME = frozenset((b"authorization", b"proxy-authorization"))
"""Fields that begin with the name of a scheme, which is no secret (RFC 9110 §11.4)."""
_CREDENTIALS = _WITH_SCHEME | {b"cookie", b"set-cookie", b"cookie2", b"set-cookie2"}
_CREDENTIAL = re.compile(
    rb"token|secret|passw|signature|credential|session|api-?key|(?:^|-)(?:auth|keys?|pwd)(?:$|-)"
).search
"""A field that is a credential by its name."""
_USERINFO = re.compile(rb"//[^/?#\s@]*@")
_QUERY = re.compile(rb"\?[^\s\"<>]+")
"""Of a URL, absolute or not (RFC 3986 §3.4), with what of it other fields would take for its end."""
_FRAGMENT = re.compile(rb"#[^\s\"<>#=]*=[^\s\"<>]+")
"""Of a URL, where it has parameters: so tokens are handed to browsers (RFC 6749 §4.2.2)."""


def redact(text: str) -> str:
    """The text with each JSON Web Token replaced, and each credential within a URL's query."""
    if "eyJ" in text:
        text = _JWS.sub("[token]", text)
    return _IN_QUERY.sub(r"\1[secret]", text) if "=" in text else text


def fields(all_fields: Fields, token_fields: Container[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Header fields with all that may be a credential replaced. `token_fields`: normalised names of ours."""
    for name, value in all_fields:
        normal = normalise(name)
        if normal in token_fields:
            yield name, b"[token]"
        elif normal in _CREDENTIALS:
            scheme, space, _ = value.partition(b" ") if normal in _WITH_SCHEME else (b"", b"", b"")
            yield name, scheme + space + b"[secret]" if space else b"[secret]"
        elif _CREDENTIAL(normal):
            yield name, b"[secret]"
        else:
            yield name, _without_secrets(value)


def _without_secrets(value: bytes) -> bytes:
    """A value without queries and passwords of URLs in it, and without tokens."""
    if b"eyJ" in value:
        value = redact(value.decode("latin-1")).encode("latin-1")
    if b"@" in value:
        value = _USERINFO.sub(b"//", value)
    if b"?" in value:
        value = _QUERY.sub(b"?...", value)
    return _FRAGMENT.sub(b"#...", value) if b"#" in value else value


def without_bytes(text: str) -> str:
    """The text of a log record with all that has come from a peer replaced, which Python writes as b'…'."""
    return _BYTES.sub("[bytes]", text) if "b'" in text or 'b"' in text else text


class RedactedStream:
    """A text stream that redacts what is written to it and is the original in all else."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text, redacted."""
        written: int = self._stream.write(redact(text))
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
