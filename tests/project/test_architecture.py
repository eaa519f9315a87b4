"""The floor plan is kept: which room imports which, and the one place where mitmproxy is patched.

All of it is read from the source, none of which is run. The rules are functions of a path and its text, so that
planted violations show that they find what they are there for.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]

MAY_IMPORT = {
    "config": frozenset[str](),
    "conduct": frozenset[str](),
    "stores": frozenset[str](),
    "tokens": frozenset({"config"}),
    "observe": frozenset({"config", "conduct", "stores"}),
    "policy": frozenset({"config", "conduct", "tokens"}),
    "mitm": frozenset({"config", "conduct", "observe"}),
    "addons": frozenset({"config", "conduct", "tokens", "observe", "policy", "mitm"}),
    "lane": frozenset({"config", "conduct", "observe", "mitm"}),
    "launcher": frozenset({"config", "conduct", "stores", "tokens", "observe", "policy", "mitm", "lane", "addons"}),
}
"""The rooms from the ground up, and what each may import beside itself and `jwtproxy`, which holds the version."""

KNOW_MITMPROXY = {"mitm", "lane", "addons", "launcher"}
STANDARD_LIBRARY_ONLY = {"", "conduct"}  # "" is jwtproxy/__init__.py
PATCHES = "addons/jwtproxy/mitm/patches.py"
LONGEST_ADDON = 150  # lines

Rule = Callable[[str, str], Iterator[str]]


class Import(NamedTuple):
    """A module, or a name within one, that is imported."""

    line: int
    name: str
    relative: bool = False


# --- what a file is, and what it imports


def module_of(path: str) -> str:
    """The module that a file becomes when it is installed; a package is called `….__init__`."""
    parts = path.removesuffix(".py").split("/")
    if parts[:2] == ["addons", "jwtproxy"]:
        return ".".join(parts[1:])
    return ".".join(["jwtproxy", *parts])


def room_of(name: str) -> str | None:
    """The room that a module belongs to; empty for `jwtproxy` itself, None for what is not ours."""
    top, _, rest = name.partition(".")
    if top in _scripts():  # mitmproxy leaves addons/ on sys.path
        return "addons"
    if top != "jwtproxy":
        return None
    room = rest.partition(".")[0]
    return room if room in MAY_IMPORT else ""


def imports(path: str, text: str) -> Iterator[Import]:
    """All imports of a file, those in functions too, by absolute names."""
    package = module_of(path).split(".")[:-1]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (Import(node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            prefix = ".".join([*base, *filter(None, [node.module])])
            yield from (Import(node.lineno, f"{prefix}.{alias.name}", node.level > 0) for alias in node.names)
        elif isinstance(node, ast.Call) and (name := _imported_by_name(node)):
            yield Import(node.lineno, name)


def _imported_by_name(call: ast.Call) -> str:
    """The module that a call such as `import_module("…")` imports, if it says so literally."""
    called = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if called not in ("import_module", "__import__", "resolve_name") or not call.args:
        return ""
    argument = call.args[0]
    literal = isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    return argument.value.replace(":", ".") if literal else ""  # type: ignore[attr-defined]


def _scripts() -> set[str]:
    return {path.stem for path in (ROOT / "addons").glob("*.py")} - {"__init__"}


# --- the rules


def wrong_rooms(path: str, text: str) -> Iterator[str]:
    """Imports of rooms that this one must not know."""
    room = room_of(module_of(path)) or ""
    for line, name, _ in imports(path, text):
        other = room_of(name)
        if other and other != room and other not in MAY_IMPORT.get(room, ()):
            yield f"{path}:{line}: {room or 'jwtproxy'} imports {name}"


def wrong_packages(path: str, text: str) -> Iterator[str]:
    """Imports of mitmproxy, or of anything but the standard library, where there must be none."""
    room = room_of(module_of(path)) or ""
    for line, name, _ in imports(path, text):
        top = name.partition(".")[0]
        foreign = room_of(name) is None and top not in sys.stdlib_module_names
        if (top == "mitmproxy" and room not in KNOW_MITMPROXY) or (foreign and room in STANDARD_LIBRARY_ONLY):
            yield f"{path}:{line}: {room or 'jwtproxy'} imports {name}"


def wrong_among_addons(path: str, text: str) -> Iterator[str]:
    """Addons that know each other, or are written as if mitmproxy loaded them as modules."""
    if not re.fullmatch(r"addons/\w+\.py", path):
        return
    for line, name, relative in imports(path, text):
        if relative:
            yield f"{path}:{line}: a script cannot import relatively: {name}"
        elif room_of(name) == "addons":
            yield f"{path}:{line}: an addon imports another: {name}"


def too_long(path: str, text: str) -> Iterator[str]:
    """Addons that do more than hooks should."""
    if re.fullmatch(r"addons/\w+\.py", path) and (lines := len(text.splitlines())) > LONGEST_ADDON:
        yield f"{path}:{lines}: an addon of more than {LONGEST_ADDON} lines"


def named_like_room(path: str, text: str) -> Iterator[str]:
    """Modules named like the folder they are in."""
    if Path(path).stem == Path(path).parent.name:
        yield f"{path}:1: a module named like its room"


def wrong_patches(path: str, text: str) -> Iterator[str]:
    """Assignments onto mitmproxy's modules and classes outside the one place for them."""
    if path != PATCHES:
        for line in sorted(set(_patched(ast.parse(text), frozenset()))):
            yield f"{path}:{line}: mitmproxy is patched"


def wrong_verdicts(path: str, text: str) -> Iterator[str]:
    """Verdicts made outside the room that decides; to recognise one, as `isinstance` does, is everyone's."""
    if room_of(module_of(path)) != "policy":
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and _called(node) in ("Forward", "Refuse"):
                yield f"{path}:{node.lineno}: a verdict is made outside policy"


RULES: tuple[Rule, ...] = (
    wrong_rooms,
    wrong_packages,
    wrong_among_addons,
    too_long,
    named_like_room,
    wrong_patches,
    wrong_verdicts,
)


# --- what counts as a patch

_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
_REACH_INTO = ("getattr", "vars")
_ASSIGN = ("setattr", "delattr", "__setattr__", "__delattr__")
_VALUES = ("ctx.options", "ctx.master")  # names in mitmproxy's module of what belongs to one run


def _patched(scope: ast.AST, outer: frozenset[str]) -> Iterator[int]:
    """The lines of a scope and those within it that assign to mitmproxy's own; `outer`: names that stand for it."""
    nodes = list(_nodes_of(scope))
    theirs = (outer - _bound(scope, nodes)) | _imported(nodes)
    while (more := theirs | _aliases(nodes, theirs)) != theirs:
        theirs = more
    for node in nodes:
        if isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
            if _is_theirs(node.value, theirs):
                yield node.lineno
        elif isinstance(node, ast.Call) and _called(node) in _ASSIGN and node.args:
            if _is_theirs(node.args[0], theirs):
                yield node.lineno
        elif isinstance(node, _SCOPES):
            yield from _patched(node, theirs)


def _nodes_of(scope: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a scope; of a scope within it, only the node itself."""
    for node in ast.iter_child_nodes(scope):
        yield node
        if not isinstance(node, _SCOPES):
            yield from _nodes_of(node)


def _bound(scope: ast.AST, nodes: Iterable[ast.AST]) -> set[str]:
    """The names that mean something of its own in a scope: its parameters, and what it assigns."""
    arguments = {node.arg for node in ast.walk(getattr(scope, "args", ast.Pass())) if isinstance(node, ast.arg)}
    return arguments | {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def _imported(nodes: Iterable[ast.AST]) -> set[str]:
    """The names that imports from mitmproxy bind."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            mine = [alias for alias in node.names if alias.name.partition(".")[0] == "mitmproxy"]
            names |= {alias.asname or "mitmproxy" for alias in mine}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "mitmproxy":
            names |= {alias.asname or alias.name for alias in node.names} if not node.level else set()
    return names


def _aliases(nodes: Iterable[ast.AST], theirs: frozenset[str]) -> set[str]:
    """Other names that a scope gives to what is mitmproxy's."""
    names = set()
    for node in nodes:
        for target, value in _assigned(node):
            if isinstance(target, ast.Name) and _is_theirs(value, theirs):
                names.add(target.id)
    return names


def _assigned(node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    """What is assigned to what, tuples taken apart."""
    if isinstance(node, ast.Assign):
        for target in node.targets:
            pairs = isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple)
            yield from zip(target.elts, node.value.elts, strict=False) if pairs else [(target, node.value)]  # type: ignore[attr-defined]
    elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and node.value:
        yield node.target, node.value
    elif isinstance(node, ast.For | ast.comprehension) and isinstance(node.iter, ast.Tuple | ast.List):
        yield from ((node.target, item) for item in node.iter.elts)


def _is_theirs(node: ast.AST, theirs: frozenset[str]) -> bool:
    """Whether an expression is one of mitmproxy's modules, or something within one; what a call makes is not."""
    if isinstance(node, ast.Name):
        return node.id in theirs
    if isinstance(node, ast.Attribute):
        return ast.unparse(node) not in _VALUES and _is_theirs(node.value, theirs)
    if isinstance(node, ast.Subscript):
        by_name = ast.unparse(node.value) == "sys.modules" and ast.unparse(node.slice).strip("'").startswith(
            "mitmproxy"
        )
        return by_name or _is_theirs(node.value, theirs)
    if isinstance(node, ast.Call):
        by_name = _imported_by_name(node).partition(".")[0] == "mitmproxy"
        return by_name or (
            _called(node) in _REACH_INTO and any(_is_theirs(argument, theirs) for argument in node.args[:1])
        )
    return False


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


# --- the tree keeps the rules


def sources() -> list[str]:
    """The files of the project's own code, relative to its root."""
    found = [path for folder in ("addons", "launcher") for path in (ROOT / folder).rglob("*.py")]
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def violations(rule: Rule) -> list[str]:
    """What a rule finds in the tree."""
    return [found for path in sources() for found in rule(path, (ROOT / path).read_text())]


@pytest.mark.parametrize("rule", RULES)
def test_the_tree_keeps_the_rule(rule: Rule) -> None:
    assert violations(rule) == []


def test_the_one_place_that_patches_is_there() -> None:
    assert PATCHES in sources()


def test_the_table_names_the_rooms_that_exist() -> None:
    rooms = {path.parent.name for path in (ROOT / "addons/jwtproxy").glob("*/__init__.py")}
    assert set(MAY_IMPORT) == rooms | {"addons", "launcher"}


def test_imports_only_go_down() -> None:
    rooms = list(MAY_IMPORT)
    assert all(rooms.index(other) < rooms.index(room) for room in rooms for other in MAY_IMPORT[room])


def test_the_floor_plan_tells_the_truth() -> None:
    told = re.findall(r"^(\w+) {2,}.*?(?:\(([\w, ]+)\))?$", _floor_plan(), re.MULTILINE)
    rooms = [room for room, _ in told]
    assert rooms == list(MAY_IMPORT)
    for index, (room, named) in enumerate(told):
        above = frozenset(rooms[:index])
        listed = frozenset(filter(None, named.split(", ")))
        assert MAY_IMPORT[room] == (above if named in ("all above", "all") else listed), room


def test_the_floor_plan_says_who_knows_mitmproxy() -> None:
    sentence = re.search(r"Of these only (.+) know mitmproxy\.", _floor_plan())
    assert sentence
    assert set(re.split(", | and ", sentence[1])) == KNOW_MITMPROXY


def _floor_plan() -> str:
    return ast.get_docstring(ast.parse((ROOT / "addons/jwtproxy/__init__.py").read_text())) or ""


def test_no_name_in_addons_hides_another_module() -> None:
    names = {path.stem for path in (ROOT / "addons").iterdir()} - {"__init__", "__pycache__"}
    installed = {name for name, owners in packages_distributions().items() if set(owners) != {"jwtproxy"}}
    assert names & (sys.stdlib_module_names | installed) == set()


def test_every_package_is_installed() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = [path for path in sources() if path.endswith("/__init__.py")]
    assert declared == sorted(module_of(path).removesuffix(".__init__") for path in folders)


def test_every_folder_of_modules_is_a_package() -> None:
    folders = {Path(path).parent for path in sources()}
    assert [str(folder) for folder in sorted(folders) if not (ROOT / folder / "__init__.py").exists()] == []


def proof_of(path: str) -> str:
    """The file that proves a module, whatever else does."""
    parts = path.split("/")
    folder = ["tests", "unit", *parts[2:-1]] if parts[1] == "jwtproxy" else ["tests", "unit", *parts[:-1]]
    if parts[0] == "launcher":
        folder = ["tests", *parts[:-1]]
    return "/".join([*folder, f"test_{parts[-1]}"])


@pytest.mark.parametrize("path", [path for path in sources() if not Path(path).stem.startswith("__")])
def test_each_module_has_its_tests(path: str) -> None:
    assert (ROOT / proof_of(path)).is_file(), f"{proof_of(path)} is missing"


# --- the rules find what they are there for

IN_POLICY, IN_CONDUCT, IN_MITM = (
    "addons/jwtproxy/policy/new.py",
    "addons/jwtproxy/conduct/new.py",
    "addons/jwtproxy/mitm/new.py",
)
IN_ADDONS, IN_LAUNCHER, IN_TOKENS = "addons/new.py", "launcher/commands/new.py", "addons/jwtproxy/tokens/new.py"

PLANTED = [
    # a room that must not be known, in each way to import it
    (wrong_rooms, IN_TOKENS, "from ..policy.judge import Policy"),
    (wrong_rooms, IN_TOKENS, "from .. import observe"),
    (wrong_rooms, IN_TOKENS, "from ..conduct import fields"),
    (wrong_rooms, IN_TOKENS, "import jwtproxy.policy.judge"),
    (wrong_rooms, IN_TOKENS, "from jwtproxy import policy"),
    (wrong_rooms, IN_POLICY, "def late():\n    from ..mitm import gate"),
    (wrong_rooms, IN_POLICY, "if TYPE_CHECKING:\n    from jwtproxy.mitm.gate import Gate"),
    (wrong_rooms, IN_POLICY, "from ..observe.pages import Page"),
    (wrong_rooms, IN_POLICY, "importlib.import_module('jwtproxy.launcher.cli')"),
    (wrong_rooms, IN_POLICY, "pkgutil.resolve_name('jwtproxy.mitm.stream:Stream')"),
    (wrong_rooms, IN_CONDUCT, "from ..config.errors import SettingsError"),
    (wrong_rooms, IN_MITM, "from ..tokens.keyring import Keyring"),
    (wrong_rooms, IN_MITM, "import jwt_inject"),
    (wrong_rooms, IN_ADDONS, "from jwtproxy.launcher.report import report"),
    (wrong_rooms, "addons/jwtproxy/config/new.py", "from ..tokens import keys"),
    (wrong_rooms, "addons/jwtproxy/observe/__init__.py", "from ..policy import rules"),
    (wrong_rooms, "addons/jwtproxy/__init__.py", "from .config import errors"),
    # mitmproxy, or any package, where there must be none
    (wrong_packages, IN_POLICY, "from mitmproxy import http"),
    (wrong_packages, IN_TOKENS, "import mitmproxy.http as theirs"),
    (wrong_packages, IN_POLICY, "def late():\n    import mitmproxy"),
    (wrong_packages, IN_CONDUCT, "import h11"),
    (wrong_packages, IN_CONDUCT, "from werkzeug.http import parse_etags"),
    (wrong_packages, "addons/jwtproxy/__init__.py", "import mitmproxy"),
    # addons
    (wrong_among_addons, IN_ADDONS, "import status"),
    (wrong_among_addons, IN_ADDONS, "from jwtproxy.addons.status import Status"),
    (wrong_among_addons, IN_ADDONS, "from .status import Status"),
    (wrong_among_addons, IN_ADDONS, "from .jwtproxy.config import errors"),
    (too_long, IN_ADDONS, "pass\n" * (LONGEST_ADDON + 1)),
    (named_like_room, "addons/jwtproxy/policy/policy.py", ""),
    (named_like_room, "launcher/commands/commands.py", ""),
    # a verdict that the room of verdicts did not make
    (wrong_verdicts, IN_MITM, "from ..conduct.verdict import Refuse\nx = Refuse(400, 'no')"),
    (wrong_verdicts, IN_ADDONS, "from jwtproxy.conduct import verdict\nx = verdict.Forward(())"),
    # a patch, in each way to make one
    (wrong_patches, IN_MITM, "from mitmproxy.proxy.layers import http\nhttp.HttpStream = Ours"),
    (wrong_patches, IN_MITM, "import mitmproxy.http\nmitmproxy.http.Headers.get = ours"),
    (wrong_patches, IN_MITM, "from mitmproxy.http import Headers as H\nH.get: object = ours"),
    (wrong_patches, IN_MITM, "from mitmproxy import http\nsetattr(http.Headers, 'get', ours)"),
    (wrong_patches, IN_MITM, "from mitmproxy import http\ntype.__setattr__(http.Headers, 'get', ours)"),
    (wrong_patches, IN_MITM, "from mitmproxy import http\ndel http.Headers.get"),
    (wrong_patches, IN_MITM, "from mitmproxy import http\ndelattr(http.Headers, 'get')"),
    (wrong_patches, IN_MITM, "from mitmproxy.net import http1\nhttp1.LIMIT += 1"),
    (wrong_patches, IN_MITM, "from mitmproxy import http\nhttp.Headers.__dict__['get'] = ours"),
    (wrong_patches, IN_MITM, "from mitmproxy import http\nvars(http)['Headers'] = Ours"),
    (wrong_patches, IN_MITM, "from mitmproxy import http\ngetattr(http, 'Headers').get = ours"),
    (wrong_patches, IN_MITM, "from mitmproxy import http\ntheirs: Any = http\ntheirs.HttpStream = Ours"),
    (wrong_patches, IN_MITM, "from mitmproxy import http\na, b = 1, http.Headers\nc = b\nc.get, d = ours, 1"),
    (wrong_patches, IN_MITM, "from mitmproxy import http, tcp\nfor m in (http, tcp):\n    setattr(m, 'x', 1)"),
    (wrong_patches, IN_MITM, "import sys\nsys.modules['mitmproxy.http'].Headers = Ours"),
    (wrong_patches, IN_MITM, "pkgutil.resolve_name('mitmproxy.http:Headers').get = ours"),
    (wrong_patches, IN_LAUNCHER, "def f():\n    from mitmproxy import ctx\n    ctx.options = ours"),
    (wrong_patches, IN_LAUNCHER, "from mitmproxy import http\nclass A:\n    def f(self):\n        http.X = self"),
    (wrong_patches, IN_ADDONS, "from mitmproxy import http\nf = lambda: setattr(http, 'X', 1)"),
]


@pytest.mark.parametrize(("rule", "path", "text"), PLANTED)
def test_a_planted_violation_is_found(rule: Rule, path: str, text: str) -> None:
    assert len(list(rule(path, text))) == 1


INNOCENT = [
    (IN_TOKENS, "from .. import __version__"),
    (IN_TOKENS, "from ..config import options\nfrom . import keys\nfrom .algorithms import AUTO"),
    (IN_TOKENS, "import jwt\nimport policy\nfrom observe import pages"),
    (
        IN_CONDUCT,
        "import re\nfrom collections.abc import Iterator\nfrom .fields import Fields\nfrom .. import __version__",
    ),
    (IN_POLICY, "text = 'from mitmproxy import http'  # import mitmproxy"),
    (IN_POLICY, "import_module(name)\nresolve_name('json:loads')"),
    (IN_ADDONS, "from mitmproxy import http\nfrom jwtproxy.policy.judge import Policy"),
    (IN_ADDONS, "pass\n" * LONGEST_ADDON),
    (IN_MITM, "pass\n" * (LONGEST_ADDON + 1)),
    (IN_LAUNCHER, "from jwtproxy.addons.jwt_inject import JwtInject\nfrom ..processes import sockets"),
    ("launcher/addons/new.py", "from jwtproxy.addons import status\nfrom .drain import Drain"),
    (IN_MITM, "from mitmproxy import flow\ndef hook(flow):\n    flow.response = None"),
    (IN_MITM, "from mitmproxy import flow\ndef hook():\n    flow = make()\n    flow.response = None"),
    (IN_MITM, "from mitmproxy.options import Options\noptions = Options()\noptions.mode = ['regular']"),
    (IN_MITM, "from mitmproxy import ctx\nctx.options.rawtcp = False\nsetattr(ctx.options, 'rawtcp', False)"),
    (IN_MITM, "from mitmproxy.http import Headers\nclass Ours(Headers):\n    get = None\nOurs.get = ours"),
    (IN_MITM, "from .http import Headers\nHeaders.get = ours"),
    (IN_MITM, "from mitmproxy import http\ntable[http.Headers] = 1\nx = http.Headers.get == 1"),
    (PATCHES, "from mitmproxy import http\nhttp.HttpStream = Ours"),
    (IN_POLICY, "from ..conduct.verdict import Refuse\nx = Refuse(400, 'no')"),
    (IN_MITM, "from ..conduct.verdict import Refuse\nx = isinstance(verdict, Refuse)"),
]


@pytest.mark.parametrize(("path", "text"), INNOCENT)
def test_a_look_alike_is_not(path: str, text: str) -> None:
    assert [found for rule in RULES for found in rule(path, text)] == []


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("addons/jwtproxy/policy/rules.py", "tests/unit/policy/test_rules.py"),
        ("addons/status.py", "tests/unit/addons/test_status.py"),
        ("launcher/cli.py", "tests/launcher/test_cli.py"),
        ("launcher/addons/drain.py", "tests/launcher/addons/test_drain.py"),
    ],
)
def test_where_a_modules_tests_are(path: str, expected: str) -> None:
    assert proof_of(path) == expected
