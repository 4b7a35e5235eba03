"""Arguments of what finds images: search, recommend."""

from __future__ import annotations

import argparse
from pathlib import Path

from simsearch.cli import commands as run
from simsearch.cli.arguments.describe import LIBRARY, Commands, add_root, add_table_flags, describe
from simsearch.cli.flags import add_option_flags
from simsearch.retrieval.options import RankingOptions, SearchOptions

FORMATS = ("table", "text", "json", "csv", "tsv")
QUERIES = (
    "path, URL, row number, or name below the dataset; a folder for all its images; "
    "- for a picture on standard input"
)


def _add_search(commands: Commands) -> None:
    parser = describe(
        commands.add_parser, "search", "Find the most similar images.", run.search, LIBRARY
    )
    parser.add_argument("queries", metavar="QUERY", nargs="*", help=QUERIES)
    parser.add_argument(
        "--text", action="append", metavar="WORDS", help="what the pictures show; may be repeated"
    )
    _add_result_flags(parser, SearchOptions)


def _add_recommend(commands: Commands) -> None:
    parser = describe(
        commands.add_parser, "recommend", "Find what somebody may like.", run.recommend, LIBRARY
    )
    parser.add_argument("--liked", nargs="+", required=True, metavar="IMAGE")
    parser.add_argument("--disliked", nargs="+", metavar="IMAGE")
    parser.add_argument("--exclude", nargs="+", metavar="IMAGE", help="not to be recommended")
    parser.add_argument("--dislike", type=float, metavar="WEIGHT", help="of the disliked")
    _add_result_flags(parser, RankingOptions)


def _add_result_flags(parser: argparse.ArgumentParser, options: type[RankingOptions]) -> None:
    """Add the options of a search, and what is done with its matches."""
    add_option_flags(parser, options)
    add_table_flags(parser)
    add_root(parser)
    parser.add_argument("--save", type=Path, metavar="FIGURE", help="draw the matches to a file")
    parser.add_argument(
        "--explain", action="store_true", help="with --save, show what carries each likeness"
    )
    _add_output_flags(parser)


def _add_output_flags(parser: argparse.ArgumentParser) -> None:
    """Add the forms in which matches are printed."""
    group = parser.add_argument_group("what is printed").add_mutually_exclusive_group()
    group.add_argument(
        "--format",
        choices=FORMATS,
        help="table (default on a terminal), text (default in a pipe), json, csv or tsv",
    )
    group.add_argument(
        *("--json",),
        dest="format",
        action="store_const",
        const="json",
        help="print one JSON object per query",
    )
    group.add_argument("--paths", action="store_true", help="the paths alone, one in a line")
    group.add_argument(
        *("-0", "--null"), action="store_true", help="the same, each ended by a null: xargs -0"
    )
    parser.add_argument(
        "--pictures",
        nargs="?",
        const="auto",
        choices=["auto", "kitty", "iterm", "sixel", "blocks"],
        help="show the pictures in the terminal, by what it can do or by this protocol",
    )
    parser.add_argument("--open", action="store_true", help="show the figure in a window")


ADDERS = (_add_search, _add_recommend)
