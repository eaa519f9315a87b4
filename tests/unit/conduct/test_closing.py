"""A client that has said all is gone, unless it said before that it would."""

import pytest

from jwtproxy.conduct.closing import still_listens
from jwtproxy.conduct.fields import Fields

LENGTH = (b"Content-Length", b"2")


@pytest.mark.parametrize(
    ("last", "answer", "listens"),
    [
        (True, None, True),
        (True, (), True),
        (True, (LENGTH, (b"Content-Type", b"text/plain")), True),
        (True, (LENGTH, (b"content-type", b"text/event-stream")), False),
        (True, ((b"Content-Type", b"Text/Event-Stream; charset=utf-8"),), False),
        (True, ((b"X-Content-Type", b"text/event-stream"),), True),
        (True, ((b"Content-Type", b"text/event-streams"),), True),
        (False, None, False),
        (False, (LENGTH,), False),
    ],
)
def test_who_still_listens(last: bool, answer: Fields | None, listens: bool) -> None:
    assert still_listens(last=last, answer=answer) is listens
