"""Positions in which two pictures may show the same, found on their signatures' thumbnails."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from simsearch.images.signature import is_blank, orient

if TYPE_CHECKING:
    from numpy.typing import NDArray


WHOLE_CORRELATION, PART_CORRELATION = 0.5, 0.7  # least of two thumbnails that are worth a decode
ASPECT_TOLERANCE = 0.08  # of two pictures that are compared whole, as a logarithm
SEARCH_SIDE = 40  # pixels of the longer side, for the search of one picture within the other
SCALE_STEP, LEAST_SCALE = 0.92, 0.38


class Alignment(NamedTuple):
    """Where one of two pictures may lie in the other.

    Attributes
    ----------
    score : float
        Correlation of the thumbnails there, in [-1, 1].
    orientation : int
        What `orient` does to the second picture first: 0 to 7.
    swapped : bool
        Whether the second picture lies in the first.
    box : tuple of float
        (left, top, right, bottom) of the one in the other, as fractions of width and height.
    """

    score: float
    orientation: int
    swapped: bool
    box: tuple[float, float, float, float]


def alignments(a: np.void, b: np.void) -> list[Alignment]:
    """Find the positions, by falling score, in which two pictures may be one: at most four.

    Compared whole in eight orientations, and upright one within the other, from its full size down
    to about 40%. An empty list: they are not copies of each other, as far as can be seen at
    32 × 32 pixels.
    """
    if is_blank(a) or is_blank(b):
        return []
    found = _whole_alignments(a, b)
    if not found or found[0].score < 0.95:
        thumbnails = _thumbnail(a), _thumbnail(b)
        for swapped in (False, True):
            score, box = _contained(*(thumbnails[::-1] if swapped else thumbnails))
            if score >= PART_CORRELATION:
                found.append(Alignment(score, 0, swapped, box))
    return sorted(found, key=lambda each: -each.score)


def _whole_alignments(a: np.void, b: np.void) -> list[Alignment]:
    pixels_a, pixels_b = _standardized(a["luma"]), _standardized(b["luma"])
    ratio_a, ratio_b = (float(each["width"]) / float(each["height"]) for each in (a, b))
    found = []
    for orientation in range(8):
        ratio = 1 / ratio_b if orientation % 2 else ratio_b
        if abs(np.log(ratio_a / ratio)) < ASPECT_TOLERANCE:
            score = float((pixels_a * orient(pixels_b, orientation)).mean())
            if score >= WHOLE_CORRELATION:
                found.append(Alignment(score, orientation, False, (0.0, 0.0, 1.0, 1.0)))
    return sorted(found, key=lambda each: -each.score)[:2]


def _standardized(luma: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Take most of the shading away; mean 0, variance 1."""
    image = Image.fromarray(luma).convert("F")
    coarse = image.resize((4, 4), Image.Resampling.BOX).resize(image.size, Image.Resampling.BICUBIC)
    pixels = np.asarray(image) - np.float32(0.7) * np.asarray(coarse)
    pixels = pixels - pixels.mean()
    scaled: NDArray[np.float32] = pixels / (np.sqrt((pixels * pixels).mean()) + np.float32(1e-3))
    return scaled


def _thumbnail(row: np.void) -> Image.Image:
    """Bring a thumbnail back to its aspect ratio."""
    width, height = float(row["width"]), float(row["height"])
    scale = SEARCH_SIDE / max(width, height)
    size = max(4, round(width * scale)), max(4, round(height * scale))
    image = Image.fromarray(row["luma"]).convert("F")
    return image.resize(size, Image.Resampling.BILINEAR)


def _contained(
    inner: Image.Image, outer: Image.Image
) -> tuple[float, tuple[float, float, float, float]]:
    """Search a picture in another at several scales: normalised cross-correlation, and the box."""
    width, height = outer.size
    pixels = np.asarray(outer, np.float32)
    pixels = pixels - pixels.mean()
    spectrum = np.fft.rfft2(pixels)
    sums, squares = (
        np.pad(each, ((1, 0), (1, 0))).cumsum(0).cumsum(1) for each in (pixels, pixels * pixels)
    )
    best, box = 0.0, (0.0, 0.0, 1.0, 1.0)
    largest = min(width / inner.width, height / inner.height)
    for scale in largest * SCALE_STEP ** np.arange(np.log(LEAST_SCALE) / np.log(SCALE_STEP)):
        w, h = round(inner.width * scale), round(inner.height * scale)
        if min(w, h) < 8:
            break
        part = np.asarray(inner.resize((w, h), Image.Resampling.BILINEAR), np.float32)
        part = part - part.mean()
        products = np.fft.irfft2(
            spectrum * np.fft.rfft2(part, (height, width)).conj(), outer.size[::-1]
        )
        variance = _windows(squares, w, h) - _windows(sums, w, h) ** 2 / (w * h)
        scale_of = np.maximum(variance, w * h) * max(float((part * part).sum()), w * h)
        scores = products[: height - h + 1, : width - w + 1] / np.sqrt(scale_of)
        y, x = np.unravel_index(int(scores.argmax()), scores.shape)
        if scores[y, x] > best:
            best = float(scores[y, x])
            box = (x / width, y / height, (x + w) / width, (y + h) / height)
    return best, box


def _windows(sums: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """Sum over every window of a size, from cumulative sums."""
    across = sums[:, width:] - sums[:, :-width]
    down: NDArray[np.float32] = across[height:] - across[:-height]
    return down
