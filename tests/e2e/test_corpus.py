"""The corpus of messages: nothing odd passes, nothing sound is refused, and all who read it read the same."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.corpus import CORPUS, load
from tests.support.corpus_runs import Bench
from tests.support.harness import Proxy, thorough
from tests.support.readers import READERS
from tests.support.upstreams import Authority

FILES = sorted(path.stem for path in CORPUS.glob("*.jsonl"))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, confdir: Path, authority: Authority) -> Iterator[Bench]:
    with ExitStack() as stack:

        def start(*args: str) -> Proxy:
            trust = ("--set", f"ssl_verify_upstream_trusted_ca={authority.pem}")
            folder = tmp_path_factory.mktemp("corpus")
            return stack.enter_context(Proxy(*trust, *args, cwd=folder, confdir=confdir))

        bench = Bench(start, authority)
        yield bench
        bench.stop()


@pytest.mark.parametrize("step", [pytest.param(1, marks=thorough), 3])
@pytest.mark.parametrize("file", FILES)
def test_each_message_comes_to_what_it_should(bench: Bench, file: str, step: int) -> None:
    """step: one in so many; what is decided of all of them has unit tests."""
    failures = bench.failures(list(load(file))[::step])
    assert not failures, f"{len(failures)} cases:\n" + "\n".join(failures)


def test_the_corpus_is_as_large_as_it_should_be() -> None:
    """Each case of its own, and eight or more for each rule."""
    cases = list(load())
    assert len({case.name for case in cases}) == len(cases)
    said = Counter(json.dumps([case.mode, case.send, case.answer, case.early]) for case in cases)
    assert not [text for text, count in said.items() if count > 1]
    rules = Counter(case.rule for case in cases)
    assert not {rule: count for rule, count in rules.items() if count < 8}
    answers = [case for case in cases if case.rule.startswith("answers: ")]
    by_http2 = [case for case in cases if case.by_http2 and case not in answers]
    assert len(answers) >= 150
    assert len(by_http2) >= 150
    assert len(cases) - len(answers) - len(by_http2) >= 500


HEAD = b"POST / HTTP/1.1\r\nHost: a\r\n"
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"GET / HTTP/1.1\r\nX-A: b\rX-C: d\r\n\r\n",
        HEAD + b"X-A: b\n\n" + HIDDEN + b"\r\n",
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Content_Length: 36\r\n\r\n" + HIDDEN,
        HEAD + b"Transfer_Encoding: chunked\r\nContent-Length: 41\r\n\r\n0\r\n\r\n" + HIDDEN,
        HEAD + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n" + HIDDEN,
    ],
)
def test_the_readers_do_not_agree_about_what_is_unsound(data: bytes) -> None:
    assert (
        len({tuple(request.start + request.fields for request in reader.requests(data).messages) for reader in READERS})
        > 1
    )
