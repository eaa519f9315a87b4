"""All that carries requests brings its options."""

from jwtproxy.mitm import carrying


def test_each_of_its_options_is_a_limit() -> None:
    names = {row.name for row in carrying.OPTIONS if row.limit}
    assert names == {"jwt_connect_timeout", "jwt_response_timeout", "jwt_max_upstream_connections"}
