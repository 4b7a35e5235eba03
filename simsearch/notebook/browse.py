"""`browse`: a library in a notebook, searched by clicking."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from simsearch.library.types import Browsable
    from simsearch.notebook.widget import LibraryBrowser

log = logging.getLogger("simsearch")


def browse(
    library: Browsable,
    k: int = 24,
    **options: Any,  # noqa: ANN401
) -> LibraryBrowser | Figure:
    """Show a library in a notebook, to be searched by clicking.

    A click searches with a picture. With Shift, a click asks for more like it, with Alt for less.
    A drag on the query searches with a part of it, and a field takes words. Without anywidget (the
    extra "notebook"), the first pictures are shown as a figure that cannot be clicked.

    Parameters
    ----------
    library
        From `embed_dataset` or `ImageLibrary.load`.
    k
        How many matches to show at first.
    **options
        The fields of `RankingOptions` for each search, such as `where` or `unique`.

    Returns
    -------
    LibraryBrowser or matplotlib.figure.Figure
        The widget: its `query`, `matches`, `liked` and `disliked` say what has been chosen.

    Raises
    ------
    QueryError
        If an option is unknown or out of range.

    Examples
    --------
    >>> import simsearch as ss
    >>> library = ss.ImageLibrary([[1, 0], [0, 1]], ["a.jpg", "b.jpg"])
    >>> widget = ss.browse(library)
    >>> widget.query is None
    True
    """
    from simsearch.retrieval.options import RankingOptions, make_options

    make_options(RankingOptions, {"k": k, **options})
    try:
        from simsearch.notebook.widget import LibraryBrowser
    except ImportError:
        from simsearch.notebook.session import draw_pictures

        log.warning('To search by clicking: pip install "simsearch[notebook]"')
        return draw_pictures(library)
    return LibraryBrowser(library, k, **options)
