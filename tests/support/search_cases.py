"""What the tests of search share."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st
from oracle import KINDS, make_rows
from PIL import Image

from simsearch.embedding.dataset import embed_dataset
from simsearch.library.library import ImageLibrary
from simsearch.retrieval.search import search

BACKBONE = "efficientnet_lite0"


@pytest.fixture(scope="module")
def views(sample, tmp_path_factory):
    """Five views of each photo to search in, two to search with."""
    views = tmp_path_factory.mktemp("views")
    for split, count in (("seg_train", 5), ("seg_test", 2)):
        for folder in (sample / split).iterdir():
            (views / split / folder.name).mkdir(parents=True)
            for file in sorted(folder.iterdir())[:count]:
                shutil.copy2(file, views / split / folder.name)
    return views


@pytest.fixture(scope="module")
def library(views):
    return embed_dataset(views / "seg_train", views / "outputs", BACKBONE, progress=False)


@st.composite
def libraries(draw, max_rows=300, max_dim=64):
    """A library in no order, some of its paths equal."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    count, dim = draw(st.integers(1, max_rows)), draw(st.integers(1, max_dim))
    rows = make_rows(draw(st.sampled_from(KINDS)), count, dim, rng)
    return ImageLibrary(rows, [f"{n:04}.jpg" for n in rng.integers(0, 2 * count, count)])


def found(matches):
    return [(match.row, match.score) for match in matches]


def circle(*degrees, paths=None):
    """A library of directions in the plane, whose cosines are known by hand."""
    angles = np.radians(degrees)
    paths = paths or [f"{degree}.jpg" for degree in degrees]
    return ImageLibrary(np.stack([np.cos(angles), np.sin(angles)], axis=1), paths)


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A library that has no backbone, and the files of its images."""
    monkeypatch.chdir(tmp_path)
    for degree, colour in ((0, "red"), (10, "green"), (20, "blue")):
        Image.new("RGB", (40, 30), colour).save(f"{degree}.jpg")
    library = circle(0, 10, 20)
    files = [Path(path).stat() for path in library.paths]
    library.stats = np.array([(file.st_size, file.st_mtime_ns) for file in files])
    return library


@pytest.fixture
def matches(shelf):
    return search(shelf, "0.jpg", exclude_query=False)
