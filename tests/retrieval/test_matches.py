"""Matches print, export and show themselves."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from search_cases import circle

from simsearch.retrieval.matches import Match, Matches
from simsearch.retrieval.search import search


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
    assert page.count("&quot;&gt;&lt;script&gt;alert(1)&lt;b&gt;&amp;amp;&#x27;.jpg") == 6
    assert "<script" not in page
    assert evil not in page
