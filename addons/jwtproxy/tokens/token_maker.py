"""How to sign some requests: what their tokens say, and the keys they are signed with."""

from dataclasses import dataclass
from functools import cached_property

from . import claims
from .claims import Profile
from .keyring import Keyring
from .keys import Key
from .signing import Signer


@dataclass(frozen=True)
class TokenMaker:
    """Makes tokens of one profile with the keys of one ring."""

    profile: Profile
    ring: Keyring

    def token(self, origin: str, now: float, asker: str = "") -> str:
        """A token for a request made at `now` (seconds since the epoch) to this origin. Raises NoKeyError.

        `asker`: who has given a password for the proxy.
        """
        return self.signer(now).sign(claims.mint(self.profile, origin, now, asker))

    def signer(self, now: float) -> Signer:
        """What signs at this time. Raises NoKeyError."""
        key = self.ring.signing(now)
        if key not in self._signers:
            self._signers[key] = key.signer(self.profile.typ)
        return self._signers[key]

    @cached_property
    def _signers(self) -> dict[Key, Signer]:
        return {}

    @cached_property
    def field(self) -> bytes:
        """The name of the header field that carries the token."""
        return self.profile.header.encode()
