"""Fine-tuning: what learns and what stays, the same numbers after a kill, a library that lasts."""

import copy
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_tune
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torchvision import models

import simsearch as ss
from simsearch.backbones.precision import restore_torch_threads
from simsearch.embedding import batching
from simsearch.errors import BackboneError, DatasetError, TrainingError
from simsearch.library.source import Source
from simsearch.training import checkpoint, finetune, head, image_loader, trainable
from simsearch.training.checkpoint import Checkpoint
from simsearch.training.image_loader import ImageBatch, ImageLoader, augment
from simsearch.training.trainable import TrainableBackbone, last_stage

SETTINGS = tiny_tune.SETTINGS
SURE = SETTINGS | {"validation": 0}  # the last epoch counts, however bad it is


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """One thread, since the network is tiny; and a head that starts after few epochs."""
    monkeypatch.setattr(head, "EPOCHS", 2)
    monkeypatch.setattr(trainable, "bfloat16_is_fast", lambda: False)
    with restore_torch_threads():
        torch.set_num_threads(1)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tuning")


@pytest.fixture(scope="module")
def library(folder):
    return tiny_tune.make_library(folder)


@pytest.fixture(scope="module")
def trained(library):
    """Trained for as long as it takes to learn something."""
    with pytest.MonkeyPatch.context() as patch, restore_torch_threads():
        torch.set_num_threads(1)
        patch.setattr(head, "EPOCHS", 2)
        patch.setattr(trainable, "bfloat16_is_fast", lambda: False)
        return ss.train_head(library, **SETTINGS | {"epochs": 8})


def score(found):
    return found.overall["mAP"].value


def same(one, other):
    """Tell whether two trainings gave the same to the last bit."""
    epochs = [np.array(found.history) for found in (one, other)]
    return (
        one.head.fingerprint == other.head.fingerprint
        and one.tuned.fingerprint == other.tuned.fingerprint
        and np.array_equal(*epochs, equal_nan=True)
        and np.array_equal(one.after.values, other.after.values)
    )


class TestResult:
    def test_finds_what_no_head_finds(self, trained, library):
        assert score(trained.after) > score(trained.alone) + 0.2
        unseen = {library.names[row] for row in trained.after.rows}
        assert len(unseen) == 30
        assert all(name.startswith("test/") for name in unseen)
        for found in (trained.before, trained.alone):
            assert found.rows.tolist() == trained.after.rows.tolist()
            assert found.gallery.tolist() == trained.after.gallery.tolist()

    def test_the_table_says_what_was_opened_and_what_it_adds(self, trained):
        text = str(trained)
        assert "8 epochs of 48 images" in text
        assert "with last of Sequential fine-tuned" in text
        before, after, alone = map(score, (trained.before, trained.after, trained.alone))
        assert f"{before:.3f} -> {after:.3f}  ({alone:.3f} by a head alone)" in text

    def test_only_the_last_stage_has_changed(self, trained):
        before, after = tiny_tune.two_stages().state_dict(), trained.tuned.module.state_dict()
        changed = {key for key, value in after.items() if not torch.equal(value, before[key])}
        assert changed == {"last.0.weight", "last.0.bias", "last.1.weight", "last.1.bias"}
        assert trained.stage == ("last",)

    def test_the_backbone_that_was_given_stays_as_it_is(self, library):
        module = tiny_tune.two_stages()
        given = tiny_tune.load(module)
        before, state = given.fingerprint, copy.deepcopy(module.state_dict())
        fresh = ss.ImageLibrary(library.embeddings, library.paths, given)
        ss.train_head(fresh, library.labels, library.select("train/*"), **rest(epochs=1))
        assert all(torch.equal(state[key], value) for key, value in module.state_dict().items())
        assert all(weight.requires_grad and weight.grad is None for weight in module.parameters())
        assert tiny_tune.load(module).fingerprint == before

    def test_history_begins_with_the_head_alone(self, trained):
        assert [epoch.number for epoch in trained.history] == list(range(9))
        assert np.isnan(trained.history[0].loss)
        assert all(np.isfinite(epoch.loss) for epoch in trained.history[1:])
        _, ax = ss.show_history(trained)
        assert ax.lines[0].get_ydata().tolist() == [epoch.mAP for epoch in trained.history]

    def test_the_seed_decides(self, library):
        state, threads = torch.random.get_rng_state(), torch.get_num_threads()
        one, again, other = (ss.train_head(library, **SURE, seed=seed) for seed in (1, 1, 2))
        assert torch.equal(torch.random.get_rng_state(), state)
        assert torch.get_num_threads() == threads
        assert same(one, again)
        assert one.tuned.fingerprint != other.tuned.fingerprint

    def test_classes_left_out(self, library):
        trained = ss.train_head(library, leave_out=["grid"], **SURE)
        found = trained.before_left_out, trained.after_left_out, trained.alone_left_out
        assert all(report.classes == ("grid",) for report in found)
        assert not (library.labels[trained.rows] == "grid").any()

    def test_without_validation_the_last_epoch_counts(self, library):
        trained = ss.train_head(library, **SURE)
        assert [epoch.number for epoch in trained.history] == [1, 2, 3]
        assert len(trained.rows) == 60
        assert trained.tuned
        assert len(trained.after.rows) == 30  # of the images outside, which need no share

    def test_a_loss_with_weights_of_its_own(self, library):
        assert ss.train_head(library, loss="arcface", **SURE).tuned

    def test_where_nothing_is_gained_the_head_alone_is_returned(self, library, monkeypatch, caplog):
        monkeypatch.setattr(finetune.FineTuner, "embed", lambda self, rows: noise(len(rows)))
        with caplog.at_level(logging.WARNING, "simsearch"):
            trained = ss.train_head(library, **SETTINGS | {"epochs": 9, "patience": 2})
        assert "Fine-tuning gained nothing" in caplog.text
        assert trained.tuned is None
        assert trained.history[-1].number < 9
        served = library.with_head(trained.head)
        found = ss.evaluate(served, queries="test/*", gallery="train/*")
        assert found.overall["mAP"] == trained.after.overall["mAP"]

    def test_progress_shows_the_map(self, library, capsys):
        ss.train_head(library, **SETTINGS | {"progress": True, "epochs": 1})
        shown = capsys.readouterr().err
        assert "Fine-tuning" in shown
        assert "mAP=0." in shown


def rest(**changes):
    return {key: value for key, value in (SETTINGS | changes).items() if key != "on"}


def noise(count):
    return np.random.default_rng(0).normal(size=(count, 16)).astype(np.float32)


class TestLibrary:
    def test_the_report_is_that_of_the_library_it_makes(self, trained, library, tmp_path):
        made = trained.apply(library, tmp_path / "tuned", progress=False)
        assert made.names == library.names
        assert made.head.fingerprint == trained.head.fingerprint
        found = ss.evaluate(made, queries="test/*", gallery="train/*")
        assert found.overall["mAP"] == trained.after.overall["mAP"]
        assert made.source.precision == library.source.precision

    def test_a_module_of_ones_own_is_opened_with_the_module(self, trained, library, tmp_path):
        trained.apply(library, tmp_path, progress=False)
        query = library.paths[0]
        with pytest.raises(BackboneError, match="module of your own: pass it"):
            ss.search(ss.ImageLibrary.load(tmp_path), Path(query).read_bytes())
        tuned = tiny_tune.load(trained.tuned.module)
        opened = ss.ImageLibrary.load(tmp_path, backbone=tuned)
        assert ss.search(opened, Path(query).read_bytes(), k=1)[0].path == query

    def test_its_weights_are_a_state_dict(self, trained, library, tmp_path):
        from safetensors.torch import load_file

        trained.apply(library, tmp_path, progress=False)
        (file,) = tmp_path.glob("backbone-*.safetensors")
        fresh = tiny_tune.two_stages(seed=5)
        fresh.load_state_dict(load_file(file))
        assert tiny_tune.load(fresh).fingerprint == trained.tuned.fingerprint

    def test_new_images_join_it(self, trained, library, folder, tmp_path):
        shutil.copytree(folder / "data", tmp_path / "data")
        moved = ss.ImageLibrary.load(folder / "outputs", tmp_path / "data", tiny_tune.load())
        made = trained.apply(moved, tmp_path / "tuned", progress=False)
        shutil.copy(moved.paths[0], tmp_path / "data" / "train" / "bars" / "new.png")
        tuned = tiny_tune.load(trained.tuned.module)
        grown = ss.embed_dataset(tmp_path / "data", tmp_path / "tuned", tuned, progress=False)
        assert len(grown) == len(made) + 1
        new = grown.find(tmp_path / "data" / "train" / "bars" / "new.png")
        np.testing.assert_allclose(grown.embeddings[new], made.embeddings[0], atol=1e-5)

    def test_weights_that_a_library_carries_are_found_where_it_has_moved(self, tmp_path):
        (tmp_path / "backbone-1.safetensors").touch()
        for folder in ("/gone/outputs/", "C:\\gone\\outputs\\"):
            source = Source("resnet50", f"{folder}backbone-1.safetensors", "", "float32")
            moved = source.beside(tmp_path)
            assert moved.weights_file == str(tmp_path / "backbone-1.safetensors")
            assert source.beside(tmp_path / "elsewhere") == source
            assert moved.beside(tmp_path / "elsewhere") == moved
        published = Source("resnet50", "IMAGENET1K_V1", "", "float32")
        assert published.beside(tmp_path) == published

    def test_a_second_one_replaces_the_first(self, trained, library, tmp_path):
        other = ss.train_head(library, **SURE, seed=9)
        other.apply(library, tmp_path, progress=False)
        made = trained.apply(library, tmp_path, progress=False)
        assert made.head.fingerprint == trained.head.fingerprint
        names = [file.name for file in tmp_path.glob("backbone-*")]
        assert names == [f"backbone-{trained.tuned.fingerprint}.safetensors"]

    def test_a_stopped_one_goes_on(self, trained, library, tmp_path, monkeypatch):
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

    def test_images_that_are_gone_are_left_out(self, trained, library, folder, tmp_path):
        shutil.copytree(folder / "data", tmp_path / "data")
        moved = ss.ImageLibrary.load(folder / "outputs", tmp_path / "data", tiny_tune.load())
        Path(moved.paths[3]).unlink()
        made = trained.apply(moved, tmp_path / "tuned", progress=False)
        assert made.names == moved.names[:3] + moved.names[4:]
        assert moved.paths[3] in (tmp_path / "tuned" / "skipped.csv").read_text()
        shutil.rmtree(tmp_path / "data")
        with pytest.raises(DatasetError, match=r"none of the 90 images can be read: .*new/place"):
            trained.apply(moved, tmp_path / "none", progress=False)

    def test_a_head_alone_is_applied_without_an_image(self, library, tmp_path, monkeypatch):
        monkeypatch.setattr(batching, "load_image", None)
        settings = {key: value for key, value in SETTINGS.items() if key != "finetune"}
        trained = ss.train_head(library, **settings)
        made = trained.apply(library, tmp_path)
        assert np.array_equal(ss.ImageLibrary.load(tmp_path).embeddings, made.embeddings)

    def test_the_tuned_head_does_not_fit_the_old_library(self, trained, library):
        with pytest.raises(BackboneError, match=r"trained\.apply\(library, outputs\)"):
            library.with_head(trained.head)


class TestStage:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("resnet18", ("layer4",)),
            ("resnet50", ("layer4",)),
            ("resnet152", ("layer4",)),
            ("convnext_tiny", ("features.7", "classifier")),  # of which a norm is left
            ("densenet121", ("features.denseblock4", "features.norm5")),
            ("swin_t", ("features.7", "norm")),
            (
                "vit_b_16",
                (*(f"encoder.layers.encoder_layer_{i}" for i in (8, 9, 10, 11)), "encoder.ln"),
            ),
        ],
    )
    def test_what_is_opened_of_known_networks(self, name, expected):
        with torch.device("meta"):
            module = models.get_model(name)
        linear = [key for key, x in module.named_modules() if isinstance(x, nn.Linear)][-1]
        module.set_submodule(linear, nn.Identity())
        sizes = {key: weight.numel() for key, weight in module.named_parameters()}
        assert last_stage(module, sizes) == expected

    def test_the_last_stage_holds_a_quarter_of_what_is_used(self):
        """EfficientNet-Lite0 has a classifier of a quarter of its weights, which is not used."""
        stage = TrainableBackbone(ss.load_backbone("efficientnet_lite0", device="cpu"))
        assert stage.names == ("_blocks.15", "_conv_head", "_bn1")
        weights = dict(stage.network.module.named_parameters())
        used = sum(weight.numel() for key, weight in weights.items() if "_fc" not in key)
        opened = sum(weight.numel() for weight in stage.parameters.values())
        assert 0.25 <= opened / used < 0.4
        assert {key for key, x in weights.items() if x.requires_grad} == set(stage.parameters)

    def test_a_network_without_parts(self):
        class Line(nn.Module):
            def __init__(self):
                super().__init__()
                self.weight = nn.Parameter(torch.ones(5, 3))

            def forward(self, images):
                return images.mean(dim=(2, 3)) @ self.weight.T

        assert TrainableBackbone(tiny_tune.load(Line())).names == ("weight",)

    def test_what_it_gives_is_what_the_backbone_gives(self, library):
        """An image more, so that what is compared is no multiple of anything."""
        backbone = ss.load_backbone("efficientnet_lite0", device="cpu", precision="float32")
        images = [Image.open(path).resize((300, 260)) for path in library.paths[:3]]
        batch = np.stack([backbone.prepare(image) for image in images])
        found = TrainableBackbone(backbone)(batch)
        np.testing.assert_allclose(found.detach().numpy(), backbone.embed(batch), atol=1e-4)
        assert found.requires_grad

    def test_names_of_ones_own(self, library):
        trained = ss.train_head(library, stage=["stem.0", "last.0"], **SURE)
        after, before = trained.tuned.module.state_dict(), tiny_tune.two_stages().state_dict()
        changed = {key for key, value in after.items() if not torch.equal(value, before[key])}
        assert changed == {f"{name}.0.{kind}" for name in ("stem", "last") for kind in KINDS}
        assert trained.stage == ("stem.0", "last.0")

    @pytest.mark.parametrize("names", ["first", ["last", "lasts"], [], "last.2"])
    def test_names_of_nothing(self, library, names):
        with pytest.raises(TrainingError, match="is no module .*; the modules are stem, "):
            ss.train_head(library, stage=names, **SETTINGS)

    def test_a_forward_that_gives_no_gradients(self):
        class Still(nn.Module):
            def __init__(self):
                super().__init__()
                self.inner = tiny_tune.two_stages()

            @torch.no_grad()
            def forward(self, images):
                return self.inner(images)

        with pytest.raises(TrainingError, match="Still gives no gradients"):
            TrainableBackbone(tiny_tune.load(Still()))

    def test_weights_that_have_changed_since(self):
        module = tiny_tune.two_stages()
        backbone = tiny_tune.load(module)
        with torch.no_grad():
            module.last[0].weight.add_(1)
        with pytest.raises(BackboneError, match="have changed since"):
            TrainableBackbone(backbone)


KINDS = ("weight", "bias")


class TestPrecision:
    @pytest.mark.parametrize("precision", ["bfloat16", "float16"])
    def test_half_precision_learns_too_and_is_kept(
        self, library, trained, monkeypatch, tmp_path, precision
    ):
        """The processor stands in for a GPU: float16 with its scaled gradients works on both."""
        monkeypatch.setattr(trainable, "training_precision", lambda device: precision)
        options = SETTINGS | {"epochs": 8, "patience": 8}
        half = ss.train_head(library, checkpoint=tmp_path, **options)
        assert score(half.after) > score(half.alone) + 0.1
        weights = half.tuned.module.state_dict().values()
        assert {weight.dtype for weight in weights if weight.is_floating_point()} == {torch.float32}
        stored = torch.load(tmp_path / checkpoint.FILE_NAME, weights_only=True)["state"]["tuner"]
        assert stored["precision"] == ["cpu", precision]
        assert ("scale" in stored["scaler"]) == (precision == "float16")
        monkeypatch.setattr(trainable, "training_precision", lambda device: "float32")
        assert same(half, ss.train_head(library, checkpoint=tmp_path, **options))

    @pytest.mark.parametrize(
        ("device", "bfloat16", "expected"),
        [
            ("cuda", True, "bfloat16"),
            ("cuda", False, "float16"),
            ("cpu", True, "bfloat16"),
            ("cpu", False, "float32"),
            ("mps", True, "float32"),
        ],
    )
    def test_is_what_the_device_is_good_at(self, monkeypatch, device, bfloat16, expected):
        monkeypatch.setattr(trainable, "bfloat16_is_fast", lambda: bfloat16)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: bfloat16)
        assert trainable.training_precision(torch.device(device)) == expected


class TestImages:
    @settings(deadline=None, max_examples=50)
    @given(
        st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32), st.sampled_from([None, 7])
    )
    def test_a_cut_lies_within_the_image(self, width, height, seed, side):
        """The image says where each pixel is from."""
        y, x = np.mgrid[:height, :width].astype(np.uint8)
        image = Image.fromarray(np.stack([x, y, np.zeros_like(x)], axis=2))
        cut = augment(image, np.random.default_rng(seed), side)
        assert cut.mode == "RGB"
        if side:
            assert cut.size == (side, side)
        else:
            assert cut.width <= width
            assert cut.height <= height
        again = augment(image, np.random.default_rng(seed), side)
        assert np.array_equal(np.asarray(cut), np.asarray(again))

    def test_cuts_differ_and_cover_the_stated_area(self):
        image, rng = Image.new("RGB", (200, 160)), np.random.default_rng(0)
        cuts = [augment(image, rng) for _ in range(300)]
        areas = [cut.width * cut.height / (200 * 160) for cut in cuts]
        assert 0.3 < min(areas) < 0.45
        assert 0.85 < max(areas) <= 1
        assert 0.6 < np.mean(areas) < 0.72

    def test_half_are_mirrored_and_colours_vary_a_little(self):
        half = np.zeros((64, 64, 3), np.uint8)
        half[:, 32:] = 100, 150, 200
        rng = np.random.default_rng(0)
        cuts = [np.asarray(augment(Image.fromarray(half), rng, 32), float) for _ in range(200)]
        right = [cut[:, -1].mean() > cut[:, 0].mean() for cut in cuts]
        assert 70 < sum(right) < 130
        bright = [cut.max(axis=(0, 1)) for cut in cuts]
        assert 5 < np.std(bright, axis=0)[2] < 40
        assert abs(np.mean(bright, axis=0)[2] - 200) < 15

    def test_batches_do_not_depend_on_threads(self, library, monkeypatch):
        batches = [
            ImageBatch(np.arange(i, i + 10), np.arange(10), (0, 1, i)) for i in range(0, 50, 10)
        ]
        found = []
        for cores in (1, 7):
            monkeypatch.setattr(image_loader, "cpu_count", lambda cores=cores: cores)
            loader = ImageLoader(library.paths, tiny_tune.load())
            found.append([images for images, _ in loader.load(batches)])
        assert all(np.array_equal(*pair) for pair in zip(*found, strict=True))
        assert not np.array_equal(found[0][0], found[0][1])

    def test_images_that_cannot_be_read_are_left_out_and_counted(self, folder, library, tmp_path):
        shutil.copytree(folder / "data", tmp_path / "data")
        moved = ss.ImageLibrary.load(folder / "outputs", tmp_path / "data", tiny_tune.load())
        train = [row for row, name in enumerate(moved.names) if name.startswith("train/")]
        test = [row for row, name in enumerate(moved.names) if name.startswith("test/")]
        for row in (*train[::6], test[0]):
            Path(moved.paths[row]).write_bytes(b"no image")
        trained = ss.train_head(moved, **SURE)
        assert trained.unreadable == 11
        assert "without 11 images that cannot be read" in str(trained)
        assert not set(trained.rows) & {*train[::6]}
        for found in (trained.before, trained.alone, trained.after):
            assert test[0] not in found.rows
            assert not set(found.gallery) & {*train[::6]}

    def test_none_can_be_read(self, folder, tmp_path):
        shutil.copytree(folder / "outputs", tmp_path / "outputs")
        gone = ss.ImageLibrary.load(tmp_path / "outputs", tmp_path / "gone", tiny_tune.load())
        with pytest.raises(TrainingError, match=r"none of the images can be read: .*no such file"):
            ss.train_head(gone, **SETTINGS)


class TestCheckpoint:
    def test_goes_on_after_a_kill_with_the_same_numbers(self, library, folder, tmp_path):
        """Killed after its second epoch, it starts with the third; the end is the same."""
        whole = ss.train_head(library, **SETTINGS)
        shutil.copytree(folder / "outputs", tmp_path / "outputs")
        script = Path(tiny_tune.__file__)
        process = subprocess.Popen(
            [sys.executable, str(script), str(tmp_path), "1"],
            env=os.environ | {"PYTHONPATH": str(Path(ss.__file__).parents[1])},
        )
        file = tmp_path / "checkpoint" / checkpoint.FILE_NAME
        try:
            wait_for(lambda: file.exists() and epochs_in(file) == 2, process)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        numbers = []
        with pytest.MonkeyPatch.context() as patch:
            learn = finetune.FineTuner.train_epoch
            patch.setattr(
                finetune.FineTuner,
                "train_epoch",
                lambda self, number, tick: numbers.append(number) or learn(self, number, tick),
            )
            resumed = ss.train_head(library, checkpoint=tmp_path / "checkpoint", **SETTINGS)
        assert numbers == [3]
        assert same(whole, resumed)

    def test_a_finished_one_is_not_run_again(self, library, tmp_path, monkeypatch):
        first = ss.train_head(library, checkpoint=tmp_path, **SETTINGS)
        monkeypatch.setattr(finetune.FineTuner, "train_epoch", None)
        assert same(first, ss.train_head(library, checkpoint=tmp_path, **SETTINGS))

    def test_is_refused_by_another_training(self, library, tmp_path):
        ss.train_head(library, checkpoint=tmp_path, **SETTINGS)
        for changes, message in (
            ({"margin": 0.2}, r"another training \(margin was 0\.3 and is 0\.2\); delete it"),
            ({"stage": "stem"}, r"stage was \['last'\] and is \['stem'\]"),
            ({"leave_out": ["bars"]}, "images and labels was"),
            ({"seed": np.int64(4)}, "seed was 0 and is '4'|seed was 0 and is 4"),
        ):
            with pytest.raises(TrainingError, match=message):
                ss.train_head(library, checkpoint=tmp_path, **SETTINGS | changes)

    def test_that_is_damaged(self, library, tmp_path):
        ss.train_head(library, checkpoint=tmp_path, **SETTINGS | {"epochs": 1})
        file = tmp_path / checkpoint.FILE_NAME
        file.write_bytes(file.read_bytes()[:-2000])
        with pytest.raises(TrainingError, match=r"is damaged .*; delete it to start anew"):
            ss.train_head(library, checkpoint=tmp_path, **SETTINGS | {"epochs": 1})

    def test_that_would_run_code_is_not_opened(self, library, tmp_path):
        class Harm:
            def __reduce__(self):
                return (Path.touch, (tmp_path / "harmed",))

        torch.save({"settings": "{}", "state": Harm()}, tmp_path / checkpoint.FILE_NAME)
        with pytest.raises(TrainingError, match="is damaged"):
            ss.train_head(library, checkpoint=tmp_path, **SETTINGS)
        assert not (tmp_path / "harmed").exists()

    def test_is_held_by_one_process(self, library, tmp_path):
        with (
            Checkpoint(tmp_path, {}).hold(),
            pytest.raises(TrainingError, match="another process is training in"),
        ):
            ss.train_head(library, checkpoint=tmp_path, **SETTINGS)

    def test_where_nothing_can_be_written(self, library, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(TrainingError, match=r"cannot write .*free disk space and run again"):
            ss.train_head(library, checkpoint=tmp_path / "file" / "x", **SETTINGS)

    @pytest.mark.skipif(sys.platform == "win32", reason="has no such limit")
    def test_a_full_disk_leaves_the_last_one(self, library, tmp_path):
        import resource

        first = Checkpoint(tmp_path, {"a": 1})
        first.write({"epoch": 1})
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        try:
            with pytest.raises(TrainingError, match=r"cannot write .*File too large"):
                first.write({"epoch": 2, "weights": torch.zeros(9999)})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, before)
        with first.hold() as state:
            assert state == {"epoch": 1}
        assert not list(tmp_path.glob("*.part"))

    def test_is_kept_when_the_loss_is_no_number(self, library, tmp_path, monkeypatch):
        checked = finetune.check_loss

        def spoil(loss, number):
            return checked(loss * float("nan") if number == 2 else loss, number)

        with monkeypatch.context() as patch:
            patch.setattr(finetune, "check_loss", spoil)
            with pytest.raises(TrainingError, match="the loss is nan in epoch 2: lower"):
                ss.train_head(library, checkpoint=tmp_path, **SETTINGS)
        assert epochs_in(tmp_path / checkpoint.FILE_NAME) == 1
        assert ss.train_head(library, checkpoint=tmp_path, **SETTINGS).history[-1].number == 3


def epochs_in(file):
    stored = torch.load(file, weights_only=True)
    return stored["state"]["history"][-1][0]


def wait_for(condition, process, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "it ended too early"
        assert time.monotonic() < end
        time.sleep(0.02)


class TestRefuses:
    def test_what_goes_with_finetune_alone(self, library):
        for name in ("stage", "checkpoint"):
            with pytest.raises(TrainingError, match="go with finetune=True"):
                ss.train_head(library, **{name: "last"})

    def test_a_library_with_a_head(self, library, trained, tmp_path):
        made = trained.apply(library, tmp_path, progress=False)
        with pytest.raises(TrainingError, match="has a head, through which no gradient passes"):
            ss.train_head(made, **SETTINGS)

    def test_a_library_of_unknown_origin(self, library):
        bare = ss.ImageLibrary(library.embeddings, library.paths)
        with pytest.raises(BackboneError, match="does not know what made its embeddings"):
            ss.train_head(bare, library.labels, **rest())

    def test_rates_out_of_range(self, library):
        with pytest.raises(TrainingError, match="stage_rate=0: give a number"):
            ss.train_head(library, **SETTINGS | {"stage_rate": 0})

    def test_weights_without_limit(self, library):
        with pytest.raises(TrainingError, match=r"(nan|limit) in epoch \d+: lower"):
            ss.train_head(library, **SETTINGS | {"stage_rate": 1e30})

    def test_classes_that_are_too_few(self, library):
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
    assert score(trained.after) >= score(trained.before) - 0.05
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
