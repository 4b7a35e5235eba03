"""Pictures in a terminal: by the protocols of Kitty, iTerm2 and sixel, or as half blocks."""

from __future__ import annotations

import base64
import io
import os
import select
import struct
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from simsearch.cli.table import terminal_width
from simsearch.errors import ImageError, QueryError
from simsearch.images.decode import load_preview

if TYPE_CHECKING:
    from numpy.typing import NDArray

    import simsearch as ss
    from simsearch.images.decode import ImageSources

CELL = (8, 16)  # pixels of a cell, where the terminal takes pixels and does not say how large
BLOCK_CELL = (1, 2)  # and of one that is a half block
TILE_CELLS, MIN_TILE_CELLS = 20, 8  # of a picture, in width
CHUNK = 4096  # characters of one escape sequence of Kitty
KITTY_PROGRAMS = {"ghostty", "WezTerm"}
ITERM_PROGRAMS = {"iTerm.app", "mintty", "vscode"}
REPLY_SECONDS = 0.2


def print_pictures(matches: ss.Matches, protocol: str) -> None:
    """Print the query and its matches as a row or more of pictures.

    Raises
    ------
    QueryError
        If `protocol` is "auto" and there is no terminal to ask.
    """
    if protocol == "auto":
        if not sys.stdout.isatty():
            raise QueryError(
                f"--pictures needs a terminal; elsewhere name one of {', '.join(PROTOCOLS)}"
            )
        protocol = detect_protocol()
    cell = BLOCK_CELL if protocol == "blocks" else cell_pixels()
    for row in sheets(matches, terminal_width(), cell):
        sys.stdout.write(PROTOCOLS[protocol](row) + "\n")


def cell_pixels() -> tuple[int, int]:
    """Return the size of a cell in pixels, as far as the terminal says it."""
    try:
        from fcntl import ioctl
        from termios import TIOCGWINSZ

        size = ioctl(sys.stdout.fileno(), TIOCGWINSZ, bytes(8))
    except (ImportError, OSError):  # Windows, or no terminal
        return CELL
    rows, columns, width, height = struct.unpack("HHHH", size)
    return (width // columns, height // rows) if min(rows, columns, width, height) else CELL


def sheets(matches: ss.Matches, columns: int, cell: tuple[int, int]) -> Iterator[Image.Image]:
    """Lay out the query, framed, and the matches after it: one picture for each row of them."""
    sources: list[ImageSources] = [] if matches.image is None else [matches.image]
    framed = len(sources)
    sources += matches.paths
    count = max(min(len(sources), columns // MIN_TILE_CELLS), 1)
    cells = min(TILE_CELLS, columns // count)
    side = cells * cell[0]
    for start in range(0, len(sources), count):
        part = sources[start : start + count]
        sheet = Image.new("RGB", (side * len(part), side // 2 * 2))
        for i, source in enumerate(part):
            tile = _tile(source, side - max(side // 20, 1), framed=start + i < framed)
            sheet.paste(tile, (i * side, 0))
        yield sheet


def _tile(source: ImageSources, side: int, *, framed: bool) -> Image.Image:
    """Cut a picture to a square; grey where it cannot be read, as when its file is gone."""
    try:
        tile = ImageOps.fit(load_preview(source, min_side=side).convert("RGB"), (side, side))
    except ImageError:
        tile = Image.new("RGB", (side, side), "grey")
    if framed:
        ImageDraw.Draw(tile).rectangle((0, 0, side - 1, side - 1), outline=(255, 170, 0))
    return tile


def detect_protocol() -> str:
    """Return the best protocol of this terminal, as far as it says: blocks do everywhere."""
    term, program = os.environ.get("TERM", ""), os.environ.get("TERM_PROGRAM", "")
    if os.environ.get("TMUX") or term.startswith("screen"):
        return "blocks"  # which show what others would not let through
    if "kitty" in term or os.environ.get("KITTY_WINDOW_ID") or program in KITTY_PROGRAMS:
        return "kitty"
    if program in ITERM_PROGRAMS or os.environ.get("LC_TERMINAL") == "iTerm2":
        return "iterm"
    return "sixel" if "4" in device_attributes() else "blocks"


def device_attributes() -> list[str]:
    """Ask the terminal what it can do (DA1); nothing if it does not answer at once."""
    try:
        import termios
        import tty
    except ImportError:  # Windows
        return []
    if not sys.stdin.isatty():
        return []
    handle = sys.stdin.fileno()
    before, reply = termios.tcgetattr(handle), b""
    try:
        tty.setcbreak(handle, termios.TCSANOW)
        os.write(sys.stdout.fileno(), b"\x1b[c")
        while not reply.endswith(b"c") and select.select([handle], [], [], REPLY_SECONDS)[0]:
            reply += os.read(handle, 64)
    finally:
        termios.tcsetattr(handle, termios.TCSANOW, before)
    return reply.decode("ascii", "replace").rstrip("c").split(";")[1:]


def as_kitty(picture: Image.Image) -> str:
    """Write a picture by Kitty's graphics protocol."""
    code = base64.b64encode(_png(picture)).decode()
    parts = [code[i : i + CHUNK] for i in range(0, len(code), CHUNK)]
    more = [f"m={int(i < len(parts) - 1)}" for i in range(len(parts))]
    keys = [f"a=T,f=100,{more[0]}", *more[1:]]
    return "".join(f"\x1b_G{key};{part}\x1b\\" for key, part in zip(keys, parts, strict=True))


def as_iterm(picture: Image.Image) -> str:
    """Write a picture by iTerm2's protocol of inline images."""
    content = _png(picture)
    size = f"size={len(content)};width={picture.width}px;height={picture.height}px"
    return f"\x1b]1337;File=inline=1;{size}:{base64.b64encode(content).decode()}\a"


def as_sixel(picture: Image.Image) -> str:
    """Write a picture as sixels, in 128 colours."""
    reduced = picture.quantize(128, dither=Image.Dither.NONE)
    pixels = np.asarray(reduced)
    palette = np.array(reduced.getpalette()).reshape(-1, 3) * 100 // 255
    colours = "".join(f"#{i};2;{r};{g};{b}" for i, (r, g, b) in enumerate(palette.tolist()))
    bands = (pixels[top : top + 6] for top in range(0, len(pixels), 6))
    height, width = pixels.shape
    return f'\x1bPq"1;1;{width};{height}{colours}{"-".join(map(_sixel_band, bands))}\x1b\\'


def _sixel_band(band: NDArray[np.uint8]) -> str:
    """Write six lines of pixels: for each colour, one character for each column."""
    weights = (1 << np.arange(len(band)))[:, None]
    lines = []
    for colour in np.unique(band).tolist():
        codes = ((band == colour) * weights).sum(0) + 63
        ends = np.flatnonzero(np.diff(codes, append=-1)) + 1
        runs = zip(codes[ends - 1].tolist(), np.diff(ends, prepend=0).tolist(), strict=True)
        lines.append(f"#{colour}" + "".join(_run(chr(code), n) for code, n in runs))
    return "$".join(lines)


def _run(sixel: str, count: int) -> str:
    return f"!{count}{sixel}" if count > 3 else sixel * count


def as_blocks(picture: Image.Image) -> str:
    """Write a picture as half blocks: the upper pixel in the letter's colour, the lower behind."""
    pixels = np.asarray(picture)
    lines = []
    for upper, lower in zip(pixels[::2].tolist(), pixels[1::2].tolist(), strict=True):
        cells = (
            f"\x1b[38;2;{a};{b};{c};48;2;{d};{e};{f}m▀"
            for (a, b, c), (d, e, f) in zip(upper, lower, strict=True)
        )
        lines.append("".join(cells) + "\x1b[0m")
    return "\n".join(lines)


def _png(picture: Image.Image) -> bytes:
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()


PROTOCOLS: dict[str, Callable[[Image.Image], str]] = {
    "kitty": as_kitty,
    "iterm": as_iterm,
    "sixel": as_sixel,
    "blocks": as_blocks,
}
