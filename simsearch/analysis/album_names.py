"""Names of albums: by words, by classes that the backbone was taught, by labels, by an image."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from simsearch.analysis.album_levels import name_of_file
from simsearch.errors import QueryError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal, TypeAlias

    from numpy.typing import ArrayLike, NDArray

    from simsearch.library.library import ImageLibrary

    AlbumWords: TypeAlias = Mapping[str, ArrayLike] | Sequence[str] | Literal["classes"]

CLASSES = "classes"
# Cosine of an album's mean with a class. Scenes of Intel's seg_train: 0.27 to 0.36 where the name
# of the class is right (palace, alp, seashore), at most 0.22 where it is not (mountain tent).
MIN_CLASS_COSINE = 0.25
MAJORITY = 0.5  # of an album: so many images of one label name it alone


class AlbumNames:
    """How the albums of a library are named.

    Parameters
    ----------
    library
        The library.
    labels : (N,) str
        Of its images, "" where there is none.
    words
        As `albums` takes them.

    Raises
    ------
    QueryError
        If words do not fit the library.
    MissingExtraError, WeightsError
        If words have to be looked up, and what that needs is not there.
    """

    def __init__(
        self, library: ImageLibrary, labels: NDArray[np.str_], words: AlbumWords | None
    ) -> None:
        self.library, self.labels = library, labels
        self.least = MIN_CLASS_COSINE if words == CLASSES else -math.inf
        self.words = {} if words is None else _vectors(library, words)

    def name(self, rows: NDArray[np.intp], mean: NDArray[np.float64]) -> str:
        """Name an album: (n,) rows, the most typical first, and their mean embedding (D,)."""
        return self._by_words(mean) or self._by_labels(rows)

    def _by_words(self, mean: NDArray[np.float64]) -> str | None:
        if not self.words:
            return None
        cosines = {word: float(vector @ mean) for word, vector in self.words.items()}
        best = max(cosines, key=cosines.__getitem__)
        return best if cosines[best] >= self.least * float(np.linalg.norm(mean)) else None

    def _by_labels(self, rows: NDArray[np.intp]) -> str:
        counts = Counter(self.labels[rows].tolist())
        del counts[""]
        frequent = sorted(counts, key=lambda label: (-counts[label], label))
        if not frequent:
            return name_of_file(str(self.library.paths[rows[0]]))
        alone = counts[frequent[0]] >= MAJORITY * len(rows)
        return frequent[0] if alone else " + ".join(frequent[:2])


def _vectors(library: ImageLibrary, words: AlbumWords) -> dict[str, NDArray[np.float64]]:
    """Return a unit vector of each word."""
    if not len(words):
        raise QueryError("words is empty; give names, with or without an embedding, or None")
    if words == CLASSES:
        return _class_vectors(library)
    if isinstance(words, str):
        raise QueryError(f'words={words!r}; give words=[{words!r}, ...], or words="{CLASSES}"')
    if isinstance(words, Mapping):
        return {word: _unit(word, vector, library.dim) for word, vector in words.items()}
    from simsearch.retrieval.words import Words, resolve_words

    found = {word: resolve_words(library, Words(word)).vectors for word in words}
    return {word: np.asarray(vectors, np.float64)[0] for word, vectors in found.items()}


def _class_vectors(library: ImageLibrary) -> dict[str, NDArray[np.float64]]:
    from simsearch.library.classifier_rows import classifier_of

    if library.source is None or library.head is not None:
        raise QueryError(
            f'words="{CLASSES}" needs the embeddings of a backbone that the library names, without '
            f"a head; {library!r} has none"
        )
    classifier = classifier_of(library, library.source)
    return dict(zip(classifier.names, classifier.rows.astype(np.float64), strict=True))


def _unit(word: str, vector: ArrayLike, dim: int) -> NDArray[np.float64]:
    """Check the embedding of a word, and scale it to unit norm."""
    values = np.asarray(vector, np.float64)
    norm = np.linalg.norm(values)
    if values.shape != (dim,) or not 0 < norm < math.inf:
        raise QueryError(
            f"words[{word!r}] has shape {values.shape} and norm {norm:g}; give an embedding of "
            f"shape ({dim},) in the space of this library's, finite and not 0"
        )
    scaled: NDArray[np.float64] = values / norm
    return scaled
