"""The page of a library whose pictures lie in an S3 bucket: thumbnails, originals, changes."""

import io

import fsspec
import numpy as np
import pytest
from fastapi.testclient import TestClient
from object_store import object_store  # noqa: F401
from PIL import Image

import simsearch as ss
from simsearch.web.app import create_app
from simsearch.web.settings import Settings


def jpeg(shade):
    data = io.BytesIO()
    Image.new("RGB", (300, 200), (shade, 100, 200 - shade)).save(data, "JPEG")
    return data.getvalue()


def shade(data):
    return int(np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))[0, 0, 0])


@pytest.fixture
def page(object_store, tmp_path):  # noqa: F811
    """Serve four pictures of a bucket; return the client and the bucket's file system."""
    system = fsspec.filesystem("s3")
    for value in (0, 50, 100, 150):
        system.pipe_file(f"shop/photos/a #{value}.jpg", jpeg(value))
    outputs = str(tmp_path / "outputs")
    ss.embed_dataset("s3://shop/photos", outputs, "efficientnet_lite0", progress=False)
    settings = Settings(outputs, cache=str(tmp_path / "cache"), root="s3://shop/photos")
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        yield client, system


def test_a_changed_object_gets_another_thumbnail_and_original(page, object_store):  # noqa: F811
    client, system = page
    listed = client.get("/api/images").json()["images"]
    (image,) = (each for each in listed if each["path"] == "a #100.jpg")
    first = client.get(image["thumbnail"])
    assert abs(shade(first.content) - 100) < 4
    whole = client.get(image["image"])
    assert abs(shade(whole.content) - 100) < 4
    again = client.get(image["image"], headers={"If-None-Match": whole.headers["etag"]})
    assert again.status_code == 304
    system.pipe_file("shop/photos/a #100.jpg", jpeg(180))
    assert abs(shade(client.get(image["thumbnail"]).content) - 180) < 4
    changed = client.get(image["image"], headers={"If-None-Match": whole.headers["etag"]})
    assert abs(shade(changed.content) - 180) < 4
    object_store.close()  # the storage is away: the copy is shown
    assert abs(shade(client.get(image["thumbnail"]).content) - 180) < 4


def test_a_query_by_the_address_of_a_changed_object_is_embedded_anew(page):
    client, system = page
    library = client.app.state.service.manager.state.library
    address = "s3://shop/photos/a #50.jpg"
    assert library.is_current(library.find(address))
    system.pipe_file("shop/photos/a #50.jpg", jpeg(150))
    assert not library.is_current(library.find(address))
    assert ss.search(library, address, 1).paths == ["s3://shop/photos/a #150.jpg"]
