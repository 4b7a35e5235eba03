"""Damage that keeps a file's size and time: found by digests of blocks, said, and mended."""

import json
import logging
import os
import shutil
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from types import SimpleNamespace
from weakref import ref

import numpy as np
import pytest
from damage import flip
from hypothesis import given, settings
from hypothesis import strategies as st
from library_cases import unit_rows

import simsearch as ss
from simsearch import registry
from simsearch.cli.main import main
from simsearch.errors import DamagedLibraryError, LibraryError
from simsearch.files import sha256_file
from simsearch.library import background_check, files, row_file
from simsearch.library.block_digests import BLOCK_BYTES, damaged_blocks, file_record
from simsearch.library.files import BLOCKS, EMBEDDINGS, MANIFEST, PATHS
from simsearch.library.row_file import rows_of_blocks

ROWS, DIM = 700, 400  # 1.1 MB: 18 blocks, of which a row lies in one or two


def make(folder, rows=ROWS, dim=DIM, seed=0):
    library = ss.ImageLibrary(unit_rows(rows, dim, seed), [f"{i:05}.jpg" for i in range(rows)])
    library.save(folder)
    return library


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verify") / "outputs"
    make(folder)
    return folder


@pytest.fixture
def folder(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "outputs"))


@pytest.fixture(params=["small", "kept", "read anew"])
def size(request, monkeypatch):
    """How a library is opened: in memory, or read by blocks that are kept, or read anew."""
    monkeypatch.setattr(registry, "LARGE_BYTES", 2**40 if request.param == "small" else 0)
    monkeypatch.setattr(row_file, "KEPT_BYTES", 0 if request.param == "read anew" else 2**40)
    return request.param


def place_of(row, column=0):
    return 128 + 4 * (row * DIM + column)


# Digests


@settings(deadline=None, max_examples=50)
@given(
    size=st.integers(0, 3 * BLOCK_BYTES),
    edits=st.lists(st.integers(0, 3 * BLOCK_BYTES - 1), max_size=4),
    cut=st.integers(0, 2 * BLOCK_BYTES),
)
def test_damaged_blocks_are_those_of_which_a_byte_differs(tmp_path_factory, size, edits, cut):
    file = tmp_path_factory.mktemp("blocks") / "file"
    data = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    file.write_bytes(data.tobytes())
    record = file_record(file)
    assert record["sha256"] == sha256_file(file)
    changed = data.copy()
    for place in {place for place in edits if place < size}:
        changed[place] ^= 255
    changed = changed[: max(0, size - cut)]
    blocks = [data[i : i + BLOCK_BYTES].tobytes() for i in range(0, size, BLOCK_BYTES)]
    now = [changed[i : i + BLOCK_BYTES].tobytes() for i in range(0, size, BLOCK_BYTES)]
    assert damaged_blocks(changed, record) == [
        i for i, (a, b) in enumerate(zip(blocks, now, strict=True)) if a != b
    ]


@settings(deadline=None)
@given(
    blocks=st.sets(st.integers(0, 9)),
    begin=st.sampled_from([128, 192]),
    dim=st.sampled_from([3, 100, 1280, 40_000]),
)
def test_rows_of_blocks_are_those_that_share_a_byte_with_one(blocks, begin, dim):
    count = (10 * BLOCK_BYTES - begin) // (4 * dim)
    found = rows_of_blocks(blocks, begin, (count, dim)).tolist()
    bounds = [(begin + 4 * dim * row, begin + 4 * dim * (row + 1)) for row in range(count)]
    assert found == [
        row
        for row, (start, end) in enumerate(bounds)
        if any(start < (b + 1) * BLOCK_BYTES and end > b * BLOCK_BYTES for b in blocks)
    ]


# Reading


def test_a_library_is_the_same_however_it_is_opened(folder, size):
    library, rows = ss.ImageLibrary.load(folder), unit_rows(ROWS, DIM)
    look = library.row_lookup
    np.testing.assert_array_equal(library.embeddings, rows)
    for chosen in (5, -1, slice(3, 600), slice(9, 2, -3), [4, 4, 0], np.arange(ROWS) % 3 == 0):
        np.testing.assert_array_equal(look[chosen], rows[chosen])
    with pytest.raises(IndexError):
        look[[ROWS]]


def test_a_flipped_bit_in_a_row_of_the_answer_is_refused(folder, size):
    flip(folder / EMBEDDINGS, place_of(321, 7))
    with pytest.raises(DamagedLibraryError, match=r"damaged") as caught:
        ss.search(ss.ImageLibrary.load(folder), unit_rows(ROWS, DIM)[321], k=5)
    assert EMBEDDINGS in str(caught.value)
    assert "embed" in str(caught.value)


def test_a_small_file_is_checked_whole(tmp_path):
    make(tmp_path, rows=5)
    assert not (tmp_path / BLOCKS).exists()
    for name in (EMBEDDINGS, PATHS):
        flip(tmp_path / name, -1 + (tmp_path / name).stat().st_size)
        with pytest.raises(DamagedLibraryError, match=f"{name} is damaged"):
            ss.ImageLibrary.load(tmp_path)
        flip(tmp_path / name, -1 + (tmp_path / name).stat().st_size)
    assert len(ss.ImageLibrary.load(tmp_path)) == 5


def test_digests_that_are_damaged_themselves_are_refused(folder):
    flip(folder / BLOCKS, 40)
    with pytest.raises(LibraryError, match=BLOCKS):
        ss.ImageLibrary.load(folder)


def test_small_files_are_known_as_a_whole_and_not_called_old(tmp_path):
    ss.ImageLibrary(np.eye(5), [f"{i}.jpg" for i in range(5)]).save(tmp_path)
    report = str(ss.verify_library(tmp_path, progress=False))
    assert "embeddings.npy: right (as a whole, as every file under 1 MiB)" in report
    assert "earlier version" not in report


def test_a_library_of_an_earlier_version_opens_and_gets_its_digests_later(folder):
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["blocks"]
    (folder / MANIFEST).write_text(json.dumps(manifest))
    (folder / BLOCKS).unlink()
    assert len(ss.ImageLibrary.load(folder)) == ROWS
    report = ss.verify_library(folder, progress=False)
    assert report.ok
    assert "an earlier version recorded no blocks" in str(report)
    flip(folder / EMBEDDINGS, place_of(3))
    assert not ss.verify_library(folder, progress=False).ok


# Long-lived readers

READER = """
    import sys
    import numpy as np
    import simsearch as ss
    from simsearch import registry
    from simsearch.library import files, row_file

    files.CHECKED_ROWS = 1  # or opening would read all
    folder, large, kept = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    registry.LARGE_BYTES, row_file.KEPT_BYTES = large, kept
    library = ss.ImageLibrary.load(folder)
    query = np.array(library.row_lookup[10])
    print("open", flush=True)
    for line in sys.stdin:
        try:
            found = [match.row for match in ss.search(library, query, k=700)]
            print(found[0], len(found), flush=True)
        except ss.DamagedLibraryError as error:
            print("refused", error, flush=True)
"""


@pytest.mark.parametrize("act", ["cut", "overwritten", "replaced"])
@pytest.mark.parametrize(("large", "kept"), [(2**40, 0), (0, 2**40), (0, 0)])
def test_a_reader_survives_what_is_done_to_the_file(folder, act, large, kept):
    """In another process: a file that is mapped and cut in its place would end it (SIGBUS)."""
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(READER), str(folder), str(large), str(kept)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(ss.__file__).parents[1])},
    ) as reader:
        assert reader.stdout.readline() == "open\n"
        file = folder / EMBEDDINGS
        if act == "cut":
            os.truncate(file, 4096)
        elif act == "overwritten":
            with file.open("r+b") as stream:
                stream.write(bytes(file.stat().st_size))
        else:
            make(folder, seed=1)
        reader.stdin.write("ask\n")
        reader.stdin.flush()
        answer = reader.stdout.readline()
        reader.stdin.close()
        assert reader.wait(60) == 0
    if act == "replaced" or large:
        assert answer == "10 700\n"  # of the library that was opened
    else:
        assert answer.startswith("refused")
        assert "changed in its place since it was opened" in answer


def test_rows_that_were_read_stay_right_when_the_file_is_overwritten(folder, monkeypatch):
    monkeypatch.setattr(registry, "LARGE_BYTES", 0)
    library = ss.ImageLibrary.load(folder)
    before = library.row_lookup[:].copy()
    (folder / EMBEDDINGS).write_bytes(b"")
    np.testing.assert_array_equal(library.row_lookup[:], before)


def test_a_check_in_the_background_finds_damage_and_says_so(folder, monkeypatch, caplog):
    monkeypatch.setattr(registry, "LARGE_BYTES", 0)
    rows = ss.ImageLibrary.load(folder).row_file
    assert background_check.check_once(ref(rows), threading.Event())
    flip(folder / EMBEDDINGS, place_of(500))
    rows[[0]]
    with caplog.at_level(logging.ERROR):
        assert not background_check.check_once(ref(rows), threading.Event())
    assert "are damaged on the disk" in caplog.text
    with pytest.raises(DamagedLibraryError, match="damaged on the disk"):
        rows[[0]]


def test_a_slow_check_pauses_longer_and_keeps_its_priority(folder, monkeypatch):
    """A thread of a low priority would be stopped while it holds the interpreter's lock."""
    monkeypatch.setattr(registry, "LARGE_BYTES", 0)
    rows = ss.ImageLibrary.load(folder).row_file
    clock, waits = iter(range(1000)), []
    monkeypatch.setattr(background_check, "time", SimpleNamespace(monotonic=lambda: next(clock)))

    class Stop:
        def wait(self, seconds):
            waits.append(seconds)

    assert background_check.check_once(ref(rows), Stop())
    assert set(waits) == {10}
    background_check.watch(rows)
    thread = next(each for each in threading.enumerate() if each.name == "check of the rows")
    if hasattr(os, "getpriority"):
        ours = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        assert os.getpriority(os.PRIO_PROCESS, thread.native_id) == ours


def test_the_check_starts_with_a_search(folder, monkeypatch):
    monkeypatch.setattr(registry, "LARGE_BYTES", 0)
    monkeypatch.setattr("simsearch.retrieval.exact.PRUNED_FROM_BYTES", 0)
    monkeypatch.setattr(background_check, "START_SECONDS", 0.0)
    monkeypatch.setattr(files, "CHECKED_ROWS", 1)
    flip(folder / EMBEDDINGS, place_of(500))
    library = ss.ImageLibrary.load(folder)
    rows = library.row_file
    rows._good[:] = True  # as if all had been read before
    rows._kept[:] = np.fromfile(folder / EMBEDDINGS, np.uint8)
    rows._kept[place_of(500)] ^= 1

    def search_on():
        for _ in range(200):
            ss.search(library, 0, k=3)
            threading.Event().wait(0.05)

    with pytest.raises(DamagedLibraryError, match="are damaged on the disk"):
        search_on()


# verify


def test_verify_names_files_blocks_rows_and_the_mend(folder, capsys):
    assert ss.verify_library(folder, progress=False).ok
    assert main(["verify", str(folder)]) == 0
    flip(folder / EMBEDDINGS, place_of(0), place_of(650))
    report = ss.verify_library(folder, progress=False)
    assert [file.name for file in report.damaged] == [EMBEDDINGS]
    assert report.damaged[0].damaged == (0, place_of(650) // BLOCK_BYTES)
    assert {0, 650} <= set(report.rows) < set(range(ROWS))
    assert report.paths == tuple(f"{row:05}.jpg" for row in report.rows)
    assert main(["verify", str(folder)]) == 1
    shown = capsys.readouterr().out
    assert "embed the dataset again" in shown
    assert f"damaged in block 0, {place_of(650) // BLOCK_BYTES} of 18 blocks" in shown
    assert "damaged rows: 0 to" in shown


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_verify_finds_any_flipped_bit_of_any_file(made, tmp_path_factory, data):
    folder = Path(shutil.copytree(made, tmp_path_factory.mktemp("flip") / "outputs"))
    name = data.draw(st.sampled_from([EMBEDDINGS, PATHS, BLOCKS]))
    place = data.draw(st.integers(0, (folder / name).stat().st_size - 1))
    flip(folder / name, place, bit=1 << data.draw(st.integers(0, 7)))
    if name == BLOCKS:
        with pytest.raises(LibraryError, match=name):
            ss.verify_library(folder, progress=False)
    else:
        damaged = ss.verify_library(folder, progress=False).damaged
        assert [file.name for file in damaged] == [name]


def test_verify_finds_damage_of_what_is_made_from_a_library(folder, monkeypatch):
    monkeypatch.setattr("simsearch.retrieval.exact.PRUNED_FROM_BYTES", 0)
    monkeypatch.setattr(registry, "LARGE_BYTES", 0)
    ss.search(ss.ImageLibrary.load(folder), 0)
    names = {file.name for file in ss.verify_library(folder, progress=False).files}
    assert {EMBEDDINGS, "sketch_rows.npy"} <= names
    flip(folder / "sketch_rows.npy", 200)
    report = ss.verify_library(folder, progress=False)
    assert [(file.name, file.of_library) for file in report.damaged] == [("sketch_rows.npy", False)]
    (folder / "sketch_rows.npy").unlink()
    assert ss.verify_library(folder, progress=False).damaged[0].reason == "missing"


def test_a_manifest_without_records_is_told(folder):
    (folder / MANIFEST).write_text(json.dumps({"format": files.FORMAT}))
    with pytest.raises(LibraryError, match="cannot be checked"):
        ss.verify_library(folder)
