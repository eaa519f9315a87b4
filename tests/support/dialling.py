"""What proxies dial, seen from a network of their own, which has every address that they might be lured to.

`play` runs this module in a namespace (see `namespace.py`): proxies, their clients, a DNS server whose answers change,
and witnesses, which listen on all addresses and take note of each connection. Nothing of it leaves the namespace.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import json
import re
import socket
import ssl
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.support import namespace
from tests.support.clients import Http2, Raw, message, pseudo
from tests.support.harness import ADDONS, SECRET, BareMitmdump, Process, Proxy

PORTS = (80, 3128)
"""Where the witnesses listen."""
PATIENCE = 10.0
"""Seconds that a client waits for anything."""

Names = Mapping[str, Sequence[Sequence[str]]]
"""The addresses of names, for each time that they are looked up; the last for all that follow."""


@dataclass(frozen=True)
class Ask:
    """What a client asks of one of the proxies, by its name, in one of the ways of `_WAYS`."""

    proxy: str
    way: str
    host: str = ""
    port: int = 80
    """0: the proxy's own."""
    time: int = 1
    """Which time it is."""


@dataclass
class Told:
    """What came of it."""

    status: int = 0
    """Of the answer; 0: the connection has ended without one; -1: nothing has come."""
    text: str = ""
    dialled: list[str] = field(default_factory=list)
    """Which addresses of the witnesses have been connected to meanwhile."""
    lines: list[str] = field(default_factory=list)
    """What they were asked."""


def play(
    folder: Path,
    confdir: Path,
    proxies: Mapping[str, Sequence[str]],
    asks: Sequence[Ask],
    *,
    addresses: Sequence[str] = (),
    names: Names | None = None,
    timeout: float = 100,
) -> list[Told]:
    """Ask proxies, by name and command line, where there are these addresses and names.

    `bare` begins the command line of a mitmdump with our scripts. None of them may print a token, or the key, or what
    only a defect would have it print.
    """
    namespace.write_files(folder, nameserver="127.0.0.1", hosts={"localhost": "127.0.0.1", "ip6-localhost": "::1"})
    plan = {
        "confdir": str(confdir),
        "proxies": {name: list(args) for name, args in proxies.items()},
        "asks": [asdict(ask) for ask in asks],
        "names": dict(names or {}),
    }
    told = namespace.run(__name__, folder, namespace.alone(folder, addresses), plan, timeout)
    return [Told(**one) for one in told]


# --- what follows runs in the namespace


class Witness:
    """Listens on all addresses, at the ports of PORTS. Whoever connects is noted, and gets an answer to each request.

    Also to a CONNECT: it passes for a proxy, and for what that leads to.
    """

    def __init__(self) -> None:
        self._noted = threading.Condition()
        self._seen: list[tuple[tuple[str, int], str, list[str]]] = []
        """For each connection: where it came from, where to, and the first lines of its requests."""
        for port in PORTS:
            listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=256)
            threading.Thread(target=self._listen, args=[listener], daemon=True).start()

    def take(self) -> list[tuple[str, list[str]]]:
        """Where connections have come to since the last time, and with which requests."""
        markers = {self._mark(port) for port in PORTS}
        with self._noted:
            assert self._noted.wait_for(lambda: markers <= {(peer, to) for peer, to, _ in self._seen}, PATIENCE)
            seen, self._seen = self._seen, []
        return [(to, lines) for peer, to, lines in seen if (peer, to) not in markers]

    def _mark(self, port: int) -> tuple[tuple[str, int], str]:
        """Connect after all others, who are noted by the time that this one is. Two may come from the same port."""
        with socket.create_connection(("::1", port), PATIENCE) as marker:
            return _pair(marker.getsockname()), f"::1 {port}"

    def _listen(self, listener: socket.socket) -> None:
        while True:
            connection, peer = listener.accept()
            lines: list[str] = []
            host, port = _pair(connection.getsockname())
            with self._noted:
                self._seen.append((_pair(peer), f"{host} {port}", lines))
                self._noted.notify_all()
            threading.Thread(target=self._answer, args=[connection, lines], daemon=True).start()

    @staticmethod
    def _answer(connection: socket.socket, lines: list[str]) -> None:
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as reader:
            while line := reader.readline():
                if not line.endswith(b" HTTP/1.1\r\n"):
                    return  # TLS, of which there is nothing here
                lines.append(line.decode("latin-1").strip())
                while reader.readline().strip():
                    pass
                body = b"" if line.startswith(b"CONNECT") else b"Content-Length: 2\r\n\r\nok"
                connection.sendall(b"HTTP/1.1 200 OK\r\n" + (body or b"\r\n"))


class Resolver:
    """A DNS server (RFC 1035) that has other addresses of a name each time."""

    def __init__(self, names: Names) -> None:
        self._names, self._asked = names, Counter[str]()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 53))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            query, client = self._socket.recvfrom(4096)
            self._socket.sendto(self._answer(query), client)

    def _answer(self, query: bytes) -> bytes:
        end = query.index(0, 12) + 5
        labels, rest = [], query[12:end]
        while rest[0]:
            labels.append(rest[1 : rest[0] + 1].decode().lower())
            rest = rest[rest[0] + 1 :]
        kind = int.from_bytes(rest[1:3])
        name = ".".join(labels)
        found = [ip for ip in map(ipaddress.ip_address, self._addresses(name, kind)) if _KINDS.get(kind) == ip.version]
        flags = 0x8180 if name in self._names else 0x8183
        records = [b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 0, len(ip.packed)) + ip.packed for ip in found]
        head = query[:2] + struct.pack(">HHHHH", flags, 1, len(records), 0, 0)
        return head + query[12:end] + b"".join(records)

    def _addresses(self, name: str, kind: int) -> Sequence[str]:
        """A look-up asks for the addresses of both kinds, in either order: those of IPv4 tell one from the next."""
        answers = self._names.get(name, [[]])
        number = self._asked[name] if _KINDS.get(kind) == 4 else max(0, self._asked[name] - 1)
        self._asked[name] += _KINDS.get(kind) == 4
        return answers[min(number, len(answers) - 1)]


_KINDS = {1: 4, 28: 6}  # A and AAAA


def _pair(address: tuple[Any, ...]) -> tuple[str, int]:
    """Address and port in one spelling, without a zone; IPv4 as such."""
    ip = ipaddress.IPv6Address(address[0].partition("%")[0])
    return str(ip.ipv4_mapped or ip), address[1]


_ZONE = re.compile("%[^]]*")  # which is nobody's business but the proxy's (RFC 6874 §1)


def _authority(host: str, port: int) -> str:
    return f"{host}:{port}"


def _get(proxy: Process, host: str, port: int) -> Told:
    """In absolute form, by HTTP/1.1."""
    authority = _authority(host, port)
    with Raw(proxy.port, timeout=PATIENCE) as client:
        return _told(client, f"GET http://{authority}/status HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())


def _upgrade(proxy: Process, host: str, port: int) -> Told:
    """The same for a WebSocket."""
    authority = _authority(host, port)
    key = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
    lines = ("Connection: Upgrade", "Upgrade: websocket", key, "Sec-WebSocket-Version: 13")
    with Raw(proxy.port, timeout=PATIENCE) as client:
        head = "\r\n".join((f"GET ws://{authority}/ HTTP/1.1", f"Host: {authority}", *lines, "", ""))
        return _told(client, head.encode())


def _path(proxy: Process, host: str, port: int) -> Told:
    """In origin form, as to a server."""
    with Raw(proxy.port, timeout=PATIENCE) as client:
        return _told(client, message("GET", "/status", f"Host: {_authority(host, port)}"))


def _connect(proxy: Process, host: str, port: int, *, secure: bool = False) -> Told:
    """By CONNECT, and in the tunnel, if there is one, a GET."""
    authority = _authority(host, port)
    with Raw(proxy.port, timeout=PATIENCE) as client:
        opened = _told(client, f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode(), "CONNECT")
        if opened.status != 200:
            return opened
        if secure:
            client.start_tls(_lax())
        return _told(client, f"GET / HTTP/1.1\r\nHost: {_ZONE.sub('', authority)}\r\n\r\n".encode())


def _two(proxy: Process, host: str, port: int, *, method: str = "GET") -> Told:
    """By HTTP/2, which the proxy speaks within TLS; all on one connection, as long as it lasts."""
    fields = [(name, "http" if name == ":scheme" else value) for name, value in pseudo(method, f"{host}:{port}", "/")]
    if method == "CONNECT":
        fields = [field for field in fields if field[0] in (":method", ":authority")]
    two = _h2_to(proxy)
    try:
        reply = two.reply(two.send(fields))
    except (ConnectionError, EOFError):
        _h2_to.cache_clear()
        return Told()
    return Told(reply.status, reply.body.decode())


@functools.cache
def _h2_to(proxy: Process) -> Http2:
    return Http2(Raw(proxy.port, timeout=PATIENCE).start_tls(_lax("h2")))


def _socks(proxy: Process, host: str, port: int) -> Told:
    """By SOCKS5 (RFC 1928), and a GET if that is granted; the status is what SOCKS says if it is not."""
    bare = host.strip("[]")
    try:
        ip = ipaddress.ip_address(bare)
        asked = bytes([1 if ip.version == 4 else 4]) + ip.packed
    except ValueError:
        asked = bytes([3, len(bare)]) + bare.encode()
    with Raw(proxy.port, timeout=PATIENCE) as client:
        client.send(b"\x05\x01\x00")
        client.exactly(2)
        client.send(b"\x05\x01\x00" + asked + struct.pack(">H", port))
        code = client.exactly(10)[1]
        return Told(code) if code else _told(client, message("GET", "/", f"Host: {_authority(host, port)}"))


def _lax(*alpn: str) -> ssl.SSLContext:
    """Who the other side is, does not matter."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def _told(client: Raw, data: bytes, method: str = "GET") -> Told:
    try:
        reply = client.request(data, method)
    except (EOFError, ConnectionError):
        return Told()
    if method == "CONNECT" and reply.status != 200:
        reply.body = client.exactly(int((reply.values("content-length") or ["0"])[0]))
    return Told(reply.status, reply.body.decode("latin-1"))


_WAYS: dict[str, Callable[[Process, str, int], Told]] = {
    "get": _get,
    "upgrade": _upgrade,
    "path": _path,
    "connect": _connect,
    "tls": functools.partial(_connect, secure=True),
    "h2": _two,
    "h2 connect": functools.partial(_two, method="CONNECT"),
    "socks": _socks,
}


def _ask(ask: Ask, proxies: Mapping[str, Process], witness: Witness) -> Told:
    if ask.way == "pause":
        time.sleep(ask.port)
        return Told()
    try:
        proxy = proxies[ask.proxy]
        told = _WAYS[ask.way](proxy, ask.host, ask.port or proxy.port)
    except TimeoutError:
        _h2_to.cache_clear()
        told = Told(-1)
    seen = witness.take()
    told.dialled = [to for to, _ in seen]
    told.lines = [line for _, lines in seen for line in lines]
    return told


def _start(folder: Path, confdir: Path, args: Sequence[str]) -> Process:
    folder.mkdir()
    if args[:1] == ["bare"]:
        scripts = [ADDONS / "jwt_inject.py", ADDONS / "status.py"]
        return BareMitmdump(*args[1:], cwd=folder, confdir=confdir, scripts=scripts)
    return Proxy(*args, cwd=folder, confdir=confdir)


def _play(folder: Path, plan: Mapping[str, Any]) -> list[Told]:
    Resolver(plan["names"])
    witness, confdir = Witness(), Path(plan["confdir"])
    with contextlib.ExitStack() as stack:
        proxies = {
            name: stack.enter_context(_start(folder / str(number), confdir, args))
            for number, (name, args) in enumerate(plan["proxies"].items())
        }
        witness.take()
        told = [_ask(Ask(**ask), proxies, witness) for ask in plan["asks"]]
    for name, proxy in proxies.items():
        for word in (SECRET, "eyJ", "Traceback", "crashed", "Addon error"):
            assert word not in proxy.output, f"{name} printed {word}\n{proxy.output}"
        assert proxy.wait() == 0, f"{name}\n{proxy.output}"
    return told


if __name__ == "__main__":
    json.dump([asdict(told) for told in _play(Path(sys.argv[1]), json.load(sys.stdin))], sys.stdout)
