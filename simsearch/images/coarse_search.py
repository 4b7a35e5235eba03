"""Search for pictures within others, on the thumbnails of many pairs of signatures at once.

Compared without their shading, which scenes of one kind have in common; then each place that is
found is improved, and those at which the fine detail does not agree are dropped.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from simsearch.files import iter_blocks
from simsearch.images.alignment import Alignment, correlations, thumbnail, whole_alignments
from simsearch.images.confirm import oriented
from simsearch.images.register import outer_box, register
from simsearch.images.signature import THUMBNAIL_SIDE, is_blank

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


SCALES = 0.92 ** np.arange(12)  # of one picture within the other: 1 to 0.4
LEAST_SIDE = 7  # pixels of a thumbnail that is searched for
SHADING_SIGMA = 1.5  # pixels of a thumbnail: what is smoother is left out
NOISE_VARIANCE = 0.5  # of a thumbnail without its shading, in levels squared
PART_SCORE, WHOLE_SCORE = 0.54, 0.6  # least ones of a place that is improved
CLOSE_PART_SCORE, CLOSE_WHOLE_SCORE = 0.38, 0.35  # of a pair that is close in other ways
FINE_SIDE, ITERATIONS = 48, 2  # pixels of the longer side of what is improved
FINE_SCORE = 0.4  # least one of a place that is worth a decode
ROWS_AT_ONCE = 3072  # 200 MB of spectra
PAIRS_AT_ONCE = 512  # 9 MB of spectra and scores


def find_positions(
    signatures: NDArray[np.void],
    pairs: NDArray[np.integer[Any]],
    close: NDArray[np.bool_] | None = None,
) -> dict[tuple[int, int], list[Alignment]]:
    """Find the pairs whose pictures may show the same, and where.

    Parameters
    ----------
    signatures : (N,) array of dtype `SIGNATURE`
    pairs : (P, 2) int
        Rows of them.
    close : (P,) bool
        Pairs that are likely copies, as far as is known: they need be less alike before a place is
        improved. None of them is, if it is not given.

    Returns
    -------
    dict
        By pair, at most four alignments of its second picture to the first, by falling score.
        Pairs that cannot be copies, as far as can be seen on the thumbnails, are left out.
    """
    shown = ~is_blank(signatures[pairs]).any(axis=1)
    close = np.zeros(len(pairs), bool) if close is None else close
    pairs, close = pairs[shown], close[shown]
    at_once = len(pairs) if len(np.unique(pairs)) <= ROWS_AT_ONCE else ROWS_AT_ONCE // 2
    found = {}
    for block in iter_blocks(len(pairs), max(at_once, 1)):
        for (i, j), places in _near_places(signatures, pairs[block], close[block]):
            rows = signatures[i], signatures[j]
            better = [_improved(*rows, place) for place in places]
            agreeing = [place for place in better if place.score >= FINE_SCORE]
            if agreeing:
                found[i, j] = sorted(agreeing, key=lambda each: -each.score)
    return found


def _near_places(
    signatures: NDArray[np.void], pairs: NDArray[np.integer[Any]], close: NDArray[np.bool_]
) -> Iterator[tuple[tuple[int, int], list[Alignment]]]:
    """Yield the pairs that are alike somewhere, with the places."""
    rows, inverse = np.unique(pairs, return_inverse=True)
    local = inverse.reshape(pairs.shape)
    thumbnails = _Thumbnails(signatures[rows])
    whole = correlations(signatures[rows], local)
    inside = thumbnails.search(local[:, 1], local[:, 0])
    swapped = thumbnails.search(local[:, 0], local[:, 1])
    scores = np.stack([inside[0], swapped[0]], axis=1)
    least_part = np.where(close, CLOSE_PART_SCORE, PART_SCORE)
    least_whole = np.where(close, CLOSE_WHOLE_SCORE, WHOLE_SCORE)
    near = (scores.max(axis=1) >= least_part) | (whole.max(axis=1) >= least_whole)
    for p in np.flatnonzero(near).tolist():
        places = whole_alignments(whole[p], least_whole[p])
        for side, (_, boxes) in enumerate((swapped, inside)):
            score = float(scores[p, 1 - side])
            if score >= least_part[p]:
                left, top, right, bottom = boxes[p].tolist()
                places.append(Alignment(score, 0, side == 1, (left, top, right, bottom)))
        yield (int(pairs[p, 0]), int(pairs[p, 1])), places


class _Thumbnails:
    """Thumbnails of N pictures at several scales, without their shading, and their spectra."""

    def __init__(self, signatures: NDArray[np.void]) -> None:
        side, count = THUMBNAIL_SIDE, len(signatures)
        sizes = np.stack([signatures["height"], signatures["width"]], axis=1).astype(np.float64)
        sizes *= side / sizes.max(axis=1, keepdims=True)
        self._shapes = (sizes[:, None] * SCALES[:, None]).round().astype(np.intp)
        self._shapes = np.maximum(self._shapes, 1)  # (N, scales, 2): height and width
        self._spectra = np.zeros((count, len(SCALES), side, side // 2 + 1), np.complex64)
        self._energies = np.ones((count, len(SCALES)), np.float32)
        self._sums = np.zeros((2, count, side + 1, side + 1), np.float32)  # also of the squares
        luma = signatures["luma"].astype(np.float32)
        for scale in range(len(SCALES)):
            for shape, rows in _groups(self._shapes[:, scale]):
                for block in iter_blocks(len(rows), PAIRS_AT_ONCE):
                    self._prepare(luma, rows[block], scale, shape)

    def _prepare(
        self, luma: NDArray[np.float32], rows: NDArray[np.intp], scale: int, shape: tuple[int, int]
    ) -> None:
        """Scale the thumbnails of one shape, and transform them."""
        from scipy import fft

        (height, width), side = shape, THUMBNAIL_SIDE
        down, across = _scaling(height), _scaling(width)
        smooth_down, smooth_across = _smoothing(height) @ down, _smoothing(width) @ across
        pixels = down @ luma[rows] @ across.T - smooth_down @ luma[rows] @ smooth_across.T
        if not scale:
            self._sums[0][rows, 1 : height + 1, 1 : width + 1] = pixels
            self._sums[1][rows, 1 : height + 1, 1 : width + 1] = pixels * pixels
            self._sums[:, rows] = self._sums[:, rows].cumsum(axis=2).cumsum(axis=3)
        else:
            pixels = pixels - pixels.mean(axis=(1, 2), keepdims=True)
        energies = (pixels * pixels).sum(axis=(1, 2))
        self._energies[rows, scale] = np.maximum(energies, NOISE_VARIANCE * height * width)
        self._spectra[rows, scale] = fft.rfft2(pixels, (side, side))

    def search(
        self, inner: NDArray[np.intp], outer: NDArray[np.intp]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Search for P pictures in as many others.

        Returns
        -------
        scores : (P,) float32
            Normalised cross-correlation; 0 where the one does not fit into the other.
        boxes : (P, 4) float64
            Left, top, right, bottom as fractions of the outer picture.
        """
        scores, boxes = np.zeros(len(inner), np.float32), np.zeros((len(inner), 4))
        full = self._shapes[outer, 0]
        for scale in range(len(SCALES)):
            shapes = self._shapes[inner, scale]
            fits = (shapes <= full).all(axis=1) & (shapes.min(axis=1) >= LEAST_SIDE)
            for shape, places in _groups(shapes, fits):
                for block in iter_blocks(len(places), PAIRS_AT_ONCE):
                    at = places[block]
                    found, y, x = self._correlate(inner[at], outer[at], scale, shape)
                    better = found > scores[at]
                    at, y, x = at[better], y[better], x[better]
                    corners = np.stack([x, y, x + shape[1], y + shape[0]], axis=1)
                    boxes[at] = corners / np.tile(full[at][:, ::-1], 2)
                    scores[at] = found[better]
        return scores, boxes

    def _correlate(
        self, inner: NDArray[np.intp], outer: NDArray[np.intp], scale: int, shape: tuple[int, int]
    ) -> tuple[NDArray[np.float32], NDArray[np.intp], NDArray[np.intp]]:
        """Correlate pictures of one shape with others: the best score of each, and its place."""
        from scipy import fft

        (height, width), side = shape, THUMBNAIL_SIDE
        spectra = self._spectra[outer, 0] * self._spectra[inner, scale].conj()
        down, across = side - height + 1, side - width + 1
        products = fft.irfft2(spectra, (side, side))[:, :down, :across]
        sums = [each[outer] for each in self._sums]
        sums = [each[:, height:] - each[:, :-height] for each in sums]
        means, energies = (each[:, :, width:] - each[:, :, :-width] for each in sums)
        energies = np.maximum(
            energies - means**2 / (height * width), NOISE_VARIANCE * height * width
        )
        scores = products / np.sqrt(energies * self._energies[inner, scale][:, None, None])
        last = self._shapes[outer, 0] - shape  # beyond it, the outer picture has ended
        scores[np.arange(down) > last[:, :1]] = -1
        scores.transpose(0, 2, 1)[np.arange(across) > last[:, 1:]] = -1
        flat = scores.reshape(len(inner), -1)
        best = flat.argmax(axis=1)
        y, x = np.divmod(best, across)
        return flat[np.arange(len(flat)), best], y, x


def _groups(
    shapes: NDArray[np.intp], chosen: NDArray[np.bool_] | None = None
) -> Iterator[tuple[tuple[int, int], NDArray[np.intp]]]:
    """Yield each of (N, 2) shapes with its rows, of those that are chosen."""
    rows = np.arange(len(shapes)) if chosen is None else np.flatnonzero(chosen)
    keys = shapes[rows] @ [THUMBNAIL_SIDE + 1, 1]
    for key in np.unique(keys).tolist():
        height, width = divmod(key, THUMBNAIL_SIDE + 1)
        yield (height, width), rows[keys == key]


def _improved(a: np.void, b: np.void, place: Alignment) -> Alignment:
    """Improve a place; its score becomes the correlation of the fine detail there."""
    from scipy.ndimage import gaussian_filter

    first, second = thumbnail(a), oriented(thumbnail(b), place.orientation)
    inner, outer = (second, first) if place.swapped else (first, second)
    levels = ((FINE_SIDE, ITERATIONS),)
    pair = register(inner, outer, place.box, FINE_SIDE, levels)
    inside = pair.mask(2)
    if not inside.any():
        return place._replace(score=0.0)
    fine = []
    for image in (pair.inner, pair.warped()):
        pixels = np.asarray(image.convert("F"), np.float32)
        pixels = (pixels - gaussian_filter(pixels, SHADING_SIGMA))[inside]
        fine.append(pixels - pixels.mean())
    energies = [max(float((each * each).mean()), NOISE_VARIANCE) for each in fine]
    score = float((fine[0] * fine[1]).mean()) / np.sqrt(energies[0] * energies[1])
    box = outer_box(pair) if place.box != (0, 0, 1, 1) else place.box
    return place._replace(score=float(score), box=box)


@lru_cache(maxsize=THUMBNAIL_SIDE)
def _scaling(length: int) -> NDArray[np.float32]:
    """Reduce 32 pixels to so many: (length, 32)."""
    image = Image.fromarray(np.eye(THUMBNAIL_SIDE, dtype=np.float32))
    return np.asarray(image.resize((THUMBNAIL_SIDE, length), Image.Resampling.BILINEAR))


@lru_cache(maxsize=THUMBNAIL_SIDE)
def _smoothing(length: int) -> NDArray[np.float32]:
    """Blur so many pixels: (length, length)."""
    steps = np.arange(length)[:, None] - np.arange(length)
    weights = np.exp(-((steps / SHADING_SIGMA) ** 2) / 2)
    matrix: NDArray[np.float32] = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return matrix
