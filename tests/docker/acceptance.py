"""The image and compose.yaml do what containers.md says. `make docker-test` runs this, and prints what it measures."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import signal
import socket
import ssl
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import trustme
from joserfc import jwt
from joserfc.jwk import OctKey
from mitmproxy.certs import CertStore

from . import engine
from .engine import ENVIRONMENT, HARDENED, NAME, Container, docker, inspect, run
from .traffic import Upstream, load

ROOT = Path(__file__).parent.parent.parent
MIB = 1 << 20
HOST = "host.docker.internal"
SECRET = secrets.token_hex(64)
WITH_SECRET = {"JWT_SHARED_SECRET": SECRET}

pytestmark = pytest.mark.timeout(600)


def show(text: str) -> None:
    print(f"\n    {text}", end=" ", flush=True)


# --- what the tests stand on ---


@pytest.fixture(scope="session", autouse=True)
def _tidy() -> Iterator[None]:
    """Whatever happens, nothing stays behind."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run("docker", "compose", "version")
    try:
        yield
    finally:
        engine.sweep()


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a clone of this tree would hold, and an .env with a secret that must stay where it is."""
    folder = tmp_path_factory.mktemp("clone")
    listed = run(
        *("git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"), cwd=ROOT
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            copy = folder / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes((ROOT / name).read_bytes())
    (folder / ".env").write_text(f"JWT_SHARED_SECRET={SECRET}\n")
    return folder


@pytest.fixture(scope="session")
def base(clone: Path) -> str:
    """The image that ours is made from."""
    match = re.search(r"^ARG PYTHON_IMAGE=(.+)$", (clone / "Dockerfile").read_text(), re.MULTILINE)
    assert match
    if run("docker", "image", "inspect", match[1], check=False).returncode:
        docker("pull", "--quiet", match[1])
    return match[1]


def build(clone: Path, tag: str, *arguments: str) -> str:
    began = time.monotonic()
    docker("build", "--tag", tag, *arguments, str(clone), env=WITH_SECRET)
    show(f"built {tag} in {time.monotonic() - began:.1f} s")
    return tag


@pytest.fixture(scope="session")
def image(clone: Path, base: str) -> str:
    """The image."""
    return build(clone, NAME)


@pytest.fixture(scope="session")
def gateway() -> str:
    """The address of this machine that containers reach as host.docker.internal."""
    address = docker("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}")
    with socket.socket() as sock:
        try:
            sock.bind((address, 0))
        except OSError:  # the engine lives in a virtual machine, which forwards to this one's loopback
            return "127.0.0.1"
    return address


@pytest.fixture(scope="session")
def upstream(gateway: str) -> Iterator[Upstream]:
    with Upstream(gateway) as server:
        yield server


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def secure_upstream(gateway: str, authority: trustme.CA) -> Iterator[Upstream]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST).configure_cert(context)
    with Upstream(gateway, context) as server:
        yield server


@pytest.fixture(scope="session")
def network() -> str:
    docker("network", "create", NAME)
    return NAME


@pytest.fixture(scope="session")
def httpbin(clone: Path, network: str) -> Iterator[str]:
    """The URL of an upstream in a container."""
    tag = build(clone, f"{NAME}-demo", "--target", "demo")
    with Container(tag, options=[*HARDENED, "--network", network, "--network-alias", "httpbin"]) as container:
        container.wait_until_healthy()
        yield "http://httpbin:8000"


class Proxy(Container):
    """A proxy in a container, hardened, its port published on another one of 127.0.0.1."""

    def __init__(
        self, image: str, *arguments: str, options: Sequence[str] = (), env: Mapping[str, str] = WITH_SECRET
    ) -> None:
        self.port = free_port()
        published = ("--publish", f"127.0.0.1:{self.port}:8080", "--add-host", f"{HOST}:host-gateway")
        super().__init__(image, *arguments, options=(*HARDENED, *published, *options), env=env)

    def get(self, url: str, *options: str) -> Any:
        """The answer's JSON, through the proxy, by curl."""
        return json.loads(curl("--proxy", f"http://localhost:{self.port}", *options, url))


@pytest.fixture(scope="session")
def proxy(image: str, network: str, authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """The proxy that most tests share: as the manual shows it, but that it trusts the tests' CA."""
    pem = tmp_path_factory.mktemp("authority") / "ca.pem"
    authority.cert_pem.write_to_path(str(pem))
    with Proxy(
        image,
        *("--set", "ssl_verify_upstream_trusted_ca=/upstream-ca.pem"),
        options=("--network", network, "--volume", f"{pem}:/upstream-ca.pem:ro"),
    ) as container:
        container.wait_until_healthy()
        yield container


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def curl(*arguments: str) -> str:
    return run("curl", "--silent", "--show-error", "--fail", "--max-time", "20", *arguments).stdout


def claims_of(answer: dict[str, Any], secret: str = SECRET) -> dict[str, Any]:
    """The claims that arrived at the upstream, their signature verified."""
    headers = {name.lower(): value for name, value in answer["headers"].items()}
    token = jwt.decode(headers["x-my-jwt"], OctKey.import_key(bytes.fromhex(secret)), algorithms=["HS512"])
    assert set(token.claims) == {"iat", "jti", "payload"}
    assert abs(token.claims["iat"] - time.time()) < 10
    return token.claims


def in_image(image: str, code: str) -> Any:
    """What Python code prints as JSON inside of the image."""
    return json.loads(docker("run", "--rm", "--network", "none", "--entrypoint", "python", image, "-c", code))


# --- the image ---


def test_the_image_builds_from_a_clean_clone_and_says_what_it_is(image: str) -> None:
    config = inspect(image)["Config"]
    labels = {name.rpartition(".")[2]: value for name, value in config["Labels"].items()}
    version = docker("run", "--rm", image, "--version").split()[1]
    assert (labels["title"], labels["licenses"], labels["version"]) == ("jwtproxy", "MIT", version)
    assert labels["source"].startswith("https://")
    assert (config["Entrypoint"], config["StopSignal"]) == (["jwtproxy-run"], "SIGTERM")
    assert (list(config["ExposedPorts"]), list(config["Volumes"])) == (["8080/tcp"], ["/ca"])
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", config["User"])
    show(f"jwtproxy {version}, user {config['User']}, health check {config['Healthcheck']['Test'][1]}")


def test_its_size_is_that_of_the_base_and_of_the_dependencies_and_little_more(image: str, base: str) -> None:
    dependencies = in_image(
        image,
        "import importlib.metadata as m\n"
        "print(sum(file.size or 0 for found in m.distributions() if found.name != 'jwtproxy' for file in found.files))",
    )
    whole, below = engine.size(image), engine.size(base)
    more = whole - below - dependencies
    show(f"{whole / MIB:.1f} MiB = base {below / MIB:.1f} + dependencies {dependencies / MIB:.1f} + {more / MIB:.1f}")
    assert dependencies > 20 * MIB
    assert more <= 60 * MIB


def test_it_holds_byte_code_for_normal_and_optimised_runs_and_no_tools_of_developers(image: str) -> None:
    sources, normal, optimised = in_image(
        image,
        "import glob\n"
        "ends = ('.py', '-3[0-9][0-9].pyc', '.opt-1.pyc')\n"
        "print([len(glob.glob(f'/venv/lib/**/*{end}', recursive=True)) for end in ends])",
    )
    show(f"{sources} modules, {normal} compiled, {optimised} compiled for -O")
    assert sources == normal == optimised > 500
    names = in_image(
        image, "import importlib.metadata as m, json; print(json.dumps([d.name for d in m.distributions()]))"
    )
    assert "mitmproxy" in names
    assert not {"pytest", "ruff", "mypy", "coverage", "uv", "httpbin", "trustme"} & set(names)


def test_a_change_of_code_rebuilds_no_dependencies(image: str, clone: Path) -> None:
    changed = clone / "addons/jwtproxy/tokens/claims.py"
    before = changed.read_bytes()
    changed.write_bytes(before + b"\n# changed\n")
    try:
        layers = [inspect(tag)["RootFS"]["Layers"] for tag in (image, build(clone, f"{NAME}-changed"))]
    finally:
        changed.write_bytes(before)
    show(f"{len(layers[0]) - 1} of {len(layers[0])} layers are the same")
    assert layers[0][:-1] == layers[1][:-1]
    assert layers[0][-1] != layers[1][-1]


def test_help_and_options_follow_the_name_of_the_image(image: str) -> None:
    assert "usage: jwtproxy-run" in docker("run", "--rm", image, "--help")
    options = docker("run", "--rm", "--env", "JWT_SHARED_SECRET", image, "--options", env=WITH_SECRET)
    assert "jwt_user" in options
    for place in ((), ("--set", "confdir=/tmp/elsewhere")):
        said = docker("run", "--rm", "--env", "JWT_SHARED_SECRET", image, "--check", *place, env=WITH_SECRET)
        assert "valid" in said


def test_without_a_secret_it_says_so_and_exits_with_status_2(image: str) -> None:
    done = run("docker", "run", "--rm", *HARDENED, image, check=False)
    show(f"status {done.returncode}: {done.stderr.splitlines()[0]}")
    assert done.returncode == 2
    assert re.fullmatch(r"jwtproxy: error: JWT_SHARED_SECRET.*\njwtproxy: hint: .*\n", done.stderr)
    assert not done.stdout


def test_the_secret_is_in_no_layer(image: str) -> None:
    history = docker("history", "--no-trunc", image)
    assert SECRET not in history
    assert SECRET not in json.dumps(inspect(image))
    ours = b"no tunnel to the proxy itself"
    found = engine.contains(image, SECRET.encode(), bytes.fromhex(SECRET), ours)
    show(f"{history.count(chr(10))} steps and every byte of docker save searched")
    assert found == [False, False, True]


# --- a container ---


def test_it_becomes_healthy_as_a_user_without_any_privilege(image: str) -> None:
    with Proxy(image) as container:
        took = container.wait_until_healthy()
        status = dict(line.split(":\t", 1) for line in container.execute("cat", "/proc/1/status").splitlines())
        uids = set(status["Uid"].split())
        show(f"healthy after {took:.1f} s, uid {uids}, capabilities {status['CapEff']}")
        assert uids
        assert "0" not in uids
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
        assert status["NoNewPrivs"] == "1"
        assert run("docker", "exec", container.name, "touch", "/venv/x", check=False).returncode
        logs = re.sub(r"(?m)^.*warning: .*(?:jwt_allow_client|jwt_deny_private).*$", "", container.logs())
        assert not re.search("warning|error", logs)


def test_requests_arrive_signed_at_an_upstream_on_the_host(proxy: Proxy, upstream: Upstream) -> None:
    claims = claims_of(proxy.get(f"http://{HOST}:{upstream.port}/"))
    show(f"port {proxy.port} of the host, 8080 inside: arrived with {claims}")
    assert claims["payload"]["user"] == "username"


def test_requests_arrive_signed_at_an_upstream_in_another_container(proxy: Proxy, httpbin: str) -> None:
    show(f"arrived with {claims_of(proxy.get(f'{httpbin}/get'))}")


def test_the_host_gets_the_status_page_by_the_published_port(proxy: Proxy) -> None:
    assert proxy.port != 8080
    status = json.loads(curl(f"localhost:{proxy.port}/status"))
    show(f"localhost:{proxy.port}/status: {status}")
    assert status["proxied_requests"] >= 0


def test_https_works_with_the_certificate_fetched_from_the_container(
    proxy: Proxy, secure_upstream: Upstream, tmp_path: Path
) -> None:
    fetched = tmp_path / "jwtproxy-ca.pem"
    docker("cp", f"{proxy.name}:/ca/mitmproxy-ca-cert.pem", str(fetched))
    assert "PRIVATE" not in fetched.read_text()
    url = f"https://{HOST}:{secure_upstream.port}/"
    with ThreadPoolExecutor() as pool:  # enough at a time to meet each worker
        answers = list(pool.map(lambda _: proxy.get(url, "--cacert", str(fetched)), range(40)))
    identities = {claims_of(answer)["jti"] for answer in answers}
    show(f"{len(identities)} requests arrived signed")
    assert len(identities) == 40
    assert curl("--proxy", f"http://localhost:{proxy.port}", "http://mitm.it/cert/pem") == fetched.read_text()


def test_the_ca_outlives_the_container_in_a_volume(image: str) -> None:
    certificates = []
    for _ in range(2):
        with Proxy(image, options=("--volume", f"{NAME}-kept:/ca")) as container:
            container.wait_until_healthy()
            certificates.append(container.execute("cat", "/ca/mitmproxy-ca-cert.pem"))
            assert container.execute("stat", "-c", "%a", "/ca/mitmproxy-ca.pem") == "600"
    assert certificates[0] == certificates[1]


def test_a_ca_can_be_supplied_and_needs_no_writing(image: str, secure_upstream: Upstream, tmp_path: Path) -> None:
    CertStore.create_store(tmp_path, "mitmproxy", 2048)
    for path in [tmp_path, *tmp_path.iterdir()]:
        path.chmod(0o755)
    supplied = tmp_path / "mitmproxy-ca-cert.pem"
    with Proxy(image, "--ssl-insecure", options=("--volume", f"{tmp_path}:/ca:ro")) as container:
        container.wait_until_healthy()
        claims_of(container.get(f"https://{HOST}:{secure_upstream.port}/", "--cacert", str(supplied)))


@pytest.mark.parametrize("owner", [None, 12345], ids=["that all can read", "of who runs the container"])
def test_the_secret_may_be_a_mounted_file(image: str, upstream: Upstream, tmp_path: Path, owner: int | None) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET)
    file.chmod(0o600 if owner else 0o444)
    if owner:
        os.chown(file, owner, owner)
    with Proxy(
        image,
        options=("--volume", f"{file}:/run/secrets/jwt:ro", *(("--user", f"{owner}:{owner}") if owner else ())),
        env={"JWT_SHARED_SECRET_FILE": "/run/secrets/jwt"},
    ) as container:
        container.wait_until_healthy()
        claims_of(container.get(f"http://{HOST}:{upstream.port}/"))


@pytest.mark.parametrize(
    ("variables", "options"),
    [
        ({"HTTP_PORT": "9090"}, ()),
        ({"JWT_PAGES": "off"}, ()),
        ({"HTTP_HOST": "127.0.0.1"}, ()),
        ({}, ("--user", "12345:12345")),
    ],
    ids=["another port inside", "no pages", "loopback only, as in a pod", "any user"],
)
def test_it_is_healthy_with(image: str, variables: dict[str, str], options: tuple[str, ...]) -> None:
    with Proxy(image, options=options, env=WITH_SECRET | variables) as container:
        container.wait_until_healthy()


def test_it_stops_at_once_when_idle(image: str) -> None:
    with Proxy(image) as container:
        container.wait_until_healthy()
        seconds, status = container.stop()
        show(f"docker stop took {seconds:.2f} s, exit status {status}")
        assert seconds < 2
        assert status == 0
        assert "Traceback" not in container.logs()


# --- compose.yaml and `make docker` ---


def test_compose_is_a_full_demonstration_and_leaves_nothing(clone: Path, base: str) -> None:
    project = f"{NAME}-compose"
    port = free_port()

    def compose(*arguments: str) -> str:
        return run(
            "docker", "compose", "--project-name", project, *arguments, cwd=clone, env={"HTTP_PORT": str(port)}
        ).stdout

    try:
        began = time.monotonic()
        compose("up", "--build", "--wait")
        show(f"up and healthy after {time.monotonic() - began:.1f} s")
        answer = json.loads(curl("--proxy", f"http://localhost:{port}", "http://httpbin:8000/get"))
        show(f"arrived with {claims_of(answer)}")
        for container in engine.named("container"):
            if container.startswith(project):
                limits = inspect(container)["HostConfig"]
                assert limits["ReadonlyRootfs"]
                assert limits["CapDrop"] == ["ALL"]
                assert any("no-new-privileges" in option for option in limits["SecurityOpt"])
                assert limits["Memory"]
                assert limits["PidsLimit"]
                assert limits["RestartPolicy"]["Name"] == "unless-stopped"
        assert inspect(f"{project}_upstreams")["Internal"]
    finally:
        compose("down", "--volumes")
    left = [thing for kind in ("container", "network", "volume") for thing in engine.named(kind) if project in thing]
    show(f"left behind: {left}")
    assert not left


STAND_IN = """
FROM {}
RUN apt-get update -qq && apt-get install -qq --no-install-recommends haproxy redis-server wget
RUN mkdir -p /data && chown redis /data
USER haproxy
CMD ["haproxy", "-W", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]
"""


@pytest.fixture(scope="session")
def bought(clone: Path, base: str, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The images of others: theirs, or, where there is no registry, one with Debian's packages in place of both."""
    named = dict(re.findall(r"\$\{(\w+_IMAGE):-(\S+)\}", (clone / "compose.yaml").read_text()))
    assert len(named) == 2
    if not any(run("timeout", "60", "docker", "pull", one, check=False).returncode for one in named.values()):
        return named
    folder = tmp_path_factory.mktemp("stand-in")
    (folder / "Dockerfile").write_text(STAND_IN.format(base))
    docker("build", "--tag", f"{NAME}-stand-in", str(folder))
    show("stand-ins for the images of HAProxy and Redis made")
    return dict.fromkeys(named, f"{NAME}-stand-in")


def test_many_proxies_behind_one_port_show_their_totals_together(clone: Path, bought: Mapping[str, str]) -> None:
    project = f"{NAME}-many"
    port = free_port()
    env = {**bought, "HTTP_PORT": str(free_port()), "BALANCER_PORT": str(port), "WORKERS": "1"}

    def compose(*arguments: str) -> str:
        command = ("docker", "compose", "--project-name", project, "--profile", "many", *arguments)
        return run(*command, cwd=clone, env=env).stdout

    def status() -> dict[str, Any]:
        told: dict[str, Any] = json.loads(curl(f"http://localhost:{port}/status"))
        return told

    def wait_for(live: int, gone: int, requests: int) -> list[dict[str, Any]]:
        until = time.monotonic() + 30
        while True:
            told = status()
            states = [one["state"] for one in told["instances"]]
            total = told["total"]["proxied_requests"]
            if (states.count("live"), states.count("gone"), total) == (live, gone, requests):
                return list(told["instances"])
            assert time.monotonic() < until, told
            time.sleep(0.2)

    try:
        began = time.monotonic()
        compose("up", "--build", "--wait")
        show(f"three proxies up and healthy after {time.monotonic() - began:.1f} s")
        for _ in range(9):
            claims_of(json.loads(curl("--proxy", f"http://localhost:{port}", "http://httpbin:8000/get")))
        served = [one["proxied_requests"] for one in wait_for(live=3, gone=0, requests=9)]
        show(f"served by each: {served}")
        assert min(served) > 0
        docker("stop", f"{project}-proxies-2")
        left = 9 - next(one["proxied_requests"] for one in _gone(status))
        wait_for(live=2, gone=1, requests=left)
        curl("--proxy", f"http://localhost:{port}", "http://httpbin:8000/get")
    except AssertionError:
        print(compose("logs", "--no-color"))
        raise
    finally:
        compose("down", "--volumes")


def _gone(status: Any) -> list[Any]:
    """The instances that have gone, once there is one."""
    until = time.monotonic() + 20
    while not (found := [one for one in status()["instances"] if one["state"] == "gone"]):
        assert time.monotonic() < until
        time.sleep(0.2)
    return found


def test_compose_passes_every_option_on(clone: Path) -> None:
    sources = "\n".join(path.read_text() for path in (clone / "addons/jwtproxy").rglob("*.py"))
    options = re.findall(r'Option\(\s*"(jwt_\w+)"', sources)
    # Paths of this machine mean nothing in there: who mounts a file names it in compose.yaml.
    paths = {"jwt_key_file", "jwt_key_dir", "jwt_rules"}
    variables = {name.upper(): f"value of {name}" for name in options if name not in paths}
    config = json.loads(run("docker", "compose", "config", "--format", "json", cwd=clone, env=variables).stdout)
    assert options
    assert variables.items() <= config["services"]["proxy"]["environment"].items()


def test_make_docker_makes_an_env_as_make_run_does(clone: Path, base: str, upstream: Upstream) -> None:
    (clone / ".env").rename(clone / ".env.kept")
    try:
        output = _make_docker(clone, upstream, "from the environment", free_port(), JWT_USER="from the environment")
        assert stat.S_IMODE((clone / ".env").stat().st_mode) == 0o600
    finally:
        (clone / ".env.kept").rename(clone / ".env")
    assert "made .env with a new random secret" in output


def test_make_docker_reads_env_as_make_run_does(clone: Path, base: str, upstream: Upstream) -> None:
    port, env = free_port(), clone / ".env"
    kept = env.read_text()
    env.write_text(f"JWT_SHARED_SECRET=\"{SECRET}\" # quoted\nexport JWT_USER='from .env'\nHTTP_PORT = {port}\n")
    try:
        output = _make_docker(clone, upstream, "from .env", port)
    finally:
        env.write_text(kept)
    assert "made .env" not in output


def _make_docker(clone: Path, upstream: Upstream, user: str, port: int, **variables: str) -> str:
    """Run `make docker`, send a request, check its token, end it by SIGTERM; what it printed."""
    name = f"{NAME}-make"
    if variables:
        variables["HTTP_PORT"] = str(port)
    with subprocess.Popen(
        ["make", "docker", f"IMAGE={name}"],
        cwd=clone,
        env=ENVIRONMENT | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    ) as process:
        try:
            _wait_for(f"http://localhost:{port}/status", process)
            url = f"http://{inspect(name)['NetworkSettings']['Gateway']}:{upstream.port}/"
            answer = json.loads(curl("--proxy", f"http://localhost:{port}", url))
            _again(clone, name)
            secret = re.findall("[0-9a-f]{128}", (clone / ".env").read_text())[0]
            claims = claims_of(answer, secret)
            show(f"make docker on port {port}: arrived with {claims}")
            assert claims["payload"]["user"] == user
            # A busy engine may show who attaches only what comes later, though it was attached before the start; and
            # its log may be behind.
            logged = run("docker", "logs", name).stdout
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=20)
            until = time.monotonic() + 60  # the engine removes it when it finds the time
            while name in engine.named("container", "--all"):
                assert time.monotonic() < until
                time.sleep(0.2)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            run("docker", "rm", "--force", "--volumes", name, check=False)
    assert f"listening on http://localhost:{port}" in logged + output
    assert f"GET {url} 200" in output
    return output


def _again(clone: Path, name: str) -> None:
    """Run `make docker` while it serves: it says what to do."""
    again = run("make", "docker", f"IMAGE={name}", cwd=clone, check=False)
    assert again.returncode
    assert f"jwtproxy: error: there is a container named '{name}' already (running)\n" in again.stderr
    assert f"jwtproxy: hint: end it with: docker rm --force {name}\n" in again.stderr


def _wait_for(url: str, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 120
    while run("curl", "--silent", "--fail", "--max-time", "5", url, check=False).returncode:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until, url
        time.sleep(0.2)


# --- under load ---


def test_memory_stays_flat_under_a_minute_of_load(image: str, upstream: Upstream) -> None:
    seconds = 60
    url = f"http://{HOST}:{upstream.port}/"
    with Proxy(image, env=WITH_SECRET | {"WORKERS": "2"}) as container:
        container.wait_until_healthy()
        show(f"{container.memory():.0f} MiB when idle")
        # Python's memory settles as its garbage collector and its caches find their measure.
        warm_up = load(container.port, url, seconds, most=30_000)
        show(f"{container.memory():.0f} MiB after {warm_up} requests to warm up")

        samples: list[tuple[float, float]] = []
        began = time.monotonic()
        with ThreadPoolExecutor() as pool:
            loading = pool.submit(load, container.port, url, seconds)
            while not loading.done():
                samples.append((time.monotonic() - began, container.memory()))
        sent = loading.result()
        show(f"{sent} requests in {seconds} s; MiB meanwhile: {' '.join(f'{used:.0f}' for _, used in samples)}")
        first = max(used for at, used in samples if at < seconds / 3)
        last = max(used for at, used in samples if at > seconds * 2 / 3)
        show(f"at most {first:.1f} MiB in the first third, {last:.1f} in the last")
        assert last - first < 10
        assert json.loads(curl(f"localhost:{container.port}/status"))["proxied_requests"] == warm_up + sent
        assert inspect(container.name)["State"]["Health"]["Status"] == "healthy"
        assert "error" not in container.logs()
