"""Numbers that processes keep together."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from jwtproxy.conduct.verdict import OTHERS
from jwtproxy.observe.cells import Cells, fitting


def test_one_process_adds_up_what_it_has() -> None:
    cells = Cells(3)
    cells.add(0)
    cells.add(2, 5)
    assert cells.totals(range(3)) == [1, 0, 5]
    assert cells.by_row(2) == {0: 5}


def test_all_processes_are_added_up() -> None:
    cells = Cells(2, 1, processes=2)
    for process, more in ((1, 1), (2, 10), (9, 100)):
        cells.use_row(process)
        cells.begin()
        cells.add(1, more)
        cells.real[0] += more / 2
    assert cells.totals(range(2)) == [0, 111]
    assert cells.real_total(0) == 55.5
    assert cells.by_row(1) == {1: 1, 2: 10, 9: 100}


def test_a_row_that_is_used_again_goes_on_from_what_is_there() -> None:
    cells = Cells(1, names=3, processes=2)
    for process in (1, 4097):
        cells.use_row(process)
        cells.begin()
        cells.add(0)
        assert cells.place("a") == 1
    assert cells.totals(range(1)) == [2]
    assert cells.place("b") == 2


def test_cells_can_be_cleared_for_one_that_has_ended() -> None:
    cells = Cells(2, processes=2)
    for process in (1, 2):
        cells.use_row(process)
        cells.begin()
        cells.add(0)
        cells.add(1)
    cells.clear(range(1, 2), 1)
    assert cells.totals(range(2)) == [2, 1]
    cells.clear(range(1, 2))
    assert cells.totals(range(2)) == [2, 0]


def test_names_belong_together_whatever_their_numbers_are() -> None:
    cells = Cells(1, names=4, each=2, processes=2)
    for process, names in ((1, "ab"), (2, "ba")):
        cells.use_row(process)
        cells.begin()
        for name in names:
            cells.add(cells.place(name) + (name == "b"))
    assert cells.by_name() == {"a": [2, 0], "b": [0, 2]}


@pytest.mark.parametrize("name", ["é" * 40, "x" * 100, "\ud800", ""])
def test_any_name_has_a_place(name: str) -> None:
    cells = Cells(0, names=3)
    assert cells.place(name) == cells.place(name) == 0
    assert list(cells.by_name()) == [fitting(name)]
    assert len(fitting(name).encode()) <= 64


@pytest.mark.parametrize("start", ["x" * 70, "é" * 35, "a" + "é" * 35])
def test_long_names_that_begin_alike_are_told_apart(start: str) -> None:
    cells = Cells(0, names=4)
    for more, name in enumerate((f"{start}1", f"{start}2"), 1):
        cells.add(cells.place(name), more)
    assert cells.by_name() == {fitting(f"{start}1"): [1], fitting(f"{start}2"): [2]}
    assert all(name.startswith(start[:20]) and "\ufffd" not in name for name in cells.by_name())


def test_a_long_name_is_known_in_a_row_that_is_used_again() -> None:
    cells = Cells(1, names=3, processes=2)
    for process in (1, 4097):
        cells.use_row(process)
        cells.begin()
        assert cells.place("x" * 100) == 1
    assert list(cells.by_name()) == [fitting("x" * 100)]


def test_there_is_room_for_so_many_and_the_rest_share_the_last() -> None:
    cells = Cells(0, names=3)
    assert [cells.place(name) for name in "abcdea"] == [0, 1, 2, 2, 2, 0]
    assert list(cells.by_name()) == ["a", "b", OTHERS]


def test_what_a_forked_process_counts_outlives_it() -> None:
    code = """if True:
        import json, os
        from jwtproxy.observe.cells import Cells
        cells = Cells(1, 1, 2, processes=3)
        for number in (1, 2, 3):
            if not os.fork():
                cells.use_row(number)
                cells.begin()
                cells.add(cells.place(f"rule {number % 2}"))
                os._exit(0)
            os.wait()
        print(json.dumps(cells.by_name()))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"rule 1": [2], "rule 0": [1]}
