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


def textured(seed):
    """Make a scene with detail of every size, as photos have."""
    levels = np.zeros((240, 320))
    rng = np.random.default_rng(seed)
    for side in (4, 8, 16, 32, 64, 128, 256):
        noise = Image.fromarray(rng.normal(0, 1, (side, side)).astype(np.float32))
        levels += np.asarray(noise.resize((320, 240), Image.Resampling.BICUBIC)) / side**0.5
    levels = 128 + 40 * levels / levels.std()
    grey = Image.fromarray(levels.clip(0, 255).astype(np.uint8))
    return Image.blend(grey.convert("RGB"), scene(seed, (320, 240)), 0.3)
