"""Better without labels: rows, and queries, moved towards the rows that are most alike to them.

Nothing is trained, and no image is opened. What many neighbours agree on is mostly what the
pictures show, and what they do not is noise. Here that is database-side augmentation [1]_ for the
rows and alpha-weighted query expansion [2]_, [3]_ for the queries.

.. [1] R. Arandjelovic, A. Zisserman: Three things everyone should know to improve object
   retrieval. CVPR 2012.
.. [2] O. Chum, J. Philbin, J. Sivic, M. Isard, A. Zisserman: Total recall: automatic query
   expansion with a generative feature model for object retrieval. ICCV 2007.
.. [3] F. Radenovic, G. Tolias, O. Chum: Fine-tuning CNN image retrieval with no human annotation.
   IEEE TPAMI 41 (7), 2019 (arXiv:1711.02512), which weighs neighbours by cosine ** alpha.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from simsearch.backbones.heads import Head, unit
from simsearch.errors import QueryError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from numpy.typing import NDArray
    from typing_extensions import Self

    from simsearch.library.library import ImageLibrary


_BLOCK_BYTES = 2**25  # of scores, and of neighbours, that are held at once
_ROWS = 4096  # rows that are centred together
_ALIKE = 1e-4  # variance below which all rows count as the same
_NOTHING = 1e-5  # length of a centred row that is rounding alone


def refine(
    library: ImageLibrary, neighbours: int = 50, alpha: float = 3, progress: bool = True
) -> ImageLibrary:
    """Derive a library that mostly finds more of the right images, without labels or training.

    The embeddings are centred on their mean, and each is moved towards its nearest neighbours:
    x becomes the direction of x + Σ max(cos(x, y), 0) ** alpha · y. New queries are treated
    likewise, with neighbours among the refined rows. Scores are cosines of refined embeddings,
    so they cannot be compared with those of the library itself; percentiles can.

    Worth trying wherever several images show the same kind of thing: on photos of six kinds of
    scenes, mAP rises from 0.67 to 0.77 and precision@10 from 0.84 to 0.87. Where an image has few
    counterparts, or none, its neighbours weigh little, and it stays about where it was
    (`benchmarks/refine.py`). For figures of your own, refine the gallery alone: images that are
    to be queries must not have moved it.

    Parameters
    ----------
    library
        The library to refine; it stays as it is.
    neighbours
        How many to move towards; all others, if there are fewer.
    alpha
        How quickly the weight of a neighbour falls with its cosine; 0 weighs all alike.
    progress
        Show a progress bar: the time grows with the square of the number of images.

    Returns
    -------
    ImageLibrary
        The same images with refined embeddings, (N, D) float32 in memory, and a `RefineHead`; it
        can be saved and loaded like any other.

    Raises
    ------
    QueryError
        If a parameter is out of range.
    LibraryError
        If the library is a refined one already.

    Examples
    --------
    >>> rows = [[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]]
    >>> library = ImageLibrary(rows, ["a.jpg", "b.jpg", "c.jpg", "d.jpg"])
    >>> refined = refine(library, neighbours=2, progress=False)
    >>> (library.embeddings @ library.embeddings[0]).round(2)
    array([1. , 0.8, 0.6, 0. ], dtype=float32)
    >>> (refined.embeddings @ refined.embeddings[0]).round(2)
    array([ 1.  ,  0.75, -0.83, -0.99], dtype=float32)
    """
    whole = isinstance(neighbours, (int, np.integer)) and not isinstance(neighbours, bool)
    if not whole or neighbours < 1:
        raise QueryError(f"neighbours={neighbours!r}: give a whole number from 1 up, such as 50")
    if not 0 <= alpha < math.inf:
        raise QueryError(f"alpha={alpha!r}: give a finite number from 0 up, such as 3")
    head = RefineHead(_centre(library.embeddings), neighbours, alpha, library.fingerprint)
    head.progress = progress
    return library.with_head(head)


class RefineHead(Head):
    """Centres embeddings on a mean, and moves them towards their neighbours in a library.

    Parameters
    ----------
    mean
        (D,) float32, what is subtracted.
    neighbours, alpha
        As in `refine`.
    source
        Fingerprint of what made the embeddings that it takes.

    Attributes
    ----------
    progress : bool
        Whether `rows` shows a progress bar.
    """

    kind = "refine"
    whole = True

    def __init__(
        self, mean: NDArray[np.float32], neighbours: int, alpha: float, source: str = ""
    ) -> None:
        self.mean = np.ascontiguousarray(mean, np.float32)
        self.neighbours, self.alpha = int(neighbours), float(alpha)
        self.source = source
        (self.dim_in,) = (self.dim,) = self.mean.shape
        self.progress = False

    @property
    def reach(self) -> int:
        """How many of the nearest rows it looks at."""
        return self.neighbours

    def __call__(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Centre embeddings and leave it at that; one that is the mean itself stays as it is."""
        centred = embeddings - self.mean
        lost = np.linalg.norm(centred, axis=1) < _NOTHING
        centred[lost] = embeddings[lost]
        return unit(centred)

    def rows(self, embeddings: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        """Refine a library's rows, in order, as (n, D) blocks; a row is no neighbour of its own."""
        gallery = np.empty(embeddings.shape, np.float32)
        for i in range(0, len(gallery), _ROWS):
            gallery[i : i + _ROWS] = self(embeddings[i : i + _ROWS])
        with tqdm(
            desc="Refining", total=len(gallery), unit="image", disable=not self.progress
        ) as bar:
            for block in self._blocks(gallery, gallery):
                yield self._move(gallery[block], gallery, block)
                bar.update(block.stop - block.start)

    def query(
        self, embeddings: NDArray[np.float32], gallery: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Refine new queries, (Q, D), with neighbours among refined rows, (N, D)."""
        queries, gallery = self(embeddings), np.asarray(gallery)
        for block in self._blocks(queries, gallery):
            queries[block] = self._move(queries[block], gallery)
        return queries

    def _blocks(
        self, rows: NDArray[np.float32], gallery: NDArray[np.float32]
    ) -> Iterator[slice[int, int, None]]:
        """Cut rows so that the scores of a block, and its neighbours, fit in memory."""
        widest = 4 * max(len(gallery), min(self.neighbours, len(gallery)) * self.dim)
        size = max(1, _BLOCK_BYTES // widest)
        for i in range(0, len(rows), size):
            yield slice(i, min(i + size, len(rows)))

    def _move(
        self, rows: NDArray[np.float32], gallery: NDArray[np.float32], own: slice | None = None
    ) -> NDArray[np.float32]:
        """Move (n, D) rows, which may be such and such rows of the gallery, to their neighbours."""
        scores = rows @ gallery.T  # (n, N)
        if own is not None:
            np.fill_diagonal(scores[:, own], -1)
        k = min(self.neighbours, len(gallery))
        nearest = np.argpartition(scores, -k, axis=1)[:, -k:]  # (n, k), in no order
        cosines = np.take_along_axis(scores, nearest, axis=1).clip(-1, 1)
        weights = np.where(cosines > 0, abs(cosines) ** self.alpha, 0).astype(np.float32)
        return unit(rows + (weights[:, None] @ gallery[nearest])[:, 0])

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return `mean`, `neighbours` and `alpha`."""
        return {
            "mean": self.mean,
            "neighbours": np.array([self.neighbours], np.int64),
            "alpha": np.array([self.alpha], np.float64),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], source: str) -> Self:
        """Make the head again."""
        neighbours, alpha = arrays["neighbours"].item(), arrays["alpha"].item()
        return cls(arrays["mean"], neighbours, alpha, source)


def _centre(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean of all rows, (D,); zeros if they are all alike, and have no other direction left."""
    total = sum(
        embeddings[i : i + _ROWS].sum(axis=0, dtype=np.float64)
        for i in range(0, len(embeddings), _ROWS)
    )
    mean = np.asarray(total / len(embeddings), np.float32)
    return mean if 1 - mean @ mean > _ALIKE else np.zeros_like(mean)
