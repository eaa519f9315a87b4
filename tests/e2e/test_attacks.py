"""What one hostile peer sends does not fill the memory, nor keep an honest client waiting for ever."""

from __future__ import annotations

import pytest

from tests.attacks import http1, http2
from tests.attacks.stage import Attack, play
from tests.support.harness import rows

ATTACKS: dict[str, Attack] = {
    "behind a request": http1.behind_an_odd_request,
    "behind a handshake": http1.behind_a_hung_handshake,
    "chunks of a byte": http1.chunks_of_a_byte,
    "short bodies": http1.bodies_just_too_short_to_stream,
    "unread answers": http2.unread_answers,
    "unread bodies": http2.unread_bodies,
    "bodies that wait": http2.bodies_that_wait,
    "empty data": http2.empty_data,
    "resets": http2.resets,
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("attack", rows(ATTACKS, "behind a request", "resets"))
def test_memory_is_bounded_and_others_are_served(attack: Attack) -> None:
    outcome = play("", attack, 2, "--set", "connection_strategy=lazy", rest=1)
    assert outcome.peak < outcome.before + 48, outcome
    assert outcome.after < outcome.before + 20, outcome
    assert outcome.honest, outcome
    assert not outcome.failed, outcome
    assert "TRACEBACK" not in outcome.said, outcome
