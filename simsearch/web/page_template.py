"""Pages made of their HTML file and what all pages share: head, icons and lists of modules."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path

STATIC = Path(__file__).with_name("static")
INCLUDE = re.compile(r"^ *<!-- (\w+): (.*) -->\n", re.MULTILINE)
SYMBOL = re.compile(r'<symbol id="([\w-]+)".*</symbol>')
IMPORT = re.compile(r'^(?:import|export)\b[^;]*?"\./([\w.]+)";', re.MULTILINE)
HEAD = """\
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <link rel="icon" href="static/icon.svg" type="image/svg+xml">
    {styles}
    <script src="static/theme.js"></script>
"""
THEME_BUTTON = """\
        <button class="round" id="theme" type="button" aria-label="Dark theme" \
aria-pressed="false" title="Light or dark">
          <svg class="icon" aria-hidden="true"><use href="#theme-icon"/></svg>
        </button>
"""


@cache
def read_page(name: str) -> tuple[str, str]:
    """Return a page of the static files with its includes filled in, and its ETag.

    A comment alone on a line, ``<!-- WHAT: NAMES -->``, stands for the ``head`` with these style
    sheets, the ``icons`` of these names, the button of the ``theme``, or a ``module`` and all that
    it imports, which the browser then fetches at once.

    Examples
    --------
    >>> page, etag = read_page("map.html")
    >>> '<link rel="modulepreload" href="static/mapCanvas.js">' in page
    True
    """
    text = INCLUDE.sub(_include, (STATIC / name).read_text("utf-8"))
    return text, f'"{hashlib.sha256(text.encode()).hexdigest()[:16]}"'


def _include(found: re.Match[str]) -> str:
    what, names = found[1], found[2].split()
    if what == "head":
        sheets = [f'<link rel="stylesheet" href="static/{name}">' for name in names]
        return HEAD.format(styles="\n    ".join(sheets))
    if what == "icons":
        symbols = _symbols()
        lines = "".join(f"      {symbols[name]}\n" for name in names)
        return (
            f'    <svg class="sheet" aria-hidden="true" width="0" height="0">\n{lines}    </svg>\n'
        )
    if what == "theme":
        return THEME_BUTTON
    preloads = [
        f'    <link rel="modulepreload" href="static/{each}">\n' for each in modules(names[0])
    ]
    return f'{"".join(preloads)}    <script type="module" src="static/{names[0]}"></script>\n'


def _symbols() -> dict[str, str]:
    """Return the symbol of each icon by its name."""
    sheet = (STATIC / "icons.svg").read_text("utf-8")
    return {symbol[1]: symbol[0] for symbol in SYMBOL.finditer(sheet)}


def modules(name: str) -> list[str]:
    """Return all modules that a module of the page imports, directly or not, in order of names."""
    found, new = {name}, [name]
    while new:
        imported = set(IMPORT.findall((STATIC / new.pop()).read_text("utf-8"))) - found
        found |= imported
        new.extend(imported)
    return sorted(found - {name})
