"""`jwtproxy-run env`: the variables by which programs use a proxy that runs already, for a shell."""

import argparse
import asyncio
import hashlib
import os
from pathlib import Path

from jwtproxy.config.errors import SettingsError

from .. import commandline, environment, running, usage
from ..clients import bundles, variables

_DESCRIPTION = """\
Print what sets the variables by which programs find a running proxy and trust its CA; the same that exec
sets for its command. Without --proxy, it is the proxy that listens on this machine where these settings say.
The files that the variables name are kept in a folder of the user's cache."""
_EXAMPLES = """\
examples:
  eval "$(jwtproxy-run env)"
  jwtproxy-run env --shell fish | source
  jwtproxy-run env --shell powershell | Out-String | Invoke-Expression
  jwtproxy-run env --proxy http://10.0.0.7:8080 --shell dotenv >proxy.env
"""


def run(arguments: list[str]) -> int:
    """Print the variables; the exit status. Raises SettingsError."""
    args, reach = asyncio.run(_settings(arguments))
    folder = _folder(reach.ca)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        files = bundles.write(folder, reach.url, reach.ca, os.environ)
    except OSError as error:
        reason = (error.strerror or "error").lower()
        raise SettingsError(f"cannot write to {str(folder)!r}: {reason}", "name a folder in XDG_CACHE_HOME") from None
    values = variables.variables(reach.url, files, os.environ)
    print(variables.in_shell(args.shell, values.items()), end="")
    return 0


async def _settings(arguments: list[str]) -> tuple[argparse.Namespace, running.Reach]:
    """The flags, and the proxy. Raises SettingsError."""
    with commandline.preview() as master:
        parser = commandline.parser(master.options)
        usage.of_command(parser, "env", "[options]", _DESCRIPTION, _EXAMPLES, (usage.TOKENS, usage.SERVING))
        own = parser.add_argument_group("env", conflict_handler="resolve")
        own.add_argument("--proxy", metavar="URL", help="the proxy (where these settings would listen)")
        own.add_argument("--port", metavar="PORT", help="the port where it listens, as -p (HTTP_PORT, 8080)")
        own.add_argument("--shell", default="bash", choices=variables.SHELLS, help="for which shell, or file (bash)")
        args = commandline.read(parser, arguments)
        commandline.refuse(args, "env", "check", "json")
        if args.proxy:
            return args, running.reach_named(args.proxy)
        commandline.set_options(master.options, args, environment.options(environment.sources(Path())))
        return args, running.reach(running.listening(master.options), pages=running.pages(master.options))


def _folder(ca: str) -> Path:
    """Where the files are kept for those who trust this CA."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "jwtproxy" / hashlib.sha256(ca.encode()).hexdigest()[:16]
