"""Keep tokens out of what people read."""

import re
from typing import Any

# A compact JWS starts with base64url of '{"'. It may be cut short, as mitmproxy does with long log records.
_JWS = re.compile(r"eyJ[\w-]{4,}(?:\.[\w-]*){0,2}")


def redact(text: str) -> str:
    """The text with each JSON Web Token replaced."""
    return _JWS.sub("[token]", text) if "eyJ" in text else text


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
