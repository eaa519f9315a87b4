"""Of several keys, the one whose time it is signs, all are published, and verifiers know a key before it signs."""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from jwtproxy.config.errors import SettingsError
from jwtproxy.tokens import key_source, keyring
from jwtproxy.tokens.key_formats import parse
from jwtproxy.tokens.key_source import KeySource
from jwtproxy.tokens.keyring import Keyring, NoKeyError, Reader, unique
from jwtproxy.tokens.keys import Key

NOW = 1_700_000_000.0
DELAY = 300.0
SECRET = secrets.token_bytes(64)
PRIVATE = [ed25519.Ed25519PrivateKey.generate() for _ in range(3)]
EC = ec.generate_private_key(ec.SECP256R1())


def _pem(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey, phrase: bytes | None = None) -> str:
    encryption = BestAvailableEncryption(phrase) if phrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption).decode()


def _public(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


A, B, C = (_pem(key) for key in PRIVATE)


def _kid(text: str) -> str:
    return parse(text, "it")[0].kid


# --- which key signs


def _key(kid: str, not_before: float = -math.inf, not_after: float = math.inf, *, private: bool = True) -> Key:
    return Key("HS512", kid, f"{kid}.pem", None, SECRET if private else None, not_before, not_after)


Choices = Mapping[float, str | None]

CHOICES: dict[str, tuple[list[Key], dict[str, float], Choices]] = {
    "one signs always": ([_key("a")], {}, {0: "a", 5: "a"}),
    "the last by name signs": ([_key("a"), _key("b"), _key("c")], {}, {0: "c"}),
    "a public one never": ([_key("a"), _key("b", private=False)], {}, {0: "a"}),
    "not_before counts, its first second included": ([_key("a"), _key("b", 10)], {}, {9: "a", 9.999: "a", 10: "b"}),
    "not_after too, its first second excluded": ([_key("a"), _key("b", not_after=10)], {}, {9.999: "b", 10: "a"}),
    "one relieves the other": ([_key("a", not_after=20), _key("b", 10)], {}, {9: "a", 10: "b", 20: "b"}),
    "names do not matter to times": ([_key("b", 10), _key("a", 20)], {}, {10: "b", 19: "b", 20: "a"}),
    "the latest not_before signs": ([_key("a", 30), _key("b", 10), _key("c")], {}, {9: "c", 10: "b", 30: "a"}),
    "when it ends, the one before goes on": ([_key("a"), _key("b", 10, 20)], {}, {9: "a", 10: "b", 20: "a"}),
    "equal times: the last by name": ([_key("a", 10), _key("b", 10)], {}, {10: "b"}),
    "nobody yet": ([_key("a", 10)], {}, {9: None, 10: "a"}),
    "nobody any more": ([_key("a", not_after=10)], {}, {9: "a", 10: None}),
    "nobody in between": ([_key("a", not_after=10), _key("b", 20)], {}, {9: "a", 10: None, 19: None, 20: "b"}),
    "only public ones": ([_key("a", private=False)], {}, {0: None}),
    "a new one waits until it is known": ([_key("a"), _key("b")], {"a": 0, "b": 10}, {0: "a", 9: "a", 10: "b"}),
    "also when its name comes first": ([_key("a"), _key("b")], {"a": 10, "b": 0}, {0: "b", 10: "b"}),
    "a new one waits for both": ([_key("a"), _key("b", 5)], {"a": 0, "b": 10}, {4: "a", 5: "a", 9: "a", 10: "b"}),
    "whichever is later": ([_key("a"), _key("b", 20)], {"a": 0, "b": 10}, {10: "a", 19: "a", 20: "b"}),
    "all new: the first by name": ([_key("a"), _key("b")], {"a": 10, "b": 10}, {0: "a", 9: "a", 10: "b"}),
    "a new one alone": ([_key("a")], {"a": 10}, {0: "a", 10: "a"}),
    "a new one, the old has ended": ([_key("a", not_after=5), _key("b")], {"a": 0, "b": 10}, {4: "a", 5: "b", 10: "b"}),
    "new ones that have ended": ([_key("a", not_after=5)], {"a": 10}, {4: "a", 5: None, 10: None}),
    "a new one before its not_before": ([_key("a"), _key("b", 20)], {"a": 10, "b": 10}, {0: "a", 10: "a", 20: "b"}),
    "a new one that is public": ([_key("a", private=False), _key("b")], {"a": 10, "b": 10}, {0: "b", 10: "b"}),
}


def _chosen(ring: Keyring, now: float) -> str | None:
    try:
        return ring.signing(now).kid
    except SettingsError:
        return None


@pytest.mark.parametrize(("found", "ready", "choices"), CHOICES.values(), ids=CHOICES)
def test_the_key_whose_time_it_is_signs(found: list[Key], ready: dict[str, float], choices: Choices) -> None:
    places: dict[object, float] = {f"{kid}.pem": time for kid, time in ready.items()}
    ring = Keyring(found, places)
    assert {now: _chosen(ring, now) for now in choices} == choices, "as time passes"
    assert {now: _chosen(ring, now) for now in reversed(list(choices))} == choices, "as a clock is set back"
    assert {now: _chosen(Keyring(found, places), now) for now in choices} == choices, "after a restart"
    assert set(ring.keys) == set(found), "all stay published"


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([_key("a", 4e9)], "a.pem is for 2096-10-02T07:06:40+00:00 to ever"),
        ([_key("a", not_after=0)], "a.pem is for ever to 1970-01-01T00:00:00+00:00"),
        ([_key("a", private=False)], "a.pem is public only"),
        ([_key("a", private=False), _key("b", 4e9)], "a.pem is public only; b.pem is for 2096-"),
    ],
)
def test_where_none_may_sign_each_is_said_why(found: list[Key], said: str) -> None:
    with pytest.raises(SettingsError, match=r"^no key may sign now$") as caught:
        Keyring(found).signing(NOW)
    assert said in caught.value.hint
    assert "add a key, or fix keys.yaml" in caught.value.hint


@pytest.mark.parametrize(
    ("found", "until"),
    [
        ([_key("a", 10)], 10),
        ([_key("a", 20), _key("b", 10)], 10),
        ([_key("a", not_after=NOW), _key("b", 4e9)], 4e9),
        ([_key("a", not_after=NOW)], math.inf),
        ([_key("a", NOW + 5, private=False)], math.inf),
        ([_key("a", NOW + 5, private=False), _key("b", NOW + 9)], NOW + 9),
        ([], math.inf),
    ],
)
def test_it_is_known_when_one_may_sign(found: list[Key], until: float) -> None:
    now = NOW if until > NOW else 5
    with pytest.raises(NoKeyError) as caught:
        Keyring(found).signing(now)
    assert caught.value.until == until


def test_a_time_to_wait_for_survives_that_the_place_is_told() -> None:
    with pytest.raises(NoKeyError, match=r"^rules\.yaml:3: no key may sign now$") as caught:
        raise NoKeyError("the way out", 5).at("rules.yaml:3")
    assert (caught.value.until, caught.value.hint) == (5, "the way out")


# --- one file


def _file(path: Path, text: str, name: str = key_source.KEY_FILE, **phrase: str) -> KeySource:
    path.write_text(text)
    return KeySource(name, None, str(path), **phrase)


def _ring(source: KeySource, algorithm: str = "auto", kid: str = "") -> Keyring:
    return Reader(DELAY).ring(source, algorithm, kid)


def _kids(ring: Keyring) -> list[str]:
    return [key.kid for key in ring.keys]


def test_a_secret_is_a_ring_of_one() -> None:
    (key,) = _ring(KeySource(key_source.SECRET, SECRET), "HS256", "k1").keys
    assert (key.private, key.algorithm, key.kid, key.place) == (SECRET, "HS256", "k1", "JWT_SHARED_SECRET")


def test_a_file_is_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "key"
    assert _kids(_ring(_file(path, A))) == [_kid(A)]
    assert _kids(_ring(_file(path, A), kid="k1")) == ["k1"]
    assert _ring(_file(path, SECRET.hex())).signing(NOW).private == SECRET
    assert _ring(_file(path, SECRET.hex(), key_source.SECRET_FILE)).signing(NOW).private == SECRET
    both = {"keys": [dict(parse(text, "it")[0].public or {}) for text in (B, A)]}
    with pytest.raises(SettingsError, match="holds only a public key"):
        _ring(_file(path, json.dumps(both)))


def test_the_pass_phrase_opens_it(tmp_path: Path) -> None:
    (tmp_path / "phrase").write_text("open sesame\n")
    locked = _pem(PRIVATE[0], b"open sesame")
    for phrase in ({"passphrase": "open sesame"}, {"passphrase_file": str(tmp_path / "phrase")}):
        assert _kids(_ring(_file(tmp_path / "key", locked, **phrase))) == [_kid(A)]
    with pytest.raises(SettingsError, match=r"^the passphrase does not decrypt JWT_KEY_FILE '.*'$"):
        _ring(_file(tmp_path / "key", locked, passphrase="open barley"))
    with pytest.raises(SettingsError, match=r"^JWT_KEY_FILE '.*' is encrypted$"):
        _ring(_file(tmp_path / "key", locked))


@pytest.mark.parametrize(
    ("name", "path", "said"),
    [
        ("JWT_KEY_FILE", "missing", "cannot read JWT_KEY_FILE '{}': no such file or directory"),
        ("JWT_SHARED_SECRET_FILE", "missing", "cannot read JWT_SHARED_SECRET_FILE '{}': no such file or directory"),
        ("JWT_SHARED_SECRET_FILE", "folder", "cannot read JWT_SHARED_SECRET_FILE '{}': is a directory"),
        ("JWT_KEY_DIR", "missing", "cannot read JWT_KEY_DIR '{}': no such folder"),
        ("JWT_KEY_DIR", "public.pem", "cannot read JWT_KEY_DIR '{}': not a folder"),
        ("JWT_KEY_DIR", "folder", "there is no key in JWT_KEY_DIR '{}'"),
        ("JWT_KEY_FILE", "public.pem", "JWT_KEY_FILE '{}' holds only a public key"),
        ("JWT_KEY_FILE", "der", "JWT_KEY_FILE '{}' is not text"),
        ("JWT_KEY_FILE", "empty", "JWT_KEY_FILE '{}' is empty"),
        ("JWT_SHARED_SECRET_FILE", "empty", "JWT_SHARED_SECRET_FILE '{}' is empty"),
        (
            "JWT_SHARED_SECRET_FILE",
            "key.pem",
            "JWT_SHARED_SECRET_FILE '{}' is not hexadecimal: it holds a key in PEM form",
        ),
        ("JWT_SHARED_SECRET_FILE", "short", "JWT_SHARED_SECRET_FILE '{}' has 4 bytes, HS512 needs at least 64"),
        ("JWT_KEY_FILE", "a\0b", "cannot read JWT_KEY_FILE '{}': not a usable path"),
        ("JWT_KEY_DIR", "a\0b", "cannot read JWT_KEY_DIR '{}': no such folder"),
        ("JWT_KEY_FILE", "pipe", "cannot read JWT_KEY_FILE '{}': it is a pipe"),
        ("JWT_SHARED_SECRET_FILE", "pipe", "cannot read JWT_SHARED_SECRET_FILE '{}': it is a pipe"),
        ("JWT_KEY_DIR", "pipe", "cannot read JWT_KEY_DIR '{}': not a folder"),
    ],
)
def test_what_cannot_be_used_is_named(
    tmp_path: Path, name: str, path: str, said: str, shown: Callable[[BaseException], str]
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "public.pem").write_text(_public(PRIVATE[0]))
    (tmp_path / "der").write_bytes(b"0\x82\x04\xbd" + SECRET + b"\xff")
    (tmp_path / "empty").touch()
    (tmp_path / "key.pem").write_text(A)
    (tmp_path / "short").write_text("feedface")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SettingsError) as caught:
        _ring(KeySource(name, None, str(tmp_path / path)))
    assert str(caught.value) == said.format(repr(str(tmp_path / path))[1:-1])
    assert caught.value.hint
    assert A.splitlines()[1] not in shown(caught.value)


@pytest.mark.parametrize("name", ["JWT_KEY_FILE", "JWT_KEY_DIR", "JWT_SHARED_SECRET_FILE"])
@pytest.mark.parametrize(
    "text", [A, SECRET.hex(), '{"kty": "oct", "k": "aGVsbG8gd29ybGQh"}'], ids=["PEM", "hex", "JWK"]
)
def test_a_key_where_its_path_belongs_is_not_repeated(name: str, text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        _ring(key_source.find({name: text}))
    assert name in str(caught.value)
    body = next(part for part in (*text.splitlines()[1:], *text.split('"k": "')[1:], text) if part)
    assert body[:16] not in f"{caught.value} {caught.value.hint}"


# --- a folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.mkdir()
    return path


def _write(folder: Path, **texts: str) -> None:
    """Files that have been there for a day; `a` is a.pem."""
    for name, text in texts.items():
        path = folder / f"{name}.pem"
        path.write_text(text)
        os.utime(path, (NOW - 86_400, NOW - 86_400))


def _read(folder: Path, known: Mapping[Any, float] | None = None, algorithm: str = "auto") -> tuple[Keyring, Reader]:
    reader = Reader(DELAY, known)
    return reader.ring(KeySource(key_source.KEY_DIR, None, str(folder)), algorithm), reader


def _manifest(folder: Path, text: str) -> Keyring:
    (folder / "keys.yaml").write_text(text)
    return _read(folder)[0]


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stands at NOW."""
    found = SimpleNamespace(now=NOW)
    monkeypatch.setattr(keyring, "time", SimpleNamespace(time=lambda: found.now))
    return found


def test_the_last_of_a_folder_signs_and_all_are_published(folder: Path) -> None:
    _write(folder, b=A, a=B, c=_public(PRIVATE[2]))
    ring, reader = _read(folder)
    assert _kids(ring) == [_kid(B), _kid(A), _kid(C)]
    assert _chosen(ring, NOW) == _kid(A)
    assert [key.place for key in ring.keys] == [repr(str(folder / f"{name}.pem")) for name in "abc"]
    assert list(reader.since.values()) == [NOW - 86_400] * 3


def test_a_key_file_may_be_a_folder_too(folder: Path) -> None:
    """A rule has but `key`."""
    _write(folder, a=A)
    assert _kids(_ring(KeySource(key_source.KEY_FILE, None, str(folder)))) == [_kid(A)]


def test_a_folder_may_hold_secrets_and_jwks(folder: Path) -> None:
    public = [dict(parse(_public(key), "it")[0].public or {}) for key in PRIVATE[:2]]
    _write(folder, a=json.dumps({"keys": public}), b=SECRET.hex())
    ring, reader = _read(folder)
    place = repr(str(folder / "b.pem"))
    assert [key.kid or key.place for key in ring.keys] == [_kid(A), _kid(B), place]
    assert ring.signing(NOW).private == SECRET
    assert len(reader.since) == 3


def test_what_is_no_key_file_is_passed_over(folder: Path) -> None:
    """What editors leave, what Kubernetes links to, folders."""
    _write(folder, a=A)
    for name in (".a.pem.swp", "a.pem~", ".hidden", "..data"):
        (folder / name).write_text("not a key")
    (folder / "old").mkdir()
    (folder / "gone").symlink_to("nowhere")
    assert _kids(_read(folder)[0]) == [_kid(A)]


@pytest.mark.parametrize("name", ["README", "keys.yml", "b.pem.bak", "A.PEM"])
def test_what_looks_like_one_and_is_none_is_an_error(folder: Path, name: str) -> None:
    _write(folder, a=A)
    (folder / name).write_text("not a key")
    with pytest.raises(SettingsError) as caught:
        _read(folder)
    assert repr(str(folder / name)) in str(caught.value)


def test_jwt_kid_is_for_one_key(folder: Path) -> None:
    _write(folder, a=A)
    with pytest.raises(SettingsError, match=r"jwt_kid is set, but .* is a folder of keys"):
        _ring(KeySource(key_source.KEY_DIR, None, str(folder)), kid="k1")


def test_the_algorithm_must_fit_all(folder: Path) -> None:
    _write(folder, a=A, b=_pem(EC))
    with pytest.raises(SettingsError, match=r"b\.pem' holds a key on the curve secp256r1, which does not fit EdDSA"):
        _read(folder, algorithm="EdDSA")


# --- one name, two keys


def _jwk(key: ed25519.Ed25519PrivateKey, kid: str) -> str:
    return json.dumps({**(parse(_public(key), "it")[0].public or {}), "kid": kid})


def test_a_key_that_is_there_twice_is_published_once(folder: Path) -> None:
    _write(folder, a=_public(PRIVATE[0]), b=A, c=A)
    ring, _ = _read(folder)
    (key,) = ring.keys
    assert key.private is not None
    assert _chosen(ring, NOW) == _kid(A)


@pytest.mark.parametrize("texts", [(_jwk(PRIVATE[0], "k"), _jwk(PRIVATE[1], "k"))])
def test_two_keys_of_one_name_are_an_error(folder: Path, texts: tuple[str, str]) -> None:
    _write(folder, a=texts[0], b=texts[1], c=C)
    with pytest.raises(SettingsError, match=r"a\.pem' and '.*b\.pem' give the kid 'k' to two keys") as caught:
        _read(folder)
    assert "keys.yaml" in caught.value.hint


def test_one_key_for_two_algorithms_is_an_error() -> None:
    """A verifier that knows one by the kid refuses the other."""
    first, second = (Key(alg, "k", alg, parse(A, "it")[0].public) for alg in ("RS256", "PS256"))
    with pytest.raises(SettingsError, match="one key two algorithms"):
        unique([first, second])
    assert unique([first, first]) == [first]


def test_two_secrets_of_one_name_are_an_error() -> None:
    with pytest.raises(SettingsError, match="give the kid 'k'"):
        unique([Key("HS512", "k", place, None, place.encode()) for place in "ab"])
    without = [Key("HS512", "", place, None, place.encode()) for place in "ab"]
    assert unique(without) == without


# --- what verifiers know


def test_a_key_that_comes_later_signs_when_verifiers_know_it(folder: Path, clock: SimpleNamespace) -> None:
    _write(folder, a=A)
    ring, first = _read(folder)
    _write(folder, b=B)  # an old file, as `mv` leaves it
    clock.now = NOW + 10
    ring, second = _read(folder, first.since)
    assert sorted(second.since.values()) == [NOW - 86_400, NOW + 10]
    assert _kids(ring) == [_kid(A), _kid(B)], "published at once"
    assert [_chosen(ring, NOW + 10 + passed) for passed in (0, 299, 300)] == [_kid(A), _kid(A), _kid(B)]
    clock.now = NOW + 100
    ring, third = _read(folder, second.since)
    assert third.since == second.since, "another change in between does not begin anew"
    assert ring.ready(ring.keys[1]) == NOW + 310


def test_a_key_that_replaces_all_others_signs_at_once(folder: Path, clock: SimpleNamespace) -> None:
    _write(folder, a=A)
    _, first = _read(folder)
    (folder / "a.pem").unlink()
    _write(folder, b=B)
    ring, _ = _read(folder, first.since)
    assert _chosen(ring, NOW) == _kid(B), "better than none"


def test_a_key_that_comes_back_is_new_again(folder: Path, clock: SimpleNamespace) -> None:
    _write(folder, a=A, b=B)
    _, first = _read(folder)
    (folder / "b.pem").unlink()
    _, second = _read(folder, first.since)
    _write(folder, b=B)
    assert _chosen(_read(folder, second.since)[0], NOW) == _kid(A)


def test_a_key_under_another_name_is_the_same_key(folder: Path) -> None:
    _write(folder, a=A, b=B)
    _, first = _read(folder)
    (folder / "b.pem").rename(folder / "c.pem")
    assert _chosen(_read(folder, first.since)[0], NOW) == _kid(B)


def test_after_a_restart_the_age_of_the_files_tells(folder: Path) -> None:
    _write(folder, a=A, b=B)
    os.utime(folder / "b.pem", (NOW - 299, NOW - 299))
    ring, _ = _read(folder)
    assert [_chosen(ring, NOW + passed) for passed in (0, 1)] == [_kid(A), _kid(B)]


def test_where_all_files_are_new_the_first_goes_on(folder: Path) -> None:
    """A container mounts them anew, all at one moment: the oldest is the one that verifiers know, if any."""
    _write(folder, a=A, b=B, c=C)
    for path in folder.iterdir():
        os.utime(path, (NOW, NOW))
    ring, _ = _read(folder)
    assert [_chosen(ring, NOW + passed) for passed in (0, 299, 300)] == [_kid(A), _kid(A), _kid(C)]


def test_without_a_delay_a_new_key_signs_at_once(folder: Path) -> None:
    _write(folder, a=A)
    _, first = _read(folder)
    _write(folder, b=B)
    ring = Reader(0, first.since).ring(KeySource(key_source.KEY_DIR, None, str(folder)), "auto")
    assert _chosen(ring, NOW) == _kid(B)


def test_a_file_from_the_future_does_not_wait_for_it(folder: Path) -> None:
    """Another machine's clock, or an archive's, wrote it."""
    _write(folder, a=A, b=B)
    os.utime(folder / "b.pem", (NOW + 1e6, NOW + 1e6))
    assert _chosen(_read(folder)[0], NOW + DELAY) == _kid(B)


# --- the manifest


def test_the_manifest_says_when_keys_sign_and_what_they_are_called(folder: Path) -> None:
    _write(folder, a=A, b=B, c=_pem(EC))
    ring = _manifest(
        folder,
        """\
a.pem:
  not_after: 2023-11-15
b.pem: {not_before: 2023-11-15T00:00:00+01:00, kid: second}
c.pem:
  not_before: "2026-12-31T23:59:00Z"
  algorithm: ES256
""",
    )
    a, b, c = (next(key for key in ring.keys if key.place.endswith(f"{name}.pem'")) for name in "abc")
    midnight = datetime(2023, 11, 15, tzinfo=UTC).timestamp()
    assert (a.not_before, a.not_after) == (-math.inf, midnight)
    assert (b.not_before, b.not_after, b.kid) == (midnight - 3600, math.inf, "second")
    assert c.not_before == datetime(2026, 12, 31, 23, 59, tzinfo=UTC).timestamp()
    assert b.public
    assert b.public["kid"] == "second"
    assert [_chosen(ring, midnight + passed) for passed in (-3601, -3600, 0)] == [a.kid, "second", "second"]
    assert [_chosen(ring, c.not_before + passed) for passed in (-1, 0)] == ["second", c.kid]


def test_the_manifest_beats_what_a_jwk_says(folder: Path) -> None:
    jwk = json.loads(_jwk(PRIVATE[0], "own"))
    _write(folder, a=json.dumps(jwk | {"nbf": 5, "exp": 10}), b=B)
    ring = _manifest(folder, "a.pem: {kid: theirs, not_before: 1970-01-02}")
    key = next(key for key in ring.keys if key.place.endswith("a.pem'"))
    assert (key.kid, key.not_before, key.not_after) == ("theirs", 86_400, 10)


def test_the_manifest_beats_the_option(folder: Path) -> None:
    _write(folder, a=SECRET.hex())
    (folder / "keys.yaml").write_text("a.pem: {algorithm: HS256}")
    assert _read(folder, algorithm="HS384")[0].signing(NOW).algorithm == "HS256"


def test_a_manifest_may_make_two_keys_of_one_name(folder: Path) -> None:
    _write(folder, a=A, b=B)
    with pytest.raises(SettingsError, match="give the kid 'k' to two keys"):
        _manifest(folder, "a.pem: {kid: k}\nb.pem: {kid: k}")


@pytest.mark.parametrize("text", ["{}", "# nothing yet\n{}\n"])
def test_a_manifest_may_say_nothing(folder: Path, text: str) -> None:
    _write(folder, a=A)
    assert _kids(_manifest(folder, text)) == [_kid(A)]


# --- what is watched


def test_all_that_was_or_should_have_been_read_is_watched(folder: Path, tmp_path: Path) -> None:
    _write(folder, a=A)
    phrase = tmp_path / "phrase"
    phrase.write_text("open sesame")
    reader = Reader(DELAY)
    reader.ring(KeySource(key_source.KEY_DIR, None, str(folder), None, str(phrase)), "auto")
    missing = tmp_path / "missing"
    with pytest.raises(SettingsError):
        reader.ring(KeySource(key_source.KEY_FILE, None, str(missing)), "auto")
    assert reader.watched.changed() == {}
    phrase.write_text("open barley")
    missing.write_text(B)
    (folder / "keys.yaml").write_text("{}")
    assert set(reader.watched.changed()) == {folder, phrase, missing}
