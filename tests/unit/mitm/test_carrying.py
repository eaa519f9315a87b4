"""All that lets requests in, and carries them, brings its options and addons."""

from jwtproxy.mitm import carrying


def test_each_of_its_options_is_a_limit() -> None:
    names = {row.name for row in carrying.OPTIONS if row.limit}
    timeouts = {f"jwt_{what}_timeout" for what in "connect response head keepalive body idle tls".split()}
    assert names == timeouts | {
        "jwt_max_upstream_connections",
        "jwt_max_head",
        "jwt_max_fields",
        "jwt_max_idle_frames",
        "jwt_max_body",
        "jwt_max_bodies",
        "jwt_max_failed_passwords",
    }
