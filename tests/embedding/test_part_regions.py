"""Regions: means over windows of one feature map, held against plain loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import textured

import simsearch as ss
from simsearch.backbones.windows import STRIDE
from simsearch.embedding.part_regions import embed_regions, map_size, pool_windows
from simsearch.library.parts import open_parts

SIZES = {"photo": (320, 240), "tall": (200, 300), "panorama": (900, 200)}


@pytest.fixture(scope="module")
def backbone():
    return ss.load_backbone("efficientnet_lite0", device="cpu", precision="float32")


@pytest.fixture(scope="module")
def library(tmp_path_factory, backbone):
    folder = tmp_path_factory.mktemp("regions")
    (folder / "dataset").mkdir()
    for seed, (name, size) in enumerate(SIZES.items()):
        textured(seed).resize(size).save(folder / f"dataset/{name}.png")
    return ss.embed_dataset(
        folder / "dataset", folder / "outputs", backbone, parts="regions", progress=False
    )


def parts_of(library, name):
    parts = open_parts(library)
    (row,) = (i for i, path in enumerate(library.paths.tolist()) if name in path)
    return row, parts.parts[parts.of(row)]


@given(seed=st.integers(0, 999), height=st.integers(1, 6), width=st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_a_pooled_window_is_the_mean_of_its_cells(seed, height, width):
    rng = np.random.default_rng(seed)
    cells = rng.standard_normal((height, width, 5)).astype(np.float32)
    corners = [(x, y) for x in range(width) for y in range(height)]
    windows = np.array(
        [(*one, other[0] + 1, other[1] + 1) for one in corners for other in corners
         if other[0] >= one[0] and other[1] >= one[1]]
    )  # fmt: skip
    for row, (left, top, right, bottom) in zip(pool_windows(cells, windows), windows, strict=True):
        mean = cells[top:bottom, left:right].reshape(-1, 5).mean(axis=0)
        np.testing.assert_allclose(row, mean / np.linalg.norm(mean), atol=1e-5)


@given(ratio=st.floats(0.3, 3.5), crop=st.sampled_from([64, 224, 256]))
def test_a_map_keeps_the_shape_and_takes_four_passes(ratio, crop):
    width, height = map_size(ratio, crop)
    assert width % STRIDE == height % STRIDE == 0
    assert min(width, height) >= crop
    wanted = (2 * crop * ratio**0.5, 2 * crop / ratio**0.5)  # four times the area, this shape
    for side, exact in zip((width, height), wanted, strict=True):
        assert abs(side - exact) <= STRIDE / 2 or (side == crop > exact)


def test_regions_of_a_picture_are_those_of_its_map(library, backbone):
    row, found = parts_of(library, "photo")
    image = ss.load_image(library.paths[row])
    whole = np.array([0.0, 0, *image.size])
    boxes, rows = embed_regions(backbone, image, whole, np.ones(4), (2, 3))
    assert len(found) == len(boxes) == 13  # the whole has the library's own row
    np.testing.assert_allclose(found["box"], boxes, atol=1)
    cosines = np.einsum("ij,ij->i", found["row"].astype(np.float32), rows)
    assert cosines.min() > 0.999  # kept in float16


@pytest.mark.parametrize("name", SIZES)
def test_nothing_of_a_picture_is_left_out(library, name):
    width, height = SIZES[name]
    seen = np.zeros((height, width), bool)
    for left, top, right, bottom in parts_of(library, name)[1]["box"]:
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        seen[top:bottom, left:right] = True
    assert seen.all()


@pytest.mark.parametrize(
    ("name", "box"), [("photo", (0, 0, 160, 120)), ("panorama", (620, 20, 820, 180))]
)
def test_a_crop_finds_its_picture_and_its_place(library, name, box):
    row, _ = parts_of(library, name)
    crop = ss.load_image(library.paths[row]).crop(box)
    best = ss.search(library, crop, k=1, parts=True)[0]
    assert best.row == row
    overlap = [max(0, min(best.box[i + 2], box[i + 2]) - max(best.box[i], box[i])) for i in (0, 1)]
    assert overlap[0] * overlap[1] > 0.5 * (box[2] - box[0]) * (box[3] - box[1])
