"""Libraries in an S3 bucket: written, opened, followed, and what another machine has done there."""

import json
import shutil
from pathlib import Path

import fsspec
import numpy as np
import pytest
from dataset_cases import counts, paint_forty
from object_store import object_store  # noqa: F401
from part_cases import store_parts
from tiny import tiny_backbone

import simsearch as ss
from simsearch.files import user_folder
from simsearch.library import object_store as at_address
from simsearch.library.files import EMBEDDINGS, MANIFEST

OUTPUTS = "s3://shop/shelf/outputs"
KEY = OUTPUTS.removeprefix("s3://")


@pytest.fixture
def dataset(object_store, tmp_path, monkeypatch):  # noqa: F811
    """Forty pictures here, and a cache of this test alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(at_address, "PAUSE_SECONDS", 0.01)
    return paint_forty()


def forget_copies():
    """Become a machine that has never been at the address."""
    shutil.rmtree(user_folder("cache"))


def test_library_is_written_opened_and_followed(dataset, capsys):
    backbone = tiny_backbone()
    local = ss.embed_dataset(dataset, "local", backbone)
    written = ss.embed_dataset(dataset, OUTPUTS, backbone)
    opened = ss.ImageLibrary.load(OUTPUTS, backbone=backbone)
    for library in (written, opened):
        np.testing.assert_array_equal(library.embeddings, local.embeddings)
        assert library.paths.tolist() == local.paths.tolist()
    assert ss.search(opened, 3, 5).paths == ss.search(local, 3, 5).paths
    (dataset / "a/00.png").unlink()
    capsys.readouterr()
    ss.embed_dataset(dataset, OUTPUTS, backbone)
    assert counts(capsys) == (0, 39, 1, 0)
    assert len(ss.ImageLibrary.load(OUTPUTS, backbone=backbone)) == 39
    assert len(opened) == 40  # which was opened before


def test_another_machine_reuses_the_rows_and_the_first_one_follows(dataset, capsys):
    backbone = tiny_backbone()
    ss.embed_dataset(dataset, OUTPUTS, backbone)
    first = user_folder("cache").rename("first")
    (dataset / "b/01.png").unlink()
    capsys.readouterr()
    ss.embed_dataset(dataset, OUTPUTS, backbone)
    assert counts(capsys) == (0, 39, 1, 0)
    forget_copies()
    first.rename(user_folder("cache"))
    (dataset / "c/02.png").unlink()
    ss.embed_dataset(dataset, OUTPUTS, backbone)
    assert counts(capsys) == (0, 38, 1, 0)
    assert len(ss.ImageLibrary.load(OUTPUTS, backbone=backbone)) == 38


def test_a_version_that_is_there_is_not_fetched_again(dataset, monkeypatch):
    backbone = tiny_backbone()
    ss.embed_dataset(dataset, OUTPUTS, backbone)
    ss.ImageLibrary.load(OUTPUTS, backbone=backbone)
    monkeypatch.setattr(at_address._Copy, "_download", lambda *_: pytest.fail("fetched again"))
    assert len(ss.ImageLibrary.load(OUTPUTS, backbone=backbone)) == 40


def test_half_a_version_is_not_opened(dataset):
    backbone, system = tiny_backbone(), fsspec.filesystem("s3")
    ss.embed_dataset(dataset, OUTPUTS, backbone)
    rows = system.cat_file(f"{KEY}/{EMBEDDINGS}")
    system.pipe_file(f"{KEY}/{EMBEDDINGS}", rows[:-4] + b"\0\0\0\1")
    with pytest.raises(ss.LibraryError, match=r"is being replaced, or an upload was cut off"):
        ss.ImageLibrary.load(OUTPUTS, backbone=backbone)
    ss.embed_dataset(dataset, OUTPUTS, backbone)  # which mends it
    assert len(ss.ImageLibrary.load(OUTPUTS, backbone=backbone)) == 40


def test_an_upload_that_was_cut_off_goes_on_without_embedding_again(dataset, capsys, monkeypatch):
    backbone, system = tiny_backbone(), fsspec.filesystem("s3")

    def put(here, there):
        if there.endswith(MANIFEST):
            raise KeyboardInterrupt
        put_file(here, there)

    put_file = system.put_file
    with monkeypatch.context() as patch:
        patch.setattr(system, "put_file", put)
        with pytest.raises(KeyboardInterrupt):
            ss.embed_dataset(dataset, OUTPUTS, backbone)
    capsys.readouterr()
    ss.embed_dataset(dataset, OUTPUTS, backbone)
    assert counts(capsys) == (0, 40, 0, 0)
    assert len(ss.ImageLibrary.load(OUTPUTS, backbone=backbone)) == 40


def test_rows_that_another_machine_has_added_meanwhile_are_not_lost(dataset):
    backbone, system = tiny_backbone(), fsspec.filesystem("s3")
    library = ss.embed_dataset(dataset, "local", backbone)
    library.save(OUTPUTS)
    opened = ss.ImageLibrary.load(OUTPUTS, backbone=backbone)
    manifest = json.loads(system.cat_file(f"{KEY}/{MANIFEST}"))
    opened.save(OUTPUTS)
    forget_copies()
    (dataset / "a/00.png").unlink()
    ss.embed_dataset(dataset, OUTPUTS, backbone)
    assert manifest["rows"] == 40
    with pytest.raises(ss.LibraryError, match="has changed since it was opened"):
        opened.save(OUTPUTS)
    opened.save(OUTPUTS, overwrite=True)
    assert len(ss.ImageLibrary.load(OUTPUTS, backbone=backbone)) == 40


def test_a_writer_in_between_is_told(dataset, monkeypatch):
    backbone, system = tiny_backbone(), fsspec.filesystem("s3")
    ss.embed_dataset(dataset, OUTPUTS, backbone)

    def embed(**given):
        library = ss.embed_dataset(**given)
        system.pipe_file(f"{KEY}/{MANIFEST}", b"{}")
        return library

    given = {"root": dataset, "backbone": backbone, "options": {}}
    with pytest.raises(ss.LibraryError, match="has changed since it was opened"):
        at_address.embed_to_address(embed, outputs=OUTPUTS, **given)


def test_two_writers_at_once_are_kept_apart(dataset, monkeypatch):
    backbone, system = tiny_backbone(), fsspec.filesystem("s3")
    library = ss.embed_dataset(dataset, OUTPUTS, backbone)
    other = ss.embed_dataset(dataset / "a", "other", backbone)
    put_file, told = system.put_file, []

    def put(here, there):
        if not told:  # in the middle of an upload, another machine comes
            told.append("nothing")
            monkeypatch.setenv("XDG_CACHE_HOME", str(dataset.absolute().parent / "cache2"))
            with pytest.raises(ss.LibraryBusyError) as busy:
                other.save(OUTPUTS, overwrite=True)
            told[:] = [str(busy.value)]
            monkeypatch.setenv("XDG_CACHE_HOME", str(dataset.absolute().parent / "cache"))
        put_file(here, there)

    with monkeypatch.context() as patch:
        patch.setattr(system, "put_file", put)
        library.save(OUTPUTS, overwrite=True)
    assert f"is writing a library at {OUTPUTS!r}: try again" in told[0]
    assert len(ss.ImageLibrary.load(OUTPUTS, backbone=backbone)) == 40
    assert not system.exists(f"{KEY}/{at_address.WRITER}")
    other.save(OUTPUTS, overwrite=True)
    assert len(ss.ImageLibrary.load(OUTPUTS, backbone=backbone)) == len(other)


def test_marks_of_writers_that_have_died_do_not_count_for_ever(dataset, monkeypatch):
    backbone, system = tiny_backbone(), fsspec.filesystem("s3")
    library = ss.embed_dataset(dataset, OUTPUTS, backbone)
    mark = {"token": "1", "host": "pluto", "since": at_address.time.time() - 60}
    system.pipe_file(f"{KEY}/{at_address.WRITER}", json.dumps(mark).encode())
    with pytest.raises(ss.LibraryBusyError, match=r"pluto is writing .* remove writing.json there"):
        library.save(OUTPUTS)
    monkeypatch.setattr(at_address, "WRITER_SECONDS", 50)
    library.save(OUTPUTS)
    system.pipe_file(f"{KEY}/{at_address.WRITER}", b"{")
    with pytest.raises(ss.LibraryBusyError, match="Another program is writing"):
        library.save(OUTPUTS)
    (own,) = user_folder("cache").rglob(f"written/{at_address.WRITER}")
    mark = {"token": own.read_text(), "host": "here", "since": at_address.time.time()}
    system.pipe_file(f"{KEY}/{at_address.WRITER}", json.dumps(mark).encode())  # killed here
    library.save(OUTPUTS)
    assert not system.exists(f"{KEY}/{at_address.WRITER}")


def test_parts_and_indexes_that_do_not_travel_are_named(dataset, caplog):
    store_parts(Path("parted"), [2, 1, None], np.random.default_rng(0)).save(OUTPUTS)
    folder = Path("parted").absolute()
    told = f"the parts of the pictures of the library stay in {folder}, and are not at {OUTPUTS!r}"
    assert told in caplog.text


def test_what_is_missing_or_refused_is_told(dataset, object_store):  # noqa: F811
    with pytest.raises(ss.LibraryError, match=r"no library at 's3://shop/nothing'"):
        ss.ImageLibrary.load("s3://shop/nothing")
    fsspec.filesystem("s3").pipe_file(f"shop/other/{MANIFEST}", b"{}")
    object_store.refuse(100, "403 Forbidden", "AccessDenied")
    with pytest.raises(ss.LibraryError, match=r"cannot read 's3://shop/other': "):
        ss.ImageLibrary.load("s3://shop/other/")


@pytest.mark.parametrize(
    "text",
    [b"{}", b"[]", b"3", b"no JSON", b"\xff", b"[" * 100_000, b'{"files": {"a": 1}}',
     b'{"files": {"embeddings.npy": {"sha256": "a"}}}'],
)  # fmt: skip
def test_a_manifest_that_is_none_is_told_in_one_line(dataset, text):
    fsspec.filesystem("s3").pipe_file(f"{KEY}/{MANIFEST}", text)
    for use in (ss.ImageLibrary.load, lambda place: ss.embed_dataset(dataset, place)):
        with pytest.raises(ss.LibraryError, match=r"s3://shop/shelf/outputs") as caught:
            use(OUTPUTS)
        assert len(f"{caught.value}") < 400


def test_a_file_address_is_a_folder(dataset):
    backbone = tiny_backbone()
    place = (dataset.absolute().parent / "here").as_uri()
    ss.embed_dataset(dataset, place, backbone)
    assert len(ss.ImageLibrary.load("here", backbone=backbone)) == 40
    assert len(ss.ImageLibrary.load(place, backbone=backbone)) == 40
