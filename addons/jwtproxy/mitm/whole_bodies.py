"""Bound what is held of bodies that something in use needs whole: of one body, and of all in this process."""

from dataclasses import dataclass

from mitmproxy.options import Options

from ..conduct.proxy_status import ErrorType
from ..observe import pages
from ..observe.pages import Page
from . import limits

_STORE = "jwtproxy_whole_bodies"


@dataclass
class _Store:
    held: int = 0
    """Bytes."""


class Held:
    """What is held of one body, or of something like it, until this is forgotten."""

    def __init__(self, options: Options) -> None:
        self._limits = limits.limits_of(options)
        self._store: _Store = vars(options).setdefault(_STORE, _Store())
        self._size = 0

    def __del__(self) -> None:
        self._store.held -= self._size

    def change(self, size: int) -> str:
        """Hold so many bytes more, or less; the limit that is exceeded, empty if none."""
        self._size += size
        self._store.held += size
        if self._size > self._limits.max_body:
            return "jwt_max_body"
        return "jwt_max_bodies" if self._store.held > self._limits.max_bodies else ""


def refusal(exceeded: str, *, of_request: bool) -> Page:
    """What the client hears where this limit is exceeded."""
    limits.reached(exceeded)
    if exceeded == "jwt_max_bodies":
        error = ErrorType.HTTP_REQUEST_DENIED if of_request else ErrorType.HTTP_RESPONSE_BODY_SIZE
        return pages.text(503, "too many large bodies at a time; try again later", error)
    if of_request:
        return pages.text(413, "the request's body is too large to be held whole", ErrorType.HTTP_REQUEST_ERROR)
    return pages.text(502, "the answer's body is too large to be held whole", ErrorType.HTTP_RESPONSE_BODY_SIZE)
