"""What jwtproxy-run does with its settings: where they come from, which wins, and how a mistake is told."""

from __future__ import annotations

import ctypes
import shutil
import socket
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients import Raw, message
from tests.support.harness import (
    SECRET,
    Proxy,
    StartProxy,
    rows,
    run_launcher,
    thorough,
    token_header,
    verify,
)
from tests.support.mistakes import Mistake, RunLauncher, Start, check, forked_starts, refused
from tests.support.upstreams import Recorder, silent

OPTIONS = """
    jwt_user jwt_header jwt_algorithm jwt_key_file jwt_key_dir jwt_kid jwt_issuer jwt_subject jwt_audience jwt_ttl
    jwt_claims jwt_typ jwt_rules jwt_host_mismatch jwt_jwks_max_age jwt_pages jwt_connect_timeout jwt_response_timeout
""".split()
# Those that not every text will do for.
CHECKED = """
    jwt_header jwt_algorithm jwt_ttl jwt_claims jwt_typ jwt_host_mismatch jwt_jwks_max_age jwt_pages
    jwt_connect_timeout jwt_response_timeout
""".split()
SOURCES = ("set", "variable", ".env", "config.yaml")


BAD_SECRETS = {
    "missing": Mistake("JWT_SHARED_SECRET is not set", secret=None),
    "empty": Mistake("JWT_SHARED_SECRET is empty", secret=""),
    "blank": Mistake("JWT_SHARED_SECRET is empty", secret=" \t\n "),
    "not-hex": Mistake("JWT_SHARED_SECRET is not hexadecimal", secret="correct-horse-battery-staple" * 5),
    "one-digit-not-hex": Mistake("JWT_SHARED_SECRET is not hexadecimal", secret=SECRET[:-1] + "g"),
    "prefixed": Mistake("JWT_SHARED_SECRET is not hexadecimal", secret="0x" + SECRET),
    "digits-of-another-script": Mistake("JWT_SHARED_SECRET is not hexadecimal", secret="١٢٣٤" * 32),
    "odd": Mistake("odd number of hexadecimal digits (127)", secret=SECRET[:-1]),
    "short": Mistake("has 63 bytes, HS512 needs at least 64", secret=SECRET[:-2]),
    "very-short": Mistake("has 1 bytes, HS512 needs at least 64", secret="ab"),
    "short-for-hs384": Mistake("has 47 bytes", ["--set", "jwt_algorithm=HS384"], secret=SECRET[:94]),
    "short-for-hs256": Mistake("has 31 bytes", env={"JWT_ALGORITHM": "HS256"}, secret=SECRET[:62]),
    "empty-hides-no-other": Mistake(
        "JWT_SHARED_SECRET is empty", files={".env": f"JWT_SHARED_SECRET={SECRET}"}, secret=""
    ),
    "empty-in-.env": Mistake("JWT_SHARED_SECRET is empty", files={".env": "JWT_SHARED_SECRET="}, secret=None),
    "short-in-.env": Mistake("has 63 bytes", files={".env": f"JWT_SHARED_SECRET={SECRET[2:]}"}, secret=None),
    "file-missing": Mistake(
        "cannot read JWT_SHARED_SECRET_FILE 'nowhere'", env={"JWT_SHARED_SECRET_FILE": "nowhere"}, secret=None
    ),
    "file-is-a-folder": Mistake(
        "cannot read JWT_SHARED_SECRET_FILE '.'", env={"JWT_SHARED_SECRET_FILE": "."}, secret=None
    ),
    "file-name-too-long": Mistake(
        "cannot read JWT_SHARED_SECRET_FILE", env={"JWT_SHARED_SECRET_FILE": "." * 5000}, secret=None
    ),
    "file-of-nobody": Mistake(
        "cannot read JWT_SHARED_SECRET_FILE", env={"JWT_SHARED_SECRET_FILE": "~nobody-such/x"}, secret=None
    ),
    "file-empty": Mistake("'key' is empty", env={"JWT_SHARED_SECRET_FILE": "key"}, files={"key": "\n"}, secret=None),
    "file-not-hex": Mistake(
        "'key' is not hexadecimal",
        env={"JWT_SHARED_SECRET_FILE": "key"},
        files={"key": "quite secret " * 9},
        secret=None,
    ),
    "file-binary": Mistake(
        "'key' is not text", env={"JWT_SHARED_SECRET_FILE": "key"}, files={"key": bytes(range(256))}, secret=None
    ),
    "file-odd": Mistake("odd number", env={"JWT_SHARED_SECRET_FILE": "key"}, files={"key": SECRET[1:]}, secret=None),
    "file-short": Mistake(
        "has 63 bytes", env={"JWT_SHARED_SECRET_FILE": "key"}, files={"key": SECRET[2:]}, secret=None
    ),
    "file-named-in-.env": Mistake("cannot read", files={".env": "JWT_SHARED_SECRET_FILE=nowhere"}, secret=None),
    "both-in-environment": Mistake(
        "both JWT_SHARED_SECRET and JWT_SHARED_SECRET_FILE are set",
        env={"JWT_SHARED_SECRET_FILE": "key"},
        files={"key": SECRET},
    ),
    "both-in-.env": Mistake(
        "both JWT_SHARED_SECRET and JWT_SHARED_SECRET_FILE are set",
        files={"key": SECRET, ".env": f"JWT_SHARED_SECRET={SECRET}\nJWT_SHARED_SECRET_FILE=key"},
        secret=None,
    ),
    ".env-of-the-folder-above": Mistake(
        "JWT_SHARED_SECRET is not set", files={"../.env": f"JWT_SHARED_SECRET={SECRET}"}, secret=None
    ),
}


# What is not named here is a mistake of the same kind in another spelling or place.
SECRETS = """missing empty short empty-hides-no-other file-missing file-is-a-folder file-binary both-in-environment
.env-of-the-folder-above""".split()


@pytest.mark.parametrize("mistake", rows(BAD_SECRETS, *SECRETS[::2]))
def test_a_bad_secret_is_refused_and_not_shown(run: RunLauncher[Start], tmp_path: Path, mistake: Mistake) -> None:
    """One line says what is wrong with the secret without repeating it."""
    folder = tmp_path / "here"
    folder.mkdir()
    check(run, mistake, folder)


BAD_SETTINGS = {
    # workers
    "workers-0": Mistake("'0' for WORKERS", env={"WORKERS": "0"}),
    "workers-too-many": Mistake("'513' for WORKERS", env={"WORKERS": "513"}),
    "workers-negative": Mistake("'-1' for WORKERS", env={"WORKERS": "-1"}),
    "workers-word": Mistake("'many' for WORKERS", env={"WORKERS": "many"}),
    "workers-fraction": Mistake("'1.5' for WORKERS", env={"WORKERS": "1.5"}),
    "workers-in-.env": Mistake("'x' for WORKERS", files={".env": "WORKERS=x"}),
    # where to listen
    "port-word": Mistake("'http' for HTTP_PORT", env={"HTTP_PORT": "http"}),
    "port-negative": Mistake("'-1' for HTTP_PORT", env={"HTTP_PORT": "-1"}),
    "port-high": Mistake("'65536' for HTTP_PORT", env={"HTTP_PORT": "65536"}),
    "port-fraction": Mistake("'80.5' for HTTP_PORT", env={"HTTP_PORT": "80.5"}),
    "port-with-host": Mistake("'127.0.0.1:80' for HTTP_PORT", env={"HTTP_PORT": "127.0.0.1:80"}),
    "port-digits-of-another-script": Mistake("for HTTP_PORT", env={"HTTP_PORT": "\uff18\uff10"}),
    "port-endless": Mistake("for HTTP_PORT", env={"HTTP_PORT": "9" * 5000}),
    "port-in-.env": Mistake("'x' for HTTP_PORT", env={"HTTP_PORT": None}, files={".env": "HTTP_PORT=x"}),
    "port-flag-word": Mistake("'http'", ["--port", "http"]),
    "port-flag-high": Mistake("65536", ["--port", "65536"]),
    "port-flag-negative": Mistake("-1", ["--port=-1"]),
    "port-short-flag-high": Mistake("65536", ["-p", "65536"]),
    "port-option-high": Mistake("65536", ["--set", "listen_port=65536"]),
    "port-option-word": Mistake("x", ["--set", "listen_port=x"]),
    "ports-differ": Mistake("--port 1 and --listen-port 2 contradict", ["--port", "1", "-p", "2"]),
    "ports-differ-by-set": Mistake("contradict", ["--port", "1", "--set", "listen_port=2"]),
    "hosts-differ": Mistake("contradict", ["--host", "127.0.0.1", "--listen-host", "::1"]),
    "host-not-ours": Mistake("192.0.2.254", env={"HTTP_HOST": "192.0.2.254"}),
    "host-unknown": Mistake("nonexistent.invalid", env={"HTTP_HOST": "nonexistent.invalid"}),
    "host-flag-unknown": Mistake("nonexistent.invalid", ["--host", "nonexistent.invalid"]),
    "host-no-name": Mistake("a b", env={"HTTP_HOST": "a b"}),
    "host-url": Mistake("http://127.0.0.1", env={"HTTP_HOST": "http://127.0.0.1"}),
    "host-label-too-long": Mistake("xxx", env={"HTTP_HOST": "x" * 100}),
    # our options
    "unknown-option": Mistake("unknown option 'jwt_x'", ["--set", "jwt_x=1"]),
    "unknown-option-no-value": Mistake("unknown option 'jwt_x'", ["--set", "jwt_x"]),
    "secret-as-option": Mistake("unknown option 'jwt_shared_secret'", ["--set", f"jwt_shared_secret={SECRET}"]),
    "unknown-option-in-config": Mistake("unknown option 'jwt_usr'", files={".mitmproxy/config.yaml": "jwt_usr: me"}),
    "algorithm-none": Mistake("'none' for jwt_algorithm", ["--set", "jwt_algorithm=none"]),
    "algorithm-case": Mistake("'hs512' for jwt_algorithm", ["--set", "jwt_algorithm=hs512"]),
    "algorithm-asymmetric": Mistake("which does not fit RS256", ["--set", "jwt_algorithm=RS256"]),
    "pages": Mistake("'maybe' for jwt_pages", ["--set", "jwt_pages=maybe"]),
    "connect-timeout-word": Mistake("'soon' for jwt_connect_timeout", ["--set", "jwt_connect_timeout=soon"]),
    "connect-timeout-negative": Mistake("'-1' for jwt_connect_timeout", ["--set", "jwt_connect_timeout=-1"]),
    "connect-timeout-unit": Mistake("'10s' for jwt_connect_timeout", ["--set", "jwt_connect_timeout=10s"]),
    "response-timeout-endless": Mistake("'inf' for jwt_response_timeout", ["--set", "jwt_response_timeout=inf"]),
    "response-timeout-no-number": Mistake("'nan' for jwt_response_timeout", ["--set", "jwt_response_timeout=nan"]),
    "header-with-space": Mistake("'x my' for jwt_header", ["--set", "jwt_header=x my"]),
    "header-with-colon": Mistake("'x-my-jwt:' for jwt_header", ["--set", "jwt_header=x-my-jwt:"]),
    "header-with-line-end": Mistake("for jwt_header", ["--set", "jwt_header=x-a\r\nx-b"]),
    "header-not-ascii": Mistake("for jwt_header", ["--set", "jwt_header=x-é"]),
    "header-host": Mistake("'Host' for jwt_header", ["--set", "jwt_header=Host"]),
    "header-framing": Mistake("for jwt_header", ["--set", "jwt_header=content_length"]),
    # mitmproxy's options
    "header-rule-on-ours": Mistake("x-my-jwt", ["--modify-headers", "/x-my-jwt/forged"]),
    "header-rule-removes-ours": Mistake("X-My-Jwt", ["--modify-headers", "/~q/X-My-Jwt/"]),
    "header-rule-underscores": Mistake("x_my_jwt", ["--set", "modify_headers=|x_my_jwt|forged"]),
    "header-rule-on-our-other": Mistake("x-own", ["--set", "jwt_header=X-Own", "--modify-headers", "/x-own/forged"]),
    "header-rule-in-config": Mistake("x-my-jwt", files={".mitmproxy/config.yaml": "modify_headers: [/x-my-jwt/x]"}),
    "header-rule-broken": Mistake("/one-part", ["--modify-headers", "/one-part"]),
    "ignore-hosts": Mistake("'['", ["--set", "ignore_hosts=["]),
    "ignore-hosts-flag": Mistake("'['", ["--ignore-hosts", "["]),
    "allow-hosts": Mistake("'('", ["--allow-hosts", "("]),
    "tcp-hosts": Mistake("'*'", ["--tcp-hosts", "*"]),
    "filter": Mistake("~zz", ["--filter", "~zz"]),
    "filter-option": Mistake("~zz", ["--set", "dumper_filter=~zz"]),
    "mode": Mistake("nonsense", ["--mode", "nonsense"]),
    "mode-reverse-of-nothing": Mistake("reverse", ["--mode", "reverse:"]),
    "map-remote": Mistake("/one-part", ["--map-remote", "/one-part"]),
    "map-local": Mistake("/nowhere", ["--map-local", "/x/nowhere"]),
    "proxyauth": Mistake("proxyauth", ["--proxyauth", "nonsense"]),
    "flow-detail": Mistake("x", ["--flow-detail", "x"]),
    "verbosity": Mistake("loud", ["--set", "termlog_verbosity=loud"]),
    "ciphers": Mistake("'nonsense' for ciphers_client", ["--check", "--set", "ciphers_client=nonsense"]),
    "ciphers-upstream": Mistake("'nonsense' for ciphers_server", ["--set", "ciphers_server=nonsense"]),
    "trusted-ca": Mistake(
        "'/nowhere' for ssl_verify_upstream_trusted_ca",
        ["--check", "--set", "ssl_verify_upstream_trusted_ca=/nowhere"],
        hint="PEM",
    ),
    "trusted-folder": Mistake(
        "'/nowhere' for ssl_verify_upstream_trusted_confdir", ["--set", "ssl_verify_upstream_trusted_confdir=/nowhere"]
    ),
    "trusted-ca-no-certificate": Mistake(
        "'key' for ssl_verify_upstream_trusted_ca",
        ["--check", "--set", "ssl_verify_upstream_trusted_ca=key"],
        files={"key": "no certificate"},
    ),
    "stream-size": Mistake("lots", ["--set", "stream_large_bodies=lots"]),
    "script-missing": Mistake("missing.py", ["-s", "missing.py"]),
    "unknown-flag": Mistake("--frobnicate", ["--frobnicate"]),
    "flag-without-value": Mistake("--port", ["--port"]),
    # files
    "config-not-yaml": Mistake("config.yaml", files={".mitmproxy/config.yaml": "jwt_user: [unclosed"}),
    "config-list": Mistake("config.yaml", files={".mitmproxy/config.yaml": "- jwt_user\n- me\n"}),
    "config-word": Mistake("config.yaml", files={".mitmproxy/config.yaml": "just words"}),
    "config-binary": Mistake("config.yaml", files={".mitmproxy/config.yaml": b"\xff\xfe\x00\x01"}),
    "config-wrong-type": Mistake("listen_port", files={".mitmproxy/config.yaml": "listen_port: [1]"}),
    "config-wrong-type-ours": Mistake("jwt_user", files={".mitmproxy/config.yaml": "jwt_user: {a: b}"}),
    "config-text-for-list": Mistake("ignore_hosts", files={".mitmproxy/config.yaml": "ignore_hosts: 5"}),
    "config-bad-pattern": Mistake("'['", files={".mitmproxy/config.yaml": "ignore_hosts: ['[']"}),
    "config-port-high": Mistake("99999", env={"HTTP_PORT": ""}, files={".mitmproxy/config.yaml": "listen_port: 99999"}),
    ".env-garbage": Mistake("cannot read .env: line 2", files={".env": f"WORKERS=1\n= {SECRET}\n"}),
    ".env-unclosed-quote": Mistake("cannot read .env: line 1", files={".env": f"JWT_SHARED_SECRET='{SECRET}"}),
    ".env-binary": Mistake("cannot read .env: not ", files={".env": b"\xff\xfe\x00\x01"}),
}  # fmt: skip


SETTINGS = """workers-word port-high port-in-.env port-option-high hosts-differ host-not-ours host-unknown host-no-name
unknown-option secret-as-option unknown-option-in-config response-timeout-endless header-with-line-end
header-rule-on-ours header-rule-on-our-other header-rule-broken ignore-hosts filter mode map-remote map-local proxyauth
flow-detail verbosity ciphers trusted-ca stream-size script-missing unknown-flag flag-without-value config-not-yaml
config-list config-binary config-wrong-type config-bad-pattern config-port-high .env-garbage .env-binary""".split()


@pytest.mark.parametrize("mistake", rows(BAD_SETTINGS, *SETTINGS[::2]))
def test_a_bad_setting_is_refused(run: RunLauncher[Start], tmp_path: Path, mistake: Mistake) -> None:
    """One line names what is wrong, one how to mend it; status 2."""
    check(run, mistake, tmp_path)


REAL_STARTS = {
    "no-secret": BAD_SECRETS["missing"],
    "secret-short": BAD_SECRETS["short"],
    "bad-option": BAD_SETTINGS["algorithm-none"],
    "config": BAD_SETTINGS["config-not-yaml"],
}


@pytest.mark.parametrize("mistake", rows(REAL_STARTS, "config"))
def test_a_mistake_is_refused_by_a_fresh_process(tmp_path: Path, mistake: Mistake) -> None:
    """The same once more with nothing imported beforehand."""
    check(partial(run_launcher, fresh=True), mistake, tmp_path)


FROM = {f"{source}-{option}": (option, source) for source in ("variable", ".env", "config.yaml") for option in CHECKED}


@pytest.mark.parametrize(("option", "source"), rows(FROM, *list(FROM)[::10]))
def test_a_bad_option_is_refused_wherever_it_is_set(
    run: RunLauncher[Start], tmp_path: Path, option: str, source: str
) -> None:
    """The same error whatever the source, naming option and value."""
    args, env = give(source, {option: "b d"}, tmp_path, tmp_path / ".mitmproxy")
    refused(run(*args, cwd=tmp_path, env=env), f"bad value 'b d' for {option}")


def _obey_file_modes() -> None:
    """Make even root obey file modes: the next program gets no CAP_DAC_OVERRIDE and no CAP_DAC_READ_SEARCH."""
    prctl, drop = ctypes.CDLL(None).prctl, 24
    for capability in (1, 2):
        prctl(drop, capability, 0, 0, 0)


@pytest.fixture(scope="module")
def run_obedient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunLauncher[Start]]:
    """The same, where file modes count."""
    with forked_starts(tmp_path_factory.mktemp("forks"), _obey_file_modes) as start:
        yield start


@pytest.mark.parametrize(
    ("name", "env", "says"),
    [
        ("key", {"JWT_SHARED_SECRET_FILE": "key", "JWT_SHARED_SECRET": None}, "FILE 'key': permission denied"),
        ("key", {"JWT_KEY_FILE": "key", "JWT_SHARED_SECRET": None}, "JWT_KEY_FILE 'key': permission denied"),
        ("keys/a.pem", {"JWT_KEY_DIR": "keys", "JWT_SHARED_SECRET": None}, "'keys/a.pem': permission denied"),
        ("rules.yaml", {"JWT_RULES": "rules.yaml"}, "'rules.yaml': permission denied"),
        (".env", {}, "cannot read .env: permission denied"),
        (".mitmproxy/config.yaml", {}, "config.yaml"),
    ],
)  # fmt: skip
def test_a_file_that_may_not_be_read_is_named(
    run_obedient: RunLauncher[Start], tmp_path: Path, name: str, env: dict[str, str | None], says: str
) -> None:
    """A file without read permission is an error, not an absent one."""
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("")
    path.chmod(0)
    refused(run_obedient(cwd=tmp_path, env=env), says)


def test_a_folder_called_env_is_refused(run: RunLauncher[Start], tmp_path: Path) -> None:
    """A .env that is a folder (a container's mount of a missing file makes one) is named."""
    (tmp_path / ".env").mkdir()
    refused(run(cwd=tmp_path), "cannot read .env: is a directory")


@pytest.mark.parametrize("host", ["127.0.0.1", "*"])
def test_a_port_in_use_is_refused(run: RunLauncher[Start], tmp_path: Path, host: str) -> None:
    """The error names the port; the one who has it keeps it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(cwd=tmp_path, env={"HTTP_HOST": host, "HTTP_PORT": str(port)})
        refused(done, f"cannot listen on {host}:{port}: address already in use")
        socket.create_connection(("127.0.0.1", port), 2).close()


def test_a_refused_start_never_listens(tmp_path: Path) -> None:
    """Not even for a moment does a port open before the mistake is found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    opened = threading.Event()
    ended = threading.Event()

    def knock() -> None:
        while not ended.is_set():
            with socket.socket() as visitor:
                if visitor.connect_ex(("127.0.0.1", port)) == 0 and visitor.getsockname() != visitor.getpeername():
                    opened.set()
            ended.wait(0.01)

    thread = threading.Thread(target=knock)
    thread.start()
    try:
        refused(run_launcher("--set", "jwt_pages=x", cwd=tmp_path, env={"HTTP_PORT": str(port)}), "'x'")
        refused(run_launcher(cwd=tmp_path, secret=None, env={"HTTP_PORT": str(port)}), "is not set")
    finally:
        ended.set()
        thread.join()
    assert not opened.is_set()


@pytest.mark.parametrize(
    "text",
    ["raise RuntimeError('broken by design')", "def broken(:", "import nothing_of_that_name_exists"],
    ids=["raises", "syntax", "import"],
)
def test_a_broken_user_script_ends_the_start(run: RunLauncher[Start], tmp_path: Path, text: str) -> None:
    """A script that cannot be loaded is an error of the start, which names it."""
    (tmp_path / "mine.py").write_text(text)
    done = run("-s", "mine.py", cwd=tmp_path)
    assert done.returncode == 2, done
    assert done.stderr.startswith("jwtproxy: error: ")
    assert "mine.py" in done.stderr
    assert done.stdout == ""


# --- what works


GOOD_SECRETS: dict[str, tuple[str | None, dict[str, str], dict[str, str]]] = {
    "spaces": (f" {SECRET[:50]} {SECRET[50:]}\n", {}, {}),
    "pairs": (" ".join(SECRET[i : i + 2] for i in range(0, 128, 2)).upper(), {}, {}),
    "file": (None, {"JWT_SHARED_SECRET_FILE": "key"}, {"key": f"{SECRET[:64]}\n{SECRET[64:]}\r\n"}),
    "home-file": (None, {"JWT_SHARED_SECRET_FILE": "~/key"}, {"key": SECRET}),
    ".env": (None, {}, {".env": f"# a comment\nexport JWT_SHARED_SECRET='{SECRET}'  # another\r\nWORKERS=\"auto\"\n"}),
    ".env-file": (None, {}, {".env": "JWT_SHARED_SECRET_FILE=key", "key": SECRET}),
    "environment": (SECRET, {}, {".env": "JWT_SHARED_SECRET_FILE=nowhere"}),
    "empty-file": (SECRET, {"JWT_SHARED_SECRET_FILE": ""}, {".env": "JWT_SHARED_SECRET=zz"}),
    "file-beats-.env": (
        None,
        {"JWT_SHARED_SECRET_FILE": "key"},
        {"key": SECRET, ".env": f"JWT_SHARED_SECRET={'00' * 64}"},
    ),
    "empty-file-.env": (None, {}, {".env": f"JWT_SHARED_SECRET={SECRET}\nJWT_SHARED_SECRET_FILE="}),
}  # fmt: skip


@pytest.mark.parametrize(
    ("secret", "env", "files"),
    rows(GOOD_SECRETS, *"spaces home-file .env .env-file file-beats-.env empty-file-.env".split()),
)
def test_a_good_secret_is_found(
    run: RunLauncher[Start], tmp_path: Path, secret: str | None, env: dict[str, str], files: dict[str, str]
) -> None:
    """White space is ignored, a file is as good as a value, and the first source that has one decides."""
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    done = run("--check", cwd=tmp_path, env=env, secret=secret)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert SECRET not in done.stdout


@pytest.mark.parametrize(
    "env",
    [
        {"WORKERS": "1"},
        {"WORKERS": "auto"},
        dict.fromkeys(("WORKERS", "HTTP_PORT", "HTTP_HOST", "JWT_SHARED_SECRET_FILE", *map(str.upper, OPTIONS)), ""),
        {"HTTP_HOST": "::1"},
        {"HTTP_HOST": "localhost"},
        {"HTTP_PORT": "08080"},
    ],
    ids=["one-worker", "auto", "all-empty", "ipv6", "name", "leading-zero"],
)
def test_good_settings_pass_the_check(run: RunLauncher[Start], tmp_path: Path, env: dict[str, str]) -> None:
    """--check says that all is well and exits 0; an empty variable counts as unset."""
    done = run("--check", cwd=tmp_path, env=env)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert "valid" in done.stdout


@pytest.mark.parametrize(
    "mistake",
    [
        BAD_SECRETS["short"],
        BAD_SETTINGS["pages"],
        BAD_SETTINGS["port-high"],
        BAD_SETTINGS["config-not-yaml"],
        BAD_SETTINGS["filter"],
    ],
    ids=["secret", "option", "port", "config", "filter"],
)
def test_check_finds_what_the_start_would(run: RunLauncher[Start], tmp_path: Path, mistake: Mistake) -> None:
    """--check refuses what a start refuses, with the same words."""
    check(run, Mistake(mistake.says, ["--check", *mistake.args], mistake.env, mistake.files, mistake.secret), tmp_path)


def test_check_does_not_listen(run: RunLauncher[Start], tmp_path: Path) -> None:
    """Settings can be checked while the proxy that uses them is running."""
    with socket.create_server(("127.0.0.1", 0)) as running:
        done = run("--check", cwd=tmp_path, env={"HTTP_PORT": str(running.getsockname()[1])})
    assert (done.returncode, done.stderr) == (0, ""), done


@pytest.mark.parametrize("args", [["--port", "0", "-p", "0"], ["--host", "127.0.0.1", "--listen-host", "127.0.0.1"]])
def test_both_spellings_of_a_flag_may_agree(run: RunLauncher[Start], tmp_path: Path, args: list[str]) -> None:
    """The same value twice is no contradiction."""
    assert run("--check", *args, cwd=tmp_path).returncode == 0


# --- where settings come from


def give(
    source: str, options: Mapping[str, str], folder: Path, confdir: Path
) -> tuple[list[str], dict[str, str | None]]:
    """Set options in one source; the arguments and variables to start with."""
    if source == "set":
        return [part for name, value in options.items() for part in ("--set", f"{name}={value}")], {}
    if source == "variable":
        return [], {name.upper(): value for name, value in options.items()}
    if source == ".env":
        lines = [f"{name.upper()}='{value}'\n" for name, value in options.items()]
        (folder / ".env").write_text("".join(lines))
    else:
        confdir.mkdir(exist_ok=True)
        (confdir / "config.yaml").write_text("".join(f"{name}: {value!r}\n" for name, value in options.items()))
    return [], {}


@pytest.fixture
def own_confdir(tmp_path: Path, confdir: Path) -> Path:
    """A config folder with the prepared CA, for this test alone."""
    copy = tmp_path / "conf"
    shutil.copytree(confdir, copy)
    return copy


@pytest.fixture
def deaf() -> Iterator[int]:
    """The port of a listener whose queue is full: a connection attempt there gets no answer."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
        for filler in fillers:
            filler.close()


@pytest.mark.parametrize("source", rows({source: source for source in SOURCES}, "variable", "config.yaml"))
def test_every_option_can_be_set_in_every_source(
    tmp_path: Path, own_confdir: Path, recorder: Recorder, deaf: int, source: str
) -> None:
    """Each jwt_ option takes effect, be it set by --set, a variable, .env or config.yaml."""
    values = {
        "jwt_user": "söme one: #1",
        "jwt_header": "X-Own-Token",
        "jwt_algorithm": "HS384",
        "jwt_key_file": "key",
        "jwt_kid": "first",
        "jwt_issuer": "an issuer",
        "jwt_subject": "a subject",
        "jwt_audience": "origin",
        "jwt_ttl": "90",
        "jwt_claims": '{"scope": "read: #1"}',
        "jwt_typ": "at+jwt",
        "jwt_rules": "rules.yaml",
        "jwt_pages": "off",
        "jwt_connect_timeout": "0.5",
        "jwt_response_timeout": "0.7",
    }
    assert {*values, *OPTIONS_OF_A_FOLDER} == set(OPTIONS)
    (tmp_path / "key").write_text(SECRET)
    (tmp_path / "rules.yaml").write_text("rules: [{match: ~u /blocked$, block: true}]")
    recorder.route("/silent", silent())
    args, env = give(source, values, tmp_path, own_confdir)
    with (
        Proxy(*args, cwd=tmp_path, confdir=own_confdir, env=env, secret=None) as proxy,
        Raw(proxy.port) as client,
    ):
        assert client.request(message("GET", f"{recorder.url}/", f"Host: {recorder.authority}")).status == 200
        (token,) = recorder.only().values("x-own-token")
        assert recorder.only().values("x-my-jwt") == []
        claims: dict[str, Any] = verify(token, algorithm="HS384")
        assert claims["payload"]["user"] == "söme one: #1"
        assert [claims[name] for name in ("iss", "sub", "aud")] == ["an issuer", "a subject", recorder.url]
        assert (claims["exp"] - claims["iat"], claims["scope"]) == (90, "read: #1")
        assert token_header(token, algorithm="HS384") == {"alg": "HS384", "typ": "at+jwt", "kid": "first"}
        assert client.request(message("GET", "/status", "Host: x")).status == 404
        assert client.request(message("GET", f"{recorder.url}/blocked", f"Host: {recorder.authority}")).status == 403
        assert client.request(message("GET", f"{recorder.url}/silent", f"Host: {recorder.authority}")).status == 504
        assert client.request(message("GET", f"http://127.0.0.1:{deaf}/", f"Host: 127.0.0.1:{deaf}")).status == 502


OPTIONS_OF_A_FOLDER = {"jwt_key_dir": "keys", "jwt_jwks_max_age": "7", "jwt_host_mismatch": "allow"}


@pytest.mark.parametrize("source", [SOURCES[0], *(pytest.param(source, marks=thorough) for source in SOURCES[1:])])
def test_the_options_of_a_key_folder_can_be_set_in_every_source(
    tmp_path: Path, own_confdir: Path, recorder: Recorder, source: str
) -> None:
    """Those that the options above leave out, or exclude."""
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/a.hex").write_text(SECRET)
    args, env = give(source, OPTIONS_OF_A_FOLDER, tmp_path, own_confdir)
    with (
        Proxy(*args, cwd=tmp_path, confdir=own_confdir, env=env, secret=None) as proxy,
        Raw(proxy.port) as client,
    ):
        page = client.request(message("GET", "/.well-known/jwks.json", "Host: x"))
        assert "max-age=7" in page.values("cache-control")[0]
        assert client.tunnel(recorder.authority).status == 200
        assert client.request(message("GET", "/", "Host: other.example")).status == 200
    assert verify(recorder.only().token)


def test_numbers_in_config_need_no_quotes(run: RunLauncher[Start], tmp_path: Path) -> None:
    """In config.yaml a time-out is written as the number it is."""
    (tmp_path / ".mitmproxy").mkdir()
    (tmp_path / ".mitmproxy/config.yaml").write_text(
        "jwt_connect_timeout: 5\njwt_response_timeout: 2.5\njwt_pages: off\n"
    )
    done = run("--check", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, ""), done


@pytest.mark.parametrize(
    ("sources", "winner"),
    [
        (["set", "variable", ".env", "config.yaml"], "set"),
        (["variable", ".env", "config.yaml"], "variable"),
        ([".env", "config.yaml"], ".env"),
        pytest.param(["config.yaml"], "config.yaml", marks=thorough),
        pytest.param([], "username", marks=thorough),
    ],
)
def test_the_stronger_source_wins(
    tmp_path: Path, own_confdir: Path, recorder: Recorder, sources: list[str], winner: str
) -> None:
    """Flags beat the environment, that .env, that config.yaml, that the default."""
    args: list[str] = []
    env: dict[str, str | None] = {"JWT_HEADER": ""}
    for source in sources:
        more_args, more_env = give(source, {"jwt_user": source}, tmp_path, own_confdir)
        args += more_args
        env |= more_env
    with Proxy(*args, cwd=tmp_path, confdir=own_confdir, env=env) as proxy, Raw(proxy.port) as client:
        assert client.request(message("GET", f"{recorder.url}/", f"Host: {recorder.authority}")).status == 200
    assert verify(recorder.only().token)["payload"]["user"] == winner  # type: ignore[index]


def test_an_empty_variable_lets_the_next_source_speak(tmp_path: Path, own_confdir: Path, recorder: Recorder) -> None:
    """Empty is unset, in the environment as in .env."""
    (tmp_path / ".env").write_text("JWT_USER=\nHTTP_HOST=\n")
    give("config.yaml", {"jwt_user": "from config"}, tmp_path, own_confdir)
    with Proxy(cwd=tmp_path, confdir=own_confdir, env={"JWT_USER": ""}) as proxy, Raw(proxy.port) as client:
        assert client.request(message("GET", f"{recorder.url}/", f"Host: {recorder.authority}")).status == 200
    assert verify(recorder.only().token)["payload"]["user"] == "from config"  # type: ignore[index]


@pytest.mark.parametrize(
    ("args", "env", "dotenv", "config", "host"),
    [
        (
            ["--host", "127.0.0.5"],
            {"HTTP_HOST": "127.0.0.4"},
            "HTTP_HOST=127.0.0.3",
            "listen_host: 127.0.0.2",
            "127.0.0.5",
        ),
        pytest.param(["--listen-host", "127.0.0.5"], {"HTTP_HOST": "127.0.0.4"}, "", "", "127.0.0.5", marks=thorough),
        pytest.param(
            ["--set", "listen_host=127.0.0.5"], {"HTTP_HOST": "127.0.0.4"}, "", "", "127.0.0.5", marks=thorough
        ),
        ([], {"HTTP_HOST": "127.0.0.4"}, "HTTP_HOST=127.0.0.3", "listen_host: 127.0.0.2", "127.0.0.4"),
        ([], {}, "HTTP_HOST=127.0.0.3", "listen_host: 127.0.0.2", "127.0.0.3"),
        pytest.param([], {}, "", "listen_host: 127.0.0.2", "127.0.0.2", marks=thorough),
        ([], {}, "", "", "127.0.0.1"),
    ],
)
def test_the_stronger_source_says_where_to_listen(
    tmp_path: Path, own_confdir: Path, args: list[str], env: dict[str, str], dotenv: str, config: str, host: str
) -> None:
    """Where the proxy listens follows the same order; by default on 127.0.0.1 alone."""
    (tmp_path / ".env").write_text(dotenv)
    (own_confdir / "config.yaml").write_text(config)
    with Proxy(*args, cwd=tmp_path, confdir=own_confdir, env=env) as proxy:
        assert f"http://{host}:{proxy.port}" in proxy.stdout
        for address in (f"127.0.0.{number}" for number in range(1, 6)):
            with socket.socket() as visitor:
                assert (visitor.connect_ex((address, proxy.port)) == 0) == (address == host), address


def test_a_port_flag_beats_the_variable(start_proxy: StartProxy, tmp_path: Path) -> None:
    """--port wins over HTTP_PORT, be the latter usable or not in itself."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        proxy = start_proxy("--port", "0", env={"HTTP_PORT": str(taken.getsockname()[1])})
        assert proxy.port not in (0, taken.getsockname()[1])
        proxy = start_proxy("--set", "listen_port=0", env={"HTTP_PORT": str(taken.getsockname()[1])})
        assert proxy.port not in (0, taken.getsockname()[1])
