"""Our proxy without metrics, but for the clock that is read twice: what they cost is measured beside it.

With BENCH_COUNTED it has them: it is compared with what is started in the same way.
"""

import contextlib
import os
from unittest.mock import patch

from jwtproxy.addons import status
from jwtproxy.launcher.cli import main
from jwtproxy.mitm import ledger
from jwtproxy.observe.counters import Counters


class Nobody:
    """In the place of who has requests counted."""

    def __init__(self, counters: Counters) -> None:
        """Nothing to do."""

    def tell(self, keep: object, *, wanted: bool) -> None:
        """Nobody is told."""


if __name__ == "__main__":
    with contextlib.ExitStack() as stack:
        if not os.environ.get("BENCH_COUNTED"):
            stack.enter_context(patch.object(status, "Ledger", Nobody))
            stack.enter_context(patch.object(ledger, "hang", lambda *_: None))
            stack.enter_context(patch.object(Counters, "time_signing", lambda *_: None))
        main()
