"""README.md, CHANGELOG.md and .env.example tell what is so."""

import base64
import itertools
import json
import os
import re
import secrets
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jwt as pyjwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from dotenv import dotenv_values
from joserfc.errors import JoseError
from jwtproxy.launcher import capacity, commandline, streaming
from jwtproxy.launcher.keys import generate
from mitmproxy.certs import create_ca
from mitmproxy.options import Options
from ruamel.yaml import YAML

from jwtproxy import __version__, claims, key_source, keys, settings
from jwtproxy.counters import Counters
from jwtproxy.signing import Signer

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
ENV_EXAMPLE = (ROOT / ".env.example").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
SOURCE = "".join(
    path.read_text() for folder in ("addons", "launcher") for path in sorted((ROOT / folder).rglob("*.py"))
)

SECRET = secrets.token_hex(64)
UNSEEN = {key_source.SECRET, key_source.SECRET_FILE, key_source.PASSPHRASE, key_source.PASSPHRASE_FILE}
"""Variables that are no options, lest a process list shows them."""
VARIABLES = UNSEEN | {"HTTP_PORT", "HTTP_HOST", "WORKERS"} | {option.variable for option in settings.OPTIONS}
OWN_FLAGS = {"--port", "--host", "--workers", "--grace", "--check"}


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def section(title: str, level: str = "##") -> str:
    """The text under a heading."""
    found = re.search(rf"^{level} {title}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    assert found, f"README.md has no section {title}"
    return found[1]


def table(text: str) -> list[list[str]]:
    """The rows of the first table, without its head."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows[2:]]


def quoted(text: str) -> list[str]:
    """What stands between backquotes."""
    return re.findall(r"`([^`]+)`", text)


def commands() -> list[str]:
    """Each shell command, continued lines joined, remarks removed."""
    text = "".join(blocks("sh")).replace("\\\n", " ")
    return [line for raw in text.splitlines() if (line := raw.partition("  #")[0].strip())]


def run(*arguments: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """What jwtproxy-run prints, in a folder that is its home too."""
    kept = {name: value for name, value in os.environ.items() if re.match("PATH$|LANG$|LC_|COV", name)}
    return subprocess.run(
        [sys.executable, "-m", "jwtproxy.launcher", *arguments],
        env=kept | {"HOME": str(folder)} | variables,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def anchor(heading: str) -> str:
    """The name that GitHub gives to a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


# --- the token ---


def shown_token() -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims, as README.md shows them."""
    header, body = map(json.loads, blocks("json"))
    return header, body


def test_the_token_shown_has_exactly_the_claims_of_a_real_one() -> None:
    header, shown = shown_token()
    real = claims.default_claims(settings.defaults({})["jwt_user"], shown["iat"])
    assert shown | {"jti": ""} == real | {"jti": ""}
    assert re.fullmatch(r"[0-9a-f]+", shown["jti"])
    assert len(shown["jti"]) == len(real["jti"])
    (key,) = keys.parse(SECRET, "the secret")
    token = key.signer().sign(real)
    assert pyjwt.get_unverified_header(token) == header


def test_the_request_shown_carries_the_token_shown() -> None:
    (block,) = blocks("diff")
    head, body = re.findall(r"^\+x-my-jwt: ([\w-]+)\.([\w-]+)…$", block, re.MULTILINE)[0]
    header, shown = shown_token()
    assert json.loads(base64.urlsafe_b64decode(head + "==")) == header
    begun = base64.urlsafe_b64decode(body[: len(body) // 4 * 4]).decode()
    assert json.dumps(shown, separators=(",", ":")).startswith(begun)


# --- settings ---


def settings_rows() -> dict[str, list[str]]:
    """The rows of the table of settings, by variable or else by flag."""
    rows = {}
    for flags, variable, option, default, meaning in table(section("Settings")):
        name = quoted(variable) or quoted(flags)
        rows[name[0]] = [flags, variable, option, default, meaning]
    return rows


def test_the_table_names_every_variable_option_and_flag_and_no_other() -> None:
    rows = settings_rows().values()
    assert {name for row in rows for name in quoted(row[1])} == VARIABLES
    ours = {name for row in rows for name in quoted(row[2]) if name.startswith("jwt_")}
    assert ours == {option.name for option in settings.OPTIONS}
    parser = commandline.parser(Options())
    (group,) = (group for group in parser._action_groups if group.title == "jwtproxy")
    flags = {name for action in group._group_actions for name in action.option_strings}
    assert flags == OWN_FLAGS
    assert OWN_FLAGS.issubset(name for row in rows for name in quoted(row[0]))
    known = {name for action in parser._actions for name in action.option_strings}
    assert {name for row in rows for name in quoted(row[0]) if not name.startswith("--set ")} <= known


@pytest.mark.parametrize("option", settings.OPTIONS, ids=lambda option: option.name)
def test_the_table_gives_the_default_of_every_option(option: settings.Option) -> None:
    flags, _, names, default, _ = settings_rows()[option.variable]
    assert (quoted(names), quoted(default) or [""]) == ([option.name], [option.default])
    assert quoted(flags) == [f"--set {option.name}=…"]


def test_the_table_gives_the_other_defaults() -> None:
    defaults = {name: "".join(quoted(row[3])) for name, row in settings_rows().items()}
    args = commandline.parser(Options()).parse_args([])
    fresh = Options()
    commandline.set_options(fresh, commandline.parser(fresh).parse_args(["--set", "confdir=/nowhere"]), {})
    assert defaults["HTTP_HOST"] == fresh.listen_host
    assert not fresh.rawtcp
    assert defaults["HTTP_PORT"] == "8080"  # mitmproxy's, where nothing is set
    assert defaults["WORKERS"] == "1"
    assert defaults["--grace"] == f"{commandline.grace(args):g}"


def test_the_table_gives_the_length_of_a_key() -> None:
    meaning = settings_rows()[key_source.SECRET][4]
    for algorithm, size in keys.HMAC_BYTES.items():
        assert re.search(rf"{algorithm}\D+{size}\b", meaning)


def test_the_example_of_a_mistake_is_what_is_printed(tmp_path: Path) -> None:
    (example,) = (block for block in blocks("console") if "jwtproxy: error" in block)
    command, said = example.split("\n", 1)
    assert command == "$ JWT_SHARED_SECRET=00 jwtproxy-run"
    done = run(folder=tmp_path, JWT_SHARED_SECRET="00")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


def test_the_example_env_file_names_every_variable_with_its_default() -> None:
    shown = dict(re.findall(r"^#?([A-Z_]+)=(.*)$", ENV_EXAMPLE, re.MULTILINE))
    assert set(shown) == VARIABLES
    rows = settings_rows()
    for name in VARIABLES - UNSEEN - {key_source.KEY_FILE, key_source.KEY_DIR}:
        assert [shown[name]] == (quoted(rows[name][3]) or [""]), name
    assert dotenv_values(ROOT / ".env.example") == {key_source.SECRET: ""}


# --- commands ---


def test_every_make_target_named_exists_and_every_target_is_named() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):.*## ", MAKEFILE, re.MULTILINE))
    named = {
        name
        for text in (README, CHANGELOG, ENV_EXAMPLE)
        for name in re.findall(r"(?:`|^|\d )make ([a-z-]+)", text, re.MULTILINE)
    }
    assert named <= targets
    assert targets - named <= {"build"}  # comes with every other


RUNS = [command for command in commands() if re.search(r"\bjwtproxy-run\b(?! keys new)", command)]


@pytest.mark.parametrize("command", RUNS)
def test_every_command_line_of_jwtproxy_run_is_valid(command: str, tmp_path: Path) -> None:
    words = shlex.split(command)
    place = words.index("jwtproxy-run")
    variables = dict(word.split("=", 1) for word in words[:place])
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "mine.py").write_text("def request(flow): ...\n")
    (tmp_path / "my-ca.pem").write_bytes(create_ca("mine", "mine", 2048)[1].public_bytes(Encoding.PEM))
    arguments = words[place + 1 :]
    for path in (tmp_path / "key.pem", tmp_path / "keys" / "one.pem"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(generate("ES256"))
    if key_source.SECRET_FILE not in variables and "jwt_key" not in command:
        variables[key_source.SECRET] = SECRET
    if arguments[:1] not in (["explain"], ["keys"]):
        arguments.append("--check")
    done = run(*arguments, folder=tmp_path, **variables)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_command_lines_of_bare_mitmdump_name_files_that_exist() -> None:
    bare = [shlex.split(command) for command in commands() if command.startswith("mitmdump")]
    assert bare
    for words in bare:
        for flag, name in itertools.pairwise(words):
            assert flag != "-s" or (ROOT / name).is_file()
        assert {"rawtcp=false", "127.0.0.1"} <= set(words)


def test_what_mitmproxy_users_must_install_is_what_the_addons_import() -> None:
    needs_pyjwt = bool(re.search(r"^\s*(import jwt\b|from jwt\b)", SOURCE, re.MULTILINE))
    assert needs_pyjwt == ("pipx inject mitmproxy pyjwt" in README)


def test_the_start_and_the_status_page_shown_are_of_this_version() -> None:
    (start,) = blocks("text")
    assert start.startswith(f"jwtproxy {__version__} listening on http://127.0.0.1:8080\n")
    (status,) = (block for block in blocks("console") if "/status" in block)
    shown = json.loads(status.splitlines()[1])
    assert {name: type(value) for name, value in shown.items()} == {
        name: type(value) for name, value in Counters().snapshot().items()
    }
    assert shown["version"] == __version__
    assert f"## [{__version__}]" in CHANGELOG


# --- what it says about behaviour ---


def test_every_text_of_ours_in_the_table_of_failures_is_in_the_code() -> None:
    texts = [text for row in table(section("When things fail")) for text in quoted(row[2])]
    ours = [text.removeprefix("jwtproxy: ") for text in texts if text.startswith("jwtproxy: ")]
    assert len(ours) >= 6
    code = re.sub(r"\{\w+\(?\)?\}|\{[\w.]+(?:!r|:g)?\}|\{' and '[^}]*\}", "{}", SOURCE)
    for text in ours:
        form = re.sub(r"http://\S+:80\b|https://\w+\.example|'admin'", "{}", text)
        form = re.sub(r"\b300\b|/status( and /.well-known/jwks.json)?", "{}", form)
        assert form in code or text in code, text


def test_what_switches_streaming_off_is_listed() -> None:
    listed = {
        kind: {name for name in quoted(text) if re.fullmatch(r"[a-z]+(_[a-z]+)*", name)}
        for kind, text in re.findall(
            r"^- \*\*(requests|responses)\*\*: (.*?)(?=^- |^$)", section("Streaming"), re.MULTILINE | re.DOTALL
        )
    }
    assert listed == {"requests": set(streaming._WHOLE_REQUESTS), "responses": set(streaming._WHOLE_RESPONSES)}
    assert streaming.STREAM_ABOVE == 1 << 20


def test_what_needs_one_process_is_listed() -> None:
    line = re.findall(r"^- (`-w`.*?)(?=^- |^$)", section("Workers"), re.MULTILINE | re.DOTALL)[0]
    assert set(capacity._SINGLE) <= set(quoted(line.replace("(", " ").replace(")", " ")))
    assert f"{capacity.MEMORY_PER_WORKER >> 20} MiB" in section("Workers")


@pytest.mark.parametrize("code", blocks("python")[:2], ids=["pyjwt", "joserfc"])
def test_the_code_that_verifies_accepts_a_good_token_and_no_other(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, key_source.SECRET, SECRET)
    names: dict[str, Any] = {}
    exec(code, names)
    signer, now = Signer(bytes.fromhex(SECRET), "HS512"), time.time()
    good = claims.default_claims("someone", now)
    assert dict(names["verify"](signer.sign(good))) == good
    other_key = Signer(bytes(64), "HS512").sign(good)
    bad = [other_key, signer.sign(good | {"iat": int(now) - 100}), signer.sign(good | {"iat": int(now) + 100})]
    bad += [signer.sign({name: value for name, value in good.items() if name != missing}) for missing in good]
    for token in bad:
        with pytest.raises((pyjwt.PyJWTError, JoseError)):
            names["verify"](token)


def test_the_rules_shown_are_explained_as_shown(tmp_path: Path) -> None:
    (rules,) = (block for block in blocks("yaml") if "\nrules:" in block)
    (tmp_path / "rules.yaml").write_text(rules)
    assert run("keys", "new", "--out", "pay.pem", folder=tmp_path).returncode == 0
    (example,) = (block for block in blocks("console") if "explain" in block)
    command, said = example.removesuffix("…\n").split("\n", 1)
    done = run(*shlex.split(command)[2:], folder=tmp_path, **{key_source.SECRET: SECRET})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(said)
    assert '"scope": "pay"' in done.stdout


def test_the_schedule_of_keys_shown_is_one(tmp_path: Path) -> None:
    (manifest,) = (block for block in blocks("yaml") if "not_before" in block)
    (tmp_path / "keys.yaml").write_text(manifest)
    for name in re.findall(r"^(\S+):", manifest, re.MULTILINE):
        (tmp_path / name).write_text(generate("ES256"))
    shown = run("keys", "list", "--set", f"jwt_key_dir={tmp_path}", folder=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert re.search(r"ES256 +december +2026-12-01T00:00Z", shown.stdout)


def test_the_manifest_is_one_and_sets_variables_that_exist() -> None:
    (block,) = (block for block in blocks("yaml") if "kind: Pod" in block)
    pod = YAML(typ="safe").load(block)
    (proxy,) = pod["spec"]["initContainers"]
    assert (proxy["name"], proxy["restartPolicy"]) == ("jwtproxy", "Always"), "a sidecar"
    assert {entry["name"] for entry in proxy["env"]} <= VARIABLES
    volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
    for container in (proxy, *pod["spec"]["containers"]):
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        (program,) = proxy[probe]["exec"]["command"]
        assert f"/bin/{program}" in (ROOT / "Dockerfile").read_text()


def test_what_is_said_of_the_image_is_in_the_dockerfile() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    for setting in ("HTTP_HOST=*", "WORKERS=auto"):
        assert f"`{setting}`" in section("Containers")
        assert re.search(rf"^    {re.escape(setting)}\b|^    {re.escape(setting)} ", dockerfile, re.MULTILINE)
    (user,) = re.findall(r"runs as user (\d+)", README)
    assert f"USER {user}:{user}\n" in dockerfile


def test_what_is_said_of_speed_is_what_was_measured() -> None:
    results = json.loads((ROOT / "tests/benchmarks/results.json").read_text())

    def cost(scenario: str, target: str) -> float:
        return float(results["scenarios"][scenario]["targets"][target]["cpu_us_per_request"])

    assert 0.35 < cost("plain", "jwtproxy-1") / cost("plain", "mitmdump") < 0.6, "about half"
    assert 0.35 < cost("https1", "jwtproxy-1") / cost("https1", "mitmdump") < 0.6, "about half"
    assert 0.2 < cost("plain", "proxy.py") / cost("plain", "jwtproxy-1") < 0.5, "about a third"
    assert cost("plain", "asgi") / cost("plain", "jwtproxy-1") > 5, "many times"
    assert results["token"]["claims_and_sign_us"] < 10
    took = {name: times["mint_and_sign_us"] for name, times in results["algorithms"].items()}
    assert 25 < took["ES256"] < 75 > took["EdDSA"] > 25, "about 50"
    assert all(250 < took[name] < 450 for name in ("RS256", "PS512", "ES384", "ES512")), "300 to 400"


# --- links ---


def anchors(text: str) -> set[str]:
    """Where links within the page may lead, as GitHub names headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return set(map(anchor, headings))


@pytest.mark.parametrize("text", [README, CHANGELOG], ids=["README", "CHANGELOG"])
def test_every_link_within_the_repository_leads_somewhere(text: str) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    for link in links:
        if link.startswith("#"):
            assert link[1:] in anchors(text), link
        elif not link.startswith("https://"):
            assert (ROOT / link).exists(), link
    assert "`" not in "".join(links)


def test_the_contents_name_every_section() -> None:
    listed = re.findall(r"\]\(#([\w-]+)\)", README.partition("**Contents:**")[2].partition("\n\n")[0])
    assert listed == [anchor(title) for title in re.findall(r"^## (.+)$", README, re.MULTILINE)]
