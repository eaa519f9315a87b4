"""What processes put where the others may read it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import deque
from http import HTTPStatus

import pytest

from jwtproxy.observe import board
from jwtproxy.observe.board import Board
from jwtproxy.observe.exchanges import Row
from jwtproxy.observe.recent import shortened


def test_each_reads_what_the_others_have_put_there() -> None:
    shared = Board(100)
    for process in (1, 2, 3):
        shared.use_place(process)
        shared.put([(process, b"x", None)])
    assert shared.others() == [(1, b"x", None), (2, b"x", None)]
    shared.use_place(1)
    shared.put([])
    assert shared.others() == [(2, b"x", None), (3, b"x", None)]


LONG = "\U0001f600" * 10_000
LARGEST = Row(
    began=1e9,
    ended=1e9,
    client="ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255%enp0s31f6",
    method=LONG.encode(),
    scheme=LONG.encode(),
    host=LONG,
    port=65535,
    path=LONG.encode(),
    has_query=True,
    status=999,
    outcome=9,
    reason=LONG,
    rule=LONG,
    token=b"x" * 4096,
    waited=1e9,
    received=2**63,
    sent=2**63,
    fast=False,
    websocket=True,
)


@pytest.mark.parametrize("count", [1, 2, 100, 1000])
def test_there_is_room_for_all_that_is_kept(count: int) -> None:
    """However long it is: the last of all workers are the last only if none had to leave one out."""
    shared = Board(count)
    shared.use_place(1)
    shared.put([shortened(LARGEST._replace(received=number)) for number in range(count)])
    shared.use_place(2)
    assert [row[15] for row in shared.others()] == list(range(count))


def test_where_there_is_no_room_the_first_are_left_out() -> None:
    shared = Board(1)
    shared.use_place(1)
    shared.put(deque((number, bytes([number]) * 1000) for number in range(100)))  # as those are kept that are put there
    shared.use_place(2)
    numbers = [row[0] for row in shared.others()]
    assert 5 < len(numbers) < 17
    assert numbers[-1] == 99
    shared.put([(1, b"x" * 10**6)])
    shared.use_place(1)
    assert shared.others() == []


def test_what_cannot_be_written_is_left_out() -> None:
    shared = Board(10)
    shared.use_place(1)
    shared.put([(1,), (HTTPStatus.OK,), (2,)])
    shared.use_place(2)
    assert shared.others() == [(1,), (2,)]


def test_what_is_being_written_is_not_read() -> None:
    shared = Board(1)
    shared.use_place(1)
    shared.put([(1,)])
    shared._memory[shared._room + 20] ^= 1
    shared.use_place(2)
    assert shared.others() == []


def test_what_a_forked_process_has_put_there_outlives_it() -> None:
    code = """if True:
        import json, os
        from jwtproxy.observe.board import Board
        shared = Board(10)
        for number in (1, 2, 65):
            if not os.fork():
                shared.use_place(number)
                shared.put([(number,)])
                os._exit(0)
            os.wait()
        print(json.dumps(shared.others()))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[65], [2]]
    assert board._SLOTS == 64
