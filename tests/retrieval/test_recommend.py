"""Recommendation, and what a score means."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from search_cases import circle, libraries

from simsearch.errors import QueryError
from simsearch.retrieval.matches import percentile
from simsearch.retrieval.recommend import recommend
from simsearch.retrieval.search import search


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
