"""Confirmation on the pixels of two whole pictures that one is a copy of the other, and by what edit.

A picture of which any part was replaced, such as the next one of a burst, is no copy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from simsearch.images.register import inner_box, outer_box, register
from simsearch.images.signature import alignments, signature
from simsearch.images.tiles import DETAILED_SHARE, compare

if TYPE_CHECKING:
    from simsearch.images.register import Registration
    from simsearch.images.signature import Alignment
    from simsearch.images.tiles import Comparison


SIDE, PAGE_SIDE = 256, 1024  # pixels: photos; pages, drawings and others with much plain ground
TRIES = 3  # alignments of a pair that are tried
MOST_UNLIKE = 0.004  # of the tiles of a photo
LEAST_CORRELATION = 0.8
LEAST_DETAILED = 0.1  # of the tiles, of a part that is found in another picture
SMALL_SIDE = 40  # pixels: smaller pictures are compared whole only
WHOLE_SHARE = 0.97  # of a picture that lies wholly in the other
ROTATED_SHARE = 0.85  # of a picture that lost its corners when it was rotated
LEAST_ANGLE, MOST_ANGLE = 0.7, 12.0  # degrees
MOST_STRETCH = 1.06
TINT_GAIN, TINT_BIAS = 0.06, 8.0

LEVELS = ("identical", "near", "similar")
EDITS = (  # what is told first if there are several
    "screenshot", "border", "crop", "rotated", "turn", "mirror", "watermark", "grey", "tint",
    "resized", "recompressed", "identical",
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
        "identical": every pixel; "near": resized or recompressed; "similar": any other edit.
    """

    kind: str
    edits: tuple[str, ...]
    level: str


def confirm(
    a: Image.Image, b: Image.Image, signatures: tuple[np.void, np.void] | None = None
) -> Edit | None:
    """Tell by what edit one picture is a copy of the other; None if it is none.

    Parameters
    ----------
    a, b
        Whole pictures, upright and RGB, as `load_image` gives them (`min_side=1024` is enough).
    signatures
        Of both, if they are there already.

    Returns
    -------
    Edit or None
        The same for (b, a). None for pictures that show nothing (see `is_blank`), even equal ones.
    """
    first, second = signatures or (signature(a), signature(b))
    positions = alignments(first, second)
    if not positions:
        return None
    if a.size == b.size and a.tobytes() == b.tobytes():
        return Edit("identical", ("identical",), "identical")
    for position in positions[:TRIES]:
        edits = _edits_at(a, b, position)
        if edits:
            level = "near" if edits[0] in {"resized", "recompressed"} else "similar"
            return Edit(edits[0], edits, level)
    return None


def _edits_at(a: Image.Image, b: Image.Image, position: Alignment) -> tuple[str, ...]:
    """Compare at one position: the edits, or none if it is not the same picture."""
    b = oriented(b, position.orientation)
    inner, outer = (b, a) if position.swapped else (a, b)
    pair, edits = _compared(inner, outer, position.box, SIDE)
    if edits is None or pair is None:
        return ()
    if position.orientation:
        edits.add("mirror" if position.orientation >= 4 else "turn")
    if a.size != b.size and not edits & {"crop", "border", "screenshot"}:
        edits.add("resized")
    return tuple(each for each in EDITS if each in edits) or ("recompressed",)


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
    shares = _shares(pair)
    if shares[0] < WHOLE_SHARE and shares[1] > shares[0] + 0.01:
        inner, outer = outer, inner
        pair = register(inner, outer, inner_box(pair), side)
        shares = _shares(pair)
    result = compare(pair.inner, pair.warped(), pair.mask(3))
    if result is None or pair.correlation < LEAST_CORRELATION:
        return None, None
    edits = _geometry(pair, shares)
    if edits is None or not _is_same(result, pair, edits):
        return None, None
    if result.is_page and side == SIDE and max(pair.inner.size) == SIDE:
        return _compared(inner, outer, outer_box(pair), PAGE_SIDE)
    if result.unlike > MOST_UNLIKE:
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
    careful = result.is_page or result.detailed < DETAILED_SHARE
    moved = bool(edits & {"crop", "border", "screenshot", "rotated"})
    small = min(min(size) for size in pair.sizes) < SMALL_SIDE
    if moved and (small or result.detailed < LEAST_DETAILED):
        return False
    if any(not 1 / 2.2 < gain < 2.2 for gain in result.gains):
        return False
    if result.unlike <= (0.003 if careful else MOST_UNLIKE):
        return result.correlation >= (0.9 if careful else LEAST_CORRELATION)
    overlays = {"clear"} if careful else {"clear", "thin"}
    return result.overlay in overlays and result.unlike <= 0.4 and result.correlation >= 0.35


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
    return "screenshot" if np.mean(steps[outside] <= 1) >= 0.5 else "crop"
