"""Break each promise of SECURITY.md once, and see that the test which is named there fails.

    python -m tests.project.promises [--only REGEX]

Each fault is planted in a private copy of the project, which has an environment of its own: proxies that tests start
are of the copy, too. `test_promises.py` shows that page, tests and sources still fit each other.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
LIMIT = 300
"""Seconds for one test; longer counts as caught."""

_LEFT_OUT = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "node_modules", "build", "dist")
_FAILED, _FOUND_NONE = 1, 5
"""pytest's exit statuses."""


class Promise(NamedTuple):
    """A test that SECURITY.md names, and a fault in a source that it must find."""

    test: str
    """`path::name`, within tests."""
    source: str
    old: str
    """Stands there once."""
    new: str

    def __str__(self) -> str:
        """The fault, on one line."""
        old, new = (" ".join(text.split()) for text in (self.old, self.new))
        return f"{self.source}: `{old}` → `{new}`".replace("|", "\\|")  # it stands in a table


_JWT = "addons/jwtproxy"
PROMISES = (
    # nothing leaves unsigned
    Promise(
        "e2e/test_failures.py::test_what_cannot_be_signed_does_not_leave",
        f"{_JWT}/mitm/gate.py",
        "        return _UNSIGNED\n\n    def _apply",
        "        return None\n\n    def _apply",
    ),
    Promise(
        "e2e/test_bare.py::test_a_mistake_never_means_unsigned",
        "addons/jwt_inject.py",
        '            logger.error("jwtproxy: error: %s\\njwtproxy: hint: %s", error, error.hint)\n',
        "            from jwtproxy.policy.faults import UNSIGNED\n"
        "            gate.hang(ctx.options, gate.Gate(lambda: UNSIGNED))\n",
    ),
    Promise(
        "e2e/test_failures.py::test_no_script_makes_a_request_leave_unsigned",
        f"{_JWT}/mitm/gate.py",
        "            and signed.fields is flow.request.headers.fields\n",
        "",
    ),
    Promise(
        "e2e/test_bare.py::test_a_script_that_breaks_while_serving_never_means_unsigned",
        "addons/jwt_inject.py",
        "        gate.shut(ctx.options)\n",
        "        gate.hang(ctx.options, self.gate)\n",
    ),
    Promise(
        "e2e/test_https.py::test_what_is_not_http_leaves_no_tunnel_unsigned",
        "launcher/commandline.py",
        '"rawtcp": False',
        '"rawtcp": True',
    ),
    # the token
    Promise(
        "e2e/test_token.py::test_a_token_that_the_client_sent_is_replaced",
        f"{_JWT}/policy/judge.py",
        "faults.passing(head, self.token_fields)",
        "faults.passing(head)",
    ),
    Promise(
        "e2e/test_token.py::test_a_token_in_http2_trailers_does_not_arrive",
        f"{_JWT}/policy/judge.py",
        "return strip(trailers, self.token_fields)",
        "return trailers",
    ),
    Promise(
        "e2e/test_token.py::test_each_of_many_of_requests_has_a_token_of_its_own",
        f"{_JWT}/tokens/claims.py",
        "os.urandom(16).hex()",
        'f"{os.getpid():032x}"',
    ),
    Promise(
        "e2e/test_destination.py::test_a_contradiction_in_a_tunnel_is_refused",
        f"{_JWT}/policy/faults.py",
        'host_mismatch != "allow"',
        'host_mismatch == "never"',
    ),
    Promise(
        "e2e/test_destination.py::test_one_host_arrives_and_it_is_the_targets",
        f"{_JWT}/conduct/host.py",
        "    hosts = _hosts(fields)\n    if (len(hosts) == 1 and agrees(hosts, target)) or",
        "    hosts = _hosts(fields)\n    if hosts or",
    ),
    Promise(
        "unit/policy/test_judge.py::test_the_audience_is_where_the_request_goes",
        f"{_JWT}/policy/judge.py",
        "head.destination.origin if maker",
        '"https://api.example" if maker',
    ),
    Promise(
        "e2e/test_hops.py::test_trace_would_show_the_token",
        f"{_JWT}/policy/faults.py",
        'and trace == "off"',
        'and trace == "never"',
    ),
    Promise(
        "e2e/test_hops.py::test_a_request_loses_what_was_for_the_proxy",
        f"{_JWT}/conduct/forwarding.py",
        "_HOP_BY_HOP | TO_PROXY",
        "_HOP_BY_HOP",
    ),
    Promise(
        "unit/mitm/test_http2_connection.py::test_a_token_is_in_nobodys_table",
        f"{_JWT}/mitm/http2_connection.py",
        "if len(name) in sizes and normalise(name) in secret",
        "if not secret",
    ),
    Promise(
        "e2e/test_lifecycle.py::test_nothing_secret_is_ever_printed",
        f"{_JWT}/observe/redaction.py",
        'text = _JWS.sub("[token]", text)',
        "pass",
    ),
    Promise(
        "e2e/test_stock.py::test_a_recorded_token_is_redacted_and_the_one_that_left_is_whole",
        "launcher/addons/recordings.py",
        "(key, REDACTED) if",
        "(key, value) if",
    ),
    # the key, and the other password
    Promise(
        "unit/stores/test_redis.py::test_of_a_url_people_see_where_it_leads",
        f"{_JWT}/stores/redis.py",
        "cls(url, _shown(parts))",
        "cls(url, _shown(parts) and url)",
    ),
    Promise(
        "unit/tokens/test_key_source.py::test_no_error_repeats_the_secret",
        f"{_JWT}/tokens/key_formats.py",
        "is not hexadecimal{kind and ': it '}{kind}\"",
        'is not hexadecimal: {text}"',
    ),
    Promise(
        "unit/tokens/test_key_formats.py::test_what_cannot_be_used_is_refused_and_not_repeated",
        f"{_JWT}/tokens/key_formats.py",
        "if value and len(value) > _LONGEST_NAME else",
        "if not value else",
    ),
    Promise(
        "e2e/test_lifecycle.py::test_the_process_list_does_not_show_the_secret",
        "launcher/cli.py",
        '"jwtproxy.launcher", *sys.argv[1:]]',
        '"jwtproxy.launcher", *sys.argv[1:], *__import__("dotenv").dotenv_values(".env").values()]',
    ),
    Promise(
        "e2e/test_secrecy.py::test_a_running_proxy_has_its_key_nowhere_but_in_a_memory_that_nobody_reads",
        "launcher/commands/serve.py",
        "    secrecy.seal()\n",
        "",
    ),
    Promise(
        "e2e/test_exec.py::test_the_key_stays_out_of_the_command",
        "launcher/beside.py",
        "environ = without_secrets(os.environ)",
        "environ = dict(os.environ)",
    ),
    Promise(
        "e2e/test_exec.py::test_whoever_is_killed_nothing_is_left",
        "launcher/beside.py",
        "        signal.raise_signal(signal.SIGINT)\n",
        "",
    ),
    Promise(
        "unit/policy/test_judge.py::test_a_shared_secret_is_not_published",
        f"{_JWT}/policy/judge.py",
        "[key.public for key in found if key.public]",
        "[key.public or {} for key in found]",
    ),
    Promise(
        "unit/mitm/test_private_files.py::test_only_the_owner_can_read_recordings",
        f"{_JWT}/mitm/private_files.py",
        "_PRIVATE = 0o600",
        "_PRIVATE = 0o644",
    ),
    # who, and where to
    Promise(
        "e2e/test_access.py::test_others_get_403",
        f"{_JWT}/conduct/access.py",
        "        return _remember(self._strangers, address, not (ip and _within(ip, self.clients)))\n",
        "        return False\n",
    ),
    Promise(
        "e2e/test_access.py::test_who_guesses_passwords_has_to_wait_and_nobody_else",
        f"{_JWT}/mitm/proxy_auth.py",
        "    if turn.wait:\n",
        "    if not turn:\n",
    ),
    Promise(
        "e2e/test_denied_destinations.py::test_metadata_is_not_dialled",
        f"{_JWT}/conduct/access.py",
        '"169.254.0.0/16"',
        '"169.254.0.0/32"',
    ),
    Promise(
        "e2e/test_denied_destinations.py::test_private_addresses_are_not_dialled_where_that_is_wished",
        f"{_JWT}/conduct/access.py",
        "if self.deny_private and not all(",
        "if self.deny_private and not any(True for _ in meant) and not all(",
    ),
    Promise(
        "e2e/test_denied_destinations.py::test_a_name_that_leads_elsewhere_the_next_time_is_judged_again",
        f"{_JWT}/mitm/guard.py",
        "denies_address(asked[0] if asked else str(ip), ip, port)",
        "denies_name(asked[0] if asked else str(ip), port)",
    ),
    Promise(
        "e2e/test_denied_destinations.py::test_the_next_proxy_is_not_asked_for_what_is_denied",
        f"{_JWT}/policy/judge.py",
        "return wrong or faults.denial(head, self.access)",
        "return wrong",
    ),
    Promise(
        "e2e/test_denied_destinations.py::test_the_proxy_is_not_its_own_destination",
        f"{_JWT}/conduct/addresses.py",
        "return any(port == own_port and",
        "return any(port != own_port and",
    ),
    # messages that mean two things
    Promise(
        "e2e/test_corpus.py::test_each_message_comes_to_what_it_should",
        f"{_JWT}/conduct/framing.py",
        "            elif strict:\n",
        "            elif not fields:\n",
    ),
    Promise(
        "unit/conduct/test_framing.py::test_what_readers_might_frame_differently_is_refused",
        f"{_JWT}/conduct/framing.py",
        "    if lengths:\n        raise",
        "    if len(lengths) > 1:\n        raise",
    ),
    Promise(
        "unit/conduct/test_fields.py::test_a_value_that_may_hide_another_line_is_refused",
        f"{_JWT}/conduct/fields.py",
        "    if not _SENDABLE(",
        "    if fields and not fields[0][0] and not _SENDABLE(",
    ),
    Promise(
        "e2e/test_lanes.py::test_conversations_go_the_same_way",
        f"{_JWT}/lane/upstream.py",
        "        if not self._waits:  # nobody asked for it\n            self.close()\n            return\n",
        "        if not self._waits:  # nobody asked for it\n            self._buffer += data\n            return\n",
    ),
    # availability
    Promise(
        "unit/mitm/test_http1.py::test_a_head_without_end_is_refused",
        f"{_JWT}/mitm/limits.py",
        "        if found > most:\n",
        "        if found > 99 * most:\n",
    ),
    Promise(
        "e2e/test_attacks.py::test_memory_is_bounded_and_others_are_served",
        f"{_JWT}/mitm/pressure.py",
        "self._open.clear() if self._why else self._open.set()",
        "self._open.set()",
    ),
    Promise(
        "unit/mitm/test_whole_bodies.py::test_one_body_is_bounded",
        f"{_JWT}/mitm/whole_bodies.py",
        "if self._size > self._limits.max_body",
        "if self._size > 99 * self._limits.max_body",
    ),
    Promise(
        "unit/mitm/test_inflation.py::test_more_is_not",
        f"{_JWT}/mitm/inflation.py",
        "if size > most",
        "if size > 99 * most",
    ),
    Promise(
        "e2e/test_time_limits.py::test_a_head_that_comes_too_slowly_gets_408",
        f"{_JWT}/mitm/time_limits.py",
        "= TimeLimits(*(values[name] for name in names))",
        "= TimeLimits(*(99 * values[name] for name in names))",
    ),
    Promise(
        "e2e/test_connections.py::test_a_client_at_its_limit_gets_503_and_keeps_out_nobody_else",
        f"{_JWT}/conduct/crowd.py",
        "        if self.most_each and own >= self.most_each:\n",
        "        if self.most_each and own >= 99 * self.most_each:\n",
    ),
    Promise(
        "unit/mitm/test_http2_connection.py::test_who_sends_too_much_of_nothing_is_told_to_calm_down",
        f"{_JWT}/mitm/http2_connection.py",
        "        if _brings_nothing(frame) and not",
        "        if not frame and not",
    ),
    Promise(
        "unit/mitm/test_dispatch.py::test_a_task_that_is_cancelled_as_it_waits_for_its_turn_is_so_where_it_reads_on",
        f"{_JWT}/mitm/dispatch.py",
        "            _cancel_later(error)\n\n    async def _wait(",
        "            raise\n\n    async def _wait(",
    ),
)


class Copy:
    """A copy of the project with an environment of its own, in which one test at a time is run."""

    def __init__(self, folder: Path) -> None:
        self.root = shutil.copytree(ROOT, folder / "copy", ignore=_LEFT_OUT)
        shutil.copytree(ROOT / ".ci", self.root / ".ci")
        shutil.copy(ROOT / ".env.example", self.root)
        self.python = self._environment(self.root / ".venv")
        self._later = itertools.count(int(time.time()))

    def _environment(self, venv: Path) -> Path:
        """What ours has, but jwtproxy, which is the copy's."""
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
        theirs = Path(sysconfig.get_path("purelib"))
        mine = Path(sysconfig.get_path("purelib", "venv", {"base": str(venv)}))
        for found in theirs.glob("__editable__*jwtproxy*"):
            (mine / found.name).write_text(found.read_text().replace(f"'{ROOT}/", f"'{self.root}/"))
        (mine / "dependencies.pth").write_text(f"{theirs}\n")
        for script in Path(sys.executable).parent.iterdir():
            if script.is_file() and not (venv / "bin" / script.name).exists() and script.stat().st_size < 1 << 16:
                text = script.read_text(errors="surrogateescape").replace(sys.executable, str(venv / "bin/python"))
                (venv / "bin" / script.name).write_text(text, errors="surrogateescape")
                (venv / "bin" / script.name).chmod(0o755)
        return venv / "bin/python"

    def fails(self, promise: Promise, *, broken: bool) -> bool:
        """Whether the test fails, with the fault or without."""
        source = self.root / promise.source
        whole = (ROOT / promise.source).read_text()
        self._write(source, whole.replace(promise.old, promise.new) if broken else whole)
        try:
            status = self._run(promise.test)
        finally:
            self._write(source, whole)
        if status not in (0, _FAILED):
            raise RuntimeError(f"pytest ended with status {status} for {promise.test}")
        return status == _FAILED

    def _write(self, source: Path, text: str) -> None:
        source.write_text(text)
        later = next(self._later)  # byte code knows the second, and no more, in which its source was written
        os.utime(source, (later, later))

    def _run(self, test: str) -> int:
        command = [str(self.python), "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "not thorough"]
        try:
            return subprocess.run(
                [*command, f"tests/{test}"], cwd=self.root, capture_output=True, timeout=LIMIT
            ).returncode
        except subprocess.TimeoutExpired:
            return _FAILED


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a row for each promise; 1 if a test did not find its fault, or fails without one."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.project.promises", description="Break each promise of SECURITY.md, and have it noticed."
    )
    parser.add_argument("--only", type=re.compile, default="", help="only promises in whose test this is found")
    options = parser.parse_args(arguments)
    chosen = [promise for promise in PROMISES if re.search(options.only, promise.test)]
    kept = 0
    print("| Test | Fault | |\n|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="promises") as folder:
        copy = Copy(Path(folder))
        for promise in chosen:
            if copy.fails(promise, broken=False) and copy.fails(promise, broken=False):  # others keep the machine busy
                said = "fails without any fault"
            else:
                said = "caught" if copy.fails(promise, broken=True) else "not caught"
            kept += said == "caught"
            print(f"| {promise.test} | {promise} | {said} |", flush=True)
    print(f"{len(chosen)} promises, {kept} faults caught")
    return int(kept < len(chosen))


if __name__ == "__main__":
    sys.exit(main())
