"""The picture within a border or on a screen: found where it is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageOps
from scenes import scene

from simsearch.images.alignment import alignments
from simsearch.images.confirm import confirm, oriented
from simsearch.images.content_box import SIDE, content_box
from simsearch.images.signature import signature

COLORS = [(255, 255, 255), (0, 0, 0), (30, 60, 120)]


def textured(seed, width, height):
    """Make a picture that is nowhere of one colour, and nowhere like a ground of `COLORS`."""
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    image = np.asarray(Image.fromarray(noise).resize((width, height), 3), np.float32)
    return Image.fromarray((60 + 0.55 * image).round().astype(np.uint8))


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 999),
    sides=st.tuples(*[st.integers(60, 700)] * 2).filter(lambda each: max(each) < 4 * min(each)),
    margins=st.tuples(*[st.integers(10, 60)] * 4),
    color=st.sampled_from(COLORS[:2]),
)
def test_a_bordered_picture_is_found_to_a_pixel_of_the_reduced_one(seed, sides, margins, color):
    image = ImageOps.expand(textured(seed, *sides), margins, color)
    left, top, _, _ = margins
    expected = np.array([left, top, left + sides[0], top + sides[1]]) / (image.size * 2)
    box = content_box(image)
    if min(sides[0] / image.width, sides[1] / image.height) >= 0.97:
        assert box is None
    else:
        reduced = np.array(image.size * 2) * min(1, SIDE / max(image.size))
        assert (np.abs(np.array(box) - expected) * reduced).max() <= 1


def test_letters_that_the_picture_covers_in_part_are_no_part_of_it():
    screen = Image.new("RGB", (600, 500), (240, 240, 244))
    draw = ImageDraw.Draw(screen)
    draw.rectangle((0, 0, 600, 36), fill=(52, 58, 70))
    draw.rectangle((0, 36, 100, 500), fill=(222, 226, 232))
    for y in range(50, 480, 50):
        draw.text((8, y), "Folder 1234567", fill=(40, 40, 40), font_size=20)
    screen.paste(textured(1, 320, 280), (108, 120))
    expected = np.array([108, 120, 428, 400]) / (600, 500, 600, 500)
    assert np.abs(np.array(content_box(screen)) - expected).max() < 0.01


@pytest.mark.parametrize("size", [(1, 1), (11, 300), (300, 11), (2000, 12)])
def test_pictures_too_small_to_hold_another_have_no_content_box(size):
    assert content_box(Image.new("RGB", size)) is None


def test_a_picture_without_ground_has_no_content_box():
    assert content_box(textured(2, 300, 200)) is None
    row = signature(textured(2, 300, 200))
    assert row["inner_hash"] == row["hash"]
    assert row["content"].tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("orientation", range(8))
@pytest.mark.parametrize("swapped", [False, True])
def test_a_framed_and_turned_copy_is_compared_where_the_picture_lies(orientation, swapped):
    image = scene(3)
    framed = oriented(ImageOps.expand(image, (90, 30, 50, 70), (30, 60, 120)), orientation)
    pair = (framed, image) if swapped else (image, framed)
    rows = [signature(each) for each in pair]
    best = alignments(*rows)[0]
    assert best.swapped == swapped
    assert best.box != (0, 0, 1, 1)
    edit = confirm(*pair)
    assert edit is not None
    assert "border" in edit.edits
