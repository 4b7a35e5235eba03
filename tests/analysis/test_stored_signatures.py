"""Signatures kept beside a library: reused by name, size and time, made anew if in doubt."""

import json
import os
import shutil
from contextvars import ContextVar

import numpy as np
import pytest
from PIL import Image
from scenes import scene

import simsearch as ss
from simsearch.analysis import stored_signatures
from simsearch.analysis.picture_files import look_at_files, read_pictures
from simsearch.analysis.stored_signatures import signatures_of
from simsearch.images.read_signature import read_signature
from simsearch.images.signature import signature
from simsearch.library import stored_rows
from simsearch.library.user_key import signed

ARRAY, RECORD = "signatures.npy", "signatures.json"


@pytest.fixture
def folder(tmp_path):
    for i in range(5):
        scene(i, (120, 90)).save(tmp_path / f"{i}.png")
    save(tmp_path)
    return tmp_path


def test_threads_that_read_see_what_the_caller_has_set():
    seen = ContextVar("seen", default="nothing")
    seen.set("a decoder")
    found = read_pictures(lambda path: (path, seen.get()), ["a", "b"], "Reading", progress=False)
    assert list(found) == [("a", "a decoder"), ("b", "a decoder")]


def save(folder):
    paths = sorted(folder.glob("*.png"))
    ss.ImageLibrary(np.eye(len(paths)), paths).save(folder / "outputs", overwrite=True)


@pytest.fixture
def read(monkeypatch):
    """Names of the pictures that are read."""
    names = []

    def reads(path, original=stored_signatures.read_signature):
        names.append(os.path.basename(path))  # noqa: PTH119
        return original(path)

    monkeypatch.setattr(stored_signatures, "read_signature", reads)
    return names


def signatures(folder):
    library = ss.ImageLibrary.load(folder / "outputs")
    return signatures_of(library, look_at_files(library), progress=False)


def test_pictures_are_read_once(folder, read):
    first = signatures(folder)
    assert len(read) == 5
    assert first.frames.tolist() == [1] * 5
    assert first.rows[3] == signature(scene(3, (120, 90)))
    again = signatures(folder)
    assert len(read) == 5
    assert np.array_equal(again.rows, first.rows)


def test_only_new_and_changed_pictures_are_read_again(folder, read):
    signatures(folder)
    read.clear()
    scene(9, (120, 90)).save(folder / "2.png")
    scene(8, (120, 90)).save(folder / "0a.png")
    (folder / "4.png").unlink()
    save(folder)
    made = signatures(folder)
    assert sorted(read) == ["0a.png", "2.png"]
    for row, seed in enumerate((0, 8, 1, 9, 3)):
        assert made.rows[row] == signature(scene(seed, (120, 90)))


def test_a_picture_that_cannot_be_read_is_tried_again(folder, read):
    data = (folder / "1.png").read_bytes()
    (folder / "1.png").write_bytes(b"damaged")
    assert signatures(folder).frames.tolist() == [1, 0, 1, 1, 1]
    (folder / "1.png").write_bytes(data)
    read.clear()
    assert signatures(folder).frames.tolist() == [1] * 5
    assert read == ["1.png"]


def delete(folder):
    (folder / ARRAY).unlink()


def cut(folder):
    (folder / ARRAY).write_bytes((folder / ARRAY).read_bytes()[:-9])


def flip(folder):
    data = bytearray((folder / ARRAY).read_bytes())
    data[-600] ^= 255
    (folder / ARRAY).write_bytes(data)
    os.utime(folder / ARRAY, (1, 1))


def of_another_version(folder):
    record = json.loads((folder / RECORD).read_text())
    record = signed(record | {"signatures": 0}, "signatures")
    (folder / RECORD).write_text(json.dumps(record))


def no_record(folder):
    (folder / RECORD).write_text("[]")


@pytest.mark.parametrize("damage", [delete, cut, flip, of_another_version, no_record])
def test_what_is_stored_is_made_anew_where_it_is_in_doubt(folder, read, damage):
    first = signatures(folder)
    damage(folder / "outputs")
    read.clear()
    assert np.array_equal(signatures(folder).rows, first.rows)
    assert len(read) == 5
    assert np.array_equal(signatures(folder).rows, first.rows)
    assert len(read) == 5


def test_a_copied_folder_keeps_its_signatures(folder, read):
    signatures(folder)
    shutil.copytree(folder / "outputs", folder / "moved")
    library = ss.ImageLibrary.load(folder / "moved")
    signatures_of(library, look_at_files(library), progress=False)
    assert len(read) == 5


def test_signatures_that_cannot_be_stored_are_used(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stored_rows, "write_text", full)
    scene(1, (60, 45)).save(folder / "5.png")
    save(folder)
    found = ss.duplicates(ss.ImageLibrary.load(folder / "outputs"), progress=False)
    assert [len(group) for group in found] == [2]
    assert not (folder / "outputs" / RECORD).exists()


def test_duplicates_work_after_the_file_was_deleted(folder):
    first = ss.duplicates(ss.ImageLibrary.load(folder / "outputs"), progress=False)
    assert (folder / "outputs" / ARRAY).exists()
    delete(folder / "outputs")
    assert ss.duplicates(ss.ImageLibrary.load(folder / "outputs"), progress=False) == first


@pytest.mark.parametrize("orientation", [1, 6, 8])
def test_size_is_that_of_the_upright_picture_in_the_file(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x112] = orientation
    scene(1, (1600, 1200)).save(tmp_path / "a.jpg", exif=exif)
    row, frames = read_signature(str(tmp_path / "a.jpg"))
    expected = (1600, 1200) if orientation == 1 else (1200, 1600)
    assert (int(row["width"]), int(row["height"])) == expected
    assert frames == 1


def test_further_pictures_of_a_camera_are_no_animation(tmp_path):
    preview = [scene(1, (160, 120))]
    scene(1).save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=preview)
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.n_frames == 2
    assert read_signature(str(tmp_path / "a.jpg"))[1] == 1
