"""Matches as plain values, as text, and as a pandas frame."""

from __future__ import annotations

from dataclasses import asdict, fields
from itertools import chain
from typing import TYPE_CHECKING

from simsearch.library.odd_names import make_frame
from simsearch.plain_json import plain
from simsearch.printable import one_line, valid_unicode
from simsearch.retrieval.matches import Match, also, percentile

if TYPE_CHECKING:
    from typing import Any

    import pandas as pd

    from simsearch.retrieval.matches import Matches

PART_FIELDS = ("box", "size", "label")  # of a match, where parts were searched


def to_dict(matches: Matches) -> dict[str, Any]:
    """Return matches as plain values; see `Matches.to_dict`."""
    values: dict[str, Any] = plain(
        {
            "query": matches.query,
            "box": matches.box,
            "exact": matches.exact,
            "notes": matches.notes,
            "matches": [asdict(match) for match in matches.rows],
        }
    )
    return values


def to_frame(matches: Matches) -> pd.DataFrame:
    """Return matches as a frame; see `Matches.to_frame`."""
    known = {each.name for each in fields(Match)}
    columns = ["rank", "path", "score", "percentile", "row"]
    if any(match.box for match in matches.rows):
        columns += PART_FIELDS
    known -= {*PART_FIELDS}.difference(columns)
    rows = [{**match.metadata, **_fields(match)} for match in matches.rows]
    facts = [name for name in dict.fromkeys(chain(*rows)) if name not in known]
    return make_frame(rows, [*columns, *facts], "rank")


def _fields(match: Match) -> dict[str, Any]:
    """Return the fields of a match; without those of a box, where it has none."""
    values = asdict(match)
    return values if match.box else {key: values[key] for key in values if key not in PART_FIELDS}


def box_words(match: Match) -> str:
    """Say which part of an image matched: "in 10,20 to 30,40 (shoe)"; "" where all of it did."""
    if match.box is None or match.box == (0, 0, *(match.size or ())):
        return ""
    left, top, right, bottom = match.box
    label = f" ({one_line(match.label)})" if match.label else ""
    return f"in {left},{top} to {right},{bottom}{label}"


def to_text(matches: Matches) -> str:
    """Return matches as lines of text, under a heading; see `print(matches)`."""
    how = "" if matches.exact else " (approximate)"
    heading = f"{len(matches)} match{'es' * (len(matches) != 1)} for {one_line(matches.query)}{how}"
    lines = [heading]
    lines += [
        f"{m.rank:>4}  {m.score:6.3f}  {percentile(m.percentile):>9}  {one_line(m.path)}"
        + "".join(f"  {words}" for words in (box_words(m), m.caption, also(m)) if words)
        for m in matches.rows
    ]
    lines += [f"note: {note}" for note in matches.notes]
    return valid_unicode("\n".join(lines))
