"""`jwtproxy-run token [METHOD] URL`: the token that a request would get, alone, for scripts. Nothing is sent."""

import asyncio

from jwtproxy.conduct.verdict import Forward
from jwtproxy.config.errors import SettingsError

from .. import asked, commandline, usage

_DESCRIPTION = """\
Make the token that a request to URL would get (METHOD is GET if not given), and print it alone.
Settings are read as for serving; nothing is sent. Who reads the token can use it until it expires."""
_EXAMPLES = """\
examples:
  jwtproxy-run token https://api.example/v1/things
  curl -H "x-my-jwt: $(jwtproxy-run token --ttl 60 POST https://api.example/)" -d … https://api.example/
"""


def run(arguments: list[str]) -> int:
    """Print the token; the exit status. Raises SettingsError where there is none."""
    print(asyncio.run(_token(arguments)))
    return 0


async def _token(arguments: list[str]) -> str:
    """The compact token. Raises SettingsError."""
    with commandline.preview() as master:
        parser = asked.parser(master.options)
        usage.of_command(parser, "token", "[options] [METHOD] URL", _DESCRIPTION, _EXAMPLES)
        args, words = asked.read(parser, arguments)
        commandline.refuse(args, "token", "check", "json")
        if not 1 <= len(words) <= 2:
            hint = "jwtproxy-run token https://api.example/"
            raise SettingsError(f"token needs a URL, with or without a method, not {' '.join(words)!r}", hint)
        method, url = ["GET", *words][-2:]
        _, verdict = asked.decided(master, args, method, url, user="")
    hint = f"jwtproxy-run explain {method} {url} tells more"
    if not isinstance(verdict, Forward):
        raise SettingsError(f"no token: this request is refused with {verdict.status}, {verdict.text}", hint)
    if not verdict.header:
        raise SettingsError(f"no token: rule {verdict.rule!r} has this request pass without one", hint)
    return verdict.fields[-1][1].decode()
