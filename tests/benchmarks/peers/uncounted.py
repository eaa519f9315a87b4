"""Our proxy without metrics, but for the clock that is read twice: what they cost is measured beside it."""

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
    with (
        patch.object(status, "Ledger", Nobody),
        patch.object(ledger, "hang", lambda *_: None),
        patch.object(Counters, "time_signing", lambda *_: None),
    ):
        main()
