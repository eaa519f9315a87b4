"""No token gets to a terminal that mitmproxy prints flows and logs to."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy.addons import dumper, termlog
from mitmproxy.test import taddons

from jwtproxy.mitm import redacted
from jwtproxy.observe.redaction import RedactedStream

pytestmark = pytest.mark.usefixtures("pristine")

TOKEN = "eyJhbGciOiJIUzUxMiJ9.eyJpYXQiOjF9.c2lnbmF0dXJl"


def test_flows_and_logs_are_redacted_once() -> None:
    flows, logs = io.StringIO(), io.StringIO()
    with taddons.context(printer := dumper.Dumper(flows), logger := termlog.TermLog(logs)) as context:
        for _ in range(2):
            redacted.terminal(context.master.addons)
        for stream, seen in ((printer.outfp, flows), (logger.logger.file, logs)):
            assert isinstance(stream, RedactedStream)
            assert stream._stream is seen, "a second call changes nothing"
            stream.write(f"it is {TOKEN}\n")
            assert seen.getvalue() == "it is [token]\n"


@pytest.mark.parametrize("found", [{}, {"dumper": None}, {"dumper": object(), "termlog": SimpleNamespace(logger=None)}])
def test_where_nothing_is_printed_there_is_nothing_to_redact(found: dict[str, Any]) -> None:
    redacted.terminal(SimpleNamespace(get=found.get))  # type: ignore[arg-type]


def test_one_of_the_two_is_enough() -> None:
    logs = io.StringIO()
    with taddons.context(logger := termlog.TermLog(logs)) as context:
        redacted.terminal(context.master.addons)
        assert isinstance(logger.logger.file, RedactedStream)
