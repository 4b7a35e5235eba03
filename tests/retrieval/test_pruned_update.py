"""The pruned copy of a library that has changed: what is kept, what is made anew, and kills."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import answers, clustered, expected, make_library, unit

from simsearch.library.library import ImageLibrary
from simsearch.library.user_key import signed
from simsearch.retrieval import pruned_store, pruned_update
from simsearch.retrieval.pruned_store import ARRAY, RECORD, ROWS, open_copy, pruned_copy_of

COUNT = 1500
LAST_INSTANT = 32  # by which a copy is written


pytestmark = pytest.mark.usefixtures("small")


@pytest.fixture
def projected(monkeypatch):
    """How many rows were projected each time that some were."""
    counts, project = [], pruned_update.project_rows
    monkeypatch.setattr(
        pruned_update,
        "project_rows",
        lambda rows, basis: counts.append(len(rows)) or project(rows, basis),
    )
    return counts


def store(folder, rows):
    make_library(rows).save(folder, overwrite=True)
    return ImageLibrary.load(folder)


def check(library, copy=None):
    """Every cosine is below its bound in the copy, and searches find what brute force finds."""
    copy = copy or pruned_copy_of(library)
    rows = np.asarray(library.embeddings)
    vectors = np.concatenate([rows[::97], unit(np.random.default_rng(1).standard_normal((3, 48)))])
    heads, norms = copy.project(vectors)
    cosines = vectors.astype(float) @ rows.T.astype(float)
    scores = np.cumsum(heads @ copy.levels.transpose(0, 2, 1), axis=0, dtype=np.float32)
    bounds = scores + norms[:, :, None] * copy.residual_norms[:, None] + copy.score_error
    assert (bounds >= cosines).all()
    assert answers(library, vectors, 5) == [expected(library, vector, 5) for vector in vectors]


def test_only_rows_that_are_new_are_projected(tmp_path, made, projected):
    rows = clustered(COUNT)
    check(store(tmp_path, rows))
    assert made
    made.clear()
    extra = clustered(3, seed=9)
    changed = np.concatenate([extra[:1], rows[:700], extra[1:2], rows[701:], extra[2:]])
    library = store(tmp_path, changed)
    check(library)
    assert not made
    assert sum(projected) == 3
    copy, other = pruned_copy_of(library), ImageLibrary.load(tmp_path)
    for stored, own in zip(pruned_copy_of(other), copy, strict=True):
        np.testing.assert_array_equal(stored, own)
    assert sum(projected) == 3  # the new one was stored


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_after_any_changes_the_bounds_hold(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("outputs")
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    rows = clustered(400)
    check(store(folder, rows))
    for _ in range(data.draw(st.integers(1, 3))):
        gone, new, twice = (data.draw(st.integers(0, 90)) for _ in range(3))
        kept = np.delete(rows, rng.choice(len(rows), gone, replace=False), axis=0)
        added = unit(rng.standard_normal((new, 48)))
        rows = np.concatenate([kept, added, kept[:twice]])
        rows = rows[rng.permutation(len(rows))] if data.draw(st.booleans()) else rows
        check(store(folder, rows))


def test_directions_are_chosen_anew_once_many_rows_have_come(tmp_path, made):
    rows = clustered(COUNT)
    check(store(tmp_path, rows))
    counts = []
    for seed in range(1, 5):
        rows = np.concatenate([rows, clustered(150, seed=seed)])
        made.clear()
        check(store(tmp_path, rows))
        counts.append(len(made))
    assert counts == [0, 0, 1, 0]  # 10%, 20%, 30% of the rows that they were chosen for


def test_none_of_its_rows_left_makes_another(tmp_path, made):
    check(store(tmp_path, clustered(COUNT)))
    check(store(tmp_path, clustered(COUNT, seed=3)))
    assert len(made) == 2


def test_a_library_of_another_width_makes_another(tmp_path, made):
    check(store(tmp_path, clustered(COUNT)))
    library = store(tmp_path, np.pad(clustered(COUNT), ((0, 0), (0, 2)))[:, :49])
    pruned_copy_of(library)
    assert len(made) == 2


def test_where_no_copy_pays_that_is_known_of_the_next_library_too(tmp_path, made):
    rows = np.random.default_rng(0).standard_normal((COUNT, 48))
    for count in (COUNT - 1, COUNT):
        assert not pruned_copy_of(store(tmp_path, rows[:count])).survivor_shares
    assert len(made) == 1
    assert not (tmp_path / ARRAY).exists()


@pytest.mark.parametrize("name", [ARRAY, ROWS, RECORD])
@pytest.mark.parametrize("damage", ["gone", "cut", "flipped", "empty"])
def test_a_damaged_old_copy_is_no_source(tmp_path, made, name, damage):
    rows = clustered(COUNT)
    check(store(tmp_path, rows))
    file = tmp_path / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes({"cut": data[:-9], "flipped": data, "empty": b""}[damage])
        os.utime(file, (1, 1))
    check(store(tmp_path, rows[:-1]))
    assert len(made) == 2


def test_a_record_of_an_earlier_version_is_used_for_its_own_rows_only(tmp_path, made):
    rows = clustered(COUNT)
    check(store(tmp_path, rows))
    record = json.loads((tmp_path / RECORD).read_text())
    record = {key: record[key] for key in ("format", "of", "shares", "file")}
    record["sha256"] = pruned_store._record_digest(record)
    (tmp_path / RECORD).write_text(json.dumps(signed(record, RECORD)))
    (tmp_path / ROWS).unlink()
    check(ImageLibrary.load(tmp_path))
    assert len(made) == 1
    check(store(tmp_path, rows[:-1]))
    assert len(made) == 2


KILLED = """
import os, sys
sys.path[:0] = {folders!r}
from simsearch.retrieval import exact, pruned_copy, pruned_store
exact.PRUNED_FROM_BYTES, exact.GATHER_ROW_COST = 0, 0.0
pruned_copy.LEVEL_COLUMNS, pruned_copy.MAX_COLUMNS = (2, 4, 8), 16
from simsearch.library.library import ImageLibrary
library, left = ImageLibrary.load({folder!r}), {instant}

def count(event, args):
    global left
    if event in ("open", "os.rename", "os.remove") and "sketch" in str(args[0]):
        left -= 1
        if left < 0:
            os._exit(9)

sys.addaudithook(count)
pruned_store.pruned_copy_of(library)
"""


@pytest.mark.parametrize("instant", range(LAST_INSTANT + 1))
def test_killed_at_any_instant_no_stale_copy_is_used(tmp_path, instant):
    """A process is killed before each time that it opens, renames or removes a file."""
    rows = clustered(COUNT)
    check(store(tmp_path, rows))
    changed = np.concatenate([clustered(2, seed=9), rows[5:]])
    library = store(tmp_path, changed)
    folders = [str(Path(__file__).parent), str(Path(oracle.__file__).parent)]
    code = KILLED.format(folders=folders, folder=str(tmp_path), instant=instant)
    ended = subprocess.run([sys.executable, "-c", code], check=False, timeout=120)
    assert ended.returncode in {0, 9}
    stored = open_copy(library)
    if stored is not None:
        check(library, stored)
    check(library)
    check(store(tmp_path, rows))
    if instant == LAST_INSTANT:
        assert ended.returncode == 0  # as many instants as there are
