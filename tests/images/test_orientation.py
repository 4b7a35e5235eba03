"""EXIF orientation: files are turned, pictures in memory are taken as they are."""

import io
import logging

import numpy as np
import pytest
import tifffile
from pictures import STORED, difference, encoded, oriented, smooth
from PIL import Image, ImageFile, ImageOps

from simsearch.images.decode import load_image, load_preview
from simsearch.images.header import read_shape

LOSSLESS = ["PNG", "WEBP"]


def opened(orientation, kind="PNG"):
    """A file of a picture that is stored turned, opened by Pillow."""
    return Image.open(io.BytesIO(oriented(STORED[orientation](smooth()), orientation, kind)))


@pytest.fixture
def warnings(caplog):
    """What is said, a line each."""
    with caplog.at_level(logging.WARNING, "simsearch"):
        yield lambda: [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_files_bytes_and_pillows_own_file_objects_are_turned(kind, orientation, tmp_path, warnings):
    data = oriented(STORED[orientation](smooth()), orientation, kind)
    (tmp_path / "1.img").write_bytes(data)
    with Image.open(tmp_path / "1.img") as file:
        assert isinstance(file, ImageFile.ImageFile)
        for source in (data, tmp_path / "1.img", str(tmp_path / "1.img"), file):
            assert difference(load_image(source), smooth()) < 2
    assert warnings() == []


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_a_tiff_that_pillow_maps_into_memory_is_not_mixed_up(mode, orientation, tmp_path):
    """Pillow maps uncompressed ones of some modes, which mixes their rows up if they lie."""
    grey = Image.fromarray(STORED[orientation](smooth())).convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    data = encoded(deep if mode == "I;16" else grey.convert(mode), "TIFF", exif=_exif(orientation))
    (tmp_path / "1.tif").write_bytes(data)
    with Image.open(tmp_path / "1.tif") as file:
        for source in (tmp_path / "1.tif", file, file):
            assert load_image(source).size == smooth().shape[1::-1]
            assert difference(load_image(source), np.asarray(load_image(data))) == 0
        assert file.filename == str(tmp_path / "1.tif")
    if mode != "1":
        grey = np.asarray(Image.fromarray(smooth()).convert("L"))[..., None]
        assert difference(load_image(data), grey) < 3


@pytest.mark.parametrize("orientation", [*STORED, 0, 9, 65535])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_the_shape_is_that_of_the_decoded_picture(kind, orientation):
    stored = STORED.get(orientation, np.asarray)(smooth(96, 64))
    data = oriented(stored, orientation, kind)
    assert read_shape(data) == load_image(data).size == (96, 64)


@pytest.mark.parametrize("orientation", STORED)
def test_the_shape_of_a_rare_tiff_is_that_of_the_decoded_picture(orientation, tmp_path):
    """Pillow does not open it, so that nobody has turned its size yet."""
    stored = STORED[orientation](smooth(96, 64)).astype(np.float64)
    tags = [(274, 3, 1, orientation, True)]
    tifffile.imwrite(tmp_path / "1.tif", stored, photometric="rgb", extratags=tags)
    file = str(tmp_path / "1.tif")
    assert read_shape(file) == load_image(file).size == (96, 64)


def _exif(orientation):
    exif = Image.Exif()
    exif[0x112] = orientation
    return exif


@pytest.mark.parametrize("orientation", [each for each in STORED if each > 1])
@pytest.mark.parametrize("kind", LOSSLESS)
def test_a_picture_in_memory_is_taken_as_it_is_with_one_warning(kind, orientation, warnings):
    picture = opened(orientation, kind).copy()
    before = np.asarray(picture.convert("RGB")).astype(int)
    for load in (load_image, load_image, load_preview):
        assert difference(load(picture), before) == 0
    (said,) = warnings()
    assert f"carries EXIF orientation {orientation} and is taken as it is" in said
    assert "ImageOps.exif_transpose(image)" in said


@pytest.mark.parametrize("orientation", [each for each in STORED if each > 1])
def test_a_picture_that_its_owner_turned_is_not_turned_again(orientation, warnings):
    upright = ImageOps.exif_transpose(opened(orientation))
    assert difference(load_image(upright), smooth()) == 0
    assert warnings() == []
    in_place = opened(orientation)
    ImageOps.exif_transpose(in_place, in_place=True)
    assert difference(load_image(in_place), smooth()) == 0
    assert warnings() == []
    by_hand = opened(6).transpose(Image.Transpose.ROTATE_270)  # which keeps the tag
    assert difference(load_image(by_hand), smooth()) == 0
    assert len(warnings()) == 1


def test_each_picture_is_warned_of_by_itself(warnings):
    pictures = [opened(6).copy() for _ in range(3)]
    for picture in [*pictures, *pictures]:
        load_image(picture)
    assert len(warnings()) == 3


@pytest.mark.parametrize("orientation", [0, 1, 9, 65535])
def test_a_picture_without_an_orientation_is_no_reason_to_warn(orientation, warnings):
    for picture in (
        Image.open(io.BytesIO(oriented(smooth(), orientation, "PNG"))).copy(),
        Image.open(
            io.BytesIO(encoded(Image.fromarray(smooth()), "PNG", exif=b"Exif\0\0bad"))
        ).copy(),
        Image.fromarray(smooth()),
    ):
        assert difference(load_image(picture), smooth()) == 0
    assert warnings() == []
