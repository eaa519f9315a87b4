"""What to tell of a message that no RFC allows."""


class MalformedError(ValueError):
    """A message that is not forwarded. Its text names the fault, never the bytes, which may be a secret."""

    def __init__(self, text: str, status: int = 400) -> None:
        """`status`: for the client, where the message is a request (RFC 9110 §15.5); an answer becomes 502."""
        super().__init__(text)
        self.status = status
