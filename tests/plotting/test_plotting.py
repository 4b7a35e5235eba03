import io
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import combinations
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pytest
import torch
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
from simsearch.evaluation.plots import show_confusion, show_precision_recall, show_worst
from simsearch.plotting import grid as cells
from simsearch.plotting.matches import show_matches
from simsearch.plotting.sheet import show_images
from simsearch.retrieval.matches import Match, Matches, percentile
from simsearch.training.trainer import Epoch

CLASSES = ("forest", "glacier", "sea")


@pytest.fixture(autouse=True)
def clean():
    """Every figure that a test makes is closed, and the settings are as they were."""
    settings = dict(mpl.rcParams)
    yield
    plt.close("all")
    assert dict(mpl.rcParams) == settings


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """Three classes far apart, each in seg_train and seg_test, and unlabelled images."""
    root = tmp_path_factory.mktemp("dataset")
    rng = np.random.default_rng(0)
    folders = [f"{split}/{name}" for split in ("seg_test", "seg_train") for name in CLASSES]
    paths, rows = [], []
    for folder in ["seg_pred", *folders]:
        (root / folder).mkdir(parents=True)
        kind = CLASSES.index(folder.split("/")[1]) if "/" in folder else 3
        for i in range(20 if "train" in folder else 8):
            paths.append(root / folder / f"{i:04}.jpg")
            color = tuple(rng.integers(0, 256, 3).tolist())
            Image.new("RGB", (40, 30 if i % 2 else 60), color).save(paths[-1])
            rows.append(4 * np.eye(16)[kind if kind < 3 else i % 3] + rng.normal(size=16) / 3)
    library = ss.ImageLibrary(np.array(rows), paths)
    library.root = root.as_posix()
    return library


def found(*paths, query="dataset/q.jpg", image=None, share=99.3):
    rows = [Match(i, str(path), 1 - i / 8, share, i) for i, path in enumerate(paths, 1)]
    return Matches(query, tuple(rows), image)


def texts(ax):
    return [text.get_text() for text in ax.texts]


def assert_not_clipped(fig):
    """Nothing reaches over the edge, seen by what is drawn and by what matplotlib measures."""
    data = io.BytesIO()
    fig.savefig(data, format="png")
    pixels = np.asarray(Image.open(data).convert("RGB"))
    assert pixels.min() < 128, "nothing was drawn"
    for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert edge.min() == 255
    box = fig.get_tightbbox()
    width, height = fig.get_size_inches()
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= width
    assert box.y1 <= height


def boxes(artists):
    return [artist.get_window_extent() for artist in artists]


def assert_apart(artists):
    assert not any(a.fully_overlaps(b) for a, b in combinations(boxes(artists), 2))


def test_import_brings_no_heavy_package():
    code = (
        "import sys, simsearch.plotting.matches, simsearch.plotting.sheet;"
        "print({'matplotlib', 'sklearn', 'torch', 'pandas'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"


@pytest.mark.parametrize("style", ["ggplot", "dark_background"])
@pytest.mark.parametrize("setting", ["figure.autolayout", "figure.constrained_layout.use"])
def test_looks_the_same_under_any_setting(library, style, setting):
    evaluation = ss.evaluate(library)
    figures = [
        lambda: show_matches(ss.search(library, [0, 9], k=2), size=1),
        lambda: show_precision_recall(evaluation),
        lambda: show_confusion(evaluation),
    ]

    def drawn(make):
        fig, _ = make()
        first, second = io.BytesIO(), io.BytesIO()
        fig.savefig(first, format="png")
        fig.savefig(second, format="png")
        assert first.getvalue() == second.getvalue()
        return np.asarray(Image.open(first))

    for make in figures:
        plain = drawn(make)
        with plt.style.context(style), plt.rc_context({setting: True}):
            np.testing.assert_array_equal(drawn(make), plain)


class TestShowMatches:
    def test_query_comes_first_then_its_matches(self, library):
        matches = ss.search(library, 30, k=5)
        fig, axes = show_matches(matches)
        assert isinstance(fig, Figure)
        assert axes.shape == (1, 6)
        assert all(isinstance(ax, Axes) for ax in axes.flat)
        assert plt.get_fignums() == [fig.number]
        assert texts(axes[0, 0]) == ["query", "/".join(matches.query.split("/")[-2:])]
        for ax, match in zip(axes[0, 1:], matches, strict=True):
            headline, path = texts(ax)
            rank, score, share = headline.split(" · ")
            assert rank == str(match.rank)
            assert score == f"{match.score:.3f}"
            assert share == percentile(match.percentile)
            assert path == "/".join(match.path.split("/")[-2:])
        assert_not_clipped(fig)

    def test_query_alone_has_a_coloured_frame(self, library):
        _, axes = show_matches(ss.search(library, 30, k=3))
        frames = [to_hex(ax.patches[0].get_edgecolor()) for ax in axes.flat]
        assert frames == [cells.ACCENT] + [cells.EDGE] * 3

    def test_pixels_shown_are_the_files(self, library):
        matches = ss.search(library, 30, k=4)
        _, axes = show_matches(matches)
        for ax, path in zip(axes[0], [matches.query, *matches.paths], strict=True):
            shown = np.asarray(ax.images[0].get_array())
            np.testing.assert_array_equal(shown, np.asarray(ss.load_image(path)))

    @pytest.mark.parametrize(
        ("k", "columns", "shape"),
        [
            (1, None, (1, 2)),
            (6, None, (1, 7)),
            (7, None, (2, 5)),
            (12, None, (2, 7)),
            (20, None, (4, 6)),
            (5, 2, (3, 3)),
            (3, 8, (1, 4)),
            (10, 10, (1, 11)),
        ],
    )
    def test_wraps_evenly(self, library, k, columns, shape):
        fig, axes = show_matches(ss.search(library, 0, k=k), columns=columns, size=1)
        assert axes.shape == shape
        assert [int(texts(ax)[0].split()[0]) for ax in axes[:, 1:].flat if ax.texts] == [
            *range(1, k + 1)
        ]
        assert not any(ax.texts for ax in axes[1:, 0])
        assert_not_clipped(fig)

    def test_several_queries_take_a_row_each(self, library):
        answers = ss.search(library, [0, 10, 40], k=5)
        fig, axes = show_matches(answers)
        assert axes.shape == (3, 6)
        for row, answer in zip(axes, answers, strict=True):
            assert texts(row[0])[0] == "query"
            assert [texts(ax)[1] for ax in row[1:]] == [
                "/".join(path.split("/")[-2:]) for path in answer.paths
            ]
        assert_not_clipped(fig)

    def test_long_rows_of_several_queries_wrap_under_their_query(self, library):
        _, axes = show_matches([*ss.search(library, [0, 10], k=8), found()], size=1)
        assert axes.shape == (5, 5)
        assert [bool(ax.texts) for ax in axes[:, 0]] == [True, False, True, False, True]
        assert texts(axes[3, 1])[0].startswith("5 ")

    def test_no_match_still_shows_the_query(self, library):
        fig, axes = show_matches(ss.search(library, 0, threshold=1.0))
        assert axes.shape == (1, 2)
        assert len(axes[0, 0].images) == 1
        assert texts(axes[0, 1]) == ["no match"]
        assert_not_clipped(fig)

    @pytest.mark.parametrize(
        "size", [(40, 60), (60, 40), (1, 1), (4000, 100), (30000, 1), (3, 900)]
    )
    def test_no_image_is_distorted_or_off_centre(self, tmp_path, size):
        Image.new("RGB", size, "teal").save(tmp_path / "a.png")
        fig, axes = show_matches(found(tmp_path / "a.png", tmp_path / "gone.png"))
        left, right, bottom, top = axes[0, 1].images[0].get_extent()
        assert (right - left) / (top - bottom) == pytest.approx(size[0] / size[1])
        assert left + right == pytest.approx(0)
        assert bottom + top == pytest.approx(0)
        # The data units are inches on both axes, so this is what is seen on screen too.
        seen = axes[0, 1].images[0].get_window_extent()
        assert seen.width / seen.height == pytest.approx(size[0] / size[1])
        assert_not_clipped(fig)

    def test_cells_are_equal_whatever_is_in_them(self, tmp_path):
        for name, size in (("wide", (90, 10)), ("high", (10, 90)), ("square", (9, 9))):
            Image.new("RGB", size).save(tmp_path / f"{name}.png")
        _, axes = show_matches(found(*sorted(tmp_path.iterdir()), "gone.png"))
        sizes = {tuple(np.round(ax.get_window_extent().size, 6)) for ax in axes.flat}
        assert len(sizes) == 1

    def test_landscape_photos_leave_no_gap_above_their_captions(self, tmp_path):
        Image.new("RGB", (300, 200)).save(tmp_path / "a.png")
        _, axes = show_matches(found(tmp_path / "a.png", image=tmp_path / "a.png"))
        assert axes[0, 1].get_window_extent().height == pytest.approx(
            axes[0, 1].images[0].get_window_extent().height
        )

    def test_large_photos_are_shown_small(self, tmp_path):
        Image.new("RGB", (3000, 2000)).save(tmp_path / "a.jpg")
        _, axes = show_matches(found(tmp_path / "a.jpg"), size=1)
        assert max(axes[0, 1].images[0].get_array().shape) == cells.DPI * cells.PIXELS_PER_DOT

    def test_unreadable_files_leave_the_reason(self, tmp_path):
        (tmp_path / "text.jpg").write_text("no picture")
        matches = found(tmp_path / "gone.jpg", tmp_path / "text.jpg", query="embedding")
        fig, axes = show_matches(matches)
        assert [" ".join(texts(ax)[0].split()) for ax in axes.flat] == [
            "an embedding, not an image",
            "no such file or directory",
            "not a supported image format",
        ]
        assert texts(axes[0, 1])[1] == "1 · 0.875 · top 0.7%"
        assert texts(axes[0, 1])[2].endswith("/gone.jpg")
        assert_not_clipped(fig)

    def test_a_share_that_is_not_known_is_left_out(self):
        _, axes = show_matches(found("a/b.jpg", share=float("nan")))
        assert texts(axes[0, 1])[1] == "1 · 0.875"

    @pytest.mark.parametrize(
        ("name", "shown"),
        [
            ("森の$x$_^2.jpg", "??$x$_^2.jpg"),
            ("$\\frac{1}{$.jpg", "$\\frac{1}{$.jpg"),
            ("new\nline\ttab.jpg", "new line tab.jpg"),
            ("half\udcff\x07.jpg", "half??.jpg"),
            ("é и ب 😀 _.jpg", "é и ب 😀 _.jpg"),
            ("%d {0} <b>&.jpg", "%d {0} <b>&.jpg"),
        ],
    )
    def test_any_name_can_be_drawn(self, name, shown):
        fig, axes = show_matches(found(f"d/{name}", query=f"x/y/{name}"))
        assert texts(axes[0, 1])[-1] == f"d/{shown}"
        assert texts(axes[0, 0])[-1] == f"y/{shown}"
        assert_not_clipped(fig)

    def test_long_names_are_cut_in_the_middle(self):
        name = f"{'holiday_' * 25}0042.jpg"
        fig, axes = show_matches(found(*[f"/data/album/{name}"] * 3, query="W" * 300))
        path = texts(axes[0, 1])[-1]
        assert path.startswith("album/")
        assert path.endswith("_0042.jpg")
        assert path.count("…") == 1
        assert_not_clipped(fig)
        assert_apart([ax.texts[-1] for ax in axes.flat])

    def test_captions_of_small_cells_stay_apart(self, library):
        fig, axes = show_matches(ss.search(library, 0, k=12), size=0.5)
        assert_apart([text for ax in axes.flat for text in ax.texts])
        assert_not_clipped(fig)

    @pytest.mark.parametrize(
        "matches", [[], "a.jpg", None, [found(), "a.jpg"], (found("a.jpg")[:1])]
    )
    def test_refuses_what_search_does_not_return(self, matches):
        with pytest.raises(QueryError, match=r"simsearch\.search returns"):
            show_matches(matches)
        assert not plt.get_fignums()

    @pytest.mark.parametrize("argument", [{"columns": 0}, {"columns": -1}, {"size": 0}])
    def test_refuses_sizes_of_nothing(self, argument):
        with pytest.raises(QueryError, match="above 0"):
            show_matches(found("a.jpg"), **argument)


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


def pixels(ax):
    return np.asarray(ax.images[0].get_array()).astype(int)


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


class TestCaptions:
    def test_a_table_has_a_line_of_its_own(self, library):
        matches = ss.search(library, 0, k=4)
        rows = [replace(m, caption=f"${m.rank}\n森") if m.rank != 2 else m for m in matches]
        fig, axes = show_matches(replace(matches, rows=tuple(rows)))
        assert [texts(ax)[2:] for ax in axes[0, 1:]] == [["$1 ?"], [], ["$3 ?"], ["$4 ?"]]
        assert_not_clipped(fig)
        assert_apart([text for ax in axes.flat for text in ax.texts])

    def test_duplicates_are_counted_in_the_first_line(self, library):
        matches = ss.search(library, 0, k=2)
        first, second = matches
        alike = replace(first, duplicates=("b.jpg", "c.jpg"), percentile=float("nan"))
        fig, axes = show_matches(replace(matches, rows=(alike, second)))
        assert texts(axes[0, 1])[0] == f"1 · {first.score:.3f} · +2 alike"
        assert "alike" not in texts(axes[0, 2])[0]
        assert_not_clipped(fig)


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


class TestShowImages:
    def test_anything_that_is_an_image(self, library):
        path = str(library.paths[0])
        sources = [path, Image.new("RGB", (8, 6)), np.zeros((5, 9, 3), np.uint8), b"broken"]
        fig, axes = show_images(sources, columns=3)
        assert axes.shape == (2, 3)
        captions = [texts(ax)[-1] if ax.texts else None for ax in axes.flat]
        assert captions == [
            "/".join(path.split("/")[-2:]),
            "PIL image 8×6",
            "array (5, 9, 3)",
            "6 bytes",
            None,
            None,
        ]
        assert texts(axes[1, 0])[0] == "not a supported\nimage format"
        assert not fig.texts
        assert_not_clipped(fig)

    def test_captions_and_title_are_as_given(self, library):
        fig, axes = show_images(library.paths[:2], ["one $", "two 森"], title="My $x$ " + "y" * 400)
        assert [texts(ax) for ax in axes.flat] == [["one $"], ["two ?"]]
        assert fig.texts[0].get_text().startswith("My $x$ y")
        assert_not_clipped(fig)

    def test_says_what_the_limit_left_out(self, library):
        fig, axes = show_images(library.paths, limit=4)
        assert axes.shape == (1, 4)
        assert [text.get_text() for text in fig.texts] == [f"4 of {len(library)} images"]

    def test_the_folders_of_a_library_take_turns(self, library):
        fig, axes = show_images(library, limit=16)
        captions = [texts(ax)[0] for ax in axes.flat if ax.texts]
        counts = Counter(captions)
        assert set(counts) == set(library.folders)
        assert set(counts.values()) == {2, 3}
        assert captions == sorted(captions)
        assert fig.texts[0].get_text() == f"16 of {len(library)} images"

    def test_a_small_folder_gives_its_turns_to_the_others(self):
        turns = cells.round_robin(np.array(["a"] * 50 + ["b"] * 2 + ["c"] * 9))
        assert sorted(turns) == [*range(61)]
        assert Counter("a" if row < 50 else "b" if row < 52 else "c" for row in turns[:8]) == {
            "a": 3,
            "b": 2,
            "c": 3,
        }

    def test_captions_belong_to_their_images(self, library):
        _, axes = show_images(library, captions=library.paths, limit=5, size=2)
        names = [texts(ax)[0] for ax in axes.flat]
        pixels = [np.asarray(ax.images[0].get_array()) for ax in axes.flat]
        for name, shown in zip(names, pixels, strict=True):
            (path,) = [path for path in library.paths if path.endswith(name.split("…")[-1][-20:])]
            np.testing.assert_array_equal(shown, np.asarray(ss.load_image(path)))

    @pytest.mark.parametrize(
        ("images", "captions", "message"),
        [
            ([], None, "no images"),
            ("a.jpg", None, r"give \['a.jpg'\]"),
            (["a.jpg"], [], "0 captions for 1 images"),
        ],
    )
    def test_refuses(self, images, captions, message):
        with pytest.raises(QueryError, match=message):
            show_images(images, captions)
        assert not plt.get_fignums()

    @pytest.mark.parametrize("argument", [{"columns": 0}, {"limit": 0}, {"size": -1}])
    def test_refuses_sizes_of_nothing(self, argument):
        with pytest.raises(QueryError, match="above 0"):
            show_images(["a.jpg"], **argument)


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


@pytest.fixture(scope="module")
def noisy(library):
    """The same images, further from their classes."""
    noise = np.random.default_rng(1).normal(size=library.embeddings.shape)
    noisy = ss.ImageLibrary(library.embeddings + 0.4 * noise, library.paths)
    noisy.root = library.root
    return noisy


@pytest.fixture(scope="module")
def evaluation(noisy):
    return ss.evaluate(noisy, queries="seg_test/*", gallery="seg_train/*")


def many(classes, name="animals_{:03}_species", size=4, noise=1.0):
    """An evaluation of many classes with long names, many of them taken for others."""
    rng = np.random.default_rng(classes)
    labels = np.repeat(np.arange(classes), size)
    rows = rng.normal(size=(classes, 8))[labels] + noise * rng.normal(size=(len(labels), 8))
    many = ss.ImageLibrary(rows, [f"{i}.jpg" for i in range(len(labels))])
    return ss.evaluate(many, [name.format(label) for label in labels], k=1, resamples=0)


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


class TestShowPrecisionRecall:
    def test_a_line_a_class_and_one_for_all(self, evaluation):
        fig, ax = show_precision_recall(evaluation)
        assert plt.get_fignums() == [fig.number]
        names = ["all", *sorted(CLASSES, key=lambda name: -evaluation.by_class[name]["mAP"].value)]
        scores = {"all": evaluation.overall, **evaluation.by_class}
        assert legend(ax) == [f"{scores[name]['mAP'].value:.3f} {name}" for name in names]
        curves = dict(zip(evaluation.classes, evaluation.curves, strict=True))
        curves["all"] = evaluation.curve
        for name, line in zip(names, ax.lines, strict=True):
            np.testing.assert_array_equal(line.get_ydata(), curves[name])
            np.testing.assert_allclose(line.get_xdata(), np.arange(101) / 100)
        assert ax.lines[0].get_linewidth() > ax.lines[1].get_linewidth()
        assert "24 queries in 60 images" in fig.texts[0].get_text()
        assert_not_clipped(fig)

    def test_compares(self, library, evaluation):
        other = ss.evaluate(library, queries="seg_train/*", gallery="seg_test/*", k=1)
        fig, ax = show_precision_recall({"before": evaluation, f"after {'x' * 90} $": other})
        first, second = legend(ax)
        assert first == f"{evaluation.overall['mAP'].value:.3f} before"
        assert second.endswith("x $")
        np.testing.assert_array_equal(ax.lines[1].get_ydata(), other.curve)
        assert len({to_hex(line.get_color()) for line in ax.lines}) == 2
        assert_not_clipped(fig)

    @pytest.mark.parametrize(("classes", "named"), [(2, 3), (18, 19), (19, 1), (60, 1)])
    def test_many_classes_stay_readable(self, classes, named):
        fig, ax = show_precision_recall(many(classes))
        assert len(ax.lines) == classes + 1
        assert len(legend(ax)) == named
        styles = {(to_hex(line.get_color()), line.get_linestyle()) for line in ax.lines}
        assert len(styles) == max(named, 2)
        assert_not_clipped(fig)  # it draws, and so lays the legend out
        assert_apart(ax.get_legend().get_texts())

    @pytest.mark.parametrize("nothing", [{}, None, [1], "a", {"a": 1}, {"a": None}])
    def test_refuses(self, nothing):
        with pytest.raises(QueryError, match="evaluat"):
            show_precision_recall(nothing)
        assert not plt.get_fignums()


class TestShowHistory:
    @pytest.mark.parametrize(
        "reached", [[1.0, 1.0, 1.0], [0.0, 0.0], [0.999, 1.0], [0.2, 0.9, 0.7], [np.nan] * 3]
    )
    def test_the_axis_holds_what_an_map_can_be(self, reached):
        history = [Epoch(i, 1 / i, value) for i, value in enumerate(reached, 1)]
        fig, ax = ss.show_history(SimpleNamespace(history=history, loss="triplet"))
        low, high = ax.get_ylim()
        assert 0 <= low < high <= 1
        if not np.isnan(reached).any():
            assert low <= min(reached) <= max(reached) <= high
        assert_not_clipped(fig)


class TestShowConfusion:
    def test_cells_are_the_shares_of_each_row(self, evaluation):
        fig, ax = show_confusion(evaluation)
        shown = np.asarray(ax.images[0].get_array())
        counts = evaluation.confusion().to_numpy()
        np.testing.assert_allclose(shown, counts / counts.sum(axis=1, keepdims=True))
        np.testing.assert_allclose(shown.sum(axis=1), 1)
        numbers = [text for text in texts(ax) if text.isdecimal()]
        assert numbers == [f"{100 * share:.0f}" for share in shown.ravel() if share >= 0.005]
        assert [text for text in texts(ax) if not text.isdecimal()] == [*CLASSES, *CLASSES]
        assert_not_clipped(fig)

    def test_numbers_stand_in_their_cells(self):
        _, ax = show_confusion(many(6, noise=3))
        shares = np.asarray(ax.images[0].get_array())
        for text in ax.texts:
            if text.get_text().isdecimal():
                column, row = map(int, text.get_position())
                assert text.get_text() == f"{100 * shares[row, column]:.0f}"

    @pytest.mark.parametrize("classes", [2, 8, 18, 30, 31, 120])
    def test_many_classes_stay_readable(self, classes):
        fig, ax = show_confusion(many(classes))
        shown = np.asarray(ax.images[0].get_array())
        assert shown.shape == ((classes, classes) if classes <= 30 else (30, 31))
        np.testing.assert_allclose(shown.sum(axis=1), 1)
        assert ("all others" in texts(ax)) == (classes > 30)
        title = fig.texts[0].get_text()
        assert title.endswith(f"the 30 most confused of {classes} classes" if classes > 30 else "%")
        assert "…" not in title
        assert_apart(ax.texts)
        assert_not_clipped(fig)

    def test_the_most_confused_are_those_with_most_wrong(self):
        evaluation = many(40)
        _, ax = show_confusion(evaluation)
        counts = evaluation.confusion()
        wrong = counts.sum(axis=1) - np.diag(counts)
        shown = [text for text in texts(ax) if text in wrong.index][:30]
        assert shown == sorted(shown)
        assert wrong[shown].min() >= wrong.drop(shown).max()

    def test_a_class_that_only_the_gallery_has(self, library):
        found = ss.evaluate(library, queries="seg_test/sea/*", gallery="seg_*")
        fig, ax = show_confusion(found)
        assert np.asarray(ax.images[0].get_array())[0].sum() == 1
        assert_not_clipped(fig)

    def test_any_class_name_can_be_drawn(self):
        fig, ax = show_confusion(many(3, "森\n$x$ {} \\frac{{"))
        names = [text for text in texts(ax) if not text.isdecimal()]
        assert names == 2 * [f"? $x$ {i} \\frac{{" for i in range(3)]
        assert_not_clipped(fig)

    def test_refuses(self):
        with pytest.raises(QueryError, match="None is no evaluation"):
            show_confusion(None)


class TestShowWorst:
    def test_the_worst_queries_and_their_best_wrong_matches(self, noisy):
        evaluation = ss.evaluate(noisy, k=1)
        fig, axes = show_worst(noisy, evaluation, n=3, k=2)
        assert axes.shape == (3, 3)
        for row, line in zip(evaluation.worst(3), axes, strict=True):
            average = evaluation.per_query()[evaluation.rows == row][0]
            heading, short_path = texts(line[0])
            assert heading == f"{evaluation.labels[row]} · AP {average:.2f}"
            assert str(noisy.paths[row]).endswith(short_path)
            order = [m for m in ss.search(noisy, int(row), k=91) if m.row in evaluation.gallery]
            wrong = [m for m in order if evaluation.labels[m.row] != evaluation.labels[row]][:2]
            for match, ax in zip(wrong, line[1:], strict=True):
                words = (order.index(match) + 1, f"{match.score:.3f}", evaluation.labels[match.row])
                assert texts(ax)[0] == " · ".join(map(str, words))
        assert_not_clipped(fig)

    def test_only_the_gallery_is_shown(self, noisy, evaluation):
        _, axes = show_worst(noisy, evaluation, n=2, k=8)
        shown = [texts(ax)[1] for ax in axes[:, 1:].flat if ax.texts]
        gallery = {"/".join(noisy.names[row].split("/")[-2:]) for row in evaluation.gallery}
        assert set(shown) <= gallery
        assert len(shown) == 16

    def test_refuses(self, library, evaluation):
        with pytest.raises(QueryError, match="not of this library of 2"):
            show_worst(ss.ImageLibrary(np.eye(2), ["a/1.jpg", "b/2.jpg"]), evaluation)
        with pytest.raises(QueryError, match="n=0"):
            show_worst(library, evaluation, n=0)
        with pytest.raises(QueryError, match="is no evaluation"):
            show_worst(library, ss.search(library, 0))
        assert not plt.get_fignums()
