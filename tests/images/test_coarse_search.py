"""The search of many pairs at once on their thumbnails: what it keeps, and where it says it is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scenes import textured

from simsearch.images import coarse_search
from simsearch.images.coarse_search import find_positions
from simsearch.images.signature import SIGNATURE, signature

PHOTOS = [textured(seed) for seed in range(8)]


def rows_of(*pictures):
    rows = np.zeros(len(pictures), SIGNATURE)
    for i, picture in enumerate(pictures):
        rows[i] = signature(picture)
    return rows


def all_pairs(count):
    return np.array([(i, j) for i in range(count) for j in range(i + 1, count)])


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 7),
    share=st.floats(0.7, 0.95),
    x=st.floats(0, 1),
    y=st.floats(0, 1),
    swapped=st.booleans(),
)
def test_a_crop_is_found_where_it_is(seed, share, x, y, swapped):
    photo = PHOTOS[seed]
    width, height = round(share * photo.width), round(share * photo.height)
    left, top = round(x * (photo.width - width)), round(y * (photo.height - height))
    crop = photo.crop((left, top, left + width, top + height))
    pictures = (photo, crop) if swapped else (crop, photo)
    place = find_positions(rows_of(*pictures), np.array([[0, 1]]))[0, 1][0]
    box = np.array([left, top, left + width, top + height]) / (photo.size * 2)
    assert place.swapped == swapped
    assert place.orientation == 0
    assert np.abs(np.array(place.box) - box).max() < 0.05


def test_other_pictures_are_left_out():
    rows = rows_of(*PHOTOS)
    assert find_positions(rows, all_pairs(len(rows))) == {}


@pytest.mark.parametrize("orientation", range(8))
def test_a_turned_picture_is_found_as_such(orientation):
    photo = PHOTOS[0]
    turned = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if orientation >= 4 else photo
    turned = turned.rotate(90 * (orientation % 4), expand=True)
    places = find_positions(rows_of(turned, photo), np.array([[0, 1]]))
    assert places[0, 1][0].orientation == orientation


def test_blocks_change_nothing(monkeypatch):
    crops = [photo.crop((20, 10, 300, 220)) for photo in PHOTOS]
    rows = rows_of(*PHOTOS, *crops)
    pairs = all_pairs(len(rows))
    found = find_positions(rows, pairs)
    assert set(found) >= {(i, i + len(PHOTOS)) for i in range(len(PHOTOS))}
    monkeypatch.setattr(coarse_search, "ROWS_AT_ONCE", 6)
    monkeypatch.setattr(coarse_search, "PAIRS_AT_ONCE", 5)
    again = find_positions(rows, pairs)
    assert again.keys() == found.keys()
    for pair, places in found.items():
        assert [each.score for each in again[pair]] == pytest.approx(
            [each.score for each in places], abs=1e-4
        )


def test_blank_pictures_and_no_pairs():
    rows = rows_of(Image.new("RGB", (40, 30), "white"), PHOTOS[0])
    assert find_positions(rows, np.array([[0, 1]])) == {}
    assert find_positions(rows, np.empty((0, 2), np.int64)) == {}
