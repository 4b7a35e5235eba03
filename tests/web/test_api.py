"""The server's answers are the library's; it batches, keeps pictures, and follows the library.

Who gets in is tested in test_web_guard.py, the page in test_page.py.
"""

import io
import json
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image

import simsearch as ss
from simsearch.backbones.backbone import load_backbone
from simsearch.web import schemas
from simsearch.web.app import create_app
from simsearch.web.batching import BatchedBackbone, fastest_batch_size
from simsearch.web.settings import Settings
from simsearch.web.thumbnails import Thumbnails

BACKBONE = "efficientnet_lite0"
FOLDERS = ("seg_train/coffee", "seg_train/cat", "seg_test/coffee", "seg_test/cat", "seg_pred")


@pytest.fixture(scope="module")
def dataset(sample, tmp_path_factory):
    """Some folders of the sample, a copy of one picture, and one that browsers do not show."""
    folder = tmp_path_factory.mktemp("web") / "dataset"
    for name in FOLDERS:
        (folder / name).mkdir(parents=True)
        for file in sorted((sample / name).iterdir())[:8]:
            shutil.copy(file, folder / name)
    first = sorted((folder / "seg_pred").iterdir())[0]
    shutil.copy(first, folder / "seg_pred/copy.jpg")
    Image.open(first).save(folder / "seg_pred/scan.tiff")
    return folder


@pytest.fixture(scope="module")
def outputs(dataset):
    folder = dataset.parent / "outputs"
    ss.embed_dataset(dataset, folder, BACKBONE, progress=False)
    return folder


@pytest.fixture(scope="module")
def table(dataset):
    names = [file.relative_to(dataset).as_posix() for file in sorted(dataset.rglob("*.jpg"))]
    rows = {
        "path": names,
        "title": [f"picture {i}" for i in range(len(names))],
        "price": [float(i) if i % 3 else None for i in range(len(names))],
        "tags": ["red; blue" if i % 2 else "green" for i in range(len(names))],
        "day": pd.date_range("2026-01-01", periods=len(names)),
    }
    file = dataset.parent / "metadata.csv"
    pd.DataFrame(rows).to_csv(file, index=False)
    return file


@pytest.fixture(scope="module")
def library(outputs, table):
    return ss.ImageLibrary.load(outputs).attach(table)


@pytest.fixture(scope="module")
def client(outputs, table):
    app = create_app(Settings(str(outputs), metadata=str(table)))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield client


@pytest.fixture(scope="module")
def photo(sample):
    """A picture that the library does not hold."""
    return (sorted((sample / "seg_pred").iterdir())[-1]).read_bytes()


def asked(client, path="/api/search", files=(), **fields):
    response = client.post(path, data=fields, files=[*files] or None)
    assert response.status_code == 200, response.text
    answers = response.json()
    schemas.Answers.model_validate(answers)
    return answers["answers"]


def check_same(answer, matches, library):
    """An answer is what the library finds, whatever else it says."""
    assert [match["row"] for match in answer["matches"]] == [match.row for match in matches]
    scores = [match["score"] for match in answer["matches"]]
    np.testing.assert_allclose(scores, matches.scores, atol=1e-6)
    for told, match in zip(answer["matches"], matches, strict=True):
        assert told["path"] == library.names[match.row]
        assert told["caption"] == match.caption
        assert told["rank"] == match.rank
        assert told["percentile"] == pytest.approx(match.percentile, abs=0.2)  # a pair or two
        assert [each["path"] for each in told["duplicates"]] == [
            library.names[library.find(path)] for path in match.duplicates
        ]
    assert answer["exact"] == matches.exact


# Options, as a form has them and as `search` takes them.
OPTIONS = [
    ({}, {}),
    ({"k": 3}, {"k": 3}),
    ({"threshold": "auto"}, {"threshold": "auto"}),
    ({"threshold": "0.5", "k": 40}, {"threshold": 0.5, "k": 40}),
    (
        {"threshold": "auto", "false_match_rate": 0.1},
        {"threshold": "auto", "false_match_rate": 0.1},
    ),
    ({"where": '"seg_train/*"'}, {"where": "seg_train/*"}),
    ({"where": '{"price": {"max": 9}}', "k": 40}, {"where": {"price": (None, 9)}, "k": 40}),
    ({"where": '{"price": {"min": 3, "max": 9}}'}, {"where": {"price": (3, 9)}}),
    ({"where": '{"tags": ["blue", "grey"]}'}, {"where": {"tags": ["blue", "grey"]}}),
    (
        {"where": '{"folder": "seg_pred", "tags": "green"}'},
        {"where": {"folder": "seg_pred", "tags": "green"}},
    ),
    ({"box": "0,0,0.5,1"}, {"box": (0, 0, 0.5, 1)}),
    ({"box": "3,4,90,80"}, {"box": (3, 4, 90, 80)}),
    ({"diversity": 0.5}, {"diversity": 0.5}),
    ({"unique": "true", "k": 40}, {"unique": True, "k": 40}),
    ({"unique": "0.8", "k": 40}, {"unique": 0.8, "k": 40}),
    ({"exclude_query": "false"}, {"exclude_query": False}),
]


@pytest.mark.parametrize(("fields", "options"), OPTIONS)
def test_a_row_finds_what_the_library_finds(client, library, fields, options):
    row = library.names.index("seg_pred/copy.jpg")
    (answer,) = asked(client, row=row, **fields)
    check_same(answer, ss.search(library, row, **options), library)
    assert answer["query"] == "seg_pred/copy.jpg" + (
        "" if "box" not in fields else ", box " + " ".join(fields["box"].split(","))
    )


@pytest.mark.parametrize(("fields", "options"), OPTIONS)
def test_an_upload_finds_what_the_library_finds(client, library, photo, fields, options):
    (answer,) = asked(client, files=[("image", ("photo.jpg", photo))], **fields)
    check_same(answer, ss.search(library, photo, **options), library)


def test_several_queries_are_answered_one_by_one(client, library, photo):
    files = [("image", ("photo.jpg", photo))]
    answers = asked(client, files=files, row=[3, 7], k=4)
    expected = ss.search(library, [3, 7, photo], k=4)
    for answer, matches in zip(answers, expected, strict=True):
        check_same(answer, matches, library)


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({"combine": "mean"}, {"combine": "mean"}),
        ({"combine": "max"}, {"combine": "max"}),
        ({"combine": "mean", "weights": "1,-0.5,2"}, {"combine": "mean", "weights": [1, -0.5, 2]}),
    ],
)
def test_several_queries_make_one_taste(client, library, photo, fields, options):
    files = [("image", ("photo.jpg", photo))]
    (answer,) = asked(client, files=files, row=[3, 7], **fields)
    check_same(answer, ss.search(library, [3, 7, photo], **options), library)


def test_regions_answer_each_for_itself(client, library):
    answers = asked(client, row=5, regions="true", k=2)
    for answer, matches in zip(answers, ss.search(library, 5, regions=True, k=2), strict=True):
        check_same(answer, matches, library)
        assert answer["box"] == list(matches.box)


def test_a_recommendation_is_the_librarys(client, library, photo):
    files = [("liked_image", ("photo.jpg", photo)), ("disliked_image", ("photo.jpg", photo[::1]))]
    fields = {"liked": [3, 9], "disliked": [20], "exclude": [4, 5], "k": 7}
    (answer,) = asked(client, "/api/recommend", **fields)
    expected = ss.recommend(library, [3, 9], [20], k=7, exclude=[4, 5])
    check_same(answer, expected, library)
    (answer,) = asked(client, "/api/recommend", files[:1], dislike=0.4, unique="true", **fields)
    expected = ss.recommend(
        library, [3, 9, photo], [20], k=7, exclude=[4, 5], dislike=0.4, unique=True
    )
    check_same(answer, expected, library)
    (answer,) = asked(client, "/api/recommend", files[1:], **fields)
    check_same(answer, ss.recommend(library, [3, 9], [20, photo], 7, [4, 5]), library)


@pytest.mark.parametrize(
    ("path", "fields", "words"),
    [
        ("search", {}, "no query"),
        ("search", {"row": 9999}, "row 9999"),
        ("search", {"row": "../../etc/passwd"}, "row"),
        ("search", {"row": 1, "k": 0}, "k=0"),
        ("search", {"row": 1, "k": 201}, "200"),
        ("search", {"row": 1, "colour": "red"}, "colour"),
        ("search", {"row": 1, "threshold": 2}, "threshold=2"),
        ("search", {"row": 1, "box": "1,2"}, "box"),
        ("search", {"row": 1, "box": "left"}, "box='left'"),
        ("search", {"row": 1, "where": "sea"}, "JSON"),
        ("search", {"row": 1, "where": "[1]"}, "glob"),
        ("search", {"row": 1, "where": '{"size": 3}'}, "size"),
        ("search", {"row": 1, "where": '{"price": {"over": 3}}'}, "price"),
        ("search", {"row": 1, "where": '{"price": [null]}'}, "price"),
        ("search", {"row": 1, "url": "http://example.org/a.jpg"}, "fetches no addresses"),
        ("search", {"row": list(range(33))}, "33 queries"),
        ("recommend", {}, "nothing is liked"),
        ("recommend", {"liked": 3, "disliked": 3, "dislike": 1}, "cancel"),
        ("explain", {"row": 1}, "match"),
        ("explain", {"row": [1, 2], "match": 3}, "one"),
        ("explain", {"row": [1, 2], "match": 3, "combine": "max"}, "one"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_says_why(client, path, fields, words):
    response = client.post(f"/api/{path}", data=fields)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == 422
    assert words in problem["detail"]


def test_the_library_is_described(client, library):
    told = client.get("/api/library").json()
    schemas.Library.model_validate(told)
    assert told["images"] == len(library)
    assert told["backbone"] == BACKBONE
    assert {each["name"]: each["images"] for each in told["folders"]} == {
        name: int((library.folders == name).sum()) for name in set(library.folders.tolist())
    }
    columns = {each["name"]: each for each in told["columns"]}
    prices = library.metadata["price"].dropna()
    assert (columns["price"]["min"], columns["price"]["max"]) == (prices.min(), prices.max())
    assert columns["tags"]["kind"] == "text"
    assert told["auto_threshold"] == library.threshold()


def test_images_are_listed_page_by_page(client, library):
    pages = [client.get("/api/images", params={"offset": i, "limit": 9}).json() for i in (0, 9, 36)]
    for page in pages:
        schemas.Page.model_validate(page)
        assert page["total"] == len(library)
    told = [image["path"] for page in pages for image in page["images"]]
    assert told == [*library.names[:18], *library.names[36:45]]
    some = client.get("/api/images", params={"where": '{"tags": "red"}', "limit": 500}).json()
    expected = np.flatnonzero(library.where({"tags": "red"}))
    assert [image["row"] for image in some["images"]] == expected.tolist()
    assert some["images"][0]["metadata"] == library.facts(int(expected[0]))
    assert client.get("/api/images", params={"offset": 10**6}).json()["images"] == []


# Pictures


def test_an_original_is_sent_as_it_is(client, dataset, library):
    row = library.names.index("seg_pred/copy.jpg")
    response = client.get(f"/api/images/{row}")
    assert response.content == (dataset / "seg_pred/copy.jpg").read_bytes()
    assert response.headers["content-type"] == "image/jpeg"


def test_a_format_that_browsers_do_not_show_is_sent_as_jpeg(client, dataset, library):
    row = library.names.index("seg_pred/scan.tiff")
    response = client.get(f"/api/images/{row}")
    assert response.headers["content-type"] == "image/jpeg"
    sent = np.asarray(Image.open(io.BytesIO(response.content)), float)
    kept = np.asarray(ss.load_image(dataset / "seg_pred/scan.tiff"), float)
    assert np.abs(sent - kept).mean() < 4


@pytest.mark.parametrize("size", [128, 256, 512])
def test_a_thumbnail_keeps_its_shape(client, library, size):
    image = ss.load_image(library.paths[3])
    thumbnail = Image.open(io.BytesIO(client.get(f"/api/images/3/thumbnail?size={size}").content))
    assert max(thumbnail.size) == min(size, max(image.size))
    assert thumbnail.width / thumbnail.height == pytest.approx(image.width / image.height, 0.02)


def test_the_browser_keeps_what_it_has(client):
    for path in ("/api/images/3", "/api/images/3/thumbnail"):
        first = client.get(path)
        again = client.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert client.get(path, headers={"If-None-Match": '"else"'}).status_code == 200
    version = client.get("/api/health").json()["version"]
    assert "immutable" in client.get(f"/api/images/3?v={version}").headers["cache-control"]
    assert client.get("/api/images/3").headers["cache-control"] == "no-cache"


def test_no_row_and_no_version_are_problems(client):
    for path in ("/api/images/9999", "/api/images/-1/thumbnail", "/api/images/9999/facts"):
        assert client.get(path).status_code == 404
    assert client.get("/api/images/3?v=0000").status_code == 409
    assert client.post("/api/search", data={"row": 3, "version": "0000"}).status_code == 409
    assert client.get("/api/images/3/thumbnail?size=100").status_code == 422


def test_thumbnails_are_cached_until_the_image_changes(tmp_path):
    file = tmp_path / "a.jpg"
    Image.new("RGB", (900, 300), "red").save(file)
    thumbnails = Thumbnails(tmp_path / "cache")
    first = thumbnails.get(str(file), 256)
    assert Image.open(io.BytesIO(first.data)).size == (256, 85)
    (kept,) = (tmp_path / "cache").rglob("*.jpg")
    kept_at = kept.stat().st_ino
    assert thumbnails.get(str(file), 256) == first
    assert kept.stat().st_ino == kept_at  # read, not made again
    Image.new("RGB", (900, 300), "blue").save(file)
    second = thumbnails.get(str(file), 256)
    assert second.etag != first.etag
    assert Image.open(io.BytesIO(second.data)).getpixel((9, 9))[2] > 200
    assert len(list((tmp_path / "cache").rglob("*.*"))) == 1  # in the place of the first


def test_a_thumbnail_that_cannot_be_kept_is_sent_all_the_same(tmp_path, dataset):
    thumbnails = Thumbnails(tmp_path / "cache")
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_text("a file where the folder was")
    image = next((dataset / "seg_pred").iterdir())
    assert thumbnails.get(str(image), 128).data


def test_a_heat_map_fits_the_thumbnail(client, library, photo):
    files = [("image", ("photo.jpg", photo))]
    response = client.post("/api/explain", data={"match": 3}, files=files)
    assert response.headers["content-type"] == "image/png"
    heat = np.asarray(Image.open(io.BytesIO(response.content)))
    image = ss.load_image(library.paths[3])
    image.thumbnail((512, 512))
    assert heat.shape == (image.height, image.width, 4)
    found = ss.search(library, photo)
    expected = ss.heat_map(library, image, found.embedding)
    hottest = heat[..., 3] > 0.8 * heat[..., 3].max()
    assert expected[hottest].mean() > expected[~hottest].mean() + 0.1
    liked = client.post("/api/explain", data={"match": 3, "liked": [8], "disliked": [20]})
    assert liked.content != response.content


# Many at once


def test_requests_that_come_together_share_a_batch_and_lose_nothing(client, library, sample):
    photos = [file.read_bytes() for file in sorted((sample / "seg_pred").iterdir())[-12:]]
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda data: asked(client, files=[("image", data)], k=3), photos))
    for (answer,), data in zip(found, photos, strict=True):
        check_same(answer, ss.search(library, data, k=3), library)


class Slow:
    """A backbone that notes its batches, and waits for a sign before each."""

    def __init__(self, backbone):
        self.backbone, self.sizes, self.go = backbone, [], threading.Event()

    def embed(self, batch):
        assert self.go.wait(10)
        self.sizes.append(len(batch))
        return self.backbone.embed(batch)


def test_a_batch_is_what_has_come_in_meanwhile():
    backbone = load_backbone(BACKBONE)
    batched = BatchedBackbone(backbone, 4)
    slow = batched.original = Slow(backbone)
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
    assert max(slow.sizes) <= 4 + 2  # a job is never parted
    for embeddings, images in zip(found, inputs, strict=True):
        np.testing.assert_allclose(embeddings, backbone.embed(images), atol=1e-5)
    batched.close()
    assert not batched._thread.is_alive()
    np.testing.assert_array_equal(batched.embed(inputs[1]), backbone.embed(inputs[1]))


@pytest.mark.parametrize("best", [1, 2, 4, 8])
def test_the_size_of_a_batch_is_what_the_network_is_quickest_with(best):
    class ModelSpec:
        device = torch.device("cpu")

        def probe(self):
            return np.zeros((1, 4), np.uint8)

        def embed(self, batch):
            time.sleep(len(batch) * (0.002 if len(batch) == best else 0.01))

    assert fastest_batch_size(ModelSpec()) == best


def test_a_batch_that_fails_is_tried_one_by_one():
    backbone = load_backbone(BACKBONE)

    class Small:
        def embed(self, batch):
            if len(batch) > 1:
                raise MemoryError("too many at once")
            if not batch.any():
                raise RuntimeError("a bad one")
            return backbone.embed(batch)

    batched = BatchedBackbone(backbone, 8)
    gate = batched.original = Slow(Small())
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


# A library that changes


@pytest.fixture
def own(dataset, tmp_path):
    """A dataset and its library, to be changed."""
    shutil.copytree(dataset / "seg_pred", tmp_path / "dataset/seg_pred")
    ss.embed_dataset(tmp_path / "dataset", tmp_path / "outputs", BACKBONE, progress=False)
    return tmp_path


def test_a_library_that_is_embedded_again_is_taken_up(own):
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


def test_no_request_sees_half_of_two_libraries(own):
    """Rows and paths of an answer always belong to the version that it names."""
    app = create_app(Settings(str(own / "outputs")))
    files = sorted((own / "dataset/seg_pred").iterdir())
    versions, stop = {}, threading.Event()

    def ask(client):
        while not stop.is_set():
            page = client.get("/api/images", params={"limit": 500}).json()
            told = tuple((image["row"], image["path"]) for image in page["images"])
            assert versions.setdefault(page["version"], told) == told
            response = client.post("/api/search", data={"row": 0, "k": 200})
            answer = response.json()
            found = {(m["row"], m["path"]) for m in answer["answers"][0]["matches"]}
            expected = versions.get(answer["version"])
            assert expected is None or found == set(expected[1:])

    with TestClient(app, base_url="http://127.0.0.1") as client, ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask, client) for _ in range(2)]
        try:
            for file in files[:3]:
                file.unlink()
                ss.embed_dataset(own / "dataset", own / "outputs", BACKBONE, progress=False)
                app.state.service.manager.refresh()
        finally:
            stop.set()
        for each in asking:
            each.result()
    assert len(versions) >= 2


def test_a_damaged_library_leaves_the_last_one_served(own, caplog):
    app = create_app(Settings(str(own / "outputs")))
    gallery = app.state.service.manager
    before = gallery.state
    manifest = own / "outputs/manifest.json"
    text = manifest.read_text()
    manifest.write_text(text[: len(text) // 2])
    assert not gallery.refresh()
    assert gallery.state is before
    assert "still serving the last library" in caplog.text
    manifest.write_text(text)
    assert gallery.refresh()
    assert gallery.state.version == before.version
    gallery.close()


def test_a_table_that_changes_is_read_again(own):
    table = own / "table.csv"
    table.write_text("path,price\nseg_pred/copy.jpg,10\n")
    app = create_app(Settings(str(own / "outputs"), metadata=str(table)))
    manager = app.state.service.manager
    row = manager.state.library.find(own / "dataset/seg_pred/copy.jpg")
    assert manager.state.library.facts(row) == {"price": 10}
    table.write_text("path,price\nseg_pred/copy.jpg,2000\n")
    assert manager.refresh()
    assert manager.state.library.facts(row) == {"price": 2000}
    manager.close()


def test_trouble_is_told_once_and_does_not_end_the_watch(own, caplog, monkeypatch):
    app = create_app(Settings(str(own / "outputs")))
    manager = app.state.service.manager
    before, state_key = manager.state, manager._origin.state_key

    def broken():
        raise OSError("the disk has gone")

    monkeypatch.setattr(manager._origin, "state_key", broken)
    assert not any(manager.refresh() for _ in range(5))
    assert caplog.text.count("the disk has gone") == 1
    assert manager.state is before
    monkeypatch.setattr(manager._origin, "state_key", state_key)
    next((own / "dataset/seg_pred").iterdir()).unlink()
    ss.embed_dataset(own / "dataset", own / "outputs", BACKBONE, progress=False)
    assert manager.refresh()
    assert len(manager.state.library) == len(before.library) - 1
    manager.close()


def test_an_index_is_used_until_it_is_stale_and_again_when_rebuilt(own, caplog):
    pytest.importorskip("faiss")
    ss.build_index(ss.ImageLibrary.load(own / "outputs"), "sq", progress=False)
    app = create_app(Settings(str(own / "outputs"), index=True))
    gallery = app.state.service.manager
    with TestClient(app, base_url="http://127.0.0.1") as client:
        assert client.get("/api/library").json()["index"] == "sq"
        assert not asked(client, row=0)[0]["exact"]
        next((own / "dataset/seg_pred").iterdir()).unlink()
        library = ss.embed_dataset(own / "dataset", own / "outputs", BACKBONE, progress=False)
        gallery.refresh()
        assert client.get("/api/library").json()["index"] is None
        assert asked(client, row=0)[0]["exact"]
        assert "searching without an index" in caplog.text
        ss.build_index(library, "sq", progress=False)
        gallery.refresh()
        assert client.get("/api/library").json()["index"] == "sq"


def test_a_published_library_is_served_as_well(own, table):
    """What Milvus holds is served like what a folder holds, and taken up when it changes."""
    pytest.importorskip("milvus_lite")
    library = ss.ImageLibrary.load(own / "outputs").attach(table)
    ss.publish(library, own / "images.db", "shop", progress=False)
    settings = Settings(f"{own}/images.db#shop", cache=str(own / "cache"))
    app = create_app(settings)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        told = client.get("/api/library").json()
        schemas.Library.model_validate(told)
        assert (told["images"], told["index"]) == (len(library), "milvus")
        assert {each["name"] for each in told["columns"]} == set(library.metadata.columns)
        listed = client.get("/api/images", params={"limit": 500}).json()["images"]
        assert [image["path"] for image in listed] == library.names
        rows = {image["path"]: image["row"] for image in listed}
        for fields in ({}, {"where": '{"tags": "red"}'}, {"box": "0,0,0.5,1"}):
            (answer,) = asked(client, row=rows["seg_pred/copy.jpg"], k=4, **fields)
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
        assert app.state.service.manager.refresh()
        assert client.get("/api/health").json()["images"] == len(library) - 1
        assert client.get(listed[0]["thumbnail"]).status_code == 409
    with pytest.raises(ss.QueryError, match="has them already"):
        create_app(Settings(settings.outputs, metadata=str(table)))
    with pytest.raises(ss.RemoteError, match="there is no file"):
        create_app(Settings(f"{own}/none.db#shop"))


def test_without_its_backbone_a_library_still_finds_its_own(own, caplog):
    manifest = own / "outputs/manifest.json"
    told = json.loads(manifest.read_text())
    told["source"]["weights"] = "own"
    manifest.write_text(json.dumps(told))
    app = create_app(Settings(str(own / "outputs")))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        assert len(asked(client, row=0, k=3)[0]["matches"]) == 3
        image = (sorted((own / "dataset/seg_pred").iterdir())[0]).read_bytes()
        response = client.post("/api/search", files={"image": image})
        assert response.status_code == 501
        assert "module of your own" in response.json()["detail"]
    assert "new images cannot be searched with" in caplog.text


# What else it says


def test_the_schema_names_every_address_and_its_problems(client):
    schema = client.get("/api/openapi.json").json()
    assert {"/api/search", "/api/recommend", "/api/library", "/api/images/{row}"} <= set(
        schema["paths"]
    )
    fields = schema["components"]["schemas"]["SearchForm"]["properties"]
    assert all("description" in field for field in fields.values())
    assert fields["where"]["examples"]
    answers = schema["paths"]["/api/search"]["post"]["responses"]
    assert {"200", "401", "413", "422", "503"} <= set(answers)
    assert "application/problem+json" in answers["422"]["content"]


def test_requests_are_counted_by_their_route(client):
    client.get("/api/images/3/facts")
    client.get("/nowhere/at/all")
    text = client.get("/metrics").text
    assert 'simsearch_requests_total{route="/api/images/{row}/facts",status="200"}' in text
    assert 'status="404"' in text
    assert "nowhere" not in text
    assert "simsearch_request_seconds_bucket" in text
    assert "simsearch_batch_images_count" in text
