"""Validation after each epoch: how well held-back images find their class."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simsearch.backbones.heads import ProjectionHead
from simsearch.evaluation.metrics import evaluate
from simsearch.library.library import ImageLibrary

if TYPE_CHECKING:
    from numpy.typing import NDArray

from simsearch.training.split import Split

VALIDATION_QUERIES, VALIDATION_GALLERY = (
    500,
    5_000,
)  # queries and gallery of the validation after each epoch


class Validation:
    """The validation images: after each epoch, how well they find their class.

    Attributes
    ----------
    rows : numpy.ndarray
        Rows of the library that take part: the queries, and then the gallery.
    """

    def __init__(
        self,
        library: ImageLibrary,
        names: NDArray[np.str_],
        split: Split,
        seed: int,
        against: int = VALIDATION_GALLERY,
    ) -> None:
        rng = np.random.default_rng(seed)
        queries = rng.permutation(split.val)[:VALIDATION_QUERIES]
        gallery = rng.permutation(split.train)[:against]
        self.rows = np.concatenate([queries, gallery])
        self.library = ImageLibrary(library.embeddings[self.rows], library.paths[self.rows])
        self.names = names[self.rows]
        self.is_query = np.arange(len(self.rows)) < len(queries)

    def __call__(
        self, head: ProjectionHead, embeddings: NDArray[np.float32] | None = None
    ) -> float:
        """Return the mAP, by other embeddings of these rows if given (NaN leaves one out)."""
        library, good = self.library, np.ones(len(self.rows), bool)
        if embeddings is not None:
            good = np.isfinite(embeddings[:, 0])
            rows = np.where(good[:, None], embeddings, library.embeddings)
            library = ImageLibrary(rows, library.paths)
        if not (self.is_query & good).any() or not (~self.is_query & good).any():
            return 0.0
        found = evaluate(
            library.with_head(head),
            self.names,
            self.is_query & good,
            ~self.is_query & good,
            1,
            resamples=0,
            progress=False,
        )
        return float(found.per_query("mAP").mean())
