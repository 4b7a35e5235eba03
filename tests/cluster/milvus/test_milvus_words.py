"""Words in a Milvus Lite file, beside the same words in the library itself."""

import numpy as np
import pytest
from milvus_cases import assert_same
from word_cases import class_library

import simsearch as ss
from simsearch.retrieval.row_sample import draw_sample

TIME_LIMIT = 300  # the first words encode the names of all classes

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "words_cache"))


@pytest.fixture(scope="module")
def library():
    made = class_library()
    order = np.argsort(made.paths)
    same = ss.ImageLibrary(made.embeddings[order], made.paths[order], made.backbone)
    same.root = ""
    return same


@pytest.fixture(scope="module")
def remote(library, tmp_path_factory):
    file = tmp_path_factory.mktemp("milvus") / "images.db"
    ss.publish(library, file, "words", progress=False)
    with ss.RemoteLibrary(file, "words") as opened:
        yield opened


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"k": 40},
        {"where": "banana/*"},
        {"threshold": "auto", "k": 200},
        {"unique": True, "diversity": 0.3},
        {"rerank": "k-reciprocal"},
    ],
    ids=str,
)
@pytest.mark.parametrize("text", ["a beach by the sea", "quarterly tax report"])
def test_words_find_what_they_find_in_the_library(library, remote, text, options):
    assert_same(ss.search(remote, text=text, **options), ss.search(library, text=text, **options))


def test_words_mix_and_recommend_as_in_the_library(library, remote):
    mixed = [ss.Words("zebra"), 3]
    for how in ("mean", "max"):
        assert_same(ss.search(remote, mixed, combine=how), ss.search(library, mixed, combine=how))
    liked = {"liked": [ss.Words("zebra"), 3], "disliked": [ss.Words("beach")], "k": 9}
    assert_same(ss.recommend(remote, **liked), ss.recommend(library, **liked))


def test_shards_take_words(library, remote):
    paths = ss.search(library, text="zebra", k=10).paths
    half = len(library) // 2
    parts = [
        ss.ImageLibrary(library.embeddings[some], library.paths[some], library.backbone)
        for some in (slice(0, half), slice(half, None))
    ]
    assert set(ss.search(ss.Shards(parts), text="zebra", k=10).paths) == set(paths)
    assert set(ss.search(ss.Shards([remote]), text="zebra", k=10).paths) == set(paths)


def test_the_sample_is_spread_over_all_paths(remote):
    """Not the first folders alone, whose mean is not that of the library."""
    sample = draw_sample(remote, 30)
    folders = {path.partition("/")[0] for path in remote.paths[sample.numbers.tolist()]}
    assert len(sample.numbers) == len(np.unique(sample.numbers)) == len(sample.rows) == 30
    assert folders == {"banana", "other", "seashore", "street_sign", "zebra"}
    assert np.allclose(sample.rows, remote.embeddings[sample.numbers.tolist()])
