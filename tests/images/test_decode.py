"""Formats, orientation, size limits and drafts of the decoder."""

import io
import struct

import numpy as np
import pytest
from pictures import (
    STORED,
    SWAPPED,
    difference,
    encoded,
    oriented,
    pixels,
    png,
    same,
    smooth,
)
from PIL import Image, ImageOps

from simsearch.errors import ImageError
from simsearch.images import decode
from simsearch.images.decode import load_image
from simsearch.images.find import SUFFIXES

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
def test_every_format_is_decoded(suffix, tmp_path):
    options, tolerance = FORMATS[suffix]
    path = tmp_path / f"picture.{suffix}"
    Image.fromarray(smooth()).save(path, **options)
    image = load_image(path)
    assert difference(image, smooth()) <= tolerance
    for source in (str(path), path.read_bytes()):
        assert same(load_image(source), image)


def test_every_listed_suffix_is_decoded(tmp_path):
    for suffix in SUFFIXES:
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


def test_tilde_means_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    Image.new("RGB", (5, 7)).save(tmp_path / "1.png")
    assert load_image("~/1.png").size == (5, 7)


def test_file_name_may_begin_with_a_tilde(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (5, 7)).save("~1.png")
    assert load_image("~1.png").size == (5, 7)


# Orientation


@pytest.mark.parametrize("orientation", STORED)
def test_orientation_is_applied_to_known_pixels(orientation):
    upright = np.array([[(255, 0, 0), (0, 255, 0), (0, 0, 255)], [(9, 9, 9)] * 3], np.uint8)
    file = oriented(STORED[orientation](upright), orientation)
    assert np.array_equal(load_image(file), upright)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
@pytest.mark.parametrize("orientation", STORED)
def test_orientation_is_applied_in_every_format(kind, orientation):
    file = oriented(STORED[orientation](smooth()), orientation, kind)
    image = load_image(file)
    assert difference(image, smooth()) < 2
    with Image.open(io.BytesIO(file)) as raw:
        assert same(image, ImageOps.exif_transpose(raw).convert("RGB"))
        assert same(image, load_image(raw))


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_loading_a_loaded_image_changes_nothing(kind):
    for file in (
        oriented(smooth(), 6, kind),
        encoded(Image.fromarray(smooth()), kind, icc_profile=SWAPPED),
    ):
        assert same(load_image(load_image(file)), load_image(file))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_unknown_orientation_is_ignored(orientation):
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
def test_broken_exif_is_ignored(kind, exif):
    file = encoded(Image.fromarray(smooth()), kind, exif=exif, quality=95)
    assert difference(load_image(file), smooth()) < 2


# Size limits


@pytest.mark.parametrize("size", [(50_000, 50_000), (2**31 - 1, 2**31 - 1), (178_956_971, 1)])
def test_decompression_bomb_is_refused(size):
    with pytest.raises(ImageError, match="limit of 178,956,970"):
        load_image(png((b"IHDR", struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)), (b"IDAT", b"")))


@pytest.mark.parametrize("kind", ["file", "array", "PIL"])
def test_pixel_limit_applies_to_every_source(kind, monkeypatch):
    image = Image.fromarray(smooth())
    source = {"file": encoded(image, "PNG"), "array": smooth(), "PIL": image}[kind]
    monkeypatch.setattr(decode, "MAX_PIXELS", 96 * 64)
    assert same(load_image(source), image)
    monkeypatch.setattr(decode, "MAX_PIXELS", 96 * 64 - 1)
    with pytest.raises(ImageError, match="96×64 pixels, over the limit of 6,143"):
        load_image(source)


def test_large_image_within_the_limit_makes_no_warning(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 96 * 64 - 1)
    assert load_image(encoded(Image.fromarray(smooth()), "PNG")).size == (96, 64)


# JPEG decoded at reduced size


@pytest.mark.parametrize("min_side", [None, 1, 75, 76, 150, 151, 300, 301, 600, 601, 9999])
@pytest.mark.parametrize("orientation", [1, 6])
def test_draft_keeps_min_side_and_appearance(min_side, orientation):
    file = oriented(STORED[orientation](smooth(800, 600)), orientation, "JPEG")
    image = load_image(file, min_side)
    assert min(image.size) >= min(min_side or 600, 600)
    assert (image.size == (800, 600)) == (min_side is None or min_side > 300)
    assert difference(image.resize((80, 60)), smooth(80, 60)) < 2


def test_only_jpegs_are_drafted():
    file = encoded(Image.fromarray(smooth(800, 600)), "PNG")
    assert load_image(file, min_side=50).size == (800, 600)


def test_heic_is_read_by_the_package_without_an_encoder(tmp_path):
    """Wheels of pillow-heif carry x265, which is under the GPL."""
    Image.new("RGB", (64, 48), "red").save(tmp_path / "a.heic")
    load_image(tmp_path / "a.heic")
    with decode.open_image(tmp_path / "a.heic") as image:
        assert type(image).__module__.split(".")[0] == "pi_heif"
