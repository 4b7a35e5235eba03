import hashlib
import os
import subprocess
import sys
import time
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from simsearch import samples
from simsearch.errors import DatasetError, MissingExtraError
from simsearch.images.find import find_images
from simsearch.samples import make_sample

CLASSES = {source.label for source in samples._SOURCES}


def contents(folder):
    """Map each file's name, hidden and unfinished ones included, to a hash of its bytes."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def mtimes(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """The whole sample. Tests that change it work on their own."""
    return make_sample(tmp_path_factory.mktemp("whole") / "dataset")


@pytest.fixture
def small(monkeypatch):
    """Cut only four views of each photo."""
    monkeypatch.setattr(samples, "_SPLITS", {"seg_train": 2, "seg_test": 1, "seg_pred": 1})


def test_layout_and_counts(sample):
    files = [file.name for file in find_images(sample)[0]]
    assert Counter(name.split("/")[0] for name in files) == {
        "seg_train": 850,
        "seg_test": 238,
        "seg_pred": 119,
    }
    for split, each in (("seg_train", 50), ("seg_test", 14)):
        labels = Counter(name.split("/")[1] for name in files if name.startswith(split))
        assert labels == dict.fromkeys(CLASSES, each)
    assert {f"seg_pred/{n:04}.jpg" for n in range(1, 120)} <= set(files)
    assert {path.name for path in sample.iterdir() if path.is_file()} == {samples._NOTE}


def test_unlabelled_names_give_no_class_away():
    pred = [photo for name, (photo, _) in samples._plan(0).items() if name.startswith("seg_pred")]
    assert Counter(pred) == dict.fromkeys(range(len(CLASSES)), 7)
    runs = sum(a == b for a, b in pairwise(pred))
    assert runs < 20  # 6 expected by chance, 102 if the classes came one after another


def test_views_decode_at_a_sensible_size(sample):
    for file in find_images(sample)[0]:
        with Image.open(sample / file.name) as view:
            view.load()
        assert view.format == "JPEG"
        assert view.mode in ("RGB", "L")
        assert 224 <= min(view.size) <= 256
        assert max(view.size) / min(view.size) < 1.4


def test_no_view_is_another(sample):
    assert max(Counter(contents(sample).values()).values()) == 1


def test_every_photo_is_credited(sample):
    note = (sample / samples._NOTE).read_text(encoding="utf-8")
    for source in samples._SOURCES:
        assert f"\n{source.label}: {source.credit}, from {source.file}\n" in note


def test_killed_run_completes_to_the_same_bytes(sample, tmp_path):
    folder = tmp_path / "dataset"
    code = f"from simsearch.samples import make_sample; make_sample({os.fspath(folder)!r})"
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL) as run:
        while run.poll() is None and not (folder / "seg_train" / "brick").exists():
            time.sleep(0.01)
        run.kill()
    done = mtimes(folder)
    views = [path for path in done if path.suffix == ".jpg"]
    assert 100 < len(views) < 1207
    assert make_sample(folder) == folder
    assert contents(folder) == contents(sample)
    assert {path: path.stat().st_mtime_ns for path in views} == {p: done[p] for p in views}


@pytest.mark.usefixtures("small")
def test_deleted_and_truncated_views_come_back(tmp_path):
    before = contents(make_sample(tmp_path))
    (tmp_path / "seg_train/cat/0001.jpg").unlink()
    (tmp_path / "seg_pred/0003.jpg").write_bytes(b"")
    torn = tmp_path / "seg_test/temple/0001.jpg"
    torn.write_bytes(torn.read_bytes()[:-100])
    (tmp_path / "seg_train/cat/0001.jpg.part").write_bytes(b"left by a kill")
    assert contents(make_sample(tmp_path)) == before


def test_complete_sample_is_reused_without_writing(sample, monkeypatch):
    before = mtimes(sample)
    monkeypatch.setattr(samples, "_locate", lambda file: pytest.fail("opened a photo"))
    start = time.perf_counter()
    assert make_sample(str(sample)) == sample
    assert time.perf_counter() - start < 1
    assert mtimes(sample) == before


@pytest.mark.usefixtures("small")
def test_seed_decides_the_views(tmp_path):
    first, second = (contents(make_sample(tmp_path / str(seed), seed=seed)) for seed in (0, 1))
    assert first.keys() == second.keys()
    assert not set(first.values()) & set(second.values())


@pytest.mark.parametrize("name", ["1.jpg", "seg_pred/0001.jpg", "seg_train/forest/7.PNG"])
def test_foreign_images_are_refused_and_untouched(name, tmp_path):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(tmp_path / name)
    before, times = contents(tmp_path), mtimes(tmp_path)
    with pytest.raises(DatasetError, match="new or empty folder") as error:
        make_sample(tmp_path)
    assert str(tmp_path) in str(error.value)
    assert name in str(error.value)
    assert (contents(tmp_path), mtimes(tmp_path)) == (before, times)


def test_images_behind_a_link_are_foreign(tmp_path):
    mine, folder = tmp_path / "mine", tmp_path / "dataset"
    mine.mkdir()
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(mine / "1.jpg")
    (folder / "seg_train").symlink_to(mine, target_is_directory=True)
    with pytest.raises(DatasetError, match="new or empty folder"):
        make_sample(folder)
    assert contents(mine).keys() == {"1.jpg"}


def test_another_seed_is_refused(sample):
    before = mtimes(sample)
    with pytest.raises(DatasetError, match="seed 1"):
        make_sample(sample, seed=1)
    assert mtimes(sample) == before


@pytest.mark.usefixtures("small")
def test_own_images_beside_the_sample(tmp_path):
    make_sample(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "mine.jpg")
    make_sample(tmp_path)  # complete: nothing to write, so nothing to refuse
    (tmp_path / "seg_train/cat/0001.jpg").unlink()
    with pytest.raises(DatasetError, match=r"mine\.jpg"):
        make_sample(tmp_path)


@pytest.mark.usefixtures("small")
def test_other_files_are_left_alone(tmp_path):
    (tmp_path / "README.txt").write_text("mine")
    make_sample(tmp_path)
    assert (tmp_path / "README.txt").read_text() == "mine"


def test_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "dataset").write_text("mine")
    with pytest.raises(DatasetError, match="dataset"):
        make_sample(tmp_path / "dataset")


def test_missing_carrier_names_the_install(tmp_path, monkeypatch):
    monkeypatch.setattr(samples, "find_spec", lambda package: None)
    with pytest.raises(MissingExtraError, match="pip install --upgrade matplotlib"):
        make_sample(tmp_path / "dataset")
    assert not (tmp_path / "dataset").exists()


def test_carriers_and_torch_are_not_imported(tmp_path):
    code = (
        "import sys; from simsearch import samples\n"
        "[samples._open(source) for source in samples._SOURCES]\n"
        "print(*{'skimage', 'sklearn', 'matplotlib', 'torch'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""


@pytest.mark.parametrize("size", [(640, 427), (300, 451), (448, 172)])
def test_turning_brings_in_no_black(size):
    white = Image.new("RGB", size, "white")
    for seed in range(50):
        view = samples._cut(white, np.random.default_rng(seed))
        assert all(low == high for low, high in view.getextrema())


def test_grey_photos_stay_grey(sample):
    modes = {}
    for path in sample.glob("seg_*/*/0001.jpg"):
        with Image.open(path) as view:
            modes.setdefault(view.mode, set()).add(path.parent.name)
    grey = {"brick", "cell", "coins", "grass", "gravel", "handwriting", "photographer"}
    assert modes == {"L": grey, "RGB": CLASSES - grey}


def colours(path):
    """A histogram of 4 x 4 x 4 colours, as square roots: their dot product is in [0, 1]."""
    with Image.open(path) as view:
        levels = np.asarray(view.convert("RGB").resize((64, 64))).reshape(-1, 3) // 64
    return np.sqrt(np.bincount(levels @ (16, 4, 1), minlength=64) / len(levels))


def test_labels_match_the_pictures(sample):
    train, test = (sorted(sample.glob(f"{split}/*/*.jpg")) for split in ("seg_train", "seg_test"))
    scores = np.array([*map(colours, test)]) @ np.array([*map(colours, train)]).T  # (238, 850)
    nearest = scores.argmax(axis=1)
    hits = [a.parent.name == train[b].parent.name for a, b in zip(test, nearest, strict=True)]
    assert np.mean(hits) > 0.7  # 1 in 17 by chance; four grey textures share their histograms
