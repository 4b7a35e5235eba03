"""Better without labels: rows, and queries, moved towards the rows that are most similar to them.

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

from simsearch.backbones.refine_head import RefineHead
from simsearch.errors import QueryError
from simsearch.files import iter_blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary


_ROWS = 4096  # rows that are centred together
_ALIKE = 1e-4  # variance below which all rows count as the same


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
    >>> from simsearch import ImageLibrary
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


def _centre(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean of all rows, (D,); zeros if they are all alike, and have no other direction left."""
    total = sum(
        embeddings[block].sum(axis=0, dtype=np.float64)
        for block in iter_blocks(len(embeddings), _ROWS)
    )
    mean = np.asarray(total / len(embeddings), np.float32)
    return mean if 1 - mean @ mean > _ALIKE else np.zeros_like(mean)
