"""Parts through faults: stopped at any step, a run leaves what counted before, or what it made."""

import shutil
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from library_cases import unit_rows
from part_cases import DIM, scan, store_parts

import simsearch as ss
from simsearch.library import part_writer
from simsearch.library.part_writer import PartWriter
from simsearch.library.parts import PartRecord, open_parts, part_dtype, picture_keys
from simsearch.retrieval import part_copy, part_index, part_scan

PICTURES = 12


class StoppedError(BaseException):
    """Stands for the end of the process: nothing in the package may catch it."""


class Faults:
    """Stops at the n-th of the calls that it watches, before or after it has taken effect."""

    def __init__(self, monkeypatch, places, at, *, after):
        self.left, self.after = at, after
        for owner, name in places:
            monkeypatch.setattr(owner, name, self.watched(getattr(owner, name)))

    def watched(self, function):
        def call(*given, **options):
            self.left -= 1
            if self.left == 0 and not self.after:
                raise StoppedError
            result = function(*given, **options)
            if self.left == 0:
                raise StoppedError
            return result

        return call

    @property
    def struck(self):
        return self.left <= 0


WRITING = (
    (part_writer.os, "fsync"),
    (part_writer, "write_record"),
    (part_writer, "write_text"),
    (part_writer, "copy_blocks"),
    (zlib, "crc32"),
    (Path, "unlink"),
)


def rows_of(picture):
    rows = np.zeros(3, part_dtype(DIM))
    rows["row"], rows["label"] = unit_rows(3, DIM, 1000 + picture), -1
    return rows


def write_parts(folder, pictures, live, generation=1):
    """Append the parts of pictures that have none, and commit with these in use."""
    library = ss.ImageLibrary.as_stored(folder)
    keys = picture_keys(library, "grid")
    record = PartRecord("grid", generation, library.fingerprint, DIM)
    with PartWriter(folder, record) as writer:
        there = {entry["key"].tobytes() for entry in writer.pictures}
        for picture in pictures:
            if keys[picture].tobytes() not in there:
                writer.append(keys[picture], (60, 40), rows_of(picture))
        places = {entry["key"].tobytes(): i for i, entry in enumerate(writer.pictures)}
        chosen = [places[keys[picture].tobytes()] for picture in live]
        writer.commit(np.array(chosen), [])


def check_parts_of(folder, allowed):
    """The pictures with parts are one of the sets allowed, each with its own parts."""
    library = ss.ImageLibrary.as_stored(folder)
    parts = open_parts(library)
    there = {row for row in range(PICTURES) if parts.stored[row] >= 0}
    assert there in allowed
    for row in there:
        np.testing.assert_array_equal(parts.parts[parts.of(row)]["row"], rows_of(row)["row"])
    vector = unit_rows(1, DIM, 3)
    found = ss.search(library, vector[0], k=PICTURES, parts=True)
    np.testing.assert_allclose(found.scores, np.sort(scan(library, vector))[::-1], atol=1e-6)


@pytest.fixture
def folder(tmp_path):
    store_parts(tmp_path / "outputs", [None] * PICTURES, np.random.default_rng(0))
    write_parts(tmp_path / "outputs", range(8), range(8))
    return tmp_path / "outputs"


# What is written, and the pictures that have parts then: more of them; only the last ones, so that
# the files are written anew; and all in another way.
RUNS = {
    "grows": ((range(12), range(12), 1), set(range(12))),
    "compacts": ((range(12), range(9, 12), 1), {9, 10, 11}),
    "another way": ((range(5), range(5), 2), set(range(5))),
}


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_stops_at_any_step_leaves_one_state_or_the_other(folder, tmp_path, name, after):
    arguments, result = RUNS[name]
    for at in range(1, 200):
        copy = tmp_path / f"{at}"
        shutil.copytree(folder, copy)
        with pytest.MonkeyPatch.context() as patch:
            faults = Faults(patch, WRITING, at, after=after)
            with suppress(StoppedError):
                write_parts(copy, *arguments)
        check_parts_of(copy, [set(range(8)), result])
        write_parts(copy, *arguments)  # is taken up
        check_parts_of(copy, [result])
        if not faults.struck:
            break
    assert 8 < at < 199


def test_a_copy_that_stops_at_any_step_is_never_taken_for_whole(folder, monkeypatch, tmp_path):
    for module in (part_index, part_scan):
        monkeypatch.setattr(module, "SHORT_FROM_PARTS", 1)
    places = ((part_copy, "atomic_write"), (part_copy, "write_text"), (part_copy, "file_record"))
    for at in range(1, 9):
        copy = tmp_path / f"{at}"
        shutil.copytree(folder, copy)
        with pytest.MonkeyPatch.context() as patch:
            faults = Faults(patch, places, at, after=True)
            library = ss.ImageLibrary.as_stored(copy)
            with suppress(StoppedError):
                ss.search(library, unit_rows(1, DIM, 3)[0], parts=True)
        check_parts_of(copy, [set(range(8))])
        write_parts(copy, range(12), range(12))
        check_parts_of(copy, [set(range(12))])
        if not faults.struck:
            break
    assert 1 < at < 8
