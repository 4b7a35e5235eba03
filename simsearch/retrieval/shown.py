"""Whether any picture shows what words say, as far as the classifier can tell.

Words find their best rows in any case, also where a library holds nothing of the kind. The classes
that these rows look like tell the two apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from simsearch.backbones.classifier import Classifier
    from simsearch.retrieval.concepts import Concept

# Chosen on 250 photos and their names, each of them with its photo and without it;
# `benchmarks/words.py` reports on others.
TEMPERATURE = 0.02  # of the cosines of a row with the classes
MIN_SHARE = 0.1  # of the classes of the words in what one of the rows looks like
TOLD = 3  # classes


def classes_shown_instead(
    concept: Concept, classifier: Classifier, rows: NDArray[np.floating]
) -> tuple[str, ...]:
    """Return what rows show in place of the words.

    Parameters
    ----------
    concept
        What the words mean.
    classifier
        That of the backbone.
    rows
        (n, D): those that the words find, the best first; in the backbone's own space.

    Returns
    -------
    tuple of str
        Names of the classes that the best rows look most like; none if one of the rows shows what
        the words say.
    """
    cosines = np.asarray(rows, np.float64) @ classifier.rows.T.astype(np.float64)  # (n, C)
    shares = np.exp((cosines - cosines.max(axis=1, keepdims=True)) / TEMPERATURE)
    shares /= shares.sum(axis=1, keepdims=True)
    weight = dict(zip(concept.names, concept.weights / concept.weights.max(), strict=True))
    weights = np.array([weight.get(name, 0.0) for name in classifier.names])
    if float((shares @ weights).max()) >= MIN_SHARE:
        return ()
    best = (classifier.names[number] for number in cosines.argmax(axis=1).tolist())
    return tuple(dict.fromkeys(best))[:TOLD]
