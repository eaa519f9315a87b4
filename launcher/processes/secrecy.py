"""Keep the key within this process: out of core dumps and its environment, away from other processes of its user."""

import contextlib
import ctypes
import resource
import sys
from collections.abc import MutableMapping

_SECRETS = ("JWT_SHARED_SECRET", "JWT_KEY_PASSPHRASE", "JWT_REDIS_URL")
_PR_SET_DUMPABLE = 4  # <linux/prctl.h>


def seal() -> None:
    """Have no core written, nor the memory read by others of this user, where the system can do that."""
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hide()


def hide() -> None:
    """The same without a limit that what we start would have, too."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def forget(environ: MutableMapping[str, str]) -> None:
    """Take keys and passwords that have been read out of the environment: scripts see it, and what they start."""
    for name in _SECRETS:
        environ.pop(name, None)
