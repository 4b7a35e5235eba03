"""What embed does with a damaged library: rows that are right stay, others are made anew."""

import json
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from damage import flip
from dataset_cases import paint_forty
from tiny import tiny_backbone

import simsearch as ss
from simsearch import registry
from simsearch.library import block_digests, files, row_file
from simsearch.library.files import BLOCKS, EMBEDDINGS, MANIFEST

BLOCK = 256


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of a few rows, so that forty rows have several."""
    for module in (block_digests, row_file):
        monkeypatch.setattr(module, "BLOCK_BYTES", BLOCK)
    monkeypatch.setattr(files, "BLOCKS_FROM_BYTES", 0)


@pytest.fixture(params=[2**40, 0], ids=["small", "large"])
def large_from(request, monkeypatch):
    monkeypatch.setattr(registry, "LARGE_BYTES", request.param)


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A dataset of forty pictures and its library; and the rows as they are right."""
    monkeypatch.chdir(tmp_path)
    paint_forty()
    rows = embed().embeddings
    return np.array(rows)


def embed(**options):
    return ss.embed_dataset("dataset", "outputs", tiny_backbone(), progress=False, **options)


def damage(name, places):
    flip(Path("outputs", name), *places, bit=64)


def rows_in_blocks_of(places, count, width):
    blocks = {place // BLOCK for place in places}
    return {
        row
        for row in range(count)
        if blocks & set(range((128 + row * width) // BLOCK, (127 + (row + 1) * width) // BLOCK + 1))
    }


@pytest.mark.parametrize("rows", [[0], [39], [3, 4, 20]])
def test_damaged_rows_are_embedded_again_and_no_others(made, large_from, caplog, rows):
    width = made.itemsize * made.shape[1]
    places = [128 + width * row + 5 for row in rows]
    damage(EMBEDDINGS, places)
    expected = rows_in_blocks_of(places, len(made), width)
    assert not ss.verify_library("outputs", progress=False).ok
    with caplog.at_level(logging.WARNING):
        library = embed()
    assert library.report.embedded == len(expected)
    assert library.report.reused == 40 - len(expected)
    np.testing.assert_allclose(library.embeddings, made, atol=1e-6)
    assert f"{len(expected)} of 40 rows again" in caplog.text
    assert "damaged" in caplog.text
    assert ss.verify_library("outputs", progress=False).ok


def test_rows_whose_time_changed_with_them_are_mended_as_well(made, large_from):
    damage(EMBEDDINGS, [140])
    os.utime(f"outputs/{EMBEDDINGS}")
    library = embed()
    assert 0 < library.report.embedded < 40
    np.testing.assert_allclose(library.embeddings, made, atol=1e-6)


def test_a_damaged_row_of_a_picture_that_is_gone_is_not_kept(made, large_from):
    width = made.itemsize * made.shape[1]
    damage(EMBEDDINGS, [128 + width * 39 + 5])
    gone = ss.verify_library("outputs", progress=False).paths[-1]
    Path(gone).unlink()
    library = embed()
    assert len(library) == 39
    assert gone not in library.paths
    np.testing.assert_allclose(library.embeddings, made[:39], atol=1e-6)


def test_paths_that_are_damaged_cost_all_rows(made, caplog):
    damage("image_paths.npy", [400])
    with caplog.at_level(logging.WARNING):
        assert embed().report.embedded == 40
    assert "Embedding every image again" in caplog.text
    assert ss.verify_library("outputs", progress=False).ok


def test_rows_of_no_unit_norm_are_made_anew_though_digests_vouch_for_them(made, large_from):
    library = ss.ImageLibrary.load("outputs")
    rows = np.array(library.embeddings)
    rows[7] *= 3
    library.embeddings = rows
    library.save("outputs")
    assert embed().report.embedded == 1
    np.testing.assert_allclose(ss.ImageLibrary.load("outputs").embeddings, made, atol=1e-6)


def earlier_version():
    """Make the library in `outputs` one of a version that recorded no blocks."""
    manifest = json.loads(Path("outputs", MANIFEST).read_text())
    del manifest["blocks"]
    Path("outputs", MANIFEST).write_text(json.dumps(manifest))
    Path("outputs", BLOCKS).unlink()


def test_a_library_of_an_earlier_version_gets_its_digests_at_the_next_embed(made, large_from):
    earlier_version()
    assert embed().report.reused == 40
    report = ss.verify_library("outputs", progress=False)
    assert report.ok
    assert all(file.blocks for file in report.files)
    assert "blocks" not in str(json.loads(Path("outputs", MANIFEST).read_text())["files"])


def test_a_damaged_library_of_an_earlier_version_is_made_anew(made, large_from):
    earlier_version()
    damage(EMBEDDINGS, [200])
    library = embed()
    assert library.report.embedded == 40
    np.testing.assert_allclose(library.embeddings, made, atol=1e-6)


def test_a_new_picture_verifies_what_is_carried_over(made, large_from):
    width = made.itemsize * made.shape[1]
    damage(EMBEDDINGS, [128 + width * 11 + 1])
    shutil.copy(next(Path("dataset").rglob("*.png")), "dataset/zz.png")
    library = embed()
    assert len(library) == 41
    np.testing.assert_allclose(library.embeddings[:40], made, atol=1e-6)
    assert ss.verify_library("outputs", progress=False).ok
