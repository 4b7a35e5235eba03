"""Signatures made on the way to the network: equal to those of a second look, and kept."""

import numpy as np
import pytest
from PIL import Image
from scenes import scene

import simsearch as ss
from simsearch.analysis import stored_signatures
from simsearch.analysis.picture_files import look_at_files
from simsearch.embedding import rows as embedding_rows
from simsearch.embedding.batching import embed_batches
from simsearch.images.read_signature import read_signature
from simsearch.library.signatures import STORE
from simsearch.library.stored_rows import LOG_HEADER_BYTES, RowLog

LOG = "signatures.log"


@pytest.fixture(autouse=True)
def signed_from_two(monkeypatch):
    monkeypatch.setattr(embedding_rows, "SIGNED_FILES", 2)


@pytest.fixture
def dataset(tmp_path):
    folder = tmp_path / "dataset"
    folder.mkdir()
    for i in range(4):
        scene(i, (300, 220)).save(folder / f"{i}.jpg", quality=90)
    frames = [scene(i, (260, 260)) for i in (5, 6)]
    frames[0].save(folder / "4.gif", save_all=True, append_images=frames[1:])
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


@pytest.fixture
def no_second_look(monkeypatch):
    def refuse(path):
        raise AssertionError(f"{path} is read again")

    monkeypatch.setattr(stored_signatures, "read_signature", refuse)


def embed(dataset, **options):
    outputs = dataset.parent / "outputs"
    return ss.embed_dataset(dataset, outputs, "efficientnet_lite0", progress=False, **options)


def signatures(dataset):
    library = ss.ImageLibrary.load(dataset.parent / "outputs")
    return stored_signatures.signatures_of(library, look_at_files(library), progress=False)


def check(dataset):
    made = signatures(dataset)
    for row, path in enumerate(ss.ImageLibrary.load(dataset.parent / "outputs").paths):
        expected = read_signature(str(path))
        assert made.frames[row] == expected.frames
        assert made.rows[row] == expected.signature


def test_embed_makes_what_a_second_look_would(dataset, no_second_look):
    embed(dataset)
    check(dataset)


def test_a_renamed_picture_keeps_its_signature_and_a_new_one_gets_its_own(dataset, no_second_look):
    embed(dataset)
    (dataset / "0.jpg").rename(dataset / "moved.jpg")
    for i in (7, 8):
        scene(i, (300, 220)).save(dataset / f"{i}.png")
    scene(9, (300, 220)).save(dataset / "1.jpg")
    embed(dataset)
    check(dataset)


def test_storing_takes_the_log_in(dataset, monkeypatch):
    embed(dataset)
    (dataset / "broken.jpg").unlink()
    scene(7, (300, 220)).save(dataset / "7.png")
    embed(dataset)  # a single picture, which is not signed
    assert (dataset.parent / "outputs" / LOG).exists()
    check(dataset)  # reads and stores
    assert not (dataset.parent / "outputs" / LOG).exists()
    monkeypatch.setattr(stored_signatures, "read_signature", None)
    check(dataset)


@pytest.mark.parametrize("cut", [1, 700, 1500, 4000])
def test_of_a_log_that_was_cut_the_whole_rows_are_used(dataset, cut):
    library = embed(dataset)
    log = dataset.parent / "outputs" / LOG
    data = log.read_bytes()
    log.write_bytes(data[:-cut])
    left = RowLog(STORE, log.parent).read()
    assert len(left) == (len(data) - LOG_HEADER_BYTES - cut) // (
        (len(data) - LOG_HEADER_BYTES) // len(library)
    )
    with RowLog(STORE, log.parent) as again:
        again.append(left[:1])
    assert len(RowLog(STORE, log.parent).read()) == len(left) + 1
    check(dataset)


def test_a_damaged_row_and_what_follows_are_made_anew(dataset):
    embed(dataset)
    log = dataset.parent / "outputs" / LOG
    data = bytearray(log.read_bytes())
    data[LOG_HEADER_BYTES + 500] ^= 1
    log.write_bytes(data)
    assert len(RowLog(STORE, log.parent).read()) == 0
    check(dataset)


def test_a_log_of_another_version_is_dropped(dataset):
    embed(dataset)
    log = dataset.parent / "outputs" / LOG
    other = RowLog(STORE._replace(version=STORE.version + 1), log.parent)
    assert len(other.read()) == 0
    with other:
        pass
    assert log.stat().st_size == LOG_HEADER_BYTES


def test_a_link_in_place_of_the_log_is_not_followed(dataset, tmp_path):
    target = tmp_path / "precious.txt"
    target.write_text("precious")
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    (outputs / LOG).symlink_to(target)
    library = embed(dataset)
    assert len(library) == 5
    assert target.read_text() == "precious"


def test_an_executor_without_signatures_is_used_as_it_is(dataset):
    def plain(sources, backbone, batch_size, workers):
        yield from embed_batches(sources, backbone, batch_size, workers)

    assert len(embed(dataset, engine=plain)) == 5
    assert not (dataset.parent / "outputs" / LOG).exists()
    check(dataset)


def test_a_large_photo_that_was_decoded_small_has_nearly_the_same(dataset, no_second_look):
    big = scene(3, (2600, 1900))
    big.save(dataset / "0.jpg", quality=90)
    embed(dataset)
    made, expected = signatures(dataset).rows[0], read_signature(str(dataset / "0.jpg")).signature
    assert (made["width"], made["height"]) == (2600, 1900)
    assert int(made["hash"] ^ expected["hash"]).bit_count() <= 2
    assert np.abs(made["luma"].astype(int) - expected["luma"]).mean() < 1


def test_a_picture_without_embedding_has_no_place_in_the_log(dataset):
    library = embed(dataset)
    logged = RowLog(STORE, dataset.parent / "outputs").read()
    assert len(logged) == len(library) == 5
    assert logged["frames"].tolist() == [1, 1, 1, 1, 2]
    assert np.array_equal(logged["key"], library.digests)


def test_copies_are_found_without_a_second_look(dataset, no_second_look):
    with Image.open(dataset / "1.jpg") as image:
        image.resize((150, 110)).save(dataset / "small.jpg", quality=80)
    library = embed(dataset)
    found = ss.duplicates(library, progress=False)
    assert [[path.rpartition("/")[2] for path in group.paths] for group in found] == [
        ["1.jpg", "small.jpg"]
    ]
