"""Figures of matches: nothing clipped, captions apart, the same under any setting."""

import io
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from figures import assert_apart, assert_not_clipped, found, texts
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

import simsearch as ss
from simsearch.analysis.map import show_map
from simsearch.errors import QueryError
from simsearch.evaluation.plots import show_confusion, show_precision_recall
from simsearch.plotting import grid
from simsearch.plotting.matches import show_matches
from simsearch.plotting.sheet import show_images
from simsearch.retrieval.matches import percentile


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
        lambda: show_map(library),
        lambda: show_images(library, limit=7),
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
        assert frames == [grid.ACCENT] + [grid.EDGE] * 3

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

    def test_each_query_starts_a_row(self, library):
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
        assert max(axes[0, 1].images[0].get_array().shape) == grid.DPI * grid.PIXELS_PER_DOT

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

    def test_an_unknown_percentile_is_left_out(self):
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
    def test_sizes_must_be_positive(self, argument):
        with pytest.raises(QueryError, match="above 0"):
            show_matches(found("a.jpg"), **argument)


class TestCaptions:
    def test_metadata_has_a_line_of_its_own(self, library):
        matches = ss.search(library, 0, k=4)
        rows = [replace(m, caption=f"${m.rank}\n森") if m.rank != 2 else m for m in matches]
        fig, axes = show_matches(replace(matches, rows=tuple(rows)))
        assert [texts(ax)[2:] for ax in axes[0, 1:]] == [["$1 ?"], [], ["$3 ?"], ["$4 ?"]]
        assert_not_clipped(fig)
        assert_apart([text for ax in axes.flat for text in ax.texts])

    def test_duplicates_are_counted_on_the_line_of_the_metadata(self, library):
        matches = ss.search(library, 0, k=3)
        first, second, third = matches
        two = {"duplicates": ("b.jpg", "c.jpg")}
        rows = replace(first, percentile=float("nan"), **two), replace(second, caption="a", **two)
        fig, axes = show_matches(replace(matches, rows=(*rows, third)))
        lines = [texts(ax) for ax in axes[0, 1:]]
        assert lines[0][0] == f"1 · {first.score:.3f}"
        assert [line[2:] for line in lines] == [["+2 alike"], ["+2 alike · a"], []]
        assert "alike" not in "".join(lines[2])
        assert_not_clipped(fig)

    def test_captions_keep_a_gap_to_their_neighbours(self, library):
        matches = ss.search(library, 0, k=3)
        rows = [replace(m, rank=100 + m.rank, duplicates=("b.jpg",) * 12) for m in matches]
        fig, axes = show_matches(replace(matches, rows=tuple(rows)))
        drawn = [[t.get_window_extent() for t in ax.texts if t.get_text()] for ax in axes[0]]
        for left, right in pairwise(drawn):
            gap = min(box.x0 for box in right) - max(box.x1 for box in left)
            assert gap >= 0.9 * grid.GAP_INCHES * fig.dpi
