"""Search over parts: what a full scan of every part finds, each picture once, with its box."""

from pathlib import Path

import numpy as np
import pytest
from dataset_cases import paint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from library_cases import unit_rows
from part_cases import DIM, check_box, scan, store_parts
from PIL import Image
from tiny import tiny_backbone

import simsearch as ss
from simsearch.embedding.parts import embed_parts
from simsearch.library.part_writer import PartWriter
from simsearch.library.parts import open_parts
from simsearch.retrieval.k_reciprocal import k_reciprocal_distances


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    counts=st.lists(st.one_of(st.none(), st.integers(0, 5)), min_size=1, max_size=25),
    seed=st.integers(0, 1000),
    k=st.integers(1, 30),
    filtered=st.booleans(),
    threshold=st.sampled_from([None, 0.3]),
    combine=st.booleans(),
)
def test_search_finds_what_a_full_scan_finds(
    tmp_path_factory, counts, seed, k, filtered, threshold, combine
):
    rng = np.random.default_rng(seed)
    library = store_parts(tmp_path_factory.mktemp("outputs"), counts, rng)
    vectors = unit_rows(2 if combine else 1, DIM, seed)
    where = rng.integers(0, 2, len(library)).astype(bool) if filtered else None
    options = {"combine": "max"} if combine else {}
    found = ss.search(library, list(vectors), k, threshold, where=where, parts=True, **options)
    found = found if combine else found[0]
    scores = scan(library, vectors)
    allowed = np.ones(len(library), bool) if where is None else where
    allowed &= scores >= (-1 if threshold is None else threshold)
    order = [row for row in np.lexsort((library.paths, -scores)) if allowed[row]][:k]
    np.testing.assert_allclose(found.scores, scores[order], atol=1e-6)
    assert len({match.row for match in found}) == len(found)
    for match in found:
        assert match.score == pytest.approx(scores[match.row], abs=1e-6)
        check_box(library, match, vectors)


def test_blocks_change_nothing(tmp_path, monkeypatch):
    library = store_parts(tmp_path, [3, None, 0, 5, 1, 2, 4] * 5, np.random.default_rng(0))
    before = ss.search(library, unit_rows(3, DIM, 1), k=9, parts=True)
    monkeypatch.setattr("simsearch.retrieval.part_index.BLOCK_PARTS", 1)
    monkeypatch.setattr("simsearch.retrieval.exact.SCORES_BYTES", 1)
    assert ss.search(library, unit_rows(3, DIM, 1), k=9, parts=True) == before


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Twelve pictures of four patches each, as one library with its parts."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    Path("dataset").mkdir()
    for i in range(12):
        small = rng.integers(0, 256, (10, 10, 3), np.uint8)
        Image.fromarray(small).resize((100, 100), 0).save(f"dataset/{i:02d}.png")
    return ss.embed_dataset("dataset", "outputs", tiny_backbone(), parts="grid", progress=False)


def test_a_part_finds_its_picture_and_its_place(photos):
    for row, path in enumerate(photos.paths.tolist()):
        part = ss.load_image(path).crop((40, 40, 100, 100))
        best = ss.search(photos, part, k=1, parts=True)[0]
        assert (best.row, best.box, best.size) == (row, (40, 40, 100, 100), (100, 100))
        assert best.score == pytest.approx(1, abs=2e-3)


def test_boxes_are_in_every_form_of_the_answer(photos):
    part = ss.load_image(str(photos.paths[0])).crop((40, 40, 100, 100))
    found = ss.search(photos, part, k=2, parts=True)
    assert "in 40,40 to 100,100" in str(found)
    assert found.to_dict()["matches"][0]["box"] == [40, 40, 100, 100]
    assert found.to_frame()["box"].iloc[0] == (40, 40, 100, 100)
    assert "box" not in ss.search(photos, part, k=2).to_frame()
    assert found.library is photos


def test_regions_of_a_query_use_the_parts(photos):
    found = ss.search(photos, str(photos.paths[2]), k=2, regions=True)
    assert all(match.box for matches in found for match in matches)


def test_the_picture_itself_is_left_out_and_diversity_and_unique_work(photos):
    found = ss.search(photos, 3, k=4, parts=True, diversity=0.5, unique=0.99)
    assert len(found) == 4
    assert 3 not in {match.row for match in found}


def test_percentiles_are_those_of_best_parts(photos):
    """The best of many parts is high for any two pictures: the plain pairs would mislead."""
    plain, by_parts = (ss.search(photos, 3, k=11, parts=parts) for parts in (False, True))
    assert min(match.score for match in by_parts) > min(match.score for match in plain)
    assert by_parts[-1].percentile < 60
    auto = ss.search(photos, 3, k=11, parts=True, threshold="auto", false_match_rate=0.5)
    assert 0 < len(auto) < 11


def test_an_index_of_whole_pictures_is_refused(photos):
    with pytest.raises(ss.QueryError, match="give one of the two"):
        ss.search(photos, 3, parts=True, index=object())


def test_the_figure_frames_the_part(photos):
    part = ss.load_image(str(photos.paths[0])).crop((40, 40, 100, 100))
    plain, framed = (
        ss.show_matches(found)[1][0, 1].images[0].get_array()
        for found in (ss.search(photos, part, where=[0], parts=parts) for parts in (False, True))
    )
    differs = np.flatnonzero((plain != framed).any(axis=2).any(axis=0))
    assert differs.min() / plain.shape[1] == pytest.approx(0.4, abs=0.05)


# Boxes of one's own


def embed_boxes(photos, text):
    Path("boxes.csv").write_text(text)
    embed_parts(photos, "boxes.csv", progress=False)


def test_boxes_of_ones_own_are_found_with_their_labels(photos):
    embed_boxes(
        photos,
        "Path;left;top;right;bottom;label\n00.png;10;20;40;80;shoe\n00.png;0,5;0;1;1;\n".replace(
            "0,5;0;1;1", "0.5;0;1;1"
        )
        + "dataset/01.png;0;0;50;50;bag\n",
    )
    shoe = ss.load_image("dataset/00.png").crop((10, 20, 40, 80))
    best = ss.search(photos, shoe, k=1, parts=True)[0]
    assert (best.box, best.label) == ((10, 20, 40, 80), "shoe")
    half = ss.load_image("dataset/00.png").crop((50, 0, 100, 100))
    assert ss.search(photos, half, k=1, parts=True)[0].box == (50, 0, 100, 100)
    whole = ss.search(photos, "dataset/05.png", k=1, parts=True, exclude_query=False)[0]
    assert (whole.path, whole.box) == ("dataset/05.png", (0, 0, 100, 100))


def test_changed_boxes_alone_are_embedded_again(photos, monkeypatch):
    table = "path,left,top,right,bottom\n00.png,10,20,40,80\n01.png,0,0,50,50\n"
    embed_boxes(photos, table)
    written, append = [], PartWriter.append
    monkeypatch.setattr(
        PartWriter,
        "append",
        lambda self, *given: (written.append(len(given[2])), append(self, *given))[1],
    )
    embed_boxes(photos, table.replace("0,0,50,50", "0,0,60,50"))
    assert written == [1]
    part = ss.load_image("dataset/01.png").crop((0, 0, 60, 50))
    assert ss.search(photos, part, k=1, parts=True)[0].box == (0, 0, 60, 50)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,left,top,right\n00.png,1,2,3\n", "no column 'bottom'"),
        ("path,left,top,right,bottom\n00.png,9,2,3,4\n", "line 2: 9 2 3 4 is no box"),
        ("path,left,top,right,bottom\n00.png,nan,2,3,4\n", "line 2: nan 2 3 4 is no box"),
        ("path,left,top,right,bottom\nelse.png,1,2,3,4\n", "names no picture.*'else.png'"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(photos, text, message):
    with pytest.raises(ss.QueryError, match=message):
        embed_boxes(photos, text)


def test_lines_without_a_picture_and_boxes_outside_are_left_out(photos, caplog):
    embed_boxes(
        photos,
        "path,left,top,right,bottom\n00.png,90,90,140,95\n00.png,200,0,240,9\nno.png,1,2,3,4\n",
    )
    assert "1 line without a picture: no.png" in caplog.text
    parts = open_parts(photos)
    assert parts.parts[parts.of(0)]["box"].tolist() == [[90, 90, 100, 95]]


def test_two_files_of_one_content_may_have_other_boxes(photos):
    Path("dataset/copy.png").write_bytes(Path("dataset/00.png").read_bytes())
    paint(Path("dataset/extra.png"), 5)
    library = ss.embed_dataset("dataset", "outputs", tiny_backbone(), progress=False)
    embed_boxes(library, "path,left,top,right,bottom\n00.png,0,0,50,50\ncopy.png,50,50,100,100\n")
    parts = open_parts(library)
    assert parts.parts[parts.of(library.find("dataset/copy.png"))]["box"].tolist() == [
        [50, 50, 100, 100]
    ]


def test_parts_of_somebody_else_are_not_read(tmp_path, monkeypatch):
    library = store_parts(tmp_path / "outputs", [2, 3, None], np.random.default_rng(0))
    assert open_parts(library) is not None
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another user"))
    opened = ss.ImageLibrary.as_stored(tmp_path / "outputs")
    assert open_parts(opened) is None
    with pytest.raises(ss.QueryError, match="has no parts, or those of"):
        ss.search(opened, 0, parts=True)
    assert "parts of pictures" in ss.trust_library(tmp_path / "outputs").derived
    assert open_parts(ss.ImageLibrary.as_stored(tmp_path / "outputs")).record.parts == 5


def test_damaged_parts_are_not_trusted(tmp_path, monkeypatch):
    store_parts(tmp_path / "outputs", [2, 3, None], np.random.default_rng(0))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another user"))
    file = tmp_path / "outputs" / "parts-0.rows"
    file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    assert "parts of pictures" not in ss.trust_library(tmp_path / "outputs").derived


def test_reranking_by_the_neighbours_of_whole_pictures(tmp_path):
    library = store_parts(tmp_path, [3, None, 0, 5, 1, 2, 4] * 5, np.random.default_rng(0))
    query, asked = unit_rows(1, DIM, 5), ss.KReciprocal(k1=8, k2=3, candidates=20)
    plain = ss.search(library, query[0], k=35, parts=True)
    found = ss.search(library, query[0], k=35, parts=True, rerank=asked)
    best, rows = plain[:20], [match.row for match in plain]
    scores = np.array([match.score for match in best])
    distances = k_reciprocal_distances(scores, library.embeddings[rows[:20]], asked)
    order = [*np.argsort(distances, kind="stable"), *range(20, 35)]
    assert found.paths == [plain[i].path for i in order] != plain.paths
    assert [match.score for match in found] == [plain[i].score for i in order]
    assert [match.box for match in found] == [plain[i].box for i in order]
