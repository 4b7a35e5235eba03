"""The parser of the command line, with help and examples of each command.

What is not given on the command line is left to the library: defaults stand in the help alone.
"""

from __future__ import annotations

import simsearch as ss
from simsearch.cli.arguments import analysis, dataset, model, search, service
from simsearch.cli.arguments.describe import describe, finish
from simsearch.cli.command_parser import CommandParser


def build_parser() -> CommandParser:
    """Build the parser of all commands; each sets `run`, the function that carries it out."""
    parser = describe(CommandParser, None, str(ss.__doc__).partition("\n")[0])
    parser.add_argument("--version", action="version", version=f"simsearch {ss.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for group in (dataset, search, analysis, model, service):
        for add in group.ADDERS:
            add(commands)
    for name, command in commands.choices.items():
        finish(name, command)
    return parser
