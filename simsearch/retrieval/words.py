"""Words as queries, by the names of the classes that a backbone was taught to tell apart.

The words are compared with the class names by a sentence encoder; the rows of the nearest classes
in the backbone's own classifier, weighted by that likeness, make the query (ConSE [1]_). What they
find first makes it better (pseudo-relevance feedback [2]_). Nothing is embedded again.

References
----------
.. [1] M. Norouzi et al.: Zero-shot learning by convex combination of semantic embeddings. ICLR
   2014.
.. [2] J. Rocchio: Relevance feedback in information retrieval. 1971.
"""

from __future__ import annotations

import hashlib
import logging
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from textwrap import shorten
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from simsearch.backbones.classifier import load_classifier
from simsearch.backbones.runtime_cache import cache_folder
from simsearch.backbones.words import DIGESTS, DIM, check_text, load_sentence_encoder
from simsearch.errors import QueryError
from simsearch.files import atomic_write
from simsearch.retrieval.exact import exact_index
from simsearch.retrieval.query import ResolvedQuery

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from simsearch.library.types import Searchable

logger = logging.getLogger("simsearch")

# Chosen on 4,200 scenes with 29 phrases and on 250 photos; `benchmarks/words.py` reports on others.
TEMPLATE = "a photo of {}, a scene"
NEAREST_CLASSES = 10
CLASS_TEMPERATURE = 0.2  # of the likenesses of words, which lie between 0 and 1
FEEDBACK_ROWS = (10, 30)  # looked at in the first and the second round
FEEDBACK_SHARE = 20  # no more rows than one in so many
FEEDBACK_WEIGHT = 2.0
FEEDBACK_TEMPERATURE = 0.05  # of cosines: rows far below the best count for nothing
MIN_LIKENESS = 0.45  # of the words with the nearest name; below, they mean none of the classes
NAME_CHARACTERS = 80  # of words in a message
MEAN_ROWS = 1024  # drawn for the mean of a library


@dataclass(frozen=True)
class Words:
    """Words as a query: what the pictures that are looked for show.

    English serves best. Finds what the backbone's classes are near to: animals, things, scenes; not
    names of people, texts in a picture, numbers or feelings.

    Attributes
    ----------
    text : str
        Such as "a street at night"; up to 2,000 characters.

    Raises
    ------
    QueryError
        If there are no words in the text.
    """

    text: str

    def __post_init__(self) -> None:
        check_text(self.text)


class Concept(NamedTuple):
    """What words mean to a backbone.

    Attributes
    ----------
    names : tuple of str
        The nearest classes, the nearest first.
    weights : (n,) float
        How much each counts; they sum to 1.
    likeness : float
        Cosine of the words with the nearest name alone.
    direction : (D,) float32
        Of unit norm, where the pictures of these classes lie.
    """

    names: tuple[str, ...]
    weights: NDArray[np.float64]
    likeness: float
    direction: NDArray[np.float32]

    @property
    def is_known(self) -> bool:
        """Whether any class is near to the words."""
        return self.likeness >= MIN_LIKENESS


def as_query(query: Any, text: str) -> Words:  # noqa: ANN401
    """Return the query of `search(library, text=...)`.

    Raises
    ------
    QueryError
        If there is another query beside it.
    """
    if query is not None:
        raise QueryError(
            "give a query or text=; for both: search(library, [ss.Words(text), query], "
            'combine="mean")'
        )
    return Words(text)


def find_concept(text: str, backbone: str, weights_file: str | None = None) -> Concept:
    """Look words up in the classes of a backbone.

    Raises
    ------
    QueryError
        If the backbone has no classes with names, or there are no words.
    MissingExtraError
        If the sentence encoder is not installed.
    WeightsError
        If its files, or the weights of the backbone, are not there.
    """
    words, classifier = check_text(text), load_classifier(backbone, weights_file)
    framed, plain = load_sentence_encoder().encode([TEMPLATE.format(words), words])
    framed_names, plain_names = _encoded_names(classifier.names)
    likeness = framed_names @ framed
    best = np.argsort(-likeness, kind="stable")[:NEAREST_CLASSES]
    shares = np.exp((likeness[best] - likeness[best[0]]) / CLASS_TEMPERATURE, dtype=np.float64)
    shares /= shares.sum()
    names = tuple(classifier.names[i] for i in best)
    direction = _unit(shares @ classifier.rows[best])
    return Concept(names, shares, float((plain_names @ plain).max()), direction)


def resolve_words(library: Searchable, words: Words) -> ResolvedQuery:
    """Turn words into the vector that finds their pictures in a library.

    Raises
    ------
    QueryError
        If the library does not know its backbone, or that has no classes with names.
    MissingExtraError, WeightsError
        As for `find_concept`.
    """
    source = getattr(library, "source", None)
    if source is None:
        raise QueryError(
            "words need to know the backbone that made the embeddings, and this library does not "
            "name it: embed the dataset with embed_dataset, or pass backbone= to ImageLibrary"
        )
    concept = find_concept(words.text, source.backbone, source.weights_file)
    name = f'words "{shorten(check_text(words.text), NAME_CHARACTERS, placeholder=" ...")}"'
    if not concept.is_known:
        near = ", ".join(concept.names[:3])
        logger.warning("Note: no concept near %s; the nearest classes are %s", name, near)
        name = f"{name} (no concept near: {near})"
    direction = concept.direction
    head = getattr(library, "head", None)
    if head is not None:
        direction = head.query(direction[None], library.embeddings)[0]
    if concept.is_known:
        direction = _follow_best(library, direction)
    return ResolvedQuery(name, vectors=direction[None])


def _follow_best(library: Searchable, start: NDArray[np.float32]) -> NDArray[np.float32]:
    """Move a direction towards the rows that it finds, by how far they are from the mean row."""
    index: Any = getattr(library, "index", None) or exact_index(library)  # type: ignore[arg-type]
    mean, direction = _mean_row(library), start
    for most in FEEDBACK_ROWS:
        count = min(most, len(library) // FEEDBACK_SHARE)
        if count < 1:
            return direction
        found = next(iter(index.top_k(library, direction[None], count, None)))
        shares = np.exp((found.scores - found.scores[0]) / FEEDBACK_TEMPERATURE)
        away = np.asarray(library.embeddings[found.rows], np.float64) - mean
        norms = np.linalg.norm(away, axis=1, keepdims=True)
        away = np.divide(away, norms, out=np.zeros_like(away), where=norms > 0)
        direction = _unit(start + FEEDBACK_WEIGHT * (shares @ away) / shares.sum())
    return direction


_means: WeakKeyDictionary[Any, tuple[Any, NDArray[np.float64]]] = WeakKeyDictionary()


def _mean_row(library: Searchable) -> NDArray[np.float64]:
    """Mean of a library's rows, or of some that are drawn with a fixed seed: (D,)."""
    known = _means.get(library)
    if known is None or known[0] is not library.embeddings:
        count = min(MEAN_ROWS, len(library))
        rows = np.sort(np.random.default_rng(0).choice(len(library), count, replace=False))
        mean = np.asarray(library.embeddings[rows], np.float64).mean(axis=0)
        known = _means[library] = (library.embeddings, mean)
    return known[1]


@lru_cache(maxsize=2)
def _encoded_names(names: Sequence[str]) -> NDArray[np.float32]:
    """Class names as sentences and as they are: (2, C, 384), kept in the user's cache."""
    made_of = hashlib.sha256("\n".join([TEMPLATE, *DIGESTS.values(), *names]).encode())
    file = cache_folder().with_name("words") / f"{made_of.hexdigest()[:32]}.npy"
    with suppress(OSError, ValueError):
        kept: NDArray[np.float32] = np.load(file, allow_pickle=False)
        if kept.shape == (2, len(names), DIM) and kept.dtype == np.float32 and _are_units(kept):
            return kept
    encoder = load_sentence_encoder()
    made = np.stack(
        [encoder.encode([TEMPLATE.format(name) for name in names]), encoder.encode(names)]
    )
    with suppress(OSError):  # a full or a read-only disk
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with atomic_write(file) as stream:
            np.save(stream, made, allow_pickle=False)
    return made


def _are_units(rows: NDArray[np.float32]) -> bool:
    return bool((np.abs(np.linalg.norm(rows, axis=-1) - 1) < 1e-3).all())


def _unit(vector: NDArray[Any]) -> NDArray[np.float32]:
    """Scale to unit norm; what cancelled out stays as it is."""
    norm = float(np.linalg.norm(vector))
    return (vector / norm if norm else vector).astype(np.float32)
