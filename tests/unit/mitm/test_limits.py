"""How often limits were reached."""

import pytest
from mitmproxy.test import taddons

from jwtproxy.conduct.malformed import MalformedError
from jwtproxy.mitm import limits
from jwtproxy.mitm.limits import DEFAULT, check_head, limits_of


def test_whoever_counts_is_told_the_names() -> None:
    told: list[str] = []
    with taddons.context() as context:
        limits.reached("jwt_a")
        limits.count_with(context.options, told.append)
        limits.reached("jwt_b")
        limits.reached("")
    assert told == ["jwt_b"]


def test_limits_are_what_the_options_say() -> None:
    with taddons.context() as context:
        assert limits_of(context.options) == DEFAULT
        limits.hang(context.options, {**DEFAULT._asdict(), "max_head": 16 * 1024, "connect_timeout": 1})
        assert limits_of(context.options) == DEFAULT._replace(max_head=16 * 1024)


@pytest.mark.parametrize(("size", "fields", "name"), [(1 << 18, 1, "jwt_max_head"), (100, 201, "jwt_max_fields")])
def test_a_head_that_is_too_large_is_refused_and_counted(size: int, fields: int, name: str) -> None:
    told: list[str] = []
    check_head(DEFAULT, DEFAULT.max_head, DEFAULT.max_fields, of_request=True)
    with taddons.context() as context:
        limits.count_with(context.options, told.append)
        for of_request in (True, False):
            with pytest.raises(MalformedError) as caught:
                check_head(DEFAULT, size, fields, of_request=of_request)
            assert ("request" in str(caught.value)) is of_request
            assert caught.value.status == 431
    assert told == [name, name]


def test_what_is_in_force_is_told_where_an_option_leaves_it_open() -> None:
    with taddons.context() as context:
        options = context.options
        options.add_option("jwt_a", str, "auto", "")
        options.add_option("jwt_b", str, "7", "")
        limits.keep_to(options, {"jwt_a": 5})
        limits.keep_to(options, {"jwt_c": 6})
        assert [limits.in_force(options, name) for name in ("jwt_a", "jwt_b", "jwt_c")] == ["5", "7", "6"]


def test_a_limit_is_none_where_no_addon_of_ours_is() -> None:
    row = limits.OPTIONS[1]
    with taddons.context() as context:
        assert limits.value_of(context.options, row) == 0
        context.options.add_option(row.name, str, "30", "")
        assert limits.value_of(context.options, row) == 30


def test_each_limit_that_there_is_is_told_with_how_often_it_was_reached() -> None:
    with taddons.context() as context:
        context.options.add_option("jwt_a", str, "7", "")
        assert limits.told(context.options, ["jwt_a", "jwt_b"], {"jwt_a": 3, "jwt_b": 4}) == {
            "jwt_a": {"value": "7", "reached": 3}
        }
