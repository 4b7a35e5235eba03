import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve

import simsearch as ss
from simsearch.evaluation import thresholds


def blobs(count, classes, spread, seed=0):
    """Make a library of so many classes, each around its own direction."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    rows = rng.standard_normal((classes, 12))[labels] + spread * rng.standard_normal((count, 12))
    return ss.ImageLibrary(rows, [f"c{label}/{i:04}.jpg" for i, label in enumerate(labels)])


def pairs(library, labels):
    rows = library.embeddings.astype(np.float64)
    above = np.triu_indices(len(rows), 1)
    return (rows @ rows.T)[above], (labels[:, None] == labels)[above]


@pytest.mark.parametrize("spread", [0.2, 0.7, 2])
@pytest.mark.parametrize("block", [2**26, 4 * 150 * 7])
def test_threshold_has_the_highest_f1(monkeypatch, spread, block):
    monkeypatch.setattr(thresholds, "SCORE_BLOCK_BYTES", block)
    library = blobs(150, 4, spread)
    cosines, same = pairs(library, library.labels)
    precision, recall, _ = precision_recall_curve(same, cosines)
    best = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))
    found = ss.suggest_threshold(library)
    assert 2 / (1 / found.precision + 1 / found.recall) == pytest.approx(best, abs=2e-3)
    kept = cosines >= found.cosine
    assert found.precision == pytest.approx(same[kept].mean(), abs=2e-3)
    assert found.recall == pytest.approx(kept[same].mean(), abs=2e-3)
    assert found.false_match_rate == pytest.approx(kept[~same].mean(), abs=2e-3)


def test_requested_precision_is_reached_at_the_highest_recall():
    library = blobs(200, 5, 0.8)
    cosines, same = pairs(library, library.labels)
    for wanted in (0.5, 0.8, 0.95):
        found = ss.suggest_threshold(library, precision=wanted)
        assert same[cosines >= found.cosine].mean() == pytest.approx(found.precision, abs=2e-3)
        assert found.precision >= wanted
        precision, recall, _ = precision_recall_curve(same, cosines)
        assert found.recall == pytest.approx(recall[precision >= wanted].max(), abs=3e-3)


def test_random_sample_of_queries_is_enough(monkeypatch):
    library = blobs(600, 4, 0.7)
    whole = ss.suggest_threshold(library)
    monkeypatch.setattr(thresholds, "QUERIES", 200)
    sampled = [ss.suggest_threshold(library, seed=seed) for seed in (0, 0, 1)]
    assert sampled[0] == sampled[1] != sampled[2]
    assert sampled[0].cosine == pytest.approx(whole.cosine, abs=0.05)


def test_search_accepts_a_suggested_threshold():
    library = blobs(80, 3, 0.3)
    found = ss.suggest_threshold(library)
    matches = ss.search(library, 0, k=80, threshold=found)
    assert matches == ss.search(library, 0, k=80, threshold=found.cosine)
    assert {path[:2] for path in matches.paths} == {library.paths[0][:2]}
    assert str(found).startswith(f"cosine >= {found.cosine:.4f}: ")


def test_labels_are_given_or_from_folders_and_may_be_missing():
    library = blobs(60, 3, 0.3)
    labels = library.labels.tolist()
    assert ss.suggest_threshold(library, labels) == ss.suggest_threshold(library)
    labels[:20] = [None] * 20
    rest = ss.ImageLibrary(library.embeddings[20:], library.paths[20:])
    assert ss.suggest_threshold(library, labels) == ss.suggest_threshold(rest)


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (["a"] * 4, {}, "all images share one label, or no two do"),
        (["a", "b", "c", "d"], {}, "all images share one label, or no two do"),
        (["a", "a", "b", "b"], {"precision": 0}, "precision=0: give a share"),
        (
            ["a", "b", "a", "b"],
            {"precision": 1},
            r"precision=1 cannot be reached: the highest is 0\.\d",
        ),
    ],
)
def test_labels_without_information_are_refused(labels, options, message):
    library = ss.ImageLibrary([[1, 0], [1, 0.1], [0, 1], [0.1, 1]], list("wxyz"))
    with pytest.raises(ss.QueryError, match=message):
        ss.suggest_threshold(library, labels, **options)
