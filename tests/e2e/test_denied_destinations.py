"""Server-side request forgery: whatever it is called, what is denied is not dialled, and what is dialled was judged.

All of it happens in a network of its own (see `tests/support/dialling.py`), which has all of these addresses: each test
that finds something denied is worth as much as the one that finds it reached where the guard is open.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import namespace
from tests.support.dialling import Ask, Names, Told, play
from tests.support.harness import rows, thorough

pytestmark = pytest.mark.skipif(bool(namespace.unable(network=True)), reason=namespace.unable(network=True))

IMDS = "169.254.169.254"

METADATA = {
    "as usual": (IMDS, IMDS),
    "decimal": ("2852039166", IMDS),
    "decimal, with a dot": ("2852039166.", ""),
    "hexadecimal": ("0xa9fea9fe", IMDS),
    "hexadecimal, in capitals": ("0XA9FEA9FE", IMDS),
    "hexadecimal, with zeros": ("0x00000000a9fea9fe", IMDS),
    "octal": ("025177524776", IMDS),
    "octal parts": ("0251.0376.0251.0376", IMDS),
    "octal parts, with zeros": ("00000251.0376.000251.0376", IMDS),
    "hexadecimal parts": ("0xa9.0xfe.0xa9.0xfe", IMDS),
    "mixed parts": ("0xa9.254.0251.0xFE", IMDS),
    "two parts": ("169.16689662", IMDS),
    "two parts, hexadecimal": ("0xa9.0xfea9fe", IMDS),
    "two parts, octal": ("0251.077524776", IMDS),
    "three parts": ("169.254.43518", IMDS),
    "three parts, mixed": ("169.0376.0xa9fe", IMDS),
    "a dot at its end": (f"{IMDS}.", ""),
    "of containers": ("169.254.170.2", "169.254.170.2"),
    "of containers, decimal": ("2852039170", "169.254.170.2"),
    "another link-local one": ("169.254.1.1", "169.254.1.1"),
    "of Alibaba": ("100.100.100.200", "100.100.100.200"),
    "of Alibaba, hexadecimal": ("0x646464c8", "100.100.100.200"),
    "of Azure": ("168.63.129.16", "168.63.129.16"),
    "of Oracle": ("192.0.0.192", "192.0.0.192"),
    "IPv6": ("[fd00:ec2::254]", "fd00:ec2::254"),
    "IPv6, in full": ("[FD00:0EC2:0000:0000:0000:0000:0000:0254]", "fd00:ec2::254"),
    "IPv6, with IPv4 at its end": ("[fd00:ec2::0.0.2.84]", "fd00:ec2::254"),
    "IPv6 of Google": ("[fd20:ce::254]", "fd20:ce::254"),
    "IPv6 of Scaleway": ("[fd00:42::42]", "fd00:42::42"),
    "IPv6 with a zone": ("[fe80::1%lo]", "fe80::1"),
    "IPv6 with a zone, escaped": ("[fe80::1%25lo]", ""),
    "IPv6 with a zone by number": ("[fe80::1%1]", "fe80::1"),
    "mapped": (f"[::ffff:{IMDS}]", IMDS),
    "mapped, hexadecimal": ("[::ffff:a9fe:a9fe]", IMDS),
    "mapped, in full": ("[0000:0000:0000:0000:0000:FFFF:A9FE:A9FE]", IMDS),
    "mapped, with a zone": (f"[::ffff:{IMDS}%lo]", ""),
    "compatible": (f"[::{IMDS}]", "::a9fe:a9fe"),
    "translated": ("[::ffff:0:a9fe:a9fe]", "::ffff:0:a9fe:a9fe"),
    "NAT64": (f"[64:ff9b::{IMDS}]", "64:ff9b::a9fe:a9fe"),
    "NAT64, hexadecimal": ("[64:FF9B::a9fe:a9fe]", "64:ff9b::a9fe:a9fe"),
    "NAT64, with a zone": ("[64:ff9b::a9fe:a9fe%lo]", ""),
    "NAT64 of one site": ("[64:ff9b:1::a9fe:a9fe]", "64:ff9b:1::a9fe:a9fe"),
    "NAT64 of one site, around an octet": ("[64:ff9b:1:a9fe:a9:fe00::]", "64:ff9b:1:a9fe:a9:fe00::"),
    "6to4": ("[2002:a9fe:a9fe::1]", "2002:a9fe:a9fe::1"),
    "ISATAP": ("[fd00::5efe:a9fe:a9fe]", "fd00::5efe:a9fe:a9fe"),
    "Teredo": ("[2001:0:4136:e378:8000:63bf:5601:5601]", "2001:0:4136:e378:8000:63bf:5601:5601"),
    "a name": ("imds.test", IMDS),
    "a name, in capitals": ("IMDS.Test.", IMDS),
    "a name, by IDNA": ("xn--bcher-kva.test", IMDS),
    "a name of IPv6": ("six.test", "fd00:ec2::254"),
    "a name of NAT64": ("nat64.test", "64:ff9b::a9fe:a9fe"),
    "a mapped name": ("mapped.test", IMDS),
    "a name of several": ("several.test", IMDS),
    "a name of clouds": ("metadata.google.internal", IMDS),
}
"""Spellings of what is always denied, and where they lead where it is not; empty: no resolver reads them."""

PRIVATE = {
    "loopback": ("127.0.0.1", "127.0.0.1"),
    "loopback, short": ("127.1", "127.0.0.1"),
    "loopback, decimal": ("2130706433", "127.0.0.1"),
    "loopback, hexadecimal": ("0x7f000001", "127.0.0.1"),
    "loopback, octal": ("017700000001", "127.0.0.1"),
    "loopback, octal part": ("0177.0.0.1", "127.0.0.1"),
    "loopback, another": ("127.255.255.254", "127.255.255.254"),
    "this machine": ("0.0.0.0", "127.0.0.1"),
    "this machine, short": ("0", "127.0.0.1"),
    "this machine, hexadecimal": ("0x0.0", "127.0.0.1"),
    "loopback, IPv6": ("[::1]", "::1"),
    "loopback, IPv6 in full": ("[0:0:0:0:0:0:0:1]", "::1"),
    "loopback, IPv6 with a zone": ("[::1%lo]", ""),
    "this machine, IPv6": ("[::]", "::1"),
    "loopback, mapped": ("[::ffff:127.0.0.1]", "127.0.0.1"),
    "loopback, mapped, hexadecimal": ("[::ffff:7f00:1]", "127.0.0.1"),
    "this machine, mapped": ("[::ffff:0.0.0.0]", "127.0.0.1"),
    "localhost": ("localhost", "127.0.0.1"),
    "localhost, in capitals": ("LOCALHOST.", "127.0.0.1"),
    "below localhost": ("api.localhost", "127.0.0.1"),
    "10/8": ("10.0.0.1", "10.0.0.1"),
    "10/8, short": ("10.1", "10.0.0.1"),
    "10/8, octal": ("012.0.0.1", "10.0.0.1"),
    "10/8, decimal": ("167772161", "10.0.0.1"),
    "10/8, mapped": ("[::ffff:10.0.0.1]", "10.0.0.1"),
    "10/8, NAT64": ("[64:ff9b::10.0.0.1]", "64:ff9b::a00:1"),
    "10/8, 6to4": ("[2002:a00:1::1]", "2002:a00:1::1"),
    "172.16/12": ("172.16.0.1", "172.16.0.1"),
    "192.168/16": ("192.168.1.1", "192.168.1.1"),
    "192.168/16, hexadecimal": ("0xc0a80101", "192.168.1.1"),
    "192.168/16, short": ("192.168.257", "192.168.1.1"),
    "carriers'": ("100.64.0.1", "100.64.0.1"),
    "for benchmarks": ("198.18.0.1", "198.18.0.1"),
    "unique local": ("[fd12::1]", "fd12::1"),
    "site-local": ("[fec0::1]", "fec0::1"),
    "a private name": ("private.test", "10.0.0.1"),
    "a name of loopback": ("loop.test", "127.0.0.1"),
    "a name of loopback, IPv6": ("loop6.test", "::1"),
}
"""The same of what is denied by jwt_deny_private."""

INVALID = {
    "two dots": f"{IMDS}..",
    "escaped dots": "169%2e254%2e169%2e254",
    "escaped digits": "%31%36%39.254.169.254",
    "in circles": "①⑥⑨.②⑤④.①⑥⑨.②⑤④",
    "in full width": "１６９.254.169.254",
    "ideographic full stops": "169。254。169。254",
    "with a user": f"public.test@{IMDS}",
    "with an escaped user": f"public.test%40{IMDS}",
    "a backslash": f"{IMDS}\\",
    "a tab": f"{IMDS}\t",
    "NUL": f"{IMDS}%00.public.test",
    "IPv4 in brackets": f"[{IMDS}]",
    "five digits": "[00064:ff9b::a9fe:a9fe]",
    "no brackets": "64:ff9b::a9fe:a9fe",
    "a zone of nothing": "[fe80::1%]",
}
"""What is no host at all: nobody resolves it."""

NAMES: Names = {
    "imds.test": [[IMDS]],
    "xn--bcher-kva.test": [[IMDS]],
    "six.test": [["fd00:ec2::254"]],
    "nat64.test": [["64:ff9b::a9fe:a9fe"]],
    "mapped.test": [["::ffff:a9fe:a9fe"]],
    "several.test": [[IMDS, "169.254.170.2"]],
    "metadata.google.internal": [[IMDS]],
    "localhost": [["127.0.0.1"]],
    "api.localhost": [["127.0.0.1"]],
    "private.test": [["10.0.0.1"]],
    "loop.test": [["127.0.0.1"]],
    "loop6.test": [["::1"]],
    "public.test": [["93.184.215.14"]],
}
PUBLIC = "93.184.215.14"
ADDRESSES = sorted(
    {to for _, to in (METADATA | PRIVATE).values() if to not in ("", "::1") and to[:4] != "127."} | {PUBLIC}
)

Play = Callable[..., dict[Ask, Told]]


@pytest.fixture(params=[pytest.param(1, marks=thorough), 4], ids="1-in-{}".format)
def step(request: pytest.FixtureRequest) -> int:
    """One in so many spellings is tried in each way: what each of them is taken for has unit tests."""
    return int(request.param)


@pytest.fixture
def dial(tmp_path: Path, confdir: Path) -> Play:
    """What becomes of these asks, by ask."""

    def run(proxies: Mapping[str, Sequence[str]], asks: Sequence[Ask], names: Names = NAMES) -> dict[Ask, Told]:
        told = play(tmp_path, confdir, proxies, asks, addresses=ADDRESSES, names=names)
        return dict(zip(asks, told, strict=True))

    return run


def hosts(table: Mapping[str, tuple[str, str]]) -> list[str]:
    """All spellings."""
    return [host for host, _ in table.values()]


def denied(told: Mapping[Ask, Told], why: str) -> None:
    """All of them were refused for this reason, and nobody saw them."""
    wrong = {
        ask: found
        for ask, found in told.items()
        if found.status != 403 or f"is denied, as it{why}" not in found.text or found.dialled
    }
    fail(wrong)


def invalid(told: Mapping[Ask, Told]) -> None:
    """All of them were wrong; over HTTP/2 that may end the connection."""
    wrong = {
        ask: found
        for ask, found in told.items()
        if found.status not in ({400, 0} if ask.way.startswith("h2") else {400}) or found.dialled
    }
    fail(wrong)


def reached(told: Mapping[Ask, Told], where: Mapping[str, str]) -> None:
    """All of them came to this address, and to no other; those without one nowhere."""
    wrong = {
        ask: found
        for ask, found in told.items()
        if (found.status, found.dialled) != ((200, [f"{to} {ask.port}"]) if (to := where[ask.host]) else (502, []))
    }
    fail(wrong)


def fail(wrong: Mapping[Ask, Told]) -> None:
    """If anything is wrong: a line for each."""
    if wrong:
        lines = [f"{ask.proxy}: {ask.way} {ask.host} {ask.port} ({ask.time}): {found}" for ask, found in wrong.items()]
        pytest.fail("\n".join(lines), pytrace=False)


def counted(status: Told) -> dict[str, int]:
    """How often limits were reached, of those that were."""
    limits = json.loads(status.text)["limits"]
    return {name: limit["reached"] for name, limit in limits.items() if limit["reached"]}


def chosen(told: Mapping[Ask, Told], among: Sequence[str] = (), way: str = "", proxy: str = "") -> dict[Ask, Told]:
    """Those of these hosts, and of this way or proxy, if one is given."""
    return {
        ask: found
        for ask, found in told.items()
        if ask.host in among and way in ("", ask.way) and proxy in ("", ask.proxy)
    }


WAYS = ("get", "upgrade", "connect", "tls", "h2", "h2 connect")
MAIN = ("get", "connect", "h2")
CARRIERS: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "lane": ([], WAYS),
    "layers": (["--set", "jwt_fast_lane=off"], WAYS[:2]),
    "lazy": (["--set", "connection_strategy=lazy"], WAYS[2:4]),
    "bare": (["bare"], WAYS),
}
"""How forward proxies are started, and the ways in which each of them is asked."""
PROGRAMS = {"jwtproxy-run": ["lane", "layers", "lazy"], "mitmdump": ["bare"]}


def settings(*options: str) -> list[str]:
    """As a command line."""
    return [part for option in options for part in ("--set", option)]


def started(carriers: Sequence[str], *args: str) -> dict[str, list[str]]:
    """The command lines of these proxies, with these arguments, too."""
    return {name: [*CARRIERS[name][0], *args] for name in carriers}


def asks_of(carriers: Sequence[str], asked: Iterable[str], step: int = 1) -> list[Ask]:
    """Ask for these hosts: for each of them in the ways that differ most, for some of them in the others.

    step: in each of those ways for one in so many, in each way for others.
    """
    hosts, asks = list(asked), list[Ask]()
    for name in carriers:
        for number, way in enumerate(CARRIERS[name][1]):
            every = step if way in MAIN else 4 * step
            asks += [Ask(name, way, host) for host in hosts[number % every :: every]]
    return asks


def test_metadata_is_not_dialled(dial: Play, step: int) -> None:
    """Each refusal counts."""
    carriers = list(CARRIERS)
    asks = asks_of(carriers, [*hosts(METADATA), *INVALID.values()], step)
    told = dial(started(carriers), [*asks, *(Ask(name, "path") for name in carriers)])
    denied(chosen(told, hosts(METADATA)), " is a link-local or metadata address")
    invalid(chosen(told, list(INVALID.values())))
    for name in carriers:
        refused = chosen(told, hosts(METADATA), proxy=name)
        assert counted(told[Ask(name, "path")])["jwt_allow_destination"] >= len(refused)


@pytest.mark.parametrize("carriers", rows(PROGRAMS, "jwtproxy-run"))
def test_private_addresses_are_not_dialled_where_that_is_wished(dial: Play, carriers: list[str], step: int) -> None:
    """Nor is what is always denied; all else is."""
    asks = asks_of(carriers, hosts(PRIVATE), step)
    asks += [Ask(carriers[0], "get", host) for host in (*hosts(METADATA)[::step], PUBLIC, "public.test")]
    told = dial(started(carriers, *settings("jwt_deny_private=on")), [*asks, *(Ask(name, "path") for name in carriers)])
    denied(chosen(told, hosts(PRIVATE)), " is a private address")
    denied(chosen(told, hosts(METADATA)), " is a link-local or metadata address")
    reached(chosen(told, [PUBLIC, "public.test"]), {PUBLIC: PUBLIC, "public.test": PUBLIC})
    for name in carriers:
        refused = chosen(told, hosts(PRIVATE), proxy=name)
        assert counted(told[Ask(name, "path")])["jwt_deny_private"] >= len(refused)


@thorough
@pytest.mark.parametrize("carriers", rows(PROGRAMS, "jwtproxy-run"))
def test_what_is_excepted_is_dialled(dial: Play, carriers: list[str]) -> None:
    """At the very address that was judged: all of them were there to be found."""
    everything = METADATA | PRIVATE
    asks = [ask for ask in asks_of(carriers, hosts(everything)) if ask.way in MAIN]
    told = dial(started(carriers, *settings("jwt_deny_private=on", "jwt_allow_destination=0.0.0.0/0, ::/0")), asks)
    reached(told, dict(everything.values()))


EXCEPTIONS = {
    "169.254.170.0/24, 10.0.0.0/8": [
        ("169.254.170.2", "169.254.170.2"),
        ("10.1", "10.0.0.1"),
        ("private.test", "10.0.0.1"),
    ],
    "127.0.0.0/8": [("localhost", "127.0.0.1"), ("127.1", "127.0.0.1"), ("api.localhost", "127.0.0.1")],
    "fe80::/10, fd00:ec2::254": [("[fe80::1%lo]", "fe80::1"), ("six.test", "fd00:ec2::254")],
    "imds.test": [("imds.test", IMDS), ("IMDS.test", IMDS)],
    "*.test": [("imds.test", IMDS), ("nat64.test", "64:ff9b::a9fe:a9fe"), ("loop6.test", "::1")],
    "bücher.test": [("xn--bcher-kva.test", IMDS)],
}
"""What is reached where it is excepted."""


@thorough
def test_exceptions_are_of_networks_names_and_ports(dial: Play) -> None:
    """Nothing else is excepted with them; and ports are allowed by a list, whoever is there."""
    others = [IMDS, "[::1]", "metadata.google.internal"]
    asks = [
        Ask(allow, way, host)
        for allow, table in EXCEPTIONS.items()
        for way in ("get", "connect")
        for host in {*others, *(host for host, _ in table)}
    ]
    proxies = {one: settings("jwt_deny_private=on", f"jwt_allow_destination={one}") for one in EXCEPTIONS}
    ports = started(PROGRAMS["jwtproxy-run"], *settings("jwt_allow_port=80, 8000-8999", "jwt_deny_private=off"))
    where = {PUBLIC: PUBLIC, "public.test": PUBLIC, "10.0.0.1": "10.0.0.1"}
    closed = [Ask(name, way, host, 3128) for name in ports for way in CARRIERS[name][1] for host in where]
    opened = [replace(ask, port=80) for ask in closed if ask.way in MAIN]
    told = dial(proxies | ports, [*asks, *closed, *opened, Ask("lane", "path")])
    for allow, table in EXCEPTIONS.items():
        found = {ask: each for ask, each in told.items() if ask.proxy == allow}
        reached(chosen(found, [host for host, _ in table]), dict(table))
        denied(chosen(found, others), " is a ")
    denied({ask: told[ask] for ask in closed}, "s port is not in jwt_allow_port")
    reached({ask: told[ask] for ask in opened}, where)
    assert counted(told[Ask("lane", "path")]) == {"jwt_allow_port": len(where) * len(WAYS)}


REBINDING: Names = {
    **{f"{way.replace(' ', '-')}.{name}.test": [[PUBLIC], [IMDS]] for way in WAYS for name in ("lane", "bare")},
    "back.test": [[IMDS], [PUBLIC]],
    "mixed.test": [[IMDS, PUBLIC]],
    "unreachable.test": [["203.0.113.1", IMDS]],
    "own.test": [["10.0.0.1"], ["127.0.0.1"]],
}


def test_a_name_that_leads_elsewhere_the_next_time_is_judged_again(dial: Play) -> None:
    """Stock mitmdump asks for each connection; jwtproxy-run knows for 5 seconds where a name leads."""
    ways = [way for way in WAYS if way not in ("tls", "h2 connect")]
    first = [Ask(name, way, f"{way.replace(' ', '-')}.{name}.test") for name in ("lane", "bare") for way in ways]
    back = Ask("bare", "get", "back.test")
    mixed = [Ask(name, way, "mixed.test") for name in ("lane", "bare") for way in ways]
    failed = [Ask(name, way, "unreachable.test") for name in ("lane", "bare") for way in ways]
    own = Ask("bare", "get", "own.test", 0)
    second = [replace(ask, time=2) for ask in (*first, back)]
    asks = [*first, back, *mixed, *failed, own, Ask("", "pause", port=6), *second]
    told = dial(started(["lane", "bare"]), asks, REBINDING)
    where = dict.fromkeys(REBINDING, PUBLIC)
    reached({ask: told[ask] for ask in (*first, *mixed, second[-1])}, where)
    denied({ask: told[ask] for ask in (*second[:-1], back, *failed)}, " is a link-local or metadata address")
    denied({own: told[own]}, " is the proxy itself")


GRANT = """
from mitmproxy import http

def http_connect(flow):
    flow.response = http.Response.make(200)
"""


def test_the_next_proxy_is_not_asked_for_what_is_denied(dial: Play, tmp_path: Path, step: int) -> None:
    """It is never denied itself. What is a name is judged as such: where it leads, the next proxy alone knows."""
    known = ("metadata.google.internal", "localhost", "api.localhost")
    unknown = [host for host in hosts(METADATA | PRIVATE) if host in NAMES and host not in known]
    others = ["0169.254.169.254", "169.254.0169.00254", "010.0.0.1", "metadata", "instance-data."]
    spelled = [host for host in (*hosts(METADATA | PRIVATE), *others) if host.lower().strip(".") not in unknown]
    carriers = PROGRAMS["jwtproxy-run"]
    asks = asks_of(carriers, [*spelled, *INVALID.values()], step)
    asks += [ask for ask in asks_of(carriers, [*unknown, PUBLIC]) if ask.way in MAIN]
    options = settings("jwt_deny_private=on", "jwt_allow_port=80")
    (tmp_path / "grant.py").write_text(GRANT)
    scripted = ["--mode", "upstream:http://10.0.0.1:3128", "-s", str(tmp_path / "grant.py")]
    asks += [Ask("scripted", way, IMDS) for way in ("connect", "tls", "h2 connect")]
    proxies = started(carriers, "--mode", "upstream:http://10.0.0.1:3128", *options)
    told = dial(proxies | {"scripted": scripted}, asks)
    denied(chosen(told, [*spelled, IMDS]), " is a ")
    invalid(chosen(told, list(INVALID.values())))
    passed = chosen(told, [*unknown, PUBLIC])
    fail({ask: each for ask, each in passed.items() if (each.status, {*each.dialled}) != (200, {"10.0.0.1 3128"})})


def test_what_a_reverse_proxy_is_for_is_dialled_and_nothing_else(dial: Play) -> None:
    """Whatever its clients call it; but not the proxy itself, by a name of which mitmproxy does not know that."""
    carriers = PROGRAMS["jwtproxy-run"]
    options = settings("jwt_deny_private=on", "jwt_allow_port=443", "keep_host_header=true")
    proxies = started(carriers, "--mode", f"reverse:http://{IMDS}:80", *options)
    asked = [IMDS, "10.0.0.1", "[::1]", "imds.test", "public.test", "metadata.google.internal"]
    asks = [Ask(name, way, host) for name in carriers for way in ("path", "get", "h2") for host in asked]
    tunnels = [Ask(name, way, host) for name in carriers for way in ("connect", "h2 connect") for host in asked]
    for port, name in enumerate(carriers, 8081):
        proxies[f"{name} itself"] = [
            *CARRIERS[name][0],
            "--port",
            str(port),
            "--mode",
            f"reverse:http://loop.test:{port}",
        ]
    itself = [Ask(f"{name} itself", way, "a.test") for name in carriers for way in ("path", "h2")]
    told = dial(proxies, [*asks, *tunnels, *itself])
    reached({ask: told[ask] for ask in asks}, dict.fromkeys(asked, IMDS))
    opened = {ask: told[ask] for ask in tunnels}
    fail({ask: each for ask, each in opened.items() if each.status == 200 or {*each.dialled} - {f"{IMDS} 80"}})
    denied({ask: told[ask] for ask in itself}, " is the proxy itself")


@thorough
def test_socks_does_not_lead_there(dial: Play) -> None:
    """Code 4 is what mitmproxy says of a host that cannot be reached; who connects later has granted it by then."""
    asked = [IMDS, "169.254.170.2", "100.100.100.200", "10.0.0.1", "127.0.0.1", "0.0.0.0", "[::1]", "[fd00:ec2::254]"]
    asked += ["[::ffff:a9fe:a9fe]", "[64:ff9b::a9fe:a9fe]", "2852039166", "0xa9.254.0251.0xFE", "imds.test"]
    asked += ["nat64.test", "localhost", "loop.test", "metadata.google.internal"]
    proxies = started(["lane", "lazy", "bare"], "--mode", "socks5", *settings("jwt_deny_private=on"))
    asks = [Ask(name, "socks", host) for name in proxies for host in (*asked, "public.test", PUBLIC)]
    told = dial(proxies, asks)
    reached(chosen(told, ["public.test", PUBLIC]), dict.fromkeys(["public.test", PUBLIC], PUBLIC))
    denied(chosen(told, asked, proxy="lazy"), " is a ")
    early = chosen(told, asked, proxy="lane") | chosen(told, asked, proxy="bare")
    fail({ask: each for ask, each in early.items() if (each.status, each.dialled) != (4, [])})


@pytest.mark.parametrize("carriers", rows(PROGRAMS, "jwtproxy-run"))
def test_the_proxy_is_not_its_own_destination(dial: Play, carriers: list[str], step: int) -> None:
    """By no spelling of any address of the machine, and no exception: what it gives is its own page, or 403."""
    where = dict((METADATA | PRIVATE).values())
    everywhere = ("--listen-host", "") if carriers == ["bare"] else ("--host", "*")
    options = settings("jwt_allow_destination=0.0.0.0/0, ::/0", "jwt_deny_private=on")
    asks = [replace(ask, port=0) for ask in asks_of(carriers, where, step)]
    told = dial(started(carriers, *everywhere, *options), [*asks, *(Ask(name, "path") for name in carriers)])
    pages = ("get", "upgrade", "h2")
    wrong = {}
    for ask in asks:
        own = (200, 404, 403) if ask.way in pages else (403,)
        if told[ask].status not in (own if where[ask.host] else (*own, 502)):
            wrong[ask] = told[ask]
    fail(wrong)
    for name in carriers:
        lost = sum(told[ask].status == 502 for ask in asks if ask.proxy == name)
        assert json.loads(told[Ask(name, "path")].text)["proxied_requests"] <= lost, "one has come back"
