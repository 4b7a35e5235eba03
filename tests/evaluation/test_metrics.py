import json
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from sklearn.metrics import average_precision_score, confusion_matrix

import simsearch as ss
from simsearch.errors import LibraryError, QueryError
from simsearch.evaluation import metrics
from simsearch.evaluation.evaluation import evaluate
from simsearch.evaluation.metrics import (
    RECALL_PERCENTS,
    Estimate,
    bootstrap_interval,
    order_by_score,
)


def library_of(embeddings, labels, folder=""):
    """Images 0000.jpg, 0001.jpg, ... of which each lies in the folder of its label."""
    paths = [f"{folder}{label}/{i:04}.jpg" for i, label in enumerate(labels)]
    return ss.ImageLibrary(embeddings, paths)


def exact(rows, labels):
    """A library whose cosines are whole numbers, so that no rounding depends on the blocks."""
    library = library_of(np.eye(len(rows), len(rows[0])) + 1, labels)
    library.embeddings = np.array(rows, np.float32)
    return library


def ranked(relevant):
    """A query of class a, and a gallery whose n-th best image is of class a or b."""
    angles = np.linspace(0, 1.5, len(relevant) + 1)
    labels = ["a", *("a" if right else "b" for right in relevant)]
    return library_of(np.stack([np.cos(angles), np.sin(angles)], axis=1), labels)


def blobs(classes=4, size=25, dim=8, noise=0.8, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), size)
    centres = rng.normal(size=(classes, dim))
    return library_of(centres[labels] + noise * rng.normal(size=(len(labels), dim)), labels)


def values(evaluation):
    return {name: estimate.value for name, estimate in evaluation.overall.items()}


def slow(library, labels, rows, gallery, depths):
    """The same by the definitions, one query and one rank at a time."""
    table, curves, nearest, kept = [], [], [], []
    for q in rows:
        scores = {g: float(library.embeddings[q] @ library.embeddings[g]) for g in gallery}
        order = sorted((g for g in gallery if g != q and labels[g]), key=lambda g: (-scores[g], g))
        right = [labels[g] == labels[q] for g in order]
        count = sum(right)
        if not labels[q] or not count:
            continue
        precision = [sum(right[: i + 1]) / (i + 1) for i in range(len(right))]
        recall = [sum(right[: i + 1]) / count for i in range(len(right))]
        table.append(
            [sum(right[:k]) / k for k in depths]
            + [sum(right[:k]) / count for k in depths]
            + [float(any(right[:k])) for k in depths]
            + [sum(right[:count]) / count]
            + [sum(p for p, r in zip(precision, right, strict=True) if r) / count]
            + [sum(precision[i] for i in range(count) if right[i]) / count]
        )
        curves.append(
            [
                max(p for p, r in zip(precision, recall, strict=True) if r >= level / 100 - 1e-12)
                for level in RECALL_PERCENTS
            ]
        )
        nearest.append(order[0])
        kept.append(q)
    return kept, np.array(table), np.array(curves), nearest


class TestByHand:
    """A ranking of ten with the relevant ones at 1, 3, 6, 7."""

    RELEVANT = (1, 0, 1, 0, 0, 1, 1, 0, 0, 0)

    @pytest.fixture
    def evaluation(self):
        return evaluate(ranked(self.RELEVANT), queries=[0], k=(1, 2, 5, 10))

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
    def test_measures(self, evaluation, metric, value):
        assert evaluation.overall[metric].value == pytest.approx(value)
        assert evaluation.per_query(metric) == pytest.approx([value])

    def test_curve(self, evaluation):
        # Precision 1 up to 25%, 2/3 up to 50%, then 4/7: 3/6 at 75% is less than what comes later.
        expected = np.where(RECALL_PERCENTS <= 25, 1, np.where(RECALL_PERCENTS <= 50, 2 / 3, 4 / 7))
        np.testing.assert_allclose(evaluation.curve, expected)

    def test_who_was_asked_and_found(self, evaluation):
        assert evaluation.rows.tolist() == [0]
        assert evaluation.nearest.tolist() == [1]
        assert evaluation.classes == ("a",)
        assert evaluation.counts == {"a": 1}
        assert evaluation.gallery.tolist() == list(range(11))

    def test_the_only_relevant_one_last(self):
        found = values(evaluate(ranked([0, 0, 0, 1]), queries=[0], k=(1, 4)))
        assert found["precision@1"] == found["hit_rate@1"] == found["mAP@R"] == 0
        assert found["precision@4"] == found["mAP"] == 1 / 4
        assert found["recall@4"] == found["hit_rate@4"] == 1

    def test_musgrave_table_1(self):
        """MAP@R tells rankings apart that have the same R-precision or precision@1."""
        early = values(evaluate(ranked([1, 1, 0, 0, 0, 0, 0, 0, 1, 1]), queries=[0], k=1))
        late = values(evaluate(ranked([0, 0, 1, 1, 0, 0, 0, 0, 1, 1]), queries=[0], k=1))
        assert early["r_precision"] == late["r_precision"] == 1 / 2
        assert early["mAP@R"] == 1 / 2
        assert late["mAP@R"] == pytest.approx((1 / 3 + 2 / 4) / 4)

    def test_perfect_and_worst(self):
        perfect = values(evaluate(ranked([1, 1, 0, 0]), queries=[0], k=(1, 2)))
        assert set(perfect.values()) == {1, 1 / 2}
        assert perfect["recall@1"] == 1 / 2
        assert values(evaluate(ranked([0, 0, 1, 1]), queries=[0], k=1))["mAP@R"] == 0


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
    def test_equals_the_definitions(self, made):
        rows, labels, asked, offered = made
        library = exact(rows, labels)
        queries, gallery = np.flatnonzero(asked), np.flatnonzero(offered)
        try:
            found = evaluate(library, labels, asked, offered, k=(1,), progress=False)
        except QueryError:
            classes = {labels[g] for g in gallery} - {""}
            answered = slow(library, labels, queries, gallery, (1,))[0]
            assert len(classes) < 2 or not answered
            return
        kept, table, curves, nearest = slow(library, labels, queries, gallery, (1,))
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
        _, table, curves, _ = slow(library, library.labels, everything, everything, (1, 3, 17, 59))
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

    def test_equal_scores_come_by_row(self):
        library = exact([[1, 0]] * 6, ["b", "a", "b", "a", "a", "b"])
        found = evaluate(library, k=1)
        assert found.nearest.tolist() == [1, 0, 0, 0, 0, 0]

    @pytest.mark.parametrize("numbers", [1, 40, 333, 10**9])
    def test_blocks_change_nothing(self, monkeypatch, numbers):
        rng = np.random.default_rng(1)
        library = exact(rng.integers(-3, 4, (80, 6)), rng.integers(0, 4, 80))
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
        found = values(evaluate(library, queries=asked, gallery=offered, k=1))
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


@pytest.fixture(scope="module")
def splits():
    """Classes a, b, c in train and test, three images each, d in test alone, and loose images."""
    rng = np.random.default_rng(2)
    folders = [f"{split}/{name}" for split in ("test", "train") for name in "abc"] + ["test/d"]
    paths = [f"data/{folder}/{i}.jpg" for folder in folders for i in range(3)]
    paths = sorted([*paths, "data/loose/1.jpg", "data/loose/2.jpg"])
    library = ss.ImageLibrary(rng.normal(size=(len(paths), 4)), paths)
    library.root = "data"
    return library


class TestChoice:
    def test_globs_masks_and_rows_choose_the_same(self, splits):
        names = np.array(splits.names)
        test, train = np.char.startswith(names, "test/"), np.char.startswith(names, "train/")
        found = [
            evaluate(splits, queries=queries, gallery=gallery, k=1)
            for queries, gallery in [
                ("test/*", "train/*"),
                (test, train),
                (test.tolist(), train.tolist()),
                (np.flatnonzero(test), np.flatnonzero(train).tolist()),
                (np.flatnonzero(test)[::-1], np.tile(np.flatnonzero(train), 2)),
                ("test/*/*.jpg", "train/[abc]/?.jpg"),
            ]
        ]
        assert len(found[0].rows) == 9
        assert len(found[0].gallery) == 9
        for other in found[1:]:
            assert other.to_dict() == found[0].to_dict()

    def test_who_is_left_out_is_counted(self, splits):
        found = evaluate(splits, queries="test/*", gallery="train/*", k=1)
        assert (found.lonely, found.unlabelled) == (3, 0)
        assert found.counts == {"a": 3, "b": 3, "c": 3}
        everything = evaluate(splits, k=1)
        assert (everything.lonely, everything.unlabelled) == (0, 2)
        assert len(everything.rows) == len(everything.gallery) == 21
        text = str(evaluate(splits, queries="t*", gallery=~np.isin(splits.labels, "d"), k=1))
        assert "3 queries that are alone in their class" in text
        assert "2 images without a label" in text
        assert "left out" not in str(evaluate(splits, queries="train/*", gallery="t*", k=1))

    def test_the_gallery_may_be_a_subset_with_gaps(self, splits):
        every_other = np.arange(len(splits)) % 2 == 0
        found = evaluate(splits, gallery=every_other, k=1)
        labelled = splits.labels != ""
        assert found.gallery.tolist() == np.flatnonzero(every_other & labelled).tolist()
        gallery = found.gallery.tolist()
        kept, table, _, nearest = slow(splits, splits.labels, range(len(splits)), gallery, (1,))
        assert found.rows.tolist() == kept
        assert found.nearest.tolist() == nearest
        np.testing.assert_allclose(found.values, table)

    def test_labels_of_every_kind(self, splits):
        labels = splits.labels.tolist()
        by_path = dict(zip(splits.paths.tolist(), labels, strict=True))
        by_name = dict(zip(splits.names, labels, strict=True))
        missing = [label or None for label in labels]
        numbers = pd.Series([float("nan") if label == "" else ord(label) for label in labels])
        expected = evaluate(splits, k=1)
        for given_ in (labels, np.array(labels), by_path, by_name, missing):
            assert evaluate(splits, given_, k=1).to_dict() == expected.to_dict()
        found = evaluate(splits, numbers, k=1)
        np.testing.assert_array_equal(found.values, expected.values)
        assert found.unlabelled == 2

    def test_the_image_itself_is_never_found(self, splits):
        copies = exact([[1, 0]] * 4, ["a", "b", "a", "b"])
        found = evaluate(copies, k=(1, 3))
        assert not (found.rows == found.nearest).any()
        assert found.overall["precision@3"].value == pytest.approx(1 / 3)

    def test_a_loaded_library(self, splits, tmp_path):
        splits.save(tmp_path)
        loaded = ss.ImageLibrary.load(tmp_path)
        assert evaluate(loaded, k=1).to_dict() == evaluate(splits, k=1).to_dict()
        loaded_found = evaluate(loaded, queries="test/*", gallery="train/*", k=1)
        assert type(loaded_found.values) is np.ndarray


class TestRefuses:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"queries": "seg/*"}, r"'seg/\*' chooses no image; .*'loose/1.jpg'"),
            ({"gallery": "test"}, "'test' chooses no image"),
            ({"queries": "loose/*"}, "no image of queries= has a label"),
            ({"gallery": "loose/*"}, "no image of gallery= has a label"),
            ({"gallery": "train/a/*"}, "every image of the gallery is labelled 'a'"),
            ({"queries": "test/d/*", "gallery": "train/*"}, "the first is labelled 'd'"),
            ({"labels": list("abcdefghijklmnopqrstuvw")}, "no query has another image"),
            ({"labels": ["a"] * 23}, "every image of the gallery is labelled 'a'"),
            ({"labels": [""] * 23}, "every label is empty"),
            ({"labels": ["a", "b"]}, "2 labels for 23 images"),
            ({"labels": {"elsewhere.jpg": "a"}}, "no key of the labels"),
            ({"labels": "colour"}, "labels='colour'"),
            ({"queries": [23]}, "rows"),
            ({"queries": [True, False]}, "mask of 23"),
            ({"queries": [-1]}, "row numbers from 0 to 22"),
            ({"k": 0}, r"k=0: a query ranks 20 images, so give 1 to 20"),
            ({"k": (1, 21)}, r"k=\(1, 21\): a query ranks 20 images"),
            ({"k": (1, 2.5)}, "whole numbers"),
            ({"k": ()}, "whole numbers"),
            ({"k": [[1]]}, "whole numbers"),
            ({"k": "ten"}, "whole numbers"),
            ({"k": True}, "whole numbers"),
            ({"k": 1, "resamples": -1}, "resamples=-1"),
        ],
    )
    def test_with_a_reason(self, splits, arguments, message):
        with pytest.raises(QueryError, match=message):
            evaluate(splits, **arguments)

    def test_k_may_reach_the_whole_gallery_where_no_query_is_in_it(self, splits):
        evaluate(splits, queries="test/*", gallery="train/*", k=9)
        with pytest.raises(QueryError, match="give 1 to 9"):
            evaluate(splits, queries="test/*", gallery="train/*", k=10)

    def test_a_library_without_folders(self):
        flat = ss.ImageLibrary(np.eye(3), ["1.jpg", "2.jpg", "3.jpg"])
        with pytest.raises(LibraryError, match="one folder per class"):
            evaluate(flat)
        with pytest.raises(QueryError, match="no metric 'map'; choose from precision@1"):
            evaluate(flat, ["a", "a", "b"], k=1).per_query("map")


class TestIntervals:
    def test_the_seed_decides(self):
        library = blobs(noise=2)
        first, again, other = (evaluate(library, seed=seed).overall for seed in (0, 0, 1))
        assert first == again
        assert first != other
        assert all(estimate.low <= estimate.value <= estimate.high for estimate in first.values())

    def test_draws_in_blocks_are_of_the_same_width(self, monkeypatch):
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

    def test_there_is_none_for_one_query_or_no_resamples(self):
        found = evaluate(ranked([1, 0, 1]), queries=[0], k=1)
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


@pytest.fixture(scope="module")
def evaluation():
    return evaluate(blobs(noise=1.5), k=(1, 10))


class TestReport:
    def test_frame(self, evaluation):
        frame = evaluation.to_frame()
        assert list(frame.columns) == ["value", "low", "high", "queries"]
        assert frame.index.names == ["class", "metric"]
        assert frame.index.is_unique
        assert len(frame) == 5 * len(evaluation.metrics)
        assert frame.loc[("", "mAP"), "value"] == evaluation.overall["mAP"].value
        assert frame.loc[("2", "recall@10"), "high"] == evaluation.by_class["2"]["recall@10"].high
        assert frame["queries"].unstack()["mAP"].tolist() == [100, 25, 25, 25, 25]

    def test_json(self, evaluation):
        read = json.loads(evaluation.to_json(indent=1))
        assert read == evaluation.to_dict()
        assert read["queries"] == read["gallery"] == 100
        assert read["overall"]["mAP"] == evaluation.overall["mAP"]._asdict()
        assert read["classes"]["1"]["queries"] == 25
        assert read["classes"]["1"]["mAP@R"]["low"] == evaluation.by_class["1"]["mAP@R"].low
        assert read["curve"]["recall"][50] == 0.5
        assert read["curve"]["precision"] == evaluation.curve.tolist()

    def test_text(self, evaluation):
        assert repr(evaluation) == str(evaluation)
        lines = str(evaluation).splitlines()
        assert lines[0] == "100 queries, 100 images in the gallery"
        estimate = evaluation.overall["mAP"]
        assert f"mAP           {estimate.value:.3f}  ({estimate.low:.3f} to" in str(evaluation)
        table = [line.split() for line in lines[lines.index("", 2) + 1 :]]
        head = "class queries precision@1 precision@10 r_precision mAP mAP@R"
        assert table[0] == head.split()
        scores = [float(row[-2]) for row in table[1:]]
        assert scores == sorted(scores)
        assert {row[0] for row in table[1:]} == set("0123")
        assert len({len(line) for line in lines[-5:]}) == 1

    def test_text_of_many_classes_and_long_names(self):
        library = blobs(30, 4)
        text = str(evaluate(library, [f"{label} {'x ' * 40}" for label in library.labels], k=1))
        assert "... and 10 better classes: to_frame()" in text
        assert max(map(len, text.splitlines())) <= 100

    def test_worst(self, evaluation):
        worst = evaluation.worst(7)
        scores = dict(zip(evaluation.rows, evaluation.per_query(), strict=True))
        assert [scores[row] for row in worst] == sorted(scores.values())[:7]
        assert len(evaluation.worst(1000)) == 100
        assert evaluation.worst(3, "r_precision").shape == (3,)

    def test_confusion_has_classes_that_nobody_asked_for(self):
        found = evaluate(exact([[3, 0], [1, 0], [2, 0], [0, 1]], list("aabc")), queries=[0], k=1)
        frame = found.confusion()
        assert frame.index.tolist() == ["a"]
        assert frame.loc["a"].to_dict() == {"a": 0, "b": 1}

    def test_estimate(self):
        assert str(Estimate(0.5, 0.25, 0.75)) == "0.500  (0.250 to 0.750)"

    def test_no_bar_for_what_is_quick(self, capsys):
        evaluate(blobs())
        assert capsys.readouterr().err == ""


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


def test_many_classes_are_quick():
    rng = np.random.default_rng(0)
    labels = np.arange(4000) // 2
    found = evaluate(library_of(rng.normal(size=(4000, 4)), labels), k=1, resamples=100)
    assert len(found.by_class) == 2000
    assert len(found.to_frame()) == 2001 * 6


def test_scores_of_a_head_that_sorts_the_classes_are_perfect():
    library = library_of(np.repeat(np.eye(10), 30, axis=0), np.repeat(np.arange(10), 30))
    found = values(evaluate(library))
    assert found["mAP"] == found["mAP@R"] == found["r_precision"] == found["precision@10"] == 1
