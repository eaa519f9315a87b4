"""A layer's context, copied without a server that nobody looks at."""

from typing import Any

import pytest
from mitmproxy.connection import Client
from mitmproxy.options import Options
from mitmproxy.proxy.context import Context

from jwtproxy.mitm import contexts


@pytest.fixture
def context() -> Context:
    return Context(Client(peername=("127.0.0.1", 1), sockname=("127.0.0.1", 2)), Options())


def test_a_copy_shares_all_but_the_list_of_layers(context: Context) -> None:
    layer: Any = object()
    context.layers.append(layer)
    copy = contexts.fork(context)
    assert vars(copy) == vars(context.fork())
    assert (copy.client, copy.server, copy.options) == (context.client, context.server, context.options)
    copy.layers.append(layer)
    assert context.layers == [layer]


def test_another_server_for_a_copy_is_not_that_of_the_first(context: Context) -> None:
    copy, server = contexts.fork(context), context.server
    copy.server = context.fork().server.copy()
    assert context.server is server


def test_ours_may_take_the_place_of_mitmproxys() -> None:
    assert contexts.agree()


def test_ours_may_not_where_mitmproxys_does_more(monkeypatch: pytest.MonkeyPatch) -> None:
    def fork(self: Context) -> Context:
        copy = contexts.fork(self)
        copy.more = True  # type: ignore[attr-defined]
        return copy

    monkeypatch.setattr(Context, "fork", fork)
    assert not contexts.agree()
