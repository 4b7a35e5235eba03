"""The narrow copy: its bounds hold, and what is stored is used, and never trusted blindly."""

import copy
import gc
import json
import os
import shutil
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import oracle
import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import KINDS, answers, clustered, expected, make_library, make_rows, unit

from simsearch.backbones.heads import ProjectionHead
from simsearch.library.library import ImageLibrary
from simsearch.retrieval import exact, pruned_copy, pruned_store
from simsearch.retrieval.pruned_store import ARRAY, RECORD, pruned_copy_of

ASKED = 7  # rows that are asked for to see that answers are right


pytestmark = pytest.mark.usefixtures("small")


@pytest.fixture
def folder(tmp_path):
    """A stored library whose sketch is stored too."""
    make_library(clustered()).save(tmp_path / "outputs")
    search(tmp_path / "outputs")
    return tmp_path / "outputs"


def search(folder):
    """Load a library, ask it, and check the answers."""
    library = ImageLibrary.load(folder)
    check(library)
    return library


def check(library):
    vectors = np.asarray(library.embeddings[:ASKED])
    assert answers(library, vectors, 5) == [expected(library, v, 5) for v in vectors]
    assert pruned_copy_of(library).survivor_shares


def contents(folder):
    return {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in folder.iterdir()}


# Bounds


def bounds(sketched, vectors, *, rounding=True):
    """Upper bound of every cosine after each level: (L, Q, N) float32."""
    heads, rests = sketched.project(vectors)
    guesses = np.cumsum(heads @ sketched.levels.transpose(0, 2, 1), axis=0, dtype=np.float32)
    products = rests[:, :, None] * sketched.residual_norms[:, None]
    return guesses + products + (np.float32(sketched.score_error) if rounding else 0)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32), kind=st.sampled_from(KINDS))
def test_no_cosine_is_above_its_bound(data, seed, kind):
    rng = np.random.default_rng(seed)
    count, dim = data.draw(st.integers(2, 100)), data.draw(st.integers(4, 64))
    library = make_library(make_rows(kind, count, dim, rng))
    width = data.draw(st.integers(1, dim // 2))
    basis = np.linalg.qr(rng.standard_normal((dim, dim)))[0][:, : width * (dim // width)]
    plan = pruned_copy.Plan(basis.astype(np.float32), width, (0.1,) * (dim // width))
    sketched = pruned_copy.in_memory(library.embeddings, plan)
    vectors = np.concatenate([library.embeddings, unit(rng.standard_normal((5, dim)))])
    exact = vectors.astype(float) @ library.embeddings.T.astype(float)
    assert (bounds(sketched, vectors) >= exact).all()
    assert (np.diff(sketched.residual_norms, axis=0) <= 1e-6).all()  # each level leaves out less


def test_a_bound_holds_though_rounding_does_its_worst(monkeypatch):
    """Every projection is off by all that theory allows, rows and queries against each other."""
    rng = np.random.default_rng(0)
    dim, width = 256, 16
    flat = unit(rng.standard_normal((50, width))) @ np.eye(width, dim, dtype=np.float32)
    rows, vectors = flat[:40], flat[40:]  # with nothing left out, there is no rest to hide behind
    project, worst = (
        pruned_copy.project_rows,
        np.sqrt(width) * pruned_copy.SUMMED_COLUMNS * 2.0**-24,
    )

    def off(some, basis):
        heads = project(some, basis)
        against = vectors if len(some) == len(rows) else rows
        pulls = unit(project(against, basis).sum(axis=0, keepdims=True))
        return heads - np.float32(worst) * pulls

    monkeypatch.setattr(pruned_copy, "project_rows", off)
    plan = pruned_copy.Plan(np.eye(dim, width, dtype=np.float32), width, (0.1,))
    exact = vectors.astype(float) @ rows.T.astype(float)
    assert (bounds(pruned_copy.in_memory(rows, plan), vectors) >= exact).all()
    monkeypatch.setattr(pruned_copy, "rounding_bounds", lambda basis: (0.0, 0.0))
    assert (bounds(pruned_copy.in_memory(rows, plan), vectors) < exact).any()


def test_a_basis_that_is_not_quite_orthonormal_is_allowed_for():
    rng = np.random.default_rng(0)
    rows = unit(rng.standard_normal((200, 32)))
    basis = np.linalg.qr(rng.standard_normal((32, 8)))[0]
    for skew in (1e-6, 1e-3):
        bent = (basis + skew * rng.standard_normal(basis.shape)).astype(np.float32)
        sketched = pruned_copy.in_memory(rows, pruned_copy.Plan(bent, 8, (0.1,)))
        assert (bounds(sketched, rows) >= rows.astype(float) @ rows.T.astype(float)).all()
        assert sketched.score_error > skew


# What is worth a copy


def test_levels_are_chosen_where_they_pay():
    chosen = pruned_copy_of(make_library(clustered()))
    assert 1 <= chosen.depth(1) <= len(chosen.survivor_shares)
    assert all(0 < share < 0.2 for share in chosen.survivor_shares)
    assert list(chosen.survivor_shares) == sorted(chosen.survivor_shares, reverse=True)
    count, rows, width = chosen.levels.shape
    assert (count, rows) == chosen.residual_norms.shape == (len(chosen.survivor_shares), 1500)
    assert chosen.basis.shape == (48, count * width)
    assert count * width <= 16


@pytest.mark.parametrize("dim", [1, 48])
def test_no_levels_are_chosen_where_none_pays(tmp_path, made, dim):
    rows = np.random.default_rng(0).standard_normal((1500, dim))
    library = make_library(rows)
    library.save(tmp_path)
    for _ in range(2):
        library = ImageLibrary.load(tmp_path)
        assert pruned_copy_of(library).depth(1) == pruned_copy_of(library).depth(100) == 0
        vectors = np.asarray(library.embeddings[:3])
        assert answers(library, vectors, 5) == [expected(library, v, 5) for v in vectors]
    assert len(made) == 1
    assert (tmp_path / RECORD).exists()
    assert not (tmp_path / ARRAY).exists()


def test_more_queries_are_worth_more_levels(monkeypatch):
    monkeypatch.setattr(exact, "GATHER_ROW_COST", 60.0)
    shares = (0.1, 0.01, 0.005)
    depths = [pruned_copy.best_depth(2048, 128, shares, queries)[0] for queries in (1, 100)]
    assert depths == sorted(depths)
    assert depths[0] == 1
    assert depths[1] > 1
    assert pruned_copy.best_depth(2048, 128, (0.9, 0.8), 1)[0] == 0


@pytest.mark.parametrize("count", [1, 2, 9, 40])
def test_the_smallest_libraries_are_measured_too(count):
    library = make_library(clustered()[:count])
    assert pruned_copy_of(library) is not None
    vectors = library.embeddings[:2]
    assert answers(library, vectors, 3) == [expected(library, v, 3) for v in vectors]


def test_a_long_making_is_shown_and_a_short_one_is_not(monkeypatch, capsys):
    for least, shown in ((2**31, False), (0, True)):
        monkeypatch.setattr(pruned_copy, "PROGRESS_BYTES", least)
        check(make_library(clustered()))
        assert ("Preparing the library" in capsys.readouterr().err) == shown


# Stored


def test_a_stored_copy_is_used_and_read(folder, made):
    before = contents(folder)
    assert {ARRAY, RECORD} <= before.keys()
    library = search(folder)
    assert not made
    assert contents(folder) == before
    chosen = pruned_copy_of(library)
    assert chosen is pruned_copy_of(library)
    assert not chosen.levels.flags.writeable
    assert not isinstance(chosen.levels.base, np.memmap)  # a file that is cut would end the process


def test_a_stored_copy_equals_one_in_memory(folder):
    stored = pruned_copy_of(ImageLibrary.load(folder))
    fresh = pruned_copy_of(make_library(clustered()))
    for one, other in zip(stored, fresh, strict=True):
        np.testing.assert_array_equal(one, other)


def test_blocks_of_any_size_make_the_same_copy(monkeypatch):
    whole = pruned_copy_of(make_library(clustered()))
    monkeypatch.setattr(pruned_copy, "BLOCK_ROWS", 7)
    parts = pruned_copy_of(make_library(clustered()))
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_copied_library_takes_its_sketch_along(folder, tmp_path, made):
    moved = shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile)
    for file in moved.iterdir():
        os.utime(file, (1, 1))
    search(moved)
    assert not made


def test_other_rows_in_the_same_place_get_their_own(folder, made):
    old = ImageLibrary.load(folder)
    for seed, count in ((1, 1500), (2, 1400)):
        make_library(clustered(count, seed=seed)).save(folder)
        search(folder)
        assert len(made) == seed
    check(old)  # still over the rows that it was loaded with


def test_the_same_rows_saved_again_keep_it(folder, made):
    ImageLibrary.load(folder).save(folder)
    search(folder)
    assert not made


def flip(name, at):
    def damage(folder):
        file = folder / name
        data = bytearray(file.read_bytes())
        data[int(at * (len(data) - 1))] ^= 1
        later = file.stat().st_mtime_ns + 1
        file.write_bytes(data)
        os.utime(file, ns=(later, later))

    return damage


def rewrite(text):
    return lambda folder: (folder / RECORD).write_text(text)


def take(*names):
    """Take files from the sketch of another library, all of the same sizes."""

    def damage(folder):
        make_library(clustered(seed=3)).save(folder / "other")
        search(folder / "other")
        for name in names:
            shutil.copy2(folder / "other" / name, folder / name)

    return damage


DAMAGES = {
    **{f"{name} gone": (lambda f, n=name: (f / n).unlink()) for name in (ARRAY, RECORD)},
    **{f"{name} empty": (lambda f, n=name: os.truncate(f / n, 0)) for name in (ARRAY, RECORD)},
    **{f"{name} cut": (lambda f, n=name: os.truncate(f / n, 300)) for name in (ARRAY, RECORD)},
    **{f"sketch flipped at {at}": flip(ARRAY, at) for at in (0.001, 0.5, 1)},
    **{f"facts flipped at {at}": flip(RECORD, at / 9) for at in range(10)},
    **{f"facts {text!r}": rewrite(text) for text in ("[]", "null", "{}", "3", '{"format": 1}')},
    "sketch of another": take(ARRAY),
    "facts of another": take(RECORD),
    "both of another": take(ARRAY, RECORD),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_copy_is_made_anew(folder, made, damage):
    damage(folder)
    before = len(made)
    search(folder)
    assert len(made) == before + 1
    search(folder)
    assert len(made) == before + 1


# Not stored


def test_where_files_may_not_grow_it_is_kept_in_memory(tmp_path, made):
    """For real: the kernel refuses to let any file grow beyond a limit."""
    resource = pytest.importorskip("resource")
    make_library(clustered()).save(tmp_path)
    before = contents(tmp_path)
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (0, 64, 1000, 20_000):
        library = ImageLibrary.load(tmp_path)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            check(library)
            check(library)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        after = contents(tmp_path)
        assert {name: after[name] for name in before} == before
        assert after.keys() - before.keys() <= {".sketch.lock"}
    assert len(made) == 4


@pytest.mark.parametrize("name", [f"{ARRAY}.part", ARRAY, f"{RECORD}.part", RECORD, ".sketch.lock"])
def test_where_it_cannot_be_written_it_is_kept_in_memory(tmp_path, made, name):
    make_library(clustered()).save(tmp_path)
    (tmp_path / name).mkdir()
    (tmp_path / name / "in the way").touch()
    library = search(tmp_path)
    check(library)
    assert len(made) == 1
    assert (tmp_path / name).is_dir()


def test_in_a_folder_that_is_read_only_it_is_kept_in_memory(tmp_path, made):
    make_library(clustered()).save(tmp_path)
    tmp_path.chmod(0o500)
    try:
        if os.access(tmp_path, os.W_OK):
            pytest.skip("nothing is read-only for this user")
        check(search(tmp_path))
    finally:
        tmp_path.chmod(0o700)
    assert len(made) == 1


def test_while_another_stores_its_own_it_is_kept_in_memory(tmp_path):
    make_library(clustered()).save(tmp_path)
    with FileLock(tmp_path / ".sketch.lock"):
        search(tmp_path)
        assert not (tmp_path / ARRAY).exists()
    search(tmp_path)
    assert (tmp_path / ARRAY).exists()


def test_what_a_killed_process_left_is_in_nobodys_way(tmp_path, monkeypatch):
    make_library(clustered()).save(tmp_path)
    (tmp_path / f"{ARRAY}.part").write_bytes(b"half")
    search(tmp_path)
    assert not (tmp_path / f"{ARRAY}.part").exists()
    assert (tmp_path / ARRAY).exists()


TOGETHER = """
import sys, time
sys.path[:0] = {folders!r}
from simsearch.retrieval import exact, pruned_copy, pruned_store
exact.PRUNED_FROM_BYTES, exact.GATHER_ROW_COST = 0, 0.0
pruned_copy.LEVEL_COLUMNS, pruned_copy.MAX_COLUMNS = (2, 4, 8), 16
import test_pruned
print("ready", flush=True)
sys.stdin.readline()
test_pruned.search({folder!r})
"""


def test_two_processes_at_once_do_no_harm(tmp_path, made):
    make_library(clustered()).save(tmp_path)
    folders = [str(Path(__file__).parent), str(Path(oracle.__file__).parent)]
    code = TOGETHER.format(folders=folders, folder=str(tmp_path))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([sys.executable, "-c", code], **pipes) for _ in range(2)]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in both:
        process.communicate()
        assert process.returncode == 0
    search(tmp_path)
    assert not made


# Whose it is


def test_a_derived_library_does_not_inherit_it(folder, made):
    library = search(folder)
    before = contents(folder)
    mirror = np.eye(48)[:, ::-1][:, :40]
    derived = library.with_head(ProjectionHead([(mirror.T, np.zeros(40))]))
    assert library.stored == (folder.absolute(), library.stored[1])
    assert derived.stored is None
    check(derived)
    assert made == [derived]
    assert pruned_copy_of(derived) is not pruned_copy_of(library)
    assert contents(folder) == before


def test_a_library_that_comes_to_hold_other_rows_gets_another(folder, made):
    library = search(folder)
    part = copy.copy(library)
    part.embeddings, part.paths = library.embeddings[::2], library.paths[::2]
    check(part)
    library.embeddings = unit(clustered(seed=5))
    check(library)
    assert made == [part, library]


def test_it_goes_with_its_library():
    library = make_library(clustered())
    gone = weakref.ref(library)
    check(library)
    gc.collect()  # of other tests, too
    held = len(pruned_store._known)
    del library
    gc.collect()
    assert gone() is None
    assert len(pruned_store._known) == held - 1


def test_its_facts_can_be_read(folder):
    facts = json.loads((folder / RECORD).read_text("utf-8"))
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    assert facts["of"] == manifest["files"]["embeddings.npy"]["sha256"]
    assert facts["file"]["size"] == (folder / ARRAY).stat().st_size
