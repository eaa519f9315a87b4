"""What is refused before anyone asks who signs."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from jwtproxy.conduct.fields import Fields
from jwtproxy.conduct.host import Fault
from jwtproxy.conduct.request import RequestHead
from jwtproxy.conduct.verdict import Forward, Refuse
from jwtproxy.policy.faults import UNSIGNED, Unsigned, refusal

NOW = 1_700_000_000.9
FIELDS: Fields = ((b"Host", b"a.example"), (b"Accept", b"*/*"), (b"X-My-JWT", b"a"))
HEAD = RequestHead(b"GET", "http", "a.example", 80, b"/", FIELDS, tunnel="https://t.example")

MISDIRECTED = (
    "this tunnel leads to https://t.example, but the request names another host; jwt_host_mismatch=allow permits it"
)


@pytest.mark.parametrize(
    ("fault", "mismatch", "status", "text"),
    [
        (Fault.TARGET, "allow", 400, "the request's target is neither a URL nor a path"),
        (Fault.HOST, "allow", 400, "the request's host or port is not valid"),
        (
            Fault.TUNNEL,
            "refuse",
            421,
            MISDIRECTED,
        ),
    ],
)
def test_each_fault_has_its_answer(fault: Fault, mismatch: str, status: int, text: str) -> None:
    assert refusal(replace(HEAD, fault=fault), mismatch) == Refuse(status, text)
    assert Unsigned(mismatch).verdict(replace(HEAD, fault=fault), NOW) == Refuse(status, text)


def test_what_is_sound_or_allowed_passes() -> None:
    assert refusal(HEAD, "refuse") is None
    assert refusal(replace(HEAD, fault=Fault.TUNNEL), "allow") is None


def test_where_nobody_signs_all_fields_pass() -> None:
    assert UNSIGNED.verdict(HEAD, NOW) == Forward(FIELDS)
    assert UNSIGNED.clean_trailers(FIELDS) == FIELDS
    assert not UNSIGNED.signs
    assert not UNSIGNED.has_rules
    assert UNSIGNED.host_mismatch == "refuse"


def test_it_needs_no_pyjwt() -> None:
    """The pages alone are served without it."""
    code = "import sys; sys.modules['jwt'] = None; import jwtproxy.policy.faults"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
