"""Sockets are bound before anything else starts, and named as those who serve will ask for them."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from mitmproxy.certs import CertStore
from mitmproxy.options import Options
from mitmproxy.proxy.mode_specs import ProxyMode

from jwtproxy.config.errors import SettingsError
from jwtproxy.launcher import plan


@pytest.fixture
def port() -> int:
    """One that is free."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _listening(**options: Any) -> tuple[Options, plan.Sockets]:
    """The options after all that they say is bound, and what is."""
    given = Options(listen_host="127.0.0.1")
    given.update(**options)
    bound = plan._listen(given)
    for sockets in bound.values():
        for sock in sockets:
            assert sock.getsockname()[1] > 0
            sock.close()
    return given, bound


@pytest.mark.parametrize(
    ("mode", "host"),
    [
        ("regular@0", "127.0.0.1"),
        ("regular@127.0.0.1:0", "127.0.0.1"),
        ("reverse:http://up.example:80@0", "127.0.0.1"),
        ("upstream:http://up.example:80@127.0.0.1:0", "127.0.0.1"),
    ],
)
def test_a_mode_with_any_port_binds_one_and_names_it(mode: str, host: str) -> None:
    """Whoever was told 0 later would take another, each worker its own."""
    options, bound = _listening(mode=[mode])
    (((at, port), sockets),) = bound.items()
    assert len(sockets) == 1
    assert at == host
    assert port > 0
    assert options.mode == [f"{mode[:-1]}{port}"]
    spec = ProxyMode.parse(options.mode[0])
    assert (spec.listen_host(options.listen_host), spec.listen_port(options.listen_port)) == (at, port)
    assert options.listen_port is None


def test_each_of_several_modes_names_its_own_port(port: int) -> None:
    modes = ["regular@0", f"socks5@{port}", "reverse:http://up.example@127.0.0.1:0", "reverse:udp://up.example:9@0"]
    options, bound = _listening(mode=modes)
    (_, first), fixed, (_, last) = bound
    assert fixed == ("127.0.0.1", port)
    assert len({first, port, last}) == 3
    assert options.mode == [
        f"regular@{first}",
        f"socks5@{port}",
        f"reverse:http://up.example@127.0.0.1:{last}",
        "reverse:udp://up.example:9@0",  # on UDP alone: not ours to bind
    ]


def test_any_port_for_all_is_named_by_the_option() -> None:
    options, bound = _listening(listen_port=0, mode=["regular"])
    assert list(bound) == [("127.0.0.1", options.listen_port)]
    assert options.listen_port > 0
    assert options.mode == ["regular"]


def test_without_a_server_nothing_is_bound() -> None:
    options, bound = _listening(server=False, mode=["regular@0"])
    assert bound == {}
    assert options.mode == ["regular@0"]


def test_who_starts_at_the_same_time_has_the_same_ca(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what one has read of it is not what it serves with, once another has written its own."""
    create, made = CertStore.create_store, []

    def slow(folder: Path, *how: Any) -> None:
        made.append(folder)
        time.sleep(0.2)
        create(folder, *how)

    monkeypatch.setattr(CertStore, "create_store", slow)
    options = [Options(confdir=str(tmp_path / "new")) for _ in range(2)]
    with ThreadPoolExecutor() as both:
        first, second = both.map(plan.prepare_ca, options)
    assert first.default_ca.fingerprint() == second.default_ca.fingerprint()
    assert made == [tmp_path / "new"]


def test_where_the_pages_cannot_listen_the_hint_names_their_option(port: int) -> None:
    with socket.create_server(("127.0.0.1", port)), pytest.raises(SettingsError) as caught:
        _listening(mode=[f"pages@127.0.0.1:{port}"])
    assert "jwt_pages" in caught.value.hint
