"""What changes on disk is taken over as soon as it is whole; what is broken is told once, and changes nothing."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from jwtproxy.conduct.request import RequestHead
from jwtproxy.config.errors import SettingsError
from jwtproxy.policy import current, decision, judge
from jwtproxy.policy.current import Change, CurrentPolicy, announce, follow
from jwtproxy.policy.settings import OPTIONS, Settings, parse
from jwtproxy.tokens import key_source, keyring
from jwtproxy.tokens.key_formats import parse as parse_key
from jwtproxy.tokens.key_source import KeySource
from jwtproxy.tokens.keyring import NoKeyError

A, B, C = (
    ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    for _ in range(3)
)
SECRET = secrets.token_bytes(64).hex()
RULES = "rules: [{match: a, sign: false}]\n"
BROKEN_RULES = "rules: [{match: a, sgin: false}]\n"


class Reloaded:
    """What every change that is taken over equals."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and other.startswith("reloaded: ")

    __hash__ = None  # type: ignore[assignment]


RELOADED = Reloaded()


def _kid(text: str) -> str:
    return parse_key(text, "it")[0].kid


def _compile(text: str) -> Callable[[RequestHead], bool]:
    return lambda head: text.encode() in head.path


HEAD = RequestHead(b"GET", "http", "a", 80, b"/a", ())


def _settings(**options: str) -> Settings:
    return parse(SimpleNamespace(**{option.name: options.get(option.name, "") for option in OPTIONS}))


def _current(path: Path, **options: str) -> CurrentPolicy:
    name = key_source.KEY_DIR if path.is_dir() else key_source.KEY_FILE
    return CurrentPolicy(_settings(jwt_jwks_max_age="0", **options), KeySource(name, None, str(path)), _compile)


def _signing(found: CurrentPolicy) -> str:
    """The kid of the key that signs."""
    return found.policy.decisions.all_makers[0].ring.signing(4e9).kid


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A second passes between two looks at it; what time it is only tests change."""
    found = SimpleNamespace(ticks=itertools.count(), now=time.time())
    clock = SimpleNamespace(monotonic=lambda: float(next(found.ticks)), time=lambda: found.now)
    for module in (current, decision, keyring):
        monkeypatch.setattr(module, "time", clock)
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "key.pem").write_text(A)
    return tmp_path / "key.pem"


def _settle(found: CurrentPolicy) -> Change | None:
    """What a change that is complete is told as: with the second look, and by no further one."""
    assert found.poll() is None, "it may still be being written"
    change = found.poll()
    assert [found.poll() for _ in range(3)] == [None, None, None], "told once"
    return change


def test_a_start_without_a_key_is_none(tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        _current(tmp_path / "missing")


def test_while_nothing_changes_there_is_nothing_to_tell(file: Path) -> None:
    found = _current(file)
    before = found.policy
    assert [found.poll() for _ in range(3)] == [None, None, None]
    assert found.policy is before


def test_a_new_key_is_taken_over(file: Path) -> None:
    found = _current(file)
    file.write_text(B)
    assert _settle(found) == RELOADED
    assert _signing(found) == _kid(B)


def test_a_file_that_is_still_being_written_is_waited_for(file: Path) -> None:
    found = _current(file)
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
    (_make_public, "JWT_KEY_FILE '{}' holds a damaged key"),
    (_make_folder, "there is no key in JWT_KEY_FILE '{}'"),
]


@pytest.mark.parametrize(("spoil", "said"), BROKEN)
def test_what_is_broken_is_told_once_and_the_last_good_one_goes_on(
    file: Path, spoil: Callable[[Path], None], said: str
) -> None:
    found = _current(file)
    before = found.policy
    spoil(file)
    change = _settle(found)
    assert isinstance(change, SettingsError)
    assert str(change) == said.format(file)
    assert found.policy is before
    assert _signing(found) == _kid(A)
    if file.is_dir():
        file.rmdir()
    file.write_text(B)
    assert _settle(found) == RELOADED, "and what is fixed is taken over"
    assert _signing(found) == _kid(B)


def test_what_is_fixed_as_it_was_is_taken_over_too(file: Path) -> None:
    found = _current(file)
    _delete(file)
    assert isinstance(_settle(found), SettingsError)
    file.write_text(A)
    assert _settle(found) == RELOADED


def test_a_second_mistake_is_told_too(file: Path) -> None:
    found = _current(file)
    _cut(file)
    first = _settle(found)
    _empty(file)
    second = _settle(found)
    assert [type(change) for change in (first, second)] == [SettingsError, SettingsError]
    assert str(first) != str(second)


def test_a_swap_as_kubernetes_does_it_is_taken_over(tmp_path: Path) -> None:
    for version, text in (("1", A), ("2", B)):
        (tmp_path / f"..{version}").mkdir()
        (tmp_path / f"..{version}/key.pem").write_text(text)
        os.utime(tmp_path / f"..{version}/key.pem", (0, 0))
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "key.pem").symlink_to("..data/key.pem")
    for found in (_current(tmp_path), _current(tmp_path / "key.pem")):
        (tmp_path / "..new").symlink_to("..2")
        (tmp_path / "..new").replace(tmp_path / "..data")
        assert _settle(found) == RELOADED
        assert _signing(found) == _kid(B)
        (tmp_path / "..new").symlink_to("..1")
        (tmp_path / "..new").replace(tmp_path / "..data")


def test_keys_of_a_folder_come_and_go(tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_text(A)
    found = _current(tmp_path)
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
    found = CurrentPolicy(
        _settings(jwt_jwks_max_age="1000"), KeySource(key_source.KEY_DIR, None, str(tmp_path)), _compile
    )
    (tmp_path / "b.pem").write_text(B)
    os.utime(tmp_path / "b.pem", (0, 0))
    assert _settle(found) == RELOADED
    ring = found.policy.decisions.all_makers[0].ring
    since = ring.ready(ring.keys[1]) - 1000 - current.MARGIN
    times = (0, 1000, 1000 + current.MARGIN)
    assert [ring.signing(since + passed).kid for passed in times] == [_kid(A), _kid(A), _kid(B)]
    assert found.reload() == RELOADED
    ring = found.policy.decisions.all_makers[0].ring
    assert ring.ready(ring.keys[1]) - 1000 - current.MARGIN == since, "reading it again does not begin anew"


def test_rules_and_their_keys_are_followed_too(file: Path) -> None:
    rules = file.with_name("rules.yaml")
    rules.write_text(RULES)
    found = _current(file, jwt_rules=str(rules))
    assert found.policy.decisions.on(HEAD).action == "pass"
    rules.write_text(BROKEN_RULES)
    change = _settle(found)
    assert str(change) == f"{rules}:1: unknown key 'sgin'"
    assert found.policy.decisions.on(HEAD).action == "pass"
    rules.write_text("rules: [{match: a, key: other}]")
    assert str(_settle(found)).startswith(f"{rules}:1: cannot read ")
    file.with_name("other").write_text(SECRET)
    assert _settle(found) == RELOADED
    assert found.policy.decisions.on(HEAD).maker != found.policy.decisions.default


def test_a_change_while_all_is_read_is_not_missed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = _current(file)
    load = judge.load

    def slow(*arguments: Any) -> judge.Policy:
        monkeypatch.setattr(judge, "load", load)
        loaded = load(*arguments)
        file.write_text(C)
        return loaded

    monkeypatch.setattr(judge, "load", slow)
    file.write_text(B)
    assert found.poll() is None
    assert found.poll() == RELOADED
    assert _signing(found) == _kid(B)
    assert _settle(found) == RELOADED
    assert _signing(found) == _kid(C)


def test_what_is_broken_only_while_it_is_read_is_not_told(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = _current(file)
    load = judge.load

    def slow(*arguments: Any) -> judge.Policy:
        monkeypatch.setattr(judge, "load", load)
        try:
            return load(*arguments)
        finally:
            file.write_text(B)

    monkeypatch.setattr(judge, "load", slow)
    _cut(file)
    assert found.poll() is None
    assert found.poll() is None, "it has changed meanwhile"
    assert _signing(found) == _kid(A)
    assert _settle(found) == RELOADED
    assert _signing(found) == _kid(B)


def test_who_asks_for_it_gets_it_at_once_and_an_answer(file: Path) -> None:
    found = _current(file)
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
    found = _current(file)
    load = judge.load

    def fails(*arguments: Any) -> judge.Policy:
        monkeypatch.setattr(judge, "load", load)
        load(*arguments)
        raise RuntimeError(SECRET)

    monkeypatch.setattr(judge, "load", fails)
    file.write_text(B)
    change = _settle(found)
    assert isinstance(change, SettingsError)
    assert "RuntimeError" in str(change)
    assert SECRET not in f"{change} {change.hint}"
    assert _signing(found) == _kid(A)
    file.write_text(C)
    assert _settle(found) == RELOADED


def test_two_looks_in_one_moment_are_one(file: Path, clock: SimpleNamespace) -> None:
    """A file may be half written in both."""
    found = _current(file)
    clock.ticks = itertools.repeat(1.0)
    file.write_text(B)
    assert [found.poll() for _ in range(3)] == [None, None, None]
    clock.ticks = itertools.repeat(2.0)
    assert found.poll() == RELOADED


def test_a_second_look_counts_after_half_a_period(file: Path, clock: SimpleNamespace) -> None:
    """A timer that comes a little early must not cost another period."""
    found = _current(file)
    clock.ticks = itertools.repeat(1.0)
    file.write_text(B)
    assert found.poll() is None
    clock.ticks = itertools.repeat(1.0 + current.PERIOD * 0.4)
    assert found.poll() is None
    clock.ticks = itertools.repeat(1.0 + current.PERIOD * 0.6)
    assert found.poll() == RELOADED


# --- a key whose time is still to come


def _later(file: Path, clock: SimpleNamespace, seconds: float, kid: str = "later") -> None:
    """Replace the key by one that may sign so many seconds from now."""
    jwk = {"kty": "oct", "k": "A" * 86, "kid": kid, "nbf": clock.now + seconds}
    file.write_text(json.dumps(jwk))


def test_what_is_refused_as_no_key_may_sign_yet_is_tried_again_when_one_may(file: Path, clock: SimpleNamespace) -> None:
    found = _current(file)
    _later(file, clock, 60)
    change = _settle(found)
    assert isinstance(change, NoKeyError)
    assert _signing(found) == _kid(A), "meanwhile, the one before goes on"
    clock.now += 59
    assert [found.poll() for _ in range(3)] == [None, None, None]
    clock.now += 1
    assert found.poll() == RELOADED, "without a change of any file"
    assert _signing(found) == "later"
    clock.now += 1
    assert [found.poll() for _ in range(3)] == [None, None, None], "once"


def test_so_is_the_key_of_a_rule(file: Path, clock: SimpleNamespace) -> None:
    rules, other = file.with_name("rules.yaml"), file.with_name("other")
    rules.write_text("rules: [{match: a, key: other}]")
    other.write_text(B)
    found = _current(file, jwt_rules=str(rules))
    _later(other, clock, 60)
    change = _settle(found)
    assert isinstance(change, NoKeyError)
    assert str(change) == f"{rules}:1: no key may sign now"
    clock.now += 60
    assert found.poll() == RELOADED


def test_of_several_the_next_is_waited_for_in_turn(file: Path, clock: SimpleNamespace) -> None:
    rules, other = file.with_name("rules.yaml"), file.with_name("other")
    rules.write_text("rules: [{match: a, key: other}]")
    other.write_text(B)
    found = _current(file, jwt_rules=str(rules))
    _later(file, clock, 120)
    _later(other, clock, 60, "other")
    assert isinstance(_settle(found), NoKeyError)
    clock.now += 60
    assert isinstance(found.poll(), NoKeyError), "the other is still to come"
    clock.now += 59
    assert found.poll() is None
    clock.now += 1
    assert found.poll() == RELOADED


def test_a_change_in_between_counts_and_nothing_is_tried_again(file: Path, clock: SimpleNamespace) -> None:
    found = _current(file)
    _later(file, clock, 60)
    assert isinstance(_settle(found), NoKeyError)
    file.write_text(B)
    assert _settle(found) == RELOADED
    clock.now += 60
    assert [found.poll() for _ in range(3)] == [None, None, None]
    _later(file, clock, 60)
    assert isinstance(_settle(found), NoKeyError)
    _cut(file)
    assert not isinstance(_settle(found), NoKeyError)
    clock.now += 60
    assert [found.poll() for _ in range(3)] == [None, None, None], "what is broken stays so"


def test_a_key_whose_time_is_over_is_not_waited_for(file: Path, clock: SimpleNamespace) -> None:
    found = _current(file)
    file.write_text(json.dumps({"kty": "oct", "k": "A" * 86, "exp": clock.now}))
    assert isinstance(_settle(found), NoKeyError)
    clock.now += 1e9
    assert [found.poll() for _ in range(3)] == [None, None, None]


def test_a_file_that_is_being_written_is_not_read_because_its_time_has_come(file: Path, clock: SimpleNamespace) -> None:
    found = _current(file)
    _later(file, clock, 60)
    assert isinstance(_settle(found), NoKeyError)
    clock.now += 60
    file.write_text(B[:60])
    assert found.poll() is None
    file.write_text(B)
    assert found.poll() is None
    assert found.poll() == RELOADED
    assert _signing(found) == _kid(B)


# --- looking, and telling


class Poller:
    """In place of a policy: tells these changes in turn, raises those that are to be raised, and then ends it all."""

    def __init__(self, *changes: Change | Exception | None) -> None:
        self._changes = iter(changes)

    def poll(self) -> Change | None:
        """The next."""
        change = next(self._changes, asyncio.CancelledError())
        if isinstance(change, (RuntimeError, asyncio.CancelledError)):
            raise change
        return change  # type: ignore[return-value]


def _follow(monkeypatch: pytest.MonkeyPatch, poller: Any) -> list[Change | None]:
    """All that is told until it is cancelled."""
    monkeypatch.setattr(current, "PERIOD", 0)
    told: list[Change | None] = []
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(follow(poller, told.append))
    return told


def test_each_look_is_told_until_it_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    assert current.PERIOD <= 0.5, "a change counts within a second"
    mistake = SettingsError("no")
    poller = Poller(None, "reloaded: all", None, mistake)
    assert _follow(monkeypatch, lambda: poller) == [None, "reloaded: all", None, mistake]


def test_while_there_is_no_policy_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    poller = Poller("reloaded: all")
    policies = iter([None, None, poller, poller])
    assert _follow(monkeypatch, lambda: next(policies)) == ["reloaded: all"]


def test_an_error_nobody_thought_of_does_not_end_the_looking(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    poller = Poller(RuntimeError("what?"), "reloaded: all")
    assert _follow(monkeypatch, lambda: poller) == ["reloaded: all"]
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    message = record.getMessage()
    assert message.startswith("jwtproxy: error: cannot check keys and rules for changes\nTraceback")
    assert message.endswith("\nRuntimeError"), "what it says may hold a part of a key"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (None, []),
        ("reloaded: keys: 1, rules: 0", [("INFO", "jwtproxy: reloaded: keys: 1, rules: 0")]),
        (
            SettingsError("no good", "fix it"),
            [
                (
                    "ERROR",
                    "jwtproxy: error: no good; keeping the previous configuration\njwtproxy: hint: fix it",
                )
            ],
        ),
    ],
)
def test_a_change_is_logged(
    caplog: pytest.LogCaptureFixture, change: Change | None, expected: list[tuple[str, str]]
) -> None:
    caplog.set_level(logging.INFO)
    announce(change)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == expected
