"""Interim answers, before the final one, and that for which a client may wait (RFC 9110 §10.1.1, §15.2)."""

from .malformed import MalformedError

PATIENCE = 1.0
"""Seconds for which a client that waits for leave to send its body waits for the upstream's, before it gets ours."""

LIMIT = 64
"""Interim answers that an upstream may send to one request."""


def is_interim(status: int) -> bool:
    """Whether a final response follows one with this status code; after 101 something else does."""
    return 100 <= status < 200 and status != 101


class Interims:
    """The interim answers to one request."""

    def __init__(self, version: bytes, *, expects: bool = False) -> None:
        """`version`: of HTTP, that of the request. `expects`: its client waits for leave to send its body."""
        self.waits = expects
        """Whether it still does."""
        self._version = version
        self._expected = expects
        self._count = 0

    def end(self) -> bool:
        """It need not wait any longer: leave or the final answer is sent; whether it did."""
        waited, self.waits = self.waits, False
        return waited

    def receive(self, status: int, version: bytes) -> bool:
        """Take note of one; whether the client gets it, too. Raises MalformedError where there are too many."""
        self._count += 1
        if self._count > LIMIT:
            raise MalformedError(f"the server sent more than {LIMIT} interim answers")
        if self._version == b"HTTP/1.0":
            return False  # which knows none
        if status == 100 and self._expected:
            return self.end()
        return version == self._version  # Python's http.client takes 103 for the final answer
