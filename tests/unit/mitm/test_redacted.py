"""No token gets to a terminal that mitmproxy prints flows and logs to."""

from __future__ import annotations

import io
import logging
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


@pytest.fixture
def handler() -> Any:
    return SimpleNamespace(client=SimpleNamespace(peername=("127.0.0.1", 1)))


def test_what_passes_is_not_logged(handler: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "mitmproxy.proxy.server")
    redacted.log(handler, "Received WebSocket ping (payload: b'hunter2')")
    redacted.log(handler, "[debug] b'wanted'", logging.DEBUG)
    assert caplog.messages == ["Received WebSocket ping (payload: [bytes])", "[debug] b'wanted'"]
    assert vars(caplog.records[0])["client"] == ("127.0.0.1", 1)


@pytest.mark.parametrize("given", [True, False])
def test_nor_do_crashes_tell_of_it(handler: Any, caplog: pytest.LogCaptureFixture, *, given: bool) -> None:
    words = "hunter" + "2"
    try:
        raise AssertionError(words)
    except AssertionError as error:
        raised: Any = (type(error), error, error.__traceback__) if given else True
        redacted.log(handler, f"it has crashed: {error}", logging.ERROR, exc_info=raised)
    (message,) = caplog.messages
    assert message.startswith("it has crashed: \nTraceback (most recent call last):\n  File ")
    assert message.endswith("\nAssertionError")
    assert words not in message
