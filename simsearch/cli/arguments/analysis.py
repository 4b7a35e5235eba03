"""Arguments of what looks at a whole library: duplicates, albums, check."""

from __future__ import annotations

from pathlib import Path

from simsearch.cli import commands as run
from simsearch.cli.arguments.describe import (
    FOLDER,
    Commands,
    add_format,
    add_root,
    add_table_flags,
    describe,
)


def _add_duplicates(commands: Commands) -> None:
    parser = describe(
        commands.add_parser,
        "duplicates",
        "Find images that are nearly the same; move the copies away, by a plan.",
        run.duplicates,
        FOLDER,
    )
    parser.add_argument(
        "reference",
        metavar="REFERENCE",
        nargs="?",
        help="another library: find what is in it already",
    )
    parser.add_argument("--threshold", type=float, metavar="COSINE", help="lowest cosine of a pair")
    parser.add_argument(
        "--level", help="identical; near: the same picture, edited (default); similar: unconfirmed"
    )
    add_format(parser)
    parser.add_argument("--csv", metavar="FILE", help="write group, path, cosine, level and edit")
    parser.add_argument(
        "--root", metavar="DATASET", help="where the images are; for --apply and --undo needed"
    )
    parser.add_argument("--save", type=Path, metavar="FIGURE", help="draw the groups to a file")
    plan = parser.add_argument_group("clean-up, which deletes nothing")
    plan.add_argument("--plan", metavar="FILE", help="write which copies may go, as CSV or JSON")
    plan.add_argument(
        "--keep",
        nargs="+",
        metavar="RULE",
        help="with --plan: largest (default), oldest, or folders, the most important first",
    )
    plan.add_argument(
        "--protect", nargs="+", metavar="FOLDER", help="with --plan: nothing in these may go"
    )
    act = plan.add_mutually_exclusive_group()
    act.add_argument(
        "--apply", metavar="PLAN", help="move its copies to .simsearch-removed below --root"
    )
    act.add_argument("--undo", action="store_true", help="bring back what --apply moved")
    act.add_argument(
        "--not-duplicates",
        nargs="+",
        metavar="IMAGE",
        help="remember that these are no copies of each other",
    )
    plan.add_argument(
        "--yes", action="store_true", help="with --apply: do not ask, such as in a script"
    )
    plan.add_argument(
        "--to-trash",
        action="store_true",
        help="with --apply: to the system's trash, from where --undo brings nothing back",
    )


def _add_albums(commands: Commands) -> None:
    parser = describe(
        commands.add_parser, "albums", "Group images that are alike.", run.albums, FOLDER
    )
    parser.add_argument("--grain", help="coarse, medium or fine; all, if it is not given")
    parser.add_argument(
        "--labels", metavar="CSV|COLUMN", help="that name albums: lines of path,label; or a column"
    )
    parser.add_argument(
        "--words", nargs="+", help='that name albums; or "classes": the backbone\'s'
    )
    add_table_flags(parser)
    add_format(parser)
    parser.add_argument("--csv", metavar="FILE", help="write grain, album, name, path and typical")
    parser.add_argument(
        *("--save", "--figure"), type=Path, metavar="FIGURE", help="draw the albums to a file"
    )
    add_root(parser)


def _add_check(commands: Commands) -> None:
    parser = describe(
        commands.add_parser,
        "check",
        "Look for all that may be wrong with the images: the health of a dataset.",
        run.check,
        FOLDER,
    )
    parser.add_argument("--labels", metavar="COLUMN", help="of the metadata; else the folders")
    parser.add_argument(
        "--split",
        metavar="COLUMN",
        help="of the metadata, such as train and test; else folders of such names",
    )
    parser.add_argument(
        "--threshold",
        dest="thresholds",
        nargs="+",
        metavar="KIND=NUMBER",
        help="other thresholds, such as blurred=0.35",
    )
    parser.add_argument(
        "--fail-on",
        nargs="+",
        metavar="KIND",
        help="exit with status 3 if any of these is found, such as leak; or any",
    )
    add_format(parser)
    parser.add_argument("--csv", metavar="FILE", help="write all findings; or a folder, by kind")
    parser.add_argument(
        "--figure", type=Path, metavar="FILE", help="draw the worst; a .pdf has a page per kind"
    )
    add_table_flags(parser)
    add_root(parser)
    parser.add_argument("--workers", type=int, metavar="N", help="threads that read images")


ADDERS = (_add_duplicates, _add_albums, _add_check)
