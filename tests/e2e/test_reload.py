"""Keys and rules change on disk, well or badly, under steady load: no request fails, and one line tells of it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import pytest
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from tests.support.clients import Raw
from tests.support.harness import ADDONS, Process, Proxy, StartBare, StartProxy, clean_env, launcher, thorough
from tests.support.rotation import JWKS, Made, Traffic, Volume, connect_to_each, errors, kid_of, made
from tests.support.upstreams import Feed, Recorder, Seen
from tests.support.workers import WORKERS, await_workers, children, get, slack, state_of, until

BROKEN = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg\n-----END PRIVATE KEY-----\n"
KEPT = "; keeping the previous configuration\n"


class Scene:
    """A proxy under load whose files change; a context manager that checks in the end that nobody noticed.

    `folder` holds the files; `write` puts one there at once, `text` of it never to be seen in any output.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kids = dict[str, Made]()
        self.secrets = list[str]()
        self.proxy: Process
        self.traffic: Traffic
        self._recorder: Recorder
        self._hidden = set[str]()

    def key(self) -> Made:
        """A new key, whose tokens are good from now on."""
        key = made()
        self.kids[key.kid] = key
        return key

    def secret(self, bits: int = 512) -> str:
        """A new shared secret, whose tokens are good from now on."""
        self.secrets.append(os.urandom(bits // 8).hex())
        return self.secrets[-1]

    def write(self, name: str, text: str) -> float:
        """Replace a file atomically; when."""
        self._hide(text)
        draft = self.folder / f".{Path(name).name}.draft"
        draft.write_text(text)
        draft.rename(self.folder / name)
        return time.time()

    def dribble(self, name: str, text: str, pause: Callable[[], None]) -> float:
        """Write a file in two parts; when the second was there."""
        self._hide(text)
        with (self.folder / name).open("w") as file:
            file.write(text[: len(text) // 2])
            file.flush()
            pause()
            file.write(text[len(text) // 2 :])
        return time.time()

    @contextlib.contextmanager
    def runs(
        self, proxy: Process, recorder: Recorder, workers: int = WORKERS, path: str = "/new", rate: float = 10
    ) -> Iterator[Self]:
        """Put it under load: so many requests a second for each worker, and as many over new connections."""
        self.proxy, self._recorder = proxy, recorder
        serving = await_workers(proxy, workers) if workers > 1 else [proxy.pid]
        with Traffic(proxy, recorder, serving, rate, rate, path) as self.traffic:
            yield self
            assert proxy.running, proxy.output
        self._check()

    def hurry(self) -> None:
        """Have it look at its files now.

        It notices by itself, which takes up to two seconds, most of what these tests wait for. Others of their steps
        show that it does: this is for those that are about what it says.
        """
        self.proxy.send_signal(signal.SIGHUP)

    def told(self, count: int, pattern: str) -> None:
        """Wait for error number `count`, which must read so."""
        until(lambda: len(errors(self.proxy)) >= count, 5 * slack(), f"{count} errors, {pattern!r} the last")
        until(lambda: "jwtproxy: hint: " in errors(self.proxy)[count - 1], 2, "its hint")
        found = errors(self.proxy)
        assert len(found) == count, found
        assert re.search(pattern, found[-1]), found
        assert KEPT in found[-1], found

    def reloaded(self, count: int) -> None:
        """Wait until it was told so often of a reload, and no more often."""
        until(lambda: self._reloads() >= count, 5 * slack(), f"told {count} times of a reload")
        assert self._reloads() == count, self.proxy.output

    def in_force(self, what: str, holds: Callable[[Seen], bool], since: float) -> None:
        """Wait until every worker goes by what was written at `since`: two seconds, and noise."""
        took = self.traffic.everywhere(holds, since)
        print(f"{what}: in force in each of {len(self.traffic.workers)} workers after {took:.2f} s")
        assert took < 4 * slack()

    def signs(self, what: str, key: Made, since: float) -> None:
        """Wait until every worker signs with a key that was there at `since`."""
        self.in_force(what, lambda seen: kid_of(seen) == key.kid, since)

    def verify(self, seen: Seen) -> Mapping[str, Any]:
        """The claims of the one token of a request, which one of the keys has signed."""
        if kid := kid_of(seen):
            return jwt.decode(seen.token, self.kids[kid].key, algorithms=["ES256"]).claims
        for secret in self.secrets:
            with contextlib.suppress(JoseError):
                return jwt.decode(
                    seen.token, OctKey.import_key(bytes.fromhex(secret)), algorithms=["HS512", "HS256"]
                ).claims
        raise AssertionError(f"signed by none of the secrets: {seen}")

    def _reloads(self) -> int:
        return (self.proxy.stdout + self.proxy.stderr).count("jwtproxy: reloaded: ")

    def _hide(self, text: str) -> None:
        """Key material: the lines of PEM, and long runs of hexadecimal; in pieces, as an error might quote a few."""
        for run in re.findall(r"(?m)^[A-Za-z0-9+/=]{24,}$", text):
            self._hidden |= {run[start : start + 12] for start in range(24 if "=" in run else 48, len(run) - 11, 6)}

    def _check(self) -> None:
        seen = self._recorder.wait(self.traffic.answered)
        assert self.traffic.failures == []
        assert len(seen) == self.traffic.answered > 0
        assert len({self.verify(one)["jti"] for one in seen}) == len(seen)
        assert "Traceback" not in self.proxy.output, self.proxy.output
        assert not [piece for piece in self._hidden if piece in self.proxy.output], self.proxy.output
        print(f"{len(seen)} requests, none failed, none unsigned")


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    folder = tmp_path / "etc"
    folder.mkdir()
    return Scene(folder)


def settings(workers: int = WORKERS, **variables: object) -> dict[str, str]:
    return {"WORKERS": str(workers), **{name: str(value) for name, value in variables.items()}}


# --- one file


@pytest.mark.parametrize("workers", [pytest.param(1, marks=thorough), WORKERS])
def test_a_key_file_is_broken_half_written_deleted_and_replaced(
    start_proxy: StartProxy, recorder: Recorder, scene: Scene, workers: int
) -> None:
    """What is wrong is told once, whichever number of workers finds it; what is right again is in force soon."""
    keys = [scene.key() for _ in range(3)]
    scene.write("key.pem", keys[0].text)
    path = scene.folder / "key.pem"
    with scene.runs(start_proxy(env=settings(workers, JWT_KEY_FILE=path), secret=None), recorder, workers):
        scene.write("key.pem", BROKEN)
        scene.told(1, rf"error: JWT_KEY_FILE '{path}' ")
        gap = 0.0

        def short() -> None:
            nonlocal gap
            begun = time.monotonic()
            time.sleep(0.3)
            gap = time.monotonic() - begun

        scene.signs("half-written for 0.3 s", keys[1], scene.dribble("key.pem", keys[1].text, short))
        scene.reloaded(1)
        assert len(errors(scene.proxy)) == 1 or gap > 0.45, "who saw half of it has looked again"

        path.unlink()
        scene.hurry()
        scene.told(2, rf"error: cannot read JWT_KEY_FILE '{path}': no such file or directory")

        def long() -> None:
            begun = time.monotonic()
            scene.told(3, rf"error: JWT_KEY_FILE '{path}' ")
            time.sleep(max(0.0, begun + 2 - time.monotonic()))

        scene.signs("half-written for 2 s", keys[2], scene.dribble("key.pem", keys[2].text, long))
        scene.reloaded(2)
    assert len(errors(scene.proxy)) == 3, scene.proxy.output


@pytest.mark.parametrize("workers", [1, pytest.param(WORKERS, marks=thorough)])
def test_a_secret_file_changes(start_proxy: StartProxy, recorder: Recorder, scene: Scene, workers: int) -> None:
    """As any key does; here it breaks in the middle of its digits, which nobody may see."""
    first, second = scene.secret(), scene.secret()
    scene.write("secret", first)
    path = scene.folder / "secret"

    def by(secret: str) -> Callable[[Seen], bool]:
        def holds(seen: Seen) -> bool:
            try:
                jwt.decode(seen.token, OctKey.import_key(bytes.fromhex(secret)), algorithms=["HS512"])
            except JoseError:
                return False
            return True

        return holds

    with scene.runs(start_proxy(env=settings(workers, JWT_SHARED_SECRET_FILE=path), secret=None), recorder, workers):
        scene.write("secret", second[:-1])
        scene.told(1, rf"error: JWT_SHARED_SECRET_FILE '{path}' has an odd number of hexadecimal digits")
        scene.in_force("a new secret", by(second), scene.write("secret", second))
        scene.reloaded(1)
    assert len(errors(scene.proxy)) == 1, scene.proxy.output


# --- a folder


def test_a_folder_of_keys_is_spoilt_swapped_and_mended(
    start_proxy: StartProxy, recorder: Recorder, scene: Scene
) -> None:
    """By a broken key, a broken manifest, a rename of the whole, a link that leads elsewhere."""
    first, second, third = (scene.key() for _ in range(3))
    for name, key in (("one", first), ("two", second), ("three", third)):
        (scene.folder / name).mkdir()
        scene.write(f"{name}/2026.pem", key.text)
    path = scene.folder / "keys"
    path.symlink_to("one")
    with scene.runs(start_proxy(env=settings(JWT_KEY_DIR=path), secret=None), recorder):
        scene.write("keys/2027.pem", BROKEN)
        scene.hurry()
        scene.told(1, rf"error: '{path}/2027.pem' ")
        (scene.folder / "link").symlink_to("two")
        (scene.folder / "link").rename(path)
        scene.signs("a link to another folder", second, time.time())
        scene.reloaded(1)

        scene.write("keys/keys.yaml", "2026.pem: {not_befor: 2026-01-01}\n")
        scene.hurry()
        scene.told(2, rf"error: {path}/keys.yaml:1: unknown key 'not_befor'")
        (scene.folder / "two").rename(scene.folder / "was two")
        (scene.folder / "three").rename(scene.folder / "two")
        scene.signs("another folder of that name", third, time.time())
        scene.reloaded(2)
    assert len(errors(scene.proxy)) == 2, scene.proxy.output


@thorough
def test_a_folder_is_emptied_and_deleted(start_proxy: StartProxy, recorder: Recorder, scene: Scene) -> None:
    """Each told once; also where Kubernetes mounts it, and where a manifest names what is not there."""
    first, second = scene.key(), scene.key()
    volume = Volume(scene.folder / "keys")
    volume.hold({"2026.pem": first.text})
    path = volume.folder
    with scene.runs(start_proxy(env=settings(JWT_KEY_DIR=path), secret=None), recorder):
        volume.hold({})
        scene.told(1, rf"error: there is no key in JWT_KEY_DIR '{path}'")
        volume.hold({"2026.pem": first.text, "keys.yaml": "2027.pem: {kid: x}\n"})
        scene.told(2, rf"error: {path}/keys.yaml:1: there is no key file '2027.pem'")
        path.rename(scene.folder / "away")
        scene.told(3, rf"error: cannot read JWT_KEY_DIR '{path}': no such folder")
        Volume(path).hold({"2026.pem": second.text})
        scene.signs("a new folder", second, time.time())
        scene.reloaded(1)
    assert len(errors(scene.proxy)) == 3, scene.proxy.output


def _with(member: str, value: str) -> str:
    """A JWK with a member that nothing can make sense of."""
    return f"{json.dumps(made().key.as_dict(private=True))[:-1]}, {json.dumps(member)}: {value}}}"


@thorough
@pytest.mark.parametrize("workers", [1, WORKERS])
def test_no_nonsense_in_a_file_ends_the_proxy(
    start_proxy: StartProxy, recorder: Recorder, scene: Scene, workers: int
) -> None:
    """Nor does it cost more than an error and a hint: times out of range, numbers that are none, too deep nesting."""
    first, last = scene.key(), scene.key()
    (scene.folder / "keys").mkdir()
    scene.write("keys/2026.pem", first.text)
    nonsense = {
        "2026.pem": [_with("nbf", "1e18"), _with("nbf", "NaN"), _with("exp", "-1e18"), _with("nbf", "9" * 400)],
        "keys.yaml": [
            "2026.pem: {not_before: '9999-12-31T23:59:59-23:59'}",
            "2026.pem: {not_after: '0001-01-01T00:00:00+23:59'}",
            "[" * 3000,
        ],
    }
    proxy = start_proxy(env=settings(workers, JWT_KEY_DIR=scene.folder / "keys"), secret=None)
    with scene.runs(proxy, recorder, workers):
        count = 0
        for name, texts in nonsense.items():
            scene.write("keys/2026.pem", first.text)
            for text in texts:
                scene.write(f"keys/{name}", text)
                count += 1
                scene.told(count, "error: ")
        (scene.folder / "keys" / "keys.yaml").unlink()
        scene.signs("mended", last, scene.write("keys/2026.pem", last.text))
    assert len(errors(scene.proxy)) == count, scene.proxy.output


# --- rules

RULES = """\
rules:
  - name: own
    match: {match}
    key: {key}
    claims: {{v: {version}}}
  - match: ~all
    claims: {{v: {version}}}
"""


def rules(version: int, match: str = "~u /own$", key: str = "own.pem") -> str:
    return RULES.format(version=version, match=match, key=key)


def test_rules_and_their_keys_change(start_proxy: StartProxy, recorder: Recorder, scene: Scene) -> None:
    """Broken YAML, a bad filter, a broken key of a rule: each is told with its place."""
    own, other = scene.key(), scene.key()
    scene.write("own.pem", own.text)
    scene.write("rules.yaml", rules(1))
    path = scene.folder / "rules.yaml"

    def version(number: int) -> Callable[[Seen], bool]:
        return lambda seen: scene.verify(seen)["v"] == number

    proxy = start_proxy(env=settings(JWT_RULES=path), secret=scene.secret())
    with scene.runs(proxy, recorder, path="/own"):
        scene.write("rules.yaml", rules(3) + "  - match: [\n")
        scene.hurry()
        scene.told(1, rf"error: {path}:\d+: bad YAML")
        scene.write("rules.yaml", rules(4, match="~u '('"))
        scene.hurry()
        scene.told(2, rf"error: {path}:3: ")
        scene.in_force("rules mended", version(5), scene.write("rules.yaml", rules(5)))
        scene.reloaded(1)

        scene.write("own.pem", BROKEN)
        scene.hurry()
        scene.told(3, rf"error: {path}:\d+: .*own.pem' ")
        begun = scene.write("own.pem", other.text)
        scene.reloaded(2)

        def renewed() -> list[Seen]:
            return [seen for seen in list(recorder.requests) if seen.at > begun and kid_of(seen) == other.kid]

        until(renewed, 4 * slack(), "the rule's new key signs")
    assert {scene.verify(seen)["v"] for seen in recorder.requests} == {1, 5}
    for seen in recorder.requests:
        assert (seen.target == "/own") == (kid_of(seen) in (own.kid, other.kid))
    assert len(errors(scene.proxy)) == 3, scene.proxy.output


# --- signals


@pytest.mark.parametrize("workers", [pytest.param(1, marks=thorough), WORKERS])
def test_a_hangup_reloads_at_once(start_proxy: StartProxy, recorder: Recorder, scene: Scene, workers: int) -> None:
    """Changed or not, well or badly; the processes stay the same, and so do requests on their way."""
    first, second = scene.key(), scene.key()
    scene.write("key.pem", first.text)
    path = scene.folder / "key.pem"
    feed = Feed("text/plain")
    recorder.route("/slow", feed)
    proxy = start_proxy(env=settings(workers, JWT_KEY_FILE=path), secret=None)
    with scene.runs(proxy, recorder, workers, rate=50):
        pids = proxy.pids()
        with Raw(proxy.port) as client:
            client.send(get(f"{recorder.url}/slow"))
            feed.push(b"before ")
            proxy.send_signal(signal.SIGHUP)
            scene.reloaded(1)

            begun = scene.write("key.pem", second.text)
            proxy.send_signal(signal.SIGHUP)
            scene.signs("by SIGHUP", second, begun)
            scene.reloaded(2)

            scene.write("key.pem", BROKEN)
            proxy.send_signal(signal.SIGHUP)
            scene.told(1, rf"error: JWT_KEY_FILE '{path}' ")
            scene.write("key.pem", second.text)
            proxy.send_signal(signal.SIGHUP)
            scene.reloaded(3)
            feed.push(b"after")
            feed.close()
            assert client.reply().body == b"before after"
        assert proxy.pids() == pids
        scene.traffic.answered += 1  # the slow one
    assert len(errors(proxy)) == 1, proxy.output
    scene.reloaded(3)


@thorough
@pytest.mark.parametrize("workers", [1, WORKERS])
def test_changes_are_followed_when_nobody_reads_of_them(
    tmp_path: Path, confdir: Path, scene: Scene, workers: int
) -> None:
    """`jwtproxy-run | head -1` goes on serving, also when a reload has something to say."""
    first, second = scene.key(), scene.key()
    scene.write("key.pem", first.text)
    process = subprocess.Popen(
        [*launcher(), "--workers", str(workers), "--set", f"confdir={confdir}"],
        env=clean_env(tmp_path, {"HTTP_PORT": "0", "JWT_KEY_FILE": str(scene.folder / "key.pem")}),
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert process.stdout
        found = Proxy.READY.search(process.stdout.readline().decode())
        assert found
        if workers > 1:
            until(lambda: len(children(process.pid)) == workers, 10 * slack(), "the workers")
        process.stdout.close()
        scene.write("key.pem", second.text)
        process.send_signal(signal.SIGHUP)
        time.sleep(1.5)  # the end of the manager, if it comes, takes its time
        with Raw(int(found[1])) as client:
            page = client.request(JWKS)
        assert [key["kid"] for key in json.loads(page.body)["keys"]] == [second.kid]
    finally:
        process.terminate()
        assert process.wait(10) == 0


class Terminal:
    """jwtproxy-run as a terminal starts it: that is its controlling one, and all it reads and writes; may be closed."""

    def __init__(self, workers: int, cwd: Path, confdir: Path, env: Mapping[str, str]) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [*launcher(), "--workers", str(workers), "--set", f"confdir={confdir}"],
            env=clean_env(cwd, {"HTTP_PORT": "0", **env}),
            cwd=cwd,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self._read = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        if self._master >= 0:
            self.close()

    def close(self) -> None:
        """As a window is closed."""
        os.close(self._master)
        self._master = -1

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until what it has shown matches."""
        deadline = time.monotonic() + 15
        while not (found := re.search(pattern, self._read.decode(errors="replace"))):
            assert time.monotonic() < deadline, self._read
            if select.select([self._master], [], [], 0.2)[0]:
                self._read += os.read(self._master, 1 << 16)
        return found


@pytest.mark.parametrize("workers", [pytest.param(1, marks=thorough), WORKERS])
def test_who_closes_the_terminal_ends_it(
    tmp_path: Path, confdir: Path, recorder: Recorder, scene: Scene, workers: int
) -> None:
    """As ever; a SIGHUP that comes while it is open reloads all the same."""
    scene.write("key.pem", scene.key().text)
    env = {"JWT_KEY_FILE": str(scene.folder / "key.pem")}
    with Terminal(workers, tmp_path, confdir, env) as terminal:
        port = int(terminal.wait_for(Proxy.READY.pattern)[1])
        pids = [terminal.process.pid]
        if workers > 1:
            until(lambda: len(children(pids[0])) == workers, 10 * slack(), "the workers")
            pids += children(pids[0])
        with Raw(port) as client:
            assert client.request(get(recorder.url)).status == 200
            terminal.process.send_signal(signal.SIGHUP)
            terminal.wait_for("jwtproxy: reloaded: ")
            assert client.request(get(recorder.url)).status == 200
        terminal.close()
        assert terminal.process.wait(10) == 0
        until(lambda: all(state_of(pid) in ("Z", "") for pid in pids), 5 * slack(), f"the end of {pids}")


# --- workers come and go


def test_a_worker_that_is_replaced_while_a_file_is_broken_goes_by_the_last_good_one(
    start_proxy: StartProxy, recorder: Recorder, scene: Scene
) -> None:
    """Though it starts when there is no good one to read; and it takes part in what comes next."""
    first, second, third = scene.key(), scene.key(), scene.key()
    scene.write("key.pem", first.text)
    path = scene.folder / "key.pem"
    proxy = start_proxy(env=settings(JWT_KEY_FILE=path), secret=None)
    victim, *others = await_workers(proxy, WORKERS)
    scene.proxy = proxy
    with Traffic(proxy, recorder, others, 10, 0.001) as traffic:
        scene.traffic = traffic
        begun = scene.write("key.pem", second.text)
        scene.hurry()
        scene.signs("a second key", second, begun)
        scene.reloaded(1)
        scene.write("key.pem", BROKEN)
        scene.hurry()
        scene.told(1, rf"error: JWT_KEY_FILE '{path}' ")
        os.kill(victim, signal.SIGKILL)
        until(lambda: len(set(children(proxy.pid)) - {victim}) == WORKERS, 5 * slack(), "a new worker")
        (new,) = set(children(proxy.pid)) - {victim, *others}
        with connect_to_each(proxy.port, [new])[new] as client:
            assert client.request(get(f"{recorder.url}/{new}")).status == 200
            assert [kid_of(seen) for seen in traffic.of_worker(new)] == [second.kid]
            begun = scene.write("key.pem", third.text)

            def renewed() -> bool:
                assert client.request(get(f"{recorder.url}/{new}")).status == 200
                return kid_of(traffic.of_worker(new)[-1]) == third.kid

            until(renewed, 4 * slack(), "the new worker signs with the third key")
            scene.signs("mended", third, begun)
        scene.reloaded(2)
    assert traffic.failures == []
    assert all(scene.verify(seen) for seen in recorder.requests)
    assert [line.split("!")[0][:24] for line in errors(proxy)][1:] == ["jwtproxy: error: worker "], proxy.output


# --- the bare script


def test_the_bare_script_follows_changes_too(start_bare: StartBare, recorder: Recorder, scene: Scene) -> None:
    """Of keys and of rules; what it says goes to mitmdump's log."""
    first, second = scene.key(), scene.key()
    scene.write("own.pem", first.text)
    scene.write("rules.yaml", rules(1, match="~m GET"))
    env = {"JWT_RULES": str(scene.folder / "rules.yaml")}
    scripts = (ADDONS / "jwt_inject.py", ADDONS / "status.py")
    with scene.runs(start_bare(scripts=scripts, env=env, secret=scene.secret()), recorder, 1):
        scene.write("own.pem", BROKEN)
        scene.told(1, r"error: .*rules.yaml:\d+: .*own.pem' ")
        scene.signs("the bare script", second, scene.write("own.pem", second.text))
        scene.reloaded(1)
        begun = scene.write("rules.yaml", rules(2, match="~m GET"))
        scene.in_force("rules of the bare script", lambda seen: scene.verify(seen)["v"] == 2, begun)
        scene.reloaded(2)
    assert len(errors(scene.proxy)) == 1, scene.proxy.output
