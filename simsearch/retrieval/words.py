"""Words as queries: by the text tower of a CLIP backbone, or by the classes of a classifier."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib.util import find_spec
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import numpy as np

from simsearch.backbones.kept_rows import keep_rows
from simsearch.backbones.spec import OWN_WEIGHTS
from simsearch.backbones.words import PACKAGE, check_text
from simsearch.errors import QueryError
from simsearch.library.source import Source
from simsearch.retrieval.exact import exact_index
from simsearch.retrieval.query import ResolvedQuery
from simsearch.retrieval.row_sample import sample_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from simsearch.library.types import Searchable
    from simsearch.retrieval.concepts import Concept

logger = logging.getLogger("simsearch")

NAME_CHARACTERS = 80  # of words in a message
CLIP = "clip:"  # prefix of the backbones that have a text tower


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


def resolve_words(library: Searchable, words: Words) -> ResolvedQuery:
    """Turn words into the vector that finds their pictures in a library.

    Raises
    ------
    QueryError
        If the library does not know its backbone, or that has no classes with names.
    BackboneError
        If the backbone cannot be loaded, or is not what made the library.
    MissingExtraError, WeightsError
        If what encodes the words is not there.
    """
    from simsearch.retrieval.text_chance import chance_of_texts

    text, source = check_text(words.text), source_of(library)
    name = f'words "{shorten(text, NAME_CHARACTERS, placeholder=" ...")}"'
    if source.backbone.startswith(CLIP):
        vector = _map_rows(library, _encode(source, [text]))
    else:
        concept = _find_concepts(library, source, [text])[0]
        looked_at: list[NDArray[Any]] = []
        start = _map_rows(library, concept.direction[None])[0]
        vector = follow_in(library, start, looked_at)[None]
        note = _note_unknown(concept, name)
        name += note or _note_absent(library, source, concept, name, looked_at)
    return ResolvedQuery(name, vectors=vector, chance=chance_of_texts(library, source))


def source_of(library: Searchable) -> Source:
    """Return what made the embeddings of a library.

    Raises
    ------
    QueryError
        If that is unknown.
    """
    source: Source | None = getattr(library, "source", None)
    if source is None and getattr(library, "has_backbone", False):
        source = Source.of(library.backbone)  # type: ignore[attr-defined]
    if source is None:
        raise QueryError(
            "words need to know the backbone that made the embeddings, and this library does not "
            "name it: embed the dataset with embed_dataset, or pass backbone= to ImageLibrary"
        )
    return source


def bank_vectors(library: Searchable, source: Source, texts: list[str]) -> NDArray[np.float32]:
    """Embed texts of a bank as queries of a library, before any feedback: (N, D), unit norm.

    What encodes them is asked once; its answer is kept in the user's cache.
    """
    if source.backbone.startswith(CLIP):
        made_of = (source.backbone, source.fingerprint, *texts)
        head = getattr(library, "head", None)
        shape = (len(texts), head.dim_in if head else library.dim)
        return _map_rows(library, keep_rows(made_of, shape, lambda: _encode(source, texts)))
    concepts = _find_concepts(library, source, texts, keep=True)
    return _map_rows(library, np.stack([concept.direction for concept in concepts]))


def takes_words(source: Source | None) -> bool:
    """Tell whether words may be asked for, as far as that is known before they are."""
    if source is None:
        return False
    if source.backbone.startswith(CLIP):
        return find_spec("open_clip") is not None
    named = ":" not in source.backbone and source.weights != OWN_WEIGHTS
    return named and find_spec(PACKAGE) is not None and find_spec("tokenizers") is not None


def _encode(source: Source, texts: Sequence[str]) -> NDArray[np.float32]:
    """Embed texts by the text tower of a CLIP backbone: (N, D), unit norm."""
    from simsearch.backbones.clip_text import load_clip_text

    tower = load_clip_text(source.backbone, source.weights_file, source.fingerprint)
    return tower.encode(texts)


def _find_concepts(
    library: Searchable, source: Source, texts: Sequence[str], *, keep: bool = False
) -> list[Concept]:
    from simsearch.library.classifier_rows import classifier_of
    from simsearch.retrieval.concepts import find_concepts

    return find_concepts(texts, classifier_of(library, source), keep=keep)


def _map_rows(library: Searchable, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pass rows of the backbone's space through the head of a library, if it has one."""
    if getattr(library, "head", None) is None:
        return rows
    mapped: NDArray[np.float32] = library._apply_head(rows)  # type: ignore[attr-defined]
    return mapped


def _note_unknown(concept: Concept, name: str) -> str:
    """Say that no class comes near the words, in the log; return it for the name of the query."""
    if concept.is_known:
        return ""
    near = ", ".join(concept.names[:3])
    logger.warning("Note: no concept near %s; the nearest classes are %s", name, near)
    return f" (no concept near: {near})"


def _note_absent(
    library: Searchable,
    source: Source,
    concept: Concept,
    name: str,
    looked_at: Sequence[NDArray[Any]],
) -> str:
    """Say that no picture shows the words; a head moves rows away from what tells that."""
    if not looked_at or getattr(library, "head", None) is not None:
        return ""
    from simsearch.library.classifier_rows import classifier_of
    from simsearch.retrieval.shown import classes_shown_instead

    rows = np.concatenate(looked_at)
    shown = ", ".join(classes_shown_instead(concept, classifier_of(library, source), rows))
    if not shown:
        return ""
    logger.warning("Note: no picture clearly shows %s; the best look most like %s", name, shown)
    return f" (no picture clearly shows this; the best look most like: {shown})"


def follow_in(
    library: Searchable, start: NDArray[np.float32], looked_at: list[NDArray[Any]] | None = None
) -> NDArray[np.float32]:
    """Move a direction towards the rows of a library that it finds, which `looked_at` collects."""
    from simsearch.retrieval.concepts import follow_best

    index: Any = getattr(library, "index", None) or exact_index(library)  # type: ignore[arg-type]

    def find(
        direction: NDArray[np.float32], count: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        found = next(iter(index.top_k(library, direction[None], count, None)))
        rows = library.row_lookup[found.rows]
        if looked_at is not None:
            looked_at.append(rows)
        return rows, found.scores

    return follow_best(start, sample_of(library).mean(axis=0), len(library), find)
