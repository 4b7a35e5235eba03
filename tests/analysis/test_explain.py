"""Class activation maps of matches."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import skimage.data
import torch
from PIL import ExifTags, Image
from torch import nn
from torchvision import models

import simsearch as ss
from simsearch.analysis import explain
from simsearch.analysis.explain import contributions, heat_map
from simsearch.backbones.backbone import Backbone
from simsearch.backbones.heads import ProjectionHead
from simsearch.backbones.preprocessing import Preprocessing
from simsearch.backbones.spec import ModelSpec
from simsearch.errors import BackboneError, ImageError, QueryError


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A square, a landscape, a portrait and a panorama, as files."""
    folder = tmp_path_factory.mktemp("photos")
    astronaut, coffee = map(Image.fromarray, (skimage.data.astronaut(), skimage.data.coffee()))
    views = [astronaut, coffee, astronaut.crop((50, 0, 306, 512)), coffee.crop((0, 100, 600, 250))]
    for i, view in enumerate(views):
        view.save(folder / f"{i}.png")
    return sorted(folder.iterdir())


def library_of(paths, backbone):
    return ss.ImageLibrary(ss.embed_images(list(map(str, paths)), backbone), paths, backbone)


def resnet50():
    """ResNet50 with seeded weights, and batch norms that do something."""
    torch.manual_seed(0)
    module = models.resnet50()
    module.fc = nn.Identity()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_var += torch.rand_like(layer.running_var)
            layer.bias.data += torch.rand_like(layer.bias) - 0.5
    transform = Preprocessing(256, 224, (0.5,) * 3, (0.25,) * 3)
    return Backbone(ModelSpec("resnet50", "seeded", module, transform), "cpu", "float32", "torch")


@pytest.fixture(scope="module")
def bundled(photos):
    return library_of(photos, ss.load_backbone("efficientnet_lite0", device="cpu"))


def to_tensor(image):
    pixels = np.asarray(image.resize((32, 32), Image.Resampling.BOX), np.float32)
    return torch.from_numpy(pixels / 255).permute(2, 0, 1)


@pytest.fixture(scope="module")
def colors(tmp_path_factory):
    """A network whose 4×4 cells are mean colours; red left of blue, blue, and green."""
    folder = tmp_path_factory.mktemp("colors")
    image = Image.new("RGB", (80, 40), "blue")
    image.paste("red", (0, 0, 40, 40))
    image.save(folder / "0.png")
    Image.new("RGB", (40, 40), "blue").save(folder / "1.png")
    Image.new("RGB", (40, 40), "lime").save(folder / "2.png")
    module = ss.load_backbone(nn.AvgPool2d(8), transform=to_tensor, device="cpu")
    return library_of(sorted(folder.iterdir()), module)


class TestContributions:
    def test_cells_add_up_to_the_score(self, bundled):
        for matches in ss.search(bundled, [0, 1, 2, 3]):
            shares = contributions(bundled, matches.paths, matches.embedding)
            assert [share.shape for share in shares] == [(7, 7)] * 3
            np.testing.assert_allclose([s.sum() for s in shares], matches.scores, atol=1e-4)

    def test_cells_of_resnet50_add_up_to_the_score(self, photos):
        library = library_of(photos[:2], resnet50())
        matches = ss.search(library, 0)
        shares = contributions(library, matches.paths, matches.embedding)
        np.testing.assert_allclose([s.sum() for s in shares], matches.scores, atol=1e-4)

    def test_a_new_query_too(self, bundled, photos):
        matches = ss.search(bundled, ss.load_image(photos[0]).rotate(30), k=4)
        shares = contributions(bundled, matches.paths, matches.embedding)
        np.testing.assert_allclose([s.sum() for s in shares], matches.scores, atol=1e-4)

    def test_by_hand(self, colors):
        """Half red and half blue is (1, 0, 1) / √2: with blue, all of it comes from the right."""
        (share,) = contributions(colors, [colors.paths[0]], colors.embeddings[1])
        assert share.shape == (4, 4)
        np.testing.assert_allclose(share[:, :2], 0, atol=1e-6)
        np.testing.assert_allclose(share[:, 2:], 1 / np.sqrt(2) / 8, atol=1e-6)
        against = np.array([-0.6, 0, 0.8], np.float32)
        (share,) = contributions(colors, [colors.paths[0]], against)
        np.testing.assert_allclose(share[:, :2], -0.6 / np.sqrt(2) / 8, atol=1e-6)

    def test_many_images_and_unreadable_ones(self, colors, tmp_path, monkeypatch):
        monkeypatch.setattr(explain, "BATCH_IMAGES", 3)
        (tmp_path / "text.png").write_text("no picture")
        bad = [tmp_path / "gone.png", tmp_path / "text.png"]
        paths = [*colors.paths, *bad, *colors.paths[::-1], *bad, *bad]
        shares = contributions(colors, paths, colors.embeddings[0])
        assert [share is None for share in shares] == [path in bad for path in paths]
        for path, share in zip(paths, shares, strict=True):
            if share is not None:
                (alone,) = contributions(colors, [path], colors.embeddings[0])
                np.testing.assert_allclose(share, alone, atol=1e-6)
        assert contributions(colors, [], colors.embeddings[0]) == []

    def test_a_head_that_only_turns_changes_nothing(self, bundled):
        normal = np.random.default_rng(0).normal(size=bundled.dim)
        mirror = np.eye(bundled.dim) - 2 * np.outer(normal, normal) / (normal @ normal)
        turned = bundled.with_head(ProjectionHead([(mirror, np.zeros(bundled.dim))]))
        before = contributions(bundled, bundled.paths[1:2], bundled.embeddings[0])
        after = contributions(turned, turned.paths[1:2], turned.embeddings[0])
        np.testing.assert_allclose(after, before, atol=1e-5)

    def test_cells_pass_through_a_head_one_by_one(self, bundled, photos):
        rng = np.random.default_rng(0)
        layers = [(rng.normal(size=(40, bundled.dim)), rng.normal(size=40)), (np.eye(40), [0] * 40)]
        library = bundled.with_head(ProjectionHead(layers))
        (share,) = contributions(library, [photos[1]], library.embeddings[0])
        backbone = bundled.backbone
        (cells,) = backbone.feature_map(backbone.prepare(ss.load_image(photos[1]))[None])
        passed = np.array(
            [
                [np.linalg.norm(c) * library.head((c / np.linalg.norm(c))[None])[0] for c in row]
                for row in cells
            ]
        )
        wanted = passed @ library.embeddings[0] / np.linalg.norm(passed.sum(axis=(0, 1)))
        np.testing.assert_allclose(share, wanted, atol=1e-4)
        assert -1 <= share.sum() <= 1

    def test_an_empty_cell_and_a_head(self, tmp_path):
        """A black cell has no direction to pass through a head; it carries nothing."""
        image = Image.new("RGB", (40, 40), "black")
        image.paste("red", (0, 0, 20, 40))
        image.save(tmp_path / "0.png")
        backbone = ss.load_backbone(nn.AvgPool2d(8), transform=to_tensor, device="cpu")
        library = library_of([tmp_path / "0.png"], backbone)
        library = library.with_head(ProjectionHead([(np.eye(3), np.zeros(3))]))
        (share,) = contributions(library, library.paths, library.embeddings[0])
        np.testing.assert_allclose(share[:, :2], 1 / 8, atol=1e-6)
        np.testing.assert_array_equal(share[:, 2:], 0)

    def test_refuses_an_embedding_of_another_library(self, colors):
        with pytest.raises(QueryError, match=r"shape \(2,\).*\(3,\)"):
            contributions(colors, colors.paths, np.zeros(2, np.float32))

    def test_needs_the_backbone(self, colors):
        alone = ss.ImageLibrary(colors.embeddings, colors.paths)
        with pytest.raises(BackboneError, match="pass backbone="):
            contributions(alone, colors.paths, colors.embeddings[0])


class TestHeatMap:
    def test_lies_over_the_centre_crop_and_averages_to_the_score(self, bundled, photos):
        for row, photo in enumerate(photos):
            heat = heat_map(bundled, row, bundled.embeddings[0])
            width, height = ss.load_image(photo).size
            assert heat.shape == (height, width)
            assert heat.dtype == np.float32
            seen = bundled.backbone.transform.crop_box((width, height))
            left, top, right, bottom = map(round, seen)
            inside = heat[top:bottom, left:right]
            assert np.count_nonzero(heat) == np.count_nonzero(inside)
            assert np.count_nonzero(inside) > 0.99 * inside.size
            cosine = bundled.embeddings[row] @ bundled.embeddings[0]
            assert inside.mean() == pytest.approx(cosine, abs=0.02)

    def test_a_transform_of_ones_own_spans_the_image(self, colors):
        heat = heat_map(colors, 0, colors.embeddings[1])
        assert heat.shape == (40, 80)
        assert np.abs(heat[:, :25]).max() < 0.15  # bicubic: it swings a little before it rises
        np.testing.assert_allclose(heat[:, -15:], np.sqrt(2), atol=0.15)

    def test_anything_that_is_an_image(self, colors):
        by_row = heat_map(colors, 0, colors.embeddings[1])
        path = colors.paths[0]
        image = ss.load_image(path)
        for source in (path, image, np.asarray(image), Path(path).read_bytes()):
            np.testing.assert_array_equal(heat_map(colors, source, colors.embeddings[1]), by_row)

    def test_lies_over_the_upright_image(self, colors, tmp_path):
        """A camera held upright writes a turned picture and says so."""
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6  # to be turned by 90° clockwise
        ss.load_image(colors.paths[0]).save(tmp_path / "turned.png", exif=exif)
        heat = heat_map(colors, tmp_path / "turned.png", colors.embeddings[1])
        assert heat.shape == (80, 40)
        assert np.abs(heat[:25]).max() < 0.15  # red, on the left before, is above now
        assert heat[-15:].min() > 1.3

    @pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2000, 3)])
    def test_any_size(self, bundled, size):
        heat = heat_map(bundled, Image.new("RGB", size, "teal"), bundled.embeddings[0])
        assert heat.shape == size[::-1]
        assert np.isfinite(heat).all()

    def test_refuses(self, colors, tmp_path):
        with pytest.raises(ImageError, match=r"gone\.png"):
            heat_map(colors, tmp_path / "gone.png", colors.embeddings[0])
        for row in (-1, 3):
            with pytest.raises(QueryError, match=f"row {row}: the library has rows 0 to 2"):
                heat_map(colors, row, colors.embeddings[0])


@pytest.mark.shared
def test_heat_lies_where_the_query_was_pasted(shared, tmp_path):
    """A photo pasted into a corner of a scene is what makes the scene like that photo."""
    photos = sorted((shared / "photos").iterdir())[:3]
    scenes = sorted((shared / "intel/seg_train/sea").iterdir())[:3]
    paths = []
    for i, (scene, photo) in enumerate(zip(scenes, photos, strict=True)):
        canvas = ss.load_image(scene).resize((300, 300))
        canvas.paste(ss.load_image(photo).resize((130, 130)), (20, 150))
        canvas.save(tmp_path / f"{i}.png")
        paths.append(tmp_path / f"{i}.png")
    library = library_of(paths, "efficientnet_lite0")
    rows = ss.embed_images([str(photo) for photo in photos], library.backbone)
    for path, row in zip(paths, rows, strict=True):
        heat = heat_map(library, path, row)
        pasted = heat[150:280, 20:150].mean()
        elsewhere = heat[20:140, 160:280].mean()
        assert pasted > 1.5 * elsewhere


@pytest.mark.parametrize(
    "read", [np.float64, lambda row: 7 * row, lambda row: row[None], torch.tensor, pd.Series]
)
def test_an_embedding_of_any_kind_and_length(colors, read):
    row = colors.embeddings[0]
    (expected,) = contributions(colors, colors.paths[:1], row)
    (found,) = contributions(colors, colors.paths[:1], read(row))
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("factor", [0, np.nan, np.inf, 1j])
def test_refuses_an_embedding_without_a_direction(colors, factor):
    with pytest.raises(QueryError, match="finite and not zero"):
        contributions(colors, colors.paths, np.ones(3) * factor)
