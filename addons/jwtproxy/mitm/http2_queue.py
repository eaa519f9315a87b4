"""Requests that wait until an HTTP/2 server takes another (RFC 9113 §5.1.2).

mitmproxy keeps each event of theirs, however many there are, and sends even those that nobody waits for any more.
"""

from mitmproxy.proxy.layers import http


class _Request:
    """What has come of one."""

    def __init__(self, head: http.RequestHeaders) -> None:
        self.head = head
        self.body = bytearray()  # small pieces would cost by themselves
        self.rest: list[http.HttpEvent] = []

    def events(self) -> list[http.HttpEvent]:
        """All of it."""
        body = [http.RequestData(self.head.stream_id, bytes(self.body))] if self.body else []
        return [self.head, *body, *self.rest]


class Queue:
    """Who came first is served first."""

    def __init__(self) -> None:
        self._waiting: dict[int, _Request] = {}

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._waiting)

    def add(self, event: http.HttpEvent) -> None:
        """Keep a request, or more of one that waits, unless that is given up. What is of none any more is dropped."""
        stream = event.stream_id
        if isinstance(event, http.RequestHeaders):
            self._waiting[stream] = _Request(event)
        elif isinstance(event, http.RequestProtocolError):
            self._waiting.pop(stream, None)
        elif request := self._waiting.get(stream):
            if isinstance(event, http.RequestData):
                request.body += event.data
            else:
                request.rest.append(event)

    def take(self) -> list[http.HttpEvent]:
        """What has come of the first, which waits no longer."""
        return self._waiting.pop(next(iter(self._waiting))).events()

    def clear(self) -> list[int]:
        """Forget all; the streams that they were."""
        streams = list(self._waiting)
        self._waiting.clear()
        return streams

    def sizes(self) -> dict[int, int]:
        """Bytes of their bodies, by stream."""
        return {stream: len(request.body) for stream, request in self._waiting.items()}
