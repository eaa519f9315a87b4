"""What makes the clients of this machine trust a certificate, and what takes it back: decided here, done by others.

A plan is told before any of its steps is taken. What we add has a name made of the certificate's fingerprint, and is
removed only where it holds that very certificate.
"""

import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from jwtproxy.config.errors import SettingsError

CERTUTIL = "certutil"
"""The tool for NSS, the library of Chromium and Firefox."""


class Store(NamedTuple):
    """Where a kind of system keeps the certificates that its owner adds, and what makes them count."""

    folder: str
    ending: str
    update: tuple[str, ...]
    renew: tuple[str, ...]
    """The same after one was removed."""


_DEBIAN = ("update-ca-certificates",), ("update-ca-certificates", "--fresh")  # links to what is gone stay without it
_FEDORA = ("update-ca-trust",), ("update-ca-trust",)
STORES = (
    Store("/etc/pki/ca-trust/source/anchors", ".pem", *_FEDORA),  # Fedora, RHEL, Amazon Linux
    Store("/usr/local/share/ca-certificates", ".crt", *_DEBIAN),  # Debian, Ubuntu, Alpine
    Store("/etc/ca-certificates/trust-source/anchors", ".crt", *_FEDORA),  # Arch
    Store("/etc/pki/trust/anchors", ".pem", *_DEBIAN),  # SUSE
)
DATABASES = (
    ".pki/nssdb",
    ".local/share/pki/nssdb",
    "snap/chromium/current/.pki/nssdb",
    ".mozilla/firefox/*",
    ".config/mozilla/firefox/*",
    "snap/firefox/common/.mozilla/firefox/*",
)
"""Where NSS databases are in a home folder; the first is made where there is none."""


class Step(NamedTuple):
    """One thing to do: write the certificate to a file, remove that, make a folder, run a command, feed it to one."""

    kind: Literal["write", "remove", "make", "run", "feed"]
    what: tuple[str, ...]

    def __str__(self) -> str:
        if self.kind == "feed":
            return f"run {shlex.join(self.what)} <certificate"
        return f"{self.kind} {shlex.join(self.what)}"

    def in_shell(self, source: str) -> str:
        """The same in the system's store, typed by a user. source: a file with the certificate, or its URL."""
        what = shlex.join(self.what)
        if self.kind == "write" and "://" in source:
            return f"curl -fsS --noproxy '*' {shlex.quote(source)} | sudo tee {what} >/dev/null"
        words = {"write": f"install -m 644 {shlex.quote(source)} ", "remove": "rm "}
        return f"sudo {words.get(self.kind, '')}{what}"


class Plan(NamedTuple):
    """What to do in one place; nothing, where all is as it is to be."""

    place: str
    steps: tuple[Step, ...]


def name_of(fingerprint: str) -> str:
    """What a certificate is called where we put it."""
    return f"jwtproxy-{fingerprint[:16]}"


def store_of(platform: str, folders: Collection[str], tools: Collection[str]) -> Store:
    """This system's. folders: which of STORES are there; tools: which can be run. Raises SettingsError."""
    if platform == "darwin":
        command = "sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain FILE"
        raise SettingsError("the keychains of macOS are left to its own tool", f"type: {command}")
    here = [store for store in STORES if store.folder in folders]
    if ready := next((store for store in here if store.update[0] in tools), None):
        return ready
    tool = here[0].update[0] if here else "update-ca-certificates or update-ca-trust"
    hint = "install the package ca-certificates; --nss alone does without"
    raise SettingsError(f"the system's store cannot be changed: there is no {tool}", hint)


def file_in(store: Store, fingerprint: str) -> Path:
    """Where a certificate is put in a system's store."""
    return Path(store.folder, f"{name_of(fingerprint)}{store.ending}")


def system(store: Store, fingerprint: str, there: Collection[str] | None, trusted: bool) -> Plan:
    """How it is to become trusted, or not. there: what our file holds, None without one. Raises SettingsError."""
    path = str(file_in(store, fingerprint))
    if there is not None and fingerprint not in there:
        raise SettingsError(f"{path!r} does not hold what it is named for", "look at it, and remove it by hand")
    if trusted == (there is not None):
        return Plan(path, ())
    if trusted:
        return Plan(path, (Step("write", (path,)), Step("run", store.update)))
    return Plan(path, (Step("remove", (path,)), Step("run", store.renew)))


def nss(folder: Path, fingerprint: str, there: Collection[str] | None, trusted: bool) -> Plan:
    """The same for an NSS database. there: what it has under our name; None where the database itself is not there."""
    place, name = f"sql:{folder}", name_of(fingerprint)
    if trusted == (fingerprint in (there or ())):
        return Plan(place, ())
    if not trusted:
        return Plan(place, (Step("run", (CERTUTIL, "-D", "-d", place, "-n", name)),))
    add = Step("feed", (CERTUTIL, "-A", "-d", place, "-n", name, "-t", "C,,"))
    if there is not None:
        return Plan(place, (add,))
    new = Step("run", (CERTUTIL, "-N", "--empty-password", "-d", place))
    return Plan(place, (Step("make", (str(folder),)), new, add))


def check_root(plan: Plan, root: bool, source: str) -> None:
    """Refuse what only root can do, and say how root does it. Raises SettingsError."""
    if plan.steps and not root:
        typed = " && ".join(step.in_shell(source) for step in plan.steps)
        hint = f"{typed}; or use --nss alone, which needs no root"
        raise SettingsError("only root can change the system's store", hint)


def check_certutil(tools: Collection[str], databases: Sequence[Path]) -> None:
    """Refuse databases for which there is no tool. Raises SettingsError."""
    if databases and CERTUTIL not in tools:
        hint = "install libnss3-tools (nss-tools on Fedora, nss on Arch); --system alone does without"
        raise SettingsError(f"there is no {CERTUTIL} for the NSS database {str(databases[0])!r}", hint)
