"""What commands find, as a text, or as the rows of its pandas frame: JSON, CSV, TSV."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from simsearch.cli.output import say
from simsearch.printable import valid_unicode

if TYPE_CHECKING:
    import pandas as pd

FORMS = ("text", "json", "csv", "tsv")
SEPARATORS = {"csv": ",", "tsv": "\t"}


def print_found(found: object, form: str, make_frame: Callable[[], pd.DataFrame]) -> None:
    """Print what a command found in one of `FORMS`.

    JSON is what `found.to_json` gives, or else one object for each row of the frame.
    """
    if form == "text":
        say(found)
        return
    if form == "json" and hasattr(found, "to_json"):
        print(found.to_json())
        return
    frame = make_frame()
    if any(frame.index.names):
        frame = frame.reset_index()
    names, rows = [*map(str, frame.columns)], frame.itertuples(index=False, name=None)
    if form == "json":
        from simsearch.plain_json import dumps

        records = [dict(zip(names, map(readable, row), strict=True)) for row in rows]
        print(dumps(records, ensure_ascii=False))
    else:
        print_lines(names, rows, SEPARATORS[form])


def print_lines(names: list[str], rows: Iterable[Iterable[object]], separator: str) -> None:
    """Print a header and rows, in which no cell is run by a spreadsheet or breaks a line."""
    from simsearch.csv_file import guarded

    lines = csv.writer(sys.stdout, delimiter=separator, lineterminator="\n")
    lines.writerow(names)
    lines.writerows([guarded(readable(cell)) for cell in row] for row in rows)


def readable(cell: object) -> object:
    """Return a cell on one line, without what is not Unicode."""
    return valid_unicode(cell).replace("\n", " ") if isinstance(cell, str) else cell
