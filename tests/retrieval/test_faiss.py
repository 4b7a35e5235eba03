import importlib
import json
import math
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import simsearch as ss
from simsearch.backbones.heads import ProjectionHead
from simsearch.errors import LibraryError, MissingExtraError, QueryError, StaleIndexError
from simsearch.library.files import writing
from simsearch.retrieval import exact
from simsearch.retrieval.faiss import FaissIndex, build_index, load_index

faiss = pytest.importorskip("faiss")
module = importlib.import_module("simsearch.retrieval.faiss")

KINDS = ("flat", "sq", "hnsw", "ivf", "ivfpq")
N, D = 3000, 96


def clustered(rows, dim, seed=0):
    """Rows around centres, with directions that matter less and less, as embeddings have them."""
    rng = np.random.default_rng(seed)
    spread = np.arange(1, dim + 1) ** -0.5
    centres = rng.standard_normal((max(1, rows // 50), dim))
    nearby = rng.standard_normal((rows, dim))
    return (1 + centres[rng.integers(0, len(centres), rows)] + 0.6 * nearby) * spread


def library_of(rows):
    return ss.ImageLibrary(rows, [f"{i:05d}.jpg" for i in range(len(rows))])


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def new_queries(rows, amount, seed=9):
    """Queries that are like no row: each between two of them, nearer to the first."""
    rng = np.random.default_rng(seed)
    one, other = rng.integers(0, len(rows), (2, amount))
    return unit(rows[one] + 0.3 * rows[other])


def cosines(library, vector):
    return np.clip(library.embeddings.astype(np.float64) @ vector.astype(np.float64), -1, 1)


def brute_force(library, vector, k, among=None):
    """Rows of the k best: score every row, sort them all."""
    scores = cosines(library, vector)
    order = np.lexsort((library.paths, -scores))
    return (order if among is None else order[among[order]])[:k]


def share_found(index, library, vectors, k=10, among=None):
    hits = [
        len(set(found.rows) & set(brute_force(library, vector, k, among)))
        for vector, found in zip(vectors, index.top(library, vectors, k, among), strict=True)
    ]
    return sum(hits) / (k * len(vectors))


def assert_sound(found, library, vector, k, among=None):
    """Rows that may be found, as many as there are, none twice, best first, with true scores."""
    allowed = len(library) if among is None else among.sum()
    assert len(found.rows) == len(set(found.rows.tolist())) == min(k, allowed)
    assert among is None or among[found.rows].all()
    assert_allclose(found.scores, cosines(library, vector)[found.rows], rtol=0, atol=1e-12)
    order = np.lexsort((library.paths[found.rows], -found.scores))
    assert_array_equal(order, np.arange(len(order)))


def assert_equal(some, others):
    for one, other in zip(some, others, strict=True):
        assert_array_equal(one.rows, other.rows)
        assert_allclose(one.scores, other.scores, rtol=0, atol=1e-12)


def no_scan(*args, **kwargs):
    raise AssertionError("the library was scanned")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """On a busy machine, FAISS's threads wait for each other longer than these tests take."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(before)


@pytest.fixture(scope="module")
def library():
    return library_of(clustered(N, D))


@pytest.fixture(scope="module")
def queries(library):
    return new_queries(library.embeddings, 100)


@pytest.fixture(scope="module")
def indexes(library):
    """One of each kind."""
    return {kind: build_index(library, kind, progress=False) for kind in KINDS}


@pytest.fixture(params=KINDS)
def index(request, indexes):
    return indexes[request.param]


@pytest.fixture(scope="module")
def hard():
    """A library and its lists, where no direction matters less and nothing clusters."""
    library = library_of(np.random.default_rng(0).standard_normal((N, D)))
    return library, build_index(library, "ivf", progress=False)


@pytest.fixture(scope="module")
def folder(library, tmp_path_factory):
    """A folder of a small library, with a graph beside it."""
    place = tmp_path_factory.mktemp("library")
    library_of(library.embeddings[:500]).save(place)
    build_index(ss.ImageLibrary.load(place), "hnsw", progress=False)
    return place


@pytest.fixture
def stored(folder, tmp_path):
    """A copy of it, to spoil."""
    shutil.copytree(folder, tmp_path / "outputs")
    return ss.ImageLibrary.load(tmp_path / "outputs")


# What it finds


def test_it_finds_what_brute_force_finds(index, library, queries):
    assert share_found(index, library, queries) >= (1 if index.exact else 0.98)
    assert share_found(index, library, queries[:20], k=60) >= (1 if index.exact else 0.95)


def test_the_index_answers_by_itself(index, library, queries, monkeypatch):
    """Were it the scan that answers, recall would say nothing."""
    monkeypatch.setattr(module.exact, "top", no_scan)
    for vector, found in zip(queries, index.top(library, queries, 10), strict=True):
        assert_sound(found, library, vector, 10)


@pytest.mark.parametrize("k", [1, 10, 100, N - 1, N, N + 1, 10 * N])
def test_there_are_as_many_as_asked_for(index, library, queries, k):
    for vector, found in zip(queries[:3], index.top(library, queries[:3], k), strict=True):
        assert_sound(found, library, vector, k)


def test_a_query_alone_is_answered_as_among_others(index, library, queries):
    together = list(index.top(library, queries, 10))
    alone = [next(index.top(library, vector[None], 10)) for vector in queries]
    assert_equal(together, alone)
    assert list(index.top(library, queries[:0], 10)) == []


def test_blocks_of_queries_keep_their_order(indexes, library, queries, monkeypatch):
    expected = list(indexes["hnsw"].top(library, queries, 5))
    monkeypatch.setattr(module, "_BATCH", 7)
    assert_equal(indexes["hnsw"].top(library, queries, 5), expected)


def test_only_flat_is_exact(indexes):
    assert [kind for kind, index in indexes.items() if index.exact] == ["flat"]


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(60, 400),
    dim=st.integers(1, 80),
    k=st.integers(1, 20),
    kind=st.sampled_from(["spread", "duplicates", "near ties", "few directions"]),
    filtered=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_flat_equals_exact(rows, dim, k, kind, filtered, seed):
    rng = np.random.default_rng(seed)
    spread = rng.standard_normal((rows, dim))
    embeddings = {
        "spread": spread,
        "duplicates": spread[rng.integers(0, 1 + rows // 20, rows)],
        "near ties": spread[:1] + 1e-8 * spread,
        "few directions": rng.integers(-1, 2, (rows, dim)) + np.eye(1, dim) * 3,
    }[kind]
    library = ss.ImageLibrary(embeddings, [f"{n:04}.jpg" for n in rng.permutation(rows)])
    index = FaissIndex(module._make(library, "flat", progress=False), *blank(library))
    among = rng.random(rows) < 0.7 if filtered else None
    vectors = np.concatenate([library.embeddings[:3], unit(rng.standard_normal((3, dim)))])
    found = list(index.top(library, vectors, k, among))
    assert_equal(found, exact.exact_index(library).top_k(library, vectors, k, among))


def blank(library):
    """What `build_index` puts into a flat index, besides what it measures."""
    report = module.IndexReport("flat", "", len(library), 1, 1, 1, 1, 1)
    return module._Effort(1, 1), report, library.embeddings


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (2, 3), (15, 2), (50, 7), (200, 65), (300, 1)])
def test_any_shape_can_be_indexed(kind, shape):
    library = library_of(np.random.default_rng(0).standard_normal(shape))
    index = build_index(library, kind, progress=False)
    for vector, found in zip(
        library.embeddings[:5], index.top(library, library.embeddings[:5], 4), strict=True
    ):
        assert_sound(found, library, vector, 4)
    assert 0 <= index.report.recall_at_10 <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_are_all_equal(kind):
    library = library_of(np.tile(clustered(1, 80), (200, 1)))
    index = build_index(library, kind, progress=False)
    assert index.report.recall_at_10 == 1
    found = next(index.top(library, library.embeddings[:1], 5))
    assert_sound(found, library, library.embeddings[0], 5)


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_too_few_candidates_are_not_the_answer(indexes, library, queries, monkeypatch, kind):
    """A list may hold few rows, and not every row of a graph can be reached from everywhere."""
    index, find = indexes[kind], FaissIndex._find

    def lose(self, vectors, effort, among=None):
        scores, rows = find(self, vectors, effort, among)
        if effort.candidates < 100:
            rows[::2, 4:] = -1
        return module._Candidates(scores, rows)

    monkeypatch.setattr(FaissIndex, "_find", lose)
    for vector, found in zip(queries, index.top(library, queries, 10), strict=True):
        assert_sound(found, library, vector, 10)


def test_several_threads_may_ask_at_once(indexes, library, queries):
    index = indexes["hnsw"]
    expected = list(index.top(library, queries, 10))
    with ThreadPoolExecutor(4) as pool:
        answers = pool.map(lambda vector: next(index.top(library, vector[None], 10)), queries)
    assert_equal(answers, expected)


def test_the_number_of_threads_is_put_back(indexes, library, queries):
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(3)
    try:
        list(indexes["ivf"].top(library, queries[:1], 10))
        assert faiss.omp_get_max_threads() == 3
    finally:
        faiss.omp_set_num_threads(before)


# Filters


@settings(deadline=None, max_examples=60)
@given(
    kind=st.sampled_from(KINDS),
    share=st.floats(0, 1),
    k=st.integers(1, 150),
    lean=st.sampled_from(["any", "near", "far"]),
    seed=st.integers(0, 99),
)
@example(kind="ivf", share=0.11, k=150, lean="far", seed=0)
@example(kind="hnsw", share=0.11, k=150, lean="far", seed=0)
@example(kind="flat", share=0.0, k=1, lean="any", seed=0)
def test_a_filter_leaves_k_where_k_exist(indexes, library, queries, kind, share, k, lean, seed):
    among = filtered(library, queries[seed], share, lean, seed)
    vectors = queries[seed : seed + 2]
    for vector, found in zip(vectors, indexes[kind].top(library, vectors, k, among), strict=True):
        assert_sound(found, library, vector, k, among)


def filtered(library, vector, share, lean, seed):
    """Let pass about such a share of the rows: any, or the nearest to a query, or the farthest."""
    if lean == "any":
        return np.random.default_rng(seed).random(len(library)) < share
    scores = cosines(library, vector) * (1 if lean == "near" else -1)
    return scores >= np.quantile(scores, 1 - share)


@pytest.mark.parametrize("lean", ["any", "near", "far"])
@pytest.mark.parametrize("share", [0.5, 0.15, 0.01])
def test_a_filter_costs_no_recall(index, library, queries, lean, share):
    """Even where all that may be found lies far from the query, which no effort was set for."""
    shares = []
    for seed, vector in enumerate(queries[:20]):
        among = filtered(library, vector, share, lean, seed)
        shares.append(share_found(index, library, vector[None], 10, among))
    assert np.mean(shares) >= (1 if index.exact or share < 0.1 else 0.98)


# What it reports


def test_the_reported_recall_is_that_of_brute_force(index, library):
    rows = np.sort(np.random.default_rng(2).choice(N, 300, replace=False))
    hits = []
    for row in rows:
        scores = cosines(library, library.embeddings[row])
        scores[row] = -2
        best = np.argsort(-scores)[:10]
        found = next(index.top(library, library.embeddings[row][None], 11)).rows
        hits.append(len(set(found[found != row][:10]) & set(best)))
    assert index.report.recall_at_10 == pytest.approx(sum(hits) / 3000, abs=1e-9)
    assert index.report.recall_at_10 >= 0.99


def test_an_index_that_finds_little_says_so(hard):
    """The figures are measured, and not what the effort was set for."""
    library, index = hard
    lazy = FaissIndex(index._index, module._Effort(20, 3), index.report, library.embeddings)
    measured = module._measured(lazy, library)["recall_at_10"]
    rows = np.sort(np.random.default_rng(2).choice(N, 300, replace=False))
    with_itself = share_found(lazy, library, library.embeddings[rows], k=11)
    assert measured == pytest.approx((11 * with_itself - 1) / 10, abs=0.01)
    assert measured < 0.7


def test_more_effort_is_made_where_it_is_needed(hard, indexes):
    _, index = hard
    assert index._effort.reach > indexes["ivf"]._effort.reach
    assert index.report.recall_at_10 >= 0.99


def test_the_effort_is_set_by_rows_and_by_queries_that_are_none(library, monkeypatch):
    asked, real = [], exact.top

    def spy(library, vectors, *args):
        asked.append(vectors)
        return real(library, vectors, *args)

    monkeypatch.setattr(module.exact, "top", spy)
    build_index(library, "sq", progress=False)
    nearest = (asked[0] @ library.embeddings.T).max(axis=1)
    assert_allclose(np.linalg.norm(asked[0], axis=1), 1, atol=1e-6)
    assert (nearest > 0.99999).sum() == (nearest < 0.9999).sum() == 300


def test_a_filter_or_a_larger_k_takes_more_effort(indexes):
    candidates, reach = indexes["ivf"]._effort
    assert indexes["ivf"]._effort_for(10, 1) == (candidates, reach)
    assert indexes["ivf"]._effort_for(1, 0.25) == (candidates, 4 * reach)
    assert indexes["ivf"]._effort_for(40, 1) == (4 * candidates, 2 * reach)
    assert indexes["flat"]._effort_for(40, 0.5).candidates == 56


def test_the_times_are_medians_of_single_queries():
    asked = count()

    def ask(vector):
        assert vector.shape == (1, 4)
        time.sleep((0.001, 0.02, 0.2)[next(asked)])
        yield None

    assert 20 <= module._median_ms(ask, np.zeros((3, 4), np.float32)) < 150


def test_the_times_are_told_apart(library, monkeypatch):
    """Exact search slowed by 20 ms shows in `exact_ms` alone, a slow start in the build time."""
    real, make = exact.top, module._make

    def slow(*args):
        time.sleep(0.02)
        return real(*args)

    def slow_make(*args):
        time.sleep(0.3)
        return make(*args)

    monkeypatch.setattr(module.exact, "top", slow)
    monkeypatch.setattr(module, "_make", slow_make)
    started = time.perf_counter()
    report = build_index(library, "sq", progress=False).report
    assert report.exact_ms >= 20 > report.ms_per_query > 0
    assert 0.3 <= report.build_seconds < time.perf_counter() - started


def test_the_report_reads_well(indexes):
    text = str(indexes["ivf"].report)
    assert text.startswith("ivf index of 3,000 images, approximate: as asked for\nrecall@10  0.99")
    assert "exact" in str(indexes["flat"].report).splitlines()[0]
    assert repr(indexes["hnsw"]) == "FaissIndex(hnsw, 3,000 images)"


def test_what_is_quantised_is_smaller(indexes, library):
    sizes = [indexes[kind].report.size_bytes for kind in ("flat", "hnsw", "sq", "ivfpq")]
    assert sizes == sorted(sizes, reverse=True)
    assert library.embeddings.nbytes <= sizes[0] < 1.01 * library.embeddings.nbytes + 1000


def test_auto_chooses_and_says_why(library, monkeypatch):
    small = library_of(library.embeddings[:300])
    for limits, kind in (((301, 302), "flat"), ((300, 300), "hnsw"), ((10, 299), "ivfpq")):
        monkeypatch.setattr(module, "_SMALL", limits[0])
        monkeypatch.setattr(module, "_HUGE", limits[1])
        index = build_index(small, progress=False)
        assert index.kind == index.report.kind == kind
        assert f"{limits[kind != 'flat']} images" in index.report.why


def test_an_unknown_kind(library):
    with pytest.raises(QueryError, match=r"kind='annoy': choose one of \('auto', 'flat'"):
        build_index(library, "annoy")


def test_progress(library, capsys):
    small = library_of(library.embeddings[:50])
    build_index(small, "sq")
    assert "Indexing: 100%" in capsys.readouterr().err
    build_index(small, "sq", progress=False)
    assert capsys.readouterr().err == ""


# In a folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_stored_index_gives_equal_answers(kind, library, queries, tmp_path):
    library_of(library.embeddings[:1500]).save(tmp_path)
    opened = ss.ImageLibrary.load(tmp_path)
    built = build_index(opened, kind, progress=False)
    assert built.report.size_bytes == (tmp_path / "index.faiss").stat().st_size
    for source in (opened, tmp_path, str(tmp_path)):
        again = load_index(source)
        assert (again.kind, again.exact, again.report) == (kind, built.exact, built.report)
        assert_equal(again.top(opened, queries, 10), built.top(opened, queries, 10))
    assert_equal(
        again.top(ss.ImageLibrary.load(tmp_path), queries[:3], 7), again.top(opened, queries[:3], 7)
    )


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no list of what is mapped")
def test_a_graph_is_mapped_and_not_read(stored):
    place = str(stored.stored[0] / "index.faiss")
    index = load_index(stored)
    assert place in Path("/proc/self/maps").read_text()
    del index


def test_a_library_in_memory_stores_nothing(library, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build_index(library_of(library.embeddings[:50]), progress=False)
    assert not list(tmp_path.iterdir())
    with pytest.raises(LibraryError, match=r"not loaded from a folder.*build_index\(library\)"):
        load_index(library)


def test_a_copied_folder(stored, queries, tmp_path):
    copy = shutil.copytree(stored.stored[0], tmp_path / "copy", copy_function=shutil.copyfile)
    moved = ss.ImageLibrary.load(copy)
    assert_equal(
        load_index(moved).top(moved, queries, 5), load_index(stored).top(stored, queries, 5)
    )


def test_a_library_that_has_changed_is_refused(stored, library, queries):
    place = stored.stored[0]
    old = load_index(place)
    changed = library.embeddings[:500].copy()
    changed[[7, 8]] = changed[[8, 7]]
    library_of(changed).save(place)
    now = ss.ImageLibrary.load(place)
    mend = r"has changed since: build it again with simsearch\.build_index\(library\)"
    with pytest.raises(StaleIndexError, match=mend):
        load_index(now)
    with pytest.raises(StaleIndexError, match=mend):
        next(load_index(place).top(now, queries, 5))
    assert len(next(old.top(stored, queries, 5)).rows) == 5  # the one that is still open
    build_index(now, "sq", progress=False)
    assert load_index(now).kind == "sq"
    with pytest.raises(StaleIndexError):
        load_index(stored)


def test_another_library_is_refused(indexes, library, stored):
    twin = library_of(library.embeddings.copy())
    derived = stored.with_head(ProjectionHead([(np.eye(D), np.zeros(D))]))
    for index, other in (
        (indexes["hnsw"], twin),
        (indexes["flat"], stored),
        (load_index(stored), library),
        (load_index(stored), derived),
    ):
        with pytest.raises(StaleIndexError, match="was not built for"):
            index.check(other)
        with pytest.raises(StaleIndexError):
            next(index.top(other, other.embeddings[:1], 5))


def test_a_derived_library_has_an_index_of_its_own(stored, queries):
    derived = stored.with_head(ProjectionHead([(np.eye(D)[:40], np.zeros(40))]))
    before = (stored.stored[0] / "index.json").read_bytes()
    index = build_index(derived, "hnsw", progress=False)
    assert (stored.stored[0] / "index.json").read_bytes() == before
    assert share_found(index, derived, derived.embeddings[:50]) >= 0.98


def spoil(file, how):
    data = file.read_bytes()
    if how == "missing":
        file.unlink()
        return
    file.write_bytes(
        {
            "empty": b"",
            "truncated": data[: len(data) // 2],
            "flipped": data[:-9] + bytes(byte ^ 255 for byte in data[-9:]),
            "garbage": b"\x80garbage" * 99,
        }[how]
    )


@pytest.mark.parametrize("how", ["missing", "empty", "truncated", "flipped", "garbage"])
@pytest.mark.parametrize("name", ["index.faiss", "index.json"])
def test_a_damaged_index_is_refused(stored, name, how):
    spoil(stored.stored[0] / name, how)
    reason = f"{name} is missing" if how == "missing" else "the index in .* cannot be used"
    with pytest.raises(LibraryError, match=rf"{reason}.* simsearch\.build_index\(library\)"):
        load_index(stored)
    build_index(stored, "sq", progress=False)
    assert load_index(stored).kind == "sq"


@pytest.mark.parametrize("how", ["empty", "truncated", "garbage"])
def test_a_damaged_index_is_refused_though_its_record_vouches_for_it(stored, how):
    """By FAISS itself, then: a file from another version may be as strange."""
    folder = stored.stored[0]
    spoil(folder / "index.faiss", how)
    edit(folder, seal=module.seal_file(folder / "index.faiss"))
    with pytest.raises(LibraryError, match="cannot be used: it cannot be read"):
        load_index(stored)


def edit(folder, **changes):
    record = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(record | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"report": {}},
        {"report": None},
        {"effort": [1]},
        {"effort": ["many", 1]},
        {"seal": {}},
    ],
)
def test_a_record_that_makes_no_sense(stored, changes):
    edit(stored.stored[0], **changes)
    with pytest.raises(LibraryError, match="cannot be used"):
        load_index(stored)


def test_an_index_of_other_rows_is_refused(stored):
    report = json.loads((stored.stored[0] / "index.json").read_text())["report"]
    edit(stored.stored[0], report=report | {"rows": 499})
    with pytest.raises(LibraryError, match="holds 500 rows, and not 499"):
        load_index(stored)


def test_no_index_at_all(library, tmp_path):
    library_of(library.embeddings[:20]).save(tmp_path)
    with pytest.raises(LibraryError, match=r"no index in .*build_index\(library\)"):
        load_index(ss.ImageLibrary.load(tmp_path))
    with pytest.raises(LibraryError, match="no index in"):
        load_index(tmp_path / "nowhere")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full disk at hand")
def test_a_full_disk_leaves_the_last_index(stored, queries, monkeypatch):
    folder, write = stored.stored[0], faiss.write_index
    before = list(load_index(stored).top(stored, queries, 5))

    def full(index, place, *flags):
        if isinstance(place, str):
            Path(place).write_bytes(b"the first half")
            place = "/dev/full"
        write(index, place)

    monkeypatch.setattr(faiss, "write_index", full)
    with pytest.raises(LibraryError, match=r"cannot write .*index\.faiss"):
        build_index(stored, "flat", progress=False)
    assert_equal(load_index(stored).top(stored, queries, 5), before)
    assert not list(folder.glob("*.part"))


def test_a_run_that_dies_before_the_record_is_written(stored, monkeypatch):
    def die(file, text):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_text", die)
    with pytest.raises(KeyboardInterrupt):
        build_index(stored, "sq", progress=False)
    with pytest.raises(LibraryError, match="belongs to another index"):
        load_index(stored)


def test_one_writer_at_a_time(stored):
    with writing(stored.stored[0]), pytest.raises(ss.LibraryBusyError):
        build_index(stored, "sq", progress=False)


# FAISS stays optional


def test_the_default_path_does_not_import_it():
    code = (
        "import sys, numpy as np, simsearch as ss\n"
        "library = ss.ImageLibrary(np.eye(3), ['a.jpg', 'b.jpg', 'c.jpg'])\n"
        "ss.search(library, 0)\n"
        "print('faiss' in sys.modules)\n"
        "ss.build_index(library, progress=False)\n"
        "print('faiss' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_without_the_extra(library, stored, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    for call in (lambda: build_index(library), lambda: load_index(stored)):
        with pytest.raises(MissingExtraError, match=r'pip install "simsearch\[faiss\]"'):
            call()


def test_recall_counts_equals_alike():
    truth = [exact.TopK(np.array([1, 2, 3]), np.array([0.9, 0.8, 0.8]))]
    tied = [exact.TopK(np.array([1, 7, 8]), np.array([0.9, 0.8, 0.8]))]
    worse = [exact.TopK(np.array([1, 7, 8]), np.array([0.9, 0.8, 0.7]))]
    assert module._recall(tied, truth) == 1
    assert module._recall(worse, truth) == pytest.approx(2 / 3)
    assert module._recall([module._NOTHING], truth) == 0
    assert module._recall([module._NOTHING], [module._NOTHING]) == 1
    assert not math.isnan(module._recall([], []))


def test_methods_that_take_tensors_are_no_hindrance():
    """pytorch-metric-learning puts them in place of FAISS's own when it is imported."""
    code = (
        "import numpy as np, simsearch as ss, faiss.contrib.torch_utils\n"
        "rows = np.random.default_rng(0).standard_normal((2000, 96))\n"
        "library = ss.ImageLibrary(rows, [f'{i}.jpg' for i in range(2000)])\n"
        "index = ss.build_index(library, 'hnsw', progress=False)\n"
        "found = ss.search(library, 7, index=index, where=np.arange(1500))\n"
        "assert found.paths == ss.search(library, 7, where=np.arange(1500)).paths\n"
        "import faiss, torch\n"
        "flat = faiss.IndexFlatIP(96); flat.add(torch.from_numpy(library.embeddings))\n"
        "assert flat.search(torch.from_numpy(library.embeddings[:1]), 1)[1].item() == 0\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
