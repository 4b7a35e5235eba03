"""Networks quantised to int8: one network a library, known by its digest, from the user's cache."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import simsearch as ss
from simsearch import files
from simsearch.backbones import quantised, runtime_cache
from simsearch.embedding import batching
from simsearch.embedding import quantise as dataset_quantise
from simsearch.errors import BackboneError, MissingExtraError
from simsearch.library.library import ImageLibrary

pytest.importorskip("nncf", reason='needs: pip install "simsearch[int8]"')

ROOT = Path(ss.__file__).parents[1]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own for each test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    monkeypatch.setattr(files.sys, "platform", "linux")
    runtime_cache.cached_backbone.cache_clear()
    return tmp_path / "cache/simsearch/networks"


CALIBRATED, calibrate = {}, quantised._calibrated


@pytest.fixture(autouse=True)
def calibrate_once(monkeypatch):
    """Have NNCF quantise the same network by the same pictures once only: it takes seconds."""

    def remembered(stored, pictures):
        key = stored.weights.tobytes(), np.stack(pictures).tobytes()
        if key not in CALIBRATED:
            CALIBRATED[key] = calibrate(stored, pictures)
        return CALIBRATED[key]

    monkeypatch.setattr(quantised, "_calibrated", remembered)


class Network(torch.nn.Module):
    """Two convolutions, whose output depends on the picture."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(3, 16, 3, 2), torch.nn.ReLU(), torch.nn.Conv2d(16, 32, 3, 2)
        )

    def forward(self, pixels):
        return self.layers(pixels)


def to_pixels(image):
    pixels = np.asarray(image.resize((32, 32)), np.float32) / 255 - 0.5
    return torch.from_numpy(pixels).permute(2, 0, 1)


def load(precision="float32"):
    return ss.load_backbone(Network(), transform=to_pixels, device="cpu", precision=precision)


def paint(folder, numbers):
    """Write pictures of coloured squares, each of its number."""
    folder.mkdir(exist_ok=True)
    for number in numbers:
        squares = np.random.default_rng(number).integers(0, 256, (6, 6, 3), np.uint8)
        Image.fromarray(squares).resize((60, 60), 0).save(folder / f"{number:03d}.png")


def embed(tmp_path, precision="int8", outputs="outputs", backbone=None):
    backbone = load() if backbone is None else backbone
    return ss.embed_dataset(
        tmp_path / "dataset", tmp_path / outputs, backbone, precision=precision, progress=False
    )


@pytest.fixture
def library(tmp_path):
    paint(tmp_path / "dataset", range(12))
    return embed(tmp_path)


def again(tmp_path):
    """Open the library, with the network in float32."""
    return ImageLibrary.load(tmp_path / "outputs", backbone=load())


def test_rows_are_near_those_of_float32_and_say_what_made_them(library, cache, tmp_path):
    exact = load().encode([str(path) for path in library.paths])
    cosines = (np.asarray(library.embeddings) * exact).sum(axis=1)
    assert 0.99 < cosines.min() < 1 - 1e-6
    source = json.loads((tmp_path / "outputs/manifest.json").read_text("utf-8"))["source"]
    (file,) = cache.iterdir()
    stored = runtime_cache.read_entry(file)[0]
    assert source["precision"] == "int8"
    assert source["fingerprint"] == (
        f"{load().fingerprint}-int8-{runtime_cache.network_digest(stored)}"
    )


def test_weights_leave_room_for_processors_without_vnni(library, cache):
    """Two products of a byte and such a weight fit into 16 bits, as AVX2 adds them."""
    openvino = pytest.importorskip("openvino")
    stored = runtime_cache.read_entry(next(cache.iterdir()))[0]
    model = openvino.Core().read_model(stored.graph, openvino.Tensor(stored.weights))
    weights = [
        operation.data
        for operation in model.get_ops()
        if operation.get_type_name() == "Constant" and operation.data.dtype == np.int8
    ]
    assert len(weights) >= 2
    assert max(np.abs(each.astype(int)).max() for each in weights) * 255 * 2 < 2**15


def test_queries_are_embedded_by_the_same_network(library, tmp_path):
    rows = again(tmp_path).encode([str(path) for path in library.paths])
    assert np.abs(rows - library.embeddings).max() < 1e-5


def test_the_same_pictures_give_the_same_network(library, tmp_path, monkeypatch):
    monkeypatch.setattr(quantised, "_calibrated", calibrate)
    other = embed(tmp_path, outputs="other")
    assert other.fingerprint == library.fingerprint
    assert np.array_equal(other.embeddings, library.embeddings)


@pytest.mark.parametrize("precision", ["auto", "int8"])
def test_new_pictures_are_embedded_by_the_network_of_the_library(
    library, tmp_path, monkeypatch, precision
):
    before = np.array(library.embeddings)
    paint(tmp_path / "dataset", range(12, 20))
    monkeypatch.setattr(dataset_quantise, "quantise", lambda *_: pytest.fail("quantised again"))
    grown = embed(tmp_path, precision)
    assert (grown.report.reused, grown.report.embedded) == (12, 8)
    assert grown.fingerprint == library.fingerprint
    assert np.array_equal(grown.embeddings[:12], before)
    rows = grown.encode([str(path) for path in grown.paths[12:]])
    assert np.abs(rows - grown.embeddings[12:]).max() < 1e-5


@pytest.mark.parametrize(("first", "then"), [("int8", "float32"), ("float32", "int8")])
def test_rows_of_two_precisions_never_mix(tmp_path, first, then):
    paint(tmp_path / "dataset", range(8))
    embed(tmp_path, first)
    changed = embed(tmp_path, then)
    assert (changed.report.reused, changed.report.embedded) == (0, 8)
    assert changed.source.precision == then


def test_another_network_replaces_one_in_int8(library, tmp_path):
    other = ss.load_backbone(
        torch.nn.Conv2d(3, 8, 3), transform=to_pixels, device="cpu", precision="float32"
    )
    changed = embed(tmp_path, "auto", backbone=other)
    assert (changed.report.reused, changed.source.precision) == (0, "float32")


def test_a_network_that_is_gone_is_made_again_where_that_gives_the_same(library, cache, tmp_path):
    shutil.rmtree(cache)
    with pytest.raises(BackboneError, match="run embed_dataset on the same pictures again"):
        again(tmp_path).encode([str(library.paths[0])])
    paint(tmp_path / "dataset", range(12, 14))
    grown = embed(tmp_path, "auto")
    assert grown.fingerprint == library.fingerprint
    assert (grown.report.reused, grown.report.embedded) == (12, 2)


@pytest.mark.parametrize("change", ["gone", "other", "no record"])
def test_new_pictures_are_refused_where_the_network_cannot_be_made_again(
    library, cache, tmp_path, change
):
    shutil.rmtree(cache)
    before = (tmp_path / "outputs/embeddings.npy").read_bytes()
    if change == "gone":
        (tmp_path / "dataset/003.png").unlink()
    elif change == "other":
        Image.new("RGB", (60, 60), "red").save(tmp_path / "dataset/003.png")
    else:
        (tmp_path / "outputs/int8_pictures.json").write_text("[]", "utf-8")
    paint(tmp_path / "dataset", range(12, 14))
    with pytest.raises(BackboneError, match="choose another outputs folder"):
        embed(tmp_path, "auto")
    assert (tmp_path / "outputs/embeddings.npy").read_bytes() == before


def test_a_network_that_was_changed_is_not_used(library, cache, tmp_path, caplog):
    (file,) = cache.iterdir()
    with np.load(file) as arrays:
        changed = dict(arrays)
    changed["weights"] = changed["weights"] ^ 1
    np.savez(file, **changed)
    with pytest.raises(BackboneError, match="is not in"):
        again(tmp_path).encode([str(library.paths[0])])
    assert "not the one that was quantised" in caplog.text


def test_a_network_beside_a_library_is_not_read(library, cache, tmp_path):
    for file in list(cache.iterdir()):
        shutil.move(file, tmp_path / "outputs" / file.name)
    with pytest.raises(BackboneError, match="is not in"):
        again(tmp_path).encode([str(library.paths[0])])


def test_quantised_networks_stay_while_others_come_and_go(library, cache, monkeypatch):
    monkeypatch.setattr(runtime_cache, "KEPT_NETWORKS", 1)
    (file,) = cache.iterdir()
    os.utime(file, (1, 1))
    stored, record = runtime_cache.read_entry(file)
    os.utime(file, (1, 1))
    for name in ("first.npz", "second.npz"):
        runtime_cache.write_entry(cache / name, stored._replace(precision="float32"), record)
    assert {each.name for each in cache.iterdir()} == {file.name, "second.npz"}


def test_a_stopped_run_goes_on_with_its_network(tmp_path, monkeypatch):
    paint(tmp_path / "dataset", range(24))
    embed_batch, done = batching.embed_batch, []

    def stop(sources, start, **options):
        if len(done) > 2:
            raise KeyboardInterrupt
        done.append(start)
        return embed_batch(sources, start, **options)

    monkeypatch.setattr(batching, "embed_batch", stop)
    with pytest.raises(KeyboardInterrupt):
        ss.embed_dataset(
            tmp_path / "dataset",
            tmp_path / "outputs",
            load(),
            batch_size=4,
            workers=1,
            precision="int8",
            progress=False,
        )
    monkeypatch.setattr(batching, "embed_batch", embed_batch)
    paint(tmp_path / "dataset", [30])  # other pictures would be calibrated on
    monkeypatch.setattr(dataset_quantise, "quantise", lambda *_: pytest.fail("quantised again"))
    library = embed(tmp_path)
    assert library.report.reused >= 8


def test_pictures_that_cannot_be_read_are_left_out(tmp_path):
    paint(tmp_path / "dataset", range(4))
    (tmp_path / "dataset/000.png").write_bytes(b"no picture")
    library = embed(tmp_path)
    record = json.loads((tmp_path / "outputs/int8_pictures.json").read_text("utf-8"))
    assert record == {
        "fingerprint": library.fingerprint,
        "pictures": ["001.png", "002.png", "003.png"],
    }
    for number in range(4):
        (tmp_path / f"dataset/{number:03d}.png").write_bytes(b"no picture")
    with pytest.raises(ss.errors.DatasetError, match="none of the 4 images"):
        embed(tmp_path, outputs="other")


def test_pictures_are_spread_over_the_dataset(monkeypatch, tmp_path):
    monkeypatch.setattr(dataset_quantise, "CALIBRATION_PICTURES", 4)
    paint(tmp_path / "dataset", range(9))
    embed(tmp_path)
    record = json.loads((tmp_path / "outputs/int8_pictures.json").read_text("utf-8"))
    assert record["pictures"] == ["000.png", "002.png", "004.png", "006.png"]


def test_a_copy_in_another_process_has_the_same_network(library):
    backbone = pickle.loads(pickle.dumps(library.backbone))
    assert backbone.fingerprint == library.fingerprint
    rows = backbone.encode([str(path) for path in library.paths])
    assert np.abs(rows - library.embeddings).max() < 1e-5


def test_int8_is_not_embedded_in_any_other_way(library):
    backbone = library.backbone
    with pytest.raises(BackboneError, match="processors only"):
        backbone.move("cuda")
    with pytest.raises(BackboneError, match="shape that it was calibrated on"):
        backbone.embed(np.zeros((1, 3, 40, 40), np.float32))


def test_load_backbone_says_where_int8_is_made():
    with pytest.raises(BackboneError, match="embed_dataset"):
        ss.load_backbone("efficientnet_lite0", precision="int8")


def test_int8_is_made_from_float32_only(tmp_path):
    paint(tmp_path / "dataset", range(2))
    with pytest.raises(BackboneError, match="from float32 on a processor"):
        embed(tmp_path, backbone=load("bfloat16"))


def test_networks_that_lose_too_much_are_refused(tmp_path, monkeypatch):
    paint(tmp_path / "dataset", range(8))
    monkeypatch.setattr(quantised, "MIN_COSINE", 1.01)
    with pytest.raises(BackboneError, match="loses too much in int8"):
        embed(tmp_path)


def test_a_cache_that_cannot_be_written_is_said_before_anything_is_embedded(cache, tmp_path):
    paint(tmp_path / "dataset", range(8))
    cache.parent.mkdir(parents=True)
    cache.write_text("a file", "utf-8")
    with pytest.raises(BackboneError, match="cannot be kept in"):
        embed(tmp_path)
    assert not (tmp_path / "outputs/embeddings.npy").exists()


def test_packages_that_are_missing_are_said(library, tmp_path, monkeypatch):
    def version(name):
        raise runtime_cache.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(quantised.metadata, "version", version)
    with pytest.raises(MissingExtraError, match=r"simsearch\[int8\]"):
        embed(tmp_path, outputs="other")
    with pytest.raises(MissingExtraError, match=r"simsearch\[int8\]"):
        again(tmp_path).encode([str(library.paths[0])])


def test_fine_tuning_and_heat_maps_start_from_float32(library):
    backbone = library.backbone
    batch = np.stack([backbone.prepare(ss.load_image(str(library.paths[0])))])
    assert backbone.feature_map(batch).shape[-1] == backbone.dim
    assert next(backbone.module.parameters()).dtype == torch.float32


COMMAND = """
import os, sys
from simsearch.cli.main import main
code = main(sys.argv[1:])
loaded = {"torch", "nncf", "openvino_telemetry"} & set(sys.modules)
assert sys.argv[1] == "embed" or not loaded, loaded
assert "openvino_telemetry" not in sys.modules
sys.exit(code)
"""


@pytest.mark.slow
def test_from_the_shell(sample, tmp_path):
    """EfficientNet-Lite0: embed, then ask, without PyTorch; and nothing is reported to anybody."""
    (tmp_path / "dataset").mkdir()
    for i, file in enumerate(sorted((sample / "seg_train").rglob("*.jpg"))[::40]):
        shutil.copy(file, tmp_path / f"dataset/{i}.jpg")
    env = os.environ | {
        "HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
    }

    def run(*arguments):
        command = [sys.executable, "-c", COMMAND, *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("embed", "dataset", "outputs", "--backbone", "efficientnet_lite0", "--precision", "int8")
    answer = json.loads(run("search", "outputs", "dataset/0.jpg", "--json"))
    assert len(answer["matches"]) == 5
    assert "int8" in run("info", "outputs")
    assert not (tmp_path / "intel").exists()
