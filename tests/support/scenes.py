"""Pictures like photos, made of noise."""

import numpy as np
from PIL import Image


def scene(seed=0, size=(400, 300)):
    """Like a photo: coloured texture at every scale, strongest at the largest."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((size[1], size[0], 3))
    for cells in (3, 6, 12, 25, 50, 100):
        noise = rng.normal(size=(cells, cells, 3)) + rng.normal(size=(cells, cells, 1))
        levels = (noise * 40 + 128).clip(0, 255).astype(np.uint8)
        pixels += (
            (np.asarray(Image.fromarray(levels).resize(size, 3)) - 128.0) * 4 / (3 + cells**0.5)
        )
    return Image.fromarray((pixels + 128).clip(0, 255).astype(np.uint8))
