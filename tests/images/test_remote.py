"""Files at addresses: listed, told apart from their older versions, read, and embedded."""

import shutil
import sys
import zipfile
from pathlib import Path
from typing import ClassVar

import fsspec
import numpy as np
import pytest
from dataset_cases import contents, counts, paint
from fsspec.implementations.memory import MemoryFileSystem
from object_store import forget_package
from tiny import tiny_backbone

import simsearch as ss
from simsearch.images.address import is_uri, local_path
from simsearch.images.read import read_file
from simsearch.images.remote import list_files
from simsearch.library.paths import as_root, in_folder
from simsearch.library.skipped import read_skipped


class Bucket(MemoryFileSystem):
    """An object storage that lists names alone, and tells size and ETag of each if asked."""

    protocol = "bucket"
    store: ClassVar = {}
    pseudo_dirs: ClassVar = [""]
    etags: ClassVar = {}

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("bucket:/"))

    def find(self, path, detail=False, **options):
        found = super().find(path, detail=True, **options)
        return {name: {"name": name, "type": "file"} for name in found}

    def info(self, path, **options):
        facts = super().info(path, **options)
        facts.pop("created", None)
        return facts | {"ETag": self.etags.get(path, "first")}


@pytest.fixture(autouse=True)
def bucket():
    fsspec.register_implementation("bucket", Bucket, clobber=True)
    yield
    Bucket.store.clear()
    Bucket.etags.clear()
    MemoryFileSystem.store.clear()


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Pictures in folders, and what is no picture of the dataset beside them."""
    monkeypatch.chdir(tmp_path)
    for i, name in enumerate(("a/0.png", "a/1.PNG", "b/c/2.png", ".hidden/3.png", "a/.4.png")):
        paint(Path("photos", name), i)
    Path("photos/notes.txt").write_text("words")
    return Path("photos")


LISTED = ["a/0.png", "a/1.PNG", "b/c/2.png"]


def addresses(photos):
    """Put the photos where different file systems find them."""
    archive = shutil.make_archive("photos", "zip", ".", "photos")
    inner = shutil.make_archive("inner", "zip", photos)
    for file in filter(Path.is_file, photos.rglob("*")):
        for scheme in ("memory", "bucket"):
            fsspec.filesystem(scheme).pipe(f"/shop/{file.as_posix()}", file.read_bytes())
    return [
        f"zip://photos::{archive}",
        f"zip://photos/::file://{archive}",
        f"zip://::{inner}",
        "memory://shop/photos",
        "memory://shop/photos/",
        "bucket://shop/photos",
        photos.absolute().as_uri(),
    ]


@pytest.mark.parametrize("number", range(7))
def test_remote_folder_is_listed_and_read_like_a_local_one(photos, number):
    root = addresses(photos)[number]
    files, skipped = ss.find_images(root)
    assert [file.name for file in files] == LISTED
    assert skipped == []
    assert [file.size for file in files] == [(photos / name).stat().st_size for name in LISTED]
    for name in LISTED:
        there = ss.load_image(in_folder(root, name))
        np.testing.assert_array_equal(there, ss.load_image(photos / name))
        assert read_file(in_folder(root, name)) == (photos / name).read_bytes()


@pytest.mark.parametrize("number", range(7))
def test_local_engine_embeds_a_remote_folder(photos, number, capsys):
    root, backbone = addresses(photos)[number], tiny_backbone()
    library = ss.embed_dataset(root, "outputs", backbone)
    assert library.names == LISTED
    assert library.paths.tolist() == [in_folder(root, name) for name in LISTED]
    here = ss.embed_dataset("photos", "here", backbone)
    np.testing.assert_array_equal(library.embeddings, here.embeddings)
    assert library.folders.tolist() == here.folders.tolist()
    ss.embed_dataset(root, "outputs", backbone)
    assert counts(capsys) == (0, 3, 0, 0)
    again = ss.ImageLibrary.load("outputs", backbone=backbone)
    assert ss.search(again, str(again.paths[1]), k=1).query == again.paths[1]
    assert again.find(str(again.paths[2])) == 2
    assert again.is_current(1)
    moved = ss.ImageLibrary.load("outputs", root="photos")
    assert moved.paths.tolist() == here.paths.tolist()


def test_new_version_of_the_same_size_is_embedded_again(photos, capsys):
    """In an archive by its checksum, in a bucket by its ETag, though no time is known."""
    backbone = tiny_backbone()
    roots = [addresses(photos)[number] for number in (0, 5)]
    for root, outputs in zip(roots, ("zip", "bucket"), strict=True):
        ss.embed_dataset(root, outputs, backbone)
    data = (photos / "a/0.png").read_bytes()
    (photos / "a/0.png").write_bytes((photos / "b/c/2.png").read_bytes()[: len(data)])
    size = (photos / "a/0.png").stat().st_size
    assert size == len(data)
    with zipfile.ZipFile("photos.zip", "w") as archive:
        for name in LISTED:
            entry = zipfile.ZipInfo(f"photos/{name}", (2020, 1, 1, 0, 0, 0))
            archive.writestr(entry, (photos / name).read_bytes())
    fsspec.filesystem("bucket").pipe("/shop/photos/a/0.png", (photos / "a/0.png").read_bytes())
    Bucket.etags["/shop/photos/a/0.png"] = "second"
    for root, outputs in zip(roots, ("zip", "bucket"), strict=True):
        capsys.readouterr()
        library = ss.embed_dataset(root, outputs, backbone)
        assert counts(capsys) == (1, 2, 0, 0)
        expected = ss.embed_images([photos / name for name in LISTED], backbone)
        np.testing.assert_allclose(library.embeddings, expected, atol=1e-6)


def test_missing_and_damaged_remote_files_are_reported(photos, monkeypatch):
    addresses(photos)
    system = fsspec.filesystem("bucket")
    system.pipe("/shop/photos/a/bad.png", b"words")
    monkeypatch.setattr(
        Bucket, "cat_file", lambda self, path, **_: gone_or_read(self, path), raising=False
    )
    ss.embed_dataset("bucket://shop/photos", "outputs", tiny_backbone())
    assert dict(read_skipped("outputs")) == {
        "bucket://shop/photos/a/0.png": "no such file",
        "bucket://shop/photos/a/bad.png": "not a supported image format",
    }


def gone_or_read(system, path):
    """Read a file, unless it has gone since it was listed."""
    if path.endswith("0.png"):
        raise FileNotFoundError(path)
    return system.store[path].getvalue()


def test_outputs_below_a_file_address_are_left_out(photos):
    paint(photos / "outputs/figure.png", 9)
    library = ss.embed_dataset(photos.absolute().as_uri(), photos / "outputs", tiny_backbone())
    assert library.names == LISTED
    assert contents(photos / "outputs")


# Errors


@pytest.mark.parametrize("root", ["memory://nowhere", "bucket://shop/nowhere"])
def test_no_such_folder(root):
    with pytest.raises(ss.DatasetError, match=f"no such folder: '{root}'"):
        ss.find_images(root)


def test_listing_error_names_address_and_reason(monkeypatch):
    def refuse(*_, **__):
        raise PermissionError("no key for this bucket")

    monkeypatch.setattr(Bucket, "find", refuse)
    with pytest.raises(ss.DatasetError, match="cannot list 'bucket://shop': no key for this"):
        ss.find_images("bucket://shop")
    with pytest.raises(ss.DatasetError, match="Protocol not known: nope"):
        ss.find_images("nope://shop")


def test_missing_package_of_a_scheme_is_named(monkeypatch):
    forget_package(monkeypatch, "s3", "s3fs")
    with pytest.raises(ss.MissingExtraError, match=r"cannot open s3://shop/photos: Install s3fs"):
        ss.find_images("s3://shop/photos")
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(ss.MissingExtraError, match=r'pip install "simsearch\[cluster\]"'):
        ss.find_images("memory://shop")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("s3://a/b", True),
        ("zip://a::b.zip", True),
        ("HTTPS://a", True),
        ("C:/photos", False),
        ("C:\\photos", False),
        ("photos/a://b", False),
        ("://", False),
        (Path("s3:/a"), False),
        (b"s3://a", False),
    ],
)
def test_is_uri(text, answer):
    assert is_uri(text) is answer


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("file:///home/a b/1.jpg", "/home/a b/1.jpg"),
        ("local://photos/1.jpg", "photos/1.jpg"),
        ("photos/1.jpg", "photos/1.jpg"),
        ("s3://file://", "s3://file://"),
    ],
)
def test_local_path(text, path):
    assert local_path(text) == path


@pytest.mark.parametrize(
    ("folder", "path"),
    [
        ("s3://shop", "s3://shop/a/1.jpg"),
        ("s3://shop/", "s3://shop/a/1.jpg"),
        ("memory://", "memory://a/1.jpg"),
        ("zip://x::s3://shop/all.zip", "zip://x/a/1.jpg::s3://shop/all.zip"),
        ("zip://::all.zip", "zip://a/1.jpg::all.zip"),
        ("odd::folder", "odd::folder/a/1.jpg"),
        (".", "a/1.jpg"),
    ],
)
def test_names_are_joined_to_a_folder_and_removed_again(folder, path):
    assert in_folder(folder, "a/1.jpg") == path
    assert as_root(folder) == folder
    library = ss.ImageLibrary([[1.0]], [path])
    library.root = folder
    assert library.names == ["a/1.jpg"]


def test_list_files_applies_the_predicate(photos):
    addresses(photos)
    listed = {name for name, *_ in list_files("memory://shop/photos", lambda name: True)}
    assert listed == {*LISTED, "notes.txt"}
