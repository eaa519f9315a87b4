"""The origin servers that are Python: `python -m tests.support.origin_apps NAME`, and an application for gunicorn.

It imports little, as each is a process of its own. See origins.py for what they do.
"""

from __future__ import annotations

import functools
import socket
import sys
from collections.abc import Awaitable, Callable, Iterable
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from aiohttp import web
    from werkzeug.routing import Map

DELETE, ADMIN = "DELETE", "/admin"


class Files(SimpleHTTPRequestHandler):
    """What http.server itself makes of methods and of paths: files of the working directory."""

    def do_GET(self) -> None:
        """Answer whatever is asked for."""
        self._answer(ADMIN if Path(self.translate_path(self.path)) == Path.cwd() / "admin" else "")

    def do_DELETE(self) -> None:
        """Answer without a look at the path."""
        self._answer(DELETE)

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def _answer(self, what: str) -> None:
        _tell(self.headers["X-Case"], what)
        self.send_response(204)
        self.end_headers()


def wsgi(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """An application with the router of werkzeug, which is Flask's."""
    from werkzeug.exceptions import HTTPException

    try:
        what, _ = _routes().bind_to_environ(environ).match()
    except HTTPException as error:
        return error(environ, start_response)
    _tell(environ.get("HTTP_X_CASE"), what)
    start_response("204 No Content", [])
    return []


@functools.cache
def _routes() -> Map:
    from werkzeug.routing import Map, Rule

    deletes = [Rule(path, endpoint=DELETE, methods=[DELETE]) for path in ("/", "/<path:_>")]
    return Map([*deletes, Rule("/admin", endpoint=ADMIN, strict_slashes=False)])


def _tell(case: str | None, what: str) -> None:
    if what:
        print(case, what, flush=True)


def _listen(port: int) -> None:
    print("port", port, flush=True)


def _files() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        _listen(server.server_port)
        server.serve_forever()


def _werkzeug() -> None:
    from werkzeug.serving import make_server

    server = make_server("127.0.0.1", 0, wsgi, threaded=True)
    _listen(server.server_port)
    server.serve_forever()


def _aiohttp() -> None:
    from aiohttp import web

    def handler(what: str) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            _tell(request.headers.get("X-Case"), what)
            return web.Response(status=204)

        return handle

    app = web.Application()
    app.router.add_route(DELETE, "/{_:.*}", handler(DELETE))
    app.router.add_route("*", "/admin", handler(ADMIN))
    app.router.add_route("*", "/admin/", handler(ADMIN))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        _listen(listening.getsockname()[1])
        web.run_app(app, sock=listening, print=None)


if __name__ == "__main__":
    {"http.server": _files, "werkzeug": _werkzeug, "aiohttp": _aiohttp}[sys.argv[1]]()
