"""The files of a library: saved, loaded, and refused where they are damaged."""

import itertools
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from library_cases import NAMES, ODD_NAMES, make_library, same

from simsearch import registry
from simsearch.errors import LibraryError
from simsearch.images.find import Skipped
from simsearch.library import files
from simsearch.library import save as save_module
from simsearch.library.files import EMBEDDINGS, MANIFEST, NEXT, PATHS, STATS, write_skipped
from simsearch.library.library import ImageLibrary
from simsearch.library.skipped import read_skipped


def edit_manifest(folder, edit):
    manifest = json.loads((folder / MANIFEST).read_text())
    edit(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_the_two_arrays_open_with_numpy_alone(folder):
    library = make_library()
    embeddings, paths = np.load(folder / EMBEDDINGS), np.load(folder / PATHS, allow_pickle=False)
    assert embeddings.dtype == np.float32
    assert embeddings.flags.c_contiguous
    np.testing.assert_array_equal(embeddings, library.embeddings)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
    assert paths.dtype.kind == "U"
    assert paths.tolist() == [f"dataset/{name}" for name in NAMES]


def test_embeddings_open_memory_mapped(folder, monkeypatch):
    assert isinstance(np.load(folder / EMBEDDINGS, mmap_mode="r"), np.memmap)
    small = ImageLibrary.load(folder).embeddings  # read: nothing that befalls the file matters
    assert not isinstance(small, np.memmap)
    monkeypatch.setattr(registry, "LARGE_BYTES", 0)
    large = ImageLibrary.load(folder).embeddings
    assert isinstance(large, np.memmap)
    np.testing.assert_array_equal(large, small)
    assert [small.flags.writeable, large.flags.writeable] == [False, False]


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("names", [NAMES, ODD_NAMES, ("one.jpg",)])
def test_what_is_saved_is_loaded(tmp_path, names, bare):
    library = make_library(names=names, bare=bare)
    library.save(tmp_path)
    assert same(ImageLibrary.load(tmp_path), library)
    assert not (tmp_path / NEXT).exists()


def test_more_rows_than_a_block_are_saved(tmp_path, monkeypatch):
    monkeypatch.setattr(save_module, "BLOCK_ROWS", 3)
    library = make_library(names=[f"{i}.jpg" for i in range(10)])
    library.save(tmp_path)
    assert same(ImageLibrary.load(tmp_path), library)


def test_a_bare_library_takes_the_place_of_one_with_stats(folder):
    bare = make_library(bare=True)
    bare.save(folder)
    assert same(ImageLibrary.load(folder), bare)
    assert not (folder / STATS).exists()


def test_a_library_can_be_saved_where_it_lies(folder):
    for _ in range(2):
        ImageLibrary.load(folder).save(folder)
    assert same(ImageLibrary.load(folder), make_library())


def test_a_copied_library_loads(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile)
    for file in copy.iterdir():
        os.utime(file, (1, 1))
    assert same(ImageLibrary.load(copy), make_library())


def test_the_home_folder_may_be_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    make_library().save("~/outputs")
    assert (tmp_path / "outputs" / MANIFEST).exists()
    assert ImageLibrary.load("~/outputs", root="~/data").root == f"{tmp_path.as_posix()}/data"


@pytest.mark.parametrize("reason", ["broken", "a,b", 'say "no"', "line\nline", "ends in \r"])
@pytest.mark.parametrize("name", ODD_NAMES)
def test_skipped_files_are_listed_as_they_are(tmp_path, name, reason):
    skipped = [Skipped(name, reason), Skipped("plain.jpg", "empty")]
    write_skipped(tmp_path, skipped)
    assert read_skipped(tmp_path) == skipped


def test_no_list_of_skipped_files_is_an_empty_one(tmp_path):
    assert read_skipped(tmp_path) == []


def cut(name, size):
    def damage(folder):
        os.truncate(folder / name, size)

    return damage


def flip(name, at):
    """Change one bit; the time of the file tells that something happened to it."""

    def damage(folder):
        file = folder / name
        data = bytearray(file.read_bytes())
        data[at] ^= 1
        later = file.stat().st_mtime_ns + 1
        file.write_bytes(data)
        os.utime(file, ns=(later, later))

    return damage


def swap(name):
    """Take one file from another library, whose files are all of the same sizes."""

    def damage(folder):
        make_library(seed=1, names=[*NAMES[1:], "tap.jpg"]).save(folder / "other")
        assert (folder / name).stat().st_size == (folder / "other" / name).stat().st_size
        shutil.copy2(folder / "other" / name, folder / name)

    return damage


def rewrite(text):
    return lambda folder: (folder / MANIFEST).write_bytes(text)


def drop(*keys):
    """Leave something out of the manifest."""

    def edit(manifest):
        *outer, last = keys
        for key in outer:
            manifest = manifest[key]
        del manifest[last]

    return lambda folder: edit_manifest(folder, edit)


def put(key, value):
    return lambda folder: edit_manifest(folder, lambda manifest: manifest.update({key: value}))


ARRAYS = (EMBEDDINGS, PATHS, STATS)


DAMAGES = {
    **{f"{name} gone": (lambda f, n=name: (f / n).unlink(), "is missing") for name in ARRAYS},
    **{f"{name} empty": (cut(name, 0), "damaged") for name in ARRAYS},
    **{f"{name} cut": (cut(name, 130), "damaged") for name in ARRAYS},
    **{f"{name} flipped at {at}": (flip(name, at), "damaged") for name in ARRAYS for at in (9, -1)},
    **{f"{name} of another": (swap(name), "belongs to another library") for name in ARRAYS},
    "manifest of another": (swap(MANIFEST), "belongs to another library"),
    "no manifest": (lambda f: (f / MANIFEST).unlink(), "has no manifest.json"),
    "manifest a folder": (
        lambda f: ((f / MANIFEST).unlink(), (f / MANIFEST).mkdir()),
        "manifest.json cannot be read",
    ),
    "manifest not JSON": (rewrite(b"PK\x03\x04"), "manifest.json cannot be read"),
    "manifest not UTF-8": (rewrite(b'{"format": "\xff"}'), "manifest.json cannot be read"),
    **{f"manifest {text}": (rewrite(text.encode()), "format") for text in ("[1]", "null", "{}")},
    "format 2": (put("format", 2), "its format is 2, not 1"),
    **{
        f"no {'.'.join(keys)}": (drop(*keys), "manifest.json is incomplete")
        for keys in (
            *itertools.product(("rows", "dim", "root", "source", "files")),
            ("source", "weights"),
            *itertools.product(("files",), (EMBEDDINGS, PATHS)),
            *itertools.product(("files",), ARRAYS, ("size", "mtime_ns")),
        )
    },
    "files null": (put("files", None), "manifest.json is incomplete"),
    "more in source": (put("source", {"tint": 1}), "manifest.json is incomplete"),
    "rows wrong": (put("rows", 4), "different lengths"),
    "dim wrong": (put("dim", 4), "different lengths"),
}


@pytest.mark.parametrize(("damage", "reason"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_library_is_refused_and_mended_by_a_save(folder, damage, reason):
    damage(folder)
    with pytest.raises(LibraryError, match=reason) as caught:
        ImageLibrary.load(folder)
    assert repr(str(folder)) in str(caught.value)
    assert "embed_dataset" in str(caught.value) or "np.load" in str(caught.value)
    if (folder / MANIFEST).is_dir():
        (folder / MANIFEST).rmdir()
    make_library(seed=2).save(folder)
    assert same(ImageLibrary.load(folder), make_library(seed=2))


def test_a_manifest_cut_anywhere_is_refused(folder):
    text = (folder / MANIFEST).read_bytes()
    for length in range(0, len(text) - 1, 5):
        (folder / MANIFEST).write_bytes(text[:length])
        with pytest.raises(LibraryError, match=r"manifest\.json cannot be read"):
            ImageLibrary.load(folder)


def test_a_damaged_library_on_its_way_is_mended_by_a_save(folder):
    (folder / NEXT).mkdir()
    (folder / NEXT / MANIFEST).write_text("{")
    with pytest.raises(LibraryError, match=r"manifest\.json cannot be read"):
        ImageLibrary.load(folder)
    make_library(seed=2).save(folder)
    assert same(ImageLibrary.load(folder), make_library(seed=2))


def test_no_library_says_how_to_make_one(tmp_path):
    with pytest.raises(LibraryError, match=r"no library in .*; make one with .*embed_dataset\("):
        ImageLibrary.load(tmp_path / "nowhere")


class Bomb:
    """Pickled code: whoever unpickles it creates a file."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


@pytest.mark.parametrize("wrap", [True, False], ids=["object array", "bare pickle"])
@pytest.mark.parametrize("name", ARRAYS)
def test_a_pickle_is_not_run_though_the_manifest_vouches_for_it(folder, tmp_path, name, wrap):
    mark = tmp_path / "ran"
    if wrap:
        np.save(folder / name, np.array([Bomb(mark)] * len(NAMES), object), allow_pickle=True)
    else:
        (folder / name).write_bytes(pickle.dumps(Bomb(mark)))
    np.load(folder / name, allow_pickle=True)
    assert mark.exists()
    mark.unlink()
    seal = files.file_record(folder / name)
    edit_manifest(folder, lambda manifest: manifest["files"].update({name: seal}))
    with pytest.raises(LibraryError, match=f"{name} cannot be opened"):
        ImageLibrary.load(folder)
    assert not mark.exists()
