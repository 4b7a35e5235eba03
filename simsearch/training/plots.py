"""Figures of a training: learning curves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simsearch.evaluation.plots import CURVE_INCHES
from simsearch.plotting.charts import lay_out, make_axes
from simsearch.plotting.grid import ACCENT, GREY, INK
from simsearch.training.trainer import best_epoch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from simsearch.training.report import TrainedHead


def show_history(trained: TrainedHead) -> tuple[Figure, Axes]:
    """Show the learning curves: the loss, and the mAP on the validation images.

    A training is complete when the mAP has levelled off. Where it falls again, the head overfits;
    the best epoch is marked.

    Parameters
    ----------
    trained
        From `train_head`.

    Returns
    -------
    fig : matplotlib.figure.Figure
    axes : matplotlib.axes.Axes
        Of the mAP; the loss has axes of its own, on the right.

    Examples
    --------
    >>> fig, ax = show_history(train_head(library))  # doctest: +SKIP
    """
    from matplotlib.ticker import MaxNLocator

    numbers, losses, scores = zip(*trained.history, strict=True)
    fig, ax = make_axes(*CURVE_INCHES, f"Training with the {trained.loss} loss")
    best = best_epoch(trained.history)
    right = ax.twinx()
    for axes, values, name, color in (
        (ax, scores, "mAP", ACCENT),
        (right, losses, "loss", GREY),
    ):
        axes.plot(numbers, values, color=color, linewidth=1.5, clip_on=False)
        axes.set_ylabel(name, color=color, fontsize=10)
        axes.tick_params("y", colors=color, labelsize=9, length=0)
        axes.spines[:].set_visible(axes is ax)
    ax.plot(best.number, best.mAP, "o", color=ACCENT, clip_on=False)
    low, high = ax.get_ylim()
    ax.set_ylim(max(low, 0), min(high, 1))  # no ticks outside the range of an mAP
    ax.set_xlabel("epoch", color=INK, fontsize=10)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    lay_out(fig)
    return fig, ax
