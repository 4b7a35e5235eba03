"""Tables for a terminal: aligned columns under a header, with colour where it is welcome."""

from __future__ import annotations

import os
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from typing import TextIO

BOLD, DIM, GREEN, RESET = "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[0m"
GAP = "  "


def has_colour(stream: TextIO | None = None) -> bool:
    """Tell whether colour is welcome: on a terminal, unless NO_COLOR is set (no-color.org)."""
    terminal = (stream or sys.stdout).isatty() and os.environ.get("TERM") != "dumb"
    return terminal and not os.environ.get("NO_COLOR")


def painted(text: str, colour: str, *, on: bool) -> str:
    """Return a text in a colour, if colours are on."""
    return f"{colour}{text}{RESET}" if on and text else text


def width_of(text: str) -> int:
    """Return how many cells of a terminal a text takes.

    Examples
    --------
    >>> width_of("日本.jpg")
    8
    """
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    marks = sum(unicodedata.combining(letter) != 0 for letter in text)
    return len(text) + wide - marks


def terminal_width() -> int:
    """Return the cells of a line of the terminal; 80 where there is none."""
    return shutil.get_terminal_size().columns


def aligned(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[list[str]]:
    """Pad cells so that columns stand below each other; those in `right` end below each other."""
    widths = [max(map(width_of, column)) for column in zip(*rows, strict=True)]
    return [
        [
            " " * (width - width_of(cell)) + cell
            if i in right
            else cell + " " * (width - width_of(cell))
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    ]
