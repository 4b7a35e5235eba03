"""The parser of the command line, with help and examples of each command.

No default stands here: what is not given on the command line is left to the library.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import simsearch as ss
from simsearch.cli import commands as run
from simsearch.cli.examples import EXAMPLES
from simsearch.cli.flags import add_option_flags
from simsearch.retrieval.options import RankingOptions, SearchOptions

FOLDER = "folder of the library"
LIBRARY = f"{FOLDER}, or URI#COLLECTION"

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands; each sets `run`, the function that carries it out."""
    parser = _describe(argparse.ArgumentParser, None, str(ss.__doc__).partition("\n")[0])
    parser.add_argument("--version", action="version", version=f"simsearch {ss.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (
        _add_embed,
        _add_search,
        _add_recommend,
        _add_duplicates,
        _add_albums,
        _add_check,
        _add_index,
        _add_evaluate,
        _add_train,
        _add_serve,
        _add_publish,
        _add_info,
        _add_trust,
        _add_verify,
        _add_sample,
    ):
        add(commands)
    return parser


def _describe(
    make: Callable[..., argparse.ArgumentParser],
    name: str | None,
    description: str,
    run: Callable[..., int | None] | None = None,
    outputs: str | None = None,
) -> argparse.ArgumentParser:
    """Make a parser with help and examples; flags that are not given set nothing.

    `outputs` is the help of the first argument, if that is the library.
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
        parser.add_argument("outputs", metavar="OUTPUTS", help=outputs)
    return parser


def _add_embed(commands: Commands) -> None:
    parser = _describe(commands.add_parser, "embed", "Embed the images below a folder.", run.embed)
    parser.add_argument("root", metavar="DATASET", help="folder of images, or its address")
    parser.add_argument("outputs", metavar="OUTPUTS", help="folder for the library")
    parser.add_argument("--backbone", help="auto, resnet50, efficientnet_lite0, timm:NAME, ...")
    parser.add_argument("--weights", metavar="FILE", help="local state dict for the backbone")
    parser.add_argument("--batch-size", type=int, metavar="N", help="images per forward pass")
    parser.add_argument("--workers", type=int, metavar="N", help="threads or processes")
    parser.add_argument("--engine", help="local, or ray for a cluster")
    parser.add_argument("--device", help="cpu, cuda or mps")
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16", "float16", "int8"])
    parser.add_argument(
        "--allow-shrink", action="store_true", help="drop rows even if most of the files are gone"
    )
    parser.add_argument("--strict", action="store_true", help="stop at an unreadable image")
    parser.add_argument(
        "--parts", metavar="KIND|CSV", help="parts, too: grid, regions, or a table of boxes"
    )
    for flag, text in (
        ("--exclude", "leave out files and folders, such as drafts or '*.gif'; may be repeated"),
        ("--include", "these files alone; or bring back what is left out by default, as @eaDir"),
    ):
        parser.add_argument(flag, action="append", metavar="GLOB", help=text)
    parser.add_argument(
        "--follow",
        action="append",
        metavar="FOLDER",
        help="elsewhere, that links in the dataset may lead to; may be repeated",
    )


def _add_search(commands: Commands) -> None:
    parser = _describe(
        commands.add_parser, "search", "Find the most similar images.", run.search, LIBRARY
    )
    parser.add_argument("queries", metavar="QUERY", nargs="*", help="path, URL or row number")
    parser.add_argument(
        "--text", action="append", metavar="WORDS", help="what the pictures show; may be repeated"
    )
    _add_result_flags(parser, SearchOptions)


def _add_recommend(commands: Commands) -> None:
    parser = _describe(
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
    _add_table_flags(parser)
    parser.add_argument("--root", metavar="DATASET", help="where the images are, if they moved")
    parser.add_argument("--save", type=Path, metavar="FIGURE", help="draw the matches to a file")
    parser.add_argument(
        "--explain", action="store_true", help="with --save, show what carries each likeness"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per query")


def _add_table_flags(parser: argparse.ArgumentParser) -> None:
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


def _add_duplicates(commands: Commands) -> None:
    parser = _describe(
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
    parser = _describe(
        commands.add_parser, "albums", "Group images that are alike.", run.albums, FOLDER
    )
    parser.add_argument("--grain", help="coarse, medium or fine; all, if it is not given")
    parser.add_argument(
        "--labels", metavar="CSV|COLUMN", help="that name albums: lines of path,label; or a column"
    )
    parser.add_argument(
        "--words", nargs="+", help='that name albums; or "classes": the backbone\'s'
    )
    _add_table_flags(parser)
    parser.add_argument("--csv", metavar="FILE", help="write grain, album, name, path and typical")
    parser.add_argument(
        *("--save", "--figure"), type=Path, metavar="FIGURE", help="draw the albums to a file"
    )
    parser.add_argument("--root", metavar="DATASET", help="where the images are, if they moved")


def _add_check(commands: Commands) -> None:
    parser = _describe(
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
    parser.add_argument("--csv", metavar="FILE", help="write all findings; or a folder, by kind")
    parser.add_argument(
        "--figure", type=Path, metavar="FILE", help="draw the worst; a .pdf has a page per kind"
    )
    _add_table_flags(parser)
    parser.add_argument("--root", metavar="DATASET", help="where the images are, if they moved")
    parser.add_argument("--workers", type=int, metavar="N", help="threads that read images")


def _add_index(commands: Commands) -> None:
    parser = _describe(
        commands.add_parser,
        "index",
        "Build a FAISS index for a very large library.",
        run.index,
        FOLDER,
    )
    parser.add_argument("--kind", help="auto, flat, sq, hnsw, ivf, ivfpq or rabitq")
    parser.add_argument("--parts", action="store_true", help="index the parts of the pictures")


def _add_evaluate(commands: Commands) -> None:
    parser = _describe(
        commands.add_parser,
        "evaluate",
        "Measure how well images find their class.",
        run.evaluate,
        FOLDER,
    )
    for name in ("queries", "gallery"):
        parser.add_argument(f"--{name}", metavar="GLOB", help="such as 'seg_test/*'; * crosses /")
    parser.add_argument(
        "--labels", metavar="CSV|COLUMN", help="lines of path,label; or a column of the metadata"
    )
    _add_table_flags(parser)
    parser.add_argument("-k", type=int, nargs="+", help="depths of precision and recall")
    parser.add_argument(
        "--save", type=Path, metavar="FIGURE", help="draw the precision-recall curves to a file"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _add_train(commands: Commands) -> None:
    parser = _describe(
        commands.add_parser, "train", "Train a head on labelled images.", run.train, FOLDER
    )
    parser.add_argument("--out", metavar="FOLDER", help="where to save; by default OUTPUTS_head")
    parser.add_argument("--labels", metavar="CSV", help="lines of path,label; else the folders")
    parser.add_argument("--on", metavar="GLOB", help="train on these alone, such as 'seg_train/*'")
    parser.add_argument(
        "--leave-out",
        nargs="+",
        metavar="CLASS",
        help="classes held out, as unknown",
    )
    parser.add_argument("--loss", help="triplet, contrastive, multi-similarity, arcface, supcon")
    parser.add_argument("--dim", type=int, help="width of the new embeddings")
    parser.add_argument("--keep", type=float, help="share of the backbone's own cosine")
    parser.add_argument("--epochs", type=int, help="passes over the images, at most")
    parser.add_argument("--batch-size", type=int, metavar="N", help="images per batch")
    parser.add_argument("--finetune", action="store_true", help="the backbone's last stage, too")
    parser.add_argument(
        "--stage", nargs="+", metavar="MODULE", help="other modules than that stage"
    )
    parser.add_argument(
        "--checkpoint",
        metavar="FOLDER",
        help="where a stopped fine-tuning is resumed",
    )
    parser.add_argument("--seed", type=int, help="of all random numbers")


def _add_serve(commands: Commands) -> None:
    parser = _describe(
        commands.add_parser,
        "serve",
        "Serve a web page and a REST API to search with.",
        run.serve,
        LIBRARY,
    )
    parser.add_argument("--host", help="address to listen on; other machines need the token")
    parser.add_argument("--port", type=int, help="0 for any that is free")
    parser.add_argument(
        "--token",
        default=os.environ.get("SIMSEARCH_TOKEN") or argparse.SUPPRESS,
        help="token that clients have to send; safer given as SIMSEARCH_TOKEN, which no list "
        "of processes shows",
    )
    parser.add_argument("--root", metavar="DATASET", help="where the images are, if they moved")
    _add_table_flags(parser)
    parser.add_argument("--index", action="store_true", help="search through the stored index")
    parser.add_argument("--urls", action="store_true", help="accept public URLs as queries")
    parser.add_argument(
        "--trusted-proxy",
        action="append",
        dest="trusted_proxies",
        metavar="ADDRESS",
        help="proxy, or network of proxies, whose word on a client's address is taken",
    )


def _add_publish(commands: Commands) -> None:
    parser = _describe(
        commands.add_parser,
        "publish",
        "Put a library on Milvus, or what has changed.",
        run.publish,
        FOLDER,
    )
    parser.add_argument("uri", metavar="URI", help="Milvus Lite file, or http(s)://host:port")
    parser.add_argument("collection", metavar="COLLECTION", help="name for it there")
    _add_table_flags(parser)
    parser.add_argument("--root", metavar="DATASET", help="where the images are, if they moved")
    parser.add_argument(
        "--kind", choices=["hnsw", "hnsw_sq8", "ivf", "flat"], help="the engine's index"
    )
    parser.add_argument("--replace", action="store_true", help="replace what another backbone made")


def _add_info(commands: Commands) -> None:
    _describe(commands.add_parser, "info", "Say what a library holds.", run.info, FOLDER)


def _add_trust(commands: Commands) -> None:
    _describe(
        commands.add_parser,
        "trust",
        "Make a library of an earlier version or another machine count as yours.",
        run.trust,
        FOLDER,
    )


def _add_verify(commands: Commands) -> None:
    text = "Check every file of a library, block by block; 1 if one is damaged."
    _describe(commands.add_parser, "verify", text, run.verify, FOLDER)


def _add_sample(commands: Commands) -> None:
    parser = _describe(commands.add_parser, "sample", "Make the sample dataset.", run.sample)
    parser.add_argument("folder", metavar="DATASET", help="folder to make")
