"""Local comparison of two aligned pictures: tiles that differ, changed colours, overlays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageFilter

if TYPE_CHECKING:
    from numpy.typing import NDArray


EDGE = 4  # pixels
TILE = 16  # pixels, half over the next
ALIKE = 0.5  # least structural similarity of two equal tiles
MEAN_STEP = 12.0  # levels by which the means of two equal tiles differ at most
GREY_STEP = 20.0  # where one is grey, and light colours may have been clipped
CHROMA_STEP = 18.0
NOISE_VARIANCE = 12.0  # of a tile, in levels squared: less is no detail
DETAIL_VARIANCE, PLAIN_VARIANCE = 30.0, 5.0  # of tiles, where there is much detail or little
DETAILED_SHARE = 0.35  # of the tiles: a picture with less is compared with more care
PLAIN_SHARE = 0.4  # of the pixels near the commonest level: a page or a drawing
GREY_SATURATION = 3.0  # levels between the largest and smallest of R, G, B, on average
TINTED_GAIN, CLIPPED_LEVEL = 0.97, 250.0
CHANGED_STEP = 12.0  # levels of luminance, of one pixel
LEAST_CHANGED, MOST_CHANGED = 20, 0.35  # pixels, share of all: of an overlay
MOST_THICK = 0.1  # of an overlay's pixels, further than three pixels from its edge
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Comparison:
    """What two aligned pictures have in common.

    Attributes
    ----------
    unlike : float
        Share of the tiles that differ, in [0, 1].
    correlation : float
        Of the local structure, over all tiles, in [-1, 1].
    detailed : float
        Share of the tiles that hold detail.
    is_page : bool
        Whether much of a picture is plain ground, as on pages, drawings and codes.
    gains, biases : tuple of float
        That make the colours of the one those of the other, for R, G, B.
    to_grey : bool
        Whether only one of the two is grey.
    overlay : str
        What kind of layer over the picture what differs is: "clear" (see-through), "thin", or "".
    """

    unlike: float
    correlation: float
    detailed: float
    is_page: bool
    gains: tuple[float, ...]
    biases: tuple[float, ...]
    to_grey: bool
    overlay: str = ""


def compare(a: Image.Image, b: Image.Image, mask: NDArray[np.bool_]) -> Comparison | None:
    """Compare two RGB pictures of one size where the (H, W) mask is true; None if nowhere."""
    mask = mask & _frame(mask.shape)
    inside = _tile_means(mask.astype(np.float32)) > 0.999
    if not inside.any():
        return None
    smooth = [np.asarray(each.filter(ImageFilter.BoxBlur(1)), np.float32) for each in (a, b)]
    grey = [_is_grey(each) for each in smooth]
    if any(grey):
        smooth = [np.repeat((each @ LUMA)[..., None], 3, axis=2) for each in smooth]
    fits = [_fit(smooth[0][..., i], smooth[1][..., i], mask) for i in range(3)]
    gains, biases = zip(*fits, strict=True)
    fitted = (smooth[0] * np.array(gains, np.float32) + np.array(biases, np.float32)).clip(0, 255)
    for i, gain in enumerate(gains):
        if gain < TINTED_GAIN:  # what was clipped may have been anything lighter
            clipped = (smooth[0][..., i] >= CLIPPED_LEVEL) & (smooth[1][..., i] > fitted[..., i])
            fitted[clipped, i] = smooth[1][clipped, i]
    most = MEAN_STEP if grey[0] == grey[1] else GREY_STEP
    unlike, correlation, detailed = _compare_tiles(fitted, smooth[1], inside, most)
    page = any(_is_page(each[mask] @ LUMA) for each in (fitted, smooth[1]))
    overlay = _overlay(*_luminances(a, b, mask), mask) if unlike else ""
    return Comparison(
        unlike, correlation, detailed, page, gains, biases, grey[0] != grey[1], overlay
    )


def _compare_tiles(
    a: NDArray[np.float32], b: NDArray[np.float32], inside: NDArray[np.bool_], most: float
) -> tuple[float, float, float]:
    """Share of the tiles that differ, correlation of the structure, share that holds detail."""
    p, q = a @ LUMA, b @ LUMA
    chroma = np.abs(a - p[..., None] - b + q[..., None]).max(axis=-1)
    means_p, means_q = _tile_means(p), _tile_means(q)
    variance_p = _tile_means(p * p) - means_p**2
    variance_q = _tile_means(q * q) - means_q**2
    covariance = _tile_means(p * q) - means_p * means_q
    larger = np.maximum(variance_p, variance_q)
    detailed = float((larger > DETAIL_VARIANCE)[inside].mean())
    noise = DETAIL_VARIANCE if detailed >= DETAILED_SHARE else PLAIN_VARIANCE
    alike = (2 * covariance + noise) / (variance_p + variance_q + noise)
    unlike = (alike < ALIKE) & (larger > NOISE_VARIANCE)
    unlike |= (np.abs(means_p - means_q) > most) | (_tile_means(chroma) > CHROMA_STEP)
    correlation = (covariance[inside].sum() + 1) / (larger[inside].sum() + 1)
    return float(unlike[inside].mean()), float(correlation), detailed


def _luminances(
    a: Image.Image, b: Image.Image, mask: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Luminances without blur, (H, W), the first fitted to the second."""
    p, q = (np.asarray(each.convert("L"), np.float32) for each in (a, b))
    gain, bias = _fit(p, q, mask)
    return (p * np.float32(gain) + np.float32(bias)).clip(0, 255), q


def _overlay(p: NDArray[np.float32], q: NDArray[np.float32], mask: NDArray[np.bool_]) -> str:
    """Name the layer that makes one picture of the other, if what differs is one.

    All of a layer is lighter than the picture, or all darker, and it is thin or see-through. A
    thing that moved is lighter than its ground in one place and darker in the other, and hides
    what is behind it.
    """
    step = q - p
    changed = _filtered((np.abs(step) > CHANGED_STEP) & mask, ImageFilter.MedianFilter(3))
    if changed.sum() < LEAST_CHANGED or changed.mean() > MOST_CHANGED:
        return ""
    steps = step[changed]
    one_way = max(float(steps.clip(0).sum()), -float(steps.clip(None, 0).sum()))
    one_way /= float(np.abs(steps).sum())
    if one_way >= 0.97 and _shines_through(p, q, changed):
        return "clear"
    thick = _filtered(changed, ImageFilter.MinFilter(7)).sum() / changed.sum()
    return "thin" if one_way >= 0.98 and thick <= MOST_THICK else ""


def _shines_through(
    p: NDArray[np.float32], q: NDArray[np.float32], changed: NDArray[np.bool_]
) -> bool:
    """Tell whether the one picture is a weaker copy of the other where they differ."""
    core = _filtered(changed, ImageFilter.MinFilter(3))  # without the soft edges of letters
    x, y = (each[core if core.sum() >= 30 else changed] for each in (p, q))
    variance = float(x.var())
    slope = float(((x - x.mean()) * (y - y.mean())).mean()) / (variance + 1)
    left = float((y - slope * x).var())
    explained = 1 - left / (float(y.var()) + 1)
    return variance >= 200 and explained >= 0.75 and 0.03 <= slope <= 0.97


def _filtered(mask: NDArray[np.bool_], way: ImageFilter.Filter) -> NDArray[np.bool_]:
    pixels = Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).filter(way)
    filtered: NDArray[np.bool_] = np.asarray(pixels) > 0
    return filtered


def _frame(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Leave out the edge, where what is around a picture may shine in."""
    inside = np.zeros(shape, bool)
    inside[EDGE:-EDGE, EDGE:-EDGE] = True
    return inside


def _is_grey(pixels: NDArray[np.float32]) -> bool:
    return bool((pixels.max(axis=-1) - pixels.min(axis=-1)).mean() < GREY_SATURATION)


def _is_page(luminance: NDArray[np.float32]) -> bool:
    counts = np.bincount(luminance.astype(np.uint8), minlength=256)
    near = np.convolve(counts, np.ones(9, np.int64), "same")
    return bool(near.max() >= PLAIN_SHARE * luminance.size)


def _fit(
    a: NDArray[np.float32], b: NDArray[np.float32], mask: NDArray[np.bool_]
) -> tuple[float, float]:
    """Fit b = gain * a + bias, without the pixels that stand out."""
    x, y = a[mask], b[mask]
    step = max(1, len(x) // 20_000)
    x, y = x[::step], y[::step]
    gain, bias, kept = 1.0, 0.0, np.ones(len(x), bool)
    for _ in range(4):
        u, v = x[kept], y[kept]
        if len(u) < 20:
            break
        variance = u.var()
        gain = (
            float(((u - u.mean()) * (v - v.mean())).mean() / (variance + 1))
            if variance > 4
            else 1.0
        )
        bias = float(v.mean() - gain * u.mean())
        left = np.abs(gain * x + bias - y)
        kept = left <= max(4.0, 3 * float(np.median(left)))
    return gain, bias


def _tile_means(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Means of the tiles, (rows, columns)."""
    tile = min(TILE, *values.shape)
    sums = np.pad(values, ((1, 0), (1, 0))).cumsum(0, dtype=np.float64).cumsum(1)
    y, x = (np.arange(0, side - tile + 1, max(tile // 2, 1)) for side in values.shape)
    down = sums[y + tile] - sums[y]
    means: NDArray[np.float64] = (down[:, x + tile] - down[:, x]) / tile**2
    return means
