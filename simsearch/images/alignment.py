"""Positions in which two pictures may show the same, found on their signatures' thumbnails."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from simsearch.files import iter_blocks
from simsearch.images.signature import (
    THUMBNAIL_SIDE,
    count_bits,
    is_blank,
    orient,
    oriented_hashes,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simsearch.images.content_box import Box


WHOLE_CORRELATION, PART_CORRELATION = 0.5, 0.7  # least of two thumbnails that are worth a decode
FRAMED_SCORE = 0.68  # least of two hashes that are compared: 10 bits differ
ASPECT_TOLERANCE = 0.08  # of two pictures that are compared whole, as a logarithm
SEARCH_SIDE = 40  # pixels of the longer side, for the search of one picture within the other
SCALE_STEP, LEAST_SCALE = 0.92, 0.38
WHOLE = (0.0, 0.0, 1.0, 1.0)
PAIRS_AT_ONCE = 4096  # 16 MB of pixels


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
    """Find the positions, by falling score, in which two pictures may be one: at most eight.

    Compared whole in eight orientations, also with what lies on plain ground in the other; and
    upright one within the other, from its full size down to about 40%. An empty list: they are not
    copies of each other, as far as can be seen at 32 × 32 pixels.
    """
    if is_blank(a) or is_blank(b):
        return []
    found = _whole_alignments(a, b) + _framed_alignments(a, b)
    if max((each.score for each in found), default=0) < 0.95:
        thumbnails = thumbnail(a), thumbnail(b)
        for swapped in (False, True):
            score, box = _contained(*(thumbnails[::-1] if swapped else thumbnails))
            if score >= PART_CORRELATION:
                found.append(Alignment(score, 0, swapped, box))
    return sorted(found, key=lambda each: -each.score)


def _whole_alignments(a: np.void, b: np.void) -> list[Alignment]:
    scores = correlations(np.array([a, b]), np.array([[0, 1]]))[0]
    return whole_alignments(scores, WHOLE_CORRELATION)


def _framed_alignments(a: np.void, b: np.void) -> list[Alignment]:
    """Compare each whole with what lies on plain ground in the other, by their hashes."""
    hashes = np.array([b["inner_hash"], b["hash"]])
    others = np.array([[a["hash"]], [a["inner_hash"]]])
    scores = 1 - count_bits(oriented_hashes(hashes) ^ others).astype(np.float64) / 32  # (2, 8)
    found = []
    for swapped, framed in enumerate((b, a)):
        best = int(scores[swapped].argmax())
        if framed["hash"] != framed["inner_hash"] and scores[swapped, best] >= FRAMED_SCORE:
            box = tuple(framed["content"].tolist())
            box = box if swapped else _oriented_box(box, best)
            found.append(Alignment(float(scores[swapped, best]), best, bool(swapped), box))
    return found


def _oriented_box(box: Box, orientation: int) -> Box:
    """Rectangle, as fractions, in a picture that `orient` mirrored and turned."""
    left, top, right, bottom = box
    if orientation >= 4:
        left, right = 1 - right, 1 - left
    for _ in range(orientation % 4):
        left, top, right, bottom = top, 1 - right, bottom, 1 - left
    return left, top, right, bottom


def whole_alignments(scores: NDArray[np.float32], least: float) -> list[Alignment]:
    """Name the orientations whose correlations, (8,), are high: at most two, the best first."""
    order = np.argsort(-scores, kind="stable")[:2].tolist()
    return [Alignment(float(scores[i]), i, False, WHOLE) for i in order if scores[i] >= least]


def correlations(
    signatures: NDArray[np.void], pairs: NDArray[np.integer[Any]]
) -> NDArray[np.float32]:
    """Correlations of (P, 2) pairs of whole thumbnails in the eight orientations of `orient`.

    Returns
    -------
    (P, 8) float32
        In [-1, 1]; -1 where the aspect ratios differ.
    """
    rows, places = np.unique(pairs, return_inverse=True)
    i, j = places.reshape(pairs.shape).T
    ratios = np.log(signatures["width"][rows] / np.maximum(signatures["height"][rows], 1))
    pixels = _standardized(signatures["luma"][rows])  # (N, 32, 32)
    scores = np.full((len(pairs), 8), -1, np.float32)
    for orientation in range(8):
        turned = orient(pixels.transpose(1, 2, 0), orientation).transpose(2, 0, 1)
        ratio = -ratios if orientation % 2 else ratios
        fits = np.flatnonzero(np.abs(ratios[i] - ratio[j]) < ASPECT_TOLERANCE)
        for block in iter_blocks(len(fits), PAIRS_AT_ONCE):
            each = fits[block]
            products = np.einsum("pyx,pyx->p", pixels[i[each]], turned[j[each]])
            scores[each, orientation] = products / THUMBNAIL_SIDE**2
    return scores


def _standardized(luma: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Take most of the shading of (N, 32, 32) luminances away; mean 0, variance 1."""
    shading = _shading_matrix()
    pixels: NDArray[Any] = luma.astype(np.float32)
    pixels = pixels - np.float32(0.7) * (shading @ pixels @ shading.T)
    pixels = pixels - pixels.mean(axis=(1, 2), keepdims=True)
    sizes = np.sqrt((pixels * pixels).mean(axis=(1, 2), keepdims=True))
    scaled: NDArray[np.float32] = pixels / (sizes + np.float32(1e-3))
    return scaled


@lru_cache(maxsize=1)
def _shading_matrix() -> NDArray[np.float32]:
    """Reduce 32 pixels to four, and enlarge these again: (32, 32)."""
    side = THUMBNAIL_SIDE
    image = Image.fromarray(np.eye(side, dtype=np.float32))
    image = image.resize((side, 4), Image.Resampling.BOX)
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))


def thumbnail(row: np.void, side: int = SEARCH_SIDE) -> Image.Image:
    """Bring a thumbnail back to its aspect ratio; `side` is its longer one, in pixels."""
    width, height = float(row["width"]), float(row["height"])
    scale = side / max(width, height)
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
