"""Plant small faults in the rooms that decide and sign, and count those that the modules' own tests catch.

    python -m tests.project.mutants [--seed N] [--count 60] [--only REGEX]

Each fault stands alone in a private copy of the project; the work tree is never touched. A survivor is a test that is
missing, or a change that makes no difference: somebody has to look.

Not one of the known tools, as none draws a sample from a printed seed: mutmut names functions by their path, which is
not how this package is installed, cosmic-ray plants its faults in the work tree, mutatest wants a coverage from 2021.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
ROOMS = ("policy", "tokens", "conduct")
LIMIT = 180
"""Seconds for one run of tests; longer counts as caught."""

_AT_ONCE = 2
_SEEN = (1, 2, 4)  # pytest's exit status where a test failed, a test file or conftest.py could not be imported
_LEFT_OUT = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "node_modules")
_NO_BEHAVIOUR = {"annotation", "returns", "type_params", "decorator_list"}
_SWAPPED: dict[type[ast.AST], type[ast.AST]] = {
    ast.And: ast.Or,
    ast.Add: ast.Sub,
    ast.Mult: ast.FloorDiv,
    ast.BitAnd: ast.BitOr,
    ast.Eq: ast.NotEq,
    ast.Is: ast.IsNot,
    ast.In: ast.NotIn,
}
_SWAPPED |= {there: back for back, there in _SWAPPED.items()}
_SWAPPED |= {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}


class Module(NamedTuple):
    """A source file and its own tests, as paths from the project's root."""

    room: str
    source: str
    tests: tuple[str, ...]


class Mutant(NamedTuple):
    """One module with one fault."""

    module: Module
    line: int
    old: str
    new: str
    code: bytes
    """The whole file."""

    def __str__(self) -> str:
        """Where and what, on one line."""
        differs = next(
            (index for index, (old, new) in enumerate(zip(self.old, self.new, strict=False)) if old != new), 0
        )
        same = max(0, differs - 20)  # some of it stays, to find the place by
        old, new = (_shortened(text[same:]) for text in (self.old, self.new))
        return f"{self.module.source}:{self.line}: {'…' if same else ''}{old} -> {new}"


def modules() -> list[Module]:
    """The modules of the rooms, each with its test file."""
    sources = [path for room in ROOMS for path in sorted((ROOT / "addons/jwtproxy" / room).glob("[!_]*.py"))]
    return [
        Module(path.parent.name, str(path.relative_to(ROOT)), (f"tests/unit/{path.parent.name}/test_{path.name}",))
        for path in sources
    ]


def mutants(module: Module) -> Iterator[Mutant]:
    """All faults that can be planted in a module."""
    code = (ROOT / module.source).read_bytes()
    starts = [0]
    for line in code.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for node in _nodes(ast.parse(code)):
        for place, new in _changes(node):
            begin = starts[place.lineno - 1] + place.col_offset  # ast counts in bytes, too
            end = starts[place.end_lineno - 1] + place.end_col_offset
            whole = f"({new})" if isinstance(place, ast.expr) else new
            yield Mutant(module, place.lineno, ast.unparse(place), new, code[:begin] + whole.encode() + code[end:])


def _nodes(parent: ast.AST) -> Iterator[ast.AST]:
    """All below this node that is behaviour: no docstring, no wording of a message, no annotation, no decorator."""
    for name, value in ast.iter_fields(parent):
        for node in value if isinstance(value, list) else [value]:
            literal = isinstance(parent, ast.JoinedStr) and isinstance(node, ast.Constant)
            if isinstance(node, ast.AST) and name not in _NO_BEHAVIOUR and not literal and not _is_text(node):
                yield node
                yield from _nodes(node)


def _is_text(node: ast.AST) -> bool:
    match node:
        case ast.Expr(value=ast.Constant()):
            return True
        case ast.Constant(value=str(text)):
            return " " in text
        case ast.JoinedStr(values=parts):
            return any(map(_is_text, parts))
    return False


def _changes(node: ast.AST) -> Iterator[tuple[Any, str]]:
    """What to replace, and by what."""
    if isinstance(node, ast.expr):
        yield from ((node, new) for new in _other_values(node))
    yield from _parts(node)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        yield from ((statement, "pass") for statement in _effects(node.body, _bound_once(node)))


def _other_values(node: ast.expr) -> Iterator[str]:
    match node:
        case ast.Constant(value=value):
            yield from map(repr, _other_constants(value))
        case ast.Compare(ops=ops):
            for index, op in enumerate(ops):
                yield _with(node, ops=[*ops[:index], _SWAPPED[type(op)](), *ops[index + 1 :]])
        case ast.BoolOp(op=op) | ast.BinOp(op=op) if type(op) in _SWAPPED:
            yield _with(node, op=_SWAPPED[type(op)]())
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield ast.unparse(operand)
        case ast.Call(keywords=keywords):
            for keyword in keywords:
                yield _with(node, keywords=[other for other in keywords if other is not keyword])


def _parts(node: ast.AST) -> Iterator[tuple[ast.expr, str]]:
    """What stands in a node that would not be a fault elsewhere."""
    match node:
        case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test):
            yield test, "False"
        case ast.comprehension(ifs=tests):
            yield from ((test, "True") for test in tests)
        case ast.Slice(lower=lower, upper=upper):
            yield from ((bound, f"{ast.unparse(bound)} + 1") for bound in (lower, upper) if bound)
        case ast.Return(value=ast.expr() as value) if ast.unparse(value) != "None":
            yield value, "None"


def _other_constants(value: object) -> list[object]:
    """The constants to put in place of this one."""
    match value:
        case bool():
            return [not value]
        case int():
            return [value + 1, value - 1]
        case str() | bytes():
            return [type(value)()] if value else ["mutant" if isinstance(value, str) else b"mutant"]
    return []


def _bound_once(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Set[str]:
    bound = [name.id for name in ast.walk(function) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)]
    bound += [argument.arg for argument in ast.walk(function.args) if isinstance(argument, ast.arg)]
    return {name for name in bound if bound.count(name) == 1}


def _effects(body: Sequence[ast.AST], once: Set[str]) -> Iterator[ast.AST]:
    """The statements of a function that can go. A name's only value stays: its absence is just a NameError."""
    for statement in body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)]) if name in once:
                pass
            case ast.Assign() | ast.AugAssign() | ast.Raise() | ast.Delete() | ast.Continue() | ast.Expr():
                if not _is_text(statement):
                    yield statement
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                pass  # _nodes comes to it by itself
            case _:
                for part in ("body", "orelse", "handlers", "finalbody", "cases"):
                    yield from _effects(getattr(statement, part, []), once)


def _with(node: ast.expr, **changes: Any) -> str:
    """The source of an expression with other parts."""
    return ast.unparse(type(node)(**dict(ast.iter_fields(node)) | changes))


def _shortened(text: str, most: int = 60) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[:most]}…"


def sample(found: Sequence[Module], count: int, seed: int) -> list[Mutant]:
    """As many mutants of each room, drawn at random."""
    drawn, rooms = random.Random(seed), sorted({module.room for module in found})
    chosen = []
    for index, room in enumerate(rooms):
        all_of_it = [mutant for module in found if module.room == room for mutant in mutants(module)]
        share = count * (index + 1) // len(rooms) - count * index // len(rooms)
        chosen += drawn.sample(all_of_it, min(share, len(all_of_it)))
    return chosen


def run(module: Module, seed: int, code: bytes | None = None) -> int | None:
    """The exit status of pytest on the module's tests, in a copy whose module has this code; None: out of time."""
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(ROOT, Path(folder, "copy"), ignore=_LEFT_OUT)
        if code is not None:
            (copy / module.source).write_bytes(code)
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", f"--hypothesis-seed={seed}"]
        environment = os.environ | {"PYTHONPATH": str(copy / "addons")}  # comes before what is installed
        try:
            return subprocess.run(
                [*command, *module.tests], cwd=copy, env=environment, capture_output=True, timeout=LIMIT
            ).returncode
        except subprocess.TimeoutExpired:
            return None


def caught(mutant: Mutant, seed: int) -> bool:
    """Whether the module's tests see the fault."""
    status = run(mutant.module, seed, mutant.code)
    if status not in (None, 0, *_SEEN):
        raise RuntimeError(f"pytest ended with status {status} for {mutant}")
    return status != 0


def main(arguments: Sequence[str] | None = None, find: Callable[[], list[Module]] = modules) -> int:
    """Print the survivors, then the sum; 1 where the tests fail without any fault."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.project.mutants", description="Count the faults tests catch."
    )
    parser.add_argument("--seed", type=int, default=random.randrange(10_000), help="draw the same mutants again")
    parser.add_argument("--count", type=int, default=60, help="how many, over all rooms (60)")
    parser.add_argument("--only", type=re.compile, default="", help="only modules whose path this is found in")
    options = parser.parse_args(arguments)
    chosen = sample(
        [module for module in find() if re.search(options.only, module.source)], options.count, options.seed
    )
    if not chosen:
        parser.error("there is no such module")
    needed = list(dict.fromkeys(mutant.module for mutant in chosen))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for module, status in zip(needed, pool.map(partial(run, seed=options.seed), needed), strict=True):
            if status != 0:
                print(f"{' '.join(module.tests)}: fails without any fault", file=sys.stderr)
                return 1
        killed = 0
        for mutant, dead in zip(chosen, pool.map(partial(caught, seed=options.seed), chosen), strict=True):
            killed += dead
            if not dead:
                print(mutant, flush=True)
    share = 100 * killed / len(chosen)
    print(
        f"seed {options.seed}: {len(chosen)} mutants, {killed} caught ({share:.1f} %), {len(chosen) - killed} survived"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
