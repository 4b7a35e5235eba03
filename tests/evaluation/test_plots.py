"""Figures of evaluations."""

import io

import numpy as np
import pytest
from figures import CLASSES, assert_apart, assert_not_clipped, many, texts
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from PIL import Image

import simsearch as ss
from simsearch.errors import QueryError
from simsearch.evaluation.plots import show_confusion, show_precision_recall, show_worst


def tick_labels(ax):
    return [*ax.get_yticklabels(), *ax.get_xticklabels()]


def class_names(ax):
    """Classes of the rows, and then of the columns."""
    return [label.get_text() for label in tick_labels(ax)]


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


class TestShowPrecisionRecall:
    def test_one_line_per_class_and_one_for_all(self, evaluation):
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


class TestShowConfusion:
    def test_cells_are_the_shares_of_each_row(self, evaluation):
        fig, ax = show_confusion(evaluation)
        shown = np.asarray(ax.images[0].get_array())
        counts = evaluation.confusion().to_numpy()
        np.testing.assert_allclose(shown, counts / counts.sum(axis=1, keepdims=True))
        np.testing.assert_allclose(shown.sum(axis=1), 1)
        assert texts(ax) == [f"{100 * share:.0f}" for share in shown.ravel() if share >= 0.005]
        assert class_names(ax) == [*CLASSES, *CLASSES]
        assert_not_clipped(fig)

    def test_numbers_stand_in_their_cells(self):
        _, ax = show_confusion(many(6, noise=3))
        shares = np.asarray(ax.images[0].get_array())
        for text in ax.texts:
            column, row = map(int, text.get_position())
            assert text.get_text() == f"{100 * shares[row, column]:.0f}"

    @pytest.mark.parametrize("classes", [2, 8, 18, 30, 31, 120])
    def test_many_classes_stay_readable(self, classes):
        fig, ax = show_confusion(many(classes))
        shown = np.asarray(ax.images[0].get_array())
        assert shown.shape == ((classes, classes) if classes <= 30 else (30, 31))
        np.testing.assert_allclose(shown.sum(axis=1), 1)
        assert ("all others" in class_names(ax)) == (classes > 30)
        title = fig.texts[0].get_text()
        assert title.endswith(f"the 30 most confused of {classes} classes" if classes > 30 else "%")
        assert "…" not in title
        assert_not_clipped(fig)  # it draws, and so lays out
        assert_apart([*ax.texts, *tick_labels(ax)])

    def test_the_most_confused_are_those_with_most_wrong(self):
        evaluation = many(40)
        _, ax = show_confusion(evaluation)
        counts = evaluation.confusion()
        wrong = counts.sum(axis=1) - np.diag(counts)
        shown = [name for name in class_names(ax) if name in wrong.index][:30]
        assert shown == sorted(shown)
        assert wrong[shown].min() >= wrong.drop(shown).max()

    def test_a_class_that_only_the_gallery_has(self, library):
        found = ss.evaluate(library, queries="seg_test/sea/*", gallery="seg_*")
        fig, ax = show_confusion(found)
        assert np.asarray(ax.images[0].get_array())[0].sum() == 1
        assert_not_clipped(fig)

    def test_any_class_name_can_be_drawn(self):
        fig, ax = show_confusion(many(3, "森\n$x$ {} \\frac{{"))
        assert class_names(ax) == 2 * [f"? $x$ {i} \\frac{{" for i in range(3)]
        assert_not_clipped(fig)

    def test_refuses(self):
        with pytest.raises(QueryError, match="None is no evaluation"):
            show_confusion(None)


@pytest.mark.parametrize("dpi", [60, 260])
@pytest.mark.parametrize("show", [show_precision_recall, show_confusion])
def test_nothing_is_clipped_at_another_resolution(show, dpi):
    fig, _ = show(many(18, "a class with a rather long name {}"))
    data = io.BytesIO()
    fig.savefig(data, format="png", dpi=dpi)
    pixels = np.asarray(Image.open(data).convert("RGB"))
    assert pixels.min() < 128
    for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert edge.min() == 255


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
