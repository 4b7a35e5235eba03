"""Colour modes, transparency and colour profiles become 8-bit sRGB."""

import io
import struct
import zlib

import numpy as np
import pytest
from pictures import (
    SRGB,
    SWAPPED,
    black_only,
    difference,
    encoded,
    grey,
    loaded_row,
    over_white,
    pixels,
    png,
    row,
    smooth,
)
from PIL import Image

from simsearch.images.decode import load_image

# Modes


INKS = [(0, 0, 0, 0), (255, 0, 0, 0), (0, 200, 40, 0), (10, 20, 30, 128), (0, 0, 0, 255)]


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


def test_palette_with_alpha_for_each_entry():
    image = row("P", 0, 1)
    image.putpalette([200, 0, 0, 0, 200, 0])
    file = encoded(image, "PNG", transparency=bytes([255, 128]))
    assert np.abs(loaded_row(file) - over_white((200, 0, 0, 255), (0, 200, 0, 128))).max() < 1


def test_rgba_palette():
    image = row("RGBA", (200, 0, 0, 255), (0, 0, 200, 0)).quantize()
    assert "transparency" not in image.info
    assert loaded_row(image) == [(200, 0, 0), (255, 255, 255)]


@pytest.mark.parametrize(
    ("image", "key", "wanted"),
    [
        (row("RGB", (1, 2, 3), (1, 2, 4)), (1, 2, 3), [(255, 255, 255), (1, 2, 4)]),
        (row("L", 50, 51), 50, grey(255, 51)),
        (row("1", 0, 255), 0, grey(0, 255)),  # white on white would vanish
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
        ("I", [0, 256], [0, 128]),  # 9 bits
        ("I", [0, 257, 65535], [0, 1, 255]),
        ("I", [-5, 70_000, 51_400], [0, 255, 187]),
        ("F", [0, 0.2, 1], [0, 51, 255]),
        ("F", [0, 51.2, 255], [0, 51, 255]),
        ("F", [0, 25_700, 65535], [0, 100, 255]),
        ("F", [-0.5, np.nan, 0.4], [0, 0, 255]),
        ("F", [np.nan, np.nan], [0, 0]),
        ("F", [np.inf, -np.inf], [255, 0]),
    ],
)
def test_deep_grey_is_scaled_by_its_range(mode, levels, wanted):
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
def test_other_pillow_modes(mode):
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
def test_cmyk_profile_is_converted(kind):
    def middle(inks):
        file = encoded(Image.new("CMYK", (16, 16), inks), kind, icc_profile=black_only())
        return pixels(load_image(file))[8, 8]

    assert middle((255, 128, 7, 0)).min() >= 253
    assert middle((0, 128, 255, 255)).max() <= 2


@pytest.mark.parametrize(
    "profile", [SRGB, b"rubbish", SWAPPED[:200]], ids=["sRGB", "rubbish", "cut"]
)
def test_srgb_and_broken_profiles_change_nothing(profile):
    file = encoded(Image.fromarray(smooth()), "PNG", icc_profile=profile)
    assert difference(load_image(file), smooth()) == 0


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_profile_of_another_mode_is_ignored(mode):
    plain = Image.new(mode, (4, 4), "gray")
    file = encoded(plain, "TIFF", icc_profile=SWAPPED)
    assert np.abs(pixels(load_image(file)) - pixels(load_image(plain))).max() <= 1
