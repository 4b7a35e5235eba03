"""Alignment of one picture to another that shows it: an affine map, by Gauss-Newton on a pyramid.

Lucas-Kanade with gain, bias and robust weights (inverse compositional).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Box = tuple[float, float, float, float]


LEAST_SIDE = 48  # pixels to which smaller pictures are enlarged
LEVELS = ((48, 10), (96, 5), (192, 3))  # longer side, iterations
HOPELESS_CORRELATION = 0.6  # at one level: the next ones are left out


@dataclass
class Registration:
    """Two pictures at one scale, and the map from the one to the other.

    Attributes
    ----------
    inner, outer : PIL.Image.Image
        RGB, resized so that what they share has the same size in both.
    affine : (2, 3) float64
        Maps pixels of `inner` to pixels of `outer`, both counted from the upper left corner.
    sizes : tuple
        (width, height) of inner and outer before they were resized.
    correlation : float
        Of what they share, in luminance and robust, in [-1, 1].
    inner_number : int
        Which of the two pictures that a caller compares is the inner one: 0 or 1.
    """

    inner: Image.Image
    outer: Image.Image
    affine: NDArray[np.float64]
    sizes: tuple[tuple[int, int], tuple[int, int]]
    correlation: float = -1.0
    inner_number: int = 0

    def warped(self) -> Image.Image:
        """Return what the outer picture shows in the frame of the inner one, black outside."""
        return _warp(self.outer, self.affine, self.inner.size)

    def mask(self, margin: float) -> NDArray[np.bool_]:
        """Pixels of the inner picture, (H, W), that lie in the outer one, and not at its edge."""
        return _inside(self.affine, self.inner.size, self.outer.size, margin)

    def outer_mask(self, margin: float) -> NDArray[np.bool_]:
        """Pixels of the outer picture, (H, W), that the inner one shows."""
        return _inside(_inverse(self.affine), self.outer.size, self.inner.size, margin)

    def linear(self) -> NDArray[np.float64]:
        """Return the (2, 2) part of the map between the pictures as they were before."""
        (width, height), (outer_width, outer_height) = self.sizes
        after = np.diag([outer_width / self.outer.width, outer_height / self.outer.height])
        before = np.diag([self.inner.width / width, self.inner.height / height])
        linear: NDArray[np.float64] = after @ self.affine[:, :2] @ before
        return linear


def register(
    inner: Image.Image,
    outer: Image.Image,
    box: Box,
    side: int,
    levels: Sequence[tuple[int, int]] = LEVELS,
) -> Registration:
    """Align a picture to the part of another that shows it.

    Parameters
    ----------
    inner, outer
        RGB.
    box
        About where the inner one lies in the outer: (left, top, right, bottom) as fractions.
    side
        Pixels of the longer side of the inner one while they are compared; fewer if what they
        share has fewer in one of them.
    """
    pair = _same_scale(inner, outer, box, side)
    grey = [each.convert("L").convert("F") for each in (pair.inner, pair.outer)]
    done = 0.0
    for size, iterations in levels:
        scale = min(1.0, size / max(pair.inner.size))
        if scale == done:
            break
        done = scale
        a, b = (_resize(each, [length * scale for length in each.size]) for each in grey)
        before, after = (
            np.divide(small.size, large.size) for small, large in zip((a, b), grey, strict=True)
        )
        affine = pair.affine * after[:, None] / np.append(before, 1)
        affine, pair.correlation = _lucas_kanade(np.asarray(a), b, affine, iterations)
        pair.affine = affine / after[:, None] * np.append(before, 1)
        if pair.correlation < HOPELESS_CORRELATION:
            break
    return pair


def inner_box(pair: Registration) -> Box:
    """Return the box of the outer picture in the inner one, as fractions cut to the inner one."""
    return _bounds(_inverse(pair.affine), pair.outer.size, pair.inner.size)


def outer_box(pair: Registration) -> Box:
    """Return the box of the inner picture in the outer one, as fractions cut to the outer one."""
    return _bounds(pair.affine, pair.inner.size, pair.outer.size)


def _bounds(affine: NDArray[np.float64], size: tuple[int, int], other: tuple[int, int]) -> Box:
    width, height = size
    corners = affine @ np.array([[0, width, 0, width], [0, 0, height, height], [1] * 4])
    corners = corners / np.reshape(other, (2, 1))
    left, top = np.clip(corners.min(axis=1), 0, 0.9)
    right, bottom = np.clip(corners.max(axis=1), 0.1, 1)
    return float(left), float(top), float(right), float(bottom)


def _same_scale(inner: Image.Image, outer: Image.Image, box: Box, side: int) -> Registration:
    """Resize both so that the box of the outer picture has the size of the inner one."""
    across, down = box[2] - box[0], box[3] - box[1]
    native = min(max(inner.size), max(across * outer.width, down * outer.height), side)
    scale = max(native, LEAST_SIDE) / max(inner.size)
    a = _resize(inner, [each * scale for each in inner.size])
    b = _resize(outer, [a.width / across, a.height / down])
    affine = np.array([[1.0, 0, box[0] * b.width], [0, 1, box[1] * b.height]])
    return Registration(a, b, affine, (inner.size, outer.size))


def _resize(image: Image.Image, size: Sequence[float]) -> Image.Image:
    width, height = (max(12, round(each)) for each in size)
    smaller = width < image.width
    way = Image.Resampling.HAMMING if smaller else Image.Resampling.BICUBIC
    return image.resize((width, height), way, reducing_gap=2.0 if smaller else None)


def _warp(image: Image.Image, affine: NDArray[np.float64], size: tuple[int, int]) -> Image.Image:
    way = Image.Transform.AFFINE
    return image.transform(size, way, tuple(affine.ravel()), Image.Resampling.BILINEAR)


def _inverse(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.linalg.inv(np.vstack([affine, [0, 0, 1]]))[:2]


def _inside(
    affine: NDArray[np.float64], size: tuple[int, int], outer: tuple[int, int], margin: float
) -> NDArray[np.bool_]:
    x, y = np.arange(size[0]) + 0.5, np.arange(size[1])[:, None] + 0.5
    inside = np.ones(size[::-1], bool)
    for row, length in zip(affine, outer, strict=True):
        place = row[0] * x + row[1] * y + row[2]
        inside &= (place >= margin) & (place <= length - margin)
    return inside


def _lucas_kanade(
    pixels: NDArray[np.float32], other: Image.Image, affine: NDArray[np.float64], iterations: int
) -> tuple[NDArray[np.float64], float]:
    """Improve the map at one size; return the best one met, and its correlation."""
    size = pixels.shape[1], pixels.shape[0]
    columns, center = _jacobian(pixels)
    best, highest = affine, -1.0
    for _ in range(iterations):
        inside = _inside(affine, size, other.size, 0.5).ravel()
        if inside.mean() < 0.5:
            break
        values = np.asarray(_warp(other, affine, size)).ravel()[inside]
        rows = columns[inside]
        weights = _robust_weights(rows[:, 0], values)
        correlation = _correlation(rows[:, 0], values, weights)
        if correlation > highest:
            best, highest = affine, correlation
        step = _solve(rows, values, weights)
        if step is None:
            break
        moved = (
            np.vstack([affine, [0, 0, 1]]) @ np.linalg.inv(center) @ np.linalg.inv(step) @ center
        )
        if np.abs(moved[:2] - affine).max() < 1e-3:
            break
        affine = moved[:2]
    return best, highest


def _jacobian(pixels: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return derivatives by gain, bias and map, (P, 8), and the matrix that centres places."""
    height, width = pixels.shape
    center = np.array([[1 / width, 0, -0.5], [0, 1 / width, -height / width / 2], [0, 0, 1]])
    x = ((np.arange(width) + 0.5) / width - 0.5).astype(np.float32)
    y = ((np.arange(height) + 0.5 - height / 2) / width).astype(np.float32)[:, None]
    down, across = (each * np.float32(width) for each in np.gradient(pixels))
    columns: list[NDArray[np.float32]] = [pixels, np.ones_like(pixels)]
    columns += [each * place for each in (across, down) for place in (x, y, np.ones_like(x))]
    return np.stack(columns, axis=-1).reshape(-1, 8), center


def _robust_weights(
    values: NDArray[np.float32], others: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Cauchy weights of the differences that a gain and a bias leave."""
    a, b = values - values.mean(), others - others.mean()
    left = np.abs(b - a * ((a * b).mean() / ((a * a).mean() + np.float32(1e-3))))
    scale = 3 * (1.48 * np.median(left) + 1)
    weights: NDArray[np.float32] = 1 / (1 + (left / np.float32(scale)) ** 2)
    return weights


def _correlation(
    a: NDArray[np.float32], b: NDArray[np.float32], weights: NDArray[np.float32]
) -> float:
    weights = weights / weights.sum()
    a, b = a - (weights * a).sum(), b - (weights * b).sum()
    size = (weights * a * a).sum() * (weights * b * b).sum()
    return float((weights * a * b).sum() / np.sqrt(size + 1e-6))


def _solve(
    rows: NDArray[np.float32], values: NDArray[np.float32], weights: NDArray[np.float32]
) -> NDArray[np.float64] | None:
    """Solve for a small (3, 3) map of centred places; None where the pictures do not correlate."""
    weighted = rows * weights[:, None]
    normal = (weighted.T @ rows).astype(np.float64)
    damping = np.zeros(8)
    damping[2:] = 1e-3 * np.trace(normal[2:, 2:]) / 6
    found = np.linalg.solve(normal + np.diag(damping + 1e-3), weighted.T @ values)
    if found[0] < 0.1:
        return None
    step = np.eye(3)
    step[:2] += (found[2:] / found[0]).reshape(2, 3)
    return step
