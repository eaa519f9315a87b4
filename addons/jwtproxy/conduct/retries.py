"""Which requests are sent once more, when a connection ended before anything of an answer came."""

_IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))  # RFC 9110 §9.2.2


def may_go_again(method: bytes, *, untouched: bool, reused: bool, bodiless: bool, held: bool) -> bool:
    """Whether a request may be sent a second time, on a new connection.

    `untouched`: the server has said that it has done nothing with it, which goes for any method (RFC 9113 §8.7).
    `reused`: the connection has carried others before, so that it may have been closed before this one came; what ends
    a new one has to do with this very request (RFC 9112 §9.3.1). `bodiless`: it has no body. `held`: all of its body is
    still here, sent or not, or none of it has been passed on.
    """
    if untouched:
        return held
    return reused and bodiless and method in _IDEMPOTENT
