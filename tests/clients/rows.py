"""The clients: how each is run, and by which variables it is said to find the proxy and to trust its CA."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = Path(__file__).with_name("programs")
PYTHON = sys.executable


@dataclass(frozen=True)
class Client:
    """A row of the matrix.

    command: what is typed. `{web}`, `{host}`, `{ws}` and `{grpc}` are where the upstream serves, `{bin}` is where this
    interpreter is, `{programs}` where ours are, `{kept}` a folder for all runs, `{run}` names the run, and `{old_node}`
    and `{node_24}` are what they say. It runs in an empty folder, but for `node_modules`.
    version: what prints it; the first number with a dot counts.
    finds, trusts: the variables that suffice, by spaces; finds is empty where it goes around the proxy.
    needs: programs and files without which it is skipped. prepare: to be typed once, outside the proxy.
    no_proxy: whether it heeds NO_PROXY. two: it speaks HTTP/2. quick: the default test suite plays it.
    """

    name: str
    command: str
    version: str
    finds: str = ""
    trusts: str = ""
    needs: tuple[str, ...] = ()
    prepare: str = ""
    no_proxy: bool = True
    two: bool = False
    quick: bool = False

    @property
    def key(self) -> str:
        """How paths begin that it asks for."""
        return "".join(letter if letter.isalnum() else "-" for letter in self.name.lower())

    @property
    def goes_around(self) -> bool:
        """Whether it never asks the proxy."""
        return not self.finds


def _python(code: str) -> str:
    return f"{{bin}}/python -c '{code}'"


def _version_of(package: str) -> str:
    return _python(f'from importlib.metadata import version; print(version("{package}"))')


def _packaged(name: str) -> str:
    """The version of a package of Node."""
    return _node(f'console.log(require("./node_modules/{name}/package.json").version)')


def _node(code: str, program: str = "node") -> str:
    return f"{program} -e '{code}'"


_PYTHON = f"{_python('import sys; print(sys.version)')}"
_HTTPX = 'import httpx; httpx.Client(http2=%s).get("{web}").raise_for_status()'
_AIOHTTP = """\
import aiohttp, asyncio
async def main():
    async with aiohttp.ClientSession() as session:
        %s
asyncio.run(main())"""
# Not websockets.sync: two threads of it read and write in one session at once, which OpenSSL forbids. While the tickets
# of TLS 1.3 come, a few of its requests in a thousand get lost, also where there is no proxy. It gives up after ten
# seconds, and waits for its other thread, which reads until the other side closes: our jwt_keepalive_timeout.
_WEBSOCKETS = """\
import asyncio, websockets
async def main():
    async with websockets.connect("{ws}") as socket:
        await socket.recv()
asyncio.run(main())"""
_HTTP_CLIENT = 'import http.client; http.client.HTTPSConnection("{host}").request("GET", "/")'
_NODE_HTTPS = 'require("https").get("{web}", answer => answer.resume())'
_NODE_AGENT = (
    'const https = require("https"); https.get("{web}", {agent: new https.Agent()}, answer => answer.resume())'
)
_NODE_FETCH = 'fetch("{web}").then(answer => answer.text()).catch(() => process.exit(1))'
_NODE_WS = """\
const socket = new (require("ws"))("{ws}");
socket.on("message", () => socket.close());
socket.on("error", () => process.exit(1))"""
_NODE_WEBSOCKET = """\
const socket = new WebSocket("{ws}");
socket.onmessage = () => socket.close();
socket.onerror = () => process.exit(1)"""
_AXIOS = 'require("axios").get("{web}").catch(() => process.exit(1))'
_BY_NODE = ("https_proxy NODE_USE_ENV_PROXY", "NODE_EXTRA_CA_CERTS")
_OLD_NODE, _NODE_24, _MODULES = ("{old_node}",), ("{node_24}",), "node_modules/axios"
_GRPC = """\
import grpc
with grpc.secure_channel("{grpc}", grpc.ssl_channel_credentials()) as channel:
    channel.unary_unary("{path}")(b"", timeout=10)"""
_GIT = """\
git clone -q {web}/repository.git copy && cd copy &&
git -c user.name=a -c user.email=a@b.test commit -q --allow-empty -m one &&
git push -q origin HEAD:refs/heads/{run}"""
_JAVA = "java {programs}/Get.java"
_CARGO = """\
mkdir -p src .cargo && cp {programs}/Cargo.toml . && touch src/lib.rs
cat > .cargo/config.toml << end
[source.crates-io]
replace-with = "tests"
[source.tests]
registry = "sparse+{web}/cargo/"
end
cargo fetch -q"""
_AWS = """\
AWS_ACCESS_KEY_ID=a AWS_SECRET_ACCESS_KEY=b AWS_DEFAULT_REGION=eu-west-1 AWS_MAX_ATTEMPTS=1 \
aws s3api list-buckets --endpoint-url {web}"""

CLIENTS = (
    Client(
        "curl, HTTP/1.1",
        "curl -fsS --http1.1 {web}",
        "curl --version",
        "https_proxy",
        "CURL_CA_BUNDLE",
        ("curl",),
        quick=True,
    ),
    Client(
        "curl", "curl -fsS {web}", "curl --version", "https_proxy", "CURL_CA_BUNDLE", ("curl",), two=True, quick=True
    ),
    Client("wget", "wget -q -O- {web}", "wget --version", "https_proxy", "WGETRC", ("wget",)),
    Client(
        "Python: Requests",
        _python('import requests; requests.get("{web}").raise_for_status()'),
        _version_of("requests"),
        "https_proxy",
        "REQUESTS_CA_BUNDLE",
        quick=True,
    ),
    Client("Python: HTTPX", _python(_HTTPX % False), _version_of("httpx"), "https_proxy", "SSL_CERT_FILE", quick=True),
    Client(
        "Python: HTTPX, HTTP/2",
        _python(_HTTPX % True),
        _version_of("httpx"),
        "https_proxy",
        "SSL_CERT_FILE",
        two=True,
        quick=True,
    ),
    Client(
        "Python: aiohttp",
        _python(_AIOHTTP % 'await (await session.get("{web}")).read()'),
        _version_of("aiohttp"),
        "https_proxy PYTHONPATH",
        "SSL_CERT_FILE",
        quick=True,
    ),
    Client(
        "Python: aiohttp, WebSocket",
        _python(_AIOHTTP % 'await (await session.ws_connect("{ws}")).receive_str()'),
        _version_of("aiohttp"),
        "wss_proxy PYTHONPATH",
        "SSL_CERT_FILE",
        quick=True,
    ),
    Client(
        "Python: urllib",
        _python('import urllib.request; urllib.request.urlopen("{web}").read()'),
        _PYTHON,
        "https_proxy",
        "SSL_CERT_FILE",
        quick=True,
    ),
    Client("Python: http.client", _python(_HTTP_CLIENT), _PYTHON),
    Client(
        "Python: websockets",
        _python(_WEBSOCKETS),
        _version_of("websockets"),
        "https_proxy",
        "SSL_CERT_FILE",
        quick=True,
    ),
    Client(
        "Python: gRPC",
        _python(_GRPC),
        _version_of("grpcio"),
        "https_proxy",
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
        two=True,
        quick=True,
    ),
    Client(
        "pip",
        "{bin}/python -m pip install -q --disable-pip-version-check --target here --index-url {web}/simple/ tiny",
        _version_of("pip"),
        "https_proxy",
        "PIP_CERT",
    ),
    Client(
        "uv",
        "{bin}/uv pip install -q --python {bin}/python --target here --index-url {web}/simple/ tiny",
        "{bin}/uv --version",
        "https_proxy",
        "SSL_CERT_FILE",
        ("{bin}/uv",),
        two=True,
    ),
    Client("git", _GIT, "git --version", "https_proxy", "GIT_SSL_CAINFO", ("git",), two=True, quick=True),
    Client(
        "npm",
        "npm install --no-audit --no-fund --registry {web}/npm/ tiny",
        "npm --version",
        "https_proxy",
        "npm_config_cafile",
        ("npm",),
    ),
    Client("Node before 22.21: https", _node(_NODE_HTTPS, "{old_node}"), "{old_node} -v", needs=_OLD_NODE, quick=True),
    Client("Node before 22.21: fetch", _node(_NODE_FETCH, "{old_node}"), "{old_node} -v", needs=_OLD_NODE),
    Client("Node 24: https", _node(_NODE_HTTPS, "{node_24}"), "{node_24} -v", *_BY_NODE, _NODE_24),
    Client("Node 24: fetch", _node(_NODE_FETCH, "{node_24}"), "{node_24} -v", *_BY_NODE, _NODE_24),
    Client("Node 24: https, own agent", _node(_NODE_AGENT, "{node_24}"), "{node_24} -v", needs=_NODE_24),
    Client("Node 24: WebSocket", _node(_NODE_WEBSOCKET, "{node_24}"), "{node_24} -v", *_BY_NODE, _NODE_24),
    Client("Node: axios", _node(_AXIOS), _packaged("axios"), "https_proxy", "NODE_EXTRA_CA_CERTS", ("node", _MODULES)),
    Client("Node: ws", _node(_NODE_WS), _packaged("ws"), needs=("node", _MODULES)),
    Client("Node 24: ws", _node(_NODE_WS, "{node_24}"), _packaged("ws"), needs=("{node_24}", _MODULES)),
    Client(
        "Deno: fetch",
        "{bin}/deno eval 'await (await fetch(\"{web}\")).text()'",
        "{bin}/deno --version",
        "https_proxy",
        "DENO_CERT",
        ("{bin}/deno",),
        two=True,
    ),
    Client(
        "Go: net/http",
        "{kept}/go-get {web}",
        "go version",
        "https_proxy",
        "SSL_CERT_FILE",
        ("go",),
        "go build -o {kept}/go-get {programs}/get.go",
        two=True,
    ),
    Client(
        "Java: HttpURLConnection",
        f"{_JAVA} connection {{web}}",
        "java --version",
        "JAVA_TOOL_OPTIONS",
        "JAVA_TOOL_OPTIONS",
        ("java",),
        no_proxy=False,
    ),
    Client(
        "Java: HttpClient",
        f"{_JAVA} client {{web}}",
        "java --version",
        "JAVA_TOOL_OPTIONS",
        "JAVA_TOOL_OPTIONS",
        ("java",),
        no_proxy=False,
        two=True,
    ),
    Client(
        "Ruby: net/http",
        "ruby -rnet/http -e 'exit Net::HTTP.get_response(URI(\"{web}\")).is_a?(Net::HTTPOK)'",
        "ruby --version",
        "http_proxy",
        "SSL_CERT_FILE",
        ("ruby",),
    ),
    Client("cargo", _CARGO, "cargo --version", "https_proxy", "CARGO_HTTP_CAINFO", ("cargo",), two=True),
    Client("AWS CLI", _AWS, "aws --version", "https_proxy", "AWS_CA_BUNDLE", ("aws",)),
)
