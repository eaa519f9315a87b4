"""Our header look-ups find what mitmproxy's find."""

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st
from jwtproxy.launcher import lookups
from mitmproxy.http import Headers

NAMES = st.sampled_from([b"a", b"A", b"x-y", b"X-Y", b"\xc3\xa4", b"\xc3\x84", b""])
FIELDS = st.lists(st.tuples(NAMES, st.binary(max_size=5)), max_size=5)
ASKED = NAMES | NAMES.map(lambda name: name.decode()) | st.text(max_size=3)


@given(FIELDS, ASKED)
def test_the_same_is_found(fields: list[tuple[bytes, bytes]], name: str | bytes) -> None:
    headers = Headers(fields)
    assert lookups.get_all(headers, name) == headers.get_all(name)
    assert lookups.get(headers, name, "none") == headers.get(name, "none")
    assert lookups.contains(headers, name) == (name in headers)


def test_nothing_but_a_name_is_found() -> None:
    assert not lookups.contains(Headers([(b"1", b"x")]), 1)


def _run(code: str) -> str:
    """In a process of its own, as it changes mitmproxy's classes."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout


def test_it_takes_the_place_of_mitmproxys() -> None:
    code = "from jwtproxy.launcher import lookups as l; from mitmproxy.http import Headers as H;"
    assert _run(f"{code} print(l.install(), H.get is l.get, H(A='1').get('a'))") == "True True 1\n"


def test_it_does_not_where_mitmproxys_finds_something_else() -> None:
    code = "from jwtproxy.launcher import lookups as l; from mitmproxy.http import Headers as H; old = H.get_all;"
    code += "H._reduce_values = staticmethod(lambda values: values[0]);"
    assert _run(f"{code} print(l.install(), H.get_all is old)") == "False True\n"
