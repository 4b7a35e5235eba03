"""Search over parts of pictures: each picture once, by its best part or as a whole, with the box.

Exact: the scores are the cosines of a full scan in float64, with the rows as they are stored.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from operator import itemgetter
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from simsearch.backbones.windows import encode_views
from simsearch.errors import QueryError
from simsearch.images.decode import load_image
from simsearch.library.parts import Parts, open_parts
from simsearch.library.thresholds import threshold_of
from simsearch.retrieval.part_index import PartIndex
from simsearch.retrieval.part_rows import rows_to_index
from simsearch.retrieval.search import Ranking

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary
    from simsearch.library.types import Browsable
    from simsearch.retrieval.index import Index
    from simsearch.retrieval.matches import Match, Matches
    from simsearch.retrieval.options import SearchOptions
    from simsearch.retrieval.query import ResolvedQuery

SAMPLE_ROWS = 512  # whose pairs tell what a score means

_lock = threading.Lock()
_known: WeakKeyDictionary[Any, tuple[Any, NDArray[np.float32]]] = WeakKeyDictionary()


def part_ranking(library: Browsable, options: SearchOptions) -> Ranking:
    """Return how pictures are ranked by their parts; for regions as a whole, if there are none.

    Raises
    ------
    QueryError
        If parts are asked for, and the library has none.
    """
    parts = open_parts(library)  # type: ignore[arg-type]
    of_parts = options.index is None or ranks_parts(options.index)
    if options.parts and not of_parts:
        raise QueryError(
            f"{options.index!r} ranks whole pictures, and parts=True parts of them: give one of "
            "the two, or an index of parts, build_index(library, parts=True)"
        )
    if parts is not None and of_parts:
        return PartRanking(library, parts, options)
    if options.parts and not hasattr(library, "stored"):
        raise QueryError(
            f"{library!r} has no parts, which lie in a folder: search the library there with "
            "parts=True, or this one without"
        )
    if options.parts:
        raise QueryError(
            "this library has no parts, or those of other rows: make them with "
            'embed_dataset(dataset, outputs, parts="grid") (--parts grid), and search the '
            "library that it returns"
        )
    return Ranking(library, options)


def ranks_parts(index: Index) -> bool:
    """Tell whether an index is one of parts."""
    return bool(getattr(getattr(index, "report", None), "of_parts", False))


def view_of_parts(library: ImageLibrary) -> PartsView:
    """Return a library that embeds queries as they are compared with parts."""
    return PartsView(library, rows_to_index(library).parts)


class PartRanking(Ranking):
    """How the pictures of a library are ranked by their parts, for all queries of one call."""

    def __init__(self, library: Browsable, parts: Parts, options: SearchOptions) -> None:
        self._whole, self._parts = library, parts
        view = PartsView(library, parts, options.index)
        super().__init__(view, replace(options, index=None))

    def answer(self, queries: Sequence[ResolvedQuery]) -> Iterator[Matches]:
        """Yield the matches of each query, with their boxes."""
        for query, found in zip(queries, super().answer(queries), strict=True):
            rows = tuple(self._with_box(match, query.vectors) for match in found)
            yield replace(found, rows=rows, library=self._whole)

    def _with_box(self, match: Match, vectors: NDArray[np.float32] | None) -> Match:
        """Add the box of the part that is most similar to any of the vectors."""
        parts = self._parts
        if vectors is None or parts.stored[match.row] < 0:
            return match
        size = tuple(parts.pictures["size"][parts.stored[match.row]].tolist())
        best_of = self.library.index.best
        found = [best_of(self._whole, match.row, vector) for vector in vectors]
        _, best = max(found, key=itemgetter(0))
        if best is None:
            return replace(match, box=(0, 0, *size), size=size)
        part = parts.parts[best]
        label = parts.record.labels[part["label"]] if part["label"] >= 0 else ""
        return replace(match, box=tuple(part["box"].tolist()), size=size, label=label)


class PartsView:
    """A library whose rows are ranked by their parts; all else is the library's own.

    Attributes
    ----------
    index : PartIndex
    sees_all : bool
        That queries are embedded with their margins.
    whole_library : ImageLibrary
        The library itself.
    parts : Parts
    """

    sees_all = True

    def __init__(self, library: Any, parts: Parts, index: Index | None = None) -> None:  # noqa: ANN401
        self.whole_library, self.parts = library, parts
        self.index = PartIndex(library, parts, index)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self.whole_library, name)

    def __len__(self) -> int:
        return len(self.whole_library)

    @property
    def random_pair_scores(self) -> NDArray[np.float32]:
        """Cosines of random pictures with the best part of others, sorted."""
        with _lock:
            known, parts = _known.get(self.whole_library), self.parts.parts
            if known is None or known[0] is not parts:
                known = _known[self.whole_library] = (parts, self._sample_pairs())
        return known[1]

    def threshold(self, false_match_rate: float = 1e-3) -> float:
        """Cosine that no more than this share of random pairs reach."""
        return threshold_of(self.random_pair_scores, false_match_rate)

    def encode(self, images: Sequence[Any]) -> NDArray[np.float32]:
        """Embed queries as parts are compared: all of each, not its centre alone."""
        library = self.whole_library
        pictures = [load_image(image) for image in images]
        rows = encode_views(library.backbone, pictures)
        return library.head(rows) if library.head else rows

    def _sample_pairs(self) -> NDArray[np.float32]:
        rng = np.random.default_rng(0)
        count = len(self.whole_library)
        rows = np.sort(rng.choice(count, min(SAMPLE_ROWS, count), replace=False))
        vectors = np.asarray(self.whole_library.embeddings[rows])
        scores = vectors @ vectors.T
        for place, row in enumerate(rows.tolist()):
            some = self.parts.parts[self.parts.of(row)]["row"].astype(np.float32)
            if len(some):
                scores[:, place] = np.maximum(scores[:, place], (vectors @ some.T).max(axis=1))
        return np.sort(scores[~np.eye(len(rows), dtype=bool)])


def missing_note(matches: Matches) -> Iterator[str]:
    """Yield one note, if some pictures have no parts."""
    parts = open_parts(matches.library)  # type: ignore[arg-type]
    if parts is not None and parts.missing:
        yield (
            f"{parts.missing:,} of {len(parts.stored):,} pictures have no parts, and were searched "
            "as a whole: embed the dataset again, with parts"
        )
