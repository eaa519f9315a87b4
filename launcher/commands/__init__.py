"""What jwtproxy-run can be told to do: a module for each, with `run(arguments) -> exit status`."""

COMMANDS = ("explain", "help", "keys")
"""The words that may stand first; without one, serve is meant."""
