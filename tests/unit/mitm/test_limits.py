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


def test_what_is_in_force_is_told_where_an_option_leaves_it_open() -> None:
    with taddons.context() as context:
        options = context.options
        options.add_option("jwt_a", str, "auto", "")
        options.add_option("jwt_b", str, "7", "")
        limits.keep_to(options, {"jwt_a": 5})
        limits.keep_to(options, {"jwt_c": 6})
        assert [limits.in_force(options, name) for name in ("jwt_a", "jwt_b", "jwt_c")] == ["5", "7", "6"]
