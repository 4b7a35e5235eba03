"""Search on embeddings: brute force is the oracle of every option."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from oracle import cosines, make_rows
from search_cases import circle, found, libraries

from simsearch.errors import QueryError
from simsearch.library.library import ImageLibrary
from simsearch.retrieval import exact
from simsearch.retrieval.search import search


def brute_force(library, vector, k, threshold=None, without=None):
    """Row and score of the k best: score every row, sort them all."""
    scores = np.clip(cosines(library, vector), -1, 1).tolist()
    paths = library.paths.tolist()
    order = sorted(range(len(library)), key=lambda row: (-scores[row], paths[row], row))
    best = [(row, scores[row]) for row in order if row != without][:k]
    return [(row, score) for row, score in best if threshold is None or score >= threshold]


@settings(max_examples=200, deadline=None)
@given(
    library=libraries(),
    k=st.integers(1, 400),
    threshold=st.none() | st.floats(-1, 1),
    exclude=st.booleans(),
    data=st.data(),
)
def test_a_row_finds_what_brute_force_finds(library, k, threshold, exclude, data):
    row = data.draw(st.integers(0, len(library) - 1))
    matches = search(library, row, k, threshold, exclude)
    without = row if exclude else None
    assert found(matches) == brute_force(library, library.embeddings[row], k, threshold, without)


@settings(max_examples=100, deadline=None)
@given(library=libraries(), k=st.integers(1, 20), seed=st.integers(0, 2**32))
def test_an_embedding_finds_what_brute_force_finds(library, k, seed):
    """Of any length and precision: the direction counts."""
    vector = np.random.default_rng(seed).standard_normal(library.dim)
    unit = (vector / np.linalg.norm(vector)).astype(np.float32)
    matches = search(library, 1e3 * vector, k)
    expected = brute_force(library, unit, k)
    assert [match.score for match in matches] == pytest.approx(
        [score for _, score in expected], abs=1e-6
    )
    assert found(search(library, unit.astype(np.float64), k)) == found(search(library, unit, k))


@settings(max_examples=50, deadline=None)
@given(library=libraries(max_rows=40, max_dim=8), k=st.integers(1, 8))
def test_many_queries_at_once_equal_one_at_a_time(library, k):
    rows = list(range(len(library)))
    one_by_one = [search(library, row, k) for row in rows]
    with pytest.MonkeyPatch.context() as patch:
        for limit in (2**26, 4 * len(library) * 3, 1):  # all, three, and one at once
            patch.setattr(exact, "SCORES_BYTES", limit)
            assert list(map(found, search(library, rows, k))) == list(map(found, one_by_one))


def test_scores_are_those_of_float64():
    library = ImageLibrary(np.random.default_rng(0).standard_normal((50, 48)), map(str, range(50)))
    for match in search(library, 7, k=49):
        products = library.embeddings[[7, match.row]].astype(np.float64).prod(axis=0)
        assert match.score == pytest.approx(math.fsum(products), abs=1e-15)


def test_rounding_in_float32_hides_no_winner():
    """Even where the scan errs by the most that theory allows, the answer is exact."""
    rng = np.random.default_rng(0)
    for dim in (1, 2, 64, 2048):
        library = ImageLibrary(make_rows("near ties", 300, dim, rng), map(str, range(300)))
        vector = library.embeddings[0]
        worst = dim * 2.0**-24 * rng.choice([-1, 1], 300)
        scores = (cosines(library, vector) + worst).astype(np.float32)
        rows, reference = zip(*brute_force(library, vector, 10), strict=True)
        found = exact.rescore(library, vector, scores, 10)
        assert found.rows.tolist() == list(rows)
        assert found.scores == pytest.approx(reference, abs=1e-6)


@pytest.mark.parametrize("block", [1, 7, 1024])
@pytest.mark.parametrize("k", [1, 5, 60])
def test_ties_are_ordered_by_path_wherever_they_stand(monkeypatch, k, block):
    monkeypatch.setattr(exact, "RESCORED_ROWS", block)
    rng = np.random.default_rng(1)
    rows, names = rng.standard_normal((60, 33)), rng.permutation(60)
    twins = np.sort(rng.permutation(60)[:20])
    rows[twins] = rows[twins[0]]
    library = ImageLibrary(rows, [f"{name:02}.jpg" for name in names])
    matches = search(library, library.embeddings[twins[0]], k)
    best = matches.paths[:20]
    assert best == sorted(library.paths[twins].tolist())[:k]
    assert len({match.score for match in matches[:20]}) == 1


def test_scores_that_rounding_lifts_over_one_tie_at_one():
    library = ImageLibrary(np.float32([[1.000008, 0], [1, 0]]), ["b.jpg", "a.jpg"])
    assert library.embeddings.max() > 1
    for k in (1, 2):
        matches = search(library, np.float32([1, 0]), k)
        assert matches.paths == ["a.jpg", "b.jpg"][:k]
        assert {match.score for match in matches} == {1.0}


@pytest.mark.parametrize(("k", "count"), [(1, 1), (4, 4), (5, 4), (10**9, 4), (np.uint8(3), 3)])
def test_a_library_that_holds_fewer_returns_them_all(k, count):
    matches = search(circle(0, 10, 20, 30, 40), 0, k)
    assert matches.paths == ["10.jpg", "20.jpg", "30.jpg", "40.jpg"][:count]
    assert [match.rank for match in matches] == list(range(1, count + 1))


def test_a_threshold_leaves_out_what_is_below():
    library = circle(0, 30, 60, 90, 180)
    assert search(library, 0, threshold=0.4).paths == ["30.jpg", "60.jpg"]
    assert search(library, 0, threshold=-1).paths == ["30.jpg", "60.jpg", "90.jpg", "180.jpg"]
    assert len(search(library, 0, threshold=1)) == 0
    assert search(library, 0, threshold=1, exclude_query=False).paths == ["0.jpg"]


def oracle(library, vectors, k, **wish):
    """Row and score of each match, by the definitions: rank all, fold, then pick one by one."""
    scores = np.clip(np.max([cosines(library, vector) for vector in vectors], axis=0), -1, 1)
    order = np.lexsort((library.paths, -scores)).tolist()
    allowed = set(np.flatnonzero(wish["among"]).tolist()) - wish["without"]
    order = [row for row in order if row in allowed and scores[row] >= wish["floor"]]
    pool = 10 * k if wish["diversity"] else k
    rows = library.embeddings.astype(np.float64)
    kept, folded = [], {}
    for row in order:
        first = next((i for i in kept if (rows[i] * rows[row]).sum() >= wish["unique"]), None)
        if first is not None:
            folded[first].append(row)
        elif len(kept) == pool:
            break  # what ranks below the last match is not looked at
        else:
            kept.append(row)
            folded[row] = []
    if wish["diversity"]:
        chosen = []
        for _ in range(min(k, len(kept))):
            gain = {
                row: (1 - wish["diversity"]) * scores[row]
                - max((wish["diversity"] * (rows[row] * rows[i]).sum() for i in chosen), default=0)
                for row in kept
                if row not in chosen
            }
            chosen.append(max(gain, key=gain.get))
        kept = chosen
    return [(row, scores[row], tuple(library.paths[folded[row]].tolist())) for row in kept]


def settled(rows):
    return [(row, pytest.approx(score, abs=1e-12), paths) for row, score, paths in rows]


@settings(max_examples=200, deadline=None)
@given(
    library=libraries(max_rows=120, max_dim=16),
    k=st.integers(1, 12),
    threshold=st.sampled_from([None, -1.0, 0.123, 0.9]),
    exclude=st.booleans(),
    combine=st.sampled_from([None, "mean", "max"]),
    diversity=st.sampled_from([0, 0.25, 0.7, 1]),
    unique=st.sampled_from([False, True, 0.777, 0.2]),
    data=st.data(),
)
def test_every_option_and_all_together(
    library, k, threshold, exclude, combine, diversity, unique, data
):
    numbers = st.integers(0, len(library) - 1)
    queries = data.draw(st.lists(numbers, min_size=1, max_size=4), "queries")
    vectors = library.embeddings[queries]
    mask = np.array(
        data.draw(st.lists(st.booleans(), min_size=len(library), max_size=len(library)))
    )
    where = data.draw(st.sampled_from([None, mask]))
    weights = None
    if combine == "mean":
        weights = data.draw(st.none() | st.just(np.linspace(1, 2, len(queries)).tolist()))
        assume(np.linalg.norm(np.average(vectors, axis=0, weights=weights)) > 1e-3)
    answers = search(
        library,
        queries,
        k,
        threshold,
        exclude,
        where=where,
        combine=combine,
        weights=weights,
        diversity=diversity,
        unique=unique,
    )
    asked = [([vector], {row}) for vector, row in zip(vectors, queries, strict=True)]
    if combine:
        asked = [(vectors, set(queries))]
        answers = [answers]
    if combine == "mean":
        taste = np.average(vectors.astype(np.float64), axis=0, weights=weights)
        asked = [([(taste / np.linalg.norm(taste)).astype(np.float32)], set(queries))]
    for matches, (sides, rows) in zip(answers, asked, strict=True):
        expected = oracle(
            library,
            sides,
            k,
            floor=-1 if threshold is None else threshold,
            without=rows if exclude else set(),
            among=np.ones(len(library)) if where is None else where,
            diversity=diversity,
            unique={False: 2, True: 0.95}.get(unique, unique),
        )
        assert [(m.row, m.score, m.duplicates) for m in matches] == settled(expected)
        assert [match.rank for match in matches] == list(range(1, len(matches) + 1))
        assert matches.exact


@settings(max_examples=100, deadline=None)
@given(library=libraries(), k=st.integers(1, 30), share=st.floats(0, 1), seed=st.integers(0, 999))
def test_a_filter_gives_k_whenever_k_exist(library, k, share, seed):
    mask = np.random.default_rng(seed).random(len(library)) < share
    matches = search(library, 0, k, where=mask)
    mask[0] = False
    assert len(matches) == min(k, mask.sum())
    assert mask[[match.row for match in matches]].all()


def test_a_filter_is_a_glob_a_mask_rows_or_conditions():
    paths = ["shoes/a.jpg", "shoes/b.jpg", "hats/c.jpg", "hats/d.jpg"]
    library = circle(0, 10, 20, 30, paths=paths)
    library.attach(pd.DataFrame({"path": paths, "price": [10, 20, 30, 40], "title": list("wxyz")}))
    for where in (
        "hats/*",
        [False, False, True, True],
        np.array([2, 3]),
        {"price": (25, None)},
        {"path": "hats/*", "title": ["x", "y", "z"]},
    ):
        assert search(library, 0, where=where).paths == ["hats/c.jpg", "hats/d.jpg"]
    assert len(search(library, 0, where={"price": (1000, None)})) == 0
    assert len(search(library, 0, where="nothing/*")) == 0
    with pytest.raises(QueryError, match="no column 'colour'; there are path, folder, price"):
        search(library, 0, where={"colour": "red"})


def test_matches_carry_the_metadata():
    library = circle(0, 10, 20).attach(
        pd.DataFrame({"path": ["10.jpg", "0.jpg"], "title": ["ten", "zero"], "price": [7, 8]}),
        caption=["title", "price"],
    )
    ten, twenty = search(library, 0)
    assert (ten.caption, ten.metadata) == ("ten · 7", {"title": "ten", "price": 7})
    assert (twenty.caption, twenty.metadata) == ("", {})
    matches = search(library, 0)
    assert "10.jpg  ten · 7" in str(matches)
    assert "ten · 7" in matches._repr_html_()
    assert matches.to_frame().loc[1, "title"] == "ten"
    assert json.loads(matches.to_json())["matches"][0]["metadata"]["price"] == 7


def test_the_mean_of_several_queries_by_hand():
    library = circle(0, 30, 40, 60, 180)
    matches = search(library, [0, 3], k=2, combine="mean")
    assert matches.paths == ["30.jpg", "40.jpg"]
    assert matches.scores == pytest.approx([1, np.cos(np.radians(10))])
    assert matches.query == "mean of 2 queries"
    assert matches.image == ("0.jpg", "60.jpg")
    leaning = search(library, [0, 3], k=1, combine="mean", weights=[1, 3])
    assert leaning.paths == ["40.jpg"]


def test_the_maximum_keeps_tastes_apart():
    library = circle(0, 5, 90, 95, 45)
    queries = [0, 2]
    assert search(library, queries, k=1, combine="mean").paths == ["45.jpg"]
    assert search(library, queries, k=2, combine="max").paths == ["5.jpg", "95.jpg"]


def test_diversity_by_hand():
    library = circle(0, 10, 11, 12, 40)
    assert search(library, 0, k=2).paths == ["10.jpg", "11.jpg"]
    # After 10: 0.5 cos(40) - 0.5 cos(30) = -0.05 is more than 0.5 cos(11) - 0.5 cos(1) = -0.009?
    gains = {d: np.cos(np.radians(d)) - np.cos(np.radians(d - 10)) for d in (11, 12, 40)}
    best = max(gains, key=gains.get)
    assert search(library, 0, k=2, diversity=0.5).paths == ["10.jpg", f"{best}.jpg"]
    assert search(library, 0, k=2, diversity=0.9).paths == ["10.jpg", "40.jpg"]


def test_near_duplicates_are_folded_into_the_best_of_them():
    library = circle(0, 20, 21, 22, 60)
    matches = search(library, 0, k=2, unique=0.999)  # within 2.56 degrees
    assert matches.paths == ["20.jpg", "60.jpg"]
    assert [match.duplicates for match in matches] == [("21.jpg", "22.jpg"), ()]
    assert "+2 alike" in str(matches)
    assert "+2 alike" in matches._repr_html_()


def test_folding_reaches_past_many_duplicates():
    rows = np.array([[1, 0, 0]] * 500 + [[0.8, 0.6, 0], [0.8, 0, 0.6]])
    library = ImageLibrary(rows, [f"{i:03}.jpg" for i in range(502)])
    matches = search(library, 0, k=3, unique=True)
    assert matches.paths == ["001.jpg", "500.jpg", "501.jpg"]
    assert len(matches[0].duplicates) == 498


@pytest.mark.parametrize("rate", [0.3, 0.05, 0.001])
def test_an_automatic_threshold_keeps_its_rate(rate):
    library = ImageLibrary(np.random.default_rng(0).standard_normal((400, 8)), map(str, range(400)))
    cosine = library.threshold(rate)
    assert np.mean(library.background >= cosine) <= rate
    assert np.mean(library.background >= cosine - 0.02) > rate
    scores = search(library, 0, 400, "auto", false_match_rate=rate).scores
    assert len(scores) == np.sum(cosines(library, library.embeddings[0]) >= cosine) - 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"diversity": 1.5}, "diversity=1.5: give a number from 0 to 1"),
        ({"diversity": math.nan}, "diversity=nan"),
        ({"unique": 1.01}, "unique=1.01: a cosine lies between"),
        ({"threshold": "high"}, "threshold='high': give a cosine, or \"auto\""),
        ({"threshold": "auto", "false_match_rate": 0}, "false_match_rate=0: give a share"),
        ({"combine": "sum"}, "combine='sum': choose mean or max"),
        ({"weights": [1]}, "combine=None: choose mean or max"),
        ({"combine": "max", "weights": [1]}, "weights go with"),
        ({"combine": "mean", "weights": [1, 2]}, "give 1 finite numbers, one per query"),
        ({"combine": "mean", "weights": [math.nan]}, "give 1 finite numbers"),
        ({"combine": "mean", "weights": ["a"]}, "give 1 finite numbers"),
        ({"combine": "mean", "weights": [0]}, "cancel each other out"),
        ({"where": [True]}, "chooses no rows"),
        ({"box": (0, 0, 1, 1), "regions": True}, "regions=True takes one query, whole"),
    ],
    ids=str,
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(QueryError, match=message):
        search(circle(0, 10, 20), 0, **options)


def test_regions_of_several_queries_are_refused():
    with pytest.raises(QueryError, match="takes one query"):
        search(circle(0, 10), [0, 1], regions=True)
    with pytest.raises(QueryError, match="no query to combine"):
        search(circle(0, 10), [], combine="mean")
    with pytest.raises(QueryError, match="an embedding has no parts"):
        search(circle(0, 10), np.array([1.0, 0.0]), box=(0, 0, 1, 1))
    with pytest.raises(QueryError, match="one image has no random pairs"):
        search(circle(0), 0, threshold="auto")
