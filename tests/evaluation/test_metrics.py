"""Metrics against definitions, brute force and other packages; bootstrap intervals."""

import json
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled import (
    blobs,
    brute_force,
    exact_library,
    labelled_library,
    mean_values,
    ranked_library,
)
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from sklearn.metrics import average_precision_score, confusion_matrix

import simsearch as ss
from simsearch.errors import QueryError
from simsearch.evaluation import metrics
from simsearch.evaluation.evaluation import evaluate
from simsearch.evaluation.metrics import (
    RECALL_PERCENTS,
    bootstrap_interval,
    order_by_score,
    ranks_of,
)


class TestByHand:
    """A ranking of ten with the relevant ones at 1, 3, 6, 7."""

    RELEVANT = (1, 0, 1, 0, 0, 1, 1, 0, 0, 0)

    @pytest.fixture
    def evaluation(self):
        return evaluate(ranked_library(self.RELEVANT), queries=[0], k=(1, 2, 5, 10))

    @pytest.mark.parametrize(
        ("metric", "value"),
        [
            ("precision@1", 1),
            ("precision@2", 1 / 2),
            ("precision@5", 2 / 5),
            ("precision@10", 4 / 10),
            ("recall@1", 1 / 4),
            ("recall@5", 2 / 4),
            ("recall@10", 1),
            ("hit_rate@1", 1),
            ("r_precision", 2 / 4),
            ("mAP", (1 / 1 + 2 / 3 + 3 / 6 + 4 / 7) / 4),
            ("mAP@R", (1 / 1 + 2 / 3) / 4),
        ],
    )
    def test_metrics(self, evaluation, metric, value):
        assert evaluation.overall[metric].value == pytest.approx(value)
        assert evaluation.per_query(metric) == pytest.approx([value])

    def test_curve(self, evaluation):
        # Precision 1 up to 25%, 2/3 up to 50%, then 4/7: 3/6 at 75% is less than what comes later.
        expected = np.where(RECALL_PERCENTS <= 25, 1, np.where(RECALL_PERCENTS <= 50, 2 / 3, 4 / 7))
        np.testing.assert_allclose(evaluation.curve, expected)

    def test_rows_of_queries_and_matches(self, evaluation):
        assert evaluation.rows.tolist() == [0]
        assert evaluation.nearest.tolist() == [1]
        assert evaluation.classes == ("a",)
        assert evaluation.counts == {"a": 1}
        assert evaluation.gallery.tolist() == list(range(11))

    def test_the_only_relevant_one_last(self):
        found = mean_values(evaluate(ranked_library([0, 0, 0, 1]), queries=[0], k=(1, 4)))
        assert found["precision@1"] == found["hit_rate@1"] == found["mAP@R"] == 0
        assert found["precision@4"] == found["mAP"] == 1 / 4
        assert found["recall@4"] == found["hit_rate@4"] == 1

    def test_musgrave_table_1(self):
        """MAP@R tells rankings apart that have the same R-precision or precision@1."""
        early = mean_values(
            evaluate(ranked_library([1, 1, 0, 0, 0, 0, 0, 0, 1, 1]), queries=[0], k=1)
        )
        late = mean_values(
            evaluate(ranked_library([0, 0, 1, 1, 0, 0, 0, 0, 1, 1]), queries=[0], k=1)
        )
        assert early["r_precision"] == late["r_precision"] == 1 / 2
        assert early["mAP@R"] == 1 / 2
        assert late["mAP@R"] == pytest.approx((1 / 3 + 2 / 4) / 4)

    def test_perfect_and_worst(self):
        perfect = mean_values(evaluate(ranked_library([1, 1, 0, 0]), queries=[0], k=(1, 2)))
        assert set(perfect.values()) == {1, 1 / 2}
        assert perfect["recall@1"] == 1 / 2
        assert mean_values(evaluate(ranked_library([0, 0, 1, 1]), queries=[0], k=1))["mAP@R"] == 0


SMALL = st.integers(3, 14).flatmap(
    lambda n: st.tuples(
        st.lists(st.lists(st.integers(-2, 2), min_size=2, max_size=2), min_size=n, max_size=n),
        st.lists(st.sampled_from(["", "a", "b", "c"]), min_size=n, max_size=n),
        st.lists(st.booleans(), min_size=n, max_size=n),
        st.lists(st.booleans(), min_size=n, max_size=n),
    )
)


class TestOracle:
    @settings(deadline=None, max_examples=300)
    @given(SMALL)
    def test_equals_a_brute_force_evaluation(self, made):
        rows, labels, asked, offered = made
        library = exact_library(rows, labels)
        queries, gallery = np.flatnonzero(asked), np.flatnonzero(offered)
        try:
            found = evaluate(library, labels, asked, offered, k=(1,), progress=False)
        except QueryError:
            classes = {labels[g] for g in gallery} - {""}
            answered = brute_force(library, labels, queries, gallery, (1,))[0]
            assert len(classes) < 2 or not answered
            return
        kept, table, curves, nearest = brute_force(library, labels, queries, gallery, (1,))
        assert found.rows.tolist() == kept
        assert found.nearest.tolist() == nearest
        np.testing.assert_allclose(found.values, table, atol=1e-12)
        np.testing.assert_allclose(found.curve, curves.mean(axis=0), atol=1e-12)
        assert found.lonely == sum(labels[q] != "" for q in queries) - len(kept)
        either = np.array(asked) | offered
        assert found.unlabelled == sum(either & (np.array(labels) == ""))

    @pytest.mark.parametrize("seed", range(5))
    def test_several_depths_and_class_tables(self, seed):
        library = blobs(5, 12, seed=seed)
        found = evaluate(library, k=(1, 3, 17, 59))
        everything = range(len(library))
        _, table, curves, _ = brute_force(
            library, library.labels, everything, everything, (1, 3, 17, 59)
        )
        np.testing.assert_allclose(found.values, table, atol=1e-12)
        for i, name in enumerate(found.classes):
            own = library.labels == name
            means = [estimate.value for estimate in found.by_class[name].values()]
            np.testing.assert_allclose(means, table[own].mean(axis=0))
            np.testing.assert_allclose(found.curves[i], curves[own].mean(axis=0))

    @settings(deadline=None)
    @given(
        st.lists(
            st.one_of(
                st.floats(-1, 1, width=32), st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-40, -1e-40])
            ),
            min_size=1,
            max_size=60,
        )
    )
    def test_order_is_that_of_a_stable_sort(self, scores):
        scores = np.array(scores, np.float32)
        expected = np.argsort(-scores, kind="stable")
        assert order_by_score(scores).tolist() == expected.tolist()

    @settings(deadline=None, max_examples=400)
    @given(
        scores=st.lists(
            st.one_of(
                st.floats(-1.125, 1.125, width=32),
                st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-40, 0.5, float(np.float32(0.50000006))]),
                st.integers(-30, 30).map(lambda i: float(np.float32(0.7) + np.float32(i * 6e-8))),
            ),
            min_size=2,
            max_size=60,
        ),
        data=st.data(),
    )
    def test_ranks_are_those_in_a_whole_sort(self, scores, data):
        scores = np.array(scores, np.float32)
        chosen = data.draw(st.sets(st.integers(0, len(scores) - 1), min_size=1))
        if data.draw(st.booleans()) and len(chosen) > 1:  # the query itself, which ranks last
            scores[chosen.pop()] = -np.inf
        order = np.argsort(-scores, kind="stable")
        expected = [rank for rank, i in enumerate(order, 1) if i in chosen]
        assert ranks_of(scores, np.array(sorted(chosen))).tolist() == expected

    @pytest.mark.parametrize("classes", [2, 7, 300])
    def test_ranks_are_those_in_a_whole_sort_of_many(self, classes):
        rng = np.random.default_rng(classes)
        scores = rng.normal(0, 0.1, 3000).astype(np.float32).round(3)  # with many ties
        codes = rng.integers(0, classes, 3000)
        order = np.argsort(-scores, kind="stable")
        for code in range(min(classes, 20)):
            expected = np.flatnonzero(codes[order] == code) + 1
            found = ranks_of(scores, np.flatnonzero(codes == code))
            np.testing.assert_array_equal(found, expected)

    def test_equal_scores_are_ordered_by_row(self):
        library = exact_library([[1, 0]] * 6, ["b", "a", "b", "a", "a", "b"])
        found = evaluate(library, k=1)
        assert found.nearest.tolist() == [1, 0, 0, 0, 0, 0]

    @pytest.mark.parametrize("numbers", [1, 40, 333, 10**9])
    def test_results_do_not_depend_on_blocks(self, monkeypatch, numbers):
        rng = np.random.default_rng(1)
        library = exact_library(rng.integers(-3, 4, (80, 6)), rng.integers(0, 4, 80))
        whole = evaluate(library, queries=rng.random(80) < 0.7)
        monkeypatch.setattr(metrics, "SCORE_BLOCK_BYTES", 4 * numbers)
        blocked = evaluate(library, queries=np.isin(np.arange(80), whole.rows))
        np.testing.assert_array_equal(blocked.values, whole.values)
        np.testing.assert_array_equal(blocked.nearest, whole.nearest)
        np.testing.assert_array_equal(blocked.curves, whole.curves)


class TestParity:
    @pytest.mark.parametrize("seed", range(3))
    def test_average_precision_of_scikit_learn(self, seed):
        library = blobs(seed=seed)
        found = evaluate(library).per_query("mAP")
        scores = library.embeddings @ library.embeddings.T
        for row, average in enumerate(found):
            others = np.arange(len(library)) != row
            relevant = library.labels[others] == library.labels[row]
            expected = average_precision_score(relevant, scores[row][others])
            assert average == pytest.approx(expected, abs=1e-6)

    @pytest.mark.parametrize("apart", [False, True])
    def test_pytorch_metric_learning(self, apart):
        """Its mAP is cut at its k; with the whole gallery as k it is the same."""
        library = blobs(5, 20, seed=3)
        rng = np.random.default_rng(0)
        asked = rng.random(len(library)) < (0.4 if apart else 2)
        offered = ~asked if apart else asked
        size = int(offered.sum()) - (not apart)

        def nearest(query, k, reference, ref_includes_query):
            scores = query @ reference.T
            if ref_includes_query:
                scores.fill_diagonal_(-2)
            return scores.topk(k)

        calculator = AccuracyCalculator(
            include=(
                "precision_at_1",
                "r_precision",
                "mean_average_precision",
                "mean_average_precision_at_r",
            ),
            k=size,
            knn_func=nearest,
            kmeans_func=SimpleNamespace(),
            device=torch.device("cpu"),
        )
        codes = library.labels.astype(int)
        sets = [np.array(library.embeddings)[asked], codes[asked]]
        if apart:
            sets += [np.array(library.embeddings)[offered], codes[offered]]
        expected = calculator.get_accuracy(*sets)
        found = mean_values(evaluate(library, queries=asked, gallery=offered, k=1))
        assert expected == pytest.approx(
            {
                "precision_at_1": found["precision@1"],
                "r_precision": found["r_precision"],
                "mean_average_precision": found["mAP"],
                "mean_average_precision_at_r": found["mAP@R"],
            },
            abs=1e-6,
        )

    def test_confusion_of_scikit_learn(self):
        library = blobs(noise=2)
        found = evaluate(library)
        truth, guess = library.labels[found.rows], library.labels[found.nearest]
        frame = found.confusion()
        np.testing.assert_array_equal(frame, confusion_matrix(truth, guess))
        assert list(frame.index) == list(frame.columns) == list(found.classes)
        right = np.trace(frame.to_numpy()) / frame.to_numpy().sum()
        assert right == pytest.approx(found.overall["precision@1"].value)

    def test_nearest_is_what_search_finds(self):
        library = blobs(seed=5)
        found = evaluate(library)
        answers = ss.search(library, list(range(len(library))), k=1)
        assert found.nearest.tolist() == [answer[0].row for answer in answers]


class TestIntervals:
    def test_same_seed_gives_the_same_result(self):
        library = blobs(noise=2)
        first, again, other = (evaluate(library, seed=seed).overall for seed in (0, 0, 1))
        assert first == again
        assert first != other
        assert all(estimate.low <= estimate.value <= estimate.high for estimate in first.values())

    def test_width_does_not_depend_on_blocks_of_draws(self, monkeypatch):
        scores = np.random.default_rng(0).random((300, 2))
        whole = bootstrap_interval(scores, 1000, 0)
        monkeypatch.setattr(metrics, "DRAW_BLOCK", 1000)
        np.testing.assert_allclose(bootstrap_interval(scores, 1000, 0), whole, atol=0.01)

    def test_width_is_that_of_the_normal_approximation(self):
        scores = np.random.default_rng(0).random((2000, 1))
        low, high = bootstrap_interval(scores, 4000, 0).ravel()
        half = 1.96 * scores.std() / np.sqrt(len(scores))
        assert low == pytest.approx(scores.mean() - half, abs=0.1 * half)
        assert high == pytest.approx(scores.mean() + half, abs=0.1 * half)

    def test_covers_the_truth_about_95_times_in_100(self):
        rng = np.random.default_rng(7)
        samples = rng.beta(2, 5, (400, 80))  # skewed, as average precisions are
        ends = np.array([bootstrap_interval(sample[:, None], 400, 1).ravel() for sample in samples])
        covered = np.mean((ends[:, 0] <= 2 / 7) & (ends[:, 1] >= 2 / 7))
        assert 0.91 <= covered <= 0.98

    def test_no_interval_for_one_query_or_no_resamples(self):
        found = evaluate(ranked_library([1, 0, 1]), queries=[0], k=1)
        assert np.isnan(found.overall["mAP"].low)
        assert str(found.overall["mAP"]) == "0.833"
        assert json.loads(found.to_json())["overall"]["mAP"] == {
            "value": pytest.approx(5 / 6),
            "low": None,
            "high": None,
        }
        without = evaluate(blobs(), resamples=0).overall["mAP"]
        assert np.isnan([without.low, without.high]).all()
        assert without.value == evaluate(blobs()).overall["mAP"].value


def test_memory_is_bounded():
    """20,000 in 20,000: all scores would take 1.6 GB, and their order twice that."""
    rng = np.random.default_rng(0)
    library = ss.ImageLibrary(
        rng.normal(size=(20_000, 4)), [f"{i % 50}/{i}.jpg" for i in range(20_000)]
    )
    some = np.arange(0, 20_000, 10)  # of the queries; the others would take no more
    rows, gallery = some[:1700], np.arange(20_000)
    tracemalloc.start()
    evaluate(library, queries=rows, gallery=gallery)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 60e6 < peak < 160e6


def test_separated_classes_have_perfect_scores():
    library = labelled_library(np.repeat(np.eye(10), 30, axis=0), np.repeat(np.arange(10), 30))
    found = mean_values(evaluate(library))
    assert found["mAP"] == found["mAP@R"] == found["r_precision"] == found["precision@10"] == 1
