"""Check what mitmproxy would notice late, in a trace-back, or never."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mitmproxy import exceptions
from mitmproxy.options import Options
from OpenSSL import SSL

from jwtproxy.config.errors import SettingsError
from jwtproxy.config.spelling import likely_option


def check(options: Options) -> None:
    """Check all options, ours and mitmproxy's. Raises SettingsError."""
    with as_settings_errors():
        options.update(jwt_user=options.jwt_user)  # our addons look at all of ours when one is set
    if not 0 <= (options.listen_port or 0) <= 65535:
        raise SettingsError(f"bad value {options.listen_port} for the port", "use a port number from 0 to 65535")
    for name, option in options.items():
        if option.choices and option.current() not in option.choices:
            choices = ", ".join(option.choices)
            raise SettingsError(f"bad value {option.current()!r} for {name}", f"use one of {choices}")
    _check_tls(options)
    for name in ("ignore_hosts", "allow_hosts", "tcp_hosts", "udp_hosts"):
        for pattern in getattr(options, name):
            try:
                re.compile(pattern)
            except re.error as error:
                raise SettingsError(f"bad value {pattern!r} for {name}: {error}", "use a regular expression") from None


def undeclared(options: Options) -> list[str]:
    """The names that `--set` gives to nobody yet: a script that is not loaded may have them."""
    return sorted(name for name, value in options.deferred.items() if hasattr(value, "val"))  # of config.yaml, none has


def check_declared(options: Options, others: Iterable[str] = ()) -> None:
    """Refuse what `--set` gives and nobody declares. `others`: those whose addons are to come. Raises SettingsError.

    A name in config.yaml may be another program's: mitmproxy and mitmweb read that, too.
    """
    known = {*options.keys(), *others}
    for name in undeclared(options):
        if name not in known:
            meant = likely_option(name, sorted(known))
            hint = f"did you mean {meant}?" if meant else "jwtproxy-run --options lists every option"
            raise SettingsError(f"unknown option {name!r}", hint)


def _check_tls(options: Options) -> None:
    """What OpenSSL would only say, at length, to each connection. Raises SettingsError."""
    context = SSL.Context(SSL.TLS_METHOD)
    for name in ("ciphers_client", "ciphers_server"):
        if value := getattr(options, name):
            try:
                context.set_cipher_list(value.encode())
            except SSL.Error:
                raise SettingsError(f"bad value {value!r} for {name}", "use OpenSSL's cipher names") from None
    for name in ("ssl_verify_upstream_trusted_ca", "ssl_verify_upstream_trusted_confdir"):
        if value := getattr(options, name):
            try:
                context.load_verify_locations(*((value, None) if name.endswith("_ca") else (None, value)))
                readable = Path(value).exists()
            except SSL.Error:
                readable = False
            if not readable:
                raise SettingsError(f"bad value {value!r} for {name}", "name certificates in PEM form that can be read")


@contextmanager
def as_settings_errors() -> Iterator[None]:
    """Whatever mitmproxy raises while options are set is a mistake in a setting."""
    try:
        yield
    except SettingsError:
        raise
    except exceptions.OptionsError as error:
        if isinstance(cause := error.__cause__, OSError):  # mitmproxy tells of it in the notation of Python
            reason = (cause.strerror or "error").lower()
            hint = "name a file this user may write"
            raise SettingsError(f"cannot write {cause.filename!r}: {reason}", hint) from None
        if str(error).startswith("Invalid upstream auth"):  # and repeats it
            raise SettingsError("bad value for upstream_auth", "use USER:PASSWORD") from None
        if valueless := re.match("Option is required: (.+)", str(error)):
            raise SettingsError(f"{valueless[1]} has no value", f"write it as --set {valueless[1]}=…") from None
        hint = getattr(error.__cause__, "hint", "") or "jwtproxy-run --options lists every option with its type"
        raise SettingsError(str(error), hint) from error
    except OSError as error:
        reason = (error.strerror or "error").lower()
        raise SettingsError(f"cannot read {error.filename}: {reason}", "fix or remove the file") from error
    except (TypeError, ValueError, AttributeError, KeyError) as error:  # a value of the wrong type in config.yaml
        raise SettingsError(f"cannot use config.yaml: {error}", "write each line as 'option: value'") from error
