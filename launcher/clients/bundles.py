"""Files that have programs trust the proxy's certificate authority beside all that they trust without us."""

import functools
import os
import ssl
from collections.abc import Mapping
from pathlib import Path

import certifi
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12

from .certificate import blocks, certificates
from .variables import CA_FILES, STORE_PASSWORD, Files

_SYSTEM = (  # where systems keep all that they trust, in one file
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/ssl/cert.pem",  # macOS, BSD
)
PYTHON = str(Path(__file__).parent / "python")
"""What programs in Python are to load at their start."""


def system_roots(environ: Mapping[str, str]) -> str:
    """The file of what programs trust on this system, as its owner has it; certifi's where there is none."""
    named = environ.get("SSL_CERT_FILE"), ssl.get_default_verify_paths().openssl_cafile
    return next((path for path in (*named, *_SYSTEM) if path and _held(path)), certifi.where())


def write(folder: Path, proxy: str, ca: str, environ: Mapping[str, str]) -> Files:
    """Write all such files to a folder that is there. proxy: its URL. ca: its certificate, in PEM. Raises OSError."""
    written: dict[str, str] = {}
    bundles: dict[str, str] = {}
    # What we have written ourselves counts for nothing: a shell that has it may ask again.
    environ = {name: value for name, value in environ.items() if Path(value).parent != folder}
    system, held = system_roots(environ), functools.cache(_held)  # many variables name the same file, as a rule
    for name in CA_FILES:
        before = environ.get(name, "")
        base = before if before and held(before) else system
        if base not in written:
            text = "".join(f"{certificate}\n" for certificate in (*held(base), ca.strip()))
            written[base] = _write(folder / f"ca-bundle{len(written) or ''}.pem", text)
        bundles[name] = written[base]
    store = _write(folder / "trust-store.p12", _trust_store("".join([*held(system), ca])))
    added = (
        f"ca_certificate = {bundles['SSL_CERT_FILE']}\nhttp_proxy = {proxy}\nhttps_proxy = {proxy}\nuse_proxy = on\n"
    )
    wgetrc = _write(folder / "wgetrc", f"{_wgetrc(environ)}\n{added}")
    return Files(bundles, store, wgetrc, PYTHON)


def _held(path: str) -> list[str]:
    """The certificates of a file, in PEM; none where it cannot be read."""
    try:
        return blocks(Path(path).read_text(errors="replace"))
    except OSError:
        return []


def _wgetrc(environ: Mapping[str, str]) -> str:
    """What Wget would read without us."""
    home = environ.get("HOME") or os.path.expanduser("~")  # noqa: PTH111  # Path's own raises where there is none
    path = Path(environ.get("WGETRC") or Path(home, ".wgetrc"))
    try:
        return path.read_text(errors="surrogateescape")
    except OSError:
        return ""


def _trust_store(text: str) -> bytes:
    """PKCS#12 as Java reads it: certificates are trusted there only if they are marked so."""
    roots = [pkcs12.PKCS12Certificate(root, f"{place}".encode()) for place, root in enumerate(certificates(text))]
    return pkcs12.serialize_java_truststore(roots, BestAvailableEncryption(STORE_PASSWORD.encode()))


def _write(path: Path, content: str | bytes) -> str:
    """Write a file at once, as programs may be reading what it was; its path."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_bytes(content.encode(errors="surrogateescape") if isinstance(content, str) else content)
    new.replace(path)
    return str(path)
