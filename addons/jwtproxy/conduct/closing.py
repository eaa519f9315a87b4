"""What it means that a client says no more (RFC 9112 §9.6)."""

from .fields import Fields

_EVENTS = b"text/event-stream"


def still_listens(*, last: bool, answer: Fields | None) -> bool:
    """Whether a client whose side of the connection has ended still waits for its answer.

    It does if its request said that it is the `last`. All others are taken for gone, as nothing else tells of that; so
    is who gets a stream of events, which has no end of its own. `answer`: its fields; None: it has not begun.
    """
    return last and not any(map(_tells_of_events, answer or ()))


def _tells_of_events(field: tuple[bytes, bytes]) -> bool:
    name, value = field
    return name.lower() == b"content-type" and value.partition(b";")[0].strip().lower() == _EVENTS
