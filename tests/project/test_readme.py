"""README.md, the manual in launcher/help, CHANGELOG.md and .env.example tell what is so."""

import atexit
import base64
import functools
import itertools
import json
import re
import secrets
import shlex
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import jwt as pyjwt
import pytest
from dotenv import dotenv_values
from joserfc.errors import JoseError
from mitmproxy.certs import CertStore
from mitmproxy.options import Options
from ruamel.yaml import YAML

from jwtproxy import __version__
from jwtproxy.conduct.proxy_status import ErrorType
from jwtproxy.config.options import Option
from jwtproxy.launcher import commandline, usage
from jwtproxy.launcher.addons import streaming
from jwtproxy.launcher.environment import OPTIONS
from jwtproxy.launcher.processes import capacity
from jwtproxy.mitm import stock
from jwtproxy.observe import pages, sharing
from jwtproxy.observe.counters import Counters
from jwtproxy.tokens import claims, key_formats, key_source
from jwtproxy.tokens.algorithms import HMAC_BYTES
from jwtproxy.tokens.new_key import generate
from jwtproxy.tokens.signing import Signer
from tests.benchmarks import report
from tests.support.harness import run_launcher

ROOT = Path(__file__).parent.parent.parent
HELP = ROOT / "launcher/help"
README = (ROOT / "README.md").read_text()
MANUAL = {path.stem: path.read_text() for path in sorted(HELP.glob("*.md"))}
DOCUMENTS = {"README": README, **MANUAL}
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
SECURITY = (ROOT / "SECURITY.md").read_text()
ENV_EXAMPLE = (ROOT / ".env.example").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
SOURCE = "".join(
    path.read_text() for folder in ("addons", "launcher") for path in sorted((ROOT / folder).rglob("*.py"))
)

SECRET = secrets.token_hex(64)
UNSEEN = {key_source.SECRET, key_source.SECRET_FILE, key_source.PASSPHRASE, key_source.PASSPHRASE_FILE}
UNSEEN |= {sharing.URL, sharing.URL_FILE}
"""Variables that are no options, lest a process list shows them."""
VARIABLES = UNSEEN | {"HTTP_PORT", "HTTP_HOST", "WORKERS", "JWT_STRICT_ENV"} | {option.variable for option in OPTIONS}
OWN_FLAGS = set(
    """--key --user --audience --ttl --header --rules --port --host --workers --allow-client --log-format --filter
    --grace --drain-delay --check --json""".split()
)


def blocks(language: str, text: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def table(text: str) -> list[list[str]]:
    """The rows of the first table, without its head."""
    beyond = itertools.dropwhile(lambda line: not line.startswith("|"), text.splitlines())
    rows = list(itertools.takewhile(lambda line: line.startswith("|"), beyond))
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows[2:]]


def quoted(text: str) -> list[str]:
    """What stands between backquotes."""
    return re.findall(r"`([^`]+)`", text)


def commands(text: str) -> list[tuple[str, dict[str, str]]]:
    """Each shell command, continued lines joined, remarks removed, with the settings exported before it."""
    found = []
    for block in blocks("sh", text):
        exported: dict[str, str] = {}
        for raw in block.replace("\\\n", " ").splitlines():
            line = raw.partition("  #")[0].strip()
            found.append((line, exported.copy()))
            if line.startswith("export JWT_") and "$(" not in line:
                exported |= dict(word.split("=", 1) for word in shlex.split(line)[1:])
    return found


def run(*arguments: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """`jwtproxy-run` in a folder that is home, too, and has nothing but what the test puts there, and a CA."""
    if not (folder / ".mitmproxy").exists():
        shutil.copytree(_ca(), folder / ".mitmproxy")
    return run_launcher(*arguments, cwd=folder, env={"HTTP_PORT": None, **variables}, secret=None)


@functools.cache
def _ca() -> Path:
    """A folder with a CA: making one takes a second."""
    folder = Path(tempfile.mkdtemp())
    CertStore.create_store(folder, "mitmproxy", 2048)
    atexit.register(shutil.rmtree, folder)
    return folder


def anchor(heading: str) -> str:
    """The name that GitHub gives to a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


# --- the token ---


def shown_token() -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims, as README.md shows them."""
    header, body = map(json.loads, blocks("json", README))
    return header, body


def test_the_token_shown_has_exactly_the_claims_of_a_real_one() -> None:
    header, shown = shown_token()
    real = claims.default_claims("username", shown["iat"])
    assert shown | {"jti": ""} == real | {"jti": ""}
    assert re.fullmatch(r"[0-9a-f]+", shown["jti"])
    assert len(shown["jti"]) == len(real["jti"])
    (key,) = key_formats.parse(SECRET, "the secret")
    token = key.signer().sign(real)
    assert pyjwt.get_unverified_header(token) == header


def test_the_request_shown_carries_the_token_shown() -> None:
    (block,) = blocks("diff", README)
    head, body = re.findall(r"^\+x-my-jwt: ([\w-]+)\.([\w-]+)…$", block, re.MULTILINE)[0]
    header, shown = shown_token()
    assert json.loads(base64.urlsafe_b64decode(head + "==")) == header
    begun = base64.urlsafe_b64decode(body[: len(body) // 4 * 4]).decode()
    assert json.dumps(shown, separators=(",", ":")).startswith(begun)


# --- settings ---


def settings_rows(text: str) -> dict[str, list[str]]:
    """The rows of the table of settings, by variable or else by flag: names, variable, default, meaning."""
    start = text.index("\n| Option or flag | Variable | Default | Meaning |")
    rows = table(text[start:].lstrip().partition("\n\n")[0])
    return {(quoted(variable) or quoted(names))[0]: [names, variable, *rest] for names, variable, *rest in rows}


SETTINGS = settings_rows(MANUAL["settings"])


def test_the_table_names_every_variable_option_and_flag_and_no_other() -> None:
    rows = SETTINGS.values()
    assert {name for row in rows for name in quoted(row[1])} == VARIABLES
    names = {name for row in rows for name in quoted(row[0])}
    assert {name for name in names if name.startswith("jwt_")} == {option.name for option in OPTIONS}
    parser = commandline.parser(Options())
    groups = [group for group in parser._action_groups if group.title in (usage.TOKENS, usage.SERVING)]
    flags = {name for group in groups for action in group._group_actions for name in action.option_strings}
    assert flags == OWN_FLAGS
    assert flags <= names
    known = {name for action in parser._actions for name in action.option_strings}
    assert {name for name in names if name.startswith("-")} <= known


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_the_table_gives_the_default_of_every_option(option: Option) -> None:
    names, _, default, _ = SETTINGS[option.variable]
    assert (quoted(names)[0], quoted(default) or [""]) == (option.name, [option.default])


def test_the_table_shows_each_flag_with_its_option() -> None:
    for flag, (name, _, _) in commandline._FLAGS.items():
        assert quoted(SETTINGS[name.upper()][0]) == [name, flag]


def test_the_table_gives_the_other_defaults() -> None:
    defaults = {name: "".join(quoted(row[2])) for name, row in SETTINGS.items()}
    args = commandline.parser(Options()).parse_args([])
    fresh = Options()
    commandline.set_options(fresh, commandline.parser(fresh).parse_args(["--set", "confdir=/nowhere"]), {})
    assert defaults["HTTP_HOST"] == fresh.listen_host
    assert not fresh.rawtcp
    assert defaults["HTTP_PORT"] == "8080"  # mitmproxy's, where nothing is set
    assert defaults["WORKERS"] == "1"
    assert defaults["--grace"] == f"{commandline.grace(args):g}"
    assert defaults["--drain-delay"] == f"{commandline.drain_delay(args):g}"


def test_the_settings_in_the_readme_are_as_in_the_manual() -> None:
    shown = settings_rows(README)
    assert shown.keys() < SETTINGS.keys()
    for name, (names, variable, default, _) in shown.items():
        whole = SETTINGS[name]
        assert set(quoted(names)) <= set(quoted(whole[0]))
        assert (variable, default) == (whole[1], whole[2])


def test_the_table_gives_the_length_of_a_key() -> None:
    meaning = SETTINGS[key_source.SECRET][3]
    for algorithm, size in HMAC_BYTES.items():
        assert re.search(rf"{algorithm}\D+{size}\b", meaning)


@pytest.mark.parametrize("text", [README, MANUAL["settings"]], ids=["README", "settings"])
def test_the_example_of_a_mistake_is_what_is_printed(text: str, tmp_path: Path) -> None:
    examples = [block for block in blocks("console", text) if "jwtproxy: error" in block]
    assert examples
    for example in examples:
        command, said = example.split("\n", 1)
        variable, value = re.findall(r"\$ (\w+)=(\w+) jwtproxy-run", command)[0]
        done = run(folder=tmp_path, **{variable: value})
        assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


def test_the_example_of_what_is_in_force_is_what_is_printed(tmp_path: Path) -> None:
    (example,) = (block for block in blocks("console", MANUAL["settings"]) if "all settings are valid" in block)
    command, said = example.split("\n", 1)
    (tmp_path / ".env").write_text(f"JWT_SHARED_SECRET={SECRET}\n")
    done = run(*shlex.split(command)[2:], folder=tmp_path)
    said = said.replace("/home/me/jwtproxy", str(tmp_path.resolve()))
    assert (done.returncode, done.stdout, done.stderr) == (0, said, "")


def test_the_start_shown_says_what_is_in_force(tmp_path: Path) -> None:
    (start,) = blocks("text", MANUAL["starting"])
    (shown,) = (line for line in start.splitlines() if line.startswith("  tokens  "))
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "ends.py").write_text("import os\ndef running(): os.kill(os.getpid(), 15)\n")
    done = run("-p", "0", "-s", "ends.py", folder=tmp_path, JWT_SHARED_SECRET_FILE="secret")
    assert shown in done.stdout.splitlines()


def test_the_example_env_file_names_every_variable_with_its_default() -> None:
    shown = dict(re.findall(r"^#?([A-Z_]+)=(.*)$", ENV_EXAMPLE, re.MULTILINE))
    assert set(shown) == VARIABLES
    for name in VARIABLES - UNSEEN - {key_source.KEY_FILE, key_source.KEY_DIR}:
        assert [shown[name]] == (quoted(SETTINGS[name][2]) or [""]), name
    assert dotenv_values(ROOT / ".env.example") == {key_source.SECRET: ""}


# --- commands ---


def test_every_make_target_named_exists_and_every_target_is_named() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):.*## ", MAKEFILE, re.MULTILINE))
    named = {
        name
        for text in (*DOCUMENTS.values(), CHANGELOG, SECURITY, ENV_EXAMPLE)
        for name in re.findall(r"(?:`|^|\d )make ([a-z-]+)", text, re.MULTILINE)
    }
    assert named <= targets
    assert targets - named <= {"build"}  # comes with every other


RUNS = {
    f"{command} {exported or ''}": (command, exported)  # once, though several pages show it
    for text in DOCUMENTS.values()
    for command, exported in commands(text)
    if "jwtproxy-run" in command
}


@pytest.mark.parametrize(("command", "exported"), RUNS.values(), ids=RUNS)
def test_every_command_line_of_jwtproxy_run_is_valid(command: str, exported: dict[str, str], tmp_path: Path) -> None:
    words = shlex.split(re.sub(r'^eval "\$\((.*)\)"$', r"\1", command).partition(" >")[0])
    place = words.index("jwtproxy-run")
    variables = exported | dict(word.split("=", 1) for word in words[:place])
    arguments = words[place + 1 :]
    prepare(tmp_path, keys=arguments[:2] != ["keys", "new"])
    if not variables.keys() & {key_source.SECRET_FILE, key_source.KEY_FILE} and "jwt_key" not in command:
        variables[key_source.SECRET] = SECRET
    if arguments[:1] in (["status"], ["env"], ["exec"]):  # of a proxy that runs, or with a command that has to
        arguments = [*itertools.takewhile(lambda word: word != "--", arguments), "--help"]
    elif not arguments or arguments[0][0] == "-" or arguments[0] == "serve":
        arguments.append("--check")
    done = run(*arguments, folder=tmp_path, **variables)
    assert (done.returncode, done.stderr) == (0, "")


def prepare(folder: Path, *, keys: bool) -> None:
    """Make the files that commands name."""
    (folder / "secret").write_text(SECRET)
    (folder / "rules.yaml").write_text("rules: [{match: ~d x}]")
    (folder / "mine.py").write_text("def request(flow): ...\n")
    shutil.copy(_ca() / "mitmproxy-ca-cert.pem", folder / "my-ca.pem")
    for path in (folder / "key.pem", folder / "keys" / "one.pem") if keys else ():
        path.parent.mkdir(exist_ok=True)
        path.write_text(generate("ES256"))


def test_the_command_lines_of_bare_mitmdump_name_files_that_exist() -> None:
    for text in (README, MANUAL["starting"]):
        bare = [shlex.split(command) for command, _ in commands(text) if re.search(r"\bmitmdump -s", command)]
        assert bare
        for words in bare:
            for flag, name in itertools.pairwise(words):
                assert flag != "-s" or (ROOT / name).is_file()
            assert {"rawtcp=false", "127.0.0.1"} <= set(words)


def test_what_mitmproxy_users_must_install_is_what_the_addons_import() -> None:
    needs_pyjwt = bool(re.search(r"^\s*(import jwt\b|from jwt\b)", SOURCE, re.MULTILINE))
    for text in (README, MANUAL["starting"]):
        assert needs_pyjwt == ("pipx inject mitmproxy pyjwt" in text)


def test_the_start_and_the_status_page_shown_are_of_this_version() -> None:
    (start,) = blocks("text", MANUAL["starting"])
    assert start.startswith(f"jwtproxy {__version__} listening on http://127.0.0.1:8080\n")
    status, *_ = blocks("console", MANUAL["pages"])
    shown = json.loads(status.splitlines()[1])
    assert {name: type(value) for name, value in shown.items()} == {
        name: type(value) for name, value in Counters().snapshot().items()
    }
    assert shown["version"] == __version__
    assert f"## [{__version__}]" in CHANGELOG


# --- what it says about behaviour ---


def test_every_text_of_ours_in_the_table_of_failures_is_in_the_code() -> None:
    texts = [text for row in table(MANUAL["failures"]) for text in quoted(row[2])]
    ours = [text.removeprefix("jwtproxy: ") for text in texts if text.startswith("jwtproxy: ")]
    assert len(ours) >= 6
    code = re.sub(r"\{\w+\(?\)?\}|\{[\w.]+(?:!r|:g)?\}|\{' and '[^}]*\}", "{}", SOURCE)
    for text in ours:
        form = re.sub(r"http://\S+:(?:80|3128)\b|https://\w+\.example|'admin'", "{}", text)
        form = re.sub(r"(?<=cannot connect to \{\}: ).*", "", form)  # the reason is the system's
        form = re.sub(r"\b(?:30|60|300)\b|(?<=wait )8\b|/status|(?<=not ready: ).*", "{}", form)
        assert form in code or text in code, text


def test_every_type_of_failure_is_in_the_table() -> None:
    _, _, types = MANUAL["failures"].partition("| Type | What |\n")
    listed = [error for row in table(f"| Type | What |\n{types}") for error in quoted(row[0])]
    assert sorted(listed) == sorted(ErrorType)


def test_what_switches_streaming_off_is_listed() -> None:
    listed = {
        kind: {name for name in quoted(text) if re.fullmatch(r"[a-z]+(_[a-z]+)*", name)}
        for kind, text in re.findall(
            r"^- \*\*(requests|responses)\*\*: (.*?)(?=^- |^$)", MANUAL["streaming"], re.MULTILINE | re.DOTALL
        )
    }
    requests = {need.option for need in stock.NEEDS if need.requests}
    responses = {need.option for need in stock.NEEDS if need.responses}
    assert listed == {"requests": requests, "responses": responses}
    assert streaming.STREAM_ABOVE == 64 << 10


def test_what_needs_one_process_is_listed() -> None:
    line = re.findall(r"^- (`-w`.*?)(?=^- |^$)", MANUAL["workers"], re.MULTILINE | re.DOTALL)[0]
    assert {need.option for need in stock.NEEDS if need.flag} <= set(quoted(line.replace("(", " ").replace(")", " ")))
    assert f"{capacity.MEMORY_PER_WORKER >> 20} MiB" in MANUAL["workers"]


@pytest.mark.parametrize("code", blocks("python", MANUAL["verifying"])[:2], ids=["pyjwt", "joserfc"])
def test_the_code_that_verifies_accepts_a_good_token_and_no_other(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(key_source.SECRET, SECRET)
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
    (rules,) = blocks("yaml", MANUAL["rules"])
    (tmp_path / "rules.yaml").write_text(rules)
    assert run("keys", "new", "--out", "pay.pem", folder=tmp_path).returncode == 0
    (example,) = blocks("console", MANUAL["rules"])
    command, said = example.removesuffix("…\n").split("\n", 1)
    done = run(*shlex.split(command)[2:], folder=tmp_path, **{key_source.SECRET: SECRET})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(said)
    assert '"scope": "pay"' in done.stdout


def test_the_schedule_of_keys_shown_is_one(tmp_path: Path) -> None:
    (manifest,) = blocks("yaml", MANUAL["keys"])
    (tmp_path / "keys.yaml").write_text(manifest)
    for name in re.findall(r"^(\S+):", manifest, re.MULTILINE):
        (tmp_path / name).write_text(generate("ES256"))
    shown = run("keys", "list", "--set", f"jwt_key_dir={tmp_path}", folder=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert re.search(r"ES256 +december +2026-12-01T00:00Z", shown.stdout)


def test_the_manifest_is_one_and_sets_variables_that_exist() -> None:
    pod = YAML(typ="safe").load(HELP / "kubernetes.yaml")
    (proxy,) = pod["spec"]["initContainers"]
    assert (proxy["name"], proxy["restartPolicy"]) == ("jwtproxy", "Always"), "a sidecar"
    assert {entry["name"] for entry in proxy["env"]} <= VARIABLES
    volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
    for container in (proxy, *pod["spec"]["containers"]):
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    (where,) = [entry["value"] for entry in proxy["env"] if entry["name"] == "JWT_PAGES"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = proxy[probe]["httpGet"]
        assert asked["path"] in pages.PAGES
        assert asked["port"] == pages.OPTIONS[0].check(where).port
    assert proxy["args"][0] in OWN_FLAGS


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd-analyze")
def test_the_unit_is_one_and_exposes_little(tmp_path: Path) -> None:
    unit = tmp_path / "jwtproxy.service"
    unit.write_text((HELP / unit.name).read_text().replace("/opt/jwtproxy/bin/jwtproxy-run", "/bin/true"))
    for verb, *arguments in (["verify"], ["security", "--offline=true", "--threshold=20"]):
        done = subprocess.run(
            ["systemd-analyze", verb, "--man=no" if verb == "verify" else "--no-pager", *arguments, str(unit)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    variables = {name for name, _ in re.findall(r"^Environment=(\w+)=(.*)$", unit.read_text(), re.MULTILINE)}
    assert variables <= VARIABLES


def test_what_is_said_of_the_image_is_in_the_dockerfile() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    for setting in ("HTTP_HOST=*", "WORKERS=auto"):
        assert f"`{setting}`" in MANUAL["containers"]
        assert re.search(rf"^    {re.escape(setting)}\b|^    {re.escape(setting)} ", dockerfile, re.MULTILINE)
    (user,) = re.findall(r"runs as user (\d+)", MANUAL["containers"])
    assert f"USER {user}:{user}\n" in dockerfile


SPEED_ROWS = {
    "plain HTTP, kept alive": ["plain"],
    "HTTPS/1.1 in tunnels, kept alive": ["https1"],
    "HTTPS/2 in tunnels": ["https2"],
    "plain HTTP, a connection each": ["close"],
    "1 MiB down, up": ["download", "upload"],
}


def test_what_is_said_of_speed_is_what_was_measured() -> None:
    results = json.loads((ROOT / "tests/benchmarks/results.json").read_text())

    def share(scenario: str, target: str, other: str = "jwtproxy-1") -> float:
        return float(report.share(results, scenario, target, other) or 0)

    assert 12 < share("plain", "mitmdump") < 14, "a thirteenth"
    assert 9 < share("https1", "mitmdump") < 11, "a tenth"
    assert 1.3 < share("plain", "proxy.py") < 1.5, "two fifths more"
    assert 1.1 < share("https1", "proxy.py") < 1.2, "a seventh more"
    assert 2.5 < 1 / share("plain", "nginx") < 3.5, "a third"
    assert share("plain", "asgi") > 5, "many times"
    assert 7.5 < results["idle"]["jwtproxy-1"]["kib_each"] < 8.5, "8 KiB"
    table = README.partition("## Speed\n")[2].partition("\n## ")[0]
    for row, scenarios in SPEED_ROWS.items():
        (line,) = re.findall(rf"^\| {re.escape(row)} \|(.*)\|$", table, re.MULTILINE)
        for cell, target in zip(line.split("|"), ("jwtproxy-1", "proxy.py", "nginx"), strict=True):
            said = [int(number) for number in re.findall(r"(\d+) %", cell)]
            can = [name for name in scenarios if "reason" not in results["scenarios"][name]["targets"][target]]
            assert said == [round(100 * share(name, target, "mitmdump")) for name in can], (row, target)
    assert results["token"]["claims_and_sign_us"] < 10
    took = {name: times["mint_and_sign_us"] for name, times in results["algorithms"].items()}
    assert 25 < took["ES256"] < 45 > took["EdDSA"] > 25, "about 35"
    assert all(200 < took[name] < 300 for name in ("ES384", "ES512", "RS256", "PS512")), "about 250"


# --- form and links ---


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 200


@pytest.mark.parametrize("text", MANUAL.values(), ids=MANUAL)
def test_every_topic_begins_with_its_title_and_one_sentence(text: str) -> None:
    assert re.match(r"# [A-Z][^\n]+\n\n[A-Z][^\n]{20,118}[^.]\.\n\n", text)


def anchors(text: str) -> set[str]:
    """Where links into a page may lead, as GitHub names headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return set(map(anchor, headings))


PAGES = {ROOT / "README.md": README, ROOT / "CHANGELOG.md": CHANGELOG, ROOT / "SECURITY.md": SECURITY} | {
    HELP / f"{name}.md": text for name, text in MANUAL.items()
}


def links(text: str) -> list[str]:
    """Where a page's links lead within the repository."""
    found = re.findall(r"\]\(([^)\s]+)\)", text)
    return [link for link in found if not link.startswith("https://")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_within_the_repository_leads_somewhere(page: Path) -> None:
    for link in links(PAGES[page]):
        path, _, name = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        assert not name or name in anchors(PAGES[target]), link
        assert "`" not in link


def test_the_readme_links_to_every_topic() -> None:
    table_of_topics = README.partition("## The manual\n")[2].partition("\n## ")[0]
    assert sorted(links(table_of_topics)) == [f"launcher/help/{name}.md" for name in MANUAL]
