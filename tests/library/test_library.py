"""A library made of arrays: its rows, paths and backbone."""

import os
from pathlib import Path

import numpy as np
import pytest
from library_cases import NAMES, ODD_NAMES, make_library, same, unit_rows

from simsearch.backbones.backbone import load_backbone
from simsearch.backbones.spec import OWN_WEIGHTS
from simsearch.errors import BackboneError, LibraryError, WeightsError
from simsearch.library import unit_rows as unit_rows_module
from simsearch.library.files import (
    EMBEDDINGS,
)
from simsearch.library.library import ImageLibrary
from simsearch.library.paths import in_folder
from simsearch.library.source import Source


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.uint16])
@pytest.mark.parametrize("block", [1, 2, 4096])
def test_rows_are_normalised(dtype, block, monkeypatch):
    monkeypatch.setattr(unit_rows_module, "BLOCK_ROWS", block)
    rows = np.array([[3, 4], [0, 2], [7, 24]], dtype)
    library = ImageLibrary(rows, ["a", "b", "c"])
    assert library.embeddings.dtype == np.float32
    assert library.embeddings.flags.c_contiguous
    np.testing.assert_allclose(library.embeddings, [[0.6, 0.8], [0, 1], [0.28, 0.96]], rtol=1e-7)
    assert rows.tolist() == [[3, 4], [0, 2], [7, 24]]


def test_rows_that_are_slightly_off_are_normalised():
    library = ImageLibrary(unit_rows(5) * np.float32(1.0005), NAMES)
    np.testing.assert_allclose(np.linalg.norm(library.embeddings, axis=1), 1, atol=1e-6)


def test_unit_rows_stay_where_they_are(folder):
    mapped = np.load(folder / EMBEDDINGS, mmap_mode="r")
    embeddings = ImageLibrary(mapped, NAMES).embeddings
    assert isinstance(embeddings, np.memmap)
    assert np.shares_memory(embeddings, mapped)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_unit_rows_in_any_layout_are_taken_and_saved(tmp_path, order, dtype):
    library = ImageLibrary(np.asarray(unit_rows(5), dtype, order=order), np.array(NAMES))
    np.testing.assert_array_equal(library.embeddings, unit_rows(5))
    library.save(tmp_path)
    assert same(ImageLibrary.load(tmp_path), library)


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_a_row_without_direction_is_named(bad):
    rows = unit_rows(5)
    rows[3] = bad
    with pytest.raises(LibraryError, match="row 3 "):
        ImageLibrary(rows, NAMES)


@pytest.mark.parametrize(
    "rows", [np.ones(5), np.ones((5, 2, 2)), np.ones((0, 4)), np.ones((5, 2), "U"), np.ones(()) > 0]
)
def test_what_is_no_matrix_of_numbers_is_refused(rows):
    with pytest.raises(LibraryError, match=r"shape .* and dtype .* are not \(N, D\)"):
        ImageLibrary(rows, NAMES)


def test_as_many_paths_as_rows():
    with pytest.raises(LibraryError, match="4 embeddings and 5 paths"):
        ImageLibrary(unit_rows(4), NAMES)


def test_paths_keep_their_meaning():
    given = [Path("a") / "b.jpg", "./c.jpg", "https://shop.example/d.jpg", "s3://bucket/e.jpg"]
    assert ImageLibrary(unit_rows(4), given).paths.tolist() == [
        "a/b.jpg",
        "c.jpg",
        "https://shop.example/d.jpg",
        "s3://bucket/e.jpg",
    ]


@pytest.mark.parametrize("before", ["dataset", ".", "/data/all", "../up"])
@pytest.mark.parametrize(
    ("root", "prefix"),
    [
        ("moved", "moved/"),
        ("moved/", "moved/"),
        ("./moved", "moved/"),
        (Path("far") / "off", "far/off/"),
        ("/mnt/disk", "/mnt/disk/"),
        ("/", "/"),
        (".", ""),
    ],
)
def test_a_moved_dataset_is_found_again(tmp_path, before, root, prefix):
    library = make_library(root=before)
    library.paths = np.array([in_folder(before, name) for name in NAMES])
    library.save(tmp_path)
    moved = ImageLibrary.load(tmp_path, root=root)
    assert moved.paths.tolist() == [prefix + name for name in NAMES]
    assert moved.names == list(NAMES)
    assert moved.folders.tolist() == ["forest", "forest", "sea", "sea", "."]
    moved.save(tmp_path)
    assert same(ImageLibrary.load(tmp_path), moved)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The folder of a notebook: a dataset with a linked file and a linked folder in it."""
    home = tmp_path / "home"
    for name in NAMES:
        file = home / "dataset" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "x.jpg").touch()
    (home / "dataset" / "linked").symlink_to(tmp_path / "store")
    (home / "dataset" / "z.jpg").symlink_to(tmp_path / "store" / "x.jpg")
    (home / "short").symlink_to(home / "dataset")
    (home / "one.jpg").symlink_to(home / "dataset" / NAMES[0])
    monkeypatch.chdir(home)
    return home


LISTED = (*NAMES, "linked/x.jpg", "z.jpg")


ROOTS = ["dataset", ".", "../home/dataset", "{home}/dataset", "short", "{home}/short"]


@pytest.mark.parametrize("given", ["dataset/", "./dataset/", "../home/dataset/", "{home}/dataset/"])
@pytest.mark.parametrize("root", ROOTS)
def test_a_path_is_found_in_any_form(home, root, given, monkeypatch):
    if root == ".":
        monkeypatch.chdir("dataset")
        given = given if given.startswith("{home}") else f"../{given}"
    root, given = root.format(home=home), given.format(home=home)
    library = make_library(names=LISTED, root=root)
    library.paths = np.array([in_folder(root, name) for name in LISTED])
    rows = range(len(NAMES))
    assert [library.find(given + LISTED[row]) for row in rows] == list(rows)
    assert [library.find(Path(given) / LISTED[row]) for row in rows] == list(rows)


@pytest.mark.parametrize(
    ("path", "row"),
    [
        ("short/forest/1.jpg", 0),
        ("one.jpg", 0),
        ("{home}/one.jpg", 0),
        ("dataset/../short/./forest/2.jpg", 1),
        ("dataset/linked/x.jpg", 5),
        ("{home}/dataset/linked/x.jpg", 5),
        ("{home}/dataset/z.jpg", 6),
    ],
)
def test_a_path_is_found_through_links(home, path, row):
    assert make_library(names=LISTED).find(path.format(home=home)) == row


@pytest.mark.parametrize(
    "path",
    ["forest/1.jpg", "dataset/forest/3.jpg", "dataset", "", "/", "..", "store/x.jpg", "a\0b", "é"],
)
@pytest.mark.parametrize("root", ["dataset", "{home}/dataset"])
def test_other_paths_are_not_found(home, path, root):
    assert make_library(root=root.format(home=home)).find(path) is None


@pytest.mark.parametrize("form", ["{}", "./{}", "dataset/../{}", "{home}/{}", "../home/{}"])
@pytest.mark.parametrize("listed", ["{}", "{home}/{}"])
def test_a_library_without_root_finds_its_paths_too(home, listed, form):
    names = [f"dataset/{name}" for name in NAMES]
    library = make_library(names=[listed.format(name, home=home) for name in names], bare=True)
    assert [library.find(form.format(name, home=home)) for name in names] == list(range(5))
    assert library.find(form.format("dataset/none.jpg", home=home)) is None


def test_the_first_of_equal_paths_is_found_in_any_order():
    rng = np.random.default_rng(0)
    paths = [f"{rng.integers(40)}{name}" for name in ODD_NAMES * 20]
    library = ImageLibrary(unit_rows(100), paths)
    assert [library.find(path) for path in paths] == [paths.index(path) for path in paths]


def test_a_row_is_current_until_its_file_changes(home):
    library = make_library()
    files = [Path(path).stat() for path in library.paths]
    library.stats = np.array([(file.st_size, file.st_mtime_ns) for file in files])
    assert all(library.is_current(row) for row in range(5))
    os.utime(library.paths[1], ns=(1, files[1].st_mtime_ns + 1))
    Path(library.paths[2]).write_bytes(b"other")
    os.utime(library.paths[2], ns=(1, files[2].st_mtime_ns))
    Path(library.paths[3]).unlink()
    assert [library.is_current(row) for row in range(5)] == [True, False, False, True, True]
    library.stats = None
    assert all(library.is_current(row) for row in range(5))


def test_it_says_what_it_holds(folder):
    library = ImageLibrary.load(folder)
    assert repr(library) == "ImageLibrary(5 images, 6-d, made by resnet50)"
    assert library.describe().splitlines() == [
        "5 images, 6-d embeddings",
        "backbone   resnet50 (IMAGENET1K_V1, float32)",
        "made from  dataset",
        "        1  .",
        "        2  forest",
        "        2  sea",
    ]
    assert (len(library), library.dim) == (5, 6)


def test_without_a_source_it_says_less():
    library = make_library(bare=True)
    assert repr(library) == "ImageLibrary(5 images, 6-d)"
    assert "backbone" not in library.describe()


@pytest.mark.parametrize("count", [1, 2, 5, 512])
def test_the_background_is_every_pair(count):
    library = ImageLibrary(unit_rows(count), [f"{i}.jpg" for i in range(count)])
    rows = library.embeddings.astype(np.float64)
    pairs = [rows[i] @ rows[j] for i in range(count) for j in range(i)]
    np.testing.assert_allclose(library.background, np.sort(pairs), atol=1e-6)


def test_the_background_of_many_rows_is_a_fair_sample_of_different_images():
    library = ImageLibrary(unit_rows(5000, dim=32), [f"{i}.jpg" for i in range(5000)])
    again = ImageLibrary(library.embeddings, library.paths)
    assert len(library.background) == 512 * 511 // 2
    assert library.background[-1] < 0.95
    assert abs(library.background.mean()) < 0.01
    assert library.background.std() == pytest.approx(32**-0.5, rel=0.05)
    np.testing.assert_array_equal(library.background, again.background)


def tiny_backbone(dim=6, fill=1.0):
    """A network of one layer: the means of the colours, times a constant."""
    import torch

    layer = torch.nn.Linear(3, dim, bias=False)
    torch.nn.init.constant_(layer.weight, fill)
    module = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), layer)
    return load_backbone(
        module, transform=lambda image: torch.ones(3, 8, 8), device="cpu", precision="float32"
    )


def test_the_backbone_that_is_given_is_used(tmp_path):
    backbone = tiny_backbone()
    library = ImageLibrary(unit_rows(5), NAMES, backbone=backbone)
    assert library.backbone is backbone
    library.source = Source.of(backbone)
    assert library.source.weights == OWN_WEIGHTS
    library.save(tmp_path)
    assert ImageLibrary.load(tmp_path, backbone=backbone).backbone is backbone


def test_a_backbone_is_loaded_by_name_when_it_is_needed():
    library = ImageLibrary(unit_rows(5, dim=1280), NAMES, backbone="efficientnet_lite0")
    assert library.backbone.name == "efficientnet_lite0"
    assert library.backbone is library.backbone


@pytest.mark.parametrize("other", [{"dim": 7}, {"fill": 2.0}])
def test_another_backbone_is_refused(other):
    library = ImageLibrary(unit_rows(5), NAMES, backbone=tiny_backbone(**other))
    library.source = Source.of(tiny_backbone())
    with pytest.raises(BackboneError, match=r"is not what made this library .*; pass the backbone"):
        _ = library.backbone


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (None, BackboneError, r"pass backbone= to ImageLibrary"),
        (Source("Net", OWN_WEIGHTS, "0", "float32"), BackboneError, r"made by Net, .* pass it"),
        (Source("resnet99", "v1", "0", "float32"), BackboneError, r"resnet99"),
        (Source("resnet18", "/none/w.pth", "0", "float32"), WeightsError, r"/none/w\.pth"),
    ],
)
def test_a_backbone_that_cannot_be_had_says_what_to_do(source, error, message):
    library = make_library()
    library.source = source
    with pytest.raises(error, match=message):
        _ = library.backbone
