"""The map of a library."""

import numpy as np
import pytest
from figures import CLASSES, assert_apart, assert_not_clipped, boxes, texts
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

import simsearch as ss
from simsearch.analysis import map as library_map
from simsearch.analysis import map_labels, projection
from simsearch.analysis.map import show_map
from simsearch.errors import QueryError


def groups(ax):
    """Map the name of each group to its points."""
    return {dots.get_label(): dots for dots in ax.collections}


def assert_names_lie_apart(ax):
    assert_apart(ax.texts)
    area = ax.get_window_extent()
    assert all(area.x0 <= box.x0 and box.x1 <= area.x1 for box in boxes(ax.texts))
    assert all(area.y0 <= box.y0 and box.y1 <= area.y1 for box in boxes(ax.texts))


class TestShowMap:
    @pytest.mark.parametrize("method", ["pca", "tsne", "umap"])
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
        points, share = projection.project(library.embeddings, "pca", 0)
        centred = library.embeddings - library.embeddings.mean(axis=0)
        u, s, _ = np.linalg.svd(centred.astype(float), full_matrices=False)
        for i in range(2):
            assert abs(np.corrcoef(points[:, i], u[:, i])[0, 1]) == pytest.approx(1, abs=1e-4)
        assert share == pytest.approx((s[:2] ** 2).sum() / (s**2).sum(), abs=1e-4)
        fig, _ = show_map(library, color_by=labels, images=0)
        assert texts(fig) == [f"PCA of {len(library)} images ({share:.0%} of the variance)"]

    def test_colours_differ_and_the_unlabelled_are_grey(self, library):
        _, ax = show_map(library, images=0)
        colors = {name: to_hex(dots.get_facecolor()[0]) for name, dots in groups(ax).items()}
        assert len(set(colors.values())) == 4
        assert colors["no label"] == library_map.UNLABELLED_COLOR
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
            seen = image.get_window_extent()
            assert seen.width / seen.height == pytest.approx(shown.shape[1] / shown.shape[0])
        area = ax.get_window_extent()
        assert all(area.containsx(box.x0) and area.containsy(box.y1) for box in boxes(ax.images))

    def test_fewer_thumbnails_on_request(self, library):
        _, ax = show_map(library, images=3)
        assert len(ax.images) == 3

    def test_missing_files_leave_their_points(self, library):
        gone = ss.ImageLibrary(library.embeddings, [f"gone/{i % 2}/{i}.jpg" for i in range(92)])
        _, ax = show_map(gone)
        assert not ax.images
        assert set(groups(ax)) == {"0", "1"}

    def test_a_large_library_is_sampled_and_the_title_says_so(self, library, monkeypatch):
        monkeypatch.setitem(library_map.MAX_ROWS, "tsne", 50)
        fig, ax = show_map(library, "tsne", images=0)
        assert sum(len(dots.get_offsets()) for dots in ax.collections) == 50
        assert texts(fig) == ["t-SNE of 50 of 92 images, drawn at random"]

    def test_the_seed_decides_which_images_are_drawn(self, library, monkeypatch):
        monkeypatch.setitem(library_map.MAX_ROWS, "pca", 50)
        first, again, other = (
            show_map(library, seed=seed, images=0)[1].collections[0].get_offsets()
            for seed in (0, 0, 1)
        )
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)

    def test_names_stand_at_the_medians_of_their_points(self, library):
        _, ax = show_map(library)
        assert ax.get_legend() is None
        assert {text.get_text() for text in ax.texts} == {*CLASSES, "no label"}
        for text in ax.texts:
            if text.get_text() in CLASSES:
                offsets = np.asarray(groups(ax)[text.get_text()].get_offsets())
                middle = np.median(offsets, axis=0)
                box = text.get_window_extent().transformed(ax.transData.inverted())
                assert box.contains(*middle)
        assert_names_lie_apart(ax)
        assert not any(a.overlaps(b) for a in boxes(ax.texts) for b in boxes(ax.images))

    def test_names_at_one_place_move_apart_and_point_back(self, library):
        one = ss.ImageLibrary(np.ones((40, 4)), [f"{i % 20:02} {'m' * 30}/{i}" for i in range(40)])
        fig, ax = show_map(one, images=0)
        assert len(ax.texts) == len(library_map.GROUP_STYLES) + 1
        assert_names_lie_apart(ax)
        assert len(ax.lines) > 10
        for line in ax.lines:
            np.testing.assert_allclose(line.get_xydata()[0], np.array(library_map.MAP_INCHES) / 2)
        assert_not_clipped(fig)

    @pytest.mark.parametrize("color", [*library_map.COLORS, *library_map.GREYS])
    def test_names_can_be_read_on_white(self, color):
        red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
                            for c in to_rgb(map_labels.dark(color)))  # fmt: skip
        assert 1.05 / (0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05) >= 4.5

    def test_many_classes_keep_readable_names(self, library):
        counts = [*range(1, 13), 14]
        labels = [f"class {n} {'x' * 90}" for n in counts for _ in range(n)][:92]
        labels += [""] * (92 - len(labels))
        labels[0], labels[1], labels[2] = "_under", "$x$", "森"
        many = [f"{label}{i}" if i % 9 == 0 else label for i, label in enumerate(labels)]
        fig, ax = show_map(library, color_by=many, images=0)
        names = [text.get_text() for text in ax.texts]
        assert len(names) == len(library_map.GROUP_STYLES) + 1
        assert_names_lie_apart(ax)
        assert names[-1] == f"{len(set(many)) - len(library_map.GROUP_STYLES)} more"
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
        names = sorted(text.get_text() for text in ax.texts)
        assert names == ["$x$", "?", "?", "_under"]
        assert_not_clipped(fig)

    @pytest.mark.parametrize("folder", ["", "one/"])
    def test_without_classes_there_are_no_names(self, library, folder):
        flat = ss.ImageLibrary(library.embeddings, [f"{folder}{i}.jpg" for i in range(92)])
        fig, ax = show_map(flat)
        assert not ax.texts
        assert_not_clipped(fig)

    def test_top_folders_are_classes_where_none_lies_deeper(self):
        flat = ss.ImageLibrary(np.eye(3), ["d/cat/1.jpg", "d/dog/1.jpg", "d/1.jpg"])
        flat.root = "d"
        assert flat.labels.tolist() == ["cat", "dog", ""]

    @pytest.mark.parametrize("method", ["pca", "tsne", "umap"])
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
            ({"method": "mds"}, "'mds' is unknown; choose from pca, tsne, umap"),
            ({"color_by": "size"}, "labels='size'"),
            ({"color_by": ["a"]}, "1 labels for 92 images"),
        ],
    )
    def test_invalid_arguments_are_refused(self, library, arguments, message):
        with pytest.raises(QueryError, match=message):
            show_map(library, **arguments)
        assert not plt.get_fignums()
