"""Preprocessing: pixels equal torchvision's, and the crop box."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms as tv

from simsearch.backbones.preprocessing import Preprocessing


def of_pil(preprocessing):
    mode = tv.InterpolationMode[preprocessing.interpolation]
    return tv.Compose(
        [tv.Resize(preprocessing.resize, mode), tv.CenterCrop(preprocessing.crop), np.asarray]
    )


def assert_pixels_agree(preprocessing, size):
    """Compare on noise, where a crop that is off by a pixel is off by a hundred levels.

    Pillow rounds after each of its two passes, in an order that depends on the size of the result:
    an error of a level on either side. What a bicubic pass cuts off at black and white is lost to
    the next, so that noise stays clear of both.
    """
    low, high = (0, 256) if preprocessing.interpolation == "BILINEAR" else (64, 192)
    noise = np.random.default_rng(0).integers(low, high, (*size[::-1], 3), np.uint8)
    image = Image.fromarray(noise)
    mine, theirs = preprocessing(image), of_pil(preprocessing)(image)
    assert mine.shape == theirs.shape == (preprocessing.crop, preprocessing.crop, 3)
    assert mine.dtype == np.uint8
    assert np.abs(mine.astype(int) - theirs).max() <= 2


@pytest.mark.parametrize("interpolation", ["BILINEAR", "BICUBIC"])
@pytest.mark.parametrize("size", [(256, 256), (1, 1), (3, 2), (500, 333), (333, 1200), (2000, 90)])
@pytest.mark.parametrize(("resize", "crop"), [(256, 224), (224, 224), (235, 224)])
def test_pixels_equal_torchvisions(size, resize, crop, interpolation):
    preprocessing = Preprocessing(resize, crop, (0.5,) * 3, (0.5,) * 3, interpolation)
    assert_pixels_agree(preprocessing, size)


@settings(max_examples=50, deadline=None, database=None)
@given(
    size=st.tuples(st.integers(1, 600), st.floats(1, 8)),
    portrait=st.booleans(),
    crops=st.tuples(st.integers(1, 300), st.integers(0, 50)),
    interpolation=st.sampled_from(["BILINEAR", "BICUBIC"]),
)
def test_pixels_equal_torchvisions_at_any_size(size, portrait, crops, interpolation):
    short, ratio = size
    crop, margin = crops
    preprocessing = Preprocessing(crop + margin, crop, (0.5,) * 3, (0.5,) * 3, interpolation)
    sides = short, round(short * ratio)
    assert_pixels_agree(preprocessing, sides if portrait else sides[::-1])


@pytest.mark.parametrize("size", [(30_000, 1), (1, 30_000), (40_000, 300)])
def test_panorama_costs_no_more_than_its_crop(size):
    start = time.perf_counter()
    crop = Preprocessing(256, 224, (0.5,) * 3, (0.5,) * 3)(Image.new("RGB", size, (9, 99, 199)))
    assert time.perf_counter() - start < 3
    assert (crop == (9, 99, 199)).all()


@pytest.mark.parametrize(
    "size", [(500, 375), (375, 500), (150, 150), (3000, 200), (333, 332), (1, 1)]
)
def test_crop_box_is_central_and_square(size):
    preprocessing = Preprocessing(256, 224, (0.5,) * 3, (0.5,) * 3)
    left, top, right, bottom = preprocessing.crop_box(size)
    assert right - left == pytest.approx(bottom - top, rel=0.01)
    assert right - left == pytest.approx(min(size) * 224 / 256, rel=0.01)
    # In the middle, to half a pixel of the resized picture.
    assert abs(left + right - size[0]) <= 1.01 * min(size) / 256
    assert abs(top + bottom - size[1]) <= 1.01 * min(size) / 256
