"""What is set for programs, and what is kept from them."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from dotenv import dotenv_values

from jwtproxy.launcher.clients import variables
from jwtproxy.launcher.clients.variables import CA_FILES, PROXY, Files

URL = "http://127.0.0.1:4711"
FILES = Files(dict.fromkeys(CA_FILES, "/tmp/x/ca.pem"), "/tmp/x/store.p12", "/tmp/x/wgetrc", "/opt/python")
ODD = 'it\'s "odd" $HOME \\n `id` #'


def test_each_variable_of_the_issue_is_there() -> None:
    found = variables.variables(URL, FILES, {})
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY", "ws_proxy", "wss_proxy"):
        assert found[name] == URL
    assert found["NODE_USE_ENV_PROXY"] == "1"
    assert {found[name] for name in CA_FILES} == {"/tmp/x/ca.pem"}
    assert found["WGETRC"] == "/tmp/x/wgetrc"
    assert not {"no_proxy", "NO_PROXY"} & set(found)


def test_java_is_told_by_its_options_and_goes_around_for_nobody() -> None:
    options = variables.variables("http://u:p@[::1]:4711", FILES, {"JAVA_TOOL_OPTIONS": "-Xmx1g"})["JAVA_TOOL_OPTIONS"]
    assert options.split() == [
        "-Xmx1g",
        "-Dhttp.proxyHost=::1",
        "-Dhttp.proxyPort=4711",
        "-Dhttps.proxyHost=::1",
        "-Dhttps.proxyPort=4711",
        "-Dhttp.nonProxyHosts=",
        "-Djavax.net.ssl.trustStore=/tmp/x/store.p12",
        "-Djavax.net.ssl.trustStoreType=PKCS12",
        "-Djavax.net.ssl.trustStorePassword=changeit",
    ]


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ("/tmp/x", "/tmp/x/store.p12"),
        ("/tmp/with space", '"/tmp/with space/store.p12"'),
        ("/tmp/o'brien", '"/tmp/o\'brien/store.p12"'),
        ('/tmp/"a" b', '"/tmp/"\'"\'"a"\'"\'" b/store.p12"'),
    ],
)
def test_java_has_no_escapes_but_two_kinds_of_quotes(folder: str, said: str) -> None:
    """It does not start if one is not closed."""
    options = variables.variables(URL, FILES._replace(trust_store=f"{folder}/store.p12"), {})["JAVA_TOOL_OPTIONS"]
    assert f" -Djavax.net.ssl.trustStore={said} -D" in options


@pytest.mark.parametrize("folder", ["/tmp/x", "/tmp/with space", "/tmp/o'brien", "/tmp/odd \"'' folder"])
def test_what_was_set_before_stays_and_nothing_is_added_twice(folder: str) -> None:
    """A shell may ask again and again."""
    files = FILES._replace(trust_store=f"{folder}/store.p12")
    before = {"JAVA_TOOL_OPTIONS": '-Da="b c" -Xint', "PYTHONPATH": "/mine::/other"}
    once = variables.variables(URL, files, before)
    assert once["JAVA_TOOL_OPTIONS"].startswith('-Da="b c" -Xint -D')
    assert once["PYTHONPATH"] == "/opt/python:/mine::/other"
    assert variables.variables(URL, files, {**before, **once}) == once


def test_secrets_are_left_out_and_all_else_stays() -> None:
    secrets = {
        *("JWT_SHARED_SECRET", "JWT_SHARED_SECRET_FILE", "JWT_KEY_FILE", "JWT_KEY_DIR"),
        *("JWT_KEY_PASSPHRASE", "JWT_KEY_PASSPHRASE_FILE", "JWT_REDIS_URL", "JWT_REDIS_URL_FILE"),
    }
    others = {"JWT_SECRET": "the program's own", "JWT_USER": "ci", "PATH": "/bin", "MY_JWT_KEY_FILE": "x"}
    assert variables.without_secrets({**dict.fromkeys(secrets, "x"), **others}) == others


def test_another_proxy_is_noticed() -> None:
    assert variables.other_proxy({"no_proxy": "x", "http_proxy": ""}) == ""
    assert variables.other_proxy({"HTTPS_PROXY": "http://corporate.example"}) == "HTTPS_PROXY"
    assert {"all_proxy", "npm_config_proxy"} < set(PROXY)


@pytest.mark.parametrize("shell", ["bash", "sh", "fish", "pwsh"])
def test_a_shell_reads_what_is_meant(shell: str, tmp_path: Path) -> None:
    if not shutil.which(shell):
        pytest.skip(f"no {shell} here")
    kind = {"sh": "bash", "pwsh": "powershell"}.get(shell, shell)
    script = variables.in_shell(kind, [("ODD", ODD), ("PLAIN", "x")])
    look = "import json, os; print(json.dumps([os.environ['ODD'], os.environ['PLAIN']]))"
    (tmp_path / "script").write_text(f"{script}python3 -c {shlex.quote(look)}\n")
    environ = {"PATH": os.environ["PATH"]}
    done = subprocess.run([shell, "script"], cwd=tmp_path, env=environ, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [ODD, "x"]


def test_lines_by_shell() -> None:
    values = [("A", "it's")]
    assert variables.in_shell("fish", values) == "set -gx A 'it\\'s'\n"
    assert variables.in_shell("powershell", values) == "$Env:A = 'it''s'\n"
    assert variables.in_shell("powershell", [("A", "o\u2019brien")]) == "$Env:A = 'o\u2019\u2019brien'\n"


def test_dotenv_reads_what_is_meant(tmp_path: Path) -> None:
    values = {"PLAIN": "http://127.0.0.1:1", "SPACED": "-Da=b -Dc=", "ODD": 'it\'s "odd" \\ #'}
    (tmp_path / ".env").write_text(variables.in_shell("dotenv", values.items()))
    assert dotenv_values(tmp_path / ".env", interpolate=False) == values
    plain = "PLAIN=http://127.0.0.1:1\nSPACED=-Da=b -Dc=\n"  # as docker --env-file wants it
    assert (tmp_path / ".env").read_text().startswith(plain)
