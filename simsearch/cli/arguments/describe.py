"""What the arguments of several commands share: description, library, table, root."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeAlias

from simsearch.cli.command_parser import CommandParser
from simsearch.cli.defaults import add_defaults
from simsearch.cli.examples import EXAMPLES
from simsearch.cli.frames import FORMS

FOLDER = "folder of the library; if left out, $SIMSEARCH_LIBRARY or outputs/ here"
LIBRARY = f"{FOLDER}; or URI#COLLECTION"
MOVED = "where the images are, if they moved"

Commands: TypeAlias = "argparse._SubParsersAction[CommandParser]"


def describe(
    make: Callable[..., CommandParser],
    name: str | None,
    description: str,
    run: Callable[..., int | None] | None = None,
    outputs: str | None = None,
) -> CommandParser:
    """Make a parser with help and examples; flags that are not given set nothing.

    `outputs` is the help of the first argument, if that is a library that may be left out.
    """
    parser = make(
        *([name] if name else []),
        description=description,
        epilog=EXAMPLES[name],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        **({"help": description} if name else {"prog": "simsearch"}),
    )
    if run:
        parser.set_defaults(run=run)
    if outputs:
        parser.add_argument("outputs", metavar="OUTPUTS", nargs="?", help=outputs)
        parser.add_argument("--library", metavar="OUTPUTS", help="the same, wherever it stands")
    return parser


def finish(name: str, parser: CommandParser) -> None:
    """Add what every command has."""
    parser.add_argument(*("-q", "--quiet"), action="store_true", help="no progress, and no summary")
    parser.set_defaults(parser=parser)
    add_defaults(name, parser)


def add_table_flags(parser: argparse.ArgumentParser) -> None:
    """Add the table of facts, and how its text is read where it does not prove that itself."""
    parser.add_argument("--metadata", metavar="CSV", help="a table with a path column")
    parser.add_argument(
        "--decimal", nargs="+", metavar="SIGN", help=", or . in its numbers; or COLUMN=SIGN"
    )
    parser.add_argument(
        "--dates",
        nargs="+",
        metavar="FORMAT",
        help="of dates, as %%d/%%m/%%Y; or COLUMN=FORMAT",
    )
    parser.add_argument("--missing", nargs="+", metavar="TEXT", help="cells that count as empty")


def add_format(parser: argparse.ArgumentParser) -> None:
    """Add the form in which what was found is printed."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--format", choices=FORMS, help="text (default); json, csv or tsv for other programs"
    )
    group.add_argument(
        "--json",
        dest="format",
        action="store_const",
        const="json",
        help="the same as --format json",
    )


def add_root(parser: argparse.ArgumentParser) -> None:
    """Add the place of the dataset."""
    parser.add_argument("--root", metavar="DATASET", help=MOVED)
