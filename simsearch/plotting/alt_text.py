"""Alternative texts of figures in notebooks: what is written in a figure, for those who hear it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.axis import Tick
from matplotlib.figure import Figure
from matplotlib.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS = ("image/png", "image/jpeg", "image/svg+xml")
MAX_LETTERS = 1000


def alt_text(fig: Figure) -> str:
    """Return the texts of a figure in the order of reading, without the numbers of its axes.

    Examples
    --------
    >>> from simsearch.plotting.grid import new_figure
    >>> alt_text(new_figure(3, 2, "Three albums"))
    'Figure: Three albums'
    """
    ticks = {id(text) for tick in fig.findobj(Tick) for text in tick.findobj(Text)}
    powers = {id(axis.get_offset_text()) for ax in fig.axes for axis in (ax.xaxis, ax.yaxis)}
    texts = [text for text in fig.findobj(Text) if id(text) not in ticks | powers]
    words = (" ".join(text.get_text().split()) for text in texts)
    said = "; ".join(dict.fromkeys(filter(None, words)))
    cut = said if len(said) <= MAX_LETTERS else f"{said[:MAX_LETTERS].rpartition(';')[0]}; ..."
    return f"Figure: {cut}" if cut else "Figure without text"


def add_alt_texts() -> None:
    """Give the figures that a notebook shows an alternative text, beside their picture."""
    from IPython.core.getipython import get_ipython

    display: Any = getattr(get_ipython(), "display_formatter", None)
    for kind in KINDS if display else ():
        formatter = display.formatters[kind]
        draw = formatter.type_printers.get(Figure)
        if draw is not None and not hasattr(draw, "with_alt"):
            formatter.for_type(Figure, _with_alt(draw))


def _with_alt(draw: Callable[[Figure], Any]) -> Callable[[Figure], Any]:
    """Return what draws a figure, and gives its alternative text as metadata."""

    def draw_with_alt(fig: Figure) -> Any:  # noqa: ANN401
        drawn = draw(fig)
        return (
            drawn if drawn is None or isinstance(drawn, tuple) else (drawn, {"alt": alt_text(fig)})
        )

    draw_with_alt.with_alt = True  # type: ignore[attr-defined]
    return draw_with_alt
