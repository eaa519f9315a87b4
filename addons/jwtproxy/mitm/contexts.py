"""What mitmproxy's layers share: each request gets a copy, for which it makes a server that nobody ever looks at."""

from mitmproxy.connection import Client
from mitmproxy.options import Options
from mitmproxy.proxy.context import Context


def fork(self: Context) -> Context:
    """A copy whose layers may become others."""
    copy = Context.__new__(Context)
    vars(copy).update(vars(self), layers=self.layers.copy())
    return copy


def agree() -> bool:
    """Whether mitmproxy's own would be the same."""
    sample = Context(Client(peername=("", 0), sockname=("", 0)), Options())
    sample.layers.append(sample)  # type: ignore[arg-type] # anything will do
    return vars(sample.fork()) == vars(fork(sample))
