"""Large WebP pictures decoded by torchvision, which gives the pixels of Pillow in less time.

Pillow decodes every WebP as an animation. Where PyTorch is not loaded, it stays so: to load it
takes longer than a picture; and where torchvision has no decoder, which later versions will drop.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from simsearch.images.address import is_uri, local_path

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from simsearch.images.decode import ImageSource


def load_webp(image: Image.Image, source: ImageSource) -> Image.Image | None:
    """Decode a WebP that Pillow has opened; None where only Pillow may do it.

    That is for pictures with alpha, animations, damaged files, and what is no file.

    Parameters
    ----------
    image
        Opened, and not decoded; its profile and orientation go with the result.
    source
        What it was opened from.
    """
    is_still = image.mode == "RGB" and getattr(image, "n_frames", 1) == 1
    data = _read(source) if is_still and "torch" in sys.modules else b""
    if not data:
        return None
    try:
        pixels = _decode(data)
    except (ImportError, RuntimeError, DeprecationWarning):  # it is not there, or data are damaged
        return None
    if pixels.shape != (image.height, image.width, 3):
        return None
    decoded = Image.fromarray(pixels)
    decoded.info = image.info
    return decoded


def _decode(data: bytes) -> NDArray[np.uint8]:
    """Decode to (H, W, 3)."""
    import torch
    from torchvision.io import ImageReadMode, decode_webp

    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    pixels: NDArray[np.uint8] = decode_webp(encoded, mode=ImageReadMode.RGB).numpy()
    return pixels.transpose(1, 2, 0)


def _read(source: ImageSource) -> bytes:
    """Return the bytes of a file; none of what is at an address, or was opened by the caller."""
    if isinstance(source, bytes):
        return source
    if isinstance(source, (str, os.PathLike)) and not is_uri(path := local_path(source)):
        return Path(os.path.expanduser(path)).read_bytes()  # noqa: PTH111 ("~1.jpg" is a name)
    return b""
