"""Networks on a GPU; elsewhere these tests are skipped."""

import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from networks import Tiny, embedded, own
from PIL import Image

import simsearch as ss
from simsearch.backbones.backbone import load_backbone
from simsearch.embedding import batching, decoding
from simsearch.errors import BackboneError
from simsearch.training.trainer import seeded_torch
from simsearch.web.batching import BatchedBackbone

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
GIGABYTE = 1 << 30


@pytest.fixture
def little_memory():
    """Leave this process a share of the device's memory, and return a setter of it."""
    torch.cuda.empty_cache()
    whole = torch.cuda.get_device_properties(0).total_memory

    def leave(size):
        torch.cuda.empty_cache()
        used = torch.cuda.memory_reserved()
        torch.cuda.set_per_process_memory_fraction(min(1.0, (used + size) / whole))

    yield leave
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


@pytest.fixture(scope="module")
def noise():
    """One hundred pictures, as a network takes them: (100, 224, 224, 3) uint8."""
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (100, 7, 7, 3), np.uint8)
    return np.stack([np.asarray(Image.fromarray(each).resize((224, 224))) for each in coarse])


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Twelve pictures of each of five kinds, in folders."""
    root, rng = tmp_path_factory.mktemp("labelled"), np.random.default_rng(4)
    for kind in "abcde":
        (root / kind).mkdir()
        basis = rng.integers(0, 200, (6, 6, 3))
        for i in range(12):
            coarse = (basis + rng.integers(0, 56, (6, 6, 3))).astype(np.uint8)
            Image.fromarray(coarse).resize((120, 90)).save(root / kind / f"{i}.png")
    return root


def cosines(one, other):
    return np.einsum("ij,ij->i", one, other)


@pytest.mark.parametrize(
    ("precision", "least"), [("float32", 0.99999), ("float16", 0.9999), ("bfloat16", 0.998)]
)
def test_rows_are_those_of_the_processor(saved, photos, precision, least):
    _, file = saved("resnet50")
    expected = embedded(load_backbone("resnet50", file, device="cpu", precision="float32"), photos)
    backbone = load_backbone("resnet50", file, device="cuda", precision=precision)
    rows = embedded(backbone, photos)
    assert rows.dtype == np.float32
    assert cosines(rows, expected).min() > least
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


def test_bundled_network_in_half_precision(bundled, photos):
    backbone = load_backbone("efficientnet_lite0")
    assert (backbone.device.type, backbone.precision) == ("cuda", "float16")
    assert cosines(embedded(backbone, photos), embedded(bundled, photos)).min() > 0.998
    assert backbone.fingerprint == bundled.fingerprint


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_rows_do_not_depend_on_the_batch(noise, precision):
    backbone = load_backbone("efficientnet_lite0", precision=precision)
    whole = backbone.embed(noise)
    single = np.concatenate([backbone.embed(noise[i : i + 1]) for i in range(len(noise))])
    assert cosines(whole, single).min() > (0.9999 if precision == "float16" else 0.999999)


def test_threads_take_turns(noise):
    backbone = load_backbone("efficientnet_lite0")
    parts = [noise[i : i + 10] for i in range(0, 100, 10)]
    with ThreadPoolExecutor(10) as pool:
        together = np.concatenate(list(pool.map(backbone.embed, parts * 5)))
    alone = np.concatenate([backbone.embed(part) for part in parts])
    assert np.array_equal(together, np.tile(alone, (5, 1)))


def test_feature_map(bundled, photos):
    batch = np.stack([bundled.prepare(image) for image in photos])
    found, expected = (x.feature_map(batch) for x in (load_backbone("efficientnet_lite0"), bundled))
    flat = [x.reshape(-1, x.shape[-1]) for x in (found, expected)]
    scaled = [x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-6) for x in flat]
    assert np.median(cosines(*scaled)) > 0.99


def test_short_memory_means_smaller_batches(noise, little_memory, caplog):
    backbone = load_backbone("efficientnet_lite0", precision="float32")
    expected = backbone.embed(noise)
    little_memory(GIGABYTE // 8)
    found = backbone.embed(noise)
    assert cosines(found, expected).min() > 0.99999
    assert "100 pictures pass through the network in halves" in caplog.text


def test_no_memory_for_a_single_picture(noise, little_memory):
    backbone = load_backbone("efficientnet_lite0", precision="float32")
    backbone.embed(noise[:1])
    little_memory(0)
    held = []
    while fits():
        held.append(torch.empty(1 << 20, dtype=torch.uint8, device="cuda"))
    with pytest.raises(BackboneError, match="device='cuda' has no memory left for one picture"):
        backbone.embed(noise[:1])
    held.clear()
    torch.cuda.set_per_process_memory_fraction(1.0)
    assert backbone.embed(noise[:2]).shape == (2, 1280)  # it works again


def fits():
    try:
        torch.empty(1 << 20, dtype=torch.uint8, device="cuda")
    except torch.OutOfMemoryError:
        return False
    return True


def test_a_library_serves_both_devices(labelled, tmp_path):
    library = ss.embed_dataset(labelled, tmp_path / "gpu", "efficientnet_lite0", progress=False)
    assert library.backbone.device.type == "cuda"
    other = ss.embed_dataset(
        labelled, tmp_path / "cpu", "efficientnet_lite0", device="cpu", progress=False
    )
    assert cosines(library.embeddings, other.embeddings).min() > 0.998
    path = str(library.paths[0])
    found = ss.search(library, path, k=5)
    assert [match.path for match in found][:1] == [match.path for match in ss.search(other, path)][
        :1
    ]
    again = ss.embed_dataset(labelled, tmp_path / "gpu", device="cpu", progress=False)
    assert again.run["embedded"] == 0


def test_a_network_goes_to_a_process_without_a_device(tmp_path, noise):
    backbone = load_backbone("efficientnet_lite0", precision="float32")
    file, rows = tmp_path / "backbone.pickle", tmp_path / "rows.npy"
    file.write_bytes(pickle.dumps(backbone))
    np.save(tmp_path / "noise.npy", noise[:4])
    code = (
        "import pickle, sys, numpy as np\n"
        "backbone = pickle.load(open(sys.argv[1], 'rb'))\n"
        "np.save(sys.argv[3], backbone.embed(np.load(sys.argv[2])))\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(file), str(tmp_path / "noise.npy"), str(rows)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        check=True,
    )
    assert cosines(np.load(rows), backbone.embed(noise[:4])).min() > 0.99999


def test_a_network_moves():
    backbone = own(Tiny(64), device="cpu", precision="float32")
    image = Image.effect_noise((40, 40), 90).convert("RGB")
    before = embedded(backbone, [image])
    backbone.move("cuda")
    assert {weight.device.type for weight in backbone.module.parameters()} == {"cuda"}
    assert np.allclose(embedded(backbone, [image]), before, atol=1e-3)


def test_seeds_of_the_device_come_back():
    torch.cuda.manual_seed(5)
    expected = torch.rand(3, device="cuda")
    torch.cuda.manual_seed(5)
    with seeded_torch(9, [torch.device("cuda", 0)]):
        inside = torch.rand(3, device="cuda")
    assert torch.equal(torch.rand(3, device="cuda"), expected)
    assert not torch.equal(inside, expected)


def test_requests_share_batches(noise):
    backbone = load_backbone("efficientnet_lite0")
    batched = BatchedBackbone(backbone, 64)
    try:
        with ThreadPoolExecutor(16) as pool:
            found = np.concatenate(list(pool.map(batched.embed, noise[:, None])))
    finally:
        batched.close()
    assert cosines(found, backbone.embed(noise)).min() > 0.9999


@pytest.mark.parametrize("finetune", [False, True])
def test_training(labelled, tmp_path, finetune):
    library = ss.embed_dataset(labelled, tmp_path / "outputs", "efficientnet_lite0", progress=False)
    trained = [
        ss.train_head(library, epochs=2, seed=3, finetune=finetune, progress=False)
        for _ in range(2)
    ]
    rows = [each.head(library.embeddings) for each in trained]
    assert np.isfinite(rows[0]).all()
    if finetune:  # sums of gradients on a device are in no fixed order
        assert cosines(*rows).min() > 0.99
    else:
        assert np.array_equal(*rows)


def test_processes_decode_many_files(labelled, tmp_path, monkeypatch):
    backbone = load_backbone("efficientnet_lite0")
    files = sorted(map(str, labelled.rglob("*.png")))
    expected = ss.embed_images(files, backbone)
    monkeypatch.setattr(decoding, "MIN_SOURCES", 10)
    monkeypatch.setattr(batching, "OPTIMISED_SOURCES", 10)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    files[7] = str(broken)
    found, failures = np.zeros_like(expected), []
    for batch in batching.embed_batches(files, backbone, 16, 3):
        found[batch.positions] = batch.embeddings
        failures += batch.failures
    assert [position for position, _ in failures] == [7]
    kept = np.arange(len(files)) != 7
    assert cosines(found[kept], expected[kept]).min() > 0.9999
