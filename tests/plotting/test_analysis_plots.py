"""Figures of the analysis: heat maps, duplicates, maps."""

import numpy as np
import pytest
import torch
from figures import CLASSES, assert_apart, assert_not_clipped, boxes, found, pixels, texts
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

import simsearch as ss
from simsearch.analysis import map as maps
from simsearch.analysis.map import show_map
from simsearch.analysis.plots import show_duplicates
from simsearch.errors import QueryError
from simsearch.plotting import grid as cells
from simsearch.plotting.matches import show_matches


@pytest.fixture(scope="module")
def colors(tmp_path_factory):
    """Red left of blue, blue, and a file that has gone since; each 4×4 cell is a mean colour."""
    folder = tmp_path_factory.mktemp("colors")
    image = Image.new("RGB", (80, 80), "blue")
    image.paste("red", (0, 0, 40, 80))
    image.save(folder / "0.png")
    Image.new("RGB", (80, 80), "blue").save(folder / "1.png")

    def to_tensor(image):
        pixels = np.asarray(image.resize((32, 32), Image.Resampling.BOX), np.float32)
        return torch.from_numpy(pixels / 255).permute(2, 0, 1)

    backbone = ss.load_backbone(torch.nn.AvgPool2d(8), transform=to_tensor, device="cpu")
    rows = [*ss.embed_images(sorted(map(str, folder.iterdir())), backbone), [0.6, 0, 0.8]]
    return ss.ImageLibrary(rows, [folder / f"{i}.png" for i in range(3)], backbone)


class TestExplain:
    def test_what_is_alike_glows_on_grey(self, colors):
        matches = ss.search(colors, np.array([0, 0, 1], np.float32), k=3)
        assert [match.row for match in matches] == [1, 2, 0]
        _, axes = show_matches(matches, explain=True)
        half = pixels(axes[0, 3])  # red and blue: blue is the query, so the right glows
        left, right = half[:, :20], half[:, -20:]
        assert np.ptp(left, axis=2).max() <= 4
        np.testing.assert_allclose(left[..., 0], 0.299 * 255, atol=4)
        assert np.ptp(right, axis=2).min() > 100
        whole = pixels(axes[0, 1])
        assert np.ptp(whole, axis=2).min() > 60
        assert len(axes[0, 2].images) == 1
        assert "no such file" in " ".join(texts(axes[0, 2])[0].split())

    def test_all_matches_of_a_query_share_a_scale(self, colors):
        """The half gives √2 a cell, the whole 1 a cell: less by as much as it glows less."""
        query = np.array([0, 0, 1], np.float32)
        _, axes = show_matches(ss.search(colors, query, k=3), explain=True)
        together = pixels(axes[0, 1])[40, 40]
        _, axes = show_matches(ss.search(colors, query, k=1), explain=True)
        alone = pixels(axes[0, 1])[40, 40]
        grey = 0.114 * 255
        assert np.abs(together - grey).sum() < 0.8 * np.abs(alone - grey).sum()

    def test_query_and_captions_stay_as_they_are(self, colors):
        matches = ss.search(colors, [0, 1], k=2)
        plain, glowing = (show_matches(matches, explain=each)[1] for each in (False, True))
        for before, after in zip(plain.flat, glowing.flat, strict=True):
            assert texts(before) == texts(after)
        for before, after in zip(plain[:, 0], glowing[:, 0], strict=True):
            np.testing.assert_array_equal(pixels(before), pixels(after))

    def test_what_is_unlike_stays_grey(self, colors):
        matches = ss.search(colors, np.array([-1, 0, -1], np.float32), k=3)
        _, axes = show_matches(matches, explain=True)
        assert np.ptp(pixels(axes[0, 3]), axis=2).max() == 0

    def test_nothing_found_and_nothing_readable(self, colors):
        show_matches(ss.search(colors, 0, threshold=1.0), explain=True)
        gone = ss.ImageLibrary(colors.embeddings, ["a.png", "b.png", "c.png"], colors.backbone)
        _, axes = show_matches(ss.search(gone, 0), explain=True)
        assert "no such file" in " ".join(texts(axes[0, 1])[0].split())

    def test_a_portrait_glows_in_its_centre_crop(self, tmp_path):
        rng = np.random.default_rng(0)
        noise = Image.fromarray(rng.integers(0, 256, (400, 200, 3), np.uint8))
        noise.save(tmp_path / "0.png")
        noise.rotate(5).save(tmp_path / "1.png")
        paths = sorted(tmp_path.iterdir())
        backbone = ss.load_backbone("efficientnet_lite0", device="cpu")
        library = ss.ImageLibrary(ss.embed_images([*map(str, paths)], backbone), paths, backbone)
        _, axes = show_matches(ss.search(library, 0), explain=True)
        tint = np.ptp(pixels(axes[0, 1]), axis=2)
        assert tint[:100].max() == tint[-100:].max() == tint[:, :10].max() == 0
        assert tint[120:-120, 20:-20].max() > 50

    def test_refuses_matches_that_no_search_returned(self, colors):
        with pytest.raises(QueryError, match="or explain=False"):
            show_matches(found(colors.paths[0]), explain=True)
        several = ss.search(colors, [0, 1], combine="max")
        with pytest.raises(QueryError, match="not found with one embedding"):
            show_matches(several, explain=True)
        assert not plt.get_fignums()


class TestShowDuplicates:
    @pytest.fixture
    def copies(self, library):
        """Groups of 4, 2 and 2."""
        rows = np.eye(5)[[0, 0, 0, 0, 1, 1, 2, 2, 3]] + 0.01 * np.eye(9)[:, :5]
        return ss.duplicates(ss.ImageLibrary(rows, library.paths[:9]))

    def test_a_row_a_group_the_one_to_keep_first(self, copies):
        fig, axes = show_duplicates(copies)
        assert axes.shape == (3, 4)
        for number, (group, row) in enumerate(zip(copies, axes, strict=True), 1):
            tails = ["/".join(path.split("/")[-2:]) for path in group.paths]
            assert texts(row[0]) == [f"{number} · {len(group)} images", tails[0]]
            shown = [texts(ax) for ax in row[1:] if ax.texts]
            scores = [f"{score:.3f}" for score in group.scores[1:]]
            assert shown == [[*pair] for pair in zip(scores, tails[1:], strict=True)]
            frames = [to_hex(ax.patches[0].get_edgecolor()) for ax in row if ax.patches]
            assert frames == [cells.ACCENT] + [cells.EDGE] * (len(group) - 1)
            for ax, path in zip(row, group.paths, strict=False):
                np.testing.assert_array_equal(pixels(ax), np.asarray(ss.load_image(path)))
        assert not fig.texts
        assert_not_clipped(fig)

    def test_says_what_was_left_out(self, copies):
        fig, axes = show_duplicates(copies, limit=1, columns=3)
        assert axes.shape == (1, 3)
        assert fig.texts[0].get_text() == "1 of 3 groups"
        assert texts(axes[0, 2]) == ["2 more"]
        assert len(texts(axes[0, 1])) == 2
        assert_not_clipped(fig)

    def test_a_group_that_just_fits(self, copies):
        _, axes = show_duplicates(copies, columns=4)
        assert [len(texts(ax)) for ax in axes[0]] == [2, 2, 2, 2]

    def test_gone_files_leave_the_reason(self):
        gone = ss.duplicates(ss.ImageLibrary(np.ones((2, 2)), ["a/1.jpg", "a/2.jpg"]))
        fig, axes = show_duplicates(gone)
        assert " ".join(texts(axes[0, 1])[0].split()) == "no such file or directory"
        assert_not_clipped(fig)

    def test_no_duplicates_is_no_error(self):
        fig, axes = show_duplicates(ss.duplicates(ss.ImageLibrary(np.eye(2), ["a.jpg", "b.jpg"])))
        assert axes.shape == (1, 1)
        assert " ".join(texts(axes[0, 0])[0].split()) == "no duplicates"
        assert_not_clipped(fig)

    def test_refuses(self, copies):
        with pytest.raises(QueryError, match=r"simsearch\.duplicates returns"):
            show_duplicates(list(copies))
        for argument in ({"limit": 0}, {"columns": 1}, {"size": 0}):
            with pytest.raises(QueryError, match="give"):
                show_duplicates(copies, **argument)
        assert not plt.get_fignums()


def groups(ax):
    """Map each name of the legend to the points it stands for."""
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    return dict(zip(names, ax.collections, strict=True))


class TestShowMap:
    @pytest.mark.parametrize("method", ["pca", "tsne"])
    def test_classes_keep_together(self, library, method):
        fig, ax = show_map(library, method)
        assert isinstance(fig, Figure)
        assert isinstance(ax, Axes)
        assert plt.get_fignums() == [fig.number]
        classes = groups(ax)
        assert {name: len(dots.get_offsets()) for name, dots in classes.items()} == {
            **dict.fromkeys(CLASSES, 28),
            "no label": 8,
        }
        points = np.concatenate([classes[name].get_offsets() for name in CLASSES])
        distances = np.linalg.norm(points[:, None] - points, axis=2) + np.diag([np.inf] * 84)
        assert np.mean(distances.argmin(axis=1) // 28 == np.arange(84) // 28) > 0.98
        assert not [*ax.get_xticks(), *ax.get_yticks()]
        assert_not_clipped(fig)

    def test_pca_is_the_projection_on_the_widest_directions(self, library):
        labels = [f"{i:03}" for i in range(len(library))]
        points, share = maps._project(library.embeddings, "pca", 0)
        centred = library.embeddings - library.embeddings.mean(axis=0)
        u, s, _ = np.linalg.svd(centred.astype(float), full_matrices=False)
        for i in range(2):
            assert abs(np.corrcoef(points[:, i], u[:, i])[0, 1]) == pytest.approx(1, abs=1e-4)
        assert share == pytest.approx((s[:2] ** 2).sum() / (s**2).sum(), abs=1e-4)
        _, ax = show_map(library, color_by=labels, images=0)
        assert texts(ax) == [f"PCA of {len(library)} images ({share:.0%} of the variance)"]

    def test_colours_differ_and_the_unlabelled_are_grey(self, library):
        _, ax = show_map(library, images=0)
        colors = {name: to_hex(dots.get_facecolor()[0]) for name, dots in groups(ax).items()}
        assert len(set(colors.values())) == 4
        assert colors["no label"] == maps.UNLABELLED_COLOR
        assert not ax.images

    def test_thumbnails_stand_apart_on_their_points(self, library):
        _, ax = show_map(library)
        assert 5 <= len(ax.images) <= 50
        assert_apart(ax.images)
        assert_apart(ax.patches)
        colors = {name: to_hex(dots.get_facecolor()[0]) for name, dots in groups(ax).items()}
        for image, frame in zip(ax.images, ax.patches, strict=True):
            left, right, bottom, top = image.get_extent()
            shown = image.get_array()
            middle = np.array([left + right, bottom + top]) / 2
            at = {
                name
                for name, dots in groups(ax).items()
                if np.abs(dots.get_offsets() - middle).max(axis=1).min() < 1e-6
            }
            assert to_hex(frame.get_edgecolor()) in {colors[name] for name in at}
            assert (right - left) / (top - bottom) == pytest.approx(shown.shape[1] / shown.shape[0])
        area = ax.get_window_extent()
        assert all(area.containsx(box.x0) and area.containsy(box.y1) for box in boxes(ax.images))

    def test_fewer_thumbnails_on_request(self, library):
        _, ax = show_map(library, images=3)
        assert len(ax.images) == 3

    def test_gone_files_leave_their_points(self, library):
        gone = ss.ImageLibrary(library.embeddings, [f"gone/{i % 2}/{i}.jpg" for i in range(92)])
        _, ax = show_map(gone)
        assert not ax.images
        assert set(groups(ax)) == {"0", "1"}

    def test_a_large_library_is_sampled_and_the_title_says_so(self, library, monkeypatch):
        monkeypatch.setitem(maps.MAX_ROWS, "tsne", 50)
        _, ax = show_map(library, "tsne", images=0)
        assert sum(len(dots.get_offsets()) for dots in ax.collections) == 50
        assert texts(ax) == ["t-SNE of 50 of 92 images, drawn at random"]

    def test_the_seed_decides(self, library, monkeypatch):
        monkeypatch.setitem(maps.MAX_ROWS, "pca", 50)
        first, again, other = (
            show_map(library, seed=seed, images=0)[1].collections[0].get_offsets()
            for seed in (0, 0, 1)
        )
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)

    def test_many_classes_keep_a_readable_legend(self, library):
        counts = [*range(1, 13), 14]
        labels = [f"class {n} {'x' * 90}" for n in counts for _ in range(n)][:92]
        labels += [""] * (92 - len(labels))
        labels[0], labels[1], labels[2] = "_under", "$x$", "森"
        many = [f"{label}{i}" if i % 9 == 0 else label for i, label in enumerate(labels)]
        fig, ax = show_map(library, color_by=many, images=0)
        names = [text.get_text() for text in ax.get_legend().get_texts()]
        assert len(names) == len(maps.GROUP_STYLES) + 1
        assert names[-1] == f"{len(set(many)) - len(maps.GROUP_STYLES)} more"
        assert sum(len(dots.get_offsets()) for dots in ax.collections) == 92
        styles = [
            (to_hex(dots.get_facecolor()[0]), len(dots.get_paths()[0].vertices))
            for dots in ax.collections
        ]
        assert len(set(styles)) == len(styles)
        assert_not_clipped(fig)

    def test_any_class_name_can_be_drawn(self, library):
        labels = ["_under", "$x$", "森\n", "\udcff"] * 23
        fig, ax = show_map(library, color_by=labels, images=0)
        names = [text.get_text() for text in ax.get_legend().get_texts()]
        assert names == ["$x$", "_under", "?", "?"]
        assert_not_clipped(fig)

    @pytest.mark.parametrize("folder", ["", "one/"])
    def test_without_classes_there_is_no_legend(self, library, folder):
        flat = ss.ImageLibrary(library.embeddings, [f"{folder}{i}.jpg" for i in range(92)])
        fig, ax = show_map(flat)
        assert ax.get_legend() is None
        assert_not_clipped(fig)

    def test_top_folders_are_classes_where_none_lies_deeper(self):
        flat = ss.ImageLibrary(np.eye(3), ["d/cat/1.jpg", "d/dog/1.jpg", "d/1.jpg"])
        flat.root = "d"
        assert flat.labels.tolist() == ["cat", "dog", ""]

    @pytest.mark.parametrize("method", ["pca", "tsne"])
    @pytest.mark.parametrize("shape", [(1, 1), (1, 4), (2, 1), (2, 4), (3, 2), (5, 3)])
    def test_tiny_libraries(self, method, shape):
        rng = np.random.default_rng(0)
        tiny = ss.ImageLibrary(rng.normal(size=shape), [f"{i}.jpg" for i in range(shape[0])])
        _, ax = show_map(tiny, method)
        points = ax.collections[0].get_offsets()
        assert points.shape == (shape[0], 2)
        assert np.isfinite(points).all()

    def test_copies_of_one_image(self):
        copies = ss.ImageLibrary(np.ones((6, 4)), [f"{i}.jpg" for i in range(6)])
        _, ax = show_map(copies, "tsne")
        assert len(np.unique(ax.collections[0].get_offsets(), axis=0)) == 1

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"method": "umap"}, "'umap' is unknown; choose from pca, tsne"),
            ({"color_by": "size"}, "labels='size'"),
            ({"color_by": ["a"]}, "1 labels for 92 images"),
        ],
    )
    def test_refuses(self, library, arguments, message):
        with pytest.raises(QueryError, match=message):
            show_map(library, **arguments)
        assert not plt.get_fignums()
