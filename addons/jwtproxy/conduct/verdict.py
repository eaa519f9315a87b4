"""What becomes of a request. Only `policy/judge.py` makes these; who carries the request obeys."""

from typing import NamedTuple

from .fields import Fields
from .proxy_status import ErrorType

DEFAULT = "default"
"""What is said to have decided where no rule did."""
OTHERS = "other"
"""What stands for all rules for which metrics have no room."""


class Forward(NamedTuple):
    """The request leaves, with exactly these header fields."""

    fields: Fields
    rule: str = DEFAULT
    """The name of the rule that decided."""
    place: str | None = None
    """The file and line of that rule."""
    header: str | None = None
    """The name of the field that carries the token, the last of `fields`; None: the request passes without one."""


class Refuse(NamedTuple):
    """The request does not leave: its client gets this status (RFC 9110 §15), and why, if there is anything to say."""

    status: int
    text: str
    rule: str | None = None
    """The name of the rule that decided; None where none was asked."""
    place: str | None = None
    fields: Fields = ()
    """What else the answer's head says."""
    limit: str = ""
    """The option whose limit it went beyond."""
    error: ErrorType = ErrorType.HTTP_REQUEST_DENIED
    """What programs are told."""


Verdict = Forward | Refuse
