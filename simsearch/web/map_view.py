"""The map of a library for the page: where each picture lies, and the groups that colour it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from simsearch.analysis.projection import MAX_ROWS, project
from simsearch.errors import QueryError
from simsearch.library.library import ImageLibrary

if TYPE_CHECKING:
    from simsearch.web.library_manager import State

Method = Literal["pca", "tsne"]
GRAIN = 10_000  # units of the map along each side
MAX_GROUPS = 10  # with a colour of their own; the rest is "other"
SEED = 0


def draw_map(state: State, method: Method) -> dict[str, Any]:
    """Project a library to a square, as `schemas.Map`.

    Raises
    ------
    QueryError
        If its embeddings are not in a folder of this server.
    """
    library = state.library
    if not isinstance(library, ImageLibrary):
        raise QueryError("a map is drawn of a library in a folder; this one is on a Milvus server")
    count = min(len(library), MAX_ROWS[method])
    rows = np.sort(np.random.default_rng(SEED).choice(len(library), count, replace=False))
    points, kept = project(np.asarray(library.embeddings[rows]), method, SEED)
    names, groups = _groups(library.label_rows("folder")[rows])
    places = np.round(points * GRAIN).astype(int)
    return {
        "version": state.version,
        "method": method,
        "total": len(library),
        "kept": round(kept, 4) if method == "pca" else None,
        "size": GRAIN,
        "rows": rows.tolist(),
        "x": places[:, 0].tolist(),
        "y": (GRAIN - places[:, 1]).tolist(),  # downwards, as on a screen
        "groups": names,
        "group": groups,
    }


def _groups(labels: Any) -> tuple[list[str], list[int]]:  # noqa: ANN401
    """Return the most frequent labels, and the number of each row's; -1 for another one."""
    every, counts = np.unique(labels[labels != ""], return_counts=True)
    names = sorted(str(each) for each in every[np.argsort(-counts, kind="stable")[:MAX_GROUPS]])
    numbers = {name: i for i, name in enumerate(names)}
    return names, [numbers.get(str(each), -1) for each in labels]
