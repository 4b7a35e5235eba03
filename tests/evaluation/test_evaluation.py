"""Evaluations: queries, gallery, labels, tables and their refusals."""

import json

import numpy as np
import pandas as pd
import pytest
from labelled import (
    blobs,
    brute_force,
    exact_library,
    labelled_library,
)

import simsearch as ss
from simsearch.errors import LibraryError, QueryError
from simsearch.evaluation.evaluation import evaluate
from simsearch.evaluation.metrics import (
    Estimate,
)


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
    def test_globs_masks_and_rows_select_the_same(self, splits):
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

    def test_left_out_images_are_counted(self, splits):
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
        kept, table, _, nearest = brute_force(
            splits, splits.labels, range(len(splits)), gallery, (1,)
        )
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

    def test_query_is_never_its_own_match(self, splits):
        copies = exact_library([[1, 0]] * 4, ["a", "b", "a", "b"])
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
    def test_invalid_arguments_are_refused(self, splits, arguments, message):
        with pytest.raises(QueryError, match=message):
            evaluate(splits, **arguments)

    def test_largest_k_is_the_size_of_the_gallery(self, splits):
        evaluate(splits, queries="test/*", gallery="train/*", k=9)
        with pytest.raises(QueryError, match="give 1 to 9"):
            evaluate(splits, queries="test/*", gallery="train/*", k=10)

    def test_a_library_without_folders(self):
        flat = ss.ImageLibrary(np.eye(3), ["1.jpg", "2.jpg", "3.jpg"])
        with pytest.raises(LibraryError, match="one folder per class"):
            evaluate(flat)
        with pytest.raises(QueryError, match="no metric 'map'; choose from precision@1"):
            evaluate(flat, ["a", "a", "b"], k=1).per_query("map")


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

    def test_confusion_has_classes_of_the_gallery_alone(self):
        found = evaluate(
            exact_library([[3, 0], [1, 0], [2, 0], [0, 1]], list("aabc")), queries=[0], k=1
        )
        frame = found.confusion()
        assert frame.index.tolist() == ["a"]
        assert frame.loc["a"].to_dict() == {"a": 0, "b": 1}

    def test_estimate(self):
        assert str(Estimate(0.5, 0.25, 0.75)) == "0.500  (0.250 to 0.750)"

    def test_no_progress_bar_for_quick_evaluations(self, capsys):
        evaluate(blobs())
        assert capsys.readouterr().err == ""


def test_many_classes():
    rng = np.random.default_rng(0)
    labels = np.arange(4000) // 2
    found = evaluate(labelled_library(rng.normal(size=(4000, 4)), labels), k=1, resamples=100)
    assert len(found.by_class) == 2000
    assert len(found.to_frame()) == 2001 * 6
