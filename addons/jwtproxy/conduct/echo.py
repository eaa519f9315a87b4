"""The one name that the proxy answers for itself: who asks for it by the proxy is shown what an upstream would get.

`.test` is a name of no one (RFC 6761 §6.2), so that no upstream is hidden.
"""

NAME = "jwtproxy.test"

_PORTS = frozenset((80, 443))
"""Only these: a tunnel does not say what will be spoken in it, so that either may be either scheme's."""


def is_echo(host: str, port: int) -> bool:
    """Whether the proxy answers itself what is asked of there, in any spelling of the name."""
    return port in _PORTS and host.removesuffix(".").lower() == NAME
