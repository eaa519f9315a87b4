"""How many files and sockets this process may have open."""

import resource
from contextlib import suppress


def raise_limit() -> None:
    """Raise the soft limit to the hard one: the low one is for programs that call select(), which we do not."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # where the system takes less than it promises, it stays as it is
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def limit() -> int:
    """The limit that is in force."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 30 if soft == resource.RLIM_INFINITY else soft
