"""What the tests of libraries share."""

import numpy as np
import pytest

from simsearch.library.library import ImageLibrary
from simsearch.library.source import Source

NAMES = ("forest/1.jpg", "forest/2.jpg", "sea/a b.jpg", "sea/Größe 10.jpg", "top.jpg")


ODD_NAMES = ("two\nlines.jpg", "naïve ☃ 雪.png", "not\udcffutf8.jpg", "tab\t.jpg", 'quo"te,s.jpg')


SOURCE = Source("resnet50", "IMAGENET1K_V1", "0123456789abcdef", "float32")


def unit_rows(count, dim=6, seed=0):
    rows = np.random.default_rng(seed).standard_normal((count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def make_library(seed=0, names=NAMES, root="dataset", bare=False):
    """A library as `embed_dataset` makes it; a bare one has no stats, root or source."""
    paths = names if bare else [f"{root}/{name}" for name in names]
    library = ImageLibrary(unit_rows(len(paths), seed=seed), paths)
    if not bare:
        library.root, library.source = root, SOURCE
        library.stats = np.arange(2 * len(paths), dtype=np.int64).reshape(-1, 2) + 100 * seed
    return library


def same(one, other):
    """Whether two libraries hold the same, to the last bit."""
    return (
        one.embeddings.tobytes() == other.embeddings.tobytes()
        and one.paths.tolist() == other.paths.tolist()
        and (one.root, one.source) == (other.root, other.source)
        and (one.stats is None) == (other.stats is None)
        and (one.stats is None or one.stats.tolist() == other.stats.tolist())
    )


@pytest.fixture
def folder(tmp_path):
    """The outputs of a complete library."""
    make_library().save(tmp_path / "outputs")
    return tmp_path / "outputs"
