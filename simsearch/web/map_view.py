"""The map of a library for the page: where each picture lies, and the groups that colour it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from simsearch.analysis.projection import MAX_ROWS, project, screen_places
from simsearch.errors import QueryError
from simsearch.library.library import ImageLibrary

if TYPE_CHECKING:
    from simsearch.web.library_manager import State

Method = Literal["pca", "tsne"]
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
    return {
        "version": state.version,
        "method": method,
        "total": len(library),
        "kept": round(kept, 4) if method == "pca" else None,
        **screen_places(rows, points, library.label_rows("folder")[rows]),
    }
