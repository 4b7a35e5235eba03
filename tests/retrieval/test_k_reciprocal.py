"""k-reciprocal reranking: against the paper's algorithm, with filters, indexes and folding."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simsearch as ss
from simsearch.retrieval.k_reciprocal import KReciprocal, k_reciprocal_distances
from simsearch.retrieval.pruned import PrunedIndex


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def clustered(count, dim=16, kinds=6, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((kinds, dim))
    return unit(centres[rng.integers(0, kinds, count)] + 0.8 * rng.standard_normal((count, dim)))


@pytest.fixture(scope="module")
def library():
    rows = clustered(400)
    return ss.ImageLibrary(rows, [f"{'ab'[i % 2]}/{i:03d}.jpg" for i in range(len(rows))])


def paper_distances(rows, k1, k2, weight):
    """Distances of row 0 to the others: the authors' code, set by set."""
    cosines = rows.astype(np.float64) @ rows.T.astype(np.float64)
    squared = 2 - 2 * cosines
    np.fill_diagonal(squared, 0)
    distances = squared / squared.max(axis=1, keepdims=True)
    ranks = [sorted(range(len(rows)), key=lambda j, i=i: squared[i, j]) for i in range(len(rows))]

    def reciprocal(i, k):
        return {j for j in ranks[i][: k + 1] if i in ranks[j][: k + 1]}

    members = np.zeros_like(distances)
    for i in range(len(rows)):
        own = reciprocal(i, k1)
        expanded = set(own)
        for j in own:
            theirs = reciprocal(j, round(k1 / 2))
            if len(theirs & own) > 2 / 3 * len(theirs):
                expanded |= theirs
        for j in expanded:
            members[i, j] = np.exp(-distances[i, j])
        members[i] /= members[i].sum()
    averaged = np.array([members[ranks[i][:k2]].mean(axis=0) for i in range(len(rows))])
    found = []
    for i in range(1, len(rows)):
        shared = np.minimum(averaged[0], averaged[i]).sum()
        jaccard = 1 - shared / (2 - shared)
        found.append((1 - weight) * jaccard + weight * distances[0, i])
    return np.array(found)


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(2, 60),
    k1=st.integers(1, 40),
    share=st.floats(0, 1),
    weight=st.floats(0, 1),
    seed=st.integers(0, 10_000),
)
def test_distances_are_those_of_the_paper(count, k1, share, weight, seed):
    rows = clustered(count, seed=seed)
    k2 = max(1, round(share * k1))
    asked = KReciprocal(k1=k1, k2=k2, weight=weight)
    distances = k_reciprocal_distances(rows[1:] @ rows[0], rows[1:], asked)
    np.testing.assert_allclose(distances, paper_distances(rows, k1, k2, weight), atol=2e-5)


def test_a_case_computed_by_hand():
    """Of two rows that are about as near, the one that has nearer neighbours of its own is far."""
    angles = np.radians([0, 20, -21, 22, 24])
    rows = unit(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    asked = KReciprocal(k1=2, k2=1, weight=0)
    distances = k_reciprocal_distances(rows[1:] @ rows[0], rows[1:], asked)
    np.testing.assert_allclose(distances, [1, 0.38658, 1, 1], atol=1e-4)


def test_the_order_of_the_rows_does_not_matter():
    rows, asked = clustered(80), KReciprocal()
    order = np.random.default_rng(1).permutation(79)
    distances = k_reciprocal_distances(rows[1:] @ rows[0], rows[1:], asked)
    again = k_reciprocal_distances(rows[1:][order] @ rows[0], rows[1:][order], asked)
    np.testing.assert_allclose(again, distances[order], atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_equal_rows_have_finite_distances(count):
    rows = unit(np.ones((count, 4)))
    assert np.isfinite(k_reciprocal_distances(np.ones(count), rows, KReciprocal())).all()


def test_search_reorders_and_scores_stay_cosines(library):
    plain = ss.search(library, 7, k=300)
    found = ss.search(library, 7, k=300, rerank="k-reciprocal")
    assert found.paths != plain.paths
    assert dict(zip(found.paths, found.scores, strict=True)) == dict(
        zip(plain.paths, plain.scores, strict=True)
    )
    assert [match.rank for match in found] == list(range(1, 301))
    assert "007.jpg" not in "".join(found.paths)


def test_few_matches_are_the_first_of_many(library):
    many = ss.search(library, 7, k=399, rerank="k-reciprocal")
    assert ss.search(library, 7, k=5, rerank="k-reciprocal").paths == many.paths[:5]
    assert many.paths[301:] == ss.search(library, 7, k=399).paths[301:]


def test_with_all_weight_on_the_cosine_nothing_changes(library):
    asked = KReciprocal(weight=1.0)
    assert ss.search(library, 7, rerank=asked).paths == ss.search(library, 7).paths


def test_rows_of_the_same_kind_come_first():
    """What the reranking is for: precision rises on clusters that overlap."""
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 8
    rows = unit(rng.standard_normal((8, 12))[labels] + 1.1 * rng.standard_normal((400, 12)))
    library = ss.ImageLibrary(rows, [f"{i:03d}.jpg" for i in range(400)])

    def precision(**options):
        found = ss.search(library, list(range(400)), k=20, **options)
        return np.mean([[labels[m.row] == labels[i] for m in f] for i, f in enumerate(found)])

    assert precision(rerank="k-reciprocal") > precision() + 0.03


@pytest.mark.parametrize("options", [{"where": "a/*"}, {"where": range(0, 90, 3)}], ids=str)
def test_a_filter_gives_what_a_library_of_those_rows_alone_gives(library, options):
    rows = np.flatnonzero(library.select(options["where"]))
    alone = ss.ImageLibrary(library.embeddings[rows], library.paths[rows])
    query = library.embeddings[1]
    found = ss.search(library, query, k=200, rerank="k-reciprocal", **options)
    assert found.paths == ss.search(alone, query, k=200, rerank="k-reciprocal").paths


def test_a_threshold_leaves_out_what_it_always_leaves_out(library):
    plain = ss.search(library, 7, k=400, threshold=0.4)
    found = ss.search(library, 7, k=400, threshold=0.4, rerank="k-reciprocal")
    assert sorted(found.paths) == sorted(plain.paths)
    assert len(ss.search(library, 7, threshold=1.0, rerank="k-reciprocal")) == 0


def test_indexes_give_the_same_order(library):
    exact = ss.search(library, [3, 8], k=50, rerank="k-reciprocal")
    pruned = ss.search(library, [3, 8], k=50, rerank="k-reciprocal", index=PrunedIndex())
    assert [one.paths for one in pruned] == [one.paths for one in exact]


def test_several_queries_as_one(library):
    for combine in ("mean", "max"):
        found = ss.search(library, [3, 8], k=20, combine=combine, rerank="k-reciprocal")
        assert len(set(found.paths)) == 20
    assert len(ss.recommend(library, [3, 8], k=4, rerank="k-reciprocal")) == 4


def test_copies_are_folded_however_deep_they_lie():
    """Of 40 copies of 15 pictures each, whose files are not here, each picture is found once."""
    rows = np.repeat(clustered(15, dim=64, kinds=15), 40, axis=0)
    library = ss.ImageLibrary(rows, [f"{i:03d}.jpg" for i in range(len(rows))])
    asked = KReciprocal(candidates=50)
    found = ss.search(library, rows[0], k=12, unique=0.99, rerank=asked)
    assert len({path[:3] for path in found.paths}) == 12
    assert len({int(match.path[:3]) // 40 for match in found}) == 12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rerank": "k-reciprocl"}, "did you mean 'k-reciprocal'"),
        ({"rerank": "fusion"}, "no such reranking; give 'k-reciprocal'"),
        ({"rerank": "backgroud"}, "did you mean 'background'"),
        ({"rerank": True}, "rerank=True"),
        ({"rerank": np.zeros(3)}, "there is no such reranking"),
        ({"rerank": "k-reciprocal", "diversity": 0.3}, "give one of the two"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused(library, options, message):
    with pytest.raises(ss.QueryError, match=message):
        ss.search(library, 0, **options)


@pytest.mark.parametrize(
    "setting",
    [{"k1": 0}, {"k1": 2.5}, {"k2": 21}, {"weight": 1.1}, {"weight": np.nan}, {"candidates": 9000}],
    ids=str,
)
def test_settings_out_of_range_are_named(setting):
    (name,) = setting
    with pytest.raises(ss.QueryError, match=f"{name}="):
        KReciprocal(**setting)
