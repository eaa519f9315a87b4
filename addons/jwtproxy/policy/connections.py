"""Options about how many connections clients may have."""

from ..conduct.crowd import Full
from ..config.options import Option, number_or_auto

OPTIONS = (
    Option(
        Full.ALL.value,
        "auto",
        number_or_auto,
        "guards",
        "How many connections all clients together may have to a worker, beyond which they get 503; auto (half of what "
        "descriptors are left, at most 16384); 0 = no limit.",
        limit=True,
    ),
    Option(
        Full.CLIENT.value,
        "auto",
        number_or_auto,
        "guards",
        "How many of them one client address may have, or one IPv6 network of 64 bits: auto (half of "
        "jwt_max_connections); 0 = no limit.",
        limit=True,
    ),
)
"""Whoever accepts connections keeps to them, which is the launcher."""
