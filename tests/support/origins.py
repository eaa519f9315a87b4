"""Origin servers as people run them, each with its own parser and router. They print what they execute.

All have two handlers that matter: one for DELETE, on any path, and one for /admin, in any method. Either prints a line:
the request's X-Case, then DELETE or /admin.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.upstream import free_ports, wait_until_listening

from . import origin_apps
from .harness import REPO, Process, clean_env
from .verifiers import need, nginx

_READY = re.compile(r"(?:port |http://127\.0\.0\.1:)(\d+)")

_NODE = """\
const server = require('http').createServer((request, response) => {
  const path = new URL(request.url, 'http://origin.example').pathname;
  const admin = path === '/admin' || path.startsWith('/admin/');
  const what = request.method === 'DELETE' ? 'DELETE' : admin ? '/admin' : '';
  if (what) console.log(`${request.headers['x-case']} ${what}`);
  response.end();
});
server.listen(0, '127.0.0.1', () => console.log(`port ${server.address().port}`));
"""

_NGINX = """\
daemon off; master_process off; pid nginx.pid; error_log stderr; events {}
http {
    log_format delete '$http_x_case DELETE';
    log_format admin '$http_x_case /admin';
    map $request_method $deletes { DELETE 1; }
    server {
        listen 127.0.0.1:PORT;
        access_log /dev/stdout delete if=$deletes;
        location / { return 204; }
        location /admin {
            access_log /dev/stdout admin;
            return 204;
        }
    }
}
"""


def start(name: str, folder: Path) -> Process:
    """Start one of SERVERS; the test is skipped where it is not installed."""
    return SERVERS[name](folder)


def _python(*args: str) -> Callable[[Path], Process]:
    def run(folder: Path) -> Process:
        env = clean_env(folder, {"PYTHONPATH": str(REPO)})
        return Process([sys.executable, "-m", *args], env=env, cwd=folder, ready=_READY)

    return run


def _node(folder: Path) -> Process:
    program = need(shutil.which("node"), "Node is not installed")
    return Process([program, "-e", _NODE], env=clean_env(folder), cwd=folder, ready=_READY)


def _nginx(folder: Path) -> Process:
    program = nginx()
    (port,) = free_ports(1)
    (folder / "nginx.conf").write_text(_NGINX.replace("PORT", str(port)))
    process = Process([program, "-p", str(folder), "-c", "nginx.conf"], env=clean_env(folder), cwd=folder, ready=None)
    wait_until_listening(process, port)
    process.port = port
    return process


SERVERS: dict[str, Callable[[Path], Process]] = {
    "http.server": _python(origin_apps.__name__, "http.server"),
    "werkzeug": _python(origin_apps.__name__, "werkzeug"),
    "aiohttp": _python(origin_apps.__name__, "aiohttp"),
    "gunicorn": _python("gunicorn", "--bind=127.0.0.1:0", f"{origin_apps.__name__}:wsgi"),
    "nginx": _nginx,
    "Node": _node,
}
