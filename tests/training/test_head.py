"""Heads trained on labels, and the options of a training."""

import builtins
import logging

import numpy as np
import pytest
import torch
from tiny import tiny_backbone

import simsearch as ss
from simsearch.embedding import batching
from simsearch.errors import MissingExtraError, QueryError, TrainingError
from simsearch.library.source import Source
from simsearch.training import losses, trainer
from simsearch.training.head import train_head

QUICK = {"dim": 8, "hidden": 16, "epochs": 3, "batch_size": 36, "progress": False}
LONG = QUICK | {"epochs": 6, "learning_rate": 1e-2}


def make_library(counts=(40, 40, 40), dim=24, noise=0.8, seed=0):
    """Classes that differ in few directions and vary in many: cosine alone does poorly."""
    rng = np.random.default_rng(seed)
    centres = np.zeros((len(counts), dim))
    centres[:, :4] = rng.normal(size=(len(counts), 4))
    rows, paths = [], []
    for i, count in enumerate(counts):
        spread = rng.normal(size=(count, dim)) * np.where(np.arange(dim) < 4, 0.25, noise)
        rows.append(centres[i] + spread)
        paths += [f"d/{'train' if j % 2 else 'test'}/{'abcdefgh'[i]}/{j}.jpg" for j in range(count)]
    library = ss.ImageLibrary(np.concatenate(rows) + 0.3, paths)
    library.root = "d"
    return library


@pytest.fixture(scope="module")
def library():
    return make_library()


@pytest.fixture(scope="module")
def trained(library):
    return train_head(library, on="train/*", **QUICK | {"epochs": 5})


def gain(trained):
    return trained.after.overall["mAP"].value - trained.before.overall["mAP"].value


class TestResult:
    def test_map_rises_on_unseen_images(self, trained, library):
        assert gain(trained) > 0.1
        unseen = [library.names[row] for row in trained.after.rows]
        assert len(unseen) == 60
        assert all(name.startswith("test/") for name in unseen)
        assert all(library.names[row].startswith("train/") for row in trained.rows)
        assert not set(trained.after.rows) & set(trained.rows)

    def test_report_equals_an_evaluation_of_the_derived_library(self, trained, library):
        found = ss.evaluate(library.with_head(trained.head), queries="test/*", gallery="train/*")
        assert found.overall["mAP"] == trained.after.overall["mAP"]

    def test_history_and_table(self, trained):
        assert [epoch.number for epoch in trained.history] == [*range(1, len(trained.history) + 1)]
        assert trained.history[-1].loss < trained.history[0].loss
        assert all(0 <= epoch.mAP <= 1 for epoch in trained.history)
        text = str(trained)
        assert text == repr(trained)
        assert "images that training never saw (60 queries):" in text
        assert "mAP" in text
        assert "classes that" not in text
        assert (trained.before_left_out, trained.after_left_out) == (None, None)

    def test_head_records_the_fingerprint_of_its_source(self):
        backbone = tiny_backbone()
        library = make_library()
        library.source = Source.of(backbone)
        head = train_head(library, **QUICK | {"epochs": 1}).head
        assert head.source == backbone.fingerprint
        assert (head.dim_in, head.dim) == (24, 8)

    def test_without_other_images_test_images_are_set_aside(self, library):
        trained = train_head(library, **QUICK)
        queries = set(trained.after.rows)
        assert len(queries) == 12  # a tenth of each class
        assert len(trained.rows) == 120 - 12
        assert not queries & set(trained.rows)
        once = train_head(library, refit=False, **QUICK)
        assert len(once.rows) == 120 - 2 * 12  # another tenth only tells when to stop
        assert set(once.after.rows) == queries

    def test_held_out_classes_are_not_trained_on_and_are_evaluated(self, library):
        trained = train_head(library, leave_out=["b"], **QUICK)
        assert not (library.labels[trained.rows] == "b").any()
        assert trained.before_left_out.classes == trained.after_left_out.classes == ("b",)
        assert len(trained.after_left_out.rows) == 40
        assert "classes that training never saw (40 queries)" in str(trained)
        outside = train_head(library, on="train/*", leave_out="b", **QUICK).after_left_out
        assert all(library.names[row].startswith("test/b/") for row in outside.rows)
        assert {library.names[row].split("/")[0] for row in outside.gallery} == {"train"}

    def test_keep_is_the_weight_of_the_backbone(self, library):
        most = train_head(library, leave_out=["b"], keep=0.99, **QUICK)
        change = most.after_left_out.values - most.before_left_out.values
        assert most.head.keep == 0.99
        assert abs(change[:, -2].mean()) < 0.2
        assert train_head(library, keep=0, **QUICK).head.kept is None

    def test_linear_head(self, library):
        trained = train_head(library, **QUICK | {"hidden": None, "epochs": 5})
        assert len(trained.head.layers) == 1
        assert gain(trained) > 0.1

    def test_early_stopping_keeps_the_best_epoch(self, library, monkeypatch):
        values = iter([0.5, 0.7, 0.6, 0.6, 0.9])
        heads = []

        def score(_, head):
            heads.append(head)
            return next(values)

        monkeypatch.setattr(trainer.Validator, "score", score)
        trained = train_head(library, **QUICK | {"patience": 2, "epochs": 9, "refit": False})
        assert [epoch.mAP for epoch in trained.history] == [0.5, 0.7, 0.6, 0.6]
        assert trained.head.fingerprint == heads[1].fingerprint

    def test_without_validation(self, library):
        trained = train_head(library, validation=0, **QUICK)
        assert (trained.before, trained.after) == (None, None)
        assert len(trained.rows) == len(library)
        assert len(trained.history) == QUICK["epochs"]
        assert np.isnan(trained.history[-1].mAP)

    def test_learning_curves_show_the_history(self, trained):
        fig, ax = ss.show_history(trained)
        curve = ax.lines[0].get_xydata()
        assert curve[:, 1].tolist() == [epoch.mAP for epoch in trained.history]
        right = fig.axes[1]
        assert right.lines[0].get_ydata().tolist() == [epoch.loss for epoch in trained.history]
        best = trainer.best_epoch(trained.history)
        assert ax.lines[1].get_xydata().tolist() == [[best.number, best.mAP]]


class TestSettings:
    @pytest.mark.parametrize("loss", list(losses.LOSSES))
    def test_every_loss_learns(self, library, loss):
        assert gain(train_head(library, loss=loss, **LONG)) > 0.05

    @pytest.mark.parametrize("mining", list(losses.MINERS))
    def test_every_mining_learns(self, library, mining):
        assert gain(train_head(library, mining=mining, **LONG)) > 0.05

    def test_same_seed_gives_the_same_result(self, library):
        torch.manual_seed(1)
        state, threads = torch.random.get_rng_state(), torch.get_num_threads()
        one = train_head(library, seed=3, **QUICK)
        assert torch.equal(torch.random.get_rng_state(), state)  # the caller's is left alone
        assert torch.get_num_threads() == threads
        torch.manual_seed(2)
        again, other = (train_head(library, seed=seed, **QUICK) for seed in (3, 4))
        assert one.head.fingerprint == again.head.fingerprint != other.head.fingerprint
        assert one.history == again.history

    def test_more_classes_than_a_batch_holds(self):
        library = make_library(counts=(6,) * 8)
        assert train_head(library, **QUICK | {"batch_size": 12}).history

    def test_labels_as_a_sequence_or_mapping(self, library, trained):
        labels = library.labels.tolist()
        mapping = dict(zip(library.paths.tolist(), labels, strict=True))
        prints = {
            train_head(library, given, **QUICK).head.fingerprint
            for given in ("folder", labels, mapping)
        }
        assert len(prints) == 1

    def test_progress_bar_shows_the_map(self, library, capsys):
        train_head(library, **QUICK | {"progress": True})
        shown = capsys.readouterr().err
        assert "Training" in shown
        assert "mAP=0." in shown

    def test_few_images_per_class(self, caplog):
        with caplog.at_level(logging.WARNING, "simsearch"):
            trained = train_head(make_library(counts=(5, 2, 1, 4)), **QUICK)
        assert "without 1 classes of a single image, such as c" in caplog.text
        assert len(trained.rows) >= 6


class TestRefuses:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"loss": "softmax"}, "loss='softmax' is unknown; choose from triplet, "),
            ({"mining": "none"}, "mining='none' is unknown; choose from semihard, "),
            ({"keep": 1}, "keep=1: give a number from 0 to 0.99"),
            ({"dim": 1}, "dim=1"),
            ({"hidden": 0}, "hidden=0"),
            ({"epochs": 0}, "epochs=0"),
            ({"validation": 0.5}, "validation=0.5"),
            ({"dropout": 1}, "dropout=1"),
            ({"leave_out": ["z"]}, "leave_out='z' is no class; the classes are a, b, c"),
            ({"leave_out": ["a", "b"]}, r"at least two classes .* only c \(40\)"),
            ({"on": "*/a/*"}, r"at least two classes .* only a \(40\)"),
        ],
    )
    def test_options_out_of_range_are_refused(self, library, arguments, message):
        with pytest.raises(TrainingError, match=message):
            train_head(library, **QUICK | arguments)

    def test_library_without_labels_is_refused(self):
        flat = ss.ImageLibrary(np.eye(4), [f"{i}.jpg" for i in range(4)])
        with pytest.raises(TrainingError, match=r"images without a label.*give labels="):
            train_head(flat, **QUICK)

    def test_classes_of_one_image_are_refused(self):
        with pytest.raises(TrainingError, match=r"only a \(1\), b \(1\), c \(1\)"):
            train_head(make_library(counts=(1, 1, 1)), **QUICK)

    def test_labels_and_rows_that_do_not_fit_are_refused(self, library):
        with pytest.raises(QueryError, match="1 labels for 120 images"):
            train_head(library, ["a"], **QUICK)
        with pytest.raises(QueryError, match="chooses no image"):
            train_head(library, on="elsewhere/*", **QUICK)

    def test_diverging_loss_is_an_error(self, library):
        with pytest.raises(TrainingError, match=r"(nan|limit) in epoch \d+: lower"):
            train_head(library, learning_rate=1e30, **QUICK)

    def test_missing_extra_is_named(self, library, monkeypatch):
        real = builtins.__import__

        def without(name, *args, **kwargs):
            if name.startswith("pytorch_metric_learning"):
                raise ImportError(name)
            return real(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", without)
        with pytest.raises(MissingExtraError, match=r"simsearch\[train\]"):
            train_head(library, **QUICK)


def test_photos(sample, tmp_path, monkeypatch):
    """Real embeddings: trained on one folder, better on the other, and no image is decoded."""
    places = ["seg_train/cat", "seg_train/coffee", "seg_test/cat", "seg_test/coffee"]
    paths = [path for place in places for path in sorted((sample / place).glob("*.jpg"))[:6]]
    library = ss.ImageLibrary(ss.embed_images(paths, "efficientnet_lite0"), paths)
    library.root = sample.as_posix()
    monkeypatch.setattr(batching, "load_image", None)
    trained = train_head(library, on="seg_train/*", epochs=3, batch_size=36, progress=False)
    assert trained.after.overall["mAP"].value >= trained.before.overall["mAP"].value
