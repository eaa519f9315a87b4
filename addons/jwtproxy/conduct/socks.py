"""SOCKS where HTTP is spoken: its clients say nothing more until they are answered, and understand only their own."""

_REFUSALS = {
    4: b"\x00\x5b" + bytes(6),  # request rejected or failed; so it is for SOCKS4a
    5: b"\x05\xff",  # no acceptable methods (RFC 1928 §3)
}


def refusal(start: bytes) -> bytes:
    """What to tell a client that begins so; nothing where that is not SOCKS, as no line of HTTP begins like that."""
    return _REFUSALS.get(start[0], b"") if start else b""
