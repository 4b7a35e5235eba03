"""Confirmation, on the pixels of two whole pictures, that one is an edit of the other.

A picture of which any part was replaced, such as the next one of a burst, is no copy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from simsearch.images.alignment import alignments
from simsearch.images.register import inner_box, outer_box, register
from simsearch.images.signature import signature
from simsearch.images.tiles import DETAILED_SHARE, compare

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simsearch.images.alignment import Alignment
    from simsearch.images.register import Registration
    from simsearch.images.tiles import Comparison


SIDE, PAGE_SIDE = 256, 1024  # pixels: photos; pages, drawings and others with much plain ground
TRIES = 3  # alignments of a pair that are tried
MOST_UNLIKE = 0.002  # of the tiles of a photo that was cropped, rotated or laid on a ground
LEAST_CORRELATION = 0.8
LEAST_DETAILED = 0.1  # of the tiles, of a part that is found in another picture
SMALL_SIDE = 40  # pixels: smaller pictures are compared whole only, and smaller parts not at all
WHOLE_SHARE = 0.97  # of a picture that lies wholly in the other
ROTATED_SHARE = 0.85  # of a picture that lost its corners when it was rotated
LEAST_ANGLE, MOST_ANGLE = 0.7, 12.0  # degrees
SURE_CORRELATION = 0.9  # of an alignment that is right: no other one is tried
MOST_STRETCH = 1.06
CROPPED_PIXELS = 0.85  # of a part, that the whole has there at least: it may have been cut from it
TINT_GAIN, TINT_BIAS = 0.06, 8.0

PARTS = {"crop", "border", "screenshot"}  # one picture lies in the other
FRAMES = {"border", "screenshot"}  # what is around it was added
EDITS = (  # what is told first if there are several
    "screenshot",
    "border",
    "crop",
    "rotated",
    "turn",
    "mirror",
    "watermark",
    "grey",
    "tint",
    "resized",
    "recompressed",
    "identical",
)


@dataclass(frozen=True)
class Edit:
    """What makes one of two pictures of the other.

    Attributes
    ----------
    kind : str
        The edit that changes most: one of `EDITS`.
    edits : tuple of str
        All that were seen, in the order of `EDITS`.
    level : str
        As in `simsearch.duplicates`: "identical" for equal pixels, "near" for every edit.
    derived : int or None
        Which of the two was made of the other, where that is seen: 0 for the first, 1 for the
        second. A border or a screen is around one of them; a crop is the part, unless it has more
        pixels than the whole has there.
    """

    kind: str
    edits: tuple[str, ...]
    level: str
    derived: int | None = None


def confirm(
    a: Image.Image,
    b: Image.Image,
    signatures: tuple[np.void, np.void] | None = None,
    positions: Sequence[Alignment] | None = None,
) -> Edit | None:
    """Tell by what edit one picture is a copy of the other; None if it is none.

    Parameters
    ----------
    a, b
        Whole pictures, upright and RGB, as `load_image` gives them. `min_side=1024` is enough for
        all but "identical", which then is of what was decoded.
    signatures
        Of both, if they are there already: then only they tell the sizes of the files.
    positions
        In which b may show what a shows, the likeliest first, if they are known.

    Returns
    -------
    Edit or None
        The same for (b, a), if no positions are given, but for `derived`. None for pictures that
        show nothing (see `is_blank`), even equal ones.
    """
    first, second = signatures or (signature(a), signature(b))
    if positions is not None:
        return _confirm(a, b, (first, second), positions)
    if _order(first) <= _order(second):
        return _confirm(a, b, (first, second), alignments(first, second))
    # So that the answer is the same the other way round
    edit = _confirm(b, a, (second, first), alignments(second, first))
    return edit if edit is None or edit.derived is None else replace(edit, derived=1 - edit.derived)


def _confirm(
    a: Image.Image,
    b: Image.Image,
    signatures: tuple[np.void, np.void],
    positions: Sequence[Alignment],
) -> Edit | None:
    """Compare two pictures in some positions."""
    first, second = signatures
    if not positions:
        return None
    if first == second and a.size == b.size and a.tobytes() == b.tobytes():
        return Edit("identical", ("identical",), "identical")
    for position in positions[:TRIES]:
        pair, edits = _compared_at(a, b, position)
        if pair is not None and edits is not None:
            sizes = _size(first), _size(second, position.orientation)
            if sizes[0] != sizes[1] and not edits & PARTS:
                edits.add("resized")
            ordered = tuple(each for each in EDITS if each in edits) or ("recompressed",)
            return Edit(ordered[0], ordered, "near", _derived(pair, signatures, edits))
        if pair is not None and pair.correlation >= SURE_CORRELATION:
            return None  # this is how they lie, and they differ
    return None


def _derived(
    pair: Registration, signatures: tuple[np.void, np.void], edits: set[str]
) -> int | None:
    """Tell which of two pictures was made of the other; see `Edit`."""
    if edits & FRAMES:
        return 1 - pair.inner_number
    if "crop" not in edits:
        return None
    inner, outer = (int(row["width"]) * int(row["height"]) for row in signatures)
    if pair.inner_number:
        inner, outer = outer, inner
    return pair.inner_number if _shares(pair)[1] * outer >= CROPPED_PIXELS * inner else None


def _order(row: np.void) -> tuple[int, bytes]:
    return int(row["width"]) * int(row["height"]), row.tobytes()


def _size(row: np.void, orientation: int = 0) -> tuple[int, int]:
    width, height = int(row["width"]), int(row["height"])
    return (height, width) if orientation % 2 else (width, height)


def _compared_at(
    a: Image.Image, b: Image.Image, position: Alignment
) -> tuple[Registration | None, set[str] | None]:
    """Compare at one position: the alignment, and the edits if it is the same picture."""
    b = oriented(b, position.orientation)
    inner, outer = (b, a) if position.swapped else (a, b)
    pair, edits = _compared(inner, outer, position.box, SIDE)
    if pair is None or edits is None:
        return pair, None
    pair.inner_number = int(position.swapped) ^ pair.inner_number
    if position.orientation:
        edits.add("mirror" if position.orientation >= 4 else "turn")
    return pair, edits


def oriented(image: Image.Image, orientation: int) -> Image.Image:
    """Mirror and turn an image, as `orient` does with an array."""
    way = Image.Transpose
    if orientation >= 4:
        image = image.transpose(way.FLIP_LEFT_RIGHT)
    turns = (None, way.ROTATE_90, way.ROTATE_180, way.ROTATE_270)
    turn = turns[orientation % 4]
    return image if turn is None else image.transpose(turn)


def _compared(
    inner: Image.Image, outer: Image.Image, box: tuple[float, float, float, float], side: int
) -> tuple[Registration | None, set[str] | None]:
    """Align and compare at one size, and pages at a larger one; None for another picture."""
    pair = register(inner, outer, box, side)
    if pair.correlation < LEAST_CORRELATION:
        return None, None
    shares, exchanged = _shares(pair), 0
    if shares[0] < WHOLE_SHARE and shares[1] > shares[0] + 0.01:
        inner, outer, exchanged = outer, inner, 1
        pair = register(inner, outer, inner_box(pair), side)
        shares = _shares(pair)
    pair.inner_number = exchanged
    result = compare(pair.inner, pair.warped(), pair.mask(3))
    if result is None or pair.correlation < LEAST_CORRELATION:
        return None, None
    edits = _geometry(pair, shares)
    if edits is None or not _is_same(result, pair, edits):
        return pair, None
    if result.is_page and side == SIDE and max(pair.inner.size) == SIDE:
        large, edits = _compared(inner, outer, outer_box(pair), PAGE_SIDE)
        if large is not None:
            large.inner_number ^= exchanged
        return large, edits
    if result.unlike > (MOST_UNLIKE if edits else 0):
        edits.add("watermark")
    if result.to_grey:
        edits.add("grey")
    elif any(abs(gain - 1) > TINT_GAIN for gain in result.gains) or any(
        abs(128 * gain + bias - 128) > TINT_BIAS
        for gain, bias in zip(result.gains, result.biases, strict=True)
    ):
        edits.add("tint")
    return pair, edits


def _is_same(result: Comparison, pair: Registration, edits: set[str]) -> bool:
    """Tell whether the tiles are those of one picture."""
    strict = result.is_page or result.detailed < DETAILED_SHARE
    moved = bool(edits & (PARTS | {"rotated"}))
    if moved and (_least_side(pair) < SMALL_SIDE or result.detailed < LEAST_DETAILED):
        return False
    if any(not 1 / 2.2 < gain < 2.2 for gain in result.gains):
        return False
    if result.unlike <= (MOST_UNLIKE if moved and not strict else 0):
        return result.correlation >= (0.9 if strict else LEAST_CORRELATION)
    overlays = {"clear"} if strict else {"clear", "thin"}
    return result.overlay in overlays and result.unlike <= 0.4 and result.correlation >= 0.35


def _least_side(pair: Registration) -> float:
    """Pixels of the shorter side of a picture, and of what shows it in the other one.

    Little more than a horizon is left of scenes at 30 pixels: many are then alike.
    """
    inner, outer = (min(size) for size in pair.sizes)
    return min(inner, outer * float(np.sqrt(_shares(pair)[1])))


def _shares(pair: Registration) -> tuple[float, float]:
    """How much of the inner picture lies in the outer one, and how much of the outer it shows."""
    return float(pair.mask(0).mean()), float(pair.outer_mask(0).mean())


def _geometry(pair: Registration, shares: tuple[float, float]) -> set[str] | None:
    """Name the edits of shape; None if neither picture lies in the other, or it is distorted."""
    linear = pair.linear()
    longer, shorter = np.linalg.svd(linear, compute_uv=False)
    angle = np.degrees(np.arctan2(linear[1, 0] - linear[0, 1], linear[0, 0] + linear[1, 1]))
    if longer > MOST_STRETCH * shorter or abs(angle) > MOST_ANGLE:
        return None
    if shares[0] >= WHOLE_SHARE and shares[1] >= WHOLE_SHARE:
        return {"rotated"} if abs(angle) > LEAST_ANGLE else set()
    around = _around(pair)
    if abs(angle) > LEAST_ANGLE:
        least = ROTATED_SHARE if around == "border" or shares[1] >= ROTATED_SHARE else WHOLE_SHARE
        extra = {around} - {"border"} if shares[1] < ROTATED_SHARE else set()
        return {"rotated"} | extra if shares[0] >= least else None
    return {around} if shares[0] >= WHOLE_SHARE else None


def _around(pair: Registration) -> str:
    """Name what is around the inner picture: a border of one colour, a screen, or more picture."""
    pixels = np.asarray(pair.outer.convert("L"), np.float32)
    outside = ~pair.outer_mask(-1.5)
    if not outside.any():
        return "crop"
    values = pixels[outside]
    if np.mean(np.abs(values - np.median(values)) <= 6) >= 0.97:
        return "border"
    steps = np.hypot(*np.gradient(pixels))
    edge = pair.outer_mask(-1.5) & ~pair.outer_mask(1.5)
    near = pair.outer_mask(3) & ~pair.outer_mask(8)
    plain = np.mean(steps[outside] <= 1)
    is_cut = steps[edge].mean() > (1.3 if plain >= 0.75 else 1.6) * steps[near].mean() + 2
    return "screenshot" if is_cut and plain >= 0.3 else "crop"
