"""Crops of an image, and several images on one preview sheet."""

import math

import numpy as np
import pytest
from PIL import Image

from simsearch.errors import QueryError
from simsearch.images.decode import crop, load_preview


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
def test_crop_takes_a_box_in_pixels_or_fractions(box, size, corner):
    pixels = np.zeros((60, 100, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(100), np.arange(60)[:, None]
    part = crop(Image.fromarray(pixels), box)
    assert part.size == size
    assert part.getpixel((0, 0))[:2] == corner


@pytest.mark.parametrize(
    "box",
    [(0, 0, 0, 10), (5, 5, 4, 9), (0, 0, 101, 60), (-1, 0, 5, 5), (0.5, 0.5, 0.501, 1)],
    ids=str,
)
def test_crop_rejects_a_box_outside_the_image(box):
    with pytest.raises(QueryError, match=r"box=.* is not inside an image of 100×60 pixels"):
        crop(Image.new("RGB", (100, 60)), box)


@pytest.mark.parametrize("box", [(1, 2, 3), "whole", 7, (0, 0, math.inf, 1), None], ids=str)
def test_crop_rejects_a_box_that_is_not_four_numbers(box):
    with pytest.raises(QueryError, match=r"is not \(left, top, right, bottom\)"):
        crop(Image.new("RGB", (100, 60)), box)


def test_preview_lays_out_several_images_on_one_sheet():
    colours = ["red", "lime", "blue", "white", "black"]
    sources = tuple(Image.new("RGB", (90, 60), colour) for colour in colours)
    sheet = load_preview(sources, 100)
    assert sheet.size == (100, 100)
    corners = [sheet.getpixel(place) for place in ((10, 10), (90, 10), (10, 90), (90, 90))]
    assert corners == [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    assert load_preview(sources[:2], 100).size == (100, 50)
    assert load_preview(sources[:1]).size == load_preview(sources[0]).size == (90, 60)
