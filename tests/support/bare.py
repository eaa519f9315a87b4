"""What stock mitmdump with our script must never do, whatever is wrong."""

from __future__ import annotations

import contextlib
import re
import time

from tests.support.clients import Raw, message
from tests.support.harness import MIB, SECRET, BareMitmdump
from tests.support.upstreams import Recorder

SMALL = "Content-Length: 2"
CHUNKED = "Transfer-Encoding: chunked"
CHUNKS = (b"100000\r\n" + bytes(MIB) + b"\r\n") * 2 + b"0\r\n\r\n"


def requests_to(upstream: Recorder) -> list[bytes]:
    """A GET, a POST, one that is streamed by its length, and a chunked one."""
    host = f"Host: {upstream.authority}"
    return [
        message("GET", f"{upstream.url}/", host, "X-My-Jwt: forged"),
        message("POST", f"{upstream.url}/", host, SMALL, body=b"{}"),
        message("POST", f"{upstream.url}/", host, f"Content-Length: {2 * MIB}", body=bytes(2 * MIB)),
        message("POST", f"{upstream.url}/", host, CHUNKED, body=CHUNKS),
    ]


def send(port: int, data: bytes) -> int:
    """Send one request; the status of its answer, 0 where none comes."""
    try:
        with Raw(port) as client:
            with contextlib.suppress(OSError):
                client.send(data)
            return client.reply().status
    except (OSError, EOFError):
        return 0


def outcome(process: BareMitmdump, timeout: float = 15) -> int | None:
    """Wait until the process has ended, or listens; its exit status, None if it listens."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if not process.running:
            return process.wait()
        if found := BareMitmdump.READY.search(process.output):
            process.port = int(found[1])
            time.sleep(0.3)  # an error of the start ends it right after
            return None if process.popen.poll() is None else process.wait()
        time.sleep(0.02)
    raise AssertionError(f"neither ended nor listening\n{process.output}")


def never_unsigned(process: BareMitmdump, upstream: Recorder) -> None:
    """It ended with an error, or it refuses all there is."""
    status = outcome(process)
    if status is None:
        answers = {send(process.port, data) for data in requests_to(upstream)}
        assert answers <= {502, 0}, process.output
        if 0 in answers:  # it listened, and was about to end
            status = process.wait(5)
    assert status != 0, process.output
    assert (upstream.requests, upstream.bytes_received) == ([], 0)


def told(process: BareMitmdump, says: str) -> None:
    """One error line in our voice names the mistake, with a hint, and neither trace-back nor secret."""
    assert len(re.findall(r"jwtproxy: error: .*", process.output)) == 1, process.output
    assert re.search(rf"jwtproxy: error: .*{re.escape(says)}.*\n(.*\n)?.*jwtproxy: hint: .+", process.output), (
        process.output
    )
    assert "Traceback" not in process.output, process.output
    assert SECRET not in process.output
