"""Make the files that mitmproxy records to readable for their owner alone: they hold what passes."""

import contextlib
import logging
import os
import shlex
import stat
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from mitmproxy import ctx, flow
from mitmproxy.addons import save, savehar

logger = logging.getLogger(__name__)

_PRIVATE = 0o600
_READABLE = stat.S_IRGRP | stat.S_IROTH

_rotate, _export = save.Save.maybe_rotate_to_new_file, savehar.SaveHar.export_har


def rotate(self: save.Save) -> None:
    """Open the file that the time of day names, if it is another; as mitmproxy, but private."""
    given = os.path.expanduser(str(ctx.options.save_stream_file).removeprefix("+"))  # noqa: PTH111  # as mitmproxy does
    path = datetime.now().strftime(given)  # noqa: DTZ005  # likewise
    if path != self.current_path:
        _keep_private(Path(path))
    _rotate(self)


def export(self: savehar.SaveHar, flows: Sequence[flow.Flow], path: Any) -> None:
    """Write flows to a file; as mitmproxy, but private."""
    _keep_private(Path(path))
    _export(self, flows, path)


def _keep_private(path: Path) -> None:
    """Make a file that only its owner can read, or have one that is there be so. Who writes it tells of an error."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, _PRIVATE))
        if path.is_file():  # neither a terminal, nor a pipe, nor /dev/null
            _narrow(path, path.stat())


def _narrow(path: Path, found: os.stat_result) -> None:
    """Take from others what they may do with a file of ours; warn of one that they can read all the same."""
    if found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) & ~_PRIVATE:
        with contextlib.suppress(OSError):
            path.chmod(_PRIVATE)
    if path.stat().st_mode & _READABLE:
        message = "jwtproxy: warning: others can read the recording %r; have its owner run: chmod 600 %s"
        logger.warning(message, str(path), shlex.quote(str(path)))
