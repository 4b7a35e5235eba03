"""Suggested parts of pictures: what stands out in a map, held against a plain search of windows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

import simsearch as ss
from simsearch.analysis.suggested_parts import MAX_OVERLAP, pick_windows, suggest_parts
from simsearch.backbones.preprocessing import Preprocessing
from simsearch.errors import BackboneError, ImageError


class FakeBackbone:
    """Its map is strong where the picture is bright, a cell for each 32 pixels."""

    transform = Preprocessing(224, 224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

    def feature_map(self, batch):
        height, width = (side // 32 for side in batch.shape[1:3])
        cells = batch.reshape(len(batch), height, 32, width, 32, 3)
        return cells.mean(axis=(2, 4)).astype(np.float32)

    def prepare(self, image):
        return np.asarray(image.resize((224, 224)))


def bright(box, size=(640, 480)):
    picture = Image.new("RGB", size)
    picture.paste((255, 255, 255), box)
    return picture


def test_bright_object_is_suggested_first():
    box = (320, 40, 576, 240)
    first, *_ = suggest_parts(FakeBackbone(), bright(box))
    wanted = np.array(box) / (640, 480, 640, 480)
    assert np.abs(np.array(first) - wanted).max() < 0.15


def test_two_objects_far_apart_are_both_suggested():
    picture = bright((0, 0, 200, 200), (900, 900))
    picture.paste((255, 255, 255), (700, 700, 900, 900))
    middles = [np.add(part[:2], part[2:]) / 2 for part in suggest_parts(FakeBackbone(), picture)]
    for x, y in ((0.11, 0.11), (0.89, 0.89)):
        assert min(np.hypot(*(middle - (x, y))) for middle in middles) < 0.2


def test_nothing_is_suggested_where_nothing_stands_out():
    assert suggest_parts(FakeBackbone(), Image.new("RGB", (500, 400), (90, 90, 90))) == []


MAPS = npst.arrays(
    np.float32,
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    elements=st.floats(0, 9, width=16),
)


@settings(max_examples=40, deadline=None)
@given(MAPS, st.integers(1, 5))
def test_suggestions_are_proper_parts_that_overlap_little(strength, count):
    boxes = pick_windows(strength, count)
    assert len(boxes) <= count
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= 1
        assert 0 <= top < bottom <= 1
        assert (right - left) * (bottom - top) < 1
    for i, one in enumerate(boxes):
        for other in boxes[:i]:
            sides = [min(one[k + 2], other[k + 2]) - max(one[k], other[k]) for k in (0, 1)]
            areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
            both = max(sides[0], 0) * max(sides[1], 0)
            assert both <= MAX_OVERLAP * min(areas) + 1e-3


def test_transform_of_ones_own_sees_the_picture_as_it_prepares_it():
    backbone = FakeBackbone()
    backbone.transform = lambda image: image
    first, *_ = suggest_parts(backbone, bright((0, 0, 320, 240)))
    assert np.abs(np.array(first) - (0, 0, 0.5, 0.5)).max() < 0.15


def test_network_without_a_map_suggests_none():
    class Transformer(FakeBackbone):
        def feature_map(self, batch):
            raise BackboneError("no map")

    assert suggest_parts(Transformer(), bright((0, 0, 100, 100))) == []


def test_network_of_one_size_sees_the_whole_picture_squeezed():
    class OneSize(FakeBackbone):
        def feature_map(self, batch):
            if batch.shape[1:3] != (224, 224):
                raise RuntimeError("224 pixels")
            return super().feature_map(batch)

    first, *_ = suggest_parts(OneSize(), bright((0, 0, 320, 240)))
    assert np.abs(np.array(first) - (0, 0, 0.5, 0.5)).max() < 0.15


def test_picture_that_cannot_be_read_is_told(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(ImageError):
        suggest_parts(FakeBackbone(), str(tmp_path / "a.jpg"))


def test_network_of_the_catalogue_suggests_parts_of_a_photo(sample):
    backbone = ss.load_backbone("efficientnet_lite0")
    assert suggest_parts(backbone, sorted((sample / "seg_train/cat").iterdir())[0])
