"""Decoding of 12-megapixel pictures for a backbone: CPU milliseconds by format, Pillow and ours.

    python benchmarks/decode.py [--rounds 3]

The picture is a mosaic of 48 photos beside the project, written in each format. "Pillow" decodes it
as `load_image` did before; both take turns, and the best of the rounds counts. The cosine is that
of EfficientNet-Lite0's rows of both.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from common import PHOTOS
from PIL import Image

import simsearch as ss
from simsearch.images import webp

SIDE, TILE = (4032, 3024), 504
FORMATS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 90},
    "WEBP": {"quality": 85, "method": 2},
    "WEBP lossless": {"lossless": True, "method": 0},
    "PNG": {"compress_level": 3},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    backbone = ss.load_backbone("efficientnet_lite0", device="cpu", runtime="torch")
    print(f"{'':<15} {'Pillow':>9} {'simsearch':>9}  CPU ms, cosine")
    picture, by_torchvision = mosaic(), webp.load_webp
    for name, settings in FORMATS.items():
        stream = io.BytesIO()
        picture.save(stream, name.split()[0], **settings)
        data = stream.getvalue()
        best, images = [np.inf, np.inf], [picture, picture]
        loaders: tuple[Callable[..., Any], ...] = (lambda *_: None, by_torchvision)
        for _ in range(options.rounds):
            for i, loader in enumerate(loaders):
                webp.load_webp = loader
                start = time.process_time()
                images[i] = ss.load_image(data, backbone.min_side)
                best[i] = min(best[i], (time.process_time() - start) * 1e3)
        cosine = float(np.prod(backbone.encode(images), axis=0).sum())
        print(f"{name:<15} {best[0]:9.0f} {best[1]:9.0f}  {cosine:.6f}", flush=True)


def mosaic() -> Image.Image:
    """Lay 48 photos side by side."""
    photos = iter(sorted(PHOTOS.iterdir()))
    whole = Image.new("RGB", SIDE)
    for top in range(0, SIDE[1], TILE):
        for left in range(0, SIDE[0], TILE):
            whole.paste(ss.load_image(next(photos)).resize((TILE, TILE)), (left, top))
    return whole


if __name__ == "__main__":
    main()
