"""What commands print: text in which names of files move no terminal's cursor."""

from __future__ import annotations

from simsearch.printable import valid_unicode


def say(content: object) -> None:
    """Print something as text; only matches are printed in other forms, by `results`."""
    print(valid_unicode(str(content)), flush=True)
