"""Kinds of FAISS indexes, and the report on one: recall by kind of query, speed and size."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from typing import TypeAlias

Kind: TypeAlias = Literal["flat", "sq", "hnsw", "ivf", "ivfpq", "rabitq"]
"""All rows in full; in 8 bits; a graph of these; lists of these, of 2 bits a number, of 1 bit."""

GOOD_RECALL = 0.99  # at 10: for less, the report warns

logger = logging.getLogger("simsearch")


@dataclass(frozen=True)
class IndexReport:
    """Recall, speed and size of an index on the library it was built for; prints as a few lines.

    Attributes
    ----------
    kind : Kind
        "flat", "sq", "hnsw", "ivf", "ivfpq" or "rabitq".
    why : str
        Why this kind.
    rows : int
        Images in it.
    recall_at_10 : float
        Share of the ten nearest images that it finds: the lowest of the kinds of queries below but
        `recall_unlike`. An image that scores as high as the tenth counts as well. None of the
        queries has set the effort; the sample of rows that has set lists and quantisers is of all
        rows, those too that were held out to ask with.
    ms_per_query, exact_ms : float
        Median time of one query for ten images through the index, and by exact search, in ms.
    size_bytes : int
        Of the index as a file, without the embeddings.
    build_seconds : float
        Time to make the index and to set its effort, without measuring and saving.
    recall_like, recall_new, recall_unlike, recall_asked : float or None
        By kind of query: images of the library, each without itself; new images, which are rows
        that were held out with their near-copies; images unlike any, composed of parts of several
        rows; and those that were given as `queries`. None where there were none.
    recall_floor : float or None
        The lowest mean of five groups of all these queries, from near to far from the library.
    added, removed : int
        Images that came and went after all this was measured; `rows` counts those of today.
    of_parts : bool
        Whether its rows are parts of images; they are what is counted then.
    """

    kind: Kind
    why: str
    rows: int
    recall_at_10: float
    ms_per_query: float
    exact_ms: float
    size_bytes: int
    build_seconds: float
    recall_like: float | None = None
    recall_new: float | None = None
    recall_unlike: float | None = None
    recall_asked: float | None = None
    recall_floor: float | None = None
    added: int = 0
    removed: int = 0
    of_parts: bool = False

    def __str__(self) -> str:
        answers = "exact" if self.kind == "flat" else "approximate"
        return (
            f"{self.kind} index of {self.rows:,} {self._unit}, {answers}: {self.why}\n"
            f"recall@10  {self.recall_at_10:.3f}{self._by_kind()}\n"
            f"a query    {self.ms_per_query:.2f} ms (exact search: {self.exact_ms:.2f} ms)\n"
            f"size       {self.size_bytes / 1e6:,.1f} MB\n"
            f"built in   {self.build_seconds:,.1f} s{self._since()}"
        )

    @property
    def _unit(self) -> str:
        return "parts" if self.of_parts else "images"

    def _since(self) -> str:
        """Say what has changed since it was measured."""
        if not (self.added or self.removed):
            return ""
        return (
            f"\nsince then {self.added:,} {self._unit} came, {self.removed:,} went; measured before"
        )

    def _by_kind(self) -> str:
        """Say what each kind of query gets, and that it is little."""
        kinds = (
            (f"{self._unit} of the library", self.recall_like),
            (f"new {self._unit}", self.recall_new),
            (f"{self._unit} unlike any", self.recall_unlike),
            ("your queries", self.recall_asked),
            ("the worst fifth", self.recall_floor),
        )
        told = [f"{name} {value:.3f}" for name, value in kinds if value is not None]
        if not told:
            return " for images of the library; unknown for new ones: build it again"
        low = f"; below {GOOD_RECALL}" if self.recall_at_10 < GOOD_RECALL else ""
        return f" ({', '.join(told)}){low}"


def warn_if_low(report: IndexReport) -> None:
    """Warn if an index finds too few of the nearest rows."""
    if report.recall_at_10 < GOOD_RECALL:
        logger.warning("the index finds less than %s of the ten nearest:\n%s", GOOD_RECALL, report)
