"""What --options and --commands print: all that mitmdump's do, with the defaults that hold here, and no key needed."""

import sys

from mitmproxy import optmanager

from jwtproxy.config.options import declare

from . import environment
from .commandline import DEFAULTS
from .master import Master
from .option_checks import as_settings_errors


def print_options(master: Master) -> None:
    """Print every option with its default, whatever the environment says; those of scripts, too.

    Raises SettingsError.
    """
    load_scripts(master)
    listed, ours = optmanager.OptManager(), {**DEFAULTS, "listen_port": 8080}
    for name, option in master.options.items():
        listed.add_option(name, option.typespec, ours.get(name, option.default), option.help, option.choices)
    declare(listed, environment.OPTIONS, {})
    optmanager.dump_defaults(listed, sys.stdout)


def load_scripts(master: Master) -> None:
    """Have scripts declare their options, which mitmproxy leaves until it runs. Raises SettingsError."""
    for script in master.addons.get("scriptloader").addons:
        if script.ns is None:
            with as_settings_errors():  # what is given for an option is looked at when there is one
                script.loadscript()


def print_commands(master: Master) -> None:
    """Print mitmproxy's commands, which are for its scripts."""
    master.commands.dump(sys.stdout)  # its default is what that was once
