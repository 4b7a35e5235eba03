"""Images for fine-tuning: augmentation, batches, unreadable files."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_tune
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_tune import LAST_EPOCH, SETTINGS

import simsearch as ss
from simsearch.errors import TrainingError
from simsearch.training import image_loader
from simsearch.training.image_loader import ImageBatch, ImageLoader, augment

pytestmark = pytest.mark.usefixtures("quick_training")


class TestAugmentation:
    @settings(deadline=None, max_examples=50)
    @given(
        st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32), st.sampled_from([None, 7])
    )
    def test_crop_lies_within_the_image(self, width, height, seed, side):
        """The image says where each pixel is from."""
        y, x = np.mgrid[:height, :width].astype(np.uint8)
        image = Image.fromarray(np.stack([x, y, np.zeros_like(x)], axis=2))
        cut = augment(image, np.random.default_rng(seed), side)
        assert cut.mode == "RGB"
        if side:
            assert cut.size == (side, side)
        else:
            assert cut.width <= width
            assert cut.height <= height
        again = augment(image, np.random.default_rng(seed), side)
        assert np.array_equal(np.asarray(cut), np.asarray(again))

    def test_crops_differ_and_have_the_stated_area(self):
        image, rng = Image.new("RGB", (200, 160)), np.random.default_rng(0)
        cuts = [augment(image, rng) for _ in range(300)]
        areas = [cut.width * cut.height / (200 * 160) for cut in cuts]
        assert 0.3 < min(areas) < 0.45
        assert 0.85 < max(areas) <= 1
        assert 0.6 < np.mean(areas) < 0.72

    def test_half_are_flipped_and_colours_vary_a_little(self):
        half = np.zeros((64, 64, 3), np.uint8)
        half[:, 32:] = 100, 150, 200
        rng = np.random.default_rng(0)
        cuts = [np.asarray(augment(Image.fromarray(half), rng, 32), float) for _ in range(200)]
        right = [cut[:, -1].mean() > cut[:, 0].mean() for cut in cuts]
        assert 70 < sum(right) < 130
        bright = [cut.max(axis=(0, 1)) for cut in cuts]
        assert 5 < np.std(bright, axis=0)[2] < 40
        assert abs(np.mean(bright, axis=0)[2] - 200) < 15

    def test_batches_do_not_depend_on_threads(self, library, monkeypatch):
        batches = [
            ImageBatch(np.arange(i, i + 10), np.arange(10), (0, 1, i)) for i in range(0, 50, 10)
        ]
        found = []
        for cores in (1, 7):
            monkeypatch.setattr(image_loader, "usable_cores", lambda cores=cores: cores)
            loader = ImageLoader(library.paths, tiny_tune.load())
            found.append([images for images, _ in loader.load(batches)])
        assert all(np.array_equal(*pair) for pair in zip(*found, strict=True))
        assert not np.array_equal(found[0][0], found[0][1])

    def test_unreadable_images_are_left_out_and_counted(self, folder, library, tmp_path):
        shutil.copytree(folder / "data", tmp_path / "data")
        moved = ss.ImageLibrary.load(folder / "outputs", tmp_path / "data", tiny_tune.load())
        train = [row for row, name in enumerate(moved.names) if name.startswith("train/")]
        test = [row for row, name in enumerate(moved.names) if name.startswith("test/")]
        for row in (*train[::6], test[0]):
            Path(moved.paths[row]).write_bytes(b"no image")
        trained = ss.train_head(moved, **LAST_EPOCH)
        assert trained.unreadable == 11
        assert "without 11 images that cannot be read" in str(trained)
        assert not set(trained.rows) & {*train[::6]}
        for found in (trained.before, trained.alone, trained.after):
            assert test[0] not in found.rows
            assert not set(found.gallery) & {*train[::6]}

    def test_no_readable_image_is_an_error(self, folder, tmp_path):
        shutil.copytree(folder / "outputs", tmp_path / "outputs")
        gone = ss.ImageLibrary.load(tmp_path / "outputs", tmp_path / "gone", tiny_tune.load())
        with pytest.raises(TrainingError, match=r"none of the images can be read: .*no such file"):
            ss.train_head(gone, **SETTINGS)
