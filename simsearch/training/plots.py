"""Figures of a training: loss and validation mAP by epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simsearch.evaluation.plots import CURVE_INCHES, make_axes
from simsearch.plotting.grid import ACCENT, GREY, INK
from simsearch.training.trainer import best_epoch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from simsearch.training.head import TrainedHead


def show_history(trained: TrainedHead) -> tuple[Figure, Axes]:
    """Show how a training went: the loss, and the mAP on the validation images.

    Good when the mAP has levelled off by the end. Where it falls again, the head has begun to
    learn the training images by heart; the marked epoch is the best.

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
    numbers, losses, reached = zip(*trained.history, strict=True)
    fig, ax = make_axes(CURVE_INCHES, f"Training with the {trained.loss} loss", right=0.6)
    best = best_epoch(trained.history)
    right = ax.twinx()
    for axes, values, name, color in (
        (ax, reached, "mAP", ACCENT),
        (right, losses, "loss", GREY),
    ):
        axes.plot(numbers, values, color=color, linewidth=1.5, clip_on=False)
        axes.set_ylabel(name, color=color, fontsize=10)
        axes.tick_params("y", colors=color, labelsize=9, length=0)
        axes.spines[:].set_visible(axes is ax)
    ax.plot(best.number, best.mAP, "o", color=ACCENT, clip_on=False)
    low, high = ax.get_ylim()
    ax.set_ylim(max(low, 0), min(high, 1))  # where no mAP lies, there is no tick
    ax.set_xlabel("epoch", color=INK, fontsize=10)
    ax.xaxis.get_major_locator().set_params(integer=True)
    return fig, ax
