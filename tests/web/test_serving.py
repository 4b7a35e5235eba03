"""Batching of requests, and reloading of a library that changes while it is served."""

import io
import json
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from api_cases import BACKBONE, assert_same_matches, post_query
from fastapi.testclient import TestClient
from PIL import Image
from web_server import wait_until

import simsearch as ss
from simsearch.backbones.backbone import load_backbone
from simsearch.library.user_key import signed
from simsearch.web import schemas
from simsearch.web.app import create_app
from simsearch.web.batching import BatchedBackbone, fastest_batch_size
from simsearch.web.settings import Settings


def test_concurrent_uploads_get_their_own_results(client, library, sample):
    photos = [file.read_bytes() for file in sorted((sample / "seg_pred").iterdir())[-12:]]
    with ThreadPoolExecutor(12) as pool:
        found = list(
            pool.map(lambda data: post_query(client, files=[("image", data)], k=3), photos)
        )
    for (answer,), data in zip(found, photos, strict=True):
        assert_same_matches(answer, ss.search(library, data, k=3), library)


class GatedBackbone:
    """Records the sizes of its batches, and waits for an event before each."""

    def __init__(self, backbone):
        self.backbone, self.sizes, self.go = backbone, [], threading.Event()

    def embed(self, batch):
        assert self.go.wait(10)
        self.sizes.append(len(batch))
        return self.backbone.embed(batch)


def test_batch_holds_what_arrived_during_the_last_one():
    backbone = load_backbone(BACKBONE)
    batched = BatchedBackbone(backbone, 4)
    slow = batched.original = GatedBackbone(backbone)
    rng = np.random.default_rng(0)
    inputs = [np.stack([backbone.probe()[0]] * n) for n in (1, 2, 1, 1, 3, 1)]
    inputs = [rng.integers(0, 256, each.shape, np.uint8) for each in inputs]
    with ThreadPoolExecutor(6) as pool:
        waiting = [pool.submit(batched.embed, inputs[0])]
        while not batched._jobs.empty():  # the first is under way
            time.sleep(0.001)
        waiting += [pool.submit(batched.embed, each) for each in inputs[1:]]
        while batched._jobs.qsize() < 5:
            time.sleep(0.001)
        slow.go.set()
        found = [each.result() for each in waiting]
    assert sum(slow.sizes) == 9
    assert len(slow.sizes) < 6
    assert max(slow.sizes) <= 4 + 2  # a job is never split
    for embeddings, images in zip(found, inputs, strict=True):
        np.testing.assert_allclose(embeddings, backbone.embed(images), atol=1e-5)
    batched.close()
    assert not batched._thread.is_alive()
    np.testing.assert_array_equal(batched.embed(inputs[1]), backbone.embed(inputs[1]))


@pytest.mark.parametrize("best", [1, 2, 4, 8])
def test_fastest_batch_size_is_measured(best):
    class TimedBackbone:
        device = torch.device("cpu")

        def probe(self):
            return np.zeros((1, 4), np.uint8)

        def embed(self, batch):
            time.sleep(len(batch) * (0.002 if len(batch) == best else 0.01))

    assert fastest_batch_size(TimedBackbone()) == best


def test_failed_batch_is_retried_one_by_one():
    backbone = load_backbone(BACKBONE)

    class Small:
        def embed(self, batch):
            if len(batch) > 1:
                raise MemoryError("too many at once")
            if not batch.any():
                raise RuntimeError("a bad one")
            return backbone.embed(batch)

    batched = BatchedBackbone(backbone, 8)
    gate = batched.original = GatedBackbone(Small())
    good = backbone.probe()
    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(batched.embed, each) for each in (good, good, good * 0, good)]
        gate.go.set()
        with pytest.raises(RuntimeError, match="a bad one"):
            found.pop(2).result()
        for each in found:
            np.testing.assert_allclose(each.result(), backbone.embed(good), atol=1e-5)
    batched.close()


def test_images_of_different_shapes_are_embedded_apart():
    from torchvision.transforms.functional import pil_to_tensor

    module = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten())
    backbone = load_backbone(module, transform=lambda image: pil_to_tensor(image).float() / 255)
    batched = BatchedBackbone(backbone, 8)
    images = [np.random.default_rng(n).random((1, 3, 8 + n, 9), np.float32) for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(batched.embed, images))
    for embeddings, image in zip(found, images, strict=True):
        np.testing.assert_allclose(embeddings, backbone.embed(image), atol=1e-6)
    batched.close()


@pytest.fixture
def own(dataset, tmp_path):
    """Folder with a dataset and a library of this test's own."""
    shutil.copytree(dataset / "seg_pred", tmp_path / "dataset/seg_pred")
    ss.embed_dataset(tmp_path / "dataset", tmp_path / "outputs", BACKBONE, progress=False)
    return tmp_path


def test_changed_library_is_reloaded(own):
    app = create_app(Settings(str(own / "outputs")))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        before = client.get("/api/health").json()
        removed = sorted((own / "dataset/seg_pred").iterdir())[0]
        removed.unlink()
        ss.embed_dataset(own / "dataset", own / "outputs", BACKBONE, progress=False)
        deadline = time.monotonic() + 20
        while (now := client.get("/api/health").json()) == before:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert now["images"] == before["images"] - 1
        assert client.get("/api/images/0?v=" + before["version"]).status_code == 409
        listed = client.get("/api/images").json()["images"]
        assert f"seg_pred/{removed.name}" not in [image["path"] for image in listed]
        assert "simsearch_library_reloads_total 1.0" in client.get("/metrics").text
        assert f"simsearch_library_images {float(now['images'])}" in client.get("/metrics").text


def test_each_answer_belongs_to_one_library_version(own):
    """Rows and paths of an answer belong to the version that it states."""
    app = create_app(Settings(str(own / "outputs")))
    files = sorted((own / "dataset/seg_pred").iterdir())
    versions, stop = {}, threading.Event()

    def ask(client):
        while not stop.is_set():
            page = client.get("/api/images", params={"limit": 500}).json()
            rows = tuple((image["row"], image["path"]) for image in page["images"])
            assert versions.setdefault(page["version"], rows) == rows
            response = client.post("/api/search", data={"row": 0, "k": 200})
            answer = response.json()
            found = {(m["row"], m["path"]) for m in answer["answers"][0]["matches"]}
            expected = versions.get(answer["version"])
            assert expected is None or found == set(expected[1:])

    with TestClient(app, base_url="http://127.0.0.1") as client, ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask, client) for _ in range(2)]
        try:
            for seen, file in enumerate(files[:3], start=1):
                wait_until(lambda: len(versions) >= seen)  # noqa: B023 (waited for at once)
                file.unlink()
                ss.embed_dataset(own / "dataset", own / "outputs", BACKBONE, progress=False)
                app.state.service.manager.refresh()
        finally:
            stop.set()
        for each in asking:
            each.result()
    assert len(versions) >= 3


def test_last_library_is_served_while_the_new_one_is_damaged(own, caplog):
    app = create_app(Settings(str(own / "outputs")))
    manager = app.state.service.manager
    before = manager.state
    manifest = own / "outputs/manifest.json"
    text = manifest.read_text()
    manifest.write_text(text[: len(text) // 2])
    assert not manager.refresh()
    assert manager.state is before
    assert "still serving the last library" in caplog.text
    manifest.write_text(text)
    assert manager.refresh()
    assert manager.state.version == before.version
    manager.close()


def test_changed_table_is_reloaded(own):
    table = own / "table.csv"
    table.write_text("path,price\nseg_pred/copy.jpg,10\n")
    app = create_app(Settings(str(own / "outputs"), metadata=str(table)))
    manager = app.state.service.manager
    row = manager.state.library.find(own / "dataset/seg_pred/copy.jpg")
    assert manager.state.library.facts(row) == {"price": "10"}
    table.write_text("path,price\nseg_pred/copy.jpg,2000\n")
    assert manager.refresh()
    assert manager.state.library.facts(row) == {"price": "2000"}
    manager.close()


def test_server_says_what_of_a_table_met_nothing(own, caplog):
    (own / "table.csv").write_text("path;price\nseg_pred/copy.jpg;1,5\ngone.jpg;n/a\n")
    table = str(own / "table.csv")
    app = create_app(Settings(str(own / "outputs"), metadata=table, missing=["n/a"], decimal=","))
    assert "table.csv: 1 of 10 pictures have a line; 1 line without a picture: gone" in caplog.text
    with TestClient(app, base_url="http://127.0.0.1") as client:
        price = {"price": {"min": 1.2, "max": "1,7"}}
        listed = client.get("/api/images", params={"where": json.dumps(price)}).json()
        assert [image["path"] for image in listed["images"]] == ["seg_pred/copy.jpg"]
        refused = client.get("/api/images", params={"where": '{"price": "cheap"}'})
        assert refused.status_code == 422
        assert "'price' holds numbers, and 'cheap' is none" in refused.json()["detail"]


def test_reload_error_is_logged_once_and_watching_goes_on(own, caplog, monkeypatch):
    app = create_app(Settings(str(own / "outputs")))
    manager = app.state.service.manager
    before, state_key = manager.state, manager._source.state_key

    def broken():
        raise OSError("the disk has gone")

    monkeypatch.setattr(manager._source, "state_key", broken)
    assert not any(manager.refresh() for _ in range(5))
    assert caplog.text.count("the disk has gone") == 1
    assert manager.state is before
    monkeypatch.setattr(manager._source, "state_key", state_key)
    next((own / "dataset/seg_pred").iterdir()).unlink()
    ss.embed_dataset(own / "dataset", own / "outputs", BACKBONE, progress=False)
    assert manager.refresh()
    assert len(manager.state.library) == len(before.library) - 1
    manager.close()


def test_index_is_used_and_follows_the_library(own, caplog):
    pytest.importorskip("faiss")
    ss.build_index(ss.ImageLibrary.load(own / "outputs"), "sq", progress=False)
    app = create_app(Settings(str(own / "outputs"), index=True))
    manager = app.state.service.manager
    with TestClient(app, base_url="http://127.0.0.1") as client:
        assert client.get("/api/library").json()["index"] == "sq"
        assert not post_query(client, row=0)[0]["exact"]
        next((own / "dataset/seg_pred").iterdir()).unlink()
        library = ss.embed_dataset(own / "dataset", own / "outputs", BACKBONE, progress=False)
        manager.refresh()
        assert client.get("/api/library").json()["index"] == "sq"
        assert manager.state.index.report.rows == len(library)
        assert not post_query(client, row=0)[0]["exact"]
        ss.ImageLibrary(library.embeddings[:2], library.paths[:2]).save(
            own / "outputs", overwrite=True
        )
        manager.refresh()
        assert client.get("/api/library").json()["index"] is None
        assert post_query(client, row=0)[0]["exact"]
        assert "searching without an index" in caplog.text


def test_published_library_is_served(own, table):
    """From Milvus, like from a folder, and reloaded when it changes."""
    pytest.importorskip("milvus_lite")
    library = ss.ImageLibrary.load(own / "outputs").attach(table)
    ss.publish(library, own / "images.db", "shop", progress=False)
    settings = Settings(f"{own}/images.db#shop", cache=str(own / "cache"))
    app = create_app(settings)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        described = client.get("/api/library").json()
        schemas.Library.model_validate(described)
        assert (described["images"], described["index"]) == (len(library), "milvus")
        assert {each["name"] for each in described["columns"]} == set(library.metadata.columns)
        listed = client.get("/api/images", params={"limit": 500}).json()["images"]
        assert [image["path"] for image in listed] == library.names
        rows = {image["path"]: image["row"] for image in listed}
        for fields in ({}, {"where": '{"tags": "red"}'}, {"box": "0,0,0.5,1"}):
            (answer,) = post_query(client, row=rows["seg_pred/copy.jpg"], k=4, **fields)
            options = {"where": {"tags": "red"}} if "where" in fields else {}
            options |= {"box": (0, 0, 0.5, 1)} if "box" in fields else {}
            found = ss.search(library, library.names.index("seg_pred/copy.jpg"), k=4, **options)
            assert [m["path"] for m in answer["matches"]] == [library.names[m.row] for m in found]
            scores = [match["score"] for match in answer["matches"]]
            np.testing.assert_allclose(scores, found.scores, atol=1e-3)
        assert Image.open(io.BytesIO(client.get(listed[0]["thumbnail"]).content)).format == "JPEG"
        assert list((own / "cache").rglob("*.jpg"))
        (own / "dataset/seg_pred/copy.jpg").unlink()
        smaller = ss.embed_dataset(own / "dataset", own / "outputs", BACKBONE, progress=False)
        ss.publish(smaller, own / "images.db", "shop", progress=False)
        app.state.service.manager.refresh()  # unless its own watch was quicker
        assert client.get("/api/health").json()["images"] == len(library) - 1
        assert client.get(listed[0]["thumbnail"]).status_code == 409
    with pytest.raises(ss.QueryError, match="has them already"):
        create_app(Settings(settings.outputs, metadata=str(table)))
    with pytest.raises(ss.RemoteError, match="there is no file"):
        create_app(Settings(f"{own}/none.db#shop"))


def test_library_without_backbone_still_searches_by_row(own, caplog):
    manifest = own / "outputs/manifest.json"
    content = json.loads(manifest.read_text())
    content["source"]["weights"] = "own"
    manifest.write_text(json.dumps(signed(content, manifest.name)))
    app = create_app(Settings(str(own / "outputs")))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        assert len(post_query(client, row=0, k=3)[0]["matches"]) == 3
        image = (sorted((own / "dataset/seg_pred").iterdir())[0]).read_bytes()
        response = client.post("/api/search", files={"image": image})
        assert response.status_code == 501
        assert "module of your own" in response.json()["detail"]
    assert "new images cannot be searched with" in caplog.text
