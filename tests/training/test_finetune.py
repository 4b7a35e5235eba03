"""Fine-tuning: what is trained, the report, and the library that it makes."""

import copy
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_tune
import torch
from tiny_tune import LAST_EPOCH, SETTINGS, mean_average_precision, same_result

import simsearch as ss
from simsearch.embedding import batching
from simsearch.errors import BackboneError, DatasetError, TrainingError
from simsearch.library.source import Source
from simsearch.training import finetune

pytestmark = pytest.mark.usefixtures("quick_training")


class TestResult:
    def test_map_is_higher_than_with_a_head_alone(self, trained, library):
        assert mean_average_precision(trained.after) > mean_average_precision(trained.alone) + 0.2
        unseen = {library.names[row] for row in trained.after.rows}
        assert len(unseen) == 30
        assert all(name.startswith("test/") for name in unseen)
        for found in (trained.before, trained.alone):
            assert found.rows.tolist() == trained.after.rows.tolist()
            assert found.gallery.tolist() == trained.after.gallery.tolist()

    def test_table_names_the_stage_and_compares_with_a_head_alone(self, trained):
        text = str(trained)
        assert "8 epochs of 48 images" in text
        assert "with last of Sequential fine-tuned" in text
        before, after, alone = map(
            mean_average_precision, (trained.before, trained.after, trained.alone)
        )
        assert f"{before:.3f} -> {after:.3f}  ({alone:.3f} by a head alone)" in text

    def test_only_weights_of_the_last_stage_change(self, trained):
        before, after = tiny_tune.two_stages().state_dict(), trained.tuned.module.state_dict()
        changed = {key for key, value in after.items() if not torch.equal(value, before[key])}
        assert changed == {"last.0.weight", "last.0.bias", "last.1.weight", "last.1.bias"}
        assert trained.stage == ("last",)

    def test_given_backbone_is_not_changed(self, library):
        module = tiny_tune.two_stages()
        given = tiny_tune.load(module)
        before, state = given.fingerprint, copy.deepcopy(module.state_dict())
        fresh = ss.ImageLibrary(library.embeddings, library.paths, given)
        ss.train_head(
            fresh, library.labels, library.select("train/*"), **settings_without_on(epochs=1)
        )
        assert all(torch.equal(state[key], value) for key, value in module.state_dict().items())
        assert all(weight.requires_grad and weight.grad is None for weight in module.parameters())
        assert tiny_tune.load(module).fingerprint == before

    def test_epoch_0_of_the_history_is_the_head_alone(self, trained):
        assert [epoch.number for epoch in trained.history] == list(range(9))
        assert np.isnan(trained.history[0].loss)
        assert all(np.isfinite(epoch.loss) for epoch in trained.history[1:])
        _, ax = ss.show_history(trained)
        assert ax.lines[0].get_ydata().tolist() == [epoch.mAP for epoch in trained.history]

    def test_same_seed_gives_the_same_result(self, library):
        state, threads = torch.random.get_rng_state(), torch.get_num_threads()
        one, again, other = (ss.train_head(library, **LAST_EPOCH, seed=seed) for seed in (1, 1, 2))
        assert torch.equal(torch.random.get_rng_state(), state)
        assert torch.get_num_threads() == threads
        assert same_result(one, again)
        assert one.tuned.fingerprint != other.tuned.fingerprint

    def test_held_out_classes_are_not_trained_on_and_are_evaluated(self, library):
        trained = ss.train_head(library, leave_out=["grid"], **LAST_EPOCH)
        found = trained.before_left_out, trained.after_left_out, trained.alone_left_out
        assert all(report.classes == ("grid",) for report in found)
        assert not (library.labels[trained.rows] == "grid").any()

    def test_without_validation_the_last_epoch_counts(self, library):
        trained = ss.train_head(library, **LAST_EPOCH)
        assert [epoch.number for epoch in trained.history] == [1, 2, 3]
        assert len(trained.rows) == 60
        assert trained.tuned
        assert len(trained.after.rows) == 30  # of the images outside, which need no share

    def test_loss_with_trainable_weights(self, library):
        assert ss.train_head(library, loss="arcface", **LAST_EPOCH).tuned

    def test_head_alone_is_returned_without_a_gain_on_validation(
        self, library, monkeypatch, caplog
    ):
        monkeypatch.setattr(finetune.FineTuner, "embed", lambda self, rows: noise(len(rows)))
        with caplog.at_level(logging.WARNING, "simsearch"):
            trained = ss.train_head(library, **SETTINGS | {"epochs": 9, "patience": 2})
        assert "Fine-tuning gained nothing" in caplog.text
        assert trained.tuned is None
        assert trained.history[-1].number < 9
        served = library.with_head(trained.head)
        found = ss.evaluate(served, queries="test/*", gallery="train/*")
        assert found.overall["mAP"] == trained.after.overall["mAP"]

    def test_progress_bar_shows_the_map(self, library, capsys):
        ss.train_head(library, **SETTINGS | {"progress": True, "epochs": 1})
        shown = capsys.readouterr().err
        assert "Fine-tuning" in shown
        assert "mAP=0." in shown


def settings_without_on(**changes):
    return {key: value for key, value in (SETTINGS | changes).items() if key != "on"}


def noise(count):
    return np.random.default_rng(0).normal(size=(count, 16)).astype(np.float32)


class TestLibrary:
    def test_report_equals_an_evaluation_of_the_applied_library(self, trained, library, tmp_path):
        made = trained.apply(library, tmp_path / "tuned", progress=False)
        assert made.names == library.names
        assert made.head.fingerprint == trained.head.fingerprint
        found = ss.evaluate(made, queries="test/*", gallery="train/*")
        assert found.overall["mAP"] == trained.after.overall["mAP"]
        assert made.source.precision == library.source.precision

    def test_library_of_an_own_module_is_opened_with_the_module(self, trained, library, tmp_path):
        trained.apply(library, tmp_path, progress=False)
        query = library.paths[0]
        with pytest.raises(BackboneError, match="module of your own: pass it"):
            ss.search(ss.ImageLibrary.load(tmp_path), Path(query).read_bytes())
        tuned = tiny_tune.load(trained.tuned.module)
        opened = ss.ImageLibrary.load(tmp_path, backbone=tuned)
        assert ss.search(opened, Path(query).read_bytes(), k=1)[0].path == query

    def test_saved_weights_are_a_state_dict(self, trained, library, tmp_path):
        from safetensors.torch import load_file

        trained.apply(library, tmp_path, progress=False)
        (file,) = tmp_path.glob("backbone-*.safetensors")
        fresh = tiny_tune.two_stages(seed=5)
        fresh.load_state_dict(load_file(file))
        assert tiny_tune.load(fresh).fingerprint == trained.tuned.fingerprint

    def test_new_images_are_added_to_the_applied_library(self, trained, library, folder, tmp_path):
        shutil.copytree(folder / "data", tmp_path / "data")
        moved = ss.ImageLibrary.load(folder / "outputs", tmp_path / "data", tiny_tune.load())
        made = trained.apply(moved, tmp_path / "tuned", progress=False)
        shutil.copy(moved.paths[0], tmp_path / "data" / "train" / "bars" / "new.png")
        tuned = tiny_tune.load(trained.tuned.module)
        grown = ss.embed_dataset(tmp_path / "data", tmp_path / "tuned", tuned, progress=False)
        assert len(grown) == len(made) + 1
        new = grown.find(tmp_path / "data" / "train" / "bars" / "new.png")
        np.testing.assert_allclose(grown.embeddings[new], made.embeddings[0], atol=1e-5)

    def test_weights_beside_a_moved_library_are_found(self, tmp_path):
        (tmp_path / "backbone-1.safetensors").touch()
        for folder in ("/gone/outputs/", "C:\\gone\\outputs\\"):
            source = Source("resnet50", f"{folder}backbone-1.safetensors", "", "float32")
            moved = source.beside(tmp_path)
            assert moved.weights_file == str(tmp_path / "backbone-1.safetensors")
            assert source.beside(tmp_path / "elsewhere") == source
            assert moved.beside(tmp_path / "elsewhere") == moved
        published = Source("resnet50", "IMAGENET1K_V1", "", "float32")
        assert published.beside(tmp_path) == published

    def test_second_training_replaces_the_weights_of_the_first(self, trained, library, tmp_path):
        other = ss.train_head(library, **LAST_EPOCH, seed=9)
        other.apply(library, tmp_path, progress=False)
        made = trained.apply(library, tmp_path, progress=False)
        assert made.head.fingerprint == trained.head.fingerprint
        names = [file.name for file in tmp_path.glob("backbone-*")]
        assert names == [f"backbone-{trained.tuned.fingerprint}.safetensors"]

    def test_interrupted_apply_resumes(self, trained, library, tmp_path, monkeypatch):
        load, calls = batching.load_image, []

        def stop(*arguments):
            calls.append(arguments)
            if len(calls) == 50:
                raise KeyboardInterrupt
            return load(*arguments)

        monkeypatch.setattr(batching, "load_image", stop)
        with pytest.raises(KeyboardInterrupt):
            trained.apply(library, tmp_path, progress=False)
        before = len(calls)
        made = trained.apply(library, tmp_path, progress=False)
        assert len(made) == len(library)
        assert len(calls) - before < len(library)

    def test_deleted_images_are_skipped(self, trained, library, folder, tmp_path):
        shutil.copytree(folder / "data", tmp_path / "data")
        moved = ss.ImageLibrary.load(folder / "outputs", tmp_path / "data", tiny_tune.load())
        Path(moved.paths[3]).unlink()
        made = trained.apply(moved, tmp_path / "tuned", progress=False)
        assert made.names == moved.names[:3] + moved.names[4:]
        assert moved.paths[3] in (tmp_path / "tuned" / "skipped.csv").read_text()
        shutil.rmtree(tmp_path / "data")
        with pytest.raises(DatasetError, match=r"none of the 90 images can be read: .*new/place"):
            trained.apply(moved, tmp_path / "none", progress=False)

    def test_head_alone_is_applied_without_decoding_images(self, library, tmp_path, monkeypatch):
        monkeypatch.setattr(batching, "load_image", None)
        settings = {key: value for key, value in SETTINGS.items() if key != "finetune"}
        trained = ss.train_head(library, **settings)
        made = trained.apply(library, tmp_path)
        assert np.array_equal(ss.ImageLibrary.load(tmp_path).embeddings, made.embeddings)

    def test_tuned_head_is_refused_by_the_old_library(self, trained, library):
        with pytest.raises(BackboneError, match=r"trained\.apply\(library, outputs\)"):
            library.with_head(trained.head)


class TestRefuses:
    def test_options_of_fine_tuning_without_finetune_are_refused(self, library):
        for name in ("stage", "checkpoint"):
            with pytest.raises(TrainingError, match="go with finetune=True"):
                ss.train_head(library, **{name: "last"})

    def test_library_with_a_head_is_refused(self, library, trained, tmp_path):
        made = trained.apply(library, tmp_path, progress=False)
        with pytest.raises(TrainingError, match="has a head, through which no gradient passes"):
            ss.train_head(made, **SETTINGS)

    def test_library_without_a_source_is_refused(self, library):
        bare = ss.ImageLibrary(library.embeddings, library.paths)
        with pytest.raises(BackboneError, match="does not know what made its embeddings"):
            ss.train_head(bare, library.labels, **settings_without_on())

    def test_rates_out_of_range_are_refused(self, library):
        with pytest.raises(TrainingError, match="stage_rate=0: give a number"):
            ss.train_head(library, **SETTINGS | {"stage_rate": 0})

    def test_diverging_weights_are_an_error(self, library):
        with pytest.raises(TrainingError, match=r"(nan|limit) in epoch \d+: lower"):
            ss.train_head(library, **SETTINGS | {"stage_rate": 1e30})

    def test_too_few_classes_are_refused(self, library):
        with pytest.raises(TrainingError, match="at least two classes"):
            ss.train_head(library, **SETTINGS | {"on": "train/bars/*"})


QUERY = """
import sys, simsearch as ss
library = ss.ImageLibrary.load(sys.argv[1])
print(ss.search(library, open(sys.argv[2], "rb").read(), k=1)[0].path)
print(library.source.weights)
"""


@pytest.mark.slow
def test_photos(sample, tmp_path):
    """A network by its name, in another process, and where its library has been moved to."""
    for place in ("seg_train/cat", "seg_train/coffee", "seg_test/cat", "seg_test/coffee"):
        (tmp_path / "data" / place).mkdir(parents=True)
        for path in sorted((sample / place).glob("*.jpg"))[:8]:
            shutil.copy2(path, tmp_path / "data" / place)
    network = ss.load_backbone("efficientnet_lite0", device="cpu")
    library = ss.embed_dataset(tmp_path / "data", tmp_path / "outputs", network, progress=False)
    settings = {"on": "seg_train/*", "batch_size": 16, "validation": 0, "progress": False}
    trained = ss.train_head(library, finetune=True, epochs=1, **settings)
    assert mean_average_precision(trained.after) >= mean_average_precision(trained.before) - 0.05
    made = trained.apply(library, tmp_path / "tuned", progress=False)
    assert made.fingerprint == trained.head.fingerprint
    (tmp_path / "tuned").rename(tmp_path / "moved")
    done = subprocess.run(
        [sys.executable, "-c", QUERY, str(tmp_path / "moved"), library.paths[5]],
        env=os.environ | {"PYTHONPATH": str(Path(ss.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    path, weights = done.stdout.split()
    assert path == library.paths[5]
    assert Path(weights).parent == tmp_path / "moved"
    tuned = ss.load_backbone("efficientnet_lite0", weights, device="cpu")
    assert tuned.fingerprint == trained.tuned.fingerprint
