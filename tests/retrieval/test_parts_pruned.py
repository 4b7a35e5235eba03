"""Search over many parts: what a shortened copy rules out is never one of the best."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from library_cases import unit_rows
from part_cases import DIM, check_box, scan, store_parts

import simsearch as ss
from simsearch.library.part_writer import PartWriter
from simsearch.library.parts import open_parts, part_dtype, picture_keys
from simsearch.retrieval import part_copy, part_groups, part_index, part_scan
from simsearch.retrieval.part_rows import part_library

SLOW = HealthCheck.function_scoped_fixture


@pytest.fixture
def few(monkeypatch):
    """Let few parts be searched as many are: by a copy of few columns, and few at first."""
    for module in (part_index, part_scan):
        monkeypatch.setattr(module, "SHORT_FROM_PARTS", 1)
    monkeypatch.setattr(part_copy, "COLUMNS", 2)
    monkeypatch.setattr(part_copy, "BLOCK_ROWS", 7)
    monkeypatch.setattr(part_scan, "CODE_ROWS", 5)
    monkeypatch.setattr(part_groups, "FIRST_PARTS", 1)
    monkeypatch.setattr(part_groups, "SPARE_PARTS", 0)
    monkeypatch.setattr(part_groups, "DEEPER_FACTOR", 2)


COUNTS = st.lists(st.one_of(st.none(), st.integers(0, 5)), min_size=1, max_size=25)


@settings(max_examples=60, deadline=None, suppress_health_check=[SLOW])
@given(
    counts=COUNTS,
    seed=st.integers(0, 1000),
    k=st.integers(1, 30),
    filtered=st.booleans(),
    threshold=st.sampled_from([None, 0.3, 0.9]),
    combine=st.booleans(),
    copied=st.booleans(),
    by_row=st.booleans(),
)
@pytest.mark.parametrize("shortened", [True, False])
def test_search_by_a_copy_finds_what_a_full_scan_finds(
    few,
    monkeypatch,
    tmp_path_factory,
    shortened,
    counts,
    seed,
    k,
    filtered,
    threshold,
    combine,
    copied,
    by_row,
):
    monkeypatch.setattr(part_scan, "SHORT_FROM_PARTS", 1 if shortened else 10**9)
    rng = np.random.default_rng(seed)
    library = store_parts(
        tmp_path_factory.mktemp("outputs"), counts, rng, copied=copied, gone=combine
    )
    queries = [0] if by_row else list(unit_rows(2 if combine else 1, DIM, seed))
    vectors = library.embeddings[:1] if by_row else np.array(queries)
    where = rng.integers(0, 2, len(library)).astype(bool) if filtered else None
    options = {"combine": "max"} if combine and not by_row else {}
    found = ss.search(library, queries, k, threshold, where=where, parts=True, **options)
    found = found if options else found[0]
    scores = scan(library, vectors)
    allowed = np.ones(len(library), bool) if where is None else where.copy()
    allowed &= scores >= (-1 if threshold is None else threshold)
    allowed[0] &= not by_row
    order = [row for row in np.lexsort((library.paths, -scores)) if allowed[row]][:k]
    np.testing.assert_allclose(found.scores, scores[order], atol=1e-6)
    assert len({match.row for match in found}) == len(found)
    for match in found:
        assert match.score == pytest.approx(scores[match.row], abs=1e-6)
        check_box(library, match, vectors)


def test_equal_scores_are_ordered_by_path_however_they_are_found(few, tmp_path, monkeypatch):
    library = store_parts(tmp_path, [3] * 12, np.random.default_rng(0), equal=True)
    vector = part_library(library, open_parts(library)).embeddings[0]
    by_copy = ss.search(library, vector, k=5, parts=True)
    monkeypatch.setattr(part_index, "SHORT_FROM_PARTS", 10**9)
    assert ss.search(library, vector, k=5, parts=True) == by_copy
    assert [match.path for match in by_copy] == sorted(match.path for match in by_copy)


@pytest.mark.parametrize("dim", [2, 3, 8, 40, 600])
def test_bounds_hold_for_every_part(dim, tmp_path, monkeypatch):
    """The score of a part is never above what the copy says, at any level."""
    monkeypatch.setattr(part_copy, "COLUMNS", 64)
    library = store_parts(tmp_path, [4] * 50, np.random.default_rng(dim), dim=dim)
    rows = part_library(library, open_parts(library))
    copy = part_copy.part_copy_of(rows)
    vectors = np.concatenate([unit_rows(20, dim, 5), rows.embeddings[:20]])
    queries, exact = copy.project(vectors), vectors.astype(float) @ rows.embeddings[:].T
    scores = np.zeros_like(exact)
    for level, (inside, outside) in enumerate(copy.errors):
        scores += queries.factors[level] @ copy.codes[level].T.astype(np.float32)
        upper = scores + np.outer(queries.inside[level], inside)
        upper += np.outer(queries.outside[level], outside)
        assert (exact <= upper + copy.score_error).all()


def store_more(folder, library, rng, dim=DIM):
    """Append parts to those of a library: of its last picture, which has none."""
    record = open_parts(library).record
    with PartWriter(folder, record) as writer:
        parts = np.zeros(4, part_dtype(dim))
        parts["label"], parts["row"] = -1, unit_rows(4, dim, int(rng.integers(50)))
        writer.append(picture_keys(library, "grid")[-1], (60, 40), parts)
        writer.commit(np.arange(len(writer.pictures)), [])


def test_a_copy_is_made_once_and_new_parts_join_it(few, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    library = store_parts(tmp_path, [5] * 9 + [None], rng)
    vector = unit_rows(1, DIM, 1)[0]
    ss.search(library, vector, parts=True)
    made = (tmp_path / "parts-0.short").read_bytes()
    planned = []
    monkeypatch.setattr(part_copy, "_plan", planned.append)
    opened = ss.ImageLibrary.as_stored(tmp_path)
    ss.search(opened, vector, parts=True)  # opens it
    store_more(tmp_path, opened, rng)
    assert (tmp_path / "parts-0.short").read_bytes() == made
    found = ss.search(opened, vector, k=10, parts=True)
    assert planned == []
    assert json.loads((tmp_path / "parts-0.short.json").read_text())["parts"] == 49
    np.testing.assert_allclose(found.scores, np.sort(scan(opened, vector[None]))[::-1], atol=1e-6)


def test_a_copy_of_other_parts_is_made_anew(few, tmp_path):
    library = store_parts(tmp_path, [5] * 9, np.random.default_rng(0))
    vector = unit_rows(1, DIM, 1)[0]
    ss.search(library, vector, parts=True)
    (tmp_path / "parts.json").unlink()  # so that others take the same names
    other = store_parts(tmp_path, [5] * 9, np.random.default_rng(7))
    found = ss.search(other, vector, k=9, parts=True)
    np.testing.assert_allclose(found.scores, np.sort(scan(other, vector[None]))[::-1], atol=1e-6)


def test_rows_of_one_number_are_searched_without_a_copy(few, tmp_path):
    library = store_parts(tmp_path, [3] * 9, np.random.default_rng(0), dim=1)
    found = ss.search(library, np.ones(1, np.float32), k=9, parts=True)
    np.testing.assert_allclose(found.scores, np.sort(scan(library, np.ones((1, 1))))[::-1])


@pytest.mark.parametrize("name", ["parts-0.short", "parts-0.short.json"])
def test_a_damaged_copy_is_made_anew(few, tmp_path, name):
    library = store_parts(tmp_path, [5] * 9, np.random.default_rng(0))
    vector = unit_rows(1, DIM, 1)[0]
    before = ss.search(library, vector, parts=True)
    file, good = tmp_path / name, (tmp_path / name).read_bytes()
    for bad in (good[:-3], b"", bytes(len(good)), good[: len(good) // 2] + b"7" + good[1:]):
        file.write_bytes(bad)
        opened = ss.ImageLibrary.as_stored(tmp_path)
        assert ss.search(opened, vector, parts=True) == before


def test_a_folder_that_cannot_be_written_is_searched_all_the_same(few, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(part_copy, "atomic_write", full)
    library = store_parts(tmp_path, [5] * 9, np.random.default_rng(0))
    found = ss.search(library, unit_rows(1, DIM, 1)[0], parts=True)
    assert len(found) == 5
    assert not list(tmp_path.glob("parts-*.short*"))


def test_a_copy_is_not_kept_for_rows_of_another_generation(few, tmp_path):
    library = store_parts(tmp_path, [5] * 9, np.random.default_rng(0))
    ss.search(library, unit_rows(1, DIM, 1)[0], parts=True)
    record = open_parts(library).record
    with PartWriter(tmp_path, record) as writer:
        writer.commit(np.arange(2), [])  # most pictures have gone: files are written anew
    assert not list(tmp_path.glob("parts-0.*"))
    left = ss.search(library, unit_rows(1, DIM, 1)[0], k=9, parts=True)
    np.testing.assert_allclose(
        left.scores, np.sort(scan(library, unit_rows(1, DIM, 1)))[::-1], atol=1e-6
    )


def test_what_embeds_parts_makes_their_copy_and_trust_signs_it(few, tmp_path, monkeypatch):
    library = store_parts(tmp_path / "outputs", [5] * 9, np.random.default_rng(0))
    part_index.prepare_parts(library)
    made = (tmp_path / "outputs" / "parts-0.short").stat()
    assert ss.verify_library(tmp_path / "outputs").ok
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another user"))
    ss.trust_library(tmp_path / "outputs")
    trusted = ss.ImageLibrary.as_stored(tmp_path / "outputs")
    ss.search(trusted, 0, parts=True)
    assert (tmp_path / "outputs" / "parts-0.short").stat().st_ino == made.st_ino
