"""Requests that wait for a place come to it in order, with all that has come of them."""

from __future__ import annotations

from mitmproxy.proxy.layers import http
from mitmproxy.test import tflow

from jwtproxy.mitm.http2_queue import Queue


def _head(stream: int) -> http.RequestHeaders:
    return http.RequestHeaders(stream, tflow.treq(), end_stream=False)


def test_who_came_first_is_served_first() -> None:
    queue = Queue()
    assert not queue
    heads = [_head(5), _head(3)]
    for head in heads:
        queue.add(head)
    assert queue
    assert [queue.take(), queue.take()] == [[heads[0]], [heads[1]]]
    assert not queue


def test_small_pieces_become_one_and_what_follows_them_stays_behind() -> None:
    queue, head, end = Queue(), _head(1), http.RequestEndOfMessage(1)
    for event in (head, http.RequestData(1, b"a"), http.RequestData(1, b"b"), end):
        queue.add(event)
    assert queue.sizes() == {1: 2}
    assert queue.take() == [head, http.RequestData(1, b"ab"), end]
    assert queue.sizes() == {}


def test_what_is_given_up_is_forgotten_and_what_is_of_nothing_that_waits_too() -> None:
    queue = Queue()
    queue.add(_head(1))
    queue.add(http.RequestProtocolError(1, "", http.ErrorCode.CANCEL))
    queue.add(http.RequestProtocolError(1, "", http.ErrorCode.CANCEL))
    queue.add(http.RequestData(1, b"a"))
    assert not queue


def test_all_may_be_forgotten() -> None:
    queue = Queue()
    for stream in (1, 3):
        queue.add(_head(stream))
    assert queue.clear() == [1, 3]
    assert not queue
