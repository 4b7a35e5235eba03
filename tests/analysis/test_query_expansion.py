"""Query expansion: `refine` against its definition."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from tiny import tiny_backbone

import simsearch as ss
from simsearch.analysis import query_expansion
from simsearch.backbones import refine_head
from simsearch.backbones.heads import ProjectionHead, load_head, save_head
from simsearch.backbones.refine_head import RefineHead


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def rows_of(count, dim, seed=0, clusters=5):
    """Unit rows around a few centres, so that neighbours mean something."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((clusters, dim))
    return unit(centres[np.arange(count) % clusters] + rng.standard_normal((count, dim)))


def library_of(rows):
    return ss.ImageLibrary(rows, [f"{i:04d}.jpg" for i in range(len(rows))])


def refined_rows(rows, **options):
    return ss.refine(library_of(rows), progress=False, **options).embeddings


def moved(row, others, neighbours, alpha):
    """One row after the definition, in float64."""
    cosines = others @ row
    nearest = np.argsort(-cosines, kind="stable")[:neighbours]
    return unit(row + sum(max(cosines[i], 0) ** alpha * others[i] for i in nearest))


def by_definition(rows, neighbours, alpha):
    rows = np.asarray(rows, np.float32).astype(np.float64)
    centred = unit(rows - rows.mean(axis=0))
    return np.stack(
        [
            moved(row, np.delete(centred, i, axis=0), neighbours, alpha)
            for i, row in enumerate(centred)
        ]
    )


def test_by_hand():
    # Centred on (0, 0): the rows are their own. b is at 60° from a, c opposite, d opposite to b.
    angles = np.radians([0, 60, 180, 240])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    a = [1 + 0.5**3 * 0.5, 0.5**3 * np.sqrt(0.75)]  # a + cos(60°)³ b
    expected = unit(np.array([a, [-a[0], -a[1]]]))
    for neighbours in (1, 2, 50):  # the others are more than 90° away, and weigh nothing
        refined = refined_rows(rows, neighbours=neighbours, alpha=3)
        assert_allclose(refined[[0, 2]], expected, atol=1e-6)


def test_a_query_by_hand():
    head = RefineHead(np.array([0.6, 0.0], np.float32), neighbours=1, alpha=2)
    gallery = np.array([[1, 0], [0, 1]], np.float32)
    # (0.6, 0.8) is (0, 0.8) from the mean, so (0, 1); its neighbour is there as well.
    assert_allclose(head.query(np.array([[0.6, 0.8]], np.float32), gallery), [[0, 1]], atol=1e-6)
    # (0.8, 0.6) goes to (1, 3) / √10, and from there to (1, 3) / √10 + 0.9 (0, 1).
    expected = unit(np.array([[1, 3 + 0.9 * np.sqrt(10)]]))
    assert_allclose(head.query(np.array([[0.8, 0.6]], np.float32), gallery), expected, atol=1e-6)


@settings(deadline=None, max_examples=60)
@given(
    count=st.integers(2, 40),
    dim=st.integers(2, 12),
    neighbours=st.integers(1, 60),
    alpha=st.sampled_from([0, 0.5, 1, 3, 8]),
    at_once=st.integers(1, 30),
    seed=st.integers(0, 10**6),
)
def test_blocks_equal_the_definition(count, dim, neighbours, alpha, at_once, seed):
    rows = rows_of(count, dim, seed)
    widest = 4 * max(count, min(neighbours, count) * dim)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(refine_head, "BLOCK_BYTES", at_once * widest)
        patch.setattr(refine_head, "BLOCK_ROWS", at_once)
        patch.setattr(query_expansion, "BLOCK_ROWS", at_once)
        refined = ss.refine(library_of(rows), neighbours, alpha, progress=False)
        query = refined.head.query(unit(rows[:7] + 0.1).astype(np.float32), refined.embeddings)
    if alpha:  # without, a neighbour at 90° weighs all or nothing, by its rounding
        assert_allclose(refined.embeddings, by_definition(rows, neighbours, alpha), atol=2e-4)
    gallery = refined.embeddings.astype(np.float64)
    centred = unit(unit(rows[:7] + 0.1) - refined.head.mean)
    for got, row in zip(query, centred, strict=True):
        assert alpha == 0 or got @ moved(row, gallery, neighbours, alpha) > 1 - 1e-5


def test_rows_have_unit_norm_and_the_order_of_the_images_does_not_matter():
    rows, order = rows_of(300, 16), np.random.default_rng(1).permutation(300)
    refined = refined_rows(rows, neighbours=20)
    assert refined.dtype == np.float32
    assert refined.flags.c_contiguous
    assert_allclose(np.linalg.norm(refined, axis=1), 1, atol=1e-6)
    assert_allclose(refined_rows(rows[order], neighbours=20), refined[order], atol=1e-5)


def test_refine_is_deterministic():
    first, second = (ss.refine(library_of(rows_of(200, 8)), progress=False) for _ in range(2))
    assert_array_equal(first.embeddings, second.embeddings)
    assert first.fingerprint == second.fingerprint


def test_the_library_itself_stays_as_it_is():
    library = library_of(rows_of(50, 8))
    before = library.embeddings.copy()
    refined = ss.refine(library, progress=False)
    assert_array_equal(library.embeddings, before)
    assert library.head is None
    assert refined.paths is library.paths
    assert not np.array_equal(refined.background, library.background)


@pytest.mark.parametrize(
    "options", [{"neighbours": 49}, {"alpha": 2.5}, {}], ids=["neighbours", "alpha", "rows"]
)
def test_the_fingerprint_tells_what_was_done_to_what(options):
    library = library_of(rows_of(60, 8))
    other = library if options else library_of(rows_of(60, 8, seed=1))
    first, second = ss.refine(library, progress=False), ss.refine(other, progress=False, **options)
    assert first.fingerprint != second.fingerprint


@pytest.mark.parametrize("count", [1, 2, 3])
def test_fewer_rows_than_neighbours(count):
    rows = np.eye(3)[:count]
    refined = ss.refine(library_of(rows), progress=False)
    assert_allclose(np.linalg.norm(refined.embeddings, axis=1), 1, atol=1e-6)
    for row in rows.astype(np.float32):  # each still finds itself first
        matches = ss.search(refined, refined.head.query(row[None], refined.embeddings)[0], k=1)
        assert matches[0].row == int(row.argmax())
        assert matches[0].score == pytest.approx(1, abs=1e-6)


def test_images_that_are_all_the_same_stay_where_they_are():
    row = unit(np.arange(1, 9.0))
    refined = ss.refine(library_of(np.tile(row, (70, 1))), progress=False)
    assert_allclose(refined.embeddings, np.tile(row, (70, 1)), atol=1e-6)
    query = refined.head.query(row[None].astype(np.float32), refined.embeddings)
    assert_allclose(query, row[None], atol=1e-6)


def test_an_image_in_the_very_middle_keeps_its_direction():
    middle = unit(np.ones(3))
    rows = np.stack([unit(middle + off) for off in ([0.4, -0.4, 0], [-0.4, 0.4, 0], [0, 0, 0.0])])
    head = RefineHead(middle, neighbours=1, alpha=3)
    assert_allclose(head(rows.astype(np.float32))[2], middle, atol=1e-6)


def test_duplicates_stay_duplicates():
    rows = rows_of(40, 8)
    refined = refined_rows(np.concatenate([rows, rows[:5], rows[:5]]), neighbours=6)
    assert_allclose(refined[40:45], refined[:5], atol=1e-5)
    assert_allclose(refined[45:], refined[:5], atol=1e-5)


def test_a_row_without_counterparts_hardly_moves():
    rows = np.concatenate([rows_of(60, 64, clusters=1), -rows_of(60, 64, clusters=1, seed=3)])
    lonely = np.zeros((1, 64))
    lonely[0, 0] = 1
    rows = np.concatenate([rows, lonely])
    moves = (refined_rows(rows) * unit(rows - rows.mean(axis=0))).sum(axis=1)
    assert moves[-1] > 0.99
    assert moves[-1] > moves[:-1].max()


def test_a_query_that_is_a_row_finds_that_row():
    rows = rows_of(200, 32)
    refined = ss.refine(library_of(rows), neighbours=10, progress=False)
    queries = refined.head.query(rows.astype(np.float32), refined.embeddings)
    assert ((queries @ refined.embeddings.T).argmax(axis=1) == np.arange(200)).mean() > 0.95
    assert (queries * refined.embeddings).sum(axis=1).min() > 0.9


def test_queries_do_not_affect_each_other():
    rows = rows_of(100, 16)
    refined = ss.refine(library_of(rows), progress=False)
    queries = rows_of(9, 16, seed=5).astype(np.float32)
    together = refined.head.query(queries, refined.embeddings)
    alone = [refined.head.query(query[None], refined.embeddings)[0] for query in queries]
    assert_allclose(together, alone, atol=1e-6)


def test_classes_are_found_better():
    library = library_of(rows_of(600, 16, clusters=6))
    refined = ss.refine(library, progress=False)
    before, after = (right_at_10(one, np.arange(600) % 6) for one in (library, refined))
    assert after > before + 0.03


def right_at_10(library, labels):
    """Share of each row's ten nearest others that have its label."""
    scores = library.embeddings @ library.embeddings.T
    np.fill_diagonal(scores, -1)
    return (labels[np.argsort(-scores, axis=1)[:, :10]] == labels[:, None]).mean()


def test_saved_loaded_and_searched(tmp_path):
    rng = np.random.default_rng(0)
    files = [tmp_path / f"{i}.png" for i in range(12)]
    for file in files:
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(file)
    backbone = tiny_backbone()
    library = ss.ImageLibrary(ss.embed_images(files[:10], backbone), files[:10], backbone)
    refined = ss.refine(library, neighbours=3, progress=False)
    refined.save(tmp_path / "outputs")
    loaded = ss.ImageLibrary.load(tmp_path / "outputs", backbone=backbone)
    assert_array_equal(loaded.embeddings, refined.embeddings)
    assert loaded.fingerprint == refined.fingerprint != library.fingerprint
    new = refined.head.query(ss.embed_images(files[11], backbone), refined.embeddings)[0]
    for query in (files[11], 4, files[4]):  # a new image, a row, and a row by its path
        assert ss.search(loaded, query) == ss.search(refined, query)
    assert ss.search(loaded, files[11]).rows == ss.search(refined, new).rows
    by_row = ss.search(refined, refined.embeddings[4], exclude_query=False)
    assert by_row[0].row == 4
    assert ss.search(loaded, 4, k=4).rows == tuple(replace(m, rank=m.rank - 1) for m in by_row[1:])


def test_after_another_head(tmp_path):
    rng = np.random.default_rng(2)
    first = ProjectionHead([(rng.standard_normal((6, 16)), np.zeros(6))])
    projected = library_of(rows_of(50, 16)).with_head(first)
    refined = ss.refine(projected, 5, progress=False)
    assert_allclose(refined.embeddings, by_definition(projected.embeddings, 5, alpha=3), atol=1e-4)
    refined.save(tmp_path)
    new = rows_of(3, 16, seed=4).astype(np.float32)
    last = ss.refine(library_of(projected.embeddings), 5, progress=False).head
    assert_allclose(
        ss.ImageLibrary.load(tmp_path).head.query(new, refined.embeddings),
        last.query(first(new), refined.embeddings),
        atol=1e-6,
    )


def test_head_is_saved_and_loaded(tmp_path):
    head = ss.refine(library_of(rows_of(30, 8)), 7, 2.5, progress=False).head
    save_head(head, tmp_path / "head.safetensors")
    again = load_head(tmp_path / "head.safetensors")
    assert isinstance(again, RefineHead)
    assert (again.neighbours, again.alpha) == (7, 2.5)
    assert again.fingerprint == head.fingerprint
    assert_array_equal(again.mean, head.mean)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"neighbours": 0}, "neighbours=0"),
        ({"neighbours": -3}, "neighbours=-3"),
        ({"neighbours": 2.5}, r"neighbours=2\.5"),
        ({"neighbours": True}, "neighbours=True"),
        ({"neighbours": "all"}, "neighbours='all'"),
        ({"alpha": -1}, "alpha=-1.*from 0 up"),
        ({"alpha": np.nan}, "alpha=nan"),
        ({"alpha": np.inf}, "alpha=inf"),
    ],
)
def test_errors_name_bad_parameters(options, message):
    with pytest.raises(ss.QueryError, match=message):
        ss.refine(library_of(np.eye(3)), progress=False, **options)


def test_refine_refuses_a_refined_library():
    refined = ss.refine(library_of(rows_of(20, 4)), progress=False)
    with pytest.raises(ss.LibraryError, match="RefineHead"):
        ss.refine(refined, progress=False)


def test_progress_bar_counts_the_rows(capsys):
    ss.refine(library_of(rows_of(20, 4)))
    assert "20/20" in capsys.readouterr().err
    ss.refine(library_of(rows_of(20, 4)), progress=False)
    assert capsys.readouterr().err == ""


def test_memory_holds_a_few_copies_of_the_rows_and_no_matrix():
    library = library_of(rows_of(12_000, 32, clusters=100).astype(np.float32))
    tracemalloc.start()
    ss.refine(library, progress=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    matrix = 4 * 12_000**2  # 576 MB
    assert peak < 4 * library.embeddings.nbytes + 6 * refine_head.BLOCK_BYTES < matrix / 2


@pytest.mark.slow
def test_mean_average_precision_does_not_fall_on_the_sample(sample):
    files = [file for part in ("seg_train", "seg_test") for file in images(sample / part)[::6]]
    asked = np.array(["seg_test" in file.parts for file in files])
    rows = ss.embed_images(files, "efficientnet_lite0")
    gallery = ss.refine(ss.ImageLibrary(rows[~asked], np.array(files)[~asked]), progress=False)
    refined = np.empty_like(rows)
    refined[~asked] = gallery.embeddings
    refined[asked] = gallery.head.query(rows[asked], gallery.embeddings)
    before, after = (mean_average_precision(ss.ImageLibrary(x, files)) for x in (rows, refined))
    assert after >= before


def images(folder):
    return sorted(folder.rglob("*.jpg"))


def mean_average_precision(library):
    evaluation = ss.evaluate(
        library, queries="*/seg_test/*", gallery="*/seg_train/*", resamples=0, progress=False
    )
    return evaluation.overall["mAP"].value
