"""Image sources in memory, and files that cannot be read."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import (
    SWAPPED,
    as_nobody,
    difference,
    encoded,
    grey,
    loaded_row,
    photo,
    same,
    smooth,
)
from PIL import EpsImagePlugin, Image

from simsearch.errors import ImageError
from simsearch.images import decode
from simsearch.images.decode import describe, load_image

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
def test_invalid_arrays_are_rejected(array, reason):
    with pytest.raises(ImageError, match=reason) as error:
        load_image(array)
    assert f"array {array.shape}" in str(error.value)


@pytest.mark.parametrize("source", [None, 7, ["a.jpg"], bytearray(b"x")])
def test_other_objects_are_rejected(source):
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


def test_animation_of_the_caller_can_still_be_sought(tmp_path):
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


# Unreadable files


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
    ids=["empty", "text", "JPEG start", "JPEG", "PNG", "GIF", "PDF", "SVG", "PPM"],
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
def test_path_without_a_readable_file(name, reason, tmp_path):
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


def test_postscript_named_jpg_does_not_run_ghostscript(tmp_path, monkeypatch):
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
        patch.setattr(decode, "MAX_PIXELS", 2**20)  # a flipped size would only cost time
        try:
            image = load_image(bytes(file[: int(length * len(file))]))
        except ImageError:
            return
    assert image.mode == "RGB"
