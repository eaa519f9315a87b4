"""The verdict on a request: the only place that makes one."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from ..conduct.access import OPEN, Access
from ..conduct.fields import Fields, normalise, strip
from ..conduct.forwarding import via, with_via
from ..conduct.malformed import MalformedError
from ..conduct.request import Matcher, RequestHead
from ..conduct.verdict import Forward, Refuse, Verdict
from ..config.errors import SettingsError
from ..tokens.key_source import KeySource
from ..tokens.keyring import NoKeyError, Reader, unique
from . import decision, faults
from .decision import Decisions
from .rules import BLOCK, PROXYAUTH
from .settings import Settings


@dataclass(frozen=True)
class Policy:
    """Everything that decides, read at one time."""

    decisions: Decisions
    host_mismatch: str
    """What becomes of a request that names another host than its tunnel's: refuse or allow."""
    since: Mapping[object, float]
    """When each key was first seen: seconds since the epoch."""
    jwks: str
    """All public keys, also those that no longer or not yet sign (RFC 7517 §5)."""
    trace: str = "off"
    """Whether TRACE passes: on or off."""
    via: str = "auto"
    """Which messages say that they came by us: auto (answers, and requests to a next proxy), on or off."""
    access: Access = OPEN
    """Where requests may go."""
    pseudonym: str = ""
    """Our name there, which must tell us from all other proxies."""

    def verdict(self, head: RequestHead, now: float) -> Verdict:
        """What becomes of a request at `now` (seconds since the epoch).

        Raises SettingsError where no key may sign now (NoKeyError), or its token names a user whom nobody has asked for
        a password; ValueError where its destination matters and cannot be dialled.
        """
        return self.refusal(head) or self._decided(head, now)

    def refusal(self, head: RequestHead) -> Refuse | None:
        """How a request, or CONNECT, is refused that was wrong as its client sent it; None if it was not."""
        wrong = faults.stranger(head, self.access) or faults.refusal(head, self.host_mismatch, self.trace)
        return wrong or faults.denial(head, self.access)

    def _decided(self, head: RequestHead, now: float) -> Verdict:
        rule, place, action, maker = self.decisions.on(head)
        if action == BLOCK:
            text = f"blocked by rule {rule!r}" if place else "no rule allows this request"
            return Refuse(403, text, rule, place)
        try:
            kept = faults.passing(head, self.token_fields)
        except MalformedError as error:
            return faults.malformed(error, rule, place)
        if self.via == "on" or (head.to_proxy and self.via == "auto"):
            kept = with_via(kept, via(head.http_version, self.pseudonym))
        if not maker:
            return Forward(kept, rule, place)
        origin = head.destination.origin if maker.profile.wants_origin else ""
        if maker.profile.user is None and not head.user:
            reason = f"rule {rule!r} puts the user of --proxyauth into the token, and none was asked for a password"
            raise SettingsError(reason, f"set --proxyauth, or another user than {PROXYAUTH}")
        token = maker.token(origin, now, head.user).encode()
        return Forward((*kept, (maker.field, token)), rule, place, maker.profile.header)

    def clean_trailers(self, trailers: Fields) -> Fields:
        """Trailers without any field that may carry a token; none at all where one might hide."""
        try:
            return strip(trailers, self.token_fields)
        except MalformedError:
            return ()

    def lacking(self, now: float) -> str:
        """What there is not, in words, to sign at `now` a request that no rule is about; empty if it can be signed."""
        try:
            if self.decisions.default:
                self.decisions.default.ring.signing(now)
        except NoKeyError as error:
            return str(error)
        return ""

    def __str__(self) -> str:
        """What to tell of it, in a few words."""
        rules = self.decisions.rules
        keys = {key.kid or key.place for maker in self.decisions.all_makers for key in maker.ring.keys}
        return f"keys: {len(keys)}, rules: {len(rules.rules) if rules else 0}"

    @property
    def via_on_answers(self) -> bool:
        """Whether answers say that they came by us."""
        return self.via != "off"

    @cached_property
    def signs(self) -> bool:
        """Whether any request is signed."""
        return bool(self.decisions.all_makers)

    @cached_property
    def has_rules(self) -> bool:
        """Whether rules decide, so that it is worth telling which."""
        return self.decisions.rules is not None

    @cached_property
    def headers(self) -> frozenset[str]:
        """The names of all header fields that may carry a token."""
        return frozenset(maker.profile.header for maker in self.decisions.all_makers)

    @cached_property
    def token_fields(self) -> frozenset[bytes]:
        """The same, normalised: no client may send any."""
        return frozenset(map(normalise, self.headers))


def load(
    settings: Settings, source: KeySource, compile_filter: Callable[[str], Matcher], reader: Reader, pseudonym: str
) -> Policy:
    """Read all that decides. Raises SettingsError."""
    decisions = decision.load(settings, source, compile_filter, reader)
    jwks = _jwks(decisions)
    return Policy(
        decisions,
        settings.host_mismatch,
        reader.since,
        jwks,
        settings.trace,
        settings.via,
        settings.access,
        pseudonym,
    )


def _jwks(decisions: Decisions) -> str:
    found = unique(key for maker in decisions.all_makers for key in maker.ring.keys if key.kid)
    return json.dumps({"keys": [key.public for key in found if key.public]}, indent=1) + "\n"
