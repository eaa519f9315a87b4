"""How often limits were reached."""

from mitmproxy.test import taddons

from jwtproxy.mitm import limits


def test_whoever_counts_is_told_the_names() -> None:
    told: list[str] = []
    with taddons.context() as context:
        limits.reached("jwt_a")
        limits.count_with(context.options, told.append)
        limits.reached("jwt_b")
        limits.reached("")
    assert told == ["jwt_b"]
