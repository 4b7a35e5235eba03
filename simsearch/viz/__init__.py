"""Every figure: matches, duplicates, sheets of images, the map of a library, its measures.

Each function returns `(fig, axes)`, ready for `fig.savefig`. Nothing here measures, and matplotlib
is imported only when a figure is drawn.
"""

from simsearch.viz.maps import show_map
from simsearch.viz.measures import (
    show_confusion,
    show_history,
    show_precision_recall,
    show_worst,
)
from simsearch.viz.results import show_duplicates, show_images, show_matches

__all__ = [
    "show_confusion",
    "show_duplicates",
    "show_history",
    "show_images",
    "show_map",
    "show_matches",
    "show_precision_recall",
    "show_worst",
]
