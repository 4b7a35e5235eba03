"""Figures of the analysis: heat maps over matches, groups of duplicates."""

import numpy as np
import pytest
import torch
from figures import assert_not_clipped, found, pixels, texts
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from PIL import Image
from scenes import scene

import simsearch as ss
from simsearch.analysis.duplicates import show_duplicates
from simsearch.errors import QueryError
from simsearch.plotting import grid
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
    def test_similar_parts_are_coloured_on_grey(self, colors):
        matches = ss.search(colors, np.array([0, 0, 1], np.float32), k=3)
        assert [match.row for match in matches] == [1, 2, 0]
        _, axes = show_matches(matches, explain=True)
        half = pixels(axes[0, 3])  # red and blue: blue is the query, so the right is coloured
        left, right = half[:, :20], half[:, -20:]
        assert np.ptp(left, axis=2).max() <= 4
        np.testing.assert_allclose(left[..., 0], 0.299 * 255, atol=4)
        assert np.ptp(right, axis=2).min() > 100
        whole = pixels(axes[0, 1])
        assert np.ptp(whole, axis=2).min() > 60
        assert len(axes[0, 2].images) == 1
        assert "no such file" in " ".join(texts(axes[0, 2])[0].split())

    def test_all_matches_of_a_query_share_a_scale(self, colors):
        """A cell of the half gives √2, one of the whole gives 1, and is coloured less."""
        query = np.array([0, 0, 1], np.float32)
        _, axes = show_matches(ss.search(colors, query, k=3), explain=True)
        together = pixels(axes[0, 1])[40, 40]
        _, axes = show_matches(ss.search(colors, query, k=1), explain=True)
        alone = pixels(axes[0, 1])[40, 40]
        grey = 0.114 * 255
        assert np.abs(together - grey).sum() < 0.8 * np.abs(alone - grey).sum()

    def test_query_and_captions_stay_as_they_are(self, colors):
        matches = ss.search(colors, [0, 1], k=2)
        plain, explained = (show_matches(matches, explain=each)[1] for each in (False, True))
        for before, after in zip(plain.flat, explained.flat, strict=True):
            assert texts(before) == texts(after)
        for before, after in zip(plain[:, 0], explained[:, 0], strict=True):
            np.testing.assert_array_equal(pixels(before), pixels(after))

    def test_dissimilar_parts_stay_grey(self, colors):
        matches = ss.search(colors, np.array([-1, 0, -1], np.float32), k=3)
        _, axes = show_matches(matches, explain=True)
        assert np.ptp(pixels(axes[0, 3]), axis=2).max() == 0

    def test_nothing_found_and_nothing_readable(self, colors):
        show_matches(ss.search(colors, 0, threshold=1.0), explain=True)
        gone = ss.ImageLibrary(colors.embeddings, ["a.png", "b.png", "c.png"], colors.backbone)
        _, axes = show_matches(ss.search(gone, 0), explain=True)
        assert "no such file" in " ".join(texts(axes[0, 1])[0].split())

    def test_a_portrait_is_coloured_in_its_centre_crop(self, tmp_path):
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
        return ss.duplicates(ss.ImageLibrary(rows, library.paths[:9]), level="similar")

    def test_one_row_per_group_the_image_to_keep_first(self, copies):
        fig, axes = show_duplicates(copies)
        assert axes.shape == (3, 4)
        for number, (group, row) in enumerate(zip(copies, axes, strict=True), 1):
            tails = ["/".join(path.split("/")[-2:]) for path in group.paths]
            assert texts(row[0]) == [f"{number} · {len(group)} images", tails[0]]
            shown = [texts(ax) for ax in row[1:] if ax.texts]
            scores = [f"{score:.3f} similar" for score in group.scores[1:]]
            assert shown == [[*pair] for pair in zip(scores, tails[1:], strict=True)]
            frames = [to_hex(ax.patches[0].get_edgecolor()) for ax in row if ax.patches]
            assert frames == [grid.ACCENT] + [grid.EDGE] * (len(group) - 1)
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

    def test_pages(self, copies):
        fig, axes = show_duplicates(copies, limit=2, page=2)
        assert fig.texts[0].get_text() == "groups 3 to 3 of 3"
        assert len(axes) == 1
        for page in (0, 3, -1):
            with pytest.raises(ss.QueryError, match=f"page={page}"):
                show_duplicates(copies, limit=2, page=page)

    def test_a_group_that_just_fits(self, copies):
        _, axes = show_duplicates(copies, columns=4)
        assert [len(texts(ax)) for ax in axes[0]] == [2, 2, 2, 2]

    def test_the_edit_is_told_beside_the_cosine(self, tmp_path):
        picture = scene(1)
        picture.save(tmp_path / "a.png")
        picture.rotate(90, expand=True).save(tmp_path / "b.png")
        paths = [tmp_path / "a.png", tmp_path / "b.png"]
        _, axes = show_duplicates(ss.duplicates(ss.ImageLibrary([[1, 0], [0.8, 0.6]], paths)))
        assert "0.800 turn" in [texts(ax)[0] for ax in axes[0]]

    def test_missing_files_leave_the_reason(self):
        gone = ss.duplicates(ss.ImageLibrary(np.ones((2, 2)), ["a/1.jpg", "a/2.jpg"]))
        fig, axes = show_duplicates(gone)
        assert " ".join(texts(axes[0, 1])[0].split()) == "no such file or directory"
        assert_not_clipped(fig)

    def test_no_duplicates_is_no_error(self):
        fig, axes = show_duplicates(ss.duplicates(ss.ImageLibrary(np.eye(2), ["a.jpg", "b.jpg"])))
        assert axes.shape == (1, 1)
        assert " ".join(texts(axes[0, 0])[0].split()) == "no duplicates"
        assert_not_clipped(fig)

    def test_invalid_arguments_are_refused(self, copies):
        with pytest.raises(QueryError, match=r"simsearch\.duplicates returns"):
            show_duplicates(list(copies))
        for argument in ({"limit": 0}, {"columns": 1}, {"size": 0}):
            with pytest.raises(QueryError, match="give"):
                show_duplicates(copies, **argument)
        assert not plt.get_fignums()
