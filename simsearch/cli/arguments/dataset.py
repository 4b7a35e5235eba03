"""Arguments of what makes a library and looks after it: embed, info, trust, export, sample."""

from __future__ import annotations

import argparse

from simsearch.cli import commands as run
from simsearch.cli.arguments.describe import (
    FOLDER,
    Commands,
    add_root,
    add_table_flags,
    describe,
)


def _add_embed(commands: Commands) -> None:
    parser = describe(commands.add_parser, "embed", "Embed the images below a folder.", run.embed)
    _add_embed_flags(parser)


def _add_watch(commands: Commands) -> None:
    text = "Embed the images below a folder, and again whenever they change; removes no picture."
    _add_embed_flags(describe(commands.add_parser, "watch", text, run.watch))


def _add_embed_flags(parser: argparse.ArgumentParser) -> None:
    """Add what `embed_dataset` takes."""
    parser.add_argument("root", metavar="DATASET", help="folder of images, or its address")
    parser.add_argument("outputs", metavar="OUTPUTS", help="folder for the library")
    parser.add_argument(
        "--backbone", help="auto, scenes, products, copies, timm:NAME, clip:NAME:TAG"
    )
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
    parser.add_argument(
        "--long",
        choices=["centre", "windows"],
        help="pictures beyond 2:1: windows along all of them (of a new library) or the centre",
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


def _add_info(commands: Commands) -> None:
    describe(commands.add_parser, "info", "Say what a library holds.", run.info, FOLDER)


def _add_trust(commands: Commands) -> None:
    describe(
        commands.add_parser,
        "trust",
        "Make a library of an earlier version or another machine count as yours.",
        run.trust,
        FOLDER,
    )


def _add_verify(commands: Commands) -> None:
    text = "Check every file of a library, block by block; 1 if one is damaged."
    describe(commands.add_parser, "verify", text, run.verify, FOLDER)


def _add_sample(commands: Commands) -> None:
    parser = describe(commands.add_parser, "sample", "Make the sample dataset.", run.sample)
    parser.add_argument("folder", metavar="DATASET", help="folder to make")


def _add_export(commands: Commands) -> None:
    text = "Write a library for other programs: one Parquet file, or a dataset of FiftyOne."
    parser = describe(commands.add_parser, "export", text, run.export)
    parser.add_argument("outputs", metavar="OUTPUTS", help="folder of the library")
    parser.add_argument("file", metavar="FILE", help="Parquet file to write, or new folder")
    parser.add_argument("--kind", choices=["parquet", "fiftyone"], help="what to write")
    add_table_flags(parser)
    add_root(parser)


def _add_import(commands: Commands) -> None:
    text = "Make a library of a Parquet file, or of an array that others made."
    parser = describe(commands.add_parser, "import", text, run.import_rows)
    parser.add_argument("file", metavar="FILE", help="Parquet, or .npy")
    parser.add_argument("outputs", metavar="OUTPUTS", help="folder for the library")
    parser.add_argument("--paths", metavar="TABLE", help="CSV or Parquet with the paths of an .npy")
    parser.add_argument("--root", metavar="DATASET", help="folder below which the images are")
    parser.add_argument("--backbone", help="what made embeddings of a file that does not say it")
    parser.add_argument("--csv", metavar="FILE", help="write the other columns, for --metadata")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the library that is there"
    )


_LOOKED_AFTER = (_add_info, _add_verify, _add_trust)
ADDERS = (_add_embed, _add_watch, *_LOOKED_AFTER, _add_export, _add_import, _add_sample)
