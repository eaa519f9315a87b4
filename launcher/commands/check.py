"""`jwtproxy-run check`: the same as --check."""

from mitmproxy.options import Options

from .. import commandline, usage
from . import serve

_DESCRIPTION = """\
Check all settings as for serving, and serve nothing: a mistake is one line with a hint, and the exit
status is 2. Also while a proxy is running with these settings, as nothing is listened on."""
_EXAMPLES = """\
examples:
  jwtproxy-run check
  jwtproxy-run check --key key.pem --rules rules.yaml && systemctl restart jwtproxy
"""


def run(arguments: list[str]) -> int:
    """Check all settings, and serve nothing; the exit status. Raises SettingsError."""
    if {"-h", "--help"} & {*arguments}:
        parser = commandline.parser(Options())
        usage.of_command(parser, "check", "[options]", _DESCRIPTION, _EXAMPLES, hidden=())
        parser.parse_args(["--help"])
    return serve.run(["--check", *arguments])
