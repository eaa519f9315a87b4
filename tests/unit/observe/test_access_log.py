"""A line of the log is one JSON object, and so short that it is written as a whole."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from jwtproxy.config.errors import SettingsError
from jwtproxy.observe.access_log import LONGEST, OPTIONS, as_json
from jwtproxy.observe.counters import Outcome
from jwtproxy.observe.exchanges import Row

HEADER, CLAIMS = (base64.urlsafe_b64encode(part).rstrip(b"=") for part in (b'{"kid":"K1"}', b'{"iat":1,"jti":"42"}'))
ROW = Row(
    *(1795807978.1209, 1795807978.1391, "192.0.2.1", b"GET", b"https", "a.example", 8443, b"/x", True, 200),
    *(int(Outcome.SUCCESS), "", "pay", HEADER + b"." + CLAIMS, 0.0169, 3, 4, True),
)


def _told(**changes: Any) -> dict[str, Any]:
    line = as_json(ROW._replace(**changes))
    assert line.isascii()
    assert len(line) < LONGEST
    told: dict[str, Any] = json.loads(line)
    return told


def test_a_line_says_what_has_become_of_a_request() -> None:
    assert _told() == {
        "time": "2026-11-27T19:32:58.120Z",
        "client": "192.0.2.1",
        "method": "GET",
        "scheme": "https",
        "host": "a.example:8443",
        "path": "/x",
        "status": 200,
        "outcome": "2xx",
        "reason": None,
        "duration_ms": 18.2,
        "upstream_ms": 16.9,
        "bytes_received": 3,
        "bytes_sent": 4,
        "rule": "pay",
        "kid": "K1",
        "jti": "42",
        "lane": "fast",
    }


def test_what_there_is_not_is_null() -> None:
    told = _told(client="", scheme=b"", path=b"", status=0, waited=None, token=b"", reason="gone")
    names = ("client", "scheme", "path", "status", "upstream_ms", "kid", "jti")
    assert [told[name] for name in names] == [None] * len(names)
    assert told["reason"] == "gone"


def test_a_websocket_says_so() -> None:
    assert "websocket" not in _told()
    assert _told(websocket=True)["websocket"] is True


def test_nothing_ends_a_line_but_its_end() -> None:
    assert _told(path="/\n\r\u2028\x85é\udc80".encode("utf-8", "surrogateescape"))["path"] == "/\n\r\u2028\x85é\udc80"


LONG = ("x" * 70_000, "\n" * 70_000, "é" * 70_000, "\U0001f600" * 70_000)


@pytest.mark.parametrize("long", LONG)
def test_what_is_too_long_is_cut(long: str) -> None:
    texts = dict.fromkeys(("client", "host", "reason", "rule"), long)
    bare = dict.fromkeys(("method", "scheme", "path"), long.encode())
    claims = base64.urlsafe_b64encode(json.dumps({"jti": long}).encode())
    token = base64.urlsafe_b64encode(json.dumps({"kid": long}).encode()) + b"." + claims
    told = _told(**texts, **bare, token=token, received=2**63, sent=2**63, began=1e10, ended=1.1e10)
    assert all(told[name].endswith("…") for name in ("path", "host", "kid", "jti"))
    assert _told(path=long.encode())["host"] == "a.example:8443"


def test_the_option() -> None:
    (option,) = OPTIONS
    assert (option.check(""), option.check("json")) == ("text", "json")
    with pytest.raises(SettingsError, match="bad value 'xml' for jwt_log_format"):
        option.check("xml")
