"""One writer at a time, and a whole library whatever happens to it."""

import itertools
import math
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from errno import ENOSPC
from pathlib import Path

import numpy as np
import pytest
from library_cases import ODD_NAMES, make_library, same

from simsearch.errors import LibraryBusyError, LibraryError
from simsearch.library.files import (
    NEXT,
    writing,
)
from simsearch.library.library import ImageLibrary


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


def test_a_writer_that_ends_and_begins_again_at_any_step_of_a_reader(tmp_path):
    """Where the reader has seen a committed library, files of one that is not lie by then."""
    old, new = PAIRS["longer"]
    moves = [(Path, name) for name in ("replace", "unlink", "rmdir")]

    def end_and_begin():
        with writing(tmp_path):
            pass  # the library that was committed is moved into place
        with at_step(1, die, moves), suppress(Killed):
            old.save(tmp_path)  # up to its manifest
        assert (tmp_path / NEXT).exists()

    for step in range(1, 30):
        shutil.rmtree(tmp_path)
        old.save(tmp_path)
        with at_step(2, die, [(Path, "replace")]), suppress(Killed):
            new.save(tmp_path)  # committed, and not yet moved
        with at_step(step, end_and_begin, READS):
            found = ImageLibrary.load(tmp_path)
        assert same(found, new)


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
