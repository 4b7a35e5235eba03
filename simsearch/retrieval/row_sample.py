"""Random rows of a library, and what is made of its rows: once for as long as it holds these."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from simsearch.errors import SimsearchError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from simsearch.library.types import Searchable

Made = TypeVar("Made")

SAMPLE_ROWS = 1024  # drawn for the mean of a library, and for what chance scores

_lock = threading.Lock()
_made: WeakKeyDictionary[Any, tuple[Any, dict[Any, Any]]] = WeakKeyDictionary()


class Sample(NamedTuple):
    """Random rows of a library, in random order.

    Attributes
    ----------
    numbers : (n,) int
    rows : (n, D) float64
    """

    numbers: NDArray[np.intp]
    rows: NDArray[np.float64]


def once_for(library: Any, name: object, make: Callable[[], Made]) -> Made:  # noqa: ANN401
    """Return what is made of a library's rows: made anew once it holds others.

    Parameters
    ----------
    library
        Any `Searchable`. What is made must not refer to it.
    name
        Of what is made.
    make
        Makes it.
    """
    rows = library.embeddings
    with _lock:
        known = _made.get(library)
        if known is None or known[0] is not rows:  # not its number, nor its address, which recur
            known = _made[library] = rows, {}
    if name not in known[1]:
        known[1][name] = make()
    made: Made = known[1][name]
    return made


def draw_sample(library: Searchable, count: int | None = None) -> Sample:
    """Return rows of a library with their numbers, drawn once with a fixed seed and shuffled.

    Parameters
    ----------
    library
        Where its parts are searched, the library itself is drawn from.
    count
        Of rows; `SAMPLE_ROWS` by default. All rows of a library that has fewer.
    """
    whole, count = whole_of(library), SAMPLE_ROWS if count is None else count
    return once_for(whole, ("sample", count), lambda: _draw(whole, count))


def _draw(library: Any, count: int) -> Sample:  # noqa: ANN401
    """Draw rows; of a published library, whose numbers have gaps, those that are still there."""
    limit = getattr(library, "row_limit", len(library))
    numbers = np.sort(np.random.default_rng(0).choice(limit, min(count, limit), replace=False))
    try:
        rows = library.row_lookup[numbers]
    except SimsearchError:  # some were deleted since
        numbers = np.array([row for row in numbers.tolist() if library.has_row(row)], np.intp)
        rows = library.row_lookup[numbers]
    order = np.random.default_rng(1).permutation(len(numbers))
    return Sample(numbers[order], np.asarray(rows, np.float64)[order])


def sample_of(library: Searchable) -> NDArray[np.float64]:
    """Return rows of a library, drawn with a fixed seed and shuffled: (n, D)."""
    return draw_sample(library).rows


def whole_of(library: Any) -> Any:  # noqa: ANN401
    """Return the library itself, where its parts are searched."""
    return getattr(library, "whole_library", library)
