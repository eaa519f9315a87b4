"""What --help and --help-all print: the commands and our flags on one screen, all of mitmdump's on request."""

import argparse
from collections.abc import Sequence

from .commands import COMMANDS

TOKENS = "tokens"
"""The title of the flags about what tokens say, and what signs them."""
SERVING = "serving"
"""The title of the flags about serving."""

DESCRIPTION = "\n".join(
    [
        "A proxy that signs every request with a fresh JSON Web Token in x-my-jwt.",
        "",
        "commands (each has a --help of its own):",
        *(f"  {name:<20}  {what}" for name, what in COMMANDS.items()),
    ]
)

EXAMPLES = """\
examples:
  (umask 077; openssl rand -hex 64 >secret)        make a key that only you can read
  JWT_SHARED_SECRET_FILE=secret jwtproxy-run       serve on http://127.0.0.1:8080
  jwtproxy-run exec --key secret -- curl http://…  run a program, whose requests go through it
  jwtproxy-run --key secret --port 9090 --user ci  another port and user; same as:
  JWT_KEY_FILE=secret HTTP_PORT=9090 jwtproxy-run --set jwt_user=ci
"""

_MORE = """\

  jwtproxy-run --mode reverse:https://api.example  stand in front of one server
  jwtproxy-run -s mine.py -w flows                 everything mitmdump can do
  jwtproxy-run help keys                           the manual, a topic of it; without a topic, the list of them
  jwtproxy-run check                               check all settings, serve nothing
  jwtproxy-run explain GET https://api.example/    what would happen to a request, and its token
  jwtproxy-run keys new --alg ES256 --out key.pem  make a private key; also: keys list, keys jwks
  jwtproxy-run ca                                  the certificate that clients need; also: ca trust, ca untrust
  jwtproxy-run --key key.pem                       sign with it; public keys are at /.well-known/jwks.json

environment (also read from .env in this directory; flags and --set win):
  JWT_SHARED_SECRET        the key, in hexadecimal, at least 64 bytes for HS512
  JWT_SHARED_SECRET_FILE   a file that holds it
  JWT_KEY_FILE             or a file with a private key: PEM, JWK or JWKS
  JWT_KEY_DIR              or a folder of them, for rotation
  JWT_KEY_PASSPHRASE       the passphrase of an encrypted key; or JWT_KEY_PASSPHRASE_FILE
  JWT_…                    every option jwt_…, in capitals; jwtproxy-run --options shows them
  JWT_STRICT_ENV           1 has each variable that looks like ours, and is none, be an error
  HTTP_PORT, HTTP_HOST     where to listen: 8080, 127.0.0.1; HTTP_HOST=* is every address
  WORKERS                  how many processes serve: 1, a number, or auto (one for each core)
"""


class _Help(argparse.Action):
    """--help without some groups of flags, or --help-all with more at its end."""

    def __init__(
        self,
        option_strings: Sequence[str],
        dest: str,
        hidden: Sequence[argparse._ArgumentGroup] = (),
        more: str = "",
        help: str | None = None,  # noqa: A002  # argparse's name
    ) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, help=help)
        self.hidden, self._more = hidden, more

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        parser._action_groups = [group for group in parser._action_groups if group not in self.hidden]
        parser.epilog = f"{(parser.epilog or 'examples:').rstrip()}{self._more}" if self._more else parser.epilog
        print(parser.format_help(), end="")  # argparse itself passes over what cannot be written
        parser.exit()


def add_help(parser: argparse.ArgumentParser, theirs: Sequence[argparse._ArgumentGroup]) -> None:
    """Put our --help in the place of argparse's. theirs: mitmdump's flags."""
    parser.prog = "jwtproxy-run"
    parser.usage = "%(prog)s [COMMAND] [options]"
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    more = parser.add_argument_group("more", conflict_handler="resolve")
    more.add_argument("-h", "--help", action=_Help, hidden=theirs, help="show this")
    more.add_argument(
        "--help-all", action=_Help, more=_MORE, help="with mitmdump's flags (--set, --mode, …) and variables"
    )
    more.add_argument("--options", action="store_true", help="list all options, with their defaults")
    more.add_argument("--version", action="store_true", help="print the versions, as the command does")


def of_command(
    parser: argparse.ArgumentParser,
    command: str,
    usage: str,
    description: str,
    examples: str = "",
    hidden: Sequence[str] = (SERVING,),
) -> None:
    """Have --help be about a command. hidden: the titles of our flags that mean nothing to it."""
    parser.prog = f"jwtproxy-run {command}"
    parser.usage = f"%(prog)s {usage}"
    parser.description, parser.epilog = description, examples
    for action in parser._actions:  # argparse tells of them in no other way
        if isinstance(action, _Help) and action.hidden:
            action.hidden = [*action.hidden, *(group for group in parser._action_groups if group.title in hidden)]
