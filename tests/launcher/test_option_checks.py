"""What mitmproxy would notice late, at length or never is one error before anything listens."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest
from mitmproxy import exceptions
from mitmproxy.options import Options

from jwtproxy.addons.jwt_inject import JwtInject
from jwtproxy.config.errors import SettingsError
from jwtproxy.launcher import option_checks
from jwtproxy.launcher.master import Master
from jwtproxy.tokens.key_source import SECRET, KeySource

pytestmark = pytest.mark.usefixtures("pristine")


def _check(**options: object) -> None:
    async def run() -> None:
        master = Master(Options())
        master.options.update(**options)
        master.add_ours(JwtInject(KeySource(SECRET, bytes(64))))
        try:
            option_checks.check(master.options)
        finally:
            await master.done()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("options", "said", "hint"),
    [
        ({"listen_port": -1}, "bad value -1 for the port", "0 to 65535"),
        ({"listen_port": 65536}, "bad value 65536 for the port", "0 to 65535"),
        ({"ciphers_client": "nonsense"}, "bad value 'nonsense' for ciphers_client", "OpenSSL"),
        ({"ciphers_server": "nonsense"}, "bad value 'nonsense' for ciphers_server", "OpenSSL"),
        ({"ignore_hosts": ["a", "["]}, "bad value '[' for ignore_hosts", "regular expression"),
        ({"allow_hosts": ["("]}, "bad value '(' for allow_hosts", "regular expression"),
        ({"tcp_hosts": ["*"]}, "bad value '*' for tcp_hosts", "regular expression"),
        ({"udp_hosts": ["*"]}, "bad value '*' for udp_hosts", "regular expression"),
    ],
)
def test_a_bad_value_is_named_with_the_way_out(options: dict[str, object], said: str, hint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        _check(**options)
    assert str(caught.value).startswith(said)
    assert hint in caught.value.hint


@pytest.mark.parametrize("name", ["ssl_verify_upstream_trusted_ca", "ssl_verify_upstream_trusted_confdir"])
@pytest.mark.parametrize("value", ["/nowhere", "no-certificates"])
def test_certificates_to_trust_must_be_readable(tmp_path: Path, name: str, value: str) -> None:
    if value == "no-certificates" and name.endswith("_ca"):
        Path(value).write_text("none")
    with pytest.raises(SettingsError) as caught:
        _check(**{name: value})
    assert str(caught.value) == f"bad value {value!r} for {name}"
    assert "PEM" in caught.value.hint


def test_good_values_pass(tmp_path: Path) -> None:
    _check(ciphers_client="ECDHE+AESGCM", ignore_hosts=["^a$"], ssl_verify_upstream_trusted_confdir=str(tmp_path))


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (SettingsError("ours", "hint"), "ours"),
        (exceptions.OptionsError("theirs"), "theirs"),
        (exceptions.OptionsError("Option is required: jwt_ttl"), "jwt_ttl has no value"),
        (FileNotFoundError(2, "No such file or directory", "config.yaml"), "cannot read config.yaml: no such file"),
        (TypeError("no list"), "cannot use config.yaml: no list"),
    ],
)
def test_what_mitmproxy_raises_is_a_mistake_in_a_setting(raised: Exception, said: str) -> None:
    with pytest.raises(SettingsError) as caught, option_checks.as_settings_errors():
        raise raised
    assert str(caught.value).startswith(said)
    assert caught.value.hint


def test_the_hint_of_an_error_of_ours_comes_through_mitmproxy() -> None:
    with pytest.raises(SettingsError) as caught, option_checks.as_settings_errors():
        raise exceptions.OptionsError("theirs") from SettingsError("ours", "do this")
    assert caught.value.hint == "do this"


def test_a_file_that_cannot_be_written_is_named_without_pythons_notation() -> None:
    cause = NotADirectoryError(errno.ENOTDIR, "Not a directory", "/dev/full/flows")
    with pytest.raises(SettingsError) as caught, option_checks.as_settings_errors():
        raise exceptions.OptionsError(str(cause)) from cause
    assert str(caught.value) == "cannot write '/dev/full/flows': not a directory"
    assert caught.value.hint == "name a file this user may write"


def test_credentials_for_the_next_proxy_are_not_repeated() -> None:
    with pytest.raises(SettingsError) as caught, option_checks.as_settings_errors():
        _check(upstream_auth="onlyapassword")
    assert "onlyapassword" not in str(caught.value)
    assert caught.value.hint == "use USER:PASSWORD"


@pytest.mark.parametrize(
    ("spec", "hint"),
    [("foo=1", "--options"), ("ttl=5", "did you mean jwt_ttl?"), ("listen-port=1", "listen_port"), ("mod", "mode")],
)
def test_an_option_that_nobody_has_is_refused(spec: str, hint: str) -> None:
    options = Options()
    options.set(spec, defer=True)
    with pytest.raises(SettingsError, match=f"^unknown option '{spec.partition('=')[0]}'$") as caught:
        option_checks.check_declared(options, ["jwt_ttl"])
    assert hint in caught.value.hint


def test_what_others_have_or_a_config_names_is_not() -> None:
    options = Options()
    options.set("jwt_ttl=5", defer=True)
    options.update_defer(web_port=1)
    option_checks.check_declared(options, ["jwt_ttl"])
    assert option_checks.undeclared(options) == ["jwt_ttl"]
