"""A machine that is told to trust the proxy's CA does so, and no longer when it is told otherwise."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import namespace
from tests.support.harness import Proxy, clean_env, launcher, run_launcher
from tests.support.upstreams import Recorder

STORE = ("/etc/ssl/certs", "/usr/local/share/ca-certificates")
"""Debian's: copies of these folders are changed, never the machine's own."""

_TYPED = """
confdir="confdir=$1" proxy=$2 url=$3; shift 3
grep -v '^[#!]' /etc/ca-certificates.conf | head -3 >few # the tool takes its time for each
mount --bind few /etc/ca-certificates.conf || exit
ask() { curl -sS --max-time 10 --proxy "$proxy" "$url" >>answers 2>>errors; echo "curl $?"; }
ask
"$@" ca trust --set "$confdir" && ask
"$@" ca untrust --set "$confdir" && ask
ls /usr/local/share/ca-certificates | grep jwtproxy
find /etc/ssl/certs -xtype l
"""


@pytest.mark.skipif(bool(namespace.unable()), reason=namespace.unable())
@pytest.mark.skipif(
    not shutil.which("update-ca-certificates", path="/usr/sbin") or not shutil.which("curl"),
    reason="this is no Debian with ca-certificates and curl",
)
def test_curl_needs_no_options_while_the_system_trusts_it(
    proxy: Proxy, https_recorder: Recorder, confdir: Path, tmp_path: Path
) -> None:
    """The tools are the system's own."""
    before = [sorted(Path(name).iterdir()) for name in STORE]
    prefix = namespace.with_copies(tmp_path, STORE)
    words = ["sh", "-c", _TYPED, "sh", str(confdir), proxy.url, f"https://{https_recorder.authority}/"]
    done = subprocess.run(
        [*prefix, *words, *launcher()],
        cwd=tmp_path,
        env=clean_env(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
    )
    lines = done.stdout.splitlines()
    path = next(line.removeprefix("write ") for line in lines if line.startswith("write "))
    said = [line for line in lines if not line.startswith("jwtproxy: the certificate with the SHA-256 fingerprint ")]
    assert said == [
        "curl 60",
        *(f"write {path}", "run update-ca-certificates", "jwtproxy: done", "curl 0"),
        *(f"remove {path}", "run update-ca-certificates --fresh", "jwtproxy: done", "curl 60"),
    ], done
    assert path.startswith("/usr/local/share/ca-certificates/jwtproxy-")
    assert [sorted(Path(name).iterdir()) for name in STORE] == before


@pytest.mark.skipif(not shutil.which("certutil"), reason="no certutil: libnss3-tools")
def test_a_running_proxy_gives_its_certificate(proxy: Proxy, confdir: Path, tmp_path: Path) -> None:
    """To whoever has no folder of it: nobody makes another CA here."""
    shown, own = (
        json.loads(run_launcher("ca", "--json", *where, cwd=tmp_path, secret=None).stdout)
        for where in (("--proxy", proxy.url), ("--set", f"confdir={confdir}"))
    )
    assert shown.pop("certificate") == f"{proxy.url}/ca.pem"
    assert own.pop("certificate") == str(confdir / "mitmproxy-ca-cert.pem")
    assert shown == own
    done = run_launcher("ca", "trust", "--nss", "--proxy", proxy.url, cwd=tmp_path, secret=None)
    assert (done.returncode, done.stderr) == (0, "")
    assert shown["fingerprint_sha256"] in done.stdout
    database = f"sql:{tmp_path}/.pki/nssdb"
    assert "jwtproxy-" in subprocess.check_output(["certutil", "-L", "-d", database], text=True)
    assert not (tmp_path / ".mitmproxy").exists()
