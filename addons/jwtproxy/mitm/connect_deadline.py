"""Give up on an upstream that does not let us connect."""

import asyncio
import weakref
from typing import Any

from ..config.options import Option, seconds
from . import limits

OPTIONS = (
    Option(
        "jwt_connect_timeout",
        "10",
        seconds,
        "failures",
        "Seconds an upstream may take to accept a connection before the client gets 502; 0 = no limit.",
        limit=True,
    ),
)

_LOOK = 0.05
"""Of the time-out: how often to look whether a waiting attempt has its turn."""


class ConnectDeadline:
    """Addon hooks that end a connection attempt, TCP and TLS, that takes too long.

    mitmproxy opens a connection in a task and runs `server_connect` inside it; cancelling that task ends the attempt
    with the cancellation's message as its error. That TCP has its turn shows in the connection's `timestamp_start`,
    which tells no time here: the clock that it was read from may be set meanwhile.
    """

    def __init__(self) -> None:
        self.timeout = 0.0
        """Seconds; 0 = no limit."""
        self._tasks = weakref.WeakValueDictionary[str, asyncio.Task[Any]]()
        """By the id of the connection; the fast lane's end with the attempt, and would take memory for nothing."""
        self._timers: dict[str, asyncio.Handle] = {}
        self._tunnels: dict[tuple[str, str, int], Any] = {}

    def server_connect(self, data: Any) -> None:
        """An attempt begins, or waits for its turn: mitmproxy opens few connections to one address at a time."""
        task = asyncio.current_task()
        if self.timeout and task:
            self._tasks[data.server.id] = task
            self._timers[data.server.id] = asyncio.get_running_loop().call_soon(
                self._await_turn, data.server, data.server.timestamp_start
            )

    def server_connected(self, data: Any) -> None:
        """TCP is there in time."""
        self._stop(data.server)

    def server_connect_error(self, data: Any) -> None:
        """The attempt failed."""
        self._forget(data.server)

    def server_disconnected(self, data: Any) -> None:
        """The connection is gone."""
        self._forget(data.server)

    def http_connect_upstream(self, flow: Any) -> None:
        """An upstream proxy is asked for a tunnel: it has as long again."""
        if flow.server_conn.id in self._tasks:
            self._start(flow.server_conn)
            self._tunnels[flow.client_conn.id, flow.request.host, flow.request.port] = flow.server_conn

    def tls_start_server(self, data: Any) -> None:
        """TLS has as long again, also within a tunnel, which is there then."""
        if tunnel := self._tunnels.pop((data.context.client.id, *data.conn.address[:2]), None):
            self._stop(tunnel)
            if task := self._tasks.get(tunnel.id):
                self._tasks[data.conn.id] = task
        if data.conn.id in self._tasks:
            self._start(data.conn)

    def tls_established_server(self, data: Any) -> None:
        """TLS is there in time."""
        self._forget(data.conn)

    def tls_failed_server(self, data: Any) -> None:
        """TLS failed."""
        self._forget(data.conn)

    def _await_turn(self, server: Any, before: float | None) -> None:
        """Start when the attempt does, and no sooner: cancelled while it waits, its request would hang."""
        task = self._tasks.get(server.id)
        if task is None or task.done():  # its client left while it waited, of which no hook may have told
            self._forget(server)
        elif server.timestamp_start is not before:
            self._start(server)
        else:
            again = asyncio.get_running_loop().call_later(self.timeout * _LOOK, self._await_turn, server, before)
            self._timers[server.id] = again

    def _start(self, server: Any) -> None:
        self._timers[server.id] = asyncio.get_running_loop().call_later(self.timeout, self._expire, server)

    def _expire(self, server: Any) -> None:
        if task := self._tasks.get(server.id):
            limits.reached("jwt_connect_timeout")
            task.cancel(f"no connection within {self.timeout:g} s")

    def _stop(self, server: Any) -> None:
        if timer := self._timers.pop(server.id, None):
            timer.cancel()

    def _forget(self, server: Any) -> None:
        self._stop(server)
        self._tasks.pop(server.id, None)
        self._tunnels = {key: tunnel for key, tunnel in self._tunnels.items() if tunnel is not server}
