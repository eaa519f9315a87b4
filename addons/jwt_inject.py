"""Sign every request that leaves the proxy, or refuse it.

JWT_SHARED_SECRET=… mitmdump -s addons/jwt_inject.py
"""

import asyncio
import logging
import os
import sys
import time
from weakref import WeakKeyDictionary

from mitmproxy import ctx, exceptions, http
from mitmproxy.addonmanager import Loader
from mitmproxy.addons.modifyheaders import parse_modify_spec

try:
    from jwtproxy import claims, headers, http_stream, keys, pages, redaction, settings, signing
    from jwtproxy.deadlines import ConnectDeadline
except ModuleNotFoundError as error:
    if error.name != "jwt":
        raise
    sys.exit(
        "jwtproxy: error: PyJWT is not installed beside mitmproxy\n"
        "jwtproxy: hint: pipx inject mitmproxy pyjwt, or pip install pyjwt into mitmproxy's environment"
    )

logger = logging.getLogger(__name__)

Signed = tuple[headers.Fields, tuple[str, str, int]]

_UNSIGNED = pages.text(502, "the request could not be signed and was not forwarded")
_MALFORMED = pages.text(400, "a header value holds a line break; the request was not forwarded")
# What mitmproxy passes on without looking into it, by the user's wish.
_BYPASSES = ("ignore_hosts", "allow_hosts", "tcp_hosts")


class JwtInject:
    """mitmproxy addon: attach a fresh token to each request."""

    def __init__(self, secret: bytes | None = None) -> None:
        self._secret = secret
        self._is_script = secret is None
        self._signer: signing.Signer | None = None
        self._settings: settings.Settings | None = None
        self._header = b""
        self._signed: WeakKeyDictionary[http.HTTPFlow, Signed] = WeakKeyDictionary()
        self._connecting = ConnectDeadline()
        self.addons = [self._connecting]

    def load(self, loader: Loader) -> None:
        """Declare the options; from here on nothing passes but by our gate."""
        http_stream.install()
        http_stream.seam.gate = self.gate
        http_stream.seam.clean = self.clean
        for option, default in settings.defaults(os.environ).items():
            loader.add_option(option, str, default, _HELP[option])

    def configure(self, updated: set[str]) -> None:
        """Check the settings. What a script raises at first, mitmproxy only logs and goes on: so do we, closed."""
        if self._settings and not any(name.startswith("jwt_") or name == "modify_headers" for name in updated):
            return
        try:
            self._apply()
        except settings.SettingsError as error:
            if self._settings or not self._is_script:
                raise exceptions.OptionsError(str(error)) from error
            logger.error("jwtproxy: error: %s\njwtproxy: hint: %s", error, error.hint)

    def running(self) -> None:
        """Say what will pass unsigned, and keep tokens off the terminal."""
        for name in _BYPASSES:
            if getattr(ctx.options, name):
                logger.warning("jwtproxy: warning: %s is set: what it matches passes unsigned", name)
        if ctx.options.rawtcp:
            logger.warning(
                "jwtproxy: warning: rawtcp is on: tunnelled traffic whose first bytes do not look like HTTP passes "
                "unsigned; --set rawtcp=false signs or refuses it"
            )
        _redact_terminal()

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Sign before the body is there: a streamed request leaves right after this hook."""
        if not flow.error and not flow.response:
            self._protect(flow)

    def request(self, flow: http.HTTPFlow) -> None:
        """Sign what never had headers of its own (a replay), or was changed since."""
        if not flow.error and not flow.response and not flow.request.stream:
            self._protect(flow)

    def done(self) -> None:
        """Without us requests would pass unsigned: refuse them, and stop unless a reload brings the next of us."""
        http_stream.seam.gate = _closed
        if not _registered():  # at the end of the run we still are
            asyncio.get_running_loop().call_soon(_stop_if_closed)

    def gate(self, flow: http.HTTPFlow) -> pages.Page | None:
        """The last look before an upstream is contacted: None if signed as it stands, else the refusal."""
        if http_stream.to_self(flow):
            return pages.NONE
        return None if self._is_signed(flow) else self._sign(flow)

    def clean(self, trailers: headers.Fields) -> headers.Fields:
        """Trailers without a copy of our header; none at all where one might hide."""
        try:
            return headers.strip(trailers, headers.normalise(self._header))
        except headers.MalformedFieldError:
            return ()

    def _protect(self, flow: http.HTTPFlow) -> None:
        if http_stream.to_self(flow) or self._is_signed(flow):
            return
        if refusal := self._sign(flow):
            http_stream.respond(flow, refusal)

    def _is_signed(self, flow: http.HTTPFlow) -> bool:
        # The very tuple we made: any change to the fields would have made another.
        signed = self._signed.get(flow)
        return signed is not None and signed[0] is flow.request.headers.fields and signed[1] == _destination(flow)

    def _sign(self, flow: http.HTTPFlow) -> pages.Page | None:
        """Attach a token, or say how to refuse. Whatever goes wrong, the request must not leave; why stays with us."""
        try:
            assert self._signer
            assert self._settings
            token = self._signer.sign(claims.default_claims(self._settings.user, time.time()))
            fields = headers.attach(flow.request.headers.fields, self._header, token.encode())
        except headers.MalformedFieldError:
            return _MALFORMED
        except Exception as error:
            logger.error("jwtproxy: error: a request was refused, signing failed: %s", type(error).__name__)
            return _UNSIGNED
        flow.request.headers.fields = fields
        self._signed[flow] = fields, _destination(flow)
        return None

    def _apply(self) -> None:
        """Take over the options. Raises SettingsError and changes nothing then."""
        if name := settings.unknown(ctx.options.deferred):
            raise settings.unknown_error(name)
        parsed = settings.parse({name: getattr(ctx.options, name) for name in _HELP})
        _check_header_rules(parsed.header)
        if self._secret is None:
            self._secret = keys.find_secret(os.environ)
        keys.check_length(self._secret, parsed.algorithm)
        self._signer = signing.Signer(self._secret, parsed.algorithm)
        self._settings = parsed
        self._header = parsed.header.encode()
        self._connecting.timeout = parsed.connect_timeout
        http_stream.seam.response_timeout = parsed.response_timeout


def _check_header_rules(header: str) -> None:
    for rule in ctx.options.modify_headers:
        if headers.normalise(parse_modify_spec(rule, False).subject) == headers.normalise(header):
            raise settings.SettingsError(
                f"modify_headers {rule!r} names the token's own header", "the proxy alone sets it; drop the rule"
            )


def _closed(flow: http.HTTPFlow) -> pages.Page:
    return _UNSIGNED


def _registered() -> bool:
    return ctx.master.addons.get(JwtInject.__name__.lower()) is not None


def _stop_if_closed() -> None:
    if http_stream.seam.gate is _closed and not _registered():
        logger.error("jwtproxy: error: jwt_inject is no longer loaded; stopping, as requests would leave unsigned")
        sys.exit(1)


def _destination(flow: http.HTTPFlow) -> tuple[str, str, int]:
    request = flow.request
    return request.scheme, request.host, request.port


def _redact_terminal() -> None:
    """Wrap what mitmproxy prints flows and logs to; with -v it would show tokens."""
    termlog = ctx.master.addons.get("termlog")
    for printer, name in ((ctx.master.addons.get("dumper"), "outfp"), (termlog and termlog.logger, "file")):
        stream = getattr(printer, name, None)
        if stream and not isinstance(stream, redaction.RedactedStream):
            setattr(printer, name, redaction.RedactedStream(stream))


_HELP = {option.name: option.help for option in settings.OPTIONS}

addons = [JwtInject()]
