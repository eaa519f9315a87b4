"""Every decision jwtproxy takes, free of mitmproxy and of network I/O."""

__version__ = "0.1.0"
