import itertools
import json
import math
import os
import pickle
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from errno import ENOSPC
from pathlib import Path

import numpy as np
import pytest

from simsearch.backbones.backbone import load_backbone
from simsearch.backbones.spec import OWN_WEIGHTS
from simsearch.errors import BackboneError, LibraryBusyError, LibraryError, WeightsError
from simsearch.images.find import Skipped
from simsearch.library import files
from simsearch.library import library as library_module
from simsearch.library.files import (
    EMBEDDINGS,
    MANIFEST,
    NEXT,
    PATHS,
    STATS,
    read_skipped,
    write_skipped,
    writing,
)
from simsearch.library.library import ImageLibrary
from simsearch.library.paths import in_folder
from simsearch.library.source import Source

NAMES = ("forest/1.jpg", "forest/2.jpg", "sea/a b.jpg", "sea/Größe 10.jpg", "top.jpg")
ODD_NAMES = ("two\nlines.jpg", "naïve ☃ 雪.png", "not\udcffutf8.jpg", "tab\t.jpg", 'quo"te,s.jpg')
SOURCE = Source("resnet50", "IMAGENET1K_V1", "0123456789abcdef", "float32")


def unit_rows(count, dim=6, seed=0):
    rows = np.random.default_rng(seed).standard_normal((count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def make_library(seed=0, names=NAMES, root="dataset", bare=False):
    """A library as `embed_dataset` makes it; a bare one has no stats, root or source."""
    paths = names if bare else [f"{root}/{name}" for name in names]
    library = ImageLibrary(unit_rows(len(paths), seed=seed), paths)
    if not bare:
        library.root, library.source = root, SOURCE
        library.stats = np.arange(2 * len(paths), dtype=np.int64).reshape(-1, 2) + 100 * seed
    return library


def same(one, other):
    """Whether two libraries hold the same, to the last bit."""
    return (
        one.embeddings.tobytes() == other.embeddings.tobytes()
        and one.paths.tolist() == other.paths.tolist()
        and (one.root, one.source) == (other.root, other.source)
        and (one.stats is None) == (other.stats is None)
        and (one.stats is None or one.stats.tolist() == other.stats.tolist())
    )


def edit_manifest(folder, edit):
    manifest = json.loads((folder / MANIFEST).read_text())
    edit(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


@pytest.fixture
def folder(tmp_path):
    """The outputs of a complete library."""
    make_library().save(tmp_path / "outputs")
    return tmp_path / "outputs"


# The files


def test_the_two_arrays_open_with_numpy_alone(folder):
    library = make_library()
    embeddings, paths = np.load(folder / EMBEDDINGS), np.load(folder / PATHS, allow_pickle=False)
    assert embeddings.dtype == np.float32
    assert embeddings.flags.c_contiguous
    np.testing.assert_array_equal(embeddings, library.embeddings)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
    assert paths.dtype.kind == "U"
    assert paths.tolist() == [f"dataset/{name}" for name in NAMES]


def test_embeddings_open_memory_mapped(folder):
    assert isinstance(np.load(folder / EMBEDDINGS, mmap_mode="r"), np.memmap)
    assert isinstance(ImageLibrary.load(folder).embeddings, np.memmap)


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("names", [NAMES, ODD_NAMES, ("one.jpg",)])
def test_what_is_saved_is_loaded(tmp_path, names, bare):
    library = make_library(names=names, bare=bare)
    library.save(tmp_path)
    assert same(ImageLibrary.load(tmp_path), library)
    assert not (tmp_path / NEXT).exists()


def test_more_rows_than_a_block_are_saved(tmp_path, monkeypatch):
    monkeypatch.setattr(library_module, "BLOCK_ROWS", 3)
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


# Arrays made elsewhere


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.uint16])
@pytest.mark.parametrize("block", [1, 2, 4096])
def test_rows_are_normalised(dtype, block, monkeypatch):
    monkeypatch.setattr(library_module, "BLOCK_ROWS", block)
    rows = np.array([[3, 4], [0, 2], [7, 24]], dtype)
    library = ImageLibrary(rows, ["a", "b", "c"])
    assert library.embeddings.dtype == np.float32
    assert library.embeddings.flags.c_contiguous
    np.testing.assert_allclose(library.embeddings, [[0.6, 0.8], [0, 1], [0.28, 0.96]], rtol=1e-7)
    assert rows.tolist() == [[3, 4], [0, 2], [7, 24]]


def test_rows_that_are_slightly_off_are_normalised():
    library = ImageLibrary(unit_rows(5) * np.float32(1.0005), NAMES)
    np.testing.assert_allclose(np.linalg.norm(library.embeddings, axis=1), 1, atol=1e-6)


def test_unit_rows_stay_where_they_are(folder):
    mapped = np.load(folder / EMBEDDINGS, mmap_mode="r")
    embeddings = ImageLibrary(mapped, NAMES).embeddings
    assert isinstance(embeddings, np.memmap)
    assert np.shares_memory(embeddings, mapped)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_unit_rows_in_any_layout_are_taken_and_saved(tmp_path, order, dtype):
    library = ImageLibrary(np.asarray(unit_rows(5), dtype, order=order), np.array(NAMES))
    np.testing.assert_array_equal(library.embeddings, unit_rows(5))
    library.save(tmp_path)
    assert same(ImageLibrary.load(tmp_path), library)


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_a_row_without_direction_is_named(bad):
    rows = unit_rows(5)
    rows[3] = bad
    with pytest.raises(LibraryError, match="row 3 "):
        ImageLibrary(rows, NAMES)


@pytest.mark.parametrize(
    "rows", [np.ones(5), np.ones((5, 2, 2)), np.ones((0, 4)), np.ones((5, 2), "U"), np.ones(()) > 0]
)
def test_what_is_no_matrix_of_numbers_is_refused(rows):
    with pytest.raises(LibraryError, match=r"shape .* and dtype .* are not \(N, D\)"):
        ImageLibrary(rows, NAMES)


def test_as_many_paths_as_rows():
    with pytest.raises(LibraryError, match="4 embeddings and 5 paths"):
        ImageLibrary(unit_rows(4), NAMES)


def test_paths_keep_their_meaning():
    given = [Path("a") / "b.jpg", "./c.jpg", "https://shop.example/d.jpg", "s3://bucket/e.jpg"]
    assert ImageLibrary(unit_rows(4), given).paths.tolist() == [
        "a/b.jpg",
        "c.jpg",
        "https://shop.example/d.jpg",
        "s3://bucket/e.jpg",
    ]


# What cannot be used is refused


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


# One writer at a time, and whatever happens to it, a whole library


class Killed(BaseException):
    """The process dies here: no handler of the package takes this for an error."""


WRITES = [(Path, name) for name in ("mkdir", "open", "replace", "unlink", "rmdir", "glob")]
WRITES += [(os, "fsync")]
READS = [(Path, name) for name in ("read_text", "exists", "stat", "open")] + [(np, "load")]


@contextmanager
def at_step(number, act, operations):
    """Run `act` just before the operation of this number; the dead do nothing more."""
    steps = itertools.count(1)

    def hook(operation):
        def stepped(*args, **kwargs):
            step = next(steps)
            if step == number or (step > number and act is die):
                act()
            return operation(*args, **kwargs)

        return stepped

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in operations:
            patch.setattr(owner, name, hook(getattr(owner, name)))
        yield


def die():
    raise Killed


def fill_the_disk():
    raise OSError(ENOSPC, os.strerror(ENOSPC))


def failed_saves(library, folder, act=die, error=Killed):
    """Save again and again, fail one step later each time until it passes, and yield the errors."""
    for step in itertools.count(1):
        try:
            with at_step(step, act, WRITES):
                library.save(folder)
        except error as caught:
            yield caught
        else:
            assert step > 15, "too few steps were seen for this to mean anything"
            return


PAIRS = {
    "two alike": (make_library(), make_library(seed=1)),
    "longer": (make_library(), make_library(seed=1, names=ODD_NAMES * 20)),
    "with stats, without": (make_library(), make_library(seed=1, bare=True)),
    "without stats, with": (make_library(bare=True), make_library(seed=1)),
}


@pytest.mark.parametrize(("old", "new"), PAIRS.values(), ids=PAIRS)
def test_a_save_killed_at_any_step_leaves_the_old_library_or_the_new(tmp_path, old, new):
    old.save(tmp_path)
    arrived = []
    for _ in failed_saves(new, tmp_path):
        found = ImageLibrary.load(tmp_path)
        arrived.append(same(found, new))
        assert arrived[-1] or same(found, old)
        old.save(tmp_path)
        assert same(ImageLibrary.load(tmp_path), old)
        assert not (tmp_path / NEXT).exists()
    assert same(ImageLibrary.load(tmp_path), new)
    assert arrived == sorted(arrived)
    assert set(arrived) == {False, True}


def test_a_first_save_killed_at_any_step_leaves_no_library_or_the_new(tmp_path):
    new, outcomes = make_library(), []
    for _ in failed_saves(new, tmp_path / "outputs"):
        try:
            outcomes.append(same(ImageLibrary.load(tmp_path / "outputs"), new))
        except LibraryError as error:
            outcomes.append(str(error).split(" '")[0])
        shutil.rmtree(tmp_path / "outputs", ignore_errors=True)
    assert [outcome for outcome, _ in itertools.groupby(outcomes)] == ["no library in", True]


def test_a_mend_killed_at_any_step_loses_nothing(tmp_path):
    old, new = make_library(), make_library(seed=1, bare=True)
    old.save(tmp_path)
    for _ in failed_saves(new, tmp_path):
        found = ImageLibrary.load(tmp_path)
        for step in itertools.count(1):
            try:
                with at_step(step, die, WRITES), writing(tmp_path):
                    break
            except Killed:
                assert same(ImageLibrary.load(tmp_path), found)
        assert same(ImageLibrary.load(tmp_path), found)
        assert not (tmp_path / NEXT).exists()
        old.save(tmp_path)


def test_a_full_disk_at_any_step_is_told_and_leaves_a_whole_library(tmp_path):
    old, new = make_library(), make_library(seed=1)
    old.save(tmp_path)
    for error in failed_saves(new, tmp_path, fill_the_disk, LibraryError):
        assert "No space left on device" in str(error)
        assert repr(str(tmp_path)) in str(error)
        found = ImageLibrary.load(tmp_path)
        assert same(found, old) or same(found, new)
        assert not (tmp_path / NEXT).exists()
        old.save(tmp_path)


@pytest.mark.parametrize("names", [ODD_NAMES * 20, ["a"]], ids=["large arrays", "large manifest"])
def test_a_file_cut_short_by_the_system_is_told_and_the_old_library_stays(tmp_path, names):
    """For real: the kernel refuses to let any file grow beyond a limit."""
    resource = pytest.importorskip("resource")
    old, new = make_library(), make_library(seed=1, names=names)
    old.save(tmp_path)
    new.save(tmp_path / "new")
    biggest = max(file.stat().st_size for file in (tmp_path / "new").iterdir())
    _, hard = before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in range(64, biggest, biggest // 40):
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            with pytest.raises(LibraryError, match="File too large; the last complete library"):
                new.save(tmp_path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert same(ImageLibrary.load(tmp_path), old)
        assert not (tmp_path / NEXT).exists()
    new.save(tmp_path)
    assert same(ImageLibrary.load(tmp_path), new)


@pytest.mark.parametrize(("old", "new"), PAIRS.values(), ids=PAIRS)
@pytest.mark.parametrize("dies_at", [3, math.inf])
def test_a_writer_that_gets_in_at_any_step_of_a_reader(tmp_path, old, new, dies_at):
    """Whole saves, and saves that die between the moves of the two arrays."""
    came = set()

    def write():
        with at_step(dies_at, die, [(Path, "replace")]), suppress(Killed):
            new.save(tmp_path)

    for step in range(1, 30):
        old.save(tmp_path)
        with at_step(step, write, READS):
            found = ImageLibrary.load(tmp_path)
        came.add(same(found, new))
        assert same(found, old) or same(found, new)
    assert came == {False, True}


READER = """
import sys
from simsearch import ImageLibrary

seen = {"old": 0, "new": 0}
while min(seen.values()) < 100:
    library = ImageLibrary.load(sys.argv[1])
    kinds = {path.split("/")[0] for path in library.paths.tolist()}
    kinds |= {"old" if value > 0 else "new" for value in library.embeddings.ravel().tolist()}
    kinds |= {"old" if value > 0 else "new" for value in library.stats.ravel().tolist()}
    (kind,) = kinds
    seen[kind] += 1
print(sum(seen.values()))
"""


def test_a_reader_in_another_process_never_sees_half_a_save(tmp_path):
    old, new = (
        ImageLibrary(sign * np.ones((50, 8)), [f"{kind}/{i}.jpg" for i in range(50)])
        for kind, sign in (("old", 1), ("new", -1))
    )
    old.stats, new.stats = (sign * np.ones((50, 2), np.int64) for sign in (1, -1))
    old.save(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", READER, tmp_path], stdout=subprocess.PIPE, text=True
    ) as reader:
        while reader.poll() is None:
            new.save(tmp_path)
            old.save(tmp_path)
        assert reader.returncode == 0
        assert int(reader.stdout.read()) >= 200


HOLDER = """
import sys, time
from simsearch.library.files import writing

with writing(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_writer_is_turned_away_until_the_first_one_is_gone(folder):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, folder], stdout=subprocess.PIPE, text=True
    ) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(LibraryBusyError, match="another process is writing") as caught:
                make_library(seed=1).save(folder)
            assert repr(str(folder)) in str(caught.value)
            assert same(ImageLibrary.load(folder), make_library())
        finally:
            holder.kill()
        assert holder.wait() == -signal.SIGKILL
    make_library(seed=1).save(folder)
    assert same(ImageLibrary.load(folder), make_library(seed=1))


def test_a_second_writer_in_the_same_process_is_turned_away(folder):
    with writing(folder), pytest.raises(LibraryBusyError):
        make_library().save(folder)


def test_a_file_in_place_of_the_folder_is_told(tmp_path):
    (tmp_path / "outputs").touch()
    with pytest.raises(LibraryError, match=r"cannot write .*outputs': File exists"):
        make_library().save(tmp_path / "outputs")
    with pytest.raises(LibraryError, match=r"manifest\.json cannot be read"):
        ImageLibrary.load(tmp_path / "outputs")


# Paths


@pytest.mark.parametrize("before", ["dataset", ".", "/data/all", "../up"])
@pytest.mark.parametrize(
    ("root", "prefix"),
    [
        ("moved", "moved/"),
        ("moved/", "moved/"),
        ("./moved", "moved/"),
        (Path("far") / "off", "far/off/"),
        ("/mnt/disk", "/mnt/disk/"),
        ("/", "/"),
        (".", ""),
    ],
)
def test_a_moved_dataset_is_found_again(tmp_path, before, root, prefix):
    library = make_library(root=before)
    library.paths = np.array([in_folder(before, name) for name in NAMES])
    library.save(tmp_path)
    moved = ImageLibrary.load(tmp_path, root=root)
    assert moved.paths.tolist() == [prefix + name for name in NAMES]
    assert moved.names == list(NAMES)
    assert moved.folders.tolist() == ["forest", "forest", "sea", "sea", "."]
    moved.save(tmp_path)
    assert same(ImageLibrary.load(tmp_path), moved)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The folder of a notebook: a dataset with a linked file and a linked folder in it."""
    home = tmp_path / "home"
    for name in NAMES:
        file = home / "dataset" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "x.jpg").touch()
    (home / "dataset" / "linked").symlink_to(tmp_path / "store")
    (home / "dataset" / "z.jpg").symlink_to(tmp_path / "store" / "x.jpg")
    (home / "short").symlink_to(home / "dataset")
    (home / "one.jpg").symlink_to(home / "dataset" / NAMES[0])
    monkeypatch.chdir(home)
    return home


LISTED = (*NAMES, "linked/x.jpg", "z.jpg")
ROOTS = ["dataset", ".", "../home/dataset", "{home}/dataset", "short", "{home}/short"]


@pytest.mark.parametrize("given", ["dataset/", "./dataset/", "../home/dataset/", "{home}/dataset/"])
@pytest.mark.parametrize("root", ROOTS)
def test_a_path_is_found_in_any_form(home, root, given, monkeypatch):
    if root == ".":
        monkeypatch.chdir("dataset")
        given = given if given.startswith("{home}") else f"../{given}"
    root, given = root.format(home=home), given.format(home=home)
    library = make_library(names=LISTED, root=root)
    library.paths = np.array([in_folder(root, name) for name in LISTED])
    rows = range(len(NAMES))
    assert [library.find(given + LISTED[row]) for row in rows] == list(rows)
    assert [library.find(Path(given) / LISTED[row]) for row in rows] == list(rows)


@pytest.mark.parametrize(
    ("path", "row"),
    [
        ("short/forest/1.jpg", 0),
        ("one.jpg", 0),
        ("{home}/one.jpg", 0),
        ("dataset/../short/./forest/2.jpg", 1),
        ("dataset/linked/x.jpg", 5),
        ("{home}/dataset/linked/x.jpg", 5),
        ("{home}/dataset/z.jpg", 6),
    ],
)
def test_a_path_is_found_through_links(home, path, row):
    assert make_library(names=LISTED).find(path.format(home=home)) == row


@pytest.mark.parametrize(
    "path",
    ["forest/1.jpg", "dataset/forest/3.jpg", "dataset", "", "/", "..", "store/x.jpg", "a\0b", "é"],
)
@pytest.mark.parametrize("root", ["dataset", "{home}/dataset"])
def test_other_paths_are_not_found(home, path, root):
    assert make_library(root=root.format(home=home)).find(path) is None


@pytest.mark.parametrize("form", ["{}", "./{}", "dataset/../{}", "{home}/{}", "../home/{}"])
@pytest.mark.parametrize("listed", ["{}", "{home}/{}"])
def test_a_library_without_root_finds_its_paths_too(home, listed, form):
    names = [f"dataset/{name}" for name in NAMES]
    library = make_library(names=[listed.format(name, home=home) for name in names], bare=True)
    assert [library.find(form.format(name, home=home)) for name in names] == list(range(5))
    assert library.find(form.format("dataset/none.jpg", home=home)) is None


def test_the_first_of_equal_paths_is_found_in_any_order():
    rng = np.random.default_rng(0)
    paths = [f"{rng.integers(40)}{name}" for name in ODD_NAMES * 20]
    library = ImageLibrary(unit_rows(100), paths)
    assert [library.find(path) for path in paths] == [paths.index(path) for path in paths]


def test_a_row_is_current_until_its_file_changes(home):
    library = make_library()
    files = [Path(path).stat() for path in library.paths]
    library.stats = np.array([(file.st_size, file.st_mtime_ns) for file in files])
    assert all(library.is_current(row) for row in range(5))
    os.utime(library.paths[1], ns=(1, files[1].st_mtime_ns + 1))
    Path(library.paths[2]).write_bytes(b"other")
    os.utime(library.paths[2], ns=(1, files[2].st_mtime_ns))
    Path(library.paths[3]).unlink()
    assert [library.is_current(row) for row in range(5)] == [True, False, False, True, True]
    library.stats = None
    assert all(library.is_current(row) for row in range(5))


# What it says of itself


def test_it_says_what_it_holds(folder):
    library = ImageLibrary.load(folder)
    assert repr(library) == "ImageLibrary(5 images, 6-d, made by resnet50)"
    assert library.describe().splitlines() == [
        "5 images, 6-d embeddings",
        "backbone   resnet50 (IMAGENET1K_V1, float32)",
        "made from  dataset",
        "        1  .",
        "        2  forest",
        "        2  sea",
    ]
    assert (len(library), library.dim) == (5, 6)


def test_without_a_source_it_says_less():
    library = make_library(bare=True)
    assert repr(library) == "ImageLibrary(5 images, 6-d)"
    assert "backbone" not in library.describe()


@pytest.mark.parametrize("count", [1, 2, 5, 512])
def test_the_background_is_every_pair(count):
    library = ImageLibrary(unit_rows(count), [f"{i}.jpg" for i in range(count)])
    rows = library.embeddings.astype(np.float64)
    pairs = [rows[i] @ rows[j] for i in range(count) for j in range(i)]
    np.testing.assert_allclose(library.background, np.sort(pairs), atol=1e-6)


def test_the_background_of_many_rows_is_a_fair_sample_of_different_images():
    library = ImageLibrary(unit_rows(5000, dim=32), [f"{i}.jpg" for i in range(5000)])
    again = ImageLibrary(library.embeddings, library.paths)
    assert len(library.background) == 512 * 511 // 2
    assert library.background[-1] < 0.95
    assert abs(library.background.mean()) < 0.01
    assert library.background.std() == pytest.approx(32**-0.5, rel=0.05)
    np.testing.assert_array_equal(library.background, again.background)


# Its backbone


def tiny_backbone(dim=6, fill=1.0):
    """A network of one layer: the means of the colours, times a constant."""
    import torch

    layer = torch.nn.Linear(3, dim, bias=False)
    torch.nn.init.constant_(layer.weight, fill)
    module = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), layer)
    return load_backbone(
        module, transform=lambda image: torch.ones(3, 8, 8), device="cpu", precision="float32"
    )


def test_the_backbone_that_is_given_is_used(tmp_path):
    backbone = tiny_backbone()
    library = ImageLibrary(unit_rows(5), NAMES, backbone=backbone)
    assert library.backbone is backbone
    library.source = Source.of(backbone)
    assert library.source.weights == OWN_WEIGHTS
    library.save(tmp_path)
    assert ImageLibrary.load(tmp_path, backbone=backbone).backbone is backbone


def test_a_backbone_is_loaded_by_name_when_it_is_needed():
    library = ImageLibrary(unit_rows(5, dim=1280), NAMES, backbone="efficientnet_lite0")
    assert library.backbone.name == "efficientnet_lite0"
    assert library.backbone is library.backbone


@pytest.mark.parametrize("other", [{"dim": 7}, {"fill": 2.0}])
def test_another_backbone_is_refused(other):
    library = ImageLibrary(unit_rows(5), NAMES, backbone=tiny_backbone(**other))
    library.source = Source.of(tiny_backbone())
    with pytest.raises(BackboneError, match=r"is not what made this library .*; pass the backbone"):
        _ = library.backbone


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (None, BackboneError, r"pass backbone= to ImageLibrary"),
        (Source("Net", OWN_WEIGHTS, "0", "float32"), BackboneError, r"made by Net, .* pass it"),
        (Source("resnet99", "v1", "0", "float32"), BackboneError, r"resnet99"),
        (Source("resnet18", "/none/w.pth", "0", "float32"), WeightsError, r"/none/w\.pth"),
    ],
)
def test_a_backbone_that_cannot_be_had_says_what_to_do(source, error, message):
    library = make_library()
    library.source = source
    with pytest.raises(error, match=message):
        _ = library.backbone
