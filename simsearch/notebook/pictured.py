"""Widgets that are a figure where no widget runs, as where the file of a notebook is only shown."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO
from typing import TYPE_CHECKING, Any

import anywidget

from simsearch.errors import SimsearchError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 100


class PicturedWidget(anywidget.AnyWidget):
    """A widget that brings a figure along; what shows it takes the one that it can show."""

    def draw(self) -> Figure:
        """Draw what is shown where the widget does not run."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:  # noqa: ANN401
        bundle: Any = super()._repr_mimebundle_(**kwargs)
        data, metadata = bundle
        try:
            picture, words = as_png(self.draw())
        except SimsearchError:  # there is nothing to draw: the widget says so
            return data, metadata
        return data | {"image/png": picture}, metadata | {"image/png": {"alt": words}}


def as_png(figure: Figure) -> tuple[str, str]:
    """Return a figure as PNG in base64, and its alternative text; and close it."""
    from matplotlib import pyplot as plt

    from simsearch.plotting.alt_text import alt_text

    content = BytesIO()
    try:
        figure.savefig(content, format="png", dpi=DPI)
    finally:
        plt.close(figure)
    return b64encode(content.getvalue()).decode("ascii"), alt_text(figure)
