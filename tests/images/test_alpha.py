"""Transparency is laid over white, or over black where white would hide the shape."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pictures import encoded, pixels
from PIL import Image, ImageDraw

from simsearch.images import large
from simsearch.images.alpha import MIN_CONTRAST
from simsearch.images.decode import load_image


def shape(colour, mode="RGBA", size=64):
    """A disc on nothing."""
    image = Image.new("RGBA", (size, size), (*colour[:3], 0))
    ImageDraw.Draw(image).ellipse((8, 8, size - 8, size - 8), fill=colour)
    return image.convert(mode)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("level", [255, 250, 242])
def test_a_white_shape_does_not_vanish(kind, level):
    image = pixels(load_image(encoded(shape((level,) * 3), kind, lossless=True, exact=True)))
    assert image[0, 0].max() == 0
    assert image[32, 32].min() >= 240


def test_other_modes_with_alpha_show_a_white_shape():
    alpha = shape((255, 255, 255)).getchannel("A").tobytes()
    palette = Image.frombytes("PA", (64, 64), bytes(v for a in alpha for v in (1, a)))
    palette.putpalette([0, 0, 0, 255, 255, 255])
    for source in (shape((255, 255, 255), "LA"), palette):
        image = pixels(load_image(source))
        assert image[0, 0].max() == 0
        assert image[32, 32].min() == 255


@pytest.mark.parametrize(
    "colour", [(0, 0, 0), (200, 30, 30), (255, 255, 0), (128, 128, 128), (235, 235, 235)]
)
def test_a_shape_that_shows_on_white_stays_on_white(colour):
    image = pixels(load_image(shape(colour)))
    assert image[0, 0].min() == 255
    assert tuple(image[32, 32]) == colour


def test_faint_white_and_white_with_a_little_colour():
    faint = pixels(load_image(shape((255, 255, 255, 40))))
    assert faint[0, 0].max() == 0
    assert 30 < faint[32, 32].mean() < 50
    logo = shape((255, 255, 255))
    ImageDraw.Draw(logo).rectangle((30, 30, 34, 34), fill="red")
    assert pixels(load_image(logo))[0, 0].max() == 0


def test_nothing_visible_is_white():
    assert pixels(load_image(Image.new("RGBA", (9, 9), (0, 0, 0, 0)))).min() == 255


@settings(max_examples=100, deadline=None)
@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(1, 8), st.integers(1, 8), st.just(4)))
    | hnp.arrays(
        np.uint8,
        st.tuples(st.integers(1, 8), st.integers(1, 8), st.just(4)),
        elements=st.integers(235, 255),
    )
)
def test_what_is_visible_differs_from_its_ground(array):
    """By hand: the mean over alpha of the largest difference from the ground, of any channel."""
    image = pixels(load_image(array)).astype(float)
    colours, alpha = array[..., :3].astype(float), array[..., 3:] / 255.0
    over = {ground: colours * alpha + ground * (1 - alpha) for ground in (0, 255)}
    contrast = ((255 - colours.min(axis=2)) * alpha[..., 0]).sum() / max(alpha.sum(), 1e-9)
    if alpha.min() == 1 or np.abs(contrast - MIN_CONTRAST) < 1e-6:  # no ground, or rounding decides
        return
    ground = 0 if alpha.sum() and contrast < MIN_CONTRAST else 255
    assert np.abs(image - over[ground]).max() <= 1


def test_strips_of_a_large_image_lie_over_one_ground(monkeypatch):
    image = shape((255, 255, 255), size=200)
    ImageDraw.Draw(image).rectangle((90, 20, 110, 24), fill="black")
    whole = pixels(load_image(image))
    monkeypatch.setattr("simsearch.images.decode.LARGE_PIXELS", 1)
    monkeypatch.setattr(large, "STRIP_PIXELS", 200 * 13)
    assert np.array_equal(pixels(load_image(image)), whole)
