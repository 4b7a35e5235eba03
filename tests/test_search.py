import http.server
import json
import math
import os
import re
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from local_server import serve
from PIL import Image

from simsearch import scan
from simsearch.backbones import load_backbone
from simsearch.embedding import embed_dataset, embed_images
from simsearch.errors import BackboneError, ImageError, QueryError
from simsearch.library import ImageLibrary
from simsearch.matches import Match, Matches, percentile
from simsearch.search import REGIONS, recommend, search

BACKBONE = "efficientnet_lite0"


def make_rows(kind, count, dim, rng):
    """Rows that are hard to rank, each kind in its own way."""
    rows = rng.standard_normal((count, dim))
    if kind == "duplicates":
        return rows[rng.integers(0, 1 + count // 4, count)]
    if kind == "clusters":
        return rows[rng.integers(0, 3, count) % count] + 0.05 * rows
    if kind == "near ties":  # too close for float32 to tell apart
        return rows[:1] + 1e-8 * rows
    if kind == "few directions":
        return rng.integers(-1, 2, (count, dim)) + np.eye(1, dim) * 3
    return rows


KINDS = ("spread", "duplicates", "clusters", "near ties", "few directions")


@st.composite
def libraries(draw, max_rows=300, max_dim=64):
    """A library in no order, some of its paths equal."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    count, dim = draw(st.integers(1, max_rows)), draw(st.integers(1, max_dim))
    rows = make_rows(draw(st.sampled_from(KINDS)), count, dim, rng)
    return ImageLibrary(rows, [f"{n:04}.jpg" for n in rng.integers(0, 2 * count, count)])


def cosines(library, vector):
    """A full scan in float64."""
    return (library.embeddings.astype(np.float64) * vector.astype(np.float64)).sum(axis=1)


def brute_force(library, vector, k, threshold=None, without=None):
    """Row and score of the k best: score every row, sort them all."""
    scores = np.clip(cosines(library, vector), -1, 1).tolist()
    paths = library.paths.tolist()
    order = sorted(range(len(library)), key=lambda row: (-scores[row], paths[row], row))
    best = [(row, scores[row]) for row in order if row != without][:k]
    return [(row, score) for row, score in best if threshold is None or score >= threshold]


def found(matches):
    return [(match.row, match.score) for match in matches]


def circle(*degrees, paths=None):
    """A library of directions in the plane, whose cosines are known by hand."""
    angles = np.radians(degrees)
    paths = paths or [f"{degree}.jpg" for degree in degrees]
    return ImageLibrary(np.stack([np.cos(angles), np.sin(angles)], axis=1), paths)


# Exact


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
            patch.setattr(scan, "_SCORES_BYTES", limit)
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
        rows, exact = zip(*brute_force(library, vector, 10), strict=True)
        found = scan._top(library, vector, scores, 10)
        assert found.rows.tolist() == list(rows)
        assert found.scores == pytest.approx(exact, abs=1e-6)


@pytest.mark.parametrize("block", [1, 7, 1024])
@pytest.mark.parametrize("k", [1, 5, 60])
def test_ties_are_ordered_by_path_wherever_they_stand(monkeypatch, k, block):
    monkeypatch.setattr(scan, "_BLOCK", block)
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


# Options, and all of them together


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
        ({"combine": "mean", "weights": [1, 2]}, "give 1 finite numbers, one a query"),
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
    with pytest.raises(QueryError, match="one image has no background"):
        search(circle(0), 0, threshold="auto")


# Recommendation


def test_a_taste_by_hand():
    library = circle(0, 40, 50, 80, 120)
    assert recommend(library, [0, 3]).paths == ["40.jpg", "50.jpg", "120.jpg"]
    matches = recommend(library, 0, 3, k=3, dislike=0.5)
    taste = np.array([1, 0]) - 0.5 * np.array([np.cos(np.radians(80)), np.sin(np.radians(80))])
    taste /= np.linalg.norm(taste)
    assert matches.embedding == pytest.approx(taste)
    assert matches.paths == ["40.jpg", "50.jpg", "120.jpg"]
    assert matches.scores == pytest.approx((library.embeddings @ taste)[[1, 2, 4]])
    assert matches.query == "1 liked, 1 disliked"
    assert matches.image == ("0.jpg",)


def test_dislikes_turn_the_ranking_round():
    library = circle(0, 20, -20, 60)
    assert recommend(library, "0.jpg", k=2).paths == ["-20.jpg", "20.jpg"]
    assert recommend(library, "0.jpg", "60.jpg").paths == ["-20.jpg", "20.jpg"]
    assert recommend(library, "0.jpg", "60.jpg", dislike=0).scores == pytest.approx(
        recommend(library, "0.jpg", where=[0, 1, 2]).scores
    )
    mirrored = circle(0, 20, -20, -60)
    assert recommend(mirrored, "0.jpg", ["-60.jpg"]).paths == ["20.jpg", "-20.jpg"]


def test_what_was_seen_is_not_recommended():
    library = circle(0, 10, 20, 30, 40)
    seen = [1, "20.jpg", Path("gone.jpg")]
    assert recommend(library, 0, exclude=seen).paths == ["30.jpg", "40.jpg"]
    assert recommend(library, 0, exclude="10.jpg", k=1).paths == ["20.jpg"]
    assert recommend(library, 0, exclude=1, k=1).paths == ["20.jpg"]
    assert recommend(library, 0, exclude=seen, where=[2, 3], k=9).paths == ["30.jpg"]
    with pytest.raises(QueryError, match="row 9: the library has rows 0 to 4"):
        recommend(library, 0, exclude=[9])


@settings(max_examples=50, deadline=None)
@given(library=libraries(max_rows=60, max_dim=8), data=st.data())
def test_recommending_is_searching_with_the_taste(library, data):
    rows = st.lists(st.integers(0, len(library) - 1), min_size=1, max_size=3)
    liked, disliked = data.draw(rows), data.draw(rows)
    vectors = library.embeddings.astype(np.float64)
    taste = vectors[liked].mean(axis=0) - 0.25 * vectors[disliked].mean(axis=0)
    assume(np.linalg.norm(taste) > 1e-3)
    among = np.ones(len(library), bool)
    among[liked + disliked] = False
    matches = recommend(library, liked, disliked, k=9, dislike=0.25)
    expected = search(library, taste, k=9, where=among)
    assert matches.scores == pytest.approx(expected.scores, abs=1e-6)


@pytest.mark.parametrize(
    ("liked", "options", "message"),
    [
        ([], {}, "nothing is liked"),
        ([0], {"disliked": [0], "dislike": 1}, "cancel each other out"),
        ([0], {"dislike": -1}, "dislike=-1: give a weight"),
        ([0], {"dislike": math.nan}, "dislike=nan"),
        ([0], {"k": 0}, "k=0"),
    ],
    ids=str,
)
def test_a_taste_needs_likes(liked, options, message):
    with pytest.raises(QueryError, match=message):
        recommend(circle(0, 10), liked, **options)


# The query itself


@pytest.mark.parametrize("query", [1, np.int64(1), np.uint8(1), "10.jpg", Path("10.jpg")])
def test_the_query_is_left_out_and_its_twins_are_not(query):
    library = circle(0, 10, 10, 20, paths=["0.jpg", "10.jpg", "twin.jpg", "20.jpg"])
    assert search(library, query, k=1).paths == ["twin.jpg"]
    assert search(library, query).paths == ["twin.jpg", "0.jpg", "20.jpg"]
    both = search(library, query, exclude_query=False)
    assert both.paths == ["10.jpg", "twin.jpg", "0.jpg", "20.jpg"]
    assert both[0].score == both[1].score == pytest.approx(1, abs=1e-6)
    assert both.scores.max() <= 1


def test_an_embedding_is_no_image_of_the_library():
    library = circle(0, 10, 20)
    assert search(library, library.embeddings[1], k=1).paths == ["10.jpg"]


# What a score means


def test_percentiles_by_hand():
    library = circle(0, 60, 90)  # pairs: 60 degrees apart, 30, and 90
    shares = {match.path: match.percentile for match in search(library, 0, exclude_query=False)}
    assert shares == {"0.jpg": 100, "60.jpg": pytest.approx(100 / 3), "90.jpg": 0}


@settings(max_examples=50, deadline=None)
@given(library=libraries(max_rows=60, max_dim=16))
def test_a_percentile_is_the_share_of_pairs_that_are_less_alike(library):
    rows = library.embeddings.astype(np.float64)
    pairs = np.array([rows[i] @ rows[j] for i in range(len(rows)) for j in range(i)])
    for match in search(library, 0, k=10):
        least, most = (np.sum(pairs < match.score + slack) for slack in (-1e-6, 1e-6))
        assert least <= match.percentile / 100 * len(pairs) + 1e-9
        assert match.percentile / 100 * len(pairs) <= most + 1e-9


def test_a_single_image_has_no_percentile():
    (match,) = matches = search(circle(0), 0, exclude_query=False)
    assert math.isnan(match.percentile)
    assert json.loads(matches.to_json())["matches"][0]["percentile"] is None
    assert "–" in str(matches)
    assert len(search(circle(0), 0)) == 0


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (100, "top 0.01%"),
        (99.6, "top 0.4%"),
        (99, "top 1%"),
        (75, "top 25%"),
        (50, "low 50%"),
        (0, "low 0%"),
        (math.nan, "–"),
    ],
)
def test_percentiles_in_words(value, words):
    assert percentile(value) == words


# Queries of every kind, on real photos


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


@pytest.fixture(scope="module")
def outside(views):
    """A photo that the library does not hold."""
    return min((views / "seg_test" / "cat").iterdir())


@pytest.fixture(scope="module")
def server(views):
    """Serve the views over HTTP on this machine, and give the address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = partial(Quiet, directory=views)
    with serve(handler) as address:
        yield address


def label(path):
    return Path(path).parent.name


def test_unseen_views_find_their_own_photo(library, views):
    queries = sorted((views / "seg_test").rglob("*.jpg"))
    answers = search(library, queries, k=5)
    assert len(answers) == 44
    first = [
        label(matches.paths[0]) == label(query)
        for query, matches in zip(queries, answers, strict=True)
    ]
    assert np.mean(first) > 0.8  # 1 in 22 by chance; some classes look alike on purpose
    assert [matches.query for matches in answers] == [str(query) for query in queries]


def kinds_of(path, server):
    """One picture in every form."""
    url = f"{server}/seg_test/cat/{path.name}"
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    return {
        "path": str(path),
        "Path": path,
        "relative path": os.path.relpath(path),
        "URL": url,
        "bytes": path.read_bytes(),
        "PIL": image,
        "uint8 array": np.asarray(image),
        "float array": np.asarray(image) / 255,
        "embedding": embed_images(path, BACKBONE)[0],
    }


def test_every_kind_of_query_gives_the_same_answer(library, outside, server):
    queries = kinds_of(outside, server)
    answers = {kind: search(library, query, k=8) for kind, query in queries.items()}
    expected = answers.pop("path")
    assert label(expected.paths[0]) == "cat"
    for kind, matches in answers.items():
        assert matches.paths == expected.paths, kind
        np.testing.assert_allclose(matches.scores, expected.scores, atol=1e-5, err_msg=kind)
    width, height = queries["PIL"].size
    assert {kind: matches.query for kind, matches in answers.items()} == {
        "Path": str(outside),
        "relative path": os.path.relpath(outside),
        "URL": queries["URL"],
        "bytes": f"{len(queries['bytes']):,} bytes",
        "PIL": f"PIL image {width}×{height}",
        "uint8 array": f"array ({height}, {width}, 3)",
        "float array": f"array ({height}, {width}, 3)",
        "embedding": "embedding",
    }


def test_a_mixed_list_is_answered_in_its_order(library, outside, server):
    queries = [*kinds_of(outside, server).values(), 3, str(library.paths[40])]
    together = search(library, queries, k=4)
    alone = [search(library, query, k=4) for query in queries]
    assert isinstance(together, list)
    for matches, expected in zip(together, alone, strict=True):
        assert matches.query == expected.query
        assert matches.paths == expected.paths
        np.testing.assert_allclose(matches.scores, expected.scores, atol=1e-5)


# Parts of an image


@pytest.fixture(scope="module")
def scene(library):
    """A picture of a cat on the left and bricks on the right."""
    sides = [
        library.find(next(p for p in library.paths if f"/{name}/" in p))
        for name in ("cat", "brick")
    ]
    pictures = [Image.open(library.paths[row]).resize((200, 200)) for row in sides]
    sheet = Image.new("RGB", (400, 200))
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (200 * i, 0))
    return sheet


def test_a_part_finds_what_it_shows(library, scene):
    for box, name in (((0, 0, 200, 200), "cat"), ((200, 0, 400, 200), "brick")):
        matches = search(library, scene, k=4, box=box)
        assert {label(path) for path in matches.paths} == {name}
        fractions = search(library, scene, k=4, box=tuple(np.array(box) / (400, 200, 400, 200)))
        assert found(fractions) == found(matches)
        cut = search(library, scene.crop(box), k=4)
        assert found(cut) == found(matches)
        assert matches.box == box
        assert matches.image.size == (200, 200)
        assert matches.query == f"PIL image 400×200, box {' '.join(map(str, box))}"


def test_regions_group_matches_by_what_is_where(library, scene):
    answers = search(library, scene, k=3, regions=True)
    assert [matches.query.rpartition(", ")[2] for matches in answers] == list(REGIONS)
    first = {matches.query.rpartition(", ")[2]: label(matches.paths[0]) for matches in answers}
    assert first["top left"] == first["bottom left"] == "cat"
    assert first["top right"] == first["bottom right"] == "brick"
    for matches, box in zip(answers, REGIONS.values(), strict=True):
        alone = search(library, scene, k=3, box=box)
        assert alone.paths == matches.paths
        np.testing.assert_allclose(alone.scores, matches.scores, atol=1e-5)


def test_a_part_of_a_library_image_does_not_find_that_image(library):
    box = (0.02, 0.02, 0.98, 0.98)
    without = search(library, 20, k=3, box=box)
    assert library.paths[20] not in without.paths
    assert search(library, 20, k=1, box=box, exclude_query=False)[0].row == 20


@pytest.mark.parametrize(
    "box",
    [
        (0.5, 0, 0.5, 1),
        (0, 0, 401, 200),
        (-1, 0, 10, 10),
        (0, 0, 1),
        "abcd",
        (0, 0, math.nan, 1),
        5,
    ],
)
def test_a_box_lies_in_the_image(library, scene, box):
    with pytest.raises(QueryError, match="box="):
        search(library, scene, box=box)


def test_a_tuple_is_as_good_as_a_list_and_may_be_empty():
    library = circle(0, 10, 20)
    assert search(library, (2, "0.jpg")) == search(library, [2, "0.jpg"])
    assert search(library, ()) == search(library, []) == []


def test_every_way_to_name_an_image_of_the_library_is_the_same_query(library):
    row = 20
    path = str(library.paths[row])
    expected = search(library, row, k=8)
    assert path not in expected.paths
    for query in (np.int32(row), path, Path(path), os.path.relpath(path)):
        assert found(search(library, query, k=8)) == found(expected)
        kept = search(library, query, k=9, exclude_query=False)
        assert kept[0].path == path
        assert kept[0].score == pytest.approx(1, abs=1e-6)
        assert found(kept)[1:] == found(expected)
    vector = search(library, library.embeddings[row], k=9)
    assert [match.row for match in vector] == [row, *(match.row for match in expected)]
    np.testing.assert_allclose(vector.scores[1:], expected.scores, atol=1e-6)


def test_an_opened_image_of_the_library_is_left_out_too(library):
    with Image.open(library.paths[20]) as opened:
        matches = search(library, opened, k=8)
        kept = search(library, opened, k=1, exclude_query=False)
    assert matches.paths == search(library, 20, k=8).paths
    assert kept[0].row == 20
    assert kept[0].score > 0.9999


def test_an_opened_image_that_was_edited_is_embedded_as_it_is(library):
    with Image.open(library.paths[20]) as opened:
        opened.paste(Image.open(library.paths[60]).resize(opened.size))
        matches = search(library, opened, k=1)
    assert label(matches.paths[0]) == label(library.paths[60]) != label(library.paths[20])


def test_a_file_that_has_changed_is_embedded_anew(views, tmp_path):
    root = shutil.copytree(views / "seg_train", tmp_path / "dataset")
    shutil.copytree(views / "outputs", tmp_path / "outputs")
    library = ImageLibrary.load(tmp_path / "outputs", root=root)
    brick, cat = root / "brick", root / "cat"
    one, other = min(brick.iterdir()), min(cat.iterdir())
    assert {label(path) for path in search(library, one, k=4).paths} == {"brick"}
    other.replace(one)
    matches = search(library, one, k=4)
    assert {label(path) for path in matches.paths} == {"cat"}
    assert one.as_posix() not in matches.paths


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


def test_an_unchanged_file_needs_no_backbone(shelf, tmp_path):
    for query in ("0.jpg", tmp_path / "0.jpg", 0):
        assert search(shelf, query, k=1).paths == ["10.jpg"]


def test_a_file_that_has_gone_keeps_its_row(shelf):
    Path("0.jpg").unlink()
    assert search(shelf, "0.jpg", k=1).paths == ["10.jpg"]


@pytest.mark.parametrize("new", ["0.jpg", "other.jpg"])
def test_a_new_picture_needs_the_backbone(shelf, new):
    Image.new("RGB", (50, 50)).save(new)
    with pytest.raises(BackboneError, match="pass backbone= to ImageLibrary"):
        search(shelf, new)


# Bad requests


@pytest.mark.parametrize("k", [0, -1, True, 2.5, "5", None, math.nan])
def test_k_is_a_whole_number_from_one(k):
    with pytest.raises(QueryError, match=f"k={re.escape(repr(k))}: ask for .* at least one"):
        search(circle(0, 10), 0, k)


@pytest.mark.parametrize("threshold", [2, -1.01, math.nan, math.inf])
def test_a_threshold_is_a_cosine(threshold):
    with pytest.raises(QueryError, match=f"threshold={threshold}: a cosine lies between -1 and 1"):
        search(circle(0, 10), 0, threshold=threshold)


@pytest.mark.parametrize("row", [-1, 3, np.int64(3), 10**20])
def test_a_row_lies_in_the_library(row):
    with pytest.raises(QueryError, match=f"row {row}: the library has rows 0 to 2"):
        search(circle(0, 10, 20), row)
    with pytest.raises(QueryError, match=f"row {row}"):
        search(circle(0, 10, 20), [0, row])


@pytest.mark.parametrize(
    "vector",
    [
        np.ones(3),
        np.ones(0),
        np.zeros(2),
        np.array([1, np.nan]),
        np.array([1, np.inf], np.float32),
        np.array(["a", "b"]),
        np.array([1j, 1]),
        np.array([None, 1]),
    ],
    ids=str,
)
def test_an_embedding_fits_the_library(vector):
    message = f"shape {vector.shape} and dtype {vector.dtype} is neither .* this library: (2,)"
    message = re.escape(message).replace(r"\.\*", ".*").replace(r"\ ", " ")
    with pytest.raises(QueryError, match=message):
        search(circle(0, 10), vector)


def test_what_cannot_be_read_is_named(library, tmp_path, server):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8 no picture")
    for query, message in (
        (tmp_path / "none.jpg", r"none\.jpg: no such file"),
        ("a\0b.jpg", "null"),
        (broken, r"broken\.jpg: not a supported image format"),
        (f"{server}/none.jpg", r"/none\.jpg: .*not found"),
        (b"no picture", "10 bytes: not a supported image format"),
        (np.ones((4, 4)) * 300, "float values must lie in"),
        (None, "None: NoneType is not an image source"),
        (True, "True: bool is not an image source"),
        ([0, broken], r"broken\.jpg"),
    ):
        with pytest.raises(ImageError, match=message):
            search(library, query)


def test_the_wrong_backbone_is_refused(library, outside):
    import torch

    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    other = load_backbone(network, transform=lambda image: torch.rand(3, 8, 8))
    wrong = ImageLibrary(library.embeddings, library.paths, backbone=other)
    with pytest.raises(BackboneError, match="is not what made this library"):
        search(wrong, outside)
    assert found(search(wrong, 0)) == found(search(library, 0))


# Matches


@pytest.fixture
def matches(shelf):
    return search(shelf, "0.jpg", exclude_query=False)


def test_matches_are_a_sequence(matches):
    assert len(matches) == 3
    assert all(isinstance(match, Match) for match in matches)
    assert matches[0] == matches.rows[0] == next(iter(matches))
    assert matches[-1].path == "20.jpg"
    assert matches[1:] == matches.rows[1:]
    assert matches[1] in matches
    assert list(reversed(matches)) == list(matches.rows[::-1])
    assert matches.paths == ["0.jpg", "10.jpg", "20.jpg"]
    assert [match.rank for match in matches] == [1, 2, 3]
    assert [match.row for match in matches] == [0, 1, 2]
    assert matches.scores.dtype == np.float32
    np.testing.assert_allclose(matches.scores, np.cos(np.radians([0, 10, 20])), atol=1e-6)


def test_matches_print_as_a_table(matches):
    assert str(matches).splitlines() == [
        "3 matches for 0.jpg",
        "   1   1.000  top 0.01%  0.jpg",
        "   2   0.985    low 33%  10.jpg",
        "   3   0.940     low 0%  20.jpg",
    ]


def test_matches_become_a_frame(matches):
    frame = matches.to_frame()
    assert frame.index.name == "rank"
    assert frame.index.tolist() == [1, 2, 3]
    assert frame.columns.tolist() == ["path", "score", "percentile", "row"]
    assert list(frame.itertuples(name=None)) == [
        (match.rank, match.path, match.score, match.percentile, match.row) for match in matches
    ]
    empty = Matches("nothing", ()).to_frame()
    assert (len(empty), empty.index.name) == (0, "rank")
    assert empty.columns.tolist() == frame.columns.tolist()


@pytest.mark.parametrize("indent", [None, 2])
def test_matches_become_json(matches, indent):
    read = json.loads(matches.to_json(indent))
    assert read == matches.to_dict()
    assert read["query"] == "0.jpg"
    rows = [row | {"duplicates": tuple(row["duplicates"])} for row in read["matches"]]
    assert [Match(**row) for row in rows] == list(matches)


def test_a_notebook_shows_query_and_matches(matches):
    page = matches._repr_html_()
    assert page.count("<figure") == page.count("<img") == 1 + len(matches)
    assert page.count('src="data:image/jpeg;base64,') == 4
    for text in ("<b>query</b>", "<b>2. 0.985 (low 33%)</b>", "<small>10.jpg</small>"):
        assert text in page


def test_an_embedding_has_no_picture(shelf):
    page = search(shelf, shelf.embeddings[0])._repr_html_()
    assert page.count("<figure") == page.count("<img") == 3
    assert "<b>query</b>" not in page


def test_a_notebook_shows_what_is_left(matches):
    Path("10.jpg").unlink()
    page = matches._repr_html_()
    assert page.count("<figure") == 4
    assert page.count("<img") == 3
    assert "(unreadable)" in page
    assert "10.jpg" in page


def test_names_are_no_markup(tmp_path):
    evil = "\"><script>alert(1)<b>&amp;'.jpg"
    Image.new("RGB", (40, 30)).save(tmp_path / evil)
    page = search(circle(0, 10, paths=[f"{tmp_path}/{evil}", "gone"]), 0, 2, None, False)
    page = page._repr_html_()
    assert page.count("<img") == 2
    assert page.count("&quot;&gt;&lt;script&gt;alert(1)&lt;b&gt;&amp;amp;&#x27;.jpg") == 4
    assert "<script" not in page
    assert evil not in page
