"""Defaults that the help shows: those of the library, which the tests compare with these."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from simsearch.retrieval.options import SearchOptions

if TYPE_CHECKING:
    from simsearch.cli.command_parser import CommandParser

# By command and option: the value in the library, or words in parentheses where that is None.
DEFAULTS: dict[str, dict[str, Any]] = {
    "embed": {
        "backbone": "auto",
        "batch_size": "(chosen for this machine)",
        "workers": "(chosen for this machine)",
        "engine": "local",
        "device": "(the best there is)",
        "precision": "auto",
        "weights": "(the published ones)",
        "parts": "(none, or those that the library has)",
    },
    "recommend": {"dislike": 0.25},
    "duplicates": {
        "level": "near",
        "threshold": "(by the level)",
        "keep": "largest",
        "root": "(as the library has it)",
    },
    "albums": {"grain": "(all)", "labels": "folder"},
    "check": {
        "labels": "folder",
        "split": "(folders of such names)",
        "workers": "(chosen for this machine)",
    },
    "index": {"kind": "auto"},
    "evaluate": {
        "labels": "folder",
        "k": (1, 5, 10),
        "queries": "(all)",
        "gallery": "(all)",
        "sample": 10_000,
    },
    "train": {
        "labels": "folder",
        "on": "(all)",
        "out": "(OUTPUTS_head)",
        "loss": "triplet",
        "dim": 256,
        "keep": 0.3,
        "epochs": "(25; with --finetune 8)",
        "batch_size": 96,
        "stage": "(the last quarter of the parameters)",
        "seed": 0,
    },
    "serve": {"host": "127.0.0.1", "port": 8000, "token": "(made anew at each start)"},
    "publish": {"kind": "hnsw"},
    "export": {"kind": "parquet", "root": "(as the library has it)"},
    "import": {"root": "(as the file has it)", "backbone": "(as the file has it)"},
}
SEARCHING = {each.name: each.default for each in fields(SearchOptions)}


def add_defaults(command: str, parser: CommandParser) -> None:
    """Add to the help of each option what holds where it is not given."""
    known = DEFAULTS.get("embed" if command == "watch" else command, {})
    if command in {"search", "recommend"}:
        known = {**SEARCHING, "root": DEFAULTS["duplicates"]["root"], **known}
    for name, value in known.items():
        if text := _in_words(value):
            parser.add_to_help(name, f"default: {text}")


def _in_words(value: Any) -> str:  # noqa: ANN401
    if value is None or value is False:
        return ""
    if isinstance(value, (tuple, list)):
        return " ".join(map(str, value))
    return str(value).removeprefix("(").removesuffix(")")
