"""The Docker engine, as the tests use it: its command line, containers that go away, the contents of an image."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Self, cast
from uuid import uuid4

NAME = f"jwtproxy-test-{uuid4().hex[:8]}"
"""Everything that the tests make bears this name, or begins with it."""

NONE: Mapping[str, str] = {}

# The caller's own settings must not leak in.
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("JWT_", "HTTP_", "COMPOSE_")) and name.upper() not in ("WORKERS", "HTTP_PROXY", "ALL_PROXY")
}

HARDENED = "--read-only --tmpfs /tmp --cap-drop=ALL --security-opt=no-new-privileges --memory 512m".split()


def run(
    *command: str, cwd: Path | None = None, check: bool = True, env: Mapping[str, str] = NONE
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, within five minutes."""
    done = subprocess.run(
        command, cwd=cwd, env={**ENVIRONMENT, **env}, capture_output=True, text=True, timeout=300, check=False
    )
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def docker(*arguments: str, env: Mapping[str, str] = NONE) -> str:
    """What the docker command prints."""
    return run("docker", *arguments, env=env).stdout.strip()


def inspect(thing: str) -> dict[str, Any]:
    """All that the engine knows about a container or an image."""
    return cast("dict[str, Any]", json.loads(docker("inspect", thing))[0])


def named(kind: str, *arguments: str) -> list[str]:
    """The containers, networks, volumes or images whose name begins with ours."""
    listed = docker(kind, "ls", "--format", "{{.Repository}}" if kind == "image" else "{{json .}}", *arguments)
    if kind == "image":
        return [name for name in listed.splitlines() if name.startswith(NAME)]
    key = {"container": "Names"}.get(kind, "Name")
    return [name for line in listed.splitlines() if (name := json.loads(line)[key]).startswith(NAME)]


def sweep() -> None:
    """Remove all that bears our name."""
    for kind, arguments, removal in (
        ("container", ["--all"], ["rm", "--force", "--volumes"]),
        ("network", [], ["rm"]),
        ("volume", [], ["rm", "--force"]),
        ("image", [], ["rm", "--force"]),
    ):
        if found := named(kind, *arguments):
            run("docker", kind, *removal, *found, check=False)


class Container:
    """A container of this image; removed, with its volumes, on leaving the `with` block."""

    def __init__(self, image: str, *arguments: str, options: Sequence[str] = (), env: Mapping[str, str] = NONE) -> None:
        self.name = f"{NAME}-{uuid4().hex[:6]}"
        passed = [word for name in env for word in ("--env", name)]
        docker("run", "--detach", "--name", self.name, *passed, *options, image, *arguments, env=env)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        docker("rm", "--force", "--volumes", self.name)

    def wait_until_healthy(self) -> float:
        """Seconds that it took."""
        began = time.monotonic()
        while (state := inspect(self.name)["State"])["Health"]["Status"] != "healthy":
            assert state["Running"], self.logs()
            assert time.monotonic() - began < 60, f"{state['Health']}\n{self.logs()}"
            time.sleep(0.1)
        return time.monotonic() - began

    def execute(self, *command: str) -> str:
        """What a command inside prints."""
        return docker("exec", self.name, *command)

    def stop(self) -> tuple[float, int]:
        """Seconds that `docker stop` took, and the exit status."""
        began = time.monotonic()
        docker("stop", self.name)
        return time.monotonic() - began, inspect(self.name)["State"]["ExitCode"]

    def logs(self) -> str:
        """Both streams."""
        done = run("docker", "logs", self.name)
        return done.stdout + done.stderr

    def memory(self) -> float:
        """MiB in use, as `docker stats` counts it: without the page cache."""
        used = docker("stats", "--no-stream", "--format", "{{.MemUsage}}", self.name).split("/")[0].strip()
        units = {"GiB": 1024.0, "MiB": 1.0, "KiB": 1 / 1024}
        return float(used[:-3]) * units[used[-3:]]


@contextmanager
def _archive(*command: str) -> Iterator[tarfile.TarFile]:
    """The tar archive that a docker command writes to its output."""
    with subprocess.Popen(["docker", *command], stdout=subprocess.PIPE, env=ENVIRONMENT) as process:
        assert process.stdout
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            yield archive
        while process.stdout.read(1 << 20):
            pass
    assert process.returncode == 0, command


def size(image: str) -> int:
    """Bytes of all files in an image."""
    container = docker("create", "--name", f"{NAME}-{uuid4().hex[:6]}", image, "true")
    try:
        with _archive("export", container) as archive:
            return sum(member.size for member in archive)
    finally:
        docker("rm", "--volumes", container)


def contains(image: str, *needles: bytes) -> list[bool]:
    """Whether each of these byte strings occurs anywhere in an image: in a file of any layer, a name, its settings."""
    found = [False] * len(needles)
    with _archive("save", image) as archive:
        for member in archive:
            if stream := archive.extractfile(member):
                for block in _blocks(stream, overlap=max(map(len, needles))):
                    found = [was or needle in block for was, needle in zip(found, needles, strict=True)]
    return found


def _blocks(stream: IO[bytes], overlap: int) -> Iterator[bytes]:
    """The content, uncompressed, in pieces that overlap."""
    head = stream.read(4)
    assert head != b"\x28\xb5\x2f\xfd", "layers compressed with zstd cannot be searched"
    rest = _Joined(head, stream)
    source = gzip.GzipFile(fileobj=cast("IO[bytes]", rest)) if head[:2] == b"\x1f\x8b" else rest
    tail = b""
    while block := source.read(1 << 20):
        yield tail + block
        tail = block[-overlap:]


class _Joined:
    """A stream whose first bytes were read already."""

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        self._head, self._rest = head, rest

    def read(self, length: int) -> bytes:
        head, self._head = self._head[:length], self._head[length:]
        return head or self._rest.read(length)
