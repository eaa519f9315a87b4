"""What fuzzing has found once stays mended: each find is a file in `tests/fuzz/corpus`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import ANY

import pytest
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from tests.fuzz.__main__ import targets
from tests.fuzz.stage import Stage, unsigned
from tests.fuzz.target import CORPUS, Result, Target, fuzz
from tests.support.corpus_talks import AUTHORITY
from tests.support.frames import END_HEADERS, END_STREAM, HEADERS, block, frame
from tests.support.harness import SECRET

KEY = OctKey.import_key(bytes.fromhex(SECRET))
KEPT = sorted(path.relative_to(CORPUS) for path in CORPUS.glob("*/*"))


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("fuzz")) as stage:
        yield stage
        assert not stage.deaf()


@pytest.fixture(scope="module")
def found(stage: Stage) -> dict[str, Target]:
    return targets(stage)


@pytest.mark.parametrize("path", KEPT, ids=str)
def test_what_was_found_once_is_mended(found: dict[str, Target], path: Path) -> None:
    assert found[path.parts[0]].check((CORPUS / path).read_bytes()) == ""


SOUND = {
    "requests": f"GET http://{AUTHORITY}/ HTTP/1.1\r\nHost: {AUTHORITY}\r\n\r\n".encode(),
    "answers": b"GET HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "http2": b"",
    "http2_upstream": frame(HEADERS, block((":status", "200")), 1, END_HEADERS | END_STREAM),
}


@pytest.mark.parametrize("name", SOUND)
def test_nothing_is_wrong_with_what_is_sound(found: dict[str, Target], name: str) -> None:
    assert found[name].check(SOUND[name]) == ""


def test_what_arrives_unsigned_or_can_be_read_in_two_ways_is_found() -> None:
    token = f"x-my-jwt: {jwt.encode({'alg': 'HS512'}, {}, KEY, algorithms=['HS512'])}\r\n".encode()
    assert not unsigned([b"GET / HTTP/1.1\r\n" + token + b"\r\n"])
    assert unsigned([b"GET / HTTP/1.1\r\n" + 2 * token + b"\r\n"])
    assert unsigned([b"POST / HTTP/1.1\r\n" + token + b"Content_Length: 0\r\nContent-Length: 4\r\n\r\nGET "])
    for missing in (b"", b"x-my-jwt: eyJhbGciOiJIUzUxMiJ9.e30.AAAA\r\n"):
        with pytest.raises((JoseError, ValueError)):
            unsigned([b"GET / HTTP/1.1\r\n" + missing + b"\r\n"])


def test_a_find_is_made_small() -> None:
    target = Target("none", st.binary(), lambda value: "a" if b"a" in value else "")
    assert fuzz(target, 20) == Result(ANY, b"a", "a")


def test_whatever_is_raised_is_a_find() -> None:
    def check(value: bytes) -> str:
        raise ValueError(str(value))

    assert fuzz(Target("none", st.just(b"x"), check), 20).wrong == "ValueError: b'x'"
