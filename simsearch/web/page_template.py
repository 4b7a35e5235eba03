"""Pages made of their HTML file and what all pages share: head, icons and lists of modules."""

from __future__ import annotations

import gzip
import hashlib
import re
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from simsearch.web.page_bundle import join_modules, join_texts

STATIC = Path(__file__).with_name("static")
INCLUDE = re.compile(r"^ *<!-- (\w+): (.*) -->\n", re.MULTILINE)
SYMBOL = re.compile(r'<symbol id="([\w-]+)".*</symbol>')
JOINED = re.compile(r"(\w+)\.([0-9a-f]{16})\.(css|head\.js|js)")
MEDIA_TYPES = {"css": "text/css", "head.js": "text/javascript", "js": "text/javascript"}
HEAD = """\
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <link rel="icon" href="static/icon.svg" type="image/svg+xml">
    {styles}
    <script src="{script}"></script>
"""
THEME_BUTTON = """\
        <button class="round" id="theme" type="button" aria-label="Dark theme" \
aria-pressed="false" title="Light or dark">
          <svg class="icon" aria-hidden="true"><use href="#theme-icon"/></svg>
        </button>
"""


class Joined(NamedTuple):
    """A file that is made of others, for one page.

    Attributes
    ----------
    data, packed : bytes
        What it holds, and the same by gzip.
    digest : str
        Of what it holds; stands in its address.
    media_type : str
    """

    data: bytes
    packed: bytes
    digest: str
    media_type: str


@cache
def read_page(name: str) -> tuple[str, str]:
    """Return a page of the static files with its includes filled in, and its ETag.

    A comment alone on a line, ``<!-- WHAT: NAMES -->``, stands for the ``head`` with these style
    sheets and scripts, the ``icons`` of these names, the button of the ``theme``, or a ``module``
    with all that it imports. What a page loads is joined into one file of each kind.

    Examples
    --------
    >>> page, etag = read_page("map.html")
    >>> '<script type="module" src="static/page/map.' in page
    True
    """
    stem = name.removesuffix(".html")
    text = INCLUDE.sub(lambda found: _include(stem, found[1], found[2].split()), _read(name))
    return text, f'"{_digest(text.encode())}"'


@cache
def joined(stem: str, kind: str) -> Joined:
    """Return what a page loads of one kind: `css`, `head.js` (classic scripts) or `js`.

    Raises
    ------
    KeyError
        If there is no such page, or it loads nothing of this kind.
    """
    if not (STATIC / f"{stem}.html").is_file():
        raise KeyError(stem)
    includes = dict(INCLUDE.findall(_read(f"{stem}.html")))
    if kind == "css" and "/" in includes["head"]:
        raise KeyError(stem)  # some of it is another package's
    if kind == "js":
        text = join_modules(includes["module"], _read)
    else:
        sheets, scripts = _head_files(includes["head"].split())
        text = join_texts(sheets if kind == "css" else scripts, _read)
    data = text.encode()
    return Joined(data, gzip.compress(data, mtime=0), _digest(data), MEDIA_TYPES[kind])


def _address(stem: str, kind: str) -> str:
    return f"static/page/{stem}.{joined(stem, kind).digest}.{kind}"


def _head_files(names: list[str]) -> tuple[list[str], list[str]]:
    """Return the style sheets and the classic scripts of a page, in their order."""
    sheets = [name for name in names if name.endswith(".css")]
    return sheets, ["theme.js", *(name for name in names if name.endswith(".js"))]


def _include(stem: str, what: str, names: list[str]) -> str:
    if what == "head":
        sheets = [f"static/{name}" for name in _head_files(names)[0]]
        with suppress(KeyError):
            sheets = [_address(stem, "css")]
        links = [f'<link rel="stylesheet" href="{address}">' for address in sheets]
        return HEAD.format(styles="\n    ".join(links), script=_address(stem, "head.js"))
    if what == "icons":
        symbols = _symbols()
        lines = "".join(f"      {symbols[name]}\n" for name in names)
        return (
            f'    <svg class="sheet" aria-hidden="true" width="0" height="0">\n{lines}    </svg>\n'
        )
    if what == "theme":
        return THEME_BUTTON
    return f'    <script type="module" src="{_address(stem, "js")}"></script>\n'


def _symbols() -> dict[str, str]:
    """Return the symbol of each icon by its name."""
    sheet = _read("icons.svg")
    return {symbol[1]: symbol[0] for symbol in SYMBOL.finditer(sheet)}


def _read(name: str) -> str:
    return (STATIC / name).read_text("utf-8")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
