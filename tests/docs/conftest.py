"""A folder that has everything the documentation's examples name."""

import os
import shutil
from pathlib import Path

import pytest

import simsearch as ss

CLASSES = ("cat", "coffee", "grass")
PER_CLASS = {"seg_train": 14, "seg_test": 6}
UNLABELLED = 6


@pytest.fixture(scope="module", autouse=True)
def fast_runtime():
    """As with `pip install 'simsearch[fast]'`: commands that need no PyTorch take a third."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIMSEARCH_RUNTIME", "openvino")
        yield


@pytest.fixture(scope="module")
def example_project(sample, tmp_path_factory):
    """A small dataset and its library, a table of facts, and pictures to search with."""
    folder = tmp_path_factory.mktemp("example")
    for split, count in PER_CLASS.items():
        for name in CLASSES:
            _copy(sample / split / name, folder / "dataset" / split / name, count)
    _copy(sample / "seg_pred", folder / "dataset" / "seg_pred", UNLABELLED)
    pictures = sorted((sample / "seg_pred").iterdir())[UNLABELLED:]
    for name, picture in zip(("a", "b", "c", "photo", "room"), pictures, strict=False):
        shutil.copy2(picture, folder / f"{name}.jpg")
    before = Path.cwd()
    os.chdir(folder)  # paths in a library are those that a reader in this folder would open
    try:
        library = ss.embed_dataset("dataset", "outputs", "efficientnet_lite0", progress=False)
    finally:
        os.chdir(before)
    lines = [f"{name},{10 * i},{('red', 'blue')[i % 2]}" for i, name in enumerate(library.names)]
    (folder / "metadata.csv").write_text("\n".join(["path,price,tags", *lines]))
    return folder


def _copy(source, target, count):
    target.mkdir(parents=True)
    for image in sorted(source.iterdir())[:count]:
        shutil.copy2(image, target)


@pytest.fixture
def project(example_project, tmp_path, monkeypatch):
    """A copy of it, as the working folder."""
    folder = tmp_path / "project"
    shutil.copytree(example_project, folder)
    monkeypatch.chdir(folder)
    return folder
