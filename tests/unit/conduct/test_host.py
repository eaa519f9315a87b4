"""Whom a request is for, and that it names the host it goes to and no other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwtproxy.conduct.destination import Destination, agrees, normalise, parse_authority
from jwtproxy.conduct.fields import Fields
from jwtproxy.conduct.host import Fault, count_hosts, is_target, is_to_proxy, with_host, within_tunnel

FAR = "far.example"
OTHERS: Fields = ((b"X-Other", b"Host"), (b"hos", b"x"), (b"host-2", b"y"))


def _destination(authority: str, scheme: str = "http") -> Destination:
    host, port = parse_authority(authority.encode())
    return normalise(scheme, host, {"http": 80, "https": 443}[scheme] if port is None else port)


def _fields(*lines: str) -> Fields:
    """Of lines as `Host: a`, in bytes as they would be sent."""
    pairs = (line.partition(": ") for line in lines)
    return tuple((name.encode(), value.encode("latin-1")) for name, _, value in pairs)


# --- to the proxy itself


@pytest.mark.parametrize(
    ("host", "enclosed", "expected"),
    [("", False, True), ("", True, False), ("localhost", False, False), ("127.0.0.1", True, False)],
)
def test_a_request_in_origin_form_is_one_to_the_proxy(host: str, enclosed: bool, expected: bool) -> None:
    """By its target alone: what Host says does not matter. In a tunnel, that form is the usual one."""
    assert is_to_proxy(host, enclosed=enclosed) is expected


# --- what may be a target


@pytest.mark.parametrize(
    ("method", "path"),
    [
        (b"GET", b"/"),
        (b"GET", b"/a?b=c"),
        (b"GET", b"//a"),
        (b"OPTIONS", b"*"),
        (b"CONNECT", b"a.example:443"),
        (b"CONNECT", b""),
        (b"BREW", "/é".encode()),
    ],
)
def test_what_rfc_9112_allows_is_a_target(method: bytes, path: bytes) -> None:
    assert is_target(method, path)


@pytest.mark.parametrize(
    "path", [b"http://127.0.0.1:9/admin", b"admin", b".evil/x", b"?x", b"/a#/../admin", b"", b"**", b"*/", b"#", b" /"]
)
def test_what_could_pass_for_part_of_a_host_is_none(path: bytes) -> None:
    assert not is_target(b"GET", path)
    assert not is_target(b"connect", path), "methods are case-sensitive (RFC 9110 §9.1)"


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"options", b"BREW"])
def test_only_options_is_about_a_whole_server(method: bytes) -> None:
    """RFC 9112 §3.2.4."""
    assert not is_target(method, b"*")


# --- Host at all


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ((), False),
        (OTHERS, False),
        ((*OTHERS, (b"Host", b"a")), True),
        (((b"hOsT", b""), *OTHERS), True),
        (((b"Host", b"a"), (b"Host", b"b")), True),
    ],
)
def test_whether_there_is_a_host_is_known(fields: Fields, expected: bool) -> None:
    """RFC 9112 §3.2: whether it is a right one is another question."""
    assert bool(count_hosts(fields)) is expected


# --- absolute form

NEAR = "127.0.0.1:8080"

REPLACED: dict[str, tuple[str, list[str], str]] = {
    # the target, as it was written; the lines for Host; the only one that leaves
    "the same": (NEAR, [f"Host: {NEAR}"], f"Host: {NEAR}"),
    "its name stays": (NEAR, [f"hOsT: {NEAR}"], f"hOsT: {NEAR}"),
    "another spelling": (NEAR, ["Host: 127.1:8080"], "Host: 127.1:8080"),
    "no port": (NEAR, ["Host: 127.0.0.1"], f"Host: {NEAR}"),
    "an alias": (NEAR, ["Host: localhost:8080"], f"Host: {NEAR}"),
    "another": (NEAR, ["Host: other.example"], f"Host: {NEAR}"),
    "another, in capitals": (NEAR, ["HOST: other.example"], f"HOST: {NEAR}"),
    "empty": (NEAR, ["Host: "], f"Host: {NEAR}"),
    "a user": (NEAR, [f"Host: me@{NEAR}"], f"Host: {NEAR}"),
    "twice": (NEAR, [f"Host: {NEAR}", f"Host: {NEAR}"], f"Host: {NEAR}"),
    "right, then wrong": (NEAR, [f"Host: {NEAR}", "host: other.example"], f"Host: {NEAR}"),
    "wrong, then right": (NEAR, ["host: other.example", f"Host: {NEAR}"], f"host: {NEAR}"),
    "a list": (NEAR, [f"Host: {NEAR},other.example"], f"Host: {NEAR}"),
    "folded": (NEAR, [f"Host: {NEAR}\r\n other.example"], f"Host: {NEAR}"),
    "none": (NEAR, [], f"Host: {NEAR}"),
    # as in the target, unless the client's own spelling means the same
    "alias in the target": ("LocalHost:1", ["Host: 127.0.0.1:1"], "Host: LocalHost:1"),
    "same name, a dot": ("LocalHost:1", ["Host: localhost.:1"], "Host: localhost.:1"),
    "short address in the target": ("127.1:1", ["Host: other.example"], "Host: 127.1:1"),
    "long address for it": ("127.1:1", ["Host: 127.0.0.1:1"], "Host: 127.0.0.1:1"),
    "number in the target": ("2130706433:01", ["Host: other.example"], "Host: 2130706433:01"),
    # default ports, IDNA, IPv6
    "name": (FAR, [f"Host: {FAR}"], f"Host: {FAR}"),
    "dot": (f"{FAR}.", [f"Host: {FAR}"], f"Host: {FAR}"),
    "port given": (FAR, [f"Host: {FAR}:80"], f"Host: {FAR}:80"),
    "port left out": (f"{FAR}:80", [f"Host: {FAR}"], f"Host: {FAR}"),
    "empty port": (FAR, [f"Host: {FAR}:"], f"Host: {FAR}:"),
    "case and dot": (FAR, ["Host: FAR.Example.:80"], "Host: FAR.Example.:80"),
    "another port": (FAR, [f"Host: {FAR}:443"], f"Host: {FAR}"),
    "case of the target": ("A.example:80", ["Host: b.example"], "Host: A.example:80"),
    "idna": ("xn--bcher-kva.example", ["Host: XN--Bcher-KVA.example"], "Host: XN--Bcher-KVA.example"),
    "another alphabet": ("xn--bcher-kva.example", ["Host: b\xfccher.example"], "Host: xn--bcher-kva.example"),
    "ipv6": ("[::1]", ["Host: [0:0::1]:80"], "Host: [0:0::1]:80"),
    "ipv4 in ipv6": ("[::FFFF:127.0.0.9]", ["Host: other.example"], "Host: [::FFFF:127.0.0.9]"),
}


@pytest.mark.parametrize(("target", "lines", "expected"), REPLACED.values(), ids=REPLACED)
def test_one_host_leaves_and_it_is_the_targets(target: str, lines: list[str], expected: str) -> None:
    """RFC 9112 §3.2.2; what says the same stays as it was written, and so does everything else, in order."""
    left = with_host((*OTHERS, *_fields(*lines), *OTHERS), _destination(target), target.encode())
    (wanted,) = _fields(expected)
    assert left == ((*OTHERS, wanted, *OTHERS) if lines else (wanted, *OTHERS, *OTHERS))


@pytest.mark.parametrize("authority", [b"", b"far.example:0", b"other.example", b"[fe80::1%25lo]", b"%61.example"])
def test_where_the_target_is_written_as_nothing_that_agrees_it_is_spelled_out(authority: bytes) -> None:
    """Port zero is the scheme's own to mitmproxy, and a zone is none of the upstream's business."""
    for destination, expected in (
        (_destination(FAR), b"far.example"),
        (_destination(f"{FAR}:8080"), b"far.example:8080"),
        (normalise("http", "fe80::1%25lo", 80), b"[fe80::1]"),
        (_destination(FAR, "https"), b"far.example"),
        (normalise("https", FAR, 80), b"far.example:80"),
    ):
        for fields in ((), ((b"Host", b"no.example"),), ((b"Host", authority),)):
            assert with_host(fields, destination, authority) == ((b"Host", expected),)


def test_where_host_may_be_missing_it_stays_so() -> None:
    """HTTP/2 has `:authority` for it (RFC 9113 §8.3.1); what is there must still be right."""
    destination = _destination(FAR)
    assert with_host(OTHERS, destination, FAR.encode(), optional=True) == OTHERS
    assert with_host(OTHERS, destination, FAR.encode()) == ((b"Host", FAR.encode()), *OTHERS)
    for hosts in ([FAR], ["no.example"], [FAR, "no.example"], ["no.example", FAR], [FAR, FAR]):
        fields = tuple((b"host", host.encode()) for host in hosts)
        left = with_host(fields, destination, FAR.encode(), optional=True)
        assert left == ((b"host", FAR.encode()),), "in lower case, as HTTP/2 wants it (RFC 9113 §8.2)"


names = st.sampled_from([b"Host", b"host", b"HOST", b"Hos", b"X-Host", b"Accept"])
hosts = st.sampled_from([b"a.example", b"A.example:80", b"a.example:81", b"b.example", b"", b"a.example,a.example"])


@given(st.lists(st.tuples(names, hosts), max_size=5).map(tuple), hosts, st.booleans())
def test_whatever_is_there_what_leaves_agrees_and_the_rest_stays(
    fields: Fields, authority: bytes, optional: bool
) -> None:
    target = _destination("a.example")
    left = with_host(fields, target, authority, optional=optional)
    found = [value for name, value in left if name.lower() == b"host"]
    assert agrees(found, target)
    assert len(found) == 1 or (optional and not found and left == fields)
    assert [field for field in left if field[0].lower() != b"host"] == [
        field for field in fields if field[0].lower() != b"host"
    ]
    assert with_host(left, target, authority, optional=optional) == left, "once more changes nothing"


# --- inside a tunnel

AGREE: dict[str, tuple[list[str], str, list[str]]] = {
    # the lines for Host; how HTTP/2 or absolute form name it; the lines that leave
    "the same": ([f"Host: {NEAR}"], "", [f"Host: {NEAR}"]),
    "another spelling": (["Host: 127.1:08080"], "", ["Host: 127.1:08080"]),
    "two that agree": ([f"hOsT: {NEAR}", "Host: 127.1:8080"], "", [f"hOsT: {NEAR}"]),
    "nothing said": ([], "", []),
    "authority alone": ([], NEAR, []),
    "authority in another spelling": ([], "127.1:8080", []),
    "both": ([f"host: {NEAR}"], "127.1:8080", [f"host: {NEAR}"]),
    "both, two hosts": ([f"host: {NEAR}", f"host: {NEAR}"], NEAR, [f"host: {NEAR}"]),
}


@pytest.mark.parametrize(("lines", "authority", "arrives"), AGREE.values(), ids=AGREE)
def test_what_agrees_with_the_tunnel_passes(lines: list[str], authority: str, arrives: list[str]) -> None:
    """As it was written; of several, one remains."""
    left = within_tunnel((*OTHERS, *_fields(*lines), *OTHERS), authority.encode(), _destination(NEAR))
    assert left == (*OTHERS, *_fields(*arrives), *OTHERS)


CONTRADICTIONS: dict[str, tuple[list[str], str]] = {
    "name": (["Host: other.example"], ""),
    "port": (["Host: 127.0.0.1:1"], ""),
    "no port": (["Host: 127.0.0.1"], ""),
    "address": (["Host: 127.0.0.2:8080"], ""),
    "alias": (["Host: localhost:8080"], ""),
    "two": ([f"Host: {NEAR}", "Host: other.example"], ""),
    "two, reversed": (["host: other.example", f"Host: {NEAR}"], ""),
    "list": ([f"Host: {NEAR},other.example"], ""),
    "folded": ([f"Host: {NEAR}\r\n other.example"], ""),
    "user": ([f"Host: me@{NEAR}"], ""),
    "path": ([f"Host: {NEAR}/"], ""),
    "empty": (["Host: "], ""),
    "bytes": (["Host: oth\xe9r"], ""),
    "authority": ([], "other.example"),
    "authority beside a right host": ([f"host: {NEAR}"], "other.example"),
    "host beside a right authority": (["host: other.example"], NEAR),
    "one of two hosts beside it": ([f"host: {NEAR}", "host: other.example"], NEAR),
    "both": (["host: other.example"], "other.example"),
    "authority without its port": ([], "127.0.0.1"),
}


@pytest.mark.parametrize(("lines", "authority"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_a_contradiction_in_a_tunnel_is_told(lines: list[str], authority: str) -> None:
    fields = (*OTHERS, *_fields(*lines))
    assert within_tunnel(fields, authority.encode(), _destination(NEAR)) is None


@pytest.mark.parametrize(
    ("scheme", "port", "right", "wrong"),
    [
        ("https", 443, ["127.0.0.9", "127.0.0.9:443", "127.0.0.9.:"], ["127.0.0.9:80"]),
        ("https", 80, ["127.0.0.9:80"], ["127.0.0.9", "127.0.0.9:443"]),
        ("http", 80, ["127.0.0.9", "127.0.0.9:80"], ["127.0.0.9:443"]),
        ("http", 443, ["127.0.0.9:443"], ["127.0.0.9"]),
    ],
)
def test_the_default_port_is_that_of_the_tunnels_scheme(
    scheme: str, port: int, right: list[str], wrong: list[str]
) -> None:
    tunnel = normalise(scheme, "127.0.0.9", port)
    for host in right:
        assert within_tunnel(_fields(f"Host: {host}"), b"", tunnel) == _fields(f"Host: {host}")
    for host in wrong:
        assert within_tunnel(_fields(f"Host: {host}"), b"", tunnel) is None


def test_a_fault_is_a_plain_string_too() -> None:
    """It is noted in a flow's metadata, which is written to files."""
    assert [Fault(fault.value) for fault in Fault] == list(Fault)
    assert {str(fault) for fault in Fault} == {"target", "host", "tunnel", "no host", "loop", "hops"}
