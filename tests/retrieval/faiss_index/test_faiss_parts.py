"""FAISS indexes of parts: k pictures, each once, by the exact score of its best part."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from library_cases import unit_rows
from part_cases import DIM, check_box, scan, store_parts

import simsearch as ss
from simsearch.cli.flags import read_options
from simsearch.cli.main import main as run
from simsearch.library.part_writer import PartWriter
from simsearch.library.parts import INDEX_FOLDER, open_parts, part_dtype, picture_keys
from simsearch.retrieval import part_groups, part_index

pytest.importorskip("faiss")

COUNTS = [3, None, 0, 5, 1, 2, 4, 4] * 8  # of parts of each picture
KINDS = ("flat", "rabitq", "hnsw")


@pytest.fixture(scope="module", params=KINDS)
def indexed(request, tmp_path_factory):
    """A library with parts, copies of pictures and parts of one that has gone; and an index."""
    folder = tmp_path_factory.mktemp("outputs")
    library = store_parts(folder, COUNTS, np.random.default_rng(1), copied=True, gone=True)
    return library, ss.build_index(library, request.param, progress=False, parts=True)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 1000),
    k=st.integers(1, 80),
    filtered=st.sampled_from([None, 0.05, 0.5, 0.9]),
    threshold=st.sampled_from([None, 0.3, 0.9]),
    by_row=st.booleans(),
)
def test_k_pictures_are_found_each_once_with_exact_scores(
    indexed, monkeypatch, seed, k, filtered, threshold, by_row
):
    for name, value in {"FIRST_PARTS": 1, "SPARE_PARTS": 0, "DEEPER_FACTOR": 2}.items():
        monkeypatch.setattr(part_groups, name, value)
    library, index = indexed
    rng = np.random.default_rng(seed)
    query = int(rng.integers(len(library))) if by_row else unit_rows(1, DIM, seed)[0]
    vectors = library.embeddings[query : query + 1] if by_row else query[None]
    where = None if filtered is None else rng.random(len(library)) < filtered
    found = ss.search(library, query, k, threshold, where=where, parts=True, index=index)
    scores = scan(library, vectors)
    allowed = np.ones(len(library), bool) if where is None else where.copy()
    if by_row:
        allowed[query] = False
    order = [row for row in np.lexsort((library.paths, -scores)) if allowed[row]]
    wanted = [row for row in order if threshold is None or scores[row] >= threshold][:k]
    assert found.exact is (index.kind == "flat")
    assert len({match.row for match in found}) == len(found)
    assert all(allowed[match.row] for match in found)
    if index.kind == "flat":
        np.testing.assert_allclose(found.scores, scores[wanted], atol=1e-6)
    elif threshold is None:
        assert len(found) == min(k, len(order))
    for match in found:
        assert match.score == pytest.approx(scores[match.row], abs=1e-6)
        check_box(library, match, vectors)


def test_an_index_finds_nearly_all_that_a_scan_finds(indexed):
    library, index = indexed
    vectors = unit_rows(50, DIM, 3)
    rows = [
        [{match.row for match in found} for found in ss.search(library, list(vectors), 10, **how)]
        for how in ({"parts": True}, {"parts": True, "index": index})
    ]
    shared = [len(one & other) / 10 for one, other in zip(*rows, strict=True)]
    assert np.mean(shared) >= (1 if index.kind == "flat" else 0.95)


def test_it_is_stored_beside_the_parts_and_opened_again(indexed):
    library, index = indexed
    opened = ss.load_index(ss.ImageLibrary.as_stored(library.stored[0]), parts=True)
    assert opened.report == index.report
    assert "parts" in str(opened.report).splitlines()[0]
    assert repr(opened) == f"FaissIndex({index.kind}, {len(open_parts(library).parts)} parts)"
    assert ss.search(library, 0, parts=True, index=opened) == ss.search(
        library, 0, parts=True, index=index
    )
    assert ss.verify_library(library.stored[0], progress=False).ok


@pytest.fixture
def small(tmp_path):
    return store_parts(tmp_path / "outputs", [5] * 9 + [None], np.random.default_rng(0))


def test_an_index_follows_its_parts(small, monkeypatch):
    """New parts join it as they are made; parts of pictures that have gone are not found."""
    ss.build_index(small, "sq", progress=False, parts=True)
    folder = small.stored[0]
    new = unit_rows(1, DIM, 77)
    with PartWriter(folder, open_parts(small).record) as writer:
        parts = np.zeros(1, part_dtype(DIM))
        parts["row"], parts["label"] = new, -1
        writer.append(picture_keys(small, "grid")[-1], (60, 40), parts)
        writer.commit(np.arange(len(writer.pictures)), [])
    part_index.prepare_parts(small)
    record = json.loads((folder / INDEX_FOLDER / "index.json").read_text())
    assert (record["report"]["rows"], record["report"]["added"]) == (46, 1)
    best = ss.search(small, new[0], k=1, parts=True, index=ss.load_index(small, parts=True))[0]
    assert best.row == 9
    assert best.score == pytest.approx(1, abs=1e-3)


def test_parts_and_whole_pictures_have_indexes_of_their_own(small):
    whole = ss.build_index(small, progress=False)
    parts = ss.build_index(small, progress=False, parts=True)
    with pytest.raises(ss.QueryError, match=r"ranks whole pictures.*parts=True\)"):
        ss.search(small, 0, parts=True, index=whole)
    with pytest.raises(ss.QueryError, match="ranks parts of pictures: search with parts=True"):
        ss.search(small, 0, index=parts)
    assert ss.search(small, 0, index=ss.load_index(small)).exact
    assert ss.search(small, 0, parts=True, index=parts).exact


def test_an_index_of_other_parts_is_refused(small, tmp_path):
    index = ss.build_index(small, progress=False, parts=True)
    other = store_parts(tmp_path / "others", [5] * 9, np.random.default_rng(5))
    with pytest.raises(ss.StaleIndexError, match="was not built for the 45 parts"):
        ss.search(other, 0, parts=True, index=index)


def test_what_is_missing_is_said(tmp_path, small):
    with pytest.raises(ss.LibraryError, match=r"build_index\(library, parts=True\)"):
        ss.load_index(small, parts=True)
    plain = ss.ImageLibrary(unit_rows(5, DIM), [f"{i}.jpg" for i in range(5)])
    with pytest.raises(ss.LibraryError, match='parts="grid"'):
        ss.build_index(plain, parts=True)


def test_an_index_of_parts_bears_the_mark_of_who_trusts_it(small, tmp_path, monkeypatch):
    ss.build_index(small, progress=False, parts=True)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another user"))
    folder = small.stored[0]
    assert "index of parts" in ss.trust_library(folder).derived
    trusted = ss.ImageLibrary.as_stored(folder)
    assert ss.search(trusted, 0, parts=True, index=ss.load_index(trusted, parts=True)).exact


def test_damage_of_an_index_of_parts_is_found(small):
    ss.build_index(small, progress=False, parts=True)
    file = small.stored[0] / INDEX_FOLDER / "index.faiss"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    report = ss.verify_library(small.stored[0], progress=False)
    assert [check.name for check in report.damaged] == ["parts-index/index.faiss"]


def test_on_the_command_line(small, capsys):
    outputs = str(small.stored[0])
    assert run(["index", outputs, "--parts"]) == 0
    assert "flat index of 45 parts, exact" in capsys.readouterr().out
    index = ss.load_index(small, parts=True)
    shown = read_options({"parts": True, "index": True}, outputs)["index"]
    assert (shown.report, shown.digest) == (index.report, index.digest)


def test_a_server_takes_the_index_of_what_is_searched(small):
    pytest.importorskip("fastapi")
    from simsearch.web.library_manager import State

    whole, parts = object(), object()
    state = State(small, "1", whole, part_index=parts)
    plain = State(ss.ImageLibrary(unit_rows(2, DIM), ["a.jpg", "b.jpg"]), "1", whole)
    assert state.index_for({}) is whole
    assert state.index_for({"parts": True}) is parts
    assert state.index_for({"regions": True}) is parts
    assert plain.index_for({"regions": True}) is whole


def test_reranking_finds_what_it_finds_by_hand(indexed):
    library, index = indexed
    every_one = ss.KReciprocal(k1=10, k2=3, candidates=len(library))
    for query in (unit_rows(1, DIM, 5)[0], 3):
        options = {"k": len(library), "parts": True, "rerank": every_one}
        by_index = ss.search(library, query, index=index, **options)
        by_hand = ss.search(library, query, **options)
        assert by_index.paths == by_hand.paths
        np.testing.assert_allclose(by_index.scores, by_hand.scores, atol=1e-6)
        with pytest.raises(ss.QueryError, match="search with parts=True"):
            ss.search(library, query, index=index, rerank="k-reciprocal")


def test_reranking_of_parts_refuses_an_index_of_whole_pictures(indexed):
    library, _ = indexed
    whole = ss.build_index(library, "flat", progress=False)
    with pytest.raises(ss.QueryError, match="ranks whole pictures"):
        ss.search(library, 3, parts=True, index=whole, rerank="k-reciprocal")
