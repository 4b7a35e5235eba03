import io
import math
import os
import socket
import stat
import struct
import tempfile
import time
import zlib
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from local_server import serve
from PIL import EpsImagePlugin, ExifTags, Image, ImageCms, ImageOps

from simsearch.errors import DatasetError, ImageError, QueryError
from simsearch.images import decode as images
from simsearch.images import download as download_module
from simsearch.images import find as find_module
from simsearch.images.decode import describe, load_image
from simsearch.images.download import download, is_url
from simsearch.images.find import find_images

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


@pytest.fixture(autouse=True)
def prepared():
    """Register the decoders within each test: pytest undoes their warning filters after it."""
    images._register_formats.cache_clear()
    images._register_formats()


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


@pytest.fixture
def public():
    """A folder that nobody can reach, too (pytest's own are closed to others)."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


# Colour profiles to put into files


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


# Formats

FORMATS = {  # suffix: (options, largest mean difference)
    "jpg": ({"quality": 95}, 1.5),
    "jfif": ({"format": "JPEG", "progressive": True, "quality": 95}, 1.5),
    "png": ({}, 0),
    "webp": ({"quality": 95}, 2),
    "avif": ({"quality": 95}, 2),
    "heic": ({"quality": 95}, 2),
    "heif": ({"quality": 95}, 2),
    "bmp": ({}, 0),
    "tif": ({}, 0),
    "tiff": ({"compression": "tiff_lzw"}, 0),
    "gif": ({}, 5),  # 256 colours
}


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_comes_back(suffix, tmp_path):
    options, tolerance = FORMATS[suffix]
    path = tmp_path / f"picture.{suffix}"
    Image.fromarray(smooth()).save(path, **options)
    image = load_image(path)
    assert difference(image, smooth()) <= tolerance
    for source in (str(path), path.read_bytes()):
        assert same(load_image(source), image)


def test_every_listed_suffix_is_read(tmp_path):
    for suffix in find_module.SUFFIXES:
        kind = Image.registered_extensions()[suffix]
        path = tmp_path / f"picture{suffix.upper()}"
        Image.fromarray(smooth()).save(path, kind)
        assert load_image(path).size == (96, 64)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_first_frame_is_taken(kind):
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    file = encoded(first, kind, save_all=True, append_images=[second], lossless=True)
    with Image.open(io.BytesIO(file)) as film:
        assert film.n_frames == 2
    assert same(load_image(file), first)


def test_suffix_does_not_matter(tmp_path):
    path = tmp_path / "really_a_png.jpg"
    Image.fromarray(smooth()).save(path, "PNG")
    assert difference(load_image(path), smooth()) == 0


@pytest.mark.parametrize("size", [(1, 1), (30_000, 1), (1, 30_000)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_extreme_shapes(kind, size):
    file = encoded(Image.new("RGB", size, (90, 160, 30)), kind)
    image = load_image(file, min_side=224)
    assert image.size == size
    assert np.abs(pixels(image) - (90, 160, 30)).max() <= 2


def test_home_folder_is_understood(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    Image.new("RGB", (5, 7)).save(tmp_path / "1.png")
    assert load_image("~/1.png").size == (5, 7)


def test_name_that_begins_with_a_tilde(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (5, 7)).save("~1.png")
    assert load_image("~1.png").size == (5, 7)


# Orientation

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


@pytest.mark.parametrize("orientation", STORED)
def test_hand_made_picture_ends_upright(orientation):
    upright = np.array([[(255, 0, 0), (0, 255, 0), (0, 0, 255)], [(9, 9, 9)] * 3], np.uint8)
    file = oriented(STORED[orientation](upright), orientation)
    assert np.array_equal(load_image(file), upright)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
@pytest.mark.parametrize("orientation", STORED)
def test_every_format_ends_upright(kind, orientation):
    file = oriented(STORED[orientation](smooth()), orientation, kind)
    image = load_image(file)
    assert difference(image, smooth()) < 2
    with Image.open(io.BytesIO(file)) as raw:
        assert same(image, ImageOps.exif_transpose(raw).convert("RGB"))
        assert same(image, load_image(raw))


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_loading_twice_changes_no_more(kind):
    for file in (
        oriented(smooth(), 6, kind),
        encoded(Image.fromarray(smooth()), kind, icc_profile=SWAPPED),
    ):
        assert same(load_image(load_image(file)), load_image(file))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_unknown_orientation_is_left_aside(orientation):
    assert difference(load_image(oriented(smooth(), orientation)), smooth()) == 0


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x026\0\0\0\0\0\0\0",
        b"Exif\0\0rubbish!",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff",
        b"Exif\0\0MM\0*",
        b"Exif\0\0",
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_broken_exif_is_left_aside(kind, exif):
    file = encoded(Image.fromarray(smooth()), kind, exif=exif, quality=95)
    assert difference(load_image(file), smooth()) < 2


# Modes

INKS = [(0, 0, 0, 0), (255, 0, 0, 0), (0, 200, 40, 0), (10, 20, 30, 128), (0, 0, 0, 255)]


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


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_alpha_is_laid_over_white(kind):
    colours = [(200, 100, 0, 255), (200, 100, 0, 128), (200, 100, 0, 1), (0, 0, 0, 0)]
    file = encoded(row("RGBA", *colours), kind, lossless=True, exact=True)
    assert np.abs(loaded_row(file) - over_white(*colours)).max() < 1


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_with_alpha_is_laid_over_white(kind):
    levels = [(100, 255), (100, 128), (100, 0)]
    wanted = over_white(*((grey, grey, grey, alpha) for grey, alpha in levels))
    assert np.abs(loaded_row(encoded(row("LA", *levels), kind)) - wanted).max() < 1


def test_rare_modes_with_alpha():
    entries = Image.frombytes("PA", (2, 1), bytes([0, 0, 1, 255]))
    entries.putpalette([9, 9, 9, 8, 8, 8])
    premultiplied = row("RGBA", (9, 9, 9, 0), (8, 8, 8, 255)).convert("RGBa")
    for image in (entries, premultiplied):
        assert loaded_row(image) == grey(255, 8)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF"])
def test_palette(kind):
    image = row("P", 0, 1, 2)
    image.putpalette([255, 0, 0, 0, 255, 0, 12, 34, 56])
    assert loaded_row(encoded(image, kind)) == [(255, 0, 0), (0, 255, 0), (12, 34, 56)]


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_palette_with_a_transparent_entry(kind):
    image = row("P", 0, 1)
    image.putpalette([255, 0, 0, 0, 255, 0])
    assert loaded_row(encoded(image, kind, transparency=1)) == [(255, 0, 0), (255, 255, 255)]


def test_palette_with_an_alpha_each():
    image = row("P", 0, 1)
    image.putpalette([200, 0, 0, 0, 200, 0])
    file = encoded(image, "PNG", transparency=bytes([255, 128]))
    assert np.abs(loaded_row(file) - over_white((200, 0, 0, 255), (0, 200, 0, 128))).max() < 1


def test_palette_that_holds_alpha_itself():
    image = row("RGBA", (200, 0, 0, 255), (0, 0, 200, 0)).quantize()
    assert "transparency" not in image.info
    assert loaded_row(image) == [(200, 0, 0), (255, 255, 255)]


@pytest.mark.parametrize(
    ("image", "key", "wanted"),
    [
        (row("RGB", (1, 2, 3), (1, 2, 4)), (1, 2, 3), [(255, 255, 255), (1, 2, 4)]),
        (row("L", 50, 51), 50, grey(255, 51)),
        (row("1", 0, 255), 0, grey(255, 255)),
    ],
)
def test_transparent_colour_key(image, key, wanted):
    assert loaded_row(encoded(image, "PNG", transparency=key)) == wanted


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "JPEG", "GIF"])
def test_grey(kind):
    assert loaded_row(encoded(Image.new("L", (16, 8), 77), kind)) == grey(*[77] * 16)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_one_bit(kind):
    assert loaded_row(encoded(row("1", 0, 255, 255), kind)) == grey(0, 255, 255)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_16_bit_grey(kind, order):
    levels = np.array([[0, 257, 128 * 257 + 90, 65535]], order)
    mode = "I;16" if order == "<u2" else "I;16B"
    image = Image.frombytes(mode, (4, 1), levels.tobytes())
    assert loaded_row(encoded(image, kind)) == grey(0, 1, 128, 255)


def test_16_bit_colour():
    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    line = struct.pack(">B3H", 0, 65535, 128 * 257, 257)
    file = png((b"IHDR", header), (b"IDAT", zlib.compress(line)), (b"IEND", b""))
    assert loaded_row(file) == [(255, 128, 1)]


@pytest.mark.parametrize(
    ("mode", "levels", "wanted"),
    [
        ("I", [0, 100, 255], [0, 100, 255]),
        ("I", [0, 256], [0, 1]),
        ("I", [0, 257, 65535], [0, 1, 255]),
        ("I", [-5, 70_000, 51_400], [0, 255, 200]),
        ("F", [0, 0.2, 1], [0, 51, 255]),
        ("F", [0, 51.2, 255], [0, 51, 255]),
        ("F", [0, 25_700, 65535], [0, 100, 255]),
        ("F", [-0.5, np.nan, 0.4], [0, 0, 102]),
        ("F", [np.nan, np.nan], [0, 0]),
        ("F", [np.inf, -np.inf], [255, 0]),
    ],
)
def test_deep_grey_is_scaled_to_the_range_that_fits(mode, levels, wanted):
    file = encoded(row(mode, *levels), "TIFF")
    with Image.open(io.BytesIO(file)) as image:
        assert image.mode == mode
    assert loaded_row(file) == grey(*wanted)


def test_cmyk_tiff():
    image = row("CMYK", *INKS)
    by_hand = [tuple(round((255 - c) * (255 - k) / 255) for c in inks) for *inks, k in INKS]
    assert np.abs(np.subtract(loaded_row(encoded(image, "TIFF")), by_hand)).max() <= 1


@pytest.mark.parametrize("inks", INKS)
def test_cmyk_jpeg(inks):
    image = Image.new("CMYK", (16, 16), inks)
    wanted = np.asarray(image.convert("RGB")).astype(int)
    assert difference(load_image(encoded(image, "JPEG", quality=95)), wanted) <= 2


@pytest.mark.parametrize("mode", ["YCbCr", "HSV", "RGBX"])
def test_other_modes_of_pil(mode):
    assert difference(load_image(Image.fromarray(smooth()).convert(mode)), smooth()) < 3


# Colour profiles


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_profile_is_converted(kind):
    file = encoded(Image.fromarray(smooth()), kind, icc_profile=SWAPPED, quality=95)
    assert difference(load_image(file), smooth()[..., ::-1]) < 2


def test_profile_of_an_image_with_alpha():
    image = row("RGBA", (200, 100, 0, 255), (200, 100, 0, 128), (0, 0, 0, 0))
    wanted = over_white((0, 100, 200, 255), (0, 100, 200, 128), (0, 0, 0, 0))
    assert np.abs(loaded_row(encoded(image, "PNG", icc_profile=SWAPPED)) - wanted).max() < 2


def test_profile_of_a_palette():
    image = row("P", 0, 1)
    image.putpalette([255, 0, 0, 0, 255, 0])
    wanted = [(0, 0, 255), (0, 255, 0)]
    assert (
        np.abs(np.subtract(loaded_row(encoded(image, "PNG", icc_profile=SWAPPED)), wanted)).max()
        < 2
    )


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_profile_of_inks(kind):
    def middle(inks):
        file = encoded(Image.new("CMYK", (16, 16), inks), kind, icc_profile=black_only())
        return pixels(load_image(file))[8, 8]

    assert middle((255, 128, 7, 0)).min() >= 253
    assert middle((0, 128, 255, 255)).max() <= 2


@pytest.mark.parametrize(
    "profile", [SRGB, b"rubbish", SWAPPED[:200]], ids=["sRGB", "rubbish", "cut"]
)
def test_profile_that_changes_nothing(profile):
    file = encoded(Image.fromarray(smooth()), "PNG", icc_profile=profile)
    assert difference(load_image(file), smooth()) == 0


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_profile_of_another_mode_is_left_aside(mode):
    plain = Image.new(mode, (4, 4), "gray")
    file = encoded(plain, "TIFF", icc_profile=SWAPPED)
    assert np.abs(pixels(load_image(file)) - pixels(load_image(plain))).max() <= 1


# Size limits


@pytest.mark.parametrize("size", [(50_000, 50_000), (2**31 - 1, 2**31 - 1), (178_956_971, 1)])
def test_decompression_bomb_is_refused(size):
    with pytest.raises(ImageError, match="limit of 178,956,970"):
        load_image(png((b"IHDR", struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)), (b"IDAT", b"")))


@pytest.mark.parametrize("kind", ["file", "array", "PIL"])
def test_limit_of_pixels(kind, monkeypatch):
    image = Image.fromarray(smooth())
    source = {"file": encoded(image, "PNG"), "array": smooth(), "PIL": image}[kind]
    monkeypatch.setattr(images, "MAX_PIXELS", 96 * 64)
    assert same(load_image(source), image)
    monkeypatch.setattr(images, "MAX_PIXELS", 96 * 64 - 1)
    with pytest.raises(ImageError, match="96×64 pixels, over the limit of 6,143"):
        load_image(source)


def test_large_image_within_the_limit_makes_no_warning(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 96 * 64 - 1)
    assert load_image(encoded(Image.fromarray(smooth()), "PNG")).size == (96, 64)


# Decoding a JPEG at the scale that is needed


@pytest.mark.parametrize("min_side", [None, 1, 75, 76, 150, 151, 300, 301, 600, 601, 9999])
@pytest.mark.parametrize("orientation", [1, 6])
def test_draft_keeps_enough_pixels_and_the_look(min_side, orientation):
    file = oriented(STORED[orientation](smooth(800, 600)), orientation, "JPEG")
    image = load_image(file, min_side)
    assert min(image.size) >= min(min_side or 600, 600)
    assert (image.size == (800, 600)) == (min_side is None or min_side > 300)
    assert difference(image.resize((80, 60)), smooth(80, 60)) < 2


def test_only_jpegs_are_drafted():
    file = encoded(Image.fromarray(smooth(800, 600)), "PNG")
    assert load_image(file, min_side=50).size == (800, 600)


# Sources in memory


@pytest.mark.parametrize(
    ("array", "wanted"),
    [
        (np.array([[0, 7, 255]], np.uint8), grey(0, 7, 255)),
        (np.array([[[0], [7], [255]]], np.uint8), grey(0, 7, 255)),
        (np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8), [(1, 2, 3), (4, 5, 6)]),
        (np.array([[[1, 2, 3, 255], [4, 5, 6, 0]]], np.uint8), [(1, 2, 3), (255, 255, 255)]),
        (np.array([[True, False]]), grey(255, 0)),
        (np.array([[0, 257, 65535]], np.uint16), grey(0, 1, 255)),
        (np.array([[0, 257, 65535]], ">u2"), grey(0, 1, 255)),
        (np.array([[0, 0.2, 1]], np.float16), grey(0, 51, 255)),
        (np.array([[0, 0.2, 1]], np.float32), grey(0, 51, 255)),
        (np.array([[[0, 0.2, 1]]], np.float64), [(0, 51, 255)]),
        (np.arange(12, dtype=np.uint8).reshape(3, 2, 2).T[:1, :, ::-1], [(8, 4, 0), (10, 6, 2)]),
    ],
    ids=lambda value: f"{value.dtype}{value.shape}" if isinstance(value, np.ndarray) else "",
)
def test_arrays(array, wanted):
    before = array.copy()
    assert loaded_row(array) == wanted
    assert np.array_equal(array, before)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.array(1.0), "the shape must be"),
        (np.zeros(5, np.uint8), "the shape must be"),
        (np.zeros((2, 2, 2), np.uint8), "the shape must be"),
        (np.zeros((3, 8, 8), np.uint8), "the shape must be"),
        (np.zeros((1, 2, 2, 3), np.uint8), "the shape must be"),
        (np.zeros((0, 4, 3), np.uint8), "the shape must be"),
        (np.full((2, 2), 255.0), r"must lie in \[0, 1\]; give uint8"),
        (np.full((2, 2), -0.1), r"must lie in \[0, 1\]"),
        (np.full((2, 2), np.nan), r"must lie in \[0, 1\]"),
        (np.full((2, 2), np.inf), r"must lie in \[0, 1\]"),
        (np.zeros((2, 2), np.int64), "dtype int64 is not bool, uint8, uint16 or float"),
        (np.zeros((2, 2), complex), "dtype complex128"),
        (np.array([["a"]]), "dtype <U1"),
    ],
)
def test_arrays_that_are_no_image(array, reason):
    with pytest.raises(ImageError, match=reason) as error:
        load_image(array)
    assert f"array {array.shape}" in str(error.value)


@pytest.mark.parametrize("source", [None, 7, ["a.jpg"], bytearray(b"x")])
def test_other_objects_are_no_image(source):
    with pytest.raises(ImageError, match=f"{type(source).__name__} is not an image source; give"):
        load_image(source)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
def test_pil_image_stays_open_and_unchanged(mode, tmp_path):
    Image.fromarray(smooth()).convert(mode).save(tmp_path / "1.png")
    with Image.open(tmp_path / "1.png") as image:
        copy = load_image(image)
        before = image.tobytes()
        assert image.mode == mode
        copy.paste("white", (0, 0, *copy.size))
        assert image.tobytes() == before
        assert difference(load_image(image), np.asarray(image.convert("RGB")).astype(int)) == 0


def test_film_can_still_be_played(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "1.gif", save_all=True, append_images=frames[1:])
    with Image.open(tmp_path / "1.gif") as film:
        assert same(load_image(film), frames[0])
        film.seek(1)
        assert same(load_image(film), frames[1])


def test_result_outlives_its_file(tmp_path):
    Image.fromarray(smooth()).save(tmp_path / "1.png")
    image = load_image(tmp_path / "1.png")
    (tmp_path / "1.png").unlink()
    assert difference(image, smooth()) == 0


def test_closed_pil_image():
    image = Image.open(io.BytesIO(encoded(Image.new("RGB", (2, 2)), "PNG")))
    image.close()
    with pytest.raises(ImageError, match="closed"):
        load_image(image)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("a/b.jpg", "a/b.jpg"),
        (Path("a/b.jpg"), "a/b.jpg"),
        (b"x" * 1234, "1,234 bytes"),
        (Image.new("L", (3, 2)), "PIL image 3×2"),
        (np.zeros((2, 3)), "array (2, 3)"),
        (5, "5"),
    ],
)
def test_describe(source, text):
    assert describe(source) == text


def test_describe_names_the_file_of_a_pil_image(tmp_path):
    Image.new("L", (3, 2)).save(tmp_path / "1.png")
    with Image.open(tmp_path / "1.png") as image:
        assert describe(image) == str(tmp_path / "1.png")


# What cannot be read


def photo(kind):
    rng = np.random.default_rng(0)
    return encoded(Image.fromarray(rng.integers(0, 256, (64, 96, 3), np.uint8)), kind)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"just some text", "not a supported image format"),
        (b"\xff\xd8\xff", "not a supported image format"),
        (photo("JPEG")[:2000], "truncated"),
        (photo("PNG")[:2000], "truncated"),
        (photo("GIF")[:1000], "truncated"),
        (b"%PDF-1.4 a document", "not a supported image format"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"></svg>', "not a supported image format"),
        (encoded(Image.new("RGB", (4, 4)), "PPM"), "not a supported image format"),
    ],
)
def test_message_names_file_and_reason(content, reason, tmp_path):
    path = tmp_path / "1.jpg"
    path.write_bytes(content)
    for source in (path, content):
        with pytest.raises(ImageError, match=reason) as error:
            load_image(source)
        assert str(error.value) == f"cannot read {describe(source)}: {error.value.reason}"


def test_bad_file_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "1.jpg").write_text("just some text")
    with pytest.raises(ImageError, match=r"~/1\.jpg: not a supported image format"):
        load_image("~/1.jpg")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.jpg", "no such file or directory"),
        ("folder.jpg", "is a directory"),
        ("folder.jpg/1.jpg", "no such file or directory"),
        ("a\0b.jpg", "null"),
    ],
)
def test_path_that_leads_to_no_file(name, reason, tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    with pytest.raises(ImageError, match=reason) as error:
        load_image(tmp_path / name)
    assert str(tmp_path / name) in str(error.value)


def test_file_without_permission(public):
    path = public / "1.png"
    Image.new("RGB", (2, 2)).save(path)
    path.chmod(0)
    with as_nobody(), pytest.raises(ImageError, match=r"1\.png: permission denied"):
        load_image(path)
    path.chmod(0o644)
    with as_nobody():
        assert load_image(path).size == (2, 2)


def test_postscript_named_jpg_starts_no_program(tmp_path, monkeypatch):
    trace = tmp_path / "ran"
    ghostscript = tmp_path / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {trace}\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    path = tmp_path / "1.jpg"
    Image.new("RGB", (4, 4)).save(path, "EPS")
    with pytest.raises(ImageError, match="not a supported image format"):
        load_image(path)
    assert not trace.exists()
    with Image.open(path) as image, pytest.raises(OSError, match=r"\w"):
        image.load()  # what Pillow alone would do
    assert trace.exists()


@pytest.fixture(scope="module")
def seeds():
    small = Image.fromarray(smooth(24, 16))
    return {
        "JPEG": encoded(small, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0", icc_profile=SWAPPED),
        "PNG": encoded(small.quantize(8), "PNG", icc_profile=SWAPPED),
        "WEBP": encoded(small, "WEBP"),
        "GIF": encoded(small, "GIF"),
        "TIFF": encoded(small, "TIFF", compression="tiff_lzw"),
    }


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF"])
@settings(max_examples=60, deadline=None, database=None)
@given(
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=6),
    length=st.floats(0, 1) | st.just(1.0),
)
def test_damaged_files_give_an_image_or_an_image_error(seeds, kind, flips, length):
    file = bytearray(seeds[kind])
    for place, mask in flips:
        file[int(place * len(file))] ^= mask
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "MAX_PIXELS", 2**20)  # a flipped size would only cost time
        try:
            image = load_image(bytes(file[: int(length * len(file))]))
        except ImageError:
            return
    assert image.mode == "RGB"


# URLs


class Site(BaseHTTPRequestHandler):
    """Each page is a method; `ftp` is the port of a server that must not be called."""

    ftp = 0

    def do_GET(self):
        getattr(self, self.path.strip("/").partition(".")[0], self.missing)()

    def answer(self, body=b"", code=200, **headers):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def good(self):
        self.answer(encoded(Image.fromarray(smooth()), "PNG"))

    def moved(self):
        self.answer(code=302, Location="/good.png")

    def missing(self):
        self.answer(code=404)

    def text(self):
        self.answer(b"<html>an error page</html>", Content_Type="image/jpeg")

    def empty(self):
        self.answer()

    def half(self):
        body = photo("PNG")
        self.answer(body[: len(body) // 2], Content_Length=len(body))

    def rubbish(self):
        self.wfile.write(b"this is no HTTP\r\n\r\n")

    def drip(self):
        self.answer()
        self.trickle(b".", 0.05)

    def silence(self):
        self.answer(b"a few bytes")
        self.trickle(b"", 0.05)

    def trickle(self, chunk, pause):
        try:
            for _ in range(200):
                self.wfile.write(chunk)
                time.sleep(pause)
        except OSError:
            pass  # the client has left

    def to_ftp(self):
        self.answer(code=302, Location=f"ftp://127.0.0.1:{self.ftp}/1.jpg")

    def to_file(self):
        self.answer(code=302, Location="file:///etc/passwd")

    def round(self):
        self.answer(code=302, Location="/round")

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def site():
    with serve(Site) as address:
        yield address


@pytest.mark.parametrize("page", ["good.png", "good", "moved"])
def test_url(site, page):
    assert difference(load_image(f"{site}/{page}"), smooth()) == 0
    assert download(f"{site}/{page}") == encoded(Image.fromarray(smooth()), "PNG")


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        ("nowhere.jpg", "404 Not Found"),
        ("text.jpg", "not a supported image format"),
        ("empty.jpg", "the file is empty"),
        ("half.png", "truncated"),
        ("rubbish", "this is no HTTP"),
        ("to_file", "file:///etc/passwd' is not allowed"),
        ("round", "infinite loop"),
        ("a b.jpg", "control characters"),
    ],
)
def test_url_without_an_image(site, page, reason):
    with pytest.raises(ImageError, match=reason) as error:
        load_image(f"{site}/{page}")
    assert str(error.value) == f"cannot read {site}/{page}: {error.value.reason}"


@pytest.mark.parametrize(
    "url", ["http://nowhere.example/1.jpg", "http://", "http://[::1/1.jpg", "https://127.0.0.1:x/"]
)
def test_url_without_a_server(url):
    with pytest.raises(ImageError) as error:
        download(url)
    assert str(error.value).startswith(f"cannot read {url}: ")


def test_download_reads_only_from_the_web(tmp_path):
    (tmp_path / "secret").write_text("mine")
    with pytest.raises(ImageError, match="neither http nor https"):
        download((tmp_path / "secret").as_uri())


def test_redirect_to_ftp_is_not_followed(site, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        monkeypatch.setattr(Site, "ftp", server.getsockname()[1])
        with pytest.raises(ImageError, match=r"ftp://.* is neither http nor https"):
            load_image(f"{site}/to_ftp")
        with pytest.raises(BlockingIOError):
            server.accept()


def test_download_limit(site, monkeypatch):
    size = len(encoded(Image.fromarray(smooth()), "PNG"))
    monkeypatch.setattr(download_module, "MAX_DOWNLOAD_BYTES", size)
    assert len(download(f"{site}/good.png")) == size
    monkeypatch.setattr(download_module, "MAX_DOWNLOAD_BYTES", size - 1)
    with pytest.raises(ImageError, match=rf"good\.png: over {size - 1:,} bytes"):
        load_image(f"{site}/good.png")


@pytest.mark.parametrize(
    ("page", "reason"), [("drip", "over 0.3 seconds|timed out"), ("silence", "timed out")]
)
def test_slow_server(site, page, reason, monkeypatch):
    monkeypatch.setattr(download_module, "DOWNLOAD_SECONDS", 0.3)
    start = time.monotonic()
    with pytest.raises(ImageError, match=reason):
        load_image(f"{site}/{page}")
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("source", "answer"),
    [
        ("http://a/b.jpg", True),
        ("HTTPS://a/b.jpg", True),
        ("ftp://a/b.jpg", False),
        ("http/b.jpg", False),
        (Path("http://a"), False),
        (b"http://a", False),
    ],
)
def test_is_url(source, answer):
    assert is_url(source) is answer


# Finding images


def plant(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode(errors="surrogateescape"))


def found(root, **options):
    """Names alone; nothing may be skipped."""
    files, skipped = find_images(root, **options)
    assert skipped == []
    return [file.name for file in files]


def test_images_are_listed_by_name(tmp_path):
    names = ["b.png", "a/z.jpg", "a.jpg", "a-b.jpg", "a/b/c/d.tif", "B.webp", "10.gif", "9.bmp"]
    plant(tmp_path, *names)
    assert found(tmp_path) == found(str(tmp_path)) == found(f"{tmp_path}/") == sorted(names)


def test_relative_root(tmp_path, monkeypatch):
    plant(tmp_path, "dataset/a/1.jpg")
    monkeypatch.chdir(tmp_path)
    assert found("dataset") == found("./dataset/") == ["a/1.jpg"]
    assert found(".") == ["dataset/a/1.jpg"]


def test_size_and_time_are_the_files_own(tmp_path):
    plant(tmp_path, "a/1.jpg", "2.png")
    for file in find_images(tmp_path)[0]:
        status = (tmp_path / file.name).stat()
        assert file[1:] == (status.st_size, status.st_mtime_ns)


def test_suffixes_in_any_case(tmp_path):
    names = [
        f"{n}{turn(s)}" for n, turn in enumerate((str, str.upper)) for s in find_module.SUFFIXES
    ]
    plant(tmp_path, *names, "1.jPeG")
    assert found(tmp_path) == sorted([*names, "1.jPeG"])


def test_other_files_are_left_out(tmp_path):
    plant(
        tmp_path, "a.txt", "jpg", "a.jpg.part", "a.jpg.txt", "a.svg", "a.jpg/readme", "no_suffix."
    )
    assert found(tmp_path) == []


def test_hidden_files_and_folders_are_left_out(tmp_path):
    plant(tmp_path, "1.jpg", ".2.jpg", ".cache/3.jpg", "a/.b/4.jpg", ".jpg", "a/5.jpg")
    assert found(tmp_path) == ["1.jpg", "a/5.jpg"]


def test_excluded_folder(tmp_path):
    plant(tmp_path, "1.jpg", "outputs/2.jpg", "outputs/a/3.jpg", "a/outputs/4.jpg")
    (tmp_path / "link").symlink_to("outputs")
    for exclude in (tmp_path / "outputs", f"{tmp_path}/a/../outputs/", tmp_path / "link"):
        assert found(tmp_path, exclude=exclude) == ["1.jpg", "a/outputs/4.jpg"]
    for nothing in (None, "", tmp_path / "missing"):
        assert len(found(tmp_path, exclude=nothing)) == 4


def test_agrees_with_a_plain_listing():
    root = Path(mpl.get_data_path())
    files = [path.relative_to(root) for path in root.rglob("*") if path.is_file()]
    wanted = [path.as_posix() for path in files if path.suffix.lower() in find_module.SUFFIXES]
    assert found(root) == sorted(wanted)
    assert len(files) > len(wanted) > 10


def test_loops_of_links_end(tmp_path):
    plant(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "a/up").symlink_to(tmp_path)
    (tmp_path / "a/b").symlink_to(tmp_path / "b")
    (tmp_path / "b/a").symlink_to("../a")
    assert found(tmp_path) == ["a/1.jpg", "b/2.jpg"]


def test_linked_folder_outside_is_followed(tmp_path):
    plant(tmp_path, "elsewhere/1.jpg", "elsewhere/deep/2.jpg", "dataset/3.jpg")
    (tmp_path / "dataset/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "dataset/same").symlink_to(tmp_path / "elsewhere")
    assert found(tmp_path / "dataset") in (
        ["3.jpg", "link/1.jpg", "link/deep/2.jpg"],
        ["3.jpg", "same/1.jpg", "same/deep/2.jpg"],
    )


@pytest.mark.parametrize("link", ["a_first", "z_last"])
def test_linked_folder_inside_keeps_its_real_name(link, tmp_path):
    plant(tmp_path, "m/deep/1.jpg")
    (tmp_path / link).symlink_to("m/deep")
    assert found(tmp_path) == ["m/deep/1.jpg"]


def test_linked_root_and_linked_file(tmp_path):
    plant(tmp_path, "real/1.jpg")
    (tmp_path / "real/2.jpg").symlink_to("1.jpg")
    (tmp_path / "root").symlink_to("real")
    files, _ = find_images(tmp_path / "root")
    assert [file.name for file in files] == ["1.jpg", "2.jpg"]
    assert files[0][1:] == files[1][1:]


@pytest.mark.parametrize("target", ["gone.jpg", "broken.jpg"])
def test_link_that_leads_nowhere_is_listed(target, tmp_path):
    plant(tmp_path, "a.jpg", "c.jpg", "d/e.jpg")
    (tmp_path / "broken.jpg").symlink_to(target)
    assert found(tmp_path) == ["a.jpg", "broken.jpg", "c.jpg", "d/e.jpg"]
    assert find_images(tmp_path)[0][1] == ("broken.jpg", -1, -1)
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        load_image(tmp_path / "broken.jpg")


def test_pipes_and_sockets_are_left_out(tmp_path, monkeypatch):
    plant(tmp_path, "1.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.jpg")
        assert stat.S_ISSOCK((tmp_path / "socket.jpg").stat().st_mode)
        assert found(tmp_path) == ["1.jpg"]


@pytest.mark.parametrize(
    "name", ["new\nline.jpg", "ünï/☃ 日本.jpg", "latin-\udce9.jpg", "a\\b.jpg", "~.jpg"]
)
def test_any_name(name, tmp_path):
    plant(tmp_path, name)
    assert found(tmp_path) == [name]
    Image.new("RGB", (3, 2)).save(tmp_path / name)
    assert load_image(os.path.join(tmp_path, name)).size == (3, 2)  # noqa: PTH118


def test_folder_without_permission_is_reported(public):
    plant(public, "a/1.jpg", "locked/2.jpg", "z/3.jpg")
    (public / "a/link.jpg").symlink_to("../locked/2.jpg")
    (public / "locked").chmod(0)
    with as_nobody():
        files, skipped = find_images(public)
    assert [(file.name, file.size) for file in files] == [
        ("a/1.jpg", 7),
        ("a/link.jpg", -1),
        ("z/3.jpg", 7),
    ]
    assert skipped == [("locked/", "unreadable folder: Permission denied")]
    (public / "locked").chmod(0o755)


@pytest.mark.parametrize("name", ["missing", "1.jpg"])
def test_root_that_is_no_folder(name, tmp_path):
    plant(tmp_path, "1.jpg")
    with pytest.raises(DatasetError, match=r"no such folder.*make_sample") as error:
        find_images(tmp_path / name)
    assert str(tmp_path / name) in str(error.value)


# Parts, and several at once


@pytest.mark.parametrize(
    ("box", "size", "corner"),
    [
        ((10, 20, 40, 50), (30, 30), (10, 20)),
        ((0.25, 0.5, 0.75, 1), (50, 30), (25, 30)),
        ((0, 0, 1, 1), (100, 60), (0, 0)),
        ((0, 0, 100, 60), (100, 60), (0, 0)),
        (np.array([99, 59, 100, 60]), (1, 1), (99, 59)),
    ],
    ids=str,
)
def test_a_part_in_pixels_or_fractions(box, size, corner):
    pixels = np.zeros((60, 100, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(100), np.arange(60)[:, None]
    part = images.crop(Image.fromarray(pixels), box)
    assert part.size == size
    assert part.getpixel((0, 0))[:2] == corner


@pytest.mark.parametrize(
    "box",
    [(0, 0, 0, 10), (5, 5, 4, 9), (0, 0, 101, 60), (-1, 0, 5, 5), (0.5, 0.5, 0.501, 1)],
    ids=str,
)
def test_a_part_lies_inside(box):
    with pytest.raises(QueryError, match=r"box=.* is not inside an image of 100×60 pixels"):
        images.crop(Image.new("RGB", (100, 60)), box)


@pytest.mark.parametrize("box", [(1, 2, 3), "whole", 7, (0, 0, math.inf, 1), None], ids=str)
def test_a_part_is_four_numbers(box):
    with pytest.raises(QueryError, match=r"is not \(left, top, right, bottom\)"):
        images.crop(Image.new("RGB", (100, 60)), box)


def test_several_images_are_shown_on_one_sheet():
    colours = ["red", "lime", "blue", "white", "black"]
    sources = tuple(Image.new("RGB", (90, 60), colour) for colour in colours)
    sheet = images.load_preview(sources, 100)
    assert sheet.size == (100, 100)
    corners = [sheet.getpixel(place) for place in ((10, 10), (90, 10), (10, 90), (90, 90))]
    assert corners == [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    assert images.load_preview(sources[:2], 100).size == (100, 50)
    assert images.load_preview(sources[:1]).size == images.load_preview(sources[0]).size == (90, 60)
