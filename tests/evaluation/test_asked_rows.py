"""Samples of queries: their shares of the classes, their chances, and what they say of all."""

import numpy as np
import pytest
from labelled import blobs, labelled_library

from simsearch.cli.main import main
from simsearch.errors import QueryError
from simsearch.evaluation.asked_rows import draw_queries
from simsearch.evaluation.evaluation import evaluate

CODES = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, 3], [500, 300, 41, 3]))
ROWS = np.flatnonzero(np.arange(len(CODES)) % 7)  # not every row can ask


class TestDraw:
    @pytest.mark.parametrize("sample", [1, 2, 50, 333, len(ROWS) - 1])
    def test_every_class_has_its_share(self, sample):
        for seed in range(20):
            drawn = draw_queries(ROWS, CODES, sample, seed)
            assert len(drawn) == sample
            assert np.isin(drawn, ROWS).all()
            assert (np.diff(drawn) > 0).all()
            exact = np.bincount(CODES[ROWS], minlength=4) * sample / len(ROWS)
            assert np.abs(np.bincount(CODES[drawn], minlength=4) - exact).max() < 1

    def test_every_row_has_the_same_chance(self):
        times = np.zeros(len(CODES))
        for seed in range(2000):
            times[draw_queries(ROWS, CODES, 100, seed)] += 1
        chance = 100 / len(ROWS)
        spread = np.sqrt(2000 * chance * (1 - chance))
        strays = (times[ROWS] - 2000 * chance) / spread
        assert np.abs(strays).max() < 5
        assert abs(strays.std() - 1) < 0.1

    def test_a_seed_draws_the_same_again(self):
        first, again, other = (draw_queries(ROWS, CODES, 50, seed) for seed in (3, 3, 4))
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)

    @pytest.mark.parametrize("sample", ["all", len(ROWS), 10**9, np.int64(10**9)])
    def test_all_rows_where_there_are_no_more(self, sample):
        np.testing.assert_array_equal(draw_queries(ROWS, CODES, sample, 0), ROWS)

    @pytest.mark.parametrize("sample", [0, -1, True, 2.5, "many", None])
    def test_what_is_no_number_of_queries_is_refused(self, sample):
        with pytest.raises(QueryError, match=r"sample=.*or 'all'"):
            evaluate(blobs(), sample=sample)


@pytest.fixture(scope="module")
def library():
    return blobs(classes=6, size=200, noise=2.0)


@pytest.fixture(scope="module")
def everybody(library):
    return evaluate(library, resamples=0)


class TestEvaluation:
    def test_a_query_has_the_values_that_it_has_among_all(self, library, everybody):
        found = evaluate(library, sample=100, resamples=0)
        places = np.searchsorted(everybody.rows, found.rows)
        np.testing.assert_allclose(found.values, everybody.values[places])
        np.testing.assert_array_equal(found.nearest, everybody.nearest[places])
        np.testing.assert_array_equal(found.gallery, everybody.gallery)
        np.testing.assert_array_equal(found.answerable, everybody.rows)

    def test_intervals_hold_for_all_queries(self, library, everybody):
        """Of forty samples, the intervals of 95% miss the value of all queries in few."""
        truth = {name: estimate.value for name, estimate in everybody.overall.items()}
        missed = dict.fromkeys(("mAP", "precision@1", "r_precision"), 0)
        means = []
        for seed in range(40):
            found = evaluate(library, sample=120, resamples=200, seed=seed).overall
            means.append(found["mAP"].value)
            for name in missed:
                missed[name] += not found[name].low <= truth[name] <= found[name].high
        assert max(missed.values()) <= 5
        assert abs(np.mean(means) - truth["mAP"]) < 3 * np.std(means) / np.sqrt(40)

    def test_what_a_sample_says(self, library, everybody):
        found = evaluate(library, sample=100)
        head = "100 queries of 1,200 (a sample by class; sample=all for every one), 1,200 images"
        assert str(found).startswith(head)
        assert "sample" not in str(everybody)
        assert (found.to_dict()["queries"], found.to_dict()["answerable"]) == (100, 1200)
        assert everybody.to_dict()["answerable"] == 1200

    def test_classes_without_a_query_are_counted(self):
        labels = ["a"] * 300 + ["b"] * 2 + ["c"] * 2
        rows = np.random.default_rng(0).normal(size=(len(labels), 4))
        found = evaluate(labelled_library(rows, labels), k=1, sample=3)
        missing = 3 - len(found.classes)
        assert missing
        assert f"a sample by class, none of {missing} small classes;" in str(found)

    def test_from_the_shell(self, library, tmp_path, capsys):
        library.save(tmp_path)
        assert main(["evaluate", str(tmp_path), "--sample", "50", "-q"]) == 0
        assert capsys.readouterr().out.startswith("50 queries of 1,200 ")
        assert main(["evaluate", str(tmp_path), "--sample", "all", "-q"]) == 0
        assert capsys.readouterr().out.startswith("1,200 queries, ")
        with pytest.raises(SystemExit):
            main(["evaluate", str(tmp_path), "--sample", "most"])
        assert "'most' is no whole number" in capsys.readouterr().err
