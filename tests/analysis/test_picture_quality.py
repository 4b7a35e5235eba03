"""Measures of single pictures, against numbers worked out by hand."""

import numpy as np
import pytest
from PIL import Image

from simsearch.analysis.health_checks import CHECKS, quality_scores
from simsearch.analysis.neighbours import Neighbours, label_votes, outlier_scores
from simsearch.analysis.picture_quality import QUALITY, measure_quality, read_quality, sharpness
from simsearch.analysis.splits import split_of_folder
from simsearch.errors import QueryError


def checkers(step=8, size=64, low=0, high=255):
    y, x = np.mgrid[:size, :size] // step
    return np.where((x + y) % 2, high, low).astype(np.float32)


def test_hard_edges_are_sharp_and_ramps_are_not():
    assert sharpness(checkers()) == pytest.approx(255 / 256)
    ramp = np.tile(np.arange(0, 250, 2, dtype=np.float32), (125, 1))  # 2 levels a pixel
    assert sharpness(ramp + ramp.T) == pytest.approx(2 / 11)


def test_blur_along_one_axis_is_blur():
    stripes = np.tile(np.where(np.arange(64) % 16 < 8, 0, 255), (64, 1)).astype(np.float32)
    soft = np.tile(127 + 120 * np.sin(np.arange(64) / 20), (64, 1)).astype(np.float32).T
    assert sharpness(stripes / 2 + soft / 2) < CHECKS["blurred"].threshold


def test_sharpness_does_not_depend_on_contrast():
    strong, weak = sharpness(checkers()), sharpness(checkers(low=100, high=140))
    assert strong == pytest.approx(weak, abs=0.03)


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (2, 2), (3, 900)])
def test_tiny_pictures_are_measured(shape):
    row = measure_quality(Image.fromarray(np.full((*shape, 3), 9, np.uint8)))
    assert (row["height"], row["width"]) == shape
    assert row["lightest"] == row["darkest"] == 9
    assert row["contrast"] == row["detail"] == 0


def test_a_picture_of_two_levels_has_their_range():
    image = Image.fromarray(checkers(low=20, high=220).astype(np.uint8)).convert("RGB")
    row = measure_quality(image)
    assert (row["lightest"], row["darkest"], row["contrast"], row["detail"]) == (220, 20, 200, 200)


def test_the_scale_does_not_change_the_measures():
    small = Image.fromarray(checkers(32, 256).astype(np.uint8)).convert("RGB")
    large = small.resize((1024, 1024), Image.Resampling.NEAREST)
    one, other = measure_quality(small), measure_quality(large)
    assert other["width"] == 1024
    for name in ("lightest", "darkest", "contrast", "sharpness", "detail"):
        assert one[name] == pytest.approx(other[name])


def test_the_size_is_that_of_the_upright_picture_in_its_file(tmp_path):
    image = Image.fromarray(np.zeros((600, 1600, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(tmp_path / "a.jpg", exif=exif)
    row = read_quality((tmp_path / "a.jpg").as_posix())
    assert (row["width"], row["height"]) == (600, 1600)


def test_only_rgb_is_measured():
    with pytest.raises(QueryError, match="not L"):
        measure_quality(Image.new("L", (9, 9)))


def test_why_a_file_cannot_be_read_is_told(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    assert read_quality((tmp_path / "a.jpg").as_posix()) == "the file is empty"


def test_scores_of_sizes_are_ratios():
    rows = np.zeros(4, QUALITY)
    rows["width"], rows["height"] = [100, 100, 200, 0], [100, 100, 50, 0]
    rows["detail"] = rows["contrast"] = 200
    scores = quality_scores(rows, CHECKS).scores
    np.testing.assert_allclose(scores["odd_size"], [1, 1, 1, np.nan])
    np.testing.assert_allclose(scores["odd_shape"], [1, 1, 4, np.nan])
    assert np.isnan(scores["dark"][3])


def test_votes_are_counted_by_cosine():
    rows = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])
    cosines = np.array([[0.5, 0.25, 0.25]] * 4, np.float32)
    votes = label_votes(Neighbours(rows, cosines), np.array(["a", "b", "a", ""]))
    np.testing.assert_allclose(votes.own, [1 / 3, 0, 2 / 3, np.nan])
    assert votes.other.tolist() == ["b", "a", "b", "a"]
    np.testing.assert_allclose(votes.share, [2 / 3, 1, 1 / 3, 0.75])


def test_outlier_scores_are_in_times_of_the_usual_distance():
    cosines = np.array([[0.8, 0.6], [0.7, 0.7], [0.4, 0.2]], np.float32)
    scores = outlier_scores(Neighbours(np.zeros((3, 2), np.intp), cosines))
    np.testing.assert_allclose(scores, [1, 1, 0.7 / 0.3], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("seg_train", "train"), ("Test", "test"), ("val2017", "validation"), ("dev", "validation"),
        ("training-set", "train"), ("trains", ""), ("train_test", ""), ("seg_pred", ""), (".", ""),
    ],
)  # fmt: skip
def test_folders_name_splits(name, split):
    assert split_of_folder(name) == split
