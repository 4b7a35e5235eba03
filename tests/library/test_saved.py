"""What is saved is what is meant: the backbone, the newest rows, each path with its own row."""

import numpy as np
import pytest
import torch
from library_cases import make_library, same, unit_rows
from PIL import Image
from tiny import tiny_backbone

import simsearch as ss
from simsearch.embedding.reembed import reembed
from simsearch.embedding.resume import ResumeLog
from simsearch.errors import BackboneError, LibraryError
from simsearch.images.find import ImageFile, Skipped
from simsearch.library.files import write_skipped
from simsearch.library.library import ImageLibrary
from simsearch.library.skipped import read_skipped

NAMES = ["a.jpg", "b.jpg", "c.jpg"]


def test_a_backbone_that_was_given_by_name_is_saved(tmp_path):
    library = ImageLibrary(unit_rows(3, dim=1280), NAMES, backbone="efficientnet_lite0")
    library.save(tmp_path)
    loaded = ImageLibrary.load(tmp_path)
    assert loaded.source.backbone == "efficientnet_lite0"
    assert loaded.backbone.fingerprint == loaded.source.fingerprint == library.fingerprint
    picture = Image.new("RGB", (30, 30), "teal")
    np.testing.assert_array_equal(loaded.encode([picture]), library.encode([picture]))


def test_a_backbone_that_was_given_later_is_saved(tmp_path):
    for backbone in ("efficientnet_lite0", ss.load_backbone("efficientnet_lite0")):
        library = ImageLibrary(unit_rows(3, dim=1280), NAMES).with_backbone(backbone)
        library.save(tmp_path)
        assert ImageLibrary.load(tmp_path).source.backbone == "efficientnet_lite0"


@pytest.mark.parametrize("name", ["efficientnet_lite0", "no_such_network"])
def test_a_backbone_that_cannot_be_recorded_is_refused(tmp_path, name):
    library = ImageLibrary(unit_rows(3, dim=7), NAMES, backbone=name)
    with pytest.raises(BackboneError, match=r"cannot be recorded with it: .*; give the one that"):
        library.save(tmp_path / "outputs")
    assert not (tmp_path / "outputs").exists()
    ImageLibrary(library.embeddings, NAMES).save(tmp_path / "outputs")
    assert ImageLibrary.load(tmp_path / "outputs").source is None


def newer(folder):
    """Open a library, and have another one replace it on the disk."""
    make_library().save(folder)
    stale = ImageLibrary.load(folder)
    fresh = make_library(seed=1)
    fresh.save(folder)
    return stale, fresh


def test_a_stale_library_is_not_saved_over_a_newer_one(tmp_path):
    stale, fresh = newer(tmp_path / "outputs")
    (tmp_path / "link").symlink_to(tmp_path / "outputs")
    with_head = stale.with_backbone("resnet50")
    for library in (stale, with_head):
        for folder in (tmp_path / "outputs", tmp_path / "link"):
            with pytest.raises(LibraryError, match=r"has changed since .* load it again"):
                library.save(folder)
    assert same(ImageLibrary.load(tmp_path / "outputs"), fresh)


def test_what_mends_a_stale_library_works(tmp_path):
    stale, fresh = newer(tmp_path / "outputs")
    stale.save(tmp_path / "elsewhere")
    assert same(ImageLibrary.load(tmp_path / "elsewhere"), stale)
    again = ImageLibrary.load(tmp_path / "outputs")
    again.save(tmp_path / "outputs")
    assert same(ImageLibrary.load(tmp_path / "outputs"), fresh)
    stale.save(tmp_path / "outputs", overwrite=True)
    assert same(ImageLibrary.load(tmp_path / "outputs"), stale)


def test_a_change_of_paths_alone_makes_a_library_stale(tmp_path):
    library = make_library()
    library.save(tmp_path)
    stale = ImageLibrary.load(tmp_path)
    ImageLibrary(library.embeddings, [f"{i}.png" for i in range(len(library))]).save(tmp_path)
    with pytest.raises(LibraryError, match="has changed since"):
        stale.save(tmp_path)


def test_an_open_library_is_saved_again_and_again(tmp_path):
    make_library().save(tmp_path)
    library = ImageLibrary.load(tmp_path)
    for _ in range(3):
        library.save(tmp_path)
    assert same(ImageLibrary.load(tmp_path), library)
    (tmp_path / "manifest.json").write_text("damaged")
    library.save(tmp_path)
    assert same(ImageLibrary.load(tmp_path), library)


def test_the_list_of_skipped_files_goes_with_the_library_that_it_belongs_to(tmp_path):
    make_library().save(tmp_path)
    write_skipped(tmp_path, [Skipped("bad.jpg", "the file is empty")])
    ImageLibrary.load(tmp_path).save(tmp_path)
    assert [file.name for file in read_skipped(tmp_path)] == ["bad.jpg"]
    make_library(seed=1).save(tmp_path)
    assert read_skipped(tmp_path) == []


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i in range(6):
        Image.new("RGB", (9, 9), (40 * i, 255 - 40 * i, 7)).save(f"{i}.png")
    return [f"{i}.png" for i in range(6)]


@pytest.mark.parametrize("order", [[0, 0, 1, 2], [3, 1, 3, 1, 5, 3, 0], [2, 2, 2]])
def test_a_path_that_is_listed_twice_keeps_its_own_rows(pictures, order):
    backbone = tiny_backbone()
    paths = [pictures[i] for i in order]
    library = ImageLibrary(unit_rows(len(paths)), paths)
    made = reembed(library, "outputs", backbone, progress=False)
    assert made.paths.tolist() == paths
    np.testing.assert_allclose(made.embeddings, backbone.encode(paths), atol=1e-6)


def test_a_log_that_lists_a_file_twice_is_read_row_by_row(tmp_path):
    backbone = tiny_backbone()
    files = [ImageFile(name, 1, 1) for name in ("a", "a", "b", "c")]
    rows = unit_rows(4, dim=backbone.dim)
    with ResumeLog(tmp_path, backbone) as log:
        log.append(files[:3], rows[:3])
        log.append(files[3:], rows[3:])
        assert [log.read(files[i]).tolist() for i in (2, 3)] == rows[2:].tolist()
    with ResumeLog(tmp_path, backbone) as log:
        assert [log.read(files[i]).tolist() for i in (1, 2, 3)] == rows[1:].tolist()
        log.append([ImageFile("d", 1, 1)], rows[:1])
        assert log.read(ImageFile("d", 1, 1)).tolist() == rows[0].tolist()


def test_a_stale_library_is_not_embedded_over_a_newer_one(pictures):
    backbone = tiny_backbone()
    ImageLibrary(unit_rows(3), pictures[:3]).save("outputs")
    stale = ImageLibrary.load("outputs")
    ImageLibrary(unit_rows(6), pictures).save("outputs")
    with pytest.raises(LibraryError, match="has changed since"):
        reembed(stale, "outputs", backbone, progress=False)
    assert len(ImageLibrary.load("outputs")) == 6


@pytest.mark.parametrize(
    "embeddings",
    [
        [[1.0], [1.0, 2.0]],
        np.ma.masked_array(np.eye(2), [[0, 1], [0, 0]]),
        None,
        {"a": 1},
        torch.eye(2).to_sparse(),
    ],
    ids=lambda each: type(each).__name__,
)
def test_embeddings_that_are_no_plain_numbers_are_refused(embeddings):
    with pytest.raises(LibraryError, match="embeddings"):
        ss.ImageLibrary(embeddings, ["a.jpg", "b.jpg"])


def test_embeddings_of_a_network_in_training_are_taken():
    rows = torch.eye(2, requires_grad=True)
    for given in (rows, rows.bfloat16()):
        assert ss.ImageLibrary(given, ["a.jpg", "b.jpg"]).embeddings.tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize(
    "paths", [[None, "a"], ["a", float("nan")], [1, 2], [b"a", b"b"], ["", "a"]]
)
def test_what_is_no_path_is_refused_with_its_row(paths):
    with pytest.raises(LibraryError, match=r"row [01] has the path .*; give text or a Path"):
        ss.ImageLibrary(np.eye(2), paths)


def test_one_text_is_no_list_of_paths():
    with pytest.raises(LibraryError, match="paths='ab': give a list of them"):
        ss.ImageLibrary(np.eye(2), "ab")
