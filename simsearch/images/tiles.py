"""Local comparison of two aligned pictures: tiles that differ, colours that were changed, overlays."""

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
DETAILED_SHARE = 0.35  # of the tiles: a picture with less is compared with more care
PLAIN_SHARE = 0.4  # of the pixels near the commonest level: a page or a drawing
GREY_SATURATION = 3.0  # levels between the largest and smallest of R, G, B, on average
CHANGED_STEP = 12.0  # levels of luminance, of one pixel
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
    smooth_a, smooth_b = (
        np.asarray(each.filter(ImageFilter.BoxBlur(1)), np.float32) for each in (a, b)
    )
    grey_a, grey_b = (_is_grey(each) for each in (smooth_a, smooth_b))
    if grey_a or grey_b:
        smooth_a, smooth_b = (np.repeat((each @ LUMA)[..., None], 3, 2) for each in (smooth_a, smooth_b))
    gains, biases = zip(*(_fit(smooth_a[..., i], smooth_b[..., i], mask) for i in range(3)), strict=True)
    fitted = (smooth_a * np.float32(gains) + np.float32(biases)).clip(0, 255)
    p, q = fitted @ LUMA, smooth_b @ LUMA
    chroma = np.abs(fitted - p[..., None] - smooth_b + q[..., None]).max(axis=-1)
    mask = mask & _frame(mask.shape)
    inside = _tile_means(mask.astype(np.float32)) > 0.999
    if not inside.any():
        return None
    means_p, means_q = _tile_means(p), _tile_means(q)
    variance_p = _tile_means(p * p) - means_p**2
    variance_q = _tile_means(q * q) - means_q**2
    covariance = _tile_means(p * q) - means_p * means_q
    larger = np.maximum(variance_p, variance_q)
    detailed = float((larger > 30)[inside].mean())
    noise = 30.0 if detailed >= DETAILED_SHARE else 5.0
    alike = (2 * covariance + noise) / (variance_p + variance_q + noise)
    unlike = (alike < ALIKE) & (larger > NOISE_VARIANCE)
    most = MEAN_STEP if grey_a == grey_b else GREY_STEP
    unlike |= (np.abs(means_p - means_q) > most) | (_tile_means(chroma) > CHROMA_STEP)
    share = float(unlike[inside].mean())
    correlation = (covariance[inside].sum() + 1) / (larger[inside].sum() + 1)
    return Comparison(
        share,
        float(correlation),
        detailed,
        _is_page(q[mask]) or _is_page(p[mask]),
        gains,
        biases,
        grey_a != grey_b,
        _overlay(*_luminances(a, b, mask), mask) if share > 0 else "",
    )


def _luminances(a, b, mask):
    """Luminances without blur, the first fitted to the second."""
    p = np.asarray(a.convert("L"), np.float32)
    q = np.asarray(b.convert("L"), np.float32)
    gain, bias = _fit(p, q, mask)
    return (p * np.float32(gain) + np.float32(bias)).clip(0, 255), q


def _overlay(p: NDArray[np.float32], q: NDArray[np.float32], mask: NDArray[np.bool_]) -> str:
    """Tell whether what differs is one layer: all lighter or all darker, thin or see-through.

    A thing that moved is lighter than its ground in one place and darker in the other, and hides
    what is behind it.
    """
    o = overlay_evidence(p, q, mask)
    if o["sign"] < 0.97 or o["area"] > 0.35:
        return ""
    if o["r2"] >= 0.75 and o["varp"] >= 200 and 0.03 <= o["slope"] <= 0.97:
        return "clear"
    return "thin" if o["sign"] >= 0.98 and o["thick"] <= 0.1 else ""


def overlay_evidence(p, q, mask):
    step = q - p
    changed = (np.abs(step) > CHANGED_STEP) & mask
    # leave out lone pixels along edges
    opened = np.asarray(Image.fromarray(changed).convert("L").filter(ImageFilter.MedianFilter(3))) > 0
    s = step[opened]
    if s.size < 20:
        return dict(sign=0, r2=0, varp=0, slope=0, thick=1, area=0)
    sign = max(s[s > 0].sum(), -s[s < 0].sum()) / np.abs(s).sum()
    im = Image.fromarray(opened).convert("L")
    core = np.asarray(im.filter(ImageFilter.MinFilter(3))) > 0
    if core.sum() < 30: core = opened
    x, y = p[core], q[core]
    v = x.var()
    slope = ((x - x.mean()) * (y - y.mean())).mean() / (v + 1)
    res = (y - y.mean() - slope * (x - x.mean())).var()
    thick = (np.asarray(im.filter(ImageFilter.MinFilter(7))) > 0).sum() / opened.sum()
    return dict(sign=float(sign), r2=float(1 - res / (y.var() + 1)), varp=float(v), slope=float(slope), thick=float(thick), area=float(opened.mean()))


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
        gain = float(((u - u.mean()) * (v - v.mean())).mean() / (variance + 1)) if variance > 4 else 1.0
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
