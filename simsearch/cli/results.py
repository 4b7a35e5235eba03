"""Matches as a command prints them: a table, lines of text, JSON, CSV, TSV, or paths alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from simsearch.cli.frames import SEPARATORS, print_lines
from simsearch.cli.table import (
    BOLD,
    DIM,
    GAP,
    GREEN,
    aligned,
    has_colour,
    painted,
    terminal_width,
    width_of,
)
from simsearch.plain_json import plain
from simsearch.printable import one_line, valid_unicode
from simsearch.retrieval.matches import also, percentile

if TYPE_CHECKING:
    import simsearch as ss

COLUMNS = ("query", "rank", "path", "score", "percentile", "row")
MIN_WIDTH = 20  # of what stands below a path


def print_matches(answers: Sequence[ss.Matches], options: dict[str, Any]) -> None:
    """Print the answers to queries in the form that was asked for.

    Without one it is a table on a terminal, and lines of text in a pipe.
    """
    form = options.get("format") or ("table" if sys.stdout.isatty() else "text")
    if options.get("null") or options.get("paths"):
        _print_paths(answers, "\0" if options.get("null") else "\n")
    elif form in SEPARATORS:
        _print_rows(answers, SEPARATORS[form])
    else:
        for i, matches in enumerate(answers):
            if options.get("pictures") and form != "json":
                from simsearch.cli.pictures import print_pictures

                print_pictures(matches, options["pictures"])
            if form == "table":
                print("\n" * (i > 0) + "\n".join(table_of(matches)))
            else:
                print(matches.to_json() if form == "json" else matches)


def _print_paths(answers: Sequence[ss.Matches], end: str) -> None:
    """Print paths as the file system has them, byte by byte, but escaped on a terminal."""
    paths = [match.path for matches in answers for match in matches]
    if sys.stdout.isatty() and end == "\n":
        print("\n".join(map(one_line, paths)))
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(b"".join(os.fsencode(path) + end.encode() for path in paths))


def _print_rows(answers: Sequence[ss.Matches], separator: str) -> None:
    rows = [row for matches in answers for row in _rows(matches)]
    names = list(dict.fromkeys([*COLUMNS, *(name for row in rows for name in row)]))
    print_lines(names, ([row.get(name, "") for name in names] for row in rows), separator)


def _rows(matches: ss.Matches) -> Iterator[dict[str, Any]]:
    """Yield a row for each match: what is known of it, then its facts."""
    for match, values in zip(matches, matches.to_dict()["matches"], strict=True):
        row = {"query": matches.query} | {name: values[name] for name in COLUMNS[1:]}
        if match.box:
            row |= {"box": " ".join(map(str, match.box)), "label": match.label}
        if match.duplicates:
            row["duplicates"] = " ".join(match.duplicates)
        facts = {k: v for k, v in plain(dict(match.metadata)).items() if k not in row}
        yield row | facts


def table_of(matches: ss.Matches) -> list[str]:
    """Return matches as the lines of a table for the terminal that is there."""
    from simsearch.retrieval.export import box_words

    colour = has_colour()
    how = "" if matches.exact else " (approximate)"
    count = f"{len(matches)} match{'es' * (len(matches) != 1)} for "
    lines = [count + painted(one_line(matches.query), BOLD, on=colour) + how]
    cells = [["#", "score", "of random pairs", "image"]]
    cells += [
        [str(m.rank), f"{m.score:.3f}", percentile(m.percentile), one_line(m.path)] for m in matches
    ]
    notes = [[words for words in (box_words(m), m.caption, also(m)) if words] for m in matches]
    header, *rows = aligned(cells, right=(0, 1, 2))
    lines += [painted(GAP.join(header).rstrip(), DIM, on=colour)] * bool(rows)
    for row, words in zip(rows, notes, strict=True):
        lines += _table_lines(row, [one_line(word) for word in words], colour=colour)
    lines += [painted(valid_unicode(f"note: {note}"), DIM, on=colour) for note in matches.notes]
    return lines


def _table_lines(row: Sequence[str], words: Sequence[str], *, colour: bool) -> list[str]:
    """Return a row, and what else is known of it: beside it, or below where there is no room."""
    rank, score, share, path = row
    start = GAP.join([rank, painted(score, GREEN, on=colour), painted(share, DIM, on=colour)])
    more = GAP.join(words)
    room = terminal_width() - width_of(GAP.join(row)) - len(GAP)
    if width_of(more) <= room:
        return [f"{start}{GAP}{path}{GAP}{more}".rstrip()]
    indent = width_of(GAP.join([rank, score, share, ""]))
    below = wrap(more, max(terminal_width() - indent, MIN_WIDTH))
    lines = [" " * indent + painted(line, DIM, on=colour) for line in below]
    return [f"{start}{GAP}{path}".rstrip(), *lines]
