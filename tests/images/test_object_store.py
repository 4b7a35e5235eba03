"""Pictures in an S3 bucket: listed, embedded, resumed; requests that are refused."""

import io

import fsspec
import numpy as np
import pytest
from dataset_cases import counts
from object_store import forget_package, object_store  # noqa: F401
from PIL import Image
from tiny import tiny_backbone

import simsearch as ss
from simsearch.library.skipped import read_skipped

ROOT = "s3://shop/photos"
ODD_NAMES = [
    *("a b.png", "x#1.png", "q?.png", "ü/ñ.png", "100%.png", "a+b.png", "star*.png", "[x].png"),
    *("%20.png", "a;b&c=d.png", "~t.png", "😀.png", " lead.png", "a=b/c@d!.png"),
]


def png(seed):
    noise = np.random.default_rng(seed).integers(0, 255, (9, 12, 3), np.uint8)
    data = io.BytesIO()
    Image.fromarray(noise).save(data, "PNG")
    return data.getvalue()


@pytest.fixture
def bucket(object_store, tmp_path, monkeypatch):  # noqa: F811
    """Put pictures under odd names, and a bad one, into the bucket; return its file system."""
    monkeypatch.chdir(tmp_path)
    system = fsspec.filesystem("s3")
    for seed, name in enumerate(ODD_NAMES):
        system.pipe_file(f"shop/photos/{name}", png(seed))
    system.pipe_file("shop/photos/bad.png", b"these are words, not pixels")
    return system


def test_odd_names_are_embedded_resumed_and_the_bad_one_reported(bucket, capsys):
    backbone = tiny_backbone()
    library = ss.embed_dataset(ROOT, "outputs", backbone)
    assert counts(capsys) == (len(ODD_NAMES), 0, 0, 1)
    assert library.names == sorted(ODD_NAMES)
    assert read_skipped("outputs") == [(f"{ROOT}/bad.png", "not a supported image format")]
    for seed, name in enumerate(ODD_NAMES):
        row = library.find(f"{ROOT}/{name}")
        expected = ss.embed_images(Image.open(io.BytesIO(png(seed))), backbone)[0]
        np.testing.assert_allclose(library.embeddings[row], expected, atol=1e-6)
        assert ss.search(library, f"{ROOT}/{name}", 1).query == f"{ROOT}/{name}"
    bucket.pipe_file("shop/photos/a b.png", png(99))
    bucket.rm_file("shop/photos/q?.png")
    library = ss.embed_dataset(ROOT, "outputs", backbone)
    assert counts(capsys) == (1, len(ODD_NAMES) - 2, 1, 1)
    changed = ss.embed_images(Image.open(io.BytesIO(png(99))), backbone)[0]
    row = library.find(f"{ROOT}/a b.png")
    np.testing.assert_allclose(library.embeddings[row], changed, atol=1e-6)


def test_more_keys_than_one_answer_lists(bucket, object_store):  # noqa: F811
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends

    backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    for i in range(2500):  # an answer has 1,000 at most
        backend.put_object("shop", f"many/{i % 7}/{i:05}.jpg", b"x")
    files, skipped = ss.find_images("s3://shop/many")
    assert [file.name for file in files] == sorted(f"{i % 7}/{i:05}.jpg" for i in range(2500))
    assert not skipped


@pytest.mark.parametrize(
    ("status", "code"), [("503 Slow Down", "SlowDown"), ("500 Error", "InternalError")]
)
def test_refused_requests_are_made_again(bucket, object_store, capsys, status, code):  # noqa: F811
    object_store.refuse(2, status, code)
    ss.embed_dataset(ROOT, "outputs", tiny_backbone())
    assert counts(capsys) == (len(ODD_NAMES), 0, 0, 1)
    assert object_store.refused == 2


def test_missing_credentials_are_one_line(bucket, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    type(bucket).clear_instance_cache()
    with pytest.raises(ss.DatasetError) as told:
        ss.embed_dataset(ROOT, "outputs", tiny_backbone())
    assert str(told.value) == (
        f"cannot list '{ROOT}': Unable to locate credentials; set them as the storage's own tools "
        "read them, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    )


def test_no_such_bucket_is_told(bucket):
    with pytest.raises(ss.DatasetError, match=r"cannot list 's3://nowhere/x': .*does not exist"):
        ss.find_images("s3://nowhere/x")


@pytest.mark.parametrize(
    ("scheme", "module", "extra"),
    [("s3", "s3fs", "s3"), ("gs", "gcsfs", "gcs"), ("az", "adlfs", "azure")],
)
def test_the_extra_of_a_scheme_is_named(monkeypatch, scheme, module, extra):
    forget_package(monkeypatch, scheme, module)
    with pytest.raises(ss.MissingExtraError, match=rf'pip install "simsearch\[{extra}\]"'):
        ss.find_images(f"{scheme}://shop/photos")
