"""What the tests of figures share."""

import io
from itertools import combinations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

import simsearch as ss
from simsearch.retrieval.matches import Match, Matches

CLASSES = ("forest", "glacier", "sea")


@pytest.fixture(autouse=True)
def clean():
    """Every figure that a test makes is closed, and the settings are as they were."""
    plt.close("all")  # of tests elsewhere
    settings = dict(mpl.rcParams)
    yield
    plt.close("all")
    assert dict(mpl.rcParams) == settings


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """Three classes far apart, each in seg_train and seg_test, and unlabelled images."""
    root = tmp_path_factory.mktemp("dataset")
    rng = np.random.default_rng(0)
    folders = [f"{split}/{name}" for split in ("seg_test", "seg_train") for name in CLASSES]
    paths, rows = [], []
    for folder in ["seg_pred", *folders]:
        (root / folder).mkdir(parents=True)
        kind = CLASSES.index(folder.split("/")[1]) if "/" in folder else 3
        for i in range(20 if "train" in folder else 8):
            paths.append(root / folder / f"{i:04}.jpg")
            color = tuple(rng.integers(0, 256, 3).tolist())
            Image.new("RGB", (40, 30 if i % 2 else 60), color).save(paths[-1])
            rows.append(4 * np.eye(16)[kind if kind < 3 else i % 3] + rng.normal(size=16) / 3)
    library = ss.ImageLibrary(np.array(rows), paths)
    library.root = root.as_posix()
    return library


def found(*paths, query="dataset/q.jpg", image=None, share=99.3):
    rows = [Match(i, str(path), 1 - i / 8, share, i) for i, path in enumerate(paths, 1)]
    return Matches(query, tuple(rows), image)


def texts(ax):
    return [text.get_text() for text in ax.texts]


def assert_not_clipped(fig):
    """Nothing reaches over the edge, seen by what is drawn and by what matplotlib measures."""
    data = io.BytesIO()
    fig.savefig(data, format="png")
    pixels = np.asarray(Image.open(data).convert("RGB"))
    assert pixels.min() < 128, "nothing was drawn"
    for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert edge.min() == 255
    box = fig.get_tightbbox()
    width, height = fig.get_size_inches()
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= width
    assert box.y1 <= height


def boxes(artists):
    return [artist.get_window_extent() for artist in artists]


def assert_apart(artists):
    assert not any(a.fully_overlaps(b) for a, b in combinations(boxes(artists), 2))


def pixels(ax):
    return np.asarray(ax.images[0].get_array()).astype(int)


@pytest.fixture(scope="module")
def noisy(library):
    """The same images, further from their classes."""
    noise = np.random.default_rng(1).normal(size=library.embeddings.shape)
    noisy = ss.ImageLibrary(library.embeddings + 0.4 * noise, library.paths)
    noisy.root = library.root
    return noisy


@pytest.fixture(scope="module")
def evaluation(noisy):
    return ss.evaluate(noisy, queries="seg_test/*", gallery="seg_train/*")


def many(classes, name="animals_{:03}_species", size=4, noise=1.0):
    """An evaluation of many classes with long names, many of them taken for others."""
    rng = np.random.default_rng(classes)
    labels = np.repeat(np.arange(classes), size)
    rows = rng.normal(size=(classes, 8))[labels] + noise * rng.normal(size=(len(labels), 8))
    many = ss.ImageLibrary(rows, [f"{i}.jpg" for i in range(len(labels))])
    return ss.evaluate(many, [name.format(label) for label in labels], k=1, resamples=0)
