"""The recipes of the manual verify tokens of a real proxy, and refuse what they must."""

from __future__ import annotations

import hmac
import json
import re
import shlex
import subprocess
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwk, jwt
from joserfc.errors import JoseError
from jwt.exceptions import PyJWTError
from ruamel.yaml import YAML

from tests.support import verifiers
from tests.support.clients import Raw, message
from tests.support.harness import REPO, Process, Proxy, clean_env, run_launcher
from tests.support.upstreams import Recorder

RECIPES = REPO / "launcher/help/verifying.md"


def block(heading: str, language: str, number: int = 0) -> str:
    """A fenced block of one recipe."""
    text = RECIPES.read_text()
    found = re.search(rf"^###? {re.escape(heading)}\n(.*?)(?=^###? |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"{RECIPES.name} has no recipe for {heading}"
    blocks: list[str] = re.findall(rf"^```{language}\n(.*?)^```$", found[1], re.MULTILINE | re.DOTALL)
    return blocks[number]


def place(recipe: str, ports: Mapping[int, int]) -> str:
    """The recipe, with the ports of this test for those it shows."""
    shown = "|".join(map(str, ports))
    return re.sub(rf"\b(?:{shown})\b", lambda found: str(ports[int(found[0])]), recipe)


@dataclass
class Scene:
    """A proxy that was set up as the recipes want it, and what it must not be taken for."""

    proxy: Proxy
    upstream: Recorder
    key: jwk.ECKey
    claims: dict[str, Any] = field(default_factory=dict)

    def good(self) -> str:
        """A token of the proxy itself."""
        before = len(self.upstream.requests)
        assert self.send(self.upstream.port) == 200
        return self.upstream.wait(before + 1)[-1].token

    def send(self, port: int) -> int:
        """The status of a request through the proxy to a port of this machine."""
        with Raw(self.proxy.port) as client:
            return client.request(message("GET", f"http://127.0.0.1:{port}/", f"Host: 127.0.0.1:{port}")).status

    def bad(self) -> dict[str, str]:
        """Tokens with one thing wrong each."""
        now, other = int(time.time()), jwk.ECKey.generate_key("P-256")
        pem = self.key.as_pem(private=False)
        return {
            "expired": self.sign(exp=now - 3600, nbf=now - 7200),
            "not yet valid": self.sign(nbf=now + 3600),
            "without exp": self.sign(exp=None),
            "for another audience": self.sign(aud="https://other.example"),
            "for no audience": self.sign(aud=None),
            "of another issuer": self.sign(iss="https://other.example"),
            "of no issuer": self.sign(iss=None),
            "of another key": self.sign(other),
            "of another key, named": self.sign(other, kid=other.thumbprint()),
            "unsigned": self.forge("none", lambda _: b""),
            "HMAC with the public key": self.forge("HS256", lambda data: hmac.digest(pem, data, "sha256")),
            "no JWS": "nonsense",
        }

    def fresh(self) -> dict[str, Any]:
        """The proxy's claims, as of now."""
        now = int(time.time())
        return self.claims | {"iat": now, "nbf": now - 60, "exp": now + 60}

    def sign(self, key: jwk.ECKey | None = None, kid: str = "", **changes: object) -> str:
        """A token as the proxy would make it, but for what is changed (None: left out)."""
        claims = {name: value for name, value in (self.fresh() | changes).items() if value is not None}
        header = {"alg": "ES256", "typ": "JWT", "kid": kid or self.key.thumbprint()}
        return jwt.encode(header, claims, key or self.key)

    def forge(self, algorithm: str, sign: Callable[[bytes], bytes]) -> str:
        """A token that claims another algorithm."""
        header = {"alg": algorithm, "typ": "JWT", "kid": self.key.thumbprint()}
        head = b".".join(_base64(json.dumps(part).encode()) for part in (header, self.fresh()))
        return (head + b"." + _base64(sign(head))).decode()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, confdir: Path) -> Iterator[Scene]:
    """What the recipes begin with, done."""
    folder = tmp_path_factory.mktemp("recipes")
    new, *exports, run = block("With public keys", "sh").splitlines()
    assert run == "jwtproxy-run"
    made = run_launcher(*shlex.split(new)[1:], cwd=folder, secret=None)
    assert made.returncode == 0, made.stderr
    env = dict(word.split("=", 1) for line in exports for word in shlex.split(line)[1:])
    key = jwk.ECKey.import_key((folder / env["JWT_KEY_FILE"]).read_text())
    with (
        Recorder() as upstream,
        Proxy(cwd=folder, env=env, secret=None, confdir=confdir) as proxy,
    ):
        scene = Scene(proxy, upstream, key)
        scene.claims = dict(jwt.decode(scene.good(), key, algorithms=["ES256"]).claims)
        assert {"iss", "aud", "exp", "nbf", "iat", "jti", "payload"} == set(scene.claims)
        yield scene


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where Node finds jose."""
    (tmp_path / "node_modules").symlink_to(verifiers.FOLDER / "node_modules")
    return tmp_path


@pytest.mark.parametrize("number", [0, 1], ids=["PyJWT", "joserfc"])
def test_python(scene: Scene, number: int) -> None:
    names: dict[str, Any] = {}
    exec(place(block("Python", "python", number), {8080: scene.proxy.port}), names)

    def accepts(token: str) -> bool:
        try:
            return bool(names["verify"](token)["iss"] == scene.claims["iss"])
        except (PyJWTError, JoseError):
            return False

    tokens = {"good": scene.good(), "signed": scene.sign(), **scene.bad(), "none": ""}
    assert [name for name, token in tokens.items() if accepts(token)] == ["good", "signed"]


def test_node(scene: Scene, folder: Path) -> None:
    tokens = {"good": scene.good(), "signed": scene.sign(), **scene.bad(), "none": ""}
    (folder / "verify.mjs").write_text(place(block("Node", "js"), {8080: scene.proxy.port}))
    (folder / "try.mjs").write_text(
        "import { verify } from './verify.mjs'\n"
        "const results = {}\n"
        f"for (const [name, token] of Object.entries({json.dumps(tokens)})) {{\n"
        "  results[name] = await verify(token).then((claims) => claims.iss, (error) => error.code ?? String(error))\n"
        "}\n"
        "console.log(JSON.stringify(results))\n"
    )
    done = subprocess.run([verifiers.node(), "try.mjs"], cwd=folder, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    issuer = scene.claims["iss"]
    assert [name for name, result in results.items() if result == issuer] == ["good", "signed"]
    assert {result[:4] for result in results.values() if result != issuer} == {"ERR_"}


def test_envoy(scene: Scene, tmp_path: Path, recorder: Recorder) -> None:
    port = verifiers.free_port()
    ports = {10000: port, 9000: recorder.port, 8080: scene.proxy.port}
    (tmp_path / "envoy.yaml").write_text(place(block("Envoy", "yaml"), ports))
    command = [verifiers.envoy(), "-c", "envoy.yaml", "--disable-hot-restart", "--concurrency", "1"]
    with Process(command, env=clean_env(tmp_path), cwd=tmp_path, ready=None) as envoy:
        _check_gateway(scene, envoy, port, recorder)


def test_nginx(scene: Scene, folder: Path, recorder: Recorder) -> None:
    nginx, node, port, beside = verifiers.nginx(), verifiers.node(), verifiers.free_port(), verifiers.free_port()
    ports = {8000: port, 9000: recorder.port, 9001: beside}
    site = place(block("nginx", "nginx"), ports)
    main = "daemon off; master_process off; pid nginx.pid; error_log stderr; events {}"
    (folder / "nginx.conf").write_text(f"{main} http {{ access_log off; {site} }}")
    (folder / "verify.mjs").write_text(place(block("Node", "js"), {8080: scene.proxy.port}))
    (folder / "server.mjs").write_text(place(block("nginx", "js"), ports))
    env = clean_env(folder)
    with (
        Process([node, "server.mjs"], env=env, cwd=folder, ready=None) as verifier,
        Process([nginx, "-p", str(folder), "-c", "nginx.conf"], env=env, cwd=folder, ready=None) as server,
    ):
        verifiers.await_port(verifier, beside)
        _check_gateway(scene, server, port, recorder)


def test_istio_is_told_the_same_as_envoy() -> None:
    """Istio cannot run here; what it does with this is to configure Envoy's filter."""
    request, policy = YAML(typ="safe").load_all(block("Istio", "yaml"))
    (rule,) = request["spec"]["jwtRules"]
    (listener,) = YAML(typ="safe").load(block("Envoy", "yaml"))["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    provider = manager["http_filters"][0]["typed_config"]["providers"]["jwtproxy"]
    assert (rule["issuer"], rule["audiences"]) == (provider["issuer"], provider["audiences"])
    assert (rule["fromHeaders"], rule["forwardOriginalToken"]) == (provider["from_headers"], provider["forward"])
    assert rule["jwksUri"].endswith(":8080/.well-known/jwks.json")
    assert policy["spec"]["selector"] == request["spec"]["selector"]
    assert policy["spec"]["rules"][0]["when"][0]["values"] == [rule["issuer"]]


def _check_gateway(scene: Scene, gateway: Process, port: int, behind: Recorder) -> None:
    """What passes through the proxy passes the gateway, token and all; what is wrong never gets behind it."""
    verifiers.await_port(gateway, port)
    assert scene.send(port) == 200, gateway.output
    assert _ask(port, scene.sign()) == 200, gateway.output
    assert scene.claims.keys() == jwt.decode(behind.wait(2)[0].token, scene.key, algorithms=["ES256"]).claims.keys()
    bad = scene.bad()
    refused = {what: _ask(port, token) for what, token in bad.items()}
    refused |= {"none": _ask(port), "two": _ask(port, scene.sign(), bad["expired"]), "empty": _ask(port, "")}
    assert set(refused.values()) <= {401, 403}, refused
    assert len(behind.requests) == 2


def _ask(port: int, *tokens: str) -> int:
    with Raw(port) as client:
        fields = [f"X-My-Jwt: {token}" for token in tokens]
        return client.request(message("GET", "/", "Host: api.example", *fields)).status


def _base64(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")
