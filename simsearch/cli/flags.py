"""Flags of a search, derived from the classes that define its options."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import Field, fields
from typing import Any

import simsearch as ss
from simsearch.cli.wording import in_commands
from simsearch.retrieval.options import NEAR_DUPLICATE, RankingOptions, option_docs

NUMBER = {"type": float, "metavar": "X"}


def read_threshold(text: str) -> float | str:
    """Read a cosine; whether anything else will do is for the library to say."""
    try:
        return float(text)
    except ValueError:
        return text


def read_thresholds(texts: Sequence[str]) -> dict[str, float]:
    """Read KIND=NUMBER, as in ["blurred=0.35"].

    Raises
    ------
    QueryError
        If a text has another form.
    """
    limits = {}
    for text in texts:
        kind, _, number = text.partition("=")
        try:
            limits[kind] = float(number)
        except ValueError as error:
            raise ss.QueryError(f"--threshold {text}: give KIND=NUMBER") from error
    return limits


# How a flag is parsed, by the type that its option is annotated with.
PARSED_AS: dict[str, dict[str, Any]] = {
    "int": {"type": int, "metavar": "N"},
    "float": NUMBER,
    "bool": {"action": "store_true"},
    "bool | float": {**NUMBER, "nargs": "?", "const": True, "metavar": "COSINE"},
    "str | None": {},
    "float | None": NUMBER,
    "Threshold": {"type": read_threshold, "metavar": "COSINE"},
    "Rows": {"nargs": "+", "metavar": "CONDITION"},
    "Box | None": {**NUMBER, "nargs": 4, "metavar": ("LEFT", "TOP", "RIGHT", "BOTTOM")},
    "Sequence[float] | None": {**NUMBER, "nargs": "+", "metavar": "W"},
    "Index | None": {"action": "store_true"},
}

# Where the command line takes an option in another form than Python, its help says so.
HELP = {
    "threshold": "leave out matches whose cosine is lower; auto takes the library's own",
    "unique": f"fold near-duplicates, from this cosine up ({NEAR_DUPLICATE}), into the best match",
    "exclude_query": "let an image of the library find itself",
    "where": "a glob such as 'shoes/*', or COLUMN=VALUE, COLUMN=LOW..HIGH",
    "index": "search through the stored index",
}


def add_option_flags(parser: argparse.ArgumentParser, options: type[RankingOptions]) -> None:
    """Add a flag for each option of a search."""
    docs = option_docs(options)
    flags = {field.name: _names(field)[0] for field in fields(options)}
    for field in fields(options):
        text = HELP.get(field.name) or _as_help(docs[field.name][1], flags.get)
        parser.add_argument(*_names(field), help=text, **_parsed_as(field))


def _as_help(text: str, flag_of: Callable[[str], str | None]) -> str:
    """Put the documentation of an option in the words of the command line, without its marks."""
    bare = re.sub(r" \[\d+\]_|`", "", text).removesuffix(".")
    typed = re.sub(r'[`"]', "", in_commands(bare, flag_of))
    return typed[0].lower() + typed[1:]


def _names(field: Field[Any]) -> list[str]:
    """Return the flag of an option; one that is on by default has a flag that turns it off."""
    flag = field.name.replace("_", "-")
    if field.default is True:
        opposite = flag.replace("exclude-", "include-")
        return [f"--{opposite if opposite != flag else f'no-{flag}'}"]
    return [f"-{flag}"] if len(flag) == 1 else [f"--{flag}"]


def _parsed_as(field: Field[Any]) -> dict[str, Any]:
    if field.default is True:
        return {"dest": field.name, "action": "store_false"}
    kind = str(field.type)
    if choices := re.findall(r"'([\w-]+)'|\"([\w-]+)\"", kind):
        return {"choices": [a or b for a, b in choices]}
    return PARSED_AS[kind]


def read_options(options: dict[str, Any], outputs: str) -> dict[str, Any]:
    """Convert flags to the options that `search` takes."""
    if "where" in options:
        options["where"] = read_conditions(options["where"])
    if options.pop("index", False):
        options["index"] = ss.load_index(outputs, parts=bool(options.get("parts")))
    return options


def take_table_options(options: dict[str, Any]) -> dict[str, Any]:
    """Take the flags of a table out of others, as the options that `attach` takes.

    Raises
    ------
    QueryError
        If there is a flag and no table, or a flag has more than one value for all columns.
    """
    names = ("decimal", "dates", "missing")
    found: dict[str, Any] = {name: options.pop(name) for name in names if name in options}
    if found and not options.get("metadata"):
        raise ss.QueryError(f"--{next(iter(found))} belongs to a table: give --metadata, too")
    for name in ("decimal", "dates"):
        if name in found:
            found[name] = _by_column(name, found[name])
    return found


def _by_column(name: str, texts: Sequence[str]) -> str | dict[str, str]:
    """Read one value, or values as COLUMN=VALUE."""
    if len(texts) == 1 and "=" not in texts[0]:
        return texts[0]
    if bare := [text for text in texts if "=" not in text]:
        raise ss.QueryError(f"--{name} {bare[0]}: with several, each is COLUMN={bare[0]}")
    return {column: value for column, _, value in (text.rpartition("=") for text in texts)}


def read_conditions(texts: Sequence[str]) -> dict[str, object]:
    """Read globs, COLUMN=VALUE and COLUMN=LOW..HIGH; several of one column are alternatives.

    Raises
    ------
    QueryError
        If a comparison is written with another sign.
    """
    found: dict[str, list[object]] = {}
    for text in texts:
        name, given, value = text.partition("=")
        if not given and (sign := re.match(r"([\w .-]*\w) *[<>] *[\w.-]+$", text)):
            raise ss.QueryError(
                f"--where {text!r}: a range is {sign[1]}=LOW..HIGH, without LOW or HIGH where it "
                f"is open; a glob with such a sign is path={text}"
            )
        low, ranged, high = value.partition("..")
        condition = (low or None, high or None) if ranged else value
        found.setdefault(name if given else "path", []).append(condition if given else text)
    return {name: each[0] if len(each) == 1 else each for name, each in found.items()}
