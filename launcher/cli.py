"""The console script: ready for Ctrl-C before anything heavy is imported."""

import os
import signal
from types import FrameType
from typing import NoReturn


def main() -> NoReturn:
    """Run jwtproxy-run and exit with its status: 0 done or stopped, 1 failed while serving, 2 not started."""
    # Importing mitmproxy takes a second in which Ctrl-C would print a trace-back. Nothing has begun that needs an end;
    # serve() puts the event loop's handlers in place of these before anything does.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    from . import serve

    raise SystemExit(serve.main())


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    os._exit(0)
