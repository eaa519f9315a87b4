"""Sign every request that leaves the proxy, or refuse it.

JWT_SHARED_SECRET=… mitmdump -s addons/jwt_inject.py
"""

import asyncio
import logging
import os
import sys
import time
from typing import NamedTuple
from weakref import WeakKeyDictionary

from mitmproxy import ctx, exceptions, http
from mitmproxy.addonmanager import Loader
from mitmproxy.addons.modifyheaders import parse_modify_spec

try:
    from jwtproxy import flow_filters, headers, http_stream, key_source, pages, redaction, settings
    from jwtproxy.deadlines import ConnectDeadline
    from jwtproxy.destination import normalise
    from jwtproxy.key_source import Source
    from jwtproxy.live import KEPT, PERIOD, Live, Report
    from jwtproxy.policy import Decision, Policy
except ModuleNotFoundError as error:
    if error.name != "jwt":
        raise
    sys.exit(
        "jwtproxy: error: PyJWT is not installed beside mitmproxy\n"
        "jwtproxy: hint: pipx inject mitmproxy pyjwt, or pip install pyjwt into mitmproxy's environment"
    )

logger = logging.getLogger(__name__)


class Signed(NamedTuple):
    """What a request looked like when it was signed, and by what."""

    fields: headers.Fields
    decided_by: tuple[bytes, str, int, bytes, bytes]
    policy: Policy
    at: float


RULE = "jwtproxy_rule"
"""In a flow's metadata, where there are rules: the name of the one that decided, or `default`."""

_FRESH = 1.0
"""Seconds for which a token stands for its request; one whose body took longer gets another when it leaves."""

_UNSIGNED = pages.text(502, "the request could not be signed and was not forwarded")
_MALFORMED = pages.text(400, "a header value holds a line break; the request was not forwarded")
_NO_RULE = pages.text(403, "no rule allows this request")
# What mitmproxy passes on without looking into it, by the user's wish.
_BYPASSES = ("ignore_hosts", "allow_hosts", "tcp_hosts")


class JwtInject:
    """mitmproxy addon: attach a fresh token to each request."""

    def __init__(self, source: Source | None = None, live: Live | None = None, *, tells: bool = True) -> None:
        """`source`: of the key; a script finds its own. `live`: the policy in force, if it has been read already.

        `tells`: whether to log what becomes of changed files; of several workers, none does, but who forked them.
        """
        self._source, self._inherited, self._tells = source, live, tells
        self._is_script = source is None
        self.live: Live | None = None
        self._signed: WeakKeyDictionary[http.HTTPFlow, Signed] = WeakKeyDictionary()
        self._following: asyncio.Task[None] | None = None
        self._connecting = ConnectDeadline()
        self.addons = [self._connecting]

    def load(self, loader: Loader) -> None:
        """Declare the options; from here on nothing passes but by our gate."""
        http_stream.install()
        http_stream.seam.gate = self.gate
        http_stream.seam.clean = self.clean
        http_stream.seam.published = self._published
        for option, default in settings.defaults(os.environ).items():
            loader.add_option(option, str, default, _HELP[option])

    def configure(self, updated: set[str]) -> None:
        """Check the settings. What a script raises at first, mitmproxy only logs and goes on: so do we, closed."""
        if self.live and not any(name.startswith("jwt_") or name == "modify_headers" for name in updated):
            return
        try:
            self._apply()
        except settings.SettingsError as error:
            if self.live or not self._is_script:
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
        if self.live:
            self._following = asyncio.get_running_loop().create_task(self._follow())

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
        if self._following:
            self._following.cancel()
        if not _registered():  # at the end of the run we still are
            asyncio.get_running_loop().call_soon(_stop_if_closed)

    def reload(self) -> None:
        """Take over now what the files of keys and rules say."""
        if self.live:
            self._tell(self.live.reload())

    def gate(self, flow: http.HTTPFlow) -> pages.Page | None:
        """The last look before an upstream is contacted: None if signed as it stands, else the refusal."""
        if http_stream.to_self(flow):
            return pages.NONE
        return None if self._is_signed(flow) else self._sign(flow)

    def clean(self, trailers: headers.Fields) -> headers.Fields:
        """Trailers without a copy of our header; none at all where one might hide."""
        try:
            return headers.strip(trailers, self.live.policy.fields) if self.live else ()
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
        return (
            signed is not None
            and self.live is not None
            and signed.fields is flow.request.headers.fields
            and signed.decided_by == _decided_by(flow)
            and signed.policy is self.live.policy
            and time.time() - signed.at < _FRESH
        )

    def _sign(self, flow: http.HTTPFlow) -> pages.Page | None:
        """Attach a token, or say how to refuse. Whatever goes wrong, the request must not leave; why stays with us."""
        try:
            return self._apply_policy(flow)
        except headers.MalformedFieldError:
            return _MALFORMED
        except settings.SettingsError as error:
            logger.error("jwtproxy: error: a request was refused: %s\njwtproxy: hint: %s", error, error.hint)
        except Exception as error:
            logger.error("jwtproxy: error: a request was refused, signing failed: %s", type(error).__name__)
        return _UNSIGNED

    def _apply_policy(self, flow: http.HTTPFlow) -> pages.Page | None:
        assert self.live
        policy = self.live.policy
        origin, seen, now = "", flow, time.time()
        if policy.wants_destination:
            destination = normalise(flow.request.scheme, flow.request.host, flow.request.port)
            origin, seen = destination.origin, flow_filters.view(flow, destination) if policy.rules else flow
        decision = policy.decide(seen)
        if policy.rules:
            flow.metadata[RULE] = decision.rule
        if decision.action == "block":
            return _blocked(decision)
        fields = headers.strip(flow.request.headers.fields, policy.fields)
        if target := decision.target:
            token = target.token(origin, now)
            fields = (*fields, (target.field, token.encode()))
        flow.request.headers.fields = fields
        self._signed[flow] = Signed(fields, _decided_by(flow), policy, now)
        return None

    def _apply(self) -> None:
        """Take over the options. Raises SettingsError and changes nothing then."""
        if name := settings.unknown(ctx.options.deferred):
            raise settings.unknown_error(name)
        parsed = settings.parse({name: getattr(ctx.options, name) for name in _HELP})
        live = self._live_for(parsed)
        for header in {target.profile.header for target in live.policy.everyone}:
            _check_header_rules(header)
        self.live = live
        self._connecting.timeout = parsed.connect_timeout
        http_stream.seam.response_timeout = parsed.response_timeout
        http_stream.seam.host_mismatch = parsed.host_mismatch

    def _live_for(self, parsed: settings.Settings) -> Live:
        """The policy that these settings make; not read again where it has been."""
        for live in (self.live, self._inherited):
            if live and live.settings == parsed:
                return live
        return Live(parsed, self._source or _find_source(parsed), flow_filters.compile_filter)

    def _published(self) -> tuple[str, int]:
        return (self.live.policy.jwks, self.live.settings.jwks_max_age) if self.live else http_stream.NOTHING_PUBLISHED

    async def _follow(self) -> None:
        """Take over what changes in the files of keys and rules, as long as we are there."""
        while self.live:
            await asyncio.sleep(PERIOD)
            try:
                self._tell(self.live.poll())
            except Exception:  # nobody waits for this task: it would end unnoticed, and with it all changes
                logger.exception("jwtproxy: error: cannot look for changed keys and rules")

    def _tell(self, report: Report | None) -> None:
        if not self._tells or report is None:
            return
        if isinstance(report, settings.SettingsError):
            logger.error("jwtproxy: error: %s; %s\njwtproxy: hint: %s", report, KEPT, report.hint)
        else:
            logger.info("jwtproxy: %s", report)


def _check_header_rules(header: str) -> None:
    for rule in ctx.options.modify_headers:
        if headers.normalise(parse_modify_spec(rule, False).subject) == headers.normalise(header):
            raise settings.SettingsError(
                f"modify_headers {rule!r} names the token's own header", "the proxy alone sets it; drop the rule"
            )


def _blocked(decision: Decision) -> pages.Page:
    return pages.text(403, f"blocked by rule {decision.rule!r}") if decision.place else _NO_RULE


def _find_source(parsed: settings.Settings) -> Source:
    """The key's source for a script: options come before the environment, which is also where they begin."""
    named = {key_source.KEY_FILE: parsed.key_file, key_source.KEY_DIR: parsed.key_dir}
    options = {name: value for name, value in named.items() if value != os.environ.get(name, "")}
    return key_source.find(options, os.environ)


def _closed(flow: http.HTTPFlow) -> pages.Page:
    return _UNSIGNED


def _registered() -> bool:
    return ctx.master.addons.get(JwtInject.__name__.lower()) is not None


def _stop_if_closed() -> None:
    if http_stream.seam.gate is _closed and not _registered():
        logger.error("jwtproxy: error: jwt_inject is no longer loaded; stopping, as requests would leave unsigned")
        sys.exit(1)


def _decided_by(flow: http.HTTPFlow) -> tuple[bytes, str, int, bytes, bytes]:
    """What, beside the header fields, a decision depends on."""
    request = flow.request.data
    return request.scheme, request.host, request.port, request.method, request.path


def _redact_terminal() -> None:
    """Wrap what mitmproxy prints flows and logs to; with -v it would show tokens."""
    termlog = ctx.master.addons.get("termlog")
    for printer, name in ((ctx.master.addons.get("dumper"), "outfp"), (termlog and termlog.logger, "file")):
        stream = getattr(printer, name, None)
        if stream and not isinstance(stream, redaction.RedactedStream):
            setattr(printer, name, redaction.RedactedStream(stream))


_HELP = {option.name: option.help for option in settings.OPTIONS}

addons = [JwtInject()]
