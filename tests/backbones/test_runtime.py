"""Networks run by OpenVINO: the rows of PyTorch, from a cache that may be damaged."""

import json
import os
import pickle
import shutil
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import simsearch as ss
from simsearch import files
from simsearch.backbones import backbone as backbone_module
from simsearch.backbones import runtime, runtime_cache, runtime_convert
from simsearch.backbones.backbone import Backbone, with_windows
from simsearch.backbones.preprocessing import Preprocessing
from simsearch.backbones.spec import ModelSpec
from simsearch.backbones.squash import SquashPreprocessing
from simsearch.errors import BackboneError, MissingExtraError
from simsearch.library.library import ImageLibrary

ROOT = Path(ss.__file__).parents[1]
NAMES = [
    *("efficientnet_lite0", "resnet18", "mobilenet_v3_small"),
    *("timm:vit_tiny_patch16_224", "timm:resnet18"),
]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own for each test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    backbone_module._load_named.cache_clear()
    monkeypatch.setattr(files.sys, "platform", "linux")
    yield tmp_path / "cache/simsearch/networks"
    backbone_module._load_named.cache_clear()


class Network(torch.nn.Module):
    """A small convolutional network with what is usual in one."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(3, 16, 3, 2, bias=False), torch.nn.BatchNorm2d(16), torch.nn.ReLU6()
        )

    def forward(self, pixels):
        return self.layers(pixels)


def to_pixels(image):
    pixels = np.asarray(image.resize((32, 32)), np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)


def load(runtime="openvino", **options):
    options = {"device": "cpu", "precision": "float32"} | options
    return ss.load_backbone(Network(), transform=to_pixels, runtime=runtime, **options)


def seeded(name, tmp_path):
    """Load a network with random weights that follow from a seed."""
    if name == "efficientnet_lite0":
        return ss.load_backbone(name, device="cpu", precision="float32", runtime="openvino")
    torch.manual_seed(0)
    if name.startswith("timm:"):
        timm = pytest.importorskip("timm")
        network = timm.create_model(name.partition(":")[2], pretrained=False)
    else:
        import torchvision

        network = torchvision.models.get_model(name)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    options = {"device": "cpu", "precision": "float32", "runtime": "openvino"}
    return ss.load_backbone(name, tmp_path / "weights.pth", **options)


def pictures(backbone, count=5, seed=0):
    rng = np.random.default_rng(seed)
    images = [Image.fromarray(rng.integers(0, 256, (90, 120, 3), np.uint8)) for _ in range(count)]
    return np.stack([backbone.prepare(image) for image in images])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_rows_are_those_of_pytorch(name, tmp_path):
    backbone = seeded(name, tmp_path)
    assert backbone.runtime == "openvino"
    for count in (1, 2, 5):
        batch = pictures(backbone, count, seed=count)
        rows, expected = backbone.embed(batch), backbone.embed_by_torch(batch)
        assert rows.dtype == np.float32
        assert rows.shape == expected.shape
        assert np.abs(rows - expected).max() < 1e-4
        assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_a_module_of_ones_own():
    backbone = load()
    batch = pictures(backbone)
    assert backbone.runtime == "openvino"
    assert np.abs(backbone.embed(batch) - backbone.embed_by_torch(batch)).max() < 1e-4
    assert backbone.fingerprint == load("torch").fingerprint
    assert load("torch").runtime == "torch"


def test_bfloat16_is_used_only_where_it_was_chosen():
    batch = pictures(load())
    exact = load().embed_by_torch(batch)
    whole = np.abs(load().embed(batch) - exact).max()
    half = np.abs(load(precision="bfloat16").embed(batch) - exact).max()
    assert whole < 1e-5 < half < 1e-2


def test_other_shapes_are_run_by_pytorch():
    backbone = load()
    batch = np.random.default_rng(0).random((2, 3, 40, 24), np.float32)
    assert np.array_equal(backbone.embed(batch), backbone.embed_by_torch(batch))


def test_rows_without_a_direction_are_nan():
    backbone = load()
    batch = pictures(backbone, 2)
    batch[1] = np.nan
    rows = backbone.embed(batch)
    assert np.isfinite(rows[0]).all()
    assert np.isnan(rows[1]).all()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random weights of a ResNet18, which follow from a seed."""
    import torchvision

    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(torchvision.models.resnet18().state_dict(), file)
    return file


def load_named(weights, runtime="openvino"):
    backbone_module._load_named.cache_clear()
    options = {"device": "cpu", "precision": "float32", "runtime": runtime}
    return ss.load_backbone("resnet18", weights, **options)


def test_the_converted_network_is_kept_and_found_again(cache, weights, monkeypatch):
    first = load_named(weights)
    (file,) = cache.iterdir()
    assert first.fingerprint in file.name
    if os.name != "nt":
        assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    monkeypatch.setattr(runtime_convert, "convert", lambda *_: pytest.fail("converted again"))
    batch = pictures(first)
    assert np.allclose(load_named(weights).embed(batch), first.embed(batch), atol=1e-5)


@pytest.mark.parametrize("damage", ["cut", "empty", "a byte", "other weights"])
def test_a_damaged_cache_is_made_anew(cache, weights, damage, caplog):
    backbone = load_named(weights)
    batch = pictures(backbone)
    (file,) = cache.iterdir()
    data = bytearray(file.read_bytes())
    if damage == "other weights":
        with np.load(file) as arrays:
            changed = dict(arrays)
        numbers = np.frombuffer(changed["weights"].tobytes(), np.float32) * 2 + 1
        changed["weights"] = np.frombuffer(numbers.tobytes(), np.uint8)
        np.savez(file, **changed)
    else:
        data[len(data) // 2] ^= 1
        size = {"cut": len(data) // 2, "empty": 0, "a byte": len(data)}[damage]
        file.write_bytes(bytes(data[:size]))
    again = load_named(weights)
    assert again.runtime == "openvino"
    assert np.abs(again.embed(batch) - backbone.embed_by_torch(batch)).max() < 1e-4
    assert runtime_cache.read_entry(file) is not None


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps rights in another way")
def test_a_cache_that_others_may_write_is_not_used(cache, weights, caplog):
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    assert load_named(weights).runtime == "openvino"
    assert list(cache.iterdir()) == []
    assert "not kept" in caplog.text


def test_without_a_cache(cache, weights, caplog):
    cache.parent.mkdir(parents=True)
    cache.write_text("a file")
    assert load_named(weights).runtime == "openvino"


def test_networks_used_longest_ago_are_dropped(cache, weights, monkeypatch):
    monkeypatch.setattr(runtime_cache, "KEPT_NETWORKS", 2)
    cache.mkdir(0o700, parents=True)
    for i in range(3):
        (cache / f"{i}.npz").touch()
        os.utime(cache / f"{i}.npz", (i, i))
    load_named(weights)
    assert len(list(cache.iterdir())) == 2
    assert (cache / "2.npz").exists()


def test_own_modules_are_not_kept(cache):
    """Their fingerprint tells their weights, and not their layers."""
    assert load().runtime == "openvino"
    assert not cache.exists()


def optimised(**options):
    backbone = load("auto", **options)
    assert backbone.runtime == "torch"  # until many images come
    backbone.optimise()
    return backbone.runtime


def test_a_module_that_cannot_be_converted_is_run_by_pytorch(monkeypatch, caplog):
    def refuse(*_):
        raise RuntimeError("no such operation")

    monkeypatch.delenv("SIMSEARCH_RUNTIME")
    monkeypatch.setattr(runtime_convert, "convert", refuse)
    assert optimised() == "torch"
    assert "no such operation" in caplog.text


def test_other_rows_are_not_taken(monkeypatch, caplog):
    monkeypatch.delenv("SIMSEARCH_RUNTIME")
    monkeypatch.setattr(
        runtime_convert.OpenVinoNetwork, "embed", lambda self, batch: np.ones((len(batch), 16))
    )
    assert optimised() == "torch"
    assert "rows of Network differ" in caplog.text


def test_the_quicker_one_is_taken(monkeypatch):
    monkeypatch.delenv("SIMSEARCH_RUNTIME")
    for answer, name in ((True, "openvino"), (False, "torch")):
        monkeypatch.setattr(runtime_convert, "is_faster", lambda *_, answer=answer: answer)
        assert optimised() == name
    monkeypatch.setattr(runtime_convert, "is_faster", lambda *_: True)
    monkeypatch.setenv("SIMSEARCH_RUNTIME", "torch")
    assert optimised() == "torch"


def test_is_faster_compares_times():
    backbone = load()
    network = backbone._network

    class Timed:
        def __init__(self, times):
            self.times = times

        def embed(self, batch):
            return [network.embed(batch) for _ in range(self.times)]

    assert not runtime_convert.is_faster(Timed(100), backbone)
    assert runtime_convert.is_faster(Timed(0), backbone)


def test_unknown_runtimes_are_refused(monkeypatch):
    with pytest.raises(BackboneError, match="runtime='onnx'"):
        load("onnx")
    monkeypatch.setenv("SIMSEARCH_RUNTIME", "fast")
    with pytest.raises(BackboneError, match="runtime='fast'"):
        load("auto")


def test_openvino_that_is_missing_is_said(monkeypatch):
    monkeypatch.setattr(runtime_convert, "openvino_version", lambda: "")
    with pytest.raises(MissingExtraError, match=r"simsearch\[fast\]"):
        ss.load_backbone("efficientnet_lite0", device="cpu", runtime="openvino")
    assert load("auto").runtime == "torch"


def test_a_copy_in_another_process_runs_the_same_network(monkeypatch):
    backbone = load()
    batch = pictures(backbone)
    sent = pickle.dumps(backbone)
    monkeypatch.setattr(runtime_convert, "convert", lambda *_: pytest.fail("converted again"))
    again = pickle.loads(sent)
    assert again.runtime == "openvino"
    assert np.allclose(again.embed(batch), backbone.embed(batch), atol=1e-6)


def test_a_copy_where_openvino_is_not_installed_is_run_by_pytorch(monkeypatch, caplog):
    backbone = load()
    batch, sent = pictures(backbone), pickle.dumps(backbone)

    def refuse(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(runtime, "import_quietly", refuse)
    again = pickle.loads(sent)
    assert again.runtime == "torch"
    assert np.allclose(again.embed(batch), backbone.embed(batch), atol=1e-5)
    assert "PyTorch does: openvino" in caplog.text


TELEMETRY = """
import sys, simsearch as ss
backbone = ss.load_backbone("efficientnet_lite0", device="cpu", runtime="openvino")
assert backbone.runtime == "openvino"
assert "openvino_telemetry" not in sys.modules
import openvino_telemetry  # for whoever wants it
"""


def test_nothing_is_reported_to_the_makers_of_openvino(tmp_path):
    """Its own packages report each import and conversion, unless their telemetry is not there."""
    pytest.importorskip("openvino_telemetry")
    env = os.environ | {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path)}
    env |= {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", TELEMETRY], env=env, check=False)
    assert done.returncode == 0
    assert [each.name for each in tmp_path.iterdir()] == ["cache"]


def test_threads_at_once_get_their_own_rows():
    backbone = load()
    batches = [pictures(backbone, 1 + seed % 3, seed) for seed in range(40)]
    expected = [backbone.embed_by_torch(batch) for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        for rows, other in zip(pool.map(backbone.embed, batches), expected, strict=True):
            assert np.abs(rows - other).max() < 1e-4


def test_datasets_of_both_runtimes_are_one_library(sample, tmp_path):
    """Rows mix: one half embedded by PyTorch, the other by OpenVINO."""
    files = sorted((sample / "seg_train").rglob("*.jpg"))[:6]
    (tmp_path / "dataset").mkdir()
    for i, file in enumerate(files):
        shutil.copy(file, tmp_path / f"dataset/{i}.jpg")
        if i in (2, 5):
            runtime = "torch" if i == 2 else "openvino"
            backbone = load(runtime)
            library = ss.embed_dataset(
                tmp_path / "dataset", tmp_path / "outputs", backbone, progress=False
            )
    assert library.report.reused == 3
    whole = load("torch").encode([tmp_path / f"dataset/{i}.jpg" for i in range(6)])
    assert np.abs(np.asarray(library.embeddings) - whole).max() < 1e-4


QUERY = """
import json, sys
from simsearch.cli.main import main
code = main(["search", "outputs", "dataset/0.jpg", "--json"])
assert sys.argv[1] == "torch" or not {"torch", "pandas", "grpc"} & set(sys.modules)
sys.exit(code)
"""


def test_a_query_from_the_shell_needs_no_pytorch(cache, sample, tmp_path):
    """Once the network is in the cache; and it finds what PyTorch finds, of a long picture, too."""
    (tmp_path / "dataset").mkdir()
    for i, file in enumerate(sorted((sample / "seg_train").rglob("*.jpg"))[:12]):
        shutil.copy(file, tmp_path / f"dataset/{i}.jpg")
    long = Image.open(tmp_path / "dataset/0.jpg").resize((300, 100))
    long.save(tmp_path / "dataset/0.jpg")
    backbone = ss.load_backbone(
        "efficientnet_lite0", device="cpu", precision="float32", runtime="openvino"
    )
    library = ss.embed_dataset(tmp_path / "dataset", tmp_path / "outputs", backbone, progress=False)
    assert library.source.precision == "float32"
    assert library.source.fingerprint.endswith("-windows")
    answers = []
    for wanted in ("auto", "torch"):
        env = os.environ | {"SIMSEARCH_RUNTIME": wanted, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", QUERY, wanted]
        done = subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        answers.append(json.loads(done.stdout)["matches"])
    assert [each["path"] for each in answers[0]] == [each["path"] for each in answers[1]]
    assert np.allclose(*([each["score"] for each in some] for some in answers), atol=1e-5)


def test_a_cached_network_of_another_library_is_not_used(cache, weights):
    backbone = load_named(weights)
    found = runtime_cache.cached_backbone("resnet18", backbone.fingerprint, "float32")
    assert found is None  # while PyTorch is asked for
    runtime_cache.cached_backbone.cache_clear()


def test_a_cached_network_embeds_as_the_backbone(cache, weights, monkeypatch):
    backbone = load_named(weights)
    monkeypatch.setenv("SIMSEARCH_RUNTIME", "auto")
    runtime_cache.cached_backbone.cache_clear()
    found = runtime_cache.cached_backbone("resnet18", backbone.fingerprint, "float32")
    assert (found.dim, found.fingerprint, found.name) == (512, backbone.fingerprint, "resnet18")
    images = [Image.new("RGB", (300, 200), color) for color in ("red", "blue")]
    assert np.allclose(found.encode(images), backbone.encode(images), atol=1e-5)
    assert runtime_cache.cached_backbone("resnet18", "another", "float32") is None
    assert runtime_cache.cached_backbone("resnet18", backbone.fingerprint, "float16") is None
    rows = backbone.encode(images)
    library = ImageLibrary(rows, ["a.jpg", "b.jpg"], backbone)
    assert np.allclose(library.encode(images), rows, atol=1e-5)


@pytest.mark.parametrize("kind", [Preprocessing, SquashPreprocessing])
def test_a_cached_network_crops_or_squeezes_as_the_backbone(cache, kind, monkeypatch):
    """Also one of a library by windows, and one that an earlier version kept."""
    torch.manual_seed(0)
    module = torch.nn.Conv2d(3, 8, 3, 2)
    spec = ModelSpec("timm:tiny", "none", module, kind(36, 32, (0.5,) * 3, (0.5,) * 3), "avg")
    plain = Backbone(spec, "cpu", "float32", "torch")
    embedding = with_windows(plain)
    embedding._wanted = "openvino"
    embedding.optimise()
    monkeypatch.setenv("SIMSEARCH_RUNTIME", "auto")
    wide = Image.linear_gradient("L").resize((90, 50)).rotate(30).convert("RGB")
    for squeezed in (None, kind is SquashPreprocessing):
        runtime_cache.cached_backbone.cache_clear()
        if squeezed is not None:
            (file,) = cache.iterdir()
            stored, record = runtime_cache.read_entry(file)
            del record["transform"]["kind"]
            runtime_cache.write_entry(file, stored, record)
            monkeypatch.setattr(runtime_cache, "squeezes", lambda _: squeezed)  # noqa: B023
        found = runtime_cache.cached_backbone("timm:tiny", plain.fingerprint, "float32")
        assert np.allclose(found.encode([wide]), plain.encode([wide]), atol=1e-5)


def test_pytorch_alone_never_loads_openvino():
    code = (
        "import sys, simsearch as ss; ss.load_backbone('efficientnet_lite0', device='cpu'); "
        "sys.exit('openvino' in sys.modules)"
    )
    env = os.environ | {"SIMSEARCH_RUNTIME": "torch"}
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == 0
