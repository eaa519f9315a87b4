"""Keep tokens, other credentials and what passes out of what people read."""

import re
from typing import Any

# A compact JWS starts with base64url of '{"'. It may be cut short, as mitmproxy does with long log records.
_JWS = re.compile(r"eyJ[\w-]{4,}(?:\.[\w-]*){0,2}")

_NAMES = r"[\w.%-]*(?:token|secret|passw|signature|credential|api[-_]?key)[\w.%-]*|key|sig|auth|pwd|pass"
_IN_QUERY = re.compile(rf"(?i)([?&;](?=[\w.%-]*+=[^&;#\s\x1b])(?:{_NAMES})=)[^&;#\s\x1b]+")
"""A parameter that is a credential by its name (RFC 6750 §2.3, signed URLs, API keys).

It looks first whether there is one at all: else it would try each part of a long name that is none with all others.
"""

_BYTES = re.compile(r"""\bb(?:'(?:[^'\\]|\\.)*+'|"(?:[^"\\]|\\.)*+")""", re.DOTALL)
"""As Python writes them."""


def redact(text: str) -> str:
    """The text with each JSON Web Token replaced, and each credential within a URL's query."""
    if "eyJ" in text:
        text = _JWS.sub("[token]", text)
    return _IN_QUERY.sub(r"\1[secret]", text) if "=" in text else text


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
