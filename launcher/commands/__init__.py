"""What jwtproxy-run can be told to do: a module for each, with `run(arguments) -> exit status`."""

COMMANDS = {
    "serve": "sign what passes: what it does without a command, too",
    "exec": "run a command whose requests are all signed",
    "env": "the variables by which programs use a running proxy",
    "explain": "what would happen to a request, and its token",
    "token": "make a token for a URL, and print it alone",
    "check": "check all settings, serve nothing",
    "keys": "make signing keys, list them, print the public ones",
    "ca": "the certificate that clients need for HTTPS; ca trust, ca untrust",
    "status": "how a running proxy is doing",
    "help": "the manual: a topic of it, or the list of topics",
    "version": "the versions of jwtproxy and of what it runs on",
}
"""The words that may stand first, and what each is for; without one, serve is meant."""
