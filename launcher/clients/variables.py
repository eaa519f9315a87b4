"""The variables by which programs find a proxy, and trust its CA. The manual says, under clients, who goes by which."""

import re
import shlex
from collections.abc import Iterable, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

PROXY = (
    *("http_proxy", "https_proxy", "all_proxy", "ws_proxy", "wss_proxy"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "WS_PROXY", "WSS_PROXY"),  # some read these, some those, some both
    "grpc_proxy",
    *("npm_config_proxy", "npm_config_https_proxy"),  # they beat what .npmrc says
)
"""What names a proxy."""

CA_FILES = (
    "SSL_CERT_FILE",  # OpenSSL, and so urllib, HTTPX, aiohttp, Ruby, wget2; Go; uv
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "HTTPLIB2_CA_CERTS",
    "NODE_EXTRA_CA_CERTS",
    "npm_config_cafile",
    "DENO_CERT",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
    "BUNDLE_SSL_CA_CERT",  # Ruby's bundler
    "PERL_LWP_SSL_CA_FILE",
    "AWS_CA_BUNDLE",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "NIX_SSL_CERT_FILE",
)
"""What names a file of the certificates that are trusted."""

SECRET = re.compile(r"JWT_(SHARED_SECRET|KEY_|REDIS_URL)\w*")
"""What may hold a key or a password of ours, or tell where one is."""

STORE_PASSWORD = "changeit"
"""That of Java's trust store: it holds nothing secret, and Java's own has this one."""

_JAVA_NAMES = (
    *("http.proxyHost", "http.proxyPort", "https.proxyHost", "https.proxyPort", "http.nonProxyHosts"),
    *("javax.net.ssl.trustStore", "javax.net.ssl.trustStoreType", "javax.net.ssl.trustStorePassword"),
)
_QUOTED = r"""(?:"[^"]*"|'[^']*'|\S)*"""
_JAVA_OURS = re.compile(rf"\s*-D(?:{'|'.join(map(re.escape, _JAVA_NAMES))})={_QUOTED}")


class Files(NamedTuple):
    """What variables name."""

    bundles: Mapping[str, str]
    """For each of CA_FILES, a file of all certificates that are to be trusted, in PEM."""
    trust_store: str
    """The same for Java, in PKCS#12."""
    wgetrc: str
    """What GNU Wget reads, which has no variable for it."""
    python: str
    """The folder of a sitecustomize module."""


def variables(proxy: str, files: Files, environ: Mapping[str, str]) -> dict[str, str]:
    """What to set for programs to go by this proxy. proxy: its URL. environ: what is set by now."""
    before = environ.get("PYTHONPATH", "")
    path = [folder for folder in before.split(":") if folder != files.python] if before else []  # empty: where it runs
    return {
        **dict.fromkeys(PROXY, proxy),
        "NODE_USE_ENV_PROXY": "1",
        **files.bundles,
        "WGETRC": files.wgetrc,
        "JAVA_TOOL_OPTIONS": _java(proxy, files.trust_store, environ.get("JAVA_TOOL_OPTIONS", "")),
        "PYTHONPATH": ":".join([files.python, *path]),
    }


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment for programs that are not to know the key."""
    return {name: value for name, value in environ.items() if not SECRET.fullmatch(name)}


def other_proxy(environ: Mapping[str, str]) -> str:
    """The variable that names a proxy by now, if any does."""
    return next((name for name in PROXY if environ.get(name)), "")


def _java(proxy: str, store: str, before: str) -> str:
    """JAVA_TOOL_OPTIONS. Java goes around proxies for loopback unless no host is named for which to do so."""
    url = urlsplit(proxy)
    host, port = url.hostname or "", str(url.port or 80)
    values = (host, port, host, port, "", store, "PKCS12", STORE_PASSWORD)
    ours = [f"-D{name}={_quoted(value)}" for name, value in zip(_JAVA_NAMES, values, strict=True)]
    return " ".join(filter(None, [_JAVA_OURS.sub("", before).strip(), *ours]))


def _quoted(value: str) -> str:
    """As the JVM reads it, which knows two kinds of quotes, and no escapes."""
    if not re.search(r"""[\s"']""", value):
        return value
    return "".join(f"'{part}'" if '"' in part else f'"{part}"' for part in re.findall('"+|[^"]+', value))


def _fish(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _powershell(value: str) -> str:
    return "'" + re.sub("(['\u2018-\u201b])", r"\1\1", value) + "'"  # typographic ones end a string there, too


def _dotenv(value: str) -> str:
    # Docker takes quotes for a part of the value, so that there are none where others do not need them.
    if not re.search(r"""["'#$\\\n]|^\s|\s$""", value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


_LINES = {
    "bash": lambda name, value: f"export {name}={shlex.quote(value)}",
    "fish": lambda name, value: f"set -gx {name} {_fish(value)}",
    "powershell": lambda name, value: f"$Env:{name} = {_powershell(value)}",
    "dotenv": lambda name, value: f"{name}={_dotenv(value)}",
}
SHELLS = tuple(_LINES)
"""Those that `in_shell` knows."""


def in_shell(shell: str, values: Iterable[tuple[str, str]]) -> str:
    """Lines that set these variables in a shell, or in a file of them."""
    return "".join(f"{_LINES[shell](name, value)}\n" for name, value in values)
