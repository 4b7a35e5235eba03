"""The picture within a picture: what lies on plain ground, in a border or on a screen."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Box = tuple[float, float, float, float]


SIDE = 256  # pixels of the longer side
GROUND_STEP = 10  # levels: what is nearer to the ground's may be it, after a JPEG's rounding
FLAT_STEP, TEXTURE_STEP = 2, 4  # levels between neighbours
LEAST_GROUND = 0.03  # of the pixels, flat and of one colour
MOST_GROUNDS = 3  # that are tried
EDGE_SHARE = 0.97  # of the outermost pixels that are alike, where there is a border
LEAST_SIDE = 0.2  # of the whole's
MOST_SIDE = 0.97  # of the whole's: the other one is shorter
LEAST_FRAMED, WHOLE_SIDE = 0.6, 0.25  # score; of a side that is one of the whole picture
AREA_WEIGHT = 0.3  # of two that are framed alike the larger one is the picture
TRIMS = 2
INSIDE_PIXELS = 6  # from an edge on, that tell how far the picture is from the ground's colour
EDGE_LEVEL = 0.25  # of that: the edge's pixel is partly picture


class _Framed(NamedTuple):
    """A rectangle, as fractions, and how well it is framed by ground."""

    score: float
    box: Box


def content_box(image: Image.Image) -> Box | None:
    """Find the largest textured rectangle with ground of one colour around it.

    Parameters
    ----------
    image
        The whole picture, RGB.

    Returns
    -------
    tuple of float or None
        (left, top, right, bottom) as fractions of width and height; None where nothing, or too
        little, is around a picture.
    """
    scale = min(1.0, SIDE / max(image.size))
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    small = image.resize(size, Image.Resampling.BOX, reducing_gap=2.0) if scale < 1 else image
    if min(size) < 2 * INSIDE_PIXELS:
        return None
    level = np.asarray(small.convert("L"), np.int16)
    steps = np.maximum(
        np.abs(level[1:, :-1] - level[:-1, :-1]), np.abs(level[:-1, 1:] - level[:-1, :-1])
    )
    pixels = np.asarray(small)
    grounds = _grounds(pixels, level, steps)
    if not grounds:
        return None
    away = [_distances(pixels, ground) for ground in grounds]
    if len(away) > 1:
        away.append(np.minimum.reduce(away))
    found = [_framed_on(each, steps >= TEXTURE_STEP) for each in away]
    framed = max((each for each in found if each), default=None)
    return framed.box if framed else None


def _grounds(
    pixels: NDArray[np.uint8], level: NDArray[np.int16], steps: NDArray[np.int16]
) -> list[NDArray[np.int16]]:
    """List the colours of plain grounds: that of a border, then the commonest flat ones."""
    ring = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]).astype(np.int16)
    middle = np.median(ring, axis=0).astype(np.int16)
    alike = np.abs(ring - middle).max(axis=1) <= GROUND_STEP
    found = [middle] if alike.mean() >= EDGE_SHARE else []
    flat = steps[::2, ::2] <= FLAT_STEP
    levels, colors = level[:-1:2, :-1:2][flat], pixels[:-1:2, :-1:2][flat]
    counts = np.convolve(np.bincount(levels, minlength=256), np.ones(3, np.int64), "same")
    while len(found) < MOST_GROUNDS and counts.max() >= LEAST_GROUND * level.size / 4:
        commonest = int(counts.argmax())
        counts[max(0, commonest - 6) : commonest + 7] = 0
        color = np.median(colors[np.abs(levels - commonest) <= 1], axis=0).astype(np.int16)
        if all(np.abs(color - each).max() > 2 for each in found):
            found.append(color)
    return found


def _distances(pixels: NDArray[np.uint8], color: NDArray[np.int16]) -> NDArray[np.int16]:
    """Levels between each pixel and a colour, in the channel that differs most: (H, W)."""
    away: NDArray[np.int16] = np.abs(pixels[..., 0] - color[0])
    for channel in (1, 2):
        np.maximum(away, np.abs(pixels[..., channel] - color[channel]), out=away)
    return away


def _framed_on(away: NDArray[np.int16], textured: NDArray[np.bool_]) -> _Framed | None:
    """Find the most textured thing on a ground: its rectangle."""
    from scipy.ndimage import find_objects, label

    labels, count = label(away > GROUND_STEP)
    if not count:
        return None
    textures = np.bincount(labels[:-1, :-1][textured], minlength=count + 1)
    thing = int(textures[1:].argmax()) + 1
    down, across = _trimmed(labels == thing, *find_objects(labels)[thing - 1])
    height, width = away.shape
    sides = (across.stop - across.start) / width, (down.stop - down.start) / height
    if min(sides) < LEAST_SIDE or min(sides) >= MOST_SIDE:
        return None
    near = away.clip(0, 4 * GROUND_STEP)
    left, right = _edges(near[down].mean(axis=0), across)
    top, bottom = _edges(near[:, across].mean(axis=1), down)
    framed = _framed(away, (left, top, right, bottom))
    if framed < LEAST_FRAMED:
        return None
    box = left / width, top / height, right / width, bottom / height
    return _Framed(framed + AREA_WEIGHT * sides[0] * sides[1], box)


def _trimmed(thing: NDArray[np.bool_], down: slice, across: slice) -> tuple[slice, slice]:
    """Cut off what hangs on a rectangle, such as letters of a list that it covers in part."""
    weights = np.where(thing, 1, -1)
    for _ in range(TRIMS):
        down = _best_run(weights[:, across].sum(axis=1), down)
        across = _best_run(weights[down].sum(axis=0), across)
    return down, across


def _best_run(weights: NDArray[np.int64], run: slice) -> slice:
    """Find the run of numbers with the greatest sum within another."""
    sums = np.concatenate([[0], np.cumsum(weights[run])])
    gains = sums[1:] - np.minimum.accumulate(sums)[:-1]
    end = int(gains.argmax()) + 1
    return slice(run.start + int(sums[:end].argmin()), run.start + end)


def _edges(profile: NDArray[np.float64], run: slice) -> tuple[float, float]:
    """Find both ends of a run, to a part of a pixel, on the mean distance from the ground."""
    return run.start + _edge(profile[run]), run.stop - _edge(profile[run][::-1])


def _edge(profile: NDArray[np.float64]) -> float:
    """Pixels before the picture starts: part of the first one, if it is blended with ground."""
    inside = float(np.median(profile[1 : 1 + INSIDE_PIXELS]))
    first = int((profile[:INSIDE_PIXELS] >= EDGE_LEVEL * inside).argmax())
    return first + 1 - min(1.0, float(profile[first]) / max(inside, 1e-3))


def _framed(away: NDArray[np.int16], box: Box) -> float:
    """Share of the ground in the lines along the four sides of a rectangle."""
    left, top = (int(np.floor(each)) for each in box[:2])
    right, bottom = (int(np.ceil(each)) for each in box[2:])
    down, across = slice(top, bottom), slice(left, right)
    lines = [away[down, max(left - 1, 0) : left], away[down, right : right + 1]]
    lines += [away[max(top - 1, 0) : top, across], away[bottom : bottom + 1, across]]
    shares = [float((each <= GROUND_STEP).mean()) if each.size else WHOLE_SIDE for each in lines]
    return sum(shares) / 4
