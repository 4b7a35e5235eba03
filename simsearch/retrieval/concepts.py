"""What words mean to an ImageNet classifier: the names of the classes that it tells apart.

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

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from simsearch.backbones.classifier import Classifier, load_classifier
from simsearch.backbones.kept_rows import keep_rows
from simsearch.backbones.words import DIGESTS, DIM, check_text, load_sentence_encoder
from simsearch.retrieval.ordinary_texts import bank_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

# Chosen on 4,200 scenes with 59 phrases and on 250 photos; `benchmarks/words.py` reports on others.
TEMPLATE = "a photo of {}, a scene"
NEAREST_CLASSES = 40
CLASS_TEMPERATURE = 0.1  # of the likenesses of words, which lie between 0 and 1
FEEDBACK_ROWS = (10, 30)  # looked at in the first and the second round
FEEDBACK_SHARE = 20  # no more rows than one in so many
FEEDBACK_WEIGHT = 4.0
FEEDBACK_TEMPERATURE = 0.05  # of cosines: rows far below the best count for nothing
# Of the notice, chosen on 184 words and phrases that are not reported on.
MIN_LIKENESS = 0.7  # with the name of a class, from which on the words are known in any case
ORDINARY_PHRASES = 5  # whose mean counts
MIN_ORDINARY = 0.398


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
    ordinary : float
        Mean of the same with the five nearest phrases that ordinary photos are looked for by.
    direction : (D,) float32
        Of unit norm, where the pictures of these classes lie.
    """

    names: tuple[str, ...]
    weights: NDArray[np.float64]
    likeness: float
    ordinary: float
    direction: NDArray[np.float32]

    @property
    def is_known(self) -> bool:
        """Whether the words are nearly the name of a class, or such as photos can show."""
        return self.likeness >= MIN_LIKENESS or self.ordinary >= MIN_ORDINARY


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
    words = check_text(text)
    return find_concepts([words], load_classifier(backbone, weights_file))[0]


def find_concepts(
    texts: Sequence[str], classifier: Classifier, *, keep: bool = False
) -> list[Concept]:
    """Look texts up in the classes of a classifier; with `keep`, their encodings are kept."""
    framed, plain = encoded_texts(tuple(texts)) if keep else _encode(texts)
    return [_concept(classifier, *both) for both in zip(framed, plain, strict=True)]


def _concept(
    classifier: Classifier, framed: NDArray[np.float32], plain: NDArray[np.float32]
) -> Concept:
    framed_names, plain_names = encoded_texts(classifier.names)
    _, ordinary = encoded_texts(tuple(bank_texts()))
    likeness = (framed_names @ framed + plain_names @ plain) / 2
    best = np.argsort(-likeness, kind="stable")[:NEAREST_CLASSES]
    shares = np.exp((likeness[best] - likeness[best[0]]) / CLASS_TEMPERATURE, dtype=np.float64)
    shares /= shares.sum()
    names = tuple(classifier.names[i] for i in best)
    direction = unit(shares @ classifier.rows[best])
    familiarity = np.sort(ordinary @ plain)[-ORDINARY_PHRASES:].mean()
    return Concept(names, shares, float((plain_names @ plain).max()), float(familiarity), direction)


def follow_best(
    start: NDArray[np.float32],
    mean: NDArray[np.float64],
    count: int,
    find: Callable[[NDArray[np.float32], int], tuple[NDArray[Any], NDArray[np.float64]]],
) -> NDArray[np.float32]:
    """Move a direction towards the rows that it finds, by how far they are from the mean row.

    Parameters
    ----------
    start, mean
        (D,) each.
    count
        Of the rows that are searched.
    find
        Returns the best rows (n, D) for a direction, and their scores, the best first.
    """
    direction = start
    for most in FEEDBACK_ROWS:
        looked_at = min(most, count // FEEDBACK_SHARE)
        if looked_at < 1:
            return direction
        rows, scores = find(direction, looked_at)
        shares = np.exp((scores - scores[0]) / FEEDBACK_TEMPERATURE)
        away = np.asarray(rows, np.float64) - mean
        norms = np.linalg.norm(away, axis=1, keepdims=True)
        away = np.divide(away, norms, out=np.zeros_like(away), where=norms > 0)
        direction = unit(start + FEEDBACK_WEIGHT * (shares @ away) / shares.sum())
    return direction


@lru_cache(maxsize=4)
def encoded_texts(texts: tuple[str, ...]) -> NDArray[np.float32]:
    """Texts as sentences and as they are: (2, N, 384), kept in the user's cache."""
    made_of = (TEMPLATE, *DIGESTS.values(), *texts)
    return keep_rows(made_of, (2, len(texts), DIM), lambda: _encode(texts))


def _encode(texts: Sequence[str]) -> NDArray[np.float32]:
    rows = load_sentence_encoder().encode([*map(TEMPLATE.format, texts), *texts])
    return rows.reshape(2, len(texts), DIM)


def unit(vector: NDArray[Any]) -> NDArray[np.float32]:
    """Scale to unit norm; what cancelled out stays as it is."""
    norm = float(np.linalg.norm(vector))
    return (vector / norm if norm else vector).astype(np.float32)
