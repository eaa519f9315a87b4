"""`jwtproxy-run version`: what runs here, for those who report a fault."""

import argparse

from mitmproxy.utils import debug

from jwtproxy import __version__

from .. import commandline


def run(arguments: list[str]) -> int:
    """Print the versions; the exit status. Raises SettingsError."""
    parser = argparse.ArgumentParser(
        "jwtproxy-run version", description="Print the versions of jwtproxy, mitmproxy, Python, OpenSSL and the system."
    )
    parser.error = commandline.usage_error  # type: ignore[method-assign]
    parser.parse_args(arguments)
    print(text())
    return 0


def text() -> str:
    """The versions, a line for each."""
    return f"jwtproxy {__version__}\n{debug.dump_system_info()}"
