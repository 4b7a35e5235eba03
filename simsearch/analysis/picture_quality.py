"""Quality of single pictures: light, contrast, sharpness and size, in one decode, 40 bytes each.

All but the size is measured on the luminance at one scale, so that it does not depend on how many
pixels a camera has. Thresholds stand in `health_checks`; nothing is judged here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from simsearch.errors import QueryError, SimsearchError
from simsearch.images.address import is_uri, local_path
from simsearch.images.decode import load_image, open_image
from simsearch.images.read import read_file
from simsearch.images.read_signature import upright_size

if TYPE_CHECKING:
    from numpy.typing import NDArray


QUALITY_VERSION = 1  # of what a row holds: rows of two versions cannot be compared
WORKING_SIDE = 256  # pixels of the shorter side at most; smaller pictures are not enlarged
NEAR_STEP, FAR_STEP = 1, 5  # pixels between which the luminance of an edge is compared
EDGE_PERCENTILE = 99  # the sharpest edges count: a blurred ground behind them is no fault

QUALITY = np.dtype(
    [
        ("width", np.uint32),  # of the upright picture in its file
        ("height", np.uint32),
        ("lightest", np.float32),  # 99th percentile of the luminance, in levels of 0 to 255
        ("darkest", np.float32),  # 5th percentile
        ("contrast", np.float32),  # from the 1st to the 99th percentile
        ("sharpness", np.float32),  # see `sharpness`
        ("detail", np.float32),  # 99.9th percentile of steps between neighbours, in levels
    ]
)
"""One picture's measures; an (N,) array of it can be saved with `np.save`, without pickle."""


def measure_quality(image: Image.Image, size: tuple[int, int] | None = None) -> np.void:
    """Measure a picture.

    Parameters
    ----------
    image
        The whole picture, upright and RGB, as `load_image` gives it; perhaps decoded at a part of
        its size (`min_side` of `WORKING_SIDE` or more).
    size
        Width and height of the upright picture in its file, if it was decoded at a part of these.

    Returns
    -------
    numpy.void
        One row of dtype `QUALITY`.

    Raises
    ------
    QueryError
        If the image is not RGB.
    """
    if image.mode != "RGB":
        raise QueryError(f"quality is measured on an RGB image, not {image.mode}: use load_image")
    luma = np.asarray(_at_working_scale(image).convert("L"), np.float32)
    low, darkest, high = np.percentile(luma, (1, 5, 99))
    row = np.zeros((), QUALITY)
    row["width"], row["height"] = size or image.size
    row["lightest"], row["darkest"], row["contrast"] = high, darkest, high - low
    row["sharpness"] = sharpness(luma)
    row["detail"] = max(_edge(luma, axis, NEAR_STEP, 99.9) for axis in (0, 1))
    made: np.void = row[()]  # type: ignore[assignment]
    return made


def sharpness(luma: NDArray[np.float32]) -> float:
    """Tell how sharp the sharpest edges of a picture are, in about 0 to 1.

    The luminance of an edge is compared between neighbours, and between pixels five apart: a hard
    edge has climbed after one pixel (1.0), a blurred one climbs a fifth of the way (0.2). The 99th
    percentile of each, in levels, is taken along rows and along columns, and the lower of the two
    ratios counts, so that motion in one direction is seen. Like the measure of Crété et al. ("The
    blur effect", SPIE 2007) it does not grow with contrast. On 300 scenes and 125 photos it told
    Gaussian blur and motion from the untouched pictures at an area under the curve of 0.999 or
    more; the variance of the Laplacian (Pertuz et al., Pattern Recognition 2013), which
    cleanvision's check resembles, at 0.97 for motion.

    Parameters
    ----------
    luma : (H, W) float32
        Luminance in levels of 0 to 255.
    """
    far = min(FAR_STEP, *(side - 1 for side in luma.shape))
    if far <= NEAR_STEP:
        return 1.0  # a line of pixels: nothing can be said
    near_steps, far_steps = (
        [_edge(luma, axis, step, EDGE_PERCENTILE) for axis in (0, 1)] for step in (NEAR_STEP, far)
    )
    ratios = [near / (wide + 1) for near, wide in zip(near_steps, far_steps, strict=True)]
    return min(ratios)


def read_quality(path: str) -> np.void | str:
    """Read a picture and measure it; if it cannot be read, say why."""
    try:
        source = read_file(path) if is_uri(local_path(path)) else path
        picture = load_image(source, WORKING_SIDE)
        return measure_quality(picture, _size_in_file(source, picture))
    except SimsearchError as error:
        return str(getattr(error, "reason", error))
    except (OSError, MemoryError) as error:  # the file went while it was read; or it is too large
        return str(error) or type(error).__name__


def _size_in_file(source: Any, picture: Image.Image) -> tuple[int, int]:  # noqa: ANN401
    """Upright size in the file, of which `picture` may be a part; its own if that is unknown."""
    try:
        with open_image(source) as image:
            return upright_size(image, picture)
    except Exception:  # on damaged files, decoders raise nearly anything; the picture was repaired
        return picture.size


def _at_working_scale(image: Image.Image) -> Image.Image:
    scale = WORKING_SIDE / min(image.size)
    if scale >= 1:
        return image
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.BOX, reducing_gap=2.0)


def _edge(luma: NDArray[np.float32], axis: int, step: int, percentile: float) -> float:
    """Percentile of absolute differences between pixels so far apart; 0 where there are none."""
    along = np.moveaxis(luma, axis, 0)
    steps = np.abs(along[step:] - along[:-step])
    return float(np.percentile(steps, percentile)) if steps.size else 0.0
