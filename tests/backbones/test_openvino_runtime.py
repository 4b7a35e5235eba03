"""Networks run by OpenVINO: the rows of PyTorch, from a cache that may be damaged."""

import os
import pickle
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

import simsearch as ss
from simsearch.backbones import backbone as backbone_module
from simsearch.backbones import openvino_runtime as runtimes
from simsearch.errors import BackboneError, MissingExtraError

NAMES = ["efficientnet_lite0", "resnet18", "mobilenet_v3_small", "vit_b_16", "timm:resnet18"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own for each test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    backbone_module._load_named.cache_clear()
    yield tmp_path / "cache/simsearch/openvino"
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


def test_the_converted_network_is_kept_and_found_again(cache, monkeypatch):
    first = load()
    (file,) = cache.glob("*.xml")
    assert file.name.startswith(first.fingerprint)
    assert file.with_suffix(".bin").exists()
    if os.name != "nt":
        assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    monkeypatch.setattr(runtimes, "_convert", lambda *_: pytest.fail("converted again"))
    batch = pictures(first)
    assert np.allclose(load().embed(batch), first.embed(batch), atol=1e-5)


@pytest.mark.parametrize("damage", ["cut", "empty", "other weights", "gone"])
def test_a_damaged_cache_is_made_anew(cache, damage):
    backbone = load()
    batch = pictures(backbone)
    (file,) = cache.glob("*.xml")
    weights = file.with_suffix(".bin")
    data = np.frombuffer(weights.read_bytes(), np.uint8).copy()
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:100])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "gone":
        weights.unlink()
    else:
        weights.write_bytes((np.frombuffer(data.tobytes(), np.float32) * 2 + 1).tobytes())
    again = load()
    assert again.runtime == "openvino"
    assert np.abs(again.embed(batch) - backbone.embed_by_torch(batch)).max() < 1e-4
    assert np.array_equal(np.frombuffer(weights.read_bytes(), np.uint8), data)


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps rights in another way")
def test_a_cache_that_others_may_write_is_not_used(cache):
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    assert load().runtime == "openvino"
    assert list(cache.iterdir()) == []


def test_without_a_cache(cache):
    cache.parent.mkdir(parents=True)
    cache.write_text("a file")
    assert load().runtime == "openvino"


def test_a_module_that_cannot_be_converted_is_run_by_pytorch(monkeypatch, caplog):
    def refuse(*_):
        raise RuntimeError("no such operation")

    monkeypatch.setattr(runtimes, "_convert", refuse)
    assert load("auto").runtime == "torch"


def test_other_rows_are_not_taken(monkeypatch):
    monkeypatch.setattr(runtimes.OpenVinoRuntime, "__call__", lambda self, batch: np.ones((1, 16)))
    monkeypatch.setenv("SIMSEARCH_RUNTIME", "auto")
    assert load("auto").runtime == "torch"


def test_the_quicker_one_is_taken(monkeypatch):
    monkeypatch.delenv("SIMSEARCH_RUNTIME")
    for answer, name in ((True, "openvino"), (False, "torch")):
        monkeypatch.setattr(runtimes, "is_quicker", lambda *_, answer=answer: answer)
        assert load("auto").runtime == name
    monkeypatch.setenv("SIMSEARCH_RUNTIME", "torch")
    monkeypatch.setattr(runtimes, "is_quicker", lambda *_: True)
    assert load("auto").runtime == "torch"


def test_is_quicker_compares_times():
    backbone = load()
    runtime = backbone._runtime
    slow = runtimes.is_quicker(lambda batch: [runtime(batch) for _ in range(50)], backbone)
    assert not slow
    assert runtimes.is_quicker(lambda batch: None, backbone)


def test_unknown_runtimes_are_refused(monkeypatch):
    with pytest.raises(BackboneError, match="runtime='onnx'"):
        load("onnx")
    monkeypatch.setenv("SIMSEARCH_RUNTIME", "fast")
    with pytest.raises(BackboneError, match="runtime='fast'"):
        load("auto")


def test_openvino_that_is_missing_is_said(monkeypatch):
    monkeypatch.setattr(backbone_module, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"simsearch\[fast\]"):
        ss.load_backbone("efficientnet_lite0", device="cpu", runtime="openvino")
    assert load("auto").runtime == "torch"


def test_another_process_has_it_too():
    backbone = load()
    batch = pictures(backbone)
    again = pickle.loads(pickle.dumps(backbone))
    assert again.runtime == "openvino"
    assert np.allclose(again.embed(batch), backbone.embed(batch), atol=1e-5)


def test_threads_at_once_get_their_own_rows():
    backbone = load()
    batches = [pictures(backbone, 1 + seed % 3, seed) for seed in range(40)]
    expected = [backbone.embed_by_torch(batch) for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        for rows, other in zip(pool.map(backbone.embed, batches), expected, strict=True):
            assert np.abs(rows - other).max() < 1e-4


def test_datasets_of_both_runtimes_are_one_library(sample, tmp_path):
    """Rows mix: one half embedded by PyTorch, the other by OpenVINO."""
    import shutil

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


def test_pytorch_alone_never_loads_openvino():
    code = (
        "import sys, simsearch as ss; ss.load_backbone('efficientnet_lite0', device='cpu'); "
        "sys.exit('openvino' in sys.modules)"
    )
    env = os.environ | {"SIMSEARCH_RUNTIME": "torch"}
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == 0
