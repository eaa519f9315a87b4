"""What no RFC allows is told in words that hold nothing of it."""

from __future__ import annotations

import pytest

from jwtproxy.conduct.malformed import MalformedError


def test_who_sent_it_is_to_blame_unless_something_else_is_said() -> None:
    """RFC 9110 §15.5.1."""
    error = MalformedError("the request has no path")
    assert (str(error), error.status) == ("the request has no path", 400)


@pytest.mark.parametrize("status", [431, 501, 505])
def test_a_more_telling_status_is_kept(status: int) -> None:
    assert MalformedError("no", status).status == status


def test_it_is_a_value_error() -> None:
    """Who takes whatever is wrong with a value for that takes this, too."""
    assert issubclass(MalformedError, ValueError)
