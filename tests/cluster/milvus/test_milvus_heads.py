"""Backbones and heads of a published library."""

import numpy as np
import pytest
from milvus_cases import assert_same
from PIL import Image
from tiny import tiny_backbone

import simsearch as ss
from simsearch.backbones.heads import ProjectionHead

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(12):
        pixels = rng.integers(0, 255, (12, 12, 3), np.uint8)
        Image.fromarray(pixels).resize((48, 48)).save(folder / f"{i:02}.png")
    return ss.embed_dataset(
        folder, tmp_path_factory.mktemp("outputs"), tiny_backbone(), progress=False
    )


def projected(library):
    rng = np.random.default_rng(1)
    layer = rng.standard_normal((6, library.dim)), np.zeros(6)
    return library.with_head(ProjectionHead([layer], library.fingerprint))


@pytest.mark.parametrize(
    "change", [lambda x: x, projected, ss.refine], ids=["plain", "head", "refined"]
)
def test_new_images_pass_through_backbone_and_head(embedded, tmp_path, change):
    library = change(embedded)
    ss.publish(library, tmp_path / "x.db", "x", progress=False)
    photo = Image.open(embedded.paths[4]).rotate(90)
    with ss.RemoteLibrary(tmp_path / "x.db", "x", backbone=tiny_backbone()) as remote:
        assert remote.fingerprint == library.fingerprint
        for options in ({}, {"box": (0, 0, 0.5, 0.5)}, {"regions": True}):
            assert_same(ss.search(remote, photo, **options), ss.search(library, photo, **options))
        assert remote.is_current(4)
        assert_same(ss.search(remote, embedded.paths[4]), ss.search(library, embedded.paths[4]))
    other = tiny_backbone(1)
    with (
        ss.RemoteLibrary(tmp_path / "x.db", "x", backbone=other) as remote,
        pytest.raises(ss.BackboneError, match="is not what made this library"),
    ):
        ss.search(remote, photo)
    with (
        ss.RemoteLibrary(tmp_path / "x.db", "x") as remote,
        pytest.raises(ss.BackboneError, match="a module of your own: pass it, as Remote"),
    ):
        ss.search(remote, photo)
