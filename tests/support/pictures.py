"""Small pictures and image files made in memory, with all that a decoder must understand."""

import io
import os
import struct
import zlib
from contextlib import contextmanager

import numpy as np
from PIL import ExifTags, Image, ImageCms

from simsearch.images.decode import load_image

NOBODY = 65534


def smooth(width=96, height=64):
    """Redder to the right and greener downwards: compresses well, and no two sides are alike."""
    y, x = np.mgrid[:height, :width] / np.reshape([height, width], (2, 1, 1))
    return (np.stack([x, y, (x + y) / 4], axis=-1) * 255).astype(np.uint8)


def pixels(image):
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def same(image, other):
    return np.array_equal(pixels(image), pixels(other))


def difference(image, array):
    """Mean absolute difference, in levels of 0 to 255."""
    assert image.size == (array.shape[1], array.shape[0])
    return np.abs(pixels(image) - array).mean()


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(*chunks):
    """A PNG file of chunks that are made by hand."""
    file = b"\x89PNG\r\n\x1a\n"
    for name, body in chunks:
        size, check = (struct.pack(">I", n) for n in (len(body), zlib.crc32(name + body)))
        file += size + name + body + check
    return file


@contextmanager
def as_nobody():
    """Lay down root's rights, for which no file is unreadable."""
    root = os.geteuid() == 0
    try:
        if root:
            os.seteuid(NOBODY)
        yield
    finally:
        if root:
            os.seteuid(0)


def wide(text):
    return text.encode("utf-16-be")


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SWAPPED = (  # a profile whose red is sRGB's blue and the other way round
    SRGB.replace(b"rXYZ", b"????")
    .replace(b"bXYZ", b"rXYZ")
    .replace(b"????", b"bXYZ")
    .replace(wide("sRGB"), wide("test"))
)


def black_only():
    """A CMYK profile (one 2^4 table) in which cyan, magenta and yellow leave no trace."""
    lightness = np.indices((2, 2, 2, 2))[3].ravel() ^ 1
    table = np.stack([lightness * 255, lightness * 0 + 128, lightness * 0 + 128], axis=1)
    ramps = bytes(range(256))
    lut = struct.pack(">4s4x4B9i", b"mft1", 4, 3, 2, 0, *np.eye(3, dtype=int).ravel() * 65536)
    lut += ramps * 4 + table.astype(np.uint8).tobytes() + ramps * 3
    text = struct.pack(">4s4xI", b"desc", 5) + b"inks\0" + bytes(78 + 1)
    start = 128 + 4 + 2 * 12
    tags = struct.pack(">I4sII", 2, b"desc", start, len(text))
    tags += struct.pack(">4sII", b"A2B0", start + len(text), len(lut))
    size = start + len(text) + len(lut)
    head = struct.pack(">I4xI4s4s4s12x4s28x", size, 0x02400000, b"prtr", b"CMYK", b"Lab ", b"acsp")
    return (
        head
        + struct.pack(">3i", 63190, 65536, 54061)
        + bytes(128 - len(head) - 12)
        + tags
        + text
        + lut
    )


STORED = {  # how an upright picture lies in a file of each EXIF orientation
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: np.rot90,
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


def oriented(array, orientation, kind="PNG"):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    image = Image.fromarray(np.ascontiguousarray(array))
    return encoded(image, kind, exif=exif.tobytes(), quality=95)


def row(mode, *values):
    image = Image.new(mode, (len(values), 1))
    image.putdata(values)
    return image


def loaded_row(source):
    """The pixels of a one-row picture."""
    return [*map(tuple, pixels(load_image(source))[0].tolist())]


def grey(*levels):
    return [(level,) * 3 for level in levels]


def over_white(*colours):
    """By hand: alpha of the colour and the rest of white."""
    return np.array([[c * a / 255 + 255 - a for c in rgb] for *rgb, a in colours])


def photo(kind):
    rng = np.random.default_rng(0)
    return encoded(Image.fromarray(rng.integers(0, 256, (64, 96, 3), np.uint8)), kind)
