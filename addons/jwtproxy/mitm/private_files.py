"""Make the files that mitmproxy records to readable for their owner alone: they hold what passes."""

import contextlib
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from mitmproxy import ctx, flow
from mitmproxy.addons import save, savehar

_rotate, _export = save.Save.maybe_rotate_to_new_file, savehar.SaveHar.export_har


def rotate(self: save.Save) -> None:
    """Open the file that the time of day names, if it is another; as mitmproxy, but private."""
    given = str(ctx.options.save_stream_file).removeprefix("+")
    path = datetime.now().strftime(given)  # noqa: DTZ005  # as mitmproxy does
    if path != self.current_path:
        _create(path)
    _rotate(self)


def export(self: savehar.SaveHar, flows: Sequence[flow.Flow], path: Any) -> None:
    """Write flows to a file; as mitmproxy, but private."""
    _create(str(path))
    _export(self, flows, path)


def _create(path: str) -> None:
    """Make a file that only its owner can read. One that is there stays as it is; who writes it tells of an error."""
    with contextlib.suppress(OSError):
        made = Path(path).expanduser()
        made.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(made, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
