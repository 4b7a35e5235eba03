"""Arguments of what is built on a library: index, evaluate, train."""

from __future__ import annotations

import argparse
from pathlib import Path

from simsearch.cli import commands as run
from simsearch.cli.arguments.describe import FOLDER, Commands, add_format, add_table_flags, describe


def _add_index(commands: Commands) -> None:
    parser = describe(
        commands.add_parser,
        "index",
        "Build a FAISS index for a very large library.",
        run.index,
        FOLDER,
    )
    parser.add_argument("--kind", help="auto, flat, sq, hnsw, ivf, ivfpq or rabitq")
    parser.add_argument("--parts", action="store_true", help="index the parts of the pictures")


def _add_evaluate(commands: Commands) -> None:
    parser = describe(
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
    add_table_flags(parser)
    parser.add_argument("-k", type=int, nargs="+", help="depths of precision and recall")
    parser.add_argument(
        "--sample", type=_number_or_all, metavar="N|all", help="how many queries to ask at most"
    )
    parser.add_argument(
        "--save", type=Path, metavar="FIGURE", help="draw the precision-recall curves to a file"
    )
    add_format(parser)


def _number_or_all(text: str) -> int | str:
    if text != "all" and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number, and not all")
    return text if text == "all" else int(text)


def _add_train(commands: Commands) -> None:
    parser = describe(
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
    parser.add_argument(
        "--unlabelled", metavar="GLOB", help="look at these without labels, to keep unknown classes"
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


ADDERS = (_add_index, _add_evaluate, _add_train)
