"""No origin server executes what a rule blocks, however method and path are spelled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support import origins
from tests.support.clients import Raw
from tests.support.harness import Process, Proxy, thorough

# The same in two ways: what is blocked, and what is allowed.
RULES = [
    r"""
rules:
  - name: deletes
    match: ~m ^DELETE$
    block: true
  - name: admin
    match: ~u ^https?://[^/]+/admin
    block: true
""",
    r"""
default: block
rules:
  - name: public
    match: ~m ^GET$ & ~u '^https?://[^/]+/x(/|[?]|$)'
""",
]

# Of DELETE, before a path that anyone may see.
METHODS = [
    *(b"DELETE", b"delete", b"Delete", b"dELETE", b"%44ELETE", b"DELETE%20", b"DELETE,", b"DELETE;", b"DELETE/x"),
    *(b"DELETE\t", b"DELETE\v", b"DELETE\f", b"DELETE\r", b"DELETE\0", b"DELETE\x1c", b"DELETE\x1f", b"DELETE\x7f"),
    *(b"DELETE\x85", b"DELETE\xa0", b"DELETE\xc2\x85", b"DELETE\xc2\xa0", b"DELETE\xe2\x80\x83", b"DELETE\xff"),
    *(b" DELETE", b"\tDELETE", b"\vDELETE", b"\0DELETE", b"\x85DELETE", b"\xa0DELETE", b"\xef\xbb\xbfDELETE"),
    *(b"\r\nDELETE", b"\nDELETE", b"\rDELETE", b"DELETE ", b"DELE\tTE", b"DELE\r\nTE", b"GET\rDELETE", b"GET DELETE"),
]

# Request lines with something else that is odd. ORIGIN is the beginning of a URL, and left out in a tunnel.
LINES = [
    b"DELETE\tORIGIN/x\tHTTP/1.1",
    b"DELETE ORIGIN/x\tHTTP/1.1",
    b"DELETE\x85ORIGIN/x HTTP/1.1",
    b"DELETE ORIGIN/x\xa0HTTP/1.1",
    b"DELETE ORIGIN/x  HTTP/1.1",
    b"DELETE ORIGIN/x",
    b"DELETE ORIGIN/x HTTP/1.0",
    b"DELETE ORIGIN/x HTTP/1.2",
    b"GET ORIGIN/x HTTP/1.1\rDELETE /x HTTP/1.1",
    b"GET ORIGIN/admin HTTP/1.1 HTTP/1.1",
    b"GET HTTP://AUTHORITY/admin HTTP/1.1",
    b"GET http:/AUTHORITY/admin HTTP/1.1",
    b"GET http:\\\\AUTHORITY/admin HTTP/1.1",
    b"GET http://u@AUTHORITY/admin HTTP/1.1",
    b"GET http://AUTHORITY?/../admin HTTP/1.1",
    b"GET http://AUTHORITY#/../admin HTTP/1.1",
    b"GET ORIGIN/http://AUTHORITY/admin HTTP/1.1",
]

# Of /admin.
PATHS = [
    *(b"/admin", b"/ADMIN", b"/admin/", b"/admin/x", b"/admin?x", b"/admin;x", b"/admin.", b"/admin%2e", b"/admin%20"),
    *(b"/admin ", b"/admin\t", b"/admin\x85", b"/admin\xc2\xa0", b"/admin\0", b"/admin%00", b"/admin%0a", b"/admin%09"),
    *(b"/%61dmin", b"/%61%64%6D%69%6e", b"/%2561dmin", b"/%252561dmin", b"/%u0061dmin", b"/adm%69n/", b"/%C1%A1dmin"),
    *(b"/./admin", b"/%2e/admin", b"/../admin", b"/x/../admin", b"/x/%2e%2E/admin", b"/x/.%2e/admin", b"/x//../admin"),
    *(b"/x/../x/../admin", b"/x/./.././admin", b"/admin/.", b"/admin/x/..", b"/x?/../admin", b"/x%3f/../admin"),
    *(b"/admin#x", b"/admin#/../x", b"/x#/../admin", b"/x/../admin#", b"/x%23/../admin", b"/admin%23x", b"/#/admin"),
    *(b"//admin", b"///admin", b"/.//admin", b"//x/../admin", b"/x/..//admin", b"/%2fadmin", b"/%2Fadmin", b"%2fadmin"),
    *(b"/x%2f..%2fadmin", b"/x/..%2fadmin", b"/x/%2e%2e%2Fadmin", b"/.%2fadmin", b"/admin%2fx", b"/admin%2f..%2fadmin"),
    *(b"/\\admin", b"\\admin", b"/x\\..\\admin", b"/x/..\\admin", b"/%5cadmin", b"/x%5c..%5cadmin", b"/x/..;/admin"),
]


@pytest.fixture(scope="module")
def proxies(tmp_path_factory: pytest.TempPathFactory, confdir: Path) -> Iterator[list[Proxy]]:
    """A proxy for each file of rules."""
    with ExitStack() as stack:
        started = []
        for text in RULES:
            folder = tmp_path_factory.mktemp("rules")
            (folder / "rules.yaml").write_text(text)
            proxy = Proxy(cwd=folder, env={"JWT_RULES": "rules.yaml"}, confdir=confdir)
            started.append(stack.enter_context(proxy))
        yield started


@pytest.mark.parametrize(
    "name",  # two that read in ways of their own
    [pytest.param(name, marks=() if name in ("werkzeug", "nginx") else thorough) for name in origins.SERVERS],
)
def test_no_spelling_gets_by_a_rule(proxies: list[Proxy], tmp_path: Path, name: str) -> None:
    """What the server's own router hands to DELETE or /admin came from the test itself, not through a proxy."""
    with origins.start(name, tmp_path) as server:
        cases = _cases(b"127.0.0.1:%d" % server.port)
        _executed(server, b"DELETE /x", "first DELETE")
        _executed(server, b"GET /admin", "second /admin")
        assert all(_arrives(proxy, server) for proxy in proxies)
        silent = [case for number, case in enumerate(cases) if not _ask(proxies[case.rules], server, number, case)]
        _executed(server, b"DELETE /x", "last DELETE")
        told = [line.split() for line in server.stdout.splitlines() if line.endswith((" DELETE", " /admin"))]
    executed = [(what, cases[int(number)]) for number, what in told if number.isdigit()]
    assert not executed, "\n".join(map(str, ["executed:", *executed]))
    assert not silent, "\n".join(map(str, ["not answered:", *silent]))


class Case(NamedTuple):
    """A request line, and how it is sent."""

    line: bytes
    tunnel: bool = False
    rules: int = 0


def _cases(authority: bytes) -> list[Case]:
    """All spellings through a proxy that blocks, with and without a tunnel; paths through one that allows, too."""
    methods = [method + b" ORIGIN/x HTTP/1.1" for method in METHODS]
    paths = [b"GET ORIGIN%b HTTP/1.1" % path for path in PATHS]
    cases = [Case(line, tunnel) for line in (*methods, *LINES, *paths) for tunnel in (False, True)]
    assert len(cases) >= 2 * 60
    cases += [Case(line, rules=1) for line in paths]
    beginning = (b"http://" + authority, b"")
    return [
        case._replace(line=case.line.replace(b"ORIGIN", beginning[case.tunnel]).replace(b"AUTHORITY", authority))
        for case in cases
    ]


def _ask(proxy: Proxy, server: Process, number: int, case: Case) -> int:
    """The status of the answer; 0 where there is none."""
    with Raw(proxy.port, timeout=2) as client:
        if case.tunnel:
            client.tunnel(f"127.0.0.1:{server.port}")
        client.send(case.line + b"\r\n" + _fields(server, str(number)))
        try:
            return client.head().status
        except (EOFError, OSError):
            return 0


def _arrives(proxy: Proxy, server: Process) -> bool:
    """Whether the server is reached by what no rule blocks (some of them have no such page)."""
    direct = Case(b"GET http://127.0.0.1:%d/x HTTP/1.1" % server.port)
    return all(
        _ask(proxy, server, 0, case) in (200, 204, 404, 405) for case in (direct, Case(b"GET /x HTTP/1.1", True))
    )


def _executed(server: Process, line: bytes, told: str) -> None:
    """Ask for something without the proxy, and wait until the server has told of it."""
    with Raw(server.port) as client:
        client.request(line + b" HTTP/1.1\r\n" + _fields(server, told.split()[0]))
    server.wait_for_output(f"(?m)^{told}$")


def _fields(server: Process, case: str) -> bytes:
    lines = (f"Host: 127.0.0.1:{server.port}", f"X-Case: {case}", "Connection: close", "", "")
    return "\r\n".join(lines).encode()
