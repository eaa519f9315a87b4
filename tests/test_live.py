"""What changes on disk is taken over as soon as it is whole; what is broken is told once, and changes nothing."""

from __future__ import annotations

import itertools
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from jwtproxy import key_source, live, policy
from jwtproxy.key_source import Source
from jwtproxy.keys import parse as parse_key
from jwtproxy.live import Live
from jwtproxy.settings import OPTIONS, Settings, SettingsError, parse

A, B, C = (
    ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    for _ in range(3)
)
SECRET = secrets.token_bytes(64).hex()
RULES = "rules: [{match: a, sign: false}]\n"
BROKEN_RULES = "rules: [{match: a, sgin: false}]\n"


class Reloaded:
    """What every report of a success equals."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and other.startswith("reloaded: ")

    __hash__ = None  # type: ignore[assignment]


RELOADED = Reloaded()


def _kid(text: str) -> str:
    return parse_key(text, "it")[0].kid


def _compile(text: str) -> Callable[[Any], bool]:
    return lambda flow: text in flow


def _settings(**options: str) -> Settings:
    return parse({option.name: options.get(option.name, "") for option in OPTIONS})


def _live(path: Path, **options: str) -> Live:
    name = key_source.KEY_DIR if path.is_dir() else key_source.KEY_FILE
    return Live(_settings(jwt_jwks_max_age="0", **options), Source(name, None, str(path)), _compile)


def _signing(found: Live) -> str:
    """The kid of the key that signs."""
    return found.policy.default.ring.signing(4e9).kid


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A second passes between two looks at it."""
    found = SimpleNamespace(ticks=itertools.count())
    monkeypatch.setattr(live, "time", SimpleNamespace(monotonic=lambda: float(next(found.ticks))))
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "key.pem").write_text(A)
    return tmp_path / "key.pem"


def _settle(found: Live) -> live.Report | None:
    """What a change that is complete is told as: with the second look, and by no further one."""
    assert found.poll() is None, "it may still be being written"
    report = found.poll()
    assert [found.poll() for _ in range(3)] == [None, None, None], "told once"
    return report


def test_a_start_without_a_key_is_none(tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        _live(tmp_path / "missing")


def test_while_nothing_changes_there_is_nothing_to_tell(file: Path) -> None:
    found = _live(file)
    before = found.policy
    assert [found.poll() for _ in range(3)] == [None, None, None]
    assert found.policy is before


def test_a_new_key_is_taken_over(file: Path) -> None:
    found = _live(file)
    file.write_text(B)
    assert _settle(found) == RELOADED
    assert _signing(found) == _kid(B)


def test_a_file_that_is_still_being_written_is_waited_for(file: Path) -> None:
    found = _live(file)
    for size in (10, 60, len(B)):
        file.write_text(B[:size])
        assert found.poll() is None
        assert _signing(found) == _kid(A)
    assert found.poll() == RELOADED
    assert _signing(found) == _kid(B)


def _cut(file: Path) -> None:
    file.write_text(B[:60])


def _empty(file: Path) -> None:
    file.write_text("")


def _delete(file: Path) -> None:
    file.unlink()


def _make_public(file: Path) -> None:
    file.write_text(file.read_text().replace("PRIVATE", "PUBLIC"))


def _make_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


BROKEN: list[tuple[Callable[[Path], None], str]] = [
    (_cut, "JWT_KEY_FILE '{}' is cut short"),
    (_empty, "JWT_KEY_FILE '{}' is empty"),
    (_delete, "cannot read JWT_KEY_FILE '{}': no such file or directory"),
    (_make_public, "JWT_KEY_FILE '{}' holds a key that is damaged"),
    (_make_folder, "there is no key in JWT_KEY_FILE '{}'"),
]


@pytest.mark.parametrize(("spoil", "said"), BROKEN)
def test_what_is_broken_is_told_once_and_the_last_good_one_goes_on(
    file: Path, spoil: Callable[[Path], None], said: str
) -> None:
    found = _live(file)
    before = found.policy
    spoil(file)
    report = _settle(found)
    assert isinstance(report, SettingsError)
    assert str(report) == said.format(file)
    assert found.policy is before
    assert _signing(found) == _kid(A)
    if file.is_dir():
        file.rmdir()
    file.write_text(B)
    assert _settle(found) == RELOADED, "and what is mended is taken over"
    assert _signing(found) == _kid(B)


def test_what_is_mended_as_it_was_is_taken_over_too(file: Path) -> None:
    found = _live(file)
    _delete(file)
    assert isinstance(_settle(found), SettingsError)
    file.write_text(A)
    assert _settle(found) == RELOADED


def test_a_second_mistake_is_told_too(file: Path) -> None:
    found = _live(file)
    _cut(file)
    first = _settle(found)
    _empty(file)
    second = _settle(found)
    assert [type(report) for report in (first, second)] == [SettingsError, SettingsError]
    assert str(first) != str(second)


def test_a_swap_as_kubernetes_does_it_is_taken_over(tmp_path: Path) -> None:
    for version, text in (("1", A), ("2", B)):
        (tmp_path / f"..{version}").mkdir()
        (tmp_path / f"..{version}/key.pem").write_text(text)
        os.utime(tmp_path / f"..{version}/key.pem", (0, 0))
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "key.pem").symlink_to("..data/key.pem")
    for found in (_live(tmp_path), _live(tmp_path / "key.pem")):
        (tmp_path / "..new").symlink_to("..2")
        (tmp_path / "..new").replace(tmp_path / "..data")
        assert _settle(found) == RELOADED
        assert _signing(found) == _kid(B)
        (tmp_path / "..new").symlink_to("..1")
        (tmp_path / "..new").replace(tmp_path / "..data")


def test_keys_of_a_folder_come_and_go(tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_text(A)
    found = _live(tmp_path)
    (tmp_path / "b.pem").write_text(B)
    assert _settle(found) == RELOADED
    assert _signing(found) == _kid(B)
    (tmp_path / "c.pem").write_text(C[:50])
    assert isinstance(_settle(found), SettingsError), "one that is broken is not left out in silence"
    assert _signing(found) == _kid(B)
    (tmp_path / "c.pem").unlink()
    (tmp_path / "a.pem").unlink()
    assert _settle(found) == RELOADED
    for path in tmp_path.glob("*.pem"):
        path.unlink()
    assert isinstance(_settle(found), SettingsError)
    assert _signing(found) == _kid(B)
    tmp_path.rmdir()
    assert isinstance(_settle(found), SettingsError)
    tmp_path.mkdir()
    (tmp_path / "a.pem").write_text(A)
    assert _settle(found) == RELOADED
    assert _signing(found) == _kid(A)


def test_a_key_that_comes_later_does_not_sign_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_text(A)
    os.utime(tmp_path / "a.pem", (0, 0))
    found = Live(_settings(jwt_jwks_max_age="1000"), Source(key_source.KEY_DIR, None, str(tmp_path)), _compile)
    (tmp_path / "b.pem").write_text(B)
    os.utime(tmp_path / "b.pem", (0, 0))
    assert _settle(found) == RELOADED
    ring = found.policy.default.ring
    since = ring.ready(ring.keys[1]) - 1000 - live.MARGIN
    times = (0, 1000, 1000 + live.MARGIN)
    assert [ring.signing(since + passed).kid for passed in times] == [_kid(A), _kid(A), _kid(B)]
    assert found.reload() == RELOADED
    ring = found.policy.default.ring
    assert ring.ready(ring.keys[1]) - 1000 - live.MARGIN == since, "reading it again does not begin anew"


def test_rules_and_their_keys_are_followed_too(file: Path) -> None:
    rules = file.with_name("rules.yaml")
    rules.write_text(RULES)
    found = _live(file, jwt_rules=str(rules))
    assert found.policy.decide("a").action == "pass"
    rules.write_text(BROKEN_RULES)
    report = _settle(found)
    assert str(report) == f"{rules}:1: unknown key 'sgin'"
    assert found.policy.decide("a").action == "pass"
    rules.write_text("rules: [{match: a, key: other}]")
    assert str(_settle(found)).startswith(f"{rules}:1: cannot read ")
    file.with_name("other").write_text(SECRET)
    assert _settle(found) == RELOADED
    assert found.policy.decide("a").target != found.policy.default


def test_a_change_while_all_is_read_is_not_missed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = _live(file)
    load = policy.load

    def slow(*arguments: Any) -> policy.Policy:
        monkeypatch.setattr(policy, "load", load)
        loaded = load(*arguments)
        file.write_text(C)
        return loaded

    monkeypatch.setattr(policy, "load", slow)
    file.write_text(B)
    assert found.poll() is None
    assert found.poll() == RELOADED
    assert _signing(found) == _kid(B)
    assert _settle(found) == RELOADED
    assert _signing(found) == _kid(C)


def test_what_is_broken_only_while_it_is_read_is_not_told(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = _live(file)
    load = policy.load

    def slow(*arguments: Any) -> policy.Policy:
        monkeypatch.setattr(policy, "load", load)
        try:
            return load(*arguments)
        finally:
            file.write_text(B)

    monkeypatch.setattr(policy, "load", slow)
    _cut(file)
    assert found.poll() is None
    assert found.poll() is None, "it has changed meanwhile"
    assert _signing(found) == _kid(A)
    assert _settle(found) == RELOADED
    assert _signing(found) == _kid(B)


def test_who_asks_for_it_gets_it_at_once_and_an_answer(file: Path) -> None:
    found = _live(file)
    assert found.reload() == RELOADED, "also where nothing has changed"
    file.write_text(B)
    assert found.reload() == RELOADED
    assert _signing(found) == _kid(B)
    assert found.poll() is None, "which is not told again"
    _cut(file)
    for _ in range(2):
        assert isinstance(found.reload(), SettingsError)
    assert [found.poll(), found.poll()] == [None, None]
    assert _signing(found) == _kid(B)


def test_what_could_not_be_foreseen_is_told_and_followed_on(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that nobody thought of ends neither the proxy nor its looking, and does not tell what it met."""
    found = _live(file)
    load = policy.load

    def fails(*arguments: Any) -> policy.Policy:
        monkeypatch.setattr(policy, "load", load)
        load(*arguments)
        raise RuntimeError(SECRET)

    monkeypatch.setattr(policy, "load", fails)
    file.write_text(B)
    report = _settle(found)
    assert isinstance(report, SettingsError)
    assert "RuntimeError" in str(report)
    assert SECRET not in f"{report} {report.hint}"
    assert _signing(found) == _kid(A)
    file.write_text(C)
    assert _settle(found) == RELOADED


def test_two_looks_in_one_moment_are_one(file: Path, clock: SimpleNamespace) -> None:
    """A file may be half written in both."""
    found = _live(file)
    clock.ticks = itertools.repeat(1.0)
    file.write_text(B)
    assert [found.poll() for _ in range(3)] == [None, None, None]
    clock.ticks = itertools.repeat(2.0)
    assert found.poll() == RELOADED
