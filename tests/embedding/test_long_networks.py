"""Long pictures by windows along them, whatever embeds: int8, fine-tuning, own engines, servers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import simsearch as ss
from simsearch import files
from simsearch.backbones import runtime_cache
from simsearch.backbones.backbone import Backbone, with_windows
from simsearch.backbones.preprocessing import Preprocessing
from simsearch.backbones.spec import OWN_WEIGHTS, ModelSpec
from simsearch.embedding.batching import Batch
from simsearch.training import head, trainable
from simsearch.web.batching import BatchedBackbone
from simsearch.web.decoder_pool import DecoderPool

INPUT = Preprocessing(36, 32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
LONG = "dataset/long.png"


@pytest.fixture(autouse=True)
def dataset(tmp_path, monkeypatch):
    """Twelve pictures of coloured squares, and a long one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(files.sys, "platform", "linux")
    runtime_cache.cached_backbone.cache_clear()
    for number in range(12):
        paint(f"dataset/{'ab'[number % 2]}/{number:03d}.png", number, (60, 50))
    paint(LONG, 20, (300, 60))


def paint(file, seed, size):
    """Write a picture of coloured squares, the more red the even the seed is."""
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    columns = 6 * size[0] // size[1]
    squares = np.random.default_rng(seed).integers(0, 256, (6, columns, 3), np.uint8)
    squares[..., seed % 2] //= 2
    Image.fromarray(squares).resize(size, 0).save(file)


def two_stages():
    torch.manual_seed(0)
    module = torch.nn.Sequential()
    module.stem = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3, 2), torch.nn.ReLU())
    module.last = torch.nn.Sequential(torch.nn.Conv2d(16, 32, 3, 2))
    return module


def load(module=None):
    """Load a network with preprocessing of its own, as those that are known by name have it."""
    spec = ModelSpec("Sequential", OWN_WEIGHTS, module or two_stages(), INPUT, "avg")
    return Backbone(spec, "cpu", "float32", "torch")


def embed(outputs="outputs", backbone=None, **options):
    return ss.embed_dataset("dataset", outputs, backbone or load(), progress=False, **options)


def long_row(library):
    return np.asarray(library.embeddings[library.find(LONG)])


def other_rows(library):
    rows = [row for row in range(len(library)) if row != library.find(LONG)]
    return np.asarray(library.embeddings[rows])


def test_int8_embeds_long_pictures_by_windows():
    pytest.importorskip("nncf", reason='needs: pip install "simsearch[int8]"')
    exact = embed("exact")
    plain = embed("plain", precision="int8", long="centre")
    library = embed(precision="int8")
    assert library.source.fingerprint == f"{plain.source.fingerprint}-windows"
    np.testing.assert_array_equal(other_rows(library), other_rows(plain))
    assert 0.99 < long_row(library) @ long_row(exact) < 1 - 1e-7
    assert long_row(library) @ long_row(plain) < 0.99
    opened = ss.ImageLibrary.load("outputs", backbone=load())
    np.testing.assert_allclose(opened.encode([LONG])[0], long_row(library), atol=1e-5)
    paint("dataset/new.png", 30, (50, 240))
    grown = embed(backbone=load())
    assert (grown.run["embedded"], grown.fingerprint) == (1, library.fingerprint)


def test_a_fine_tuned_library_keeps_its_way(monkeypatch):
    monkeypatch.setattr(head, "EPOCHS", 1)
    monkeypatch.setattr(trainable, "bfloat16_is_fast", lambda: False)
    for long in ("windows", "centre"):
        library = embed(long, long=long)
        trained = ss.train_head(
            library, finetune=True, epochs=1, dim=8, hidden=16, validation=0, progress=False
        )
        made = trained.apply(library, f"tuned-{long}", progress=False)
        tuned = load(trained.tuned.module)
        assert made.source.fingerprint == tuned.fingerprint + "-windows" * (long == "windows")
        expected = made.head(with_windows(tuned, windows=long == "windows").encode([LONG]))
        np.testing.assert_allclose(long_row(made), expected[0], atol=1e-4)
        assert (
            long_row(made)
            @ made.head(with_windows(tuned, windows=long != "windows").encode([LONG]))[0]
            < 1 - 1e-6
        )


def test_a_network_in_the_cache_is_found_by_a_library_by_windows(monkeypatch):
    """As a query from the shell finds it, without PyTorch."""
    pytest.importorskip("openvino", reason='needs: pip install "simsearch[fast]"')
    monkeypatch.setenv("SIMSEARCH_RUNTIME", "openvino")
    library = embed(backbone="efficientnet_lite0", device="cpu", precision="float32")
    plain = library.source.fingerprint.removesuffix("-windows")
    assert plain != library.source.fingerprint
    found = runtime_cache.cached_backbone("efficientnet_lite0", plain, "float32")
    assert found
    opened = ss.ImageLibrary.load("outputs")
    np.testing.assert_allclose(opened.encode([LONG])[0], long_row(library), atol=1e-5)
    assert opened.has_backbone
    assert opened._backbone is None  # what was not loaded


def test_an_engine_that_embeds_one_by_one_gives_the_same_rows():
    def one_by_one(sources, backbone, batch_size, workers):
        for position, source in enumerate(sources):
            prepared = backbone.prepare(ss.load_image(source, backbone.min_side))
            yield Batch([position], backbone.embed(prepared[None]), [])

    library, made = embed(), embed("one", engine=one_by_one)
    np.testing.assert_allclose(made.embeddings, library.embeddings, atol=1e-5)


def test_a_server_embeds_long_queries_as_the_rows():
    library = embed()
    batched = BatchedBackbone(library.backbone, 4)
    pool = DecoderPool(2, 2**28)
    try:
        served = library.with_backbone(batched)
        with pool.in_use():
            rows = served.encode([LONG, Path(LONG).read_bytes()])
        np.testing.assert_allclose(rows, [long_row(library)] * 2, atol=1e-5)
        assert served.backbone is batched
    finally:
        batched.close()
        pool.close()
