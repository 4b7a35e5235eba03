"""Sizes of what is coded in a file, which may be larger than the file states."""

import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from simsearch.errors import ImageError
from simsearch.images import budget, decode
from simsearch.images.coded_size import coded_pixels, pixels_of_stream
from simsearch.images.decode import load_image
from simsearch.images.header import measure

HEVC_BLOCK = 64  # HEVC codes whole blocks


def encoded(kind, size, mode="RGB", **options):
    data = io.BytesIO()
    Image.new(mode, size, 77).save(data, kind, **options)
    return data.getvalue()


def lying(kind, size, stated=(64, 64)):
    """Make a file whose container states another size than its stream has."""
    data = encoded(kind, size)
    old = struct.pack(">II", *size)
    assert old in data
    return data.replace(old, struct.pack(">II", *stated))


def blocks(size):
    width, height = (-(-side // HEVC_BLOCK) * HEVC_BLOCK for side in size)
    return width * height


@given(st.tuples(st.integers(1, 500), st.integers(1, 500)), st.sampled_from(["RGB", "RGBA", "L"]))
@settings(max_examples=25, deadline=None)
def test_size_of_the_stream_is_read(size, mode):
    assert pixels_of_stream(encoded("AVIF", size, mode, speed=10)) == size[0] * size[1]
    found = pixels_of_stream(encoded("HEIF", size, mode))
    assert size[0] * size[1] <= found <= blocks(size)


def test_size_of_an_animation_is_read():
    frames = [Image.new("RGB", (120, 90), color) for color in ("red", "blue")]
    data = io.BytesIO()
    frames[0].save(data, "AVIF", save_all=True, append_images=frames[1:])
    assert pixels_of_stream(data.getvalue()) == 120 * 90


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
@given(stated=st.tuples(st.integers(1, 2000), st.integers(1, 2000)))
@settings(max_examples=20, deadline=None)
def test_what_a_container_states_changes_nothing(kind, stated):
    data = lying(kind, (640, 320), stated)
    assert pixels_of_stream(data) == pixels_of_stream(encoded(kind, (640, 320)))
    with Image.open(io.BytesIO(data)) as image:
        assert coded_pixels(image) >= 640 * 320


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_a_file_that_states_less_than_it_holds_is_refused(kind, monkeypatch):
    monkeypatch.setattr(decode, "MAX_PIXELS", 640 * 320 - 1)
    with pytest.raises(ImageError, match=r"[\d,]+ pixels in a file that states 64×64, over the"):
        load_image(lying(kind, (640, 320)), 32)
    header, pixels = measure(lying(kind, (640, 320)))
    assert (header.width, header.height) == (64, 64)
    assert pixels >= 640 * 320


def test_the_budget_is_asked_for_what_is_coded(monkeypatch):
    asked = []

    class Asked(budget.MemoryBudget):
        def reserve(self, size, check=None):
            asked.append(size)
            return super().reserve(size, check)

    monkeypatch.setattr(decode, "LARGE_PIXELS", 100_000)
    with budget.use_budget(Asked(10**9)):
        load_image(lying("AVIF", (640, 320)))
        load_image(encoded("AVIF", (64, 64)))
    assert asked == [12 * 640 * 320]


def test_tiles_of_a_tiff_are_counted():
    tags = {322: 4096, 323: 2048}
    data = encoded("TIFF", (32, 16), tiffinfo=tags)
    with Image.open(io.BytesIO(data)) as image:
        assert coded_pixels(image) in {4096 * 2048, 32 * 16}
        image.tag_v2[322], image.tag_v2[323] = 4096, 2048
        assert coded_pixels(image) == 4096 * 2048


SEEDS = [encoded(kind, (90, 70), mode) for kind in ("AVIF", "HEIF") for mode in ("RGB", "RGBA")]


@given(st.sampled_from(SEEDS), st.data())
@settings(max_examples=300, deadline=1000)
def test_damaged_files_are_left_to_the_decoder(data, draw):
    changed = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 8))):
        changed[draw.draw(st.integers(0, min(len(data), 700) - 1))] = draw.draw(st.integers(0, 255))
    cut = draw.draw(st.integers(0, len(data)))
    for each in (bytes(changed), bytes(changed[:cut])):
        assert pixels_of_stream(each) >= 0


def box(kind, content):
    return struct.pack(">I4s", 8 + len(content), kind) + content


@pytest.mark.parametrize("count", [1000, 65535])
def test_a_table_that_names_the_same_bytes_over_and_over_is_left(count):
    """Fields of no width: an entry takes two bytes, and stands for the whole file."""
    infe = box(b"infe", b"\2\0\0\0" + struct.pack(">HH4s", 1, 0, b"av01"))
    iinf = box(b"iinf", b"\0\0\0\0\0\1" + infe)
    iloc = box(b"iloc", b"\0\0\0\0\0\0" + struct.pack(">HHHH", 1, 1, 0, count))
    meta = box(b"meta", bytes(4) + box(b"pitm", bytes(4) + b"\0\1") + iinf + iloc)
    assert pixels_of_stream(meta + bytes(10**6)) == 0


def test_many_boxes_are_not_read_for_ever():
    assert pixels_of_stream(box(b"free", b"") * 2_000_000) == 0


def test_other_formats_have_the_size_that_they_state():
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"):
        assert measure(encoded(kind, (31, 17)))[1] == 31 * 17
    assert np.array(load_image(encoded("AVIF", (31, 17)))).shape == (17, 31, 3)
