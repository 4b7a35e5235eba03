"""The classifier of a library's backbone, kept beside the library: `classifier.npy`, `.json`.

Read from the weights once; then words need them no more. Tied to the backbone by its fingerprint.
"""

from __future__ import annotations

import hashlib
import io
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from filelock import FileLock, Timeout

from simsearch.backbones.classifier import Classifier, load_classifier
from simsearch.errors import WeightsError
from simsearch.files import atomic_write, check_plain, write_text
from simsearch.library.block_digests import file_record
from simsearch.library.ownership import is_signed
from simsearch.library.user_key import signed

if TYPE_CHECKING:
    from pathlib import Path

    from simsearch.library.source import Source

NAME, FORMAT = "classifier", 1
UNIT_NORM_ERROR = 1e-3

_known: WeakKeyDictionary[Any, tuple[str, Classifier]] = WeakKeyDictionary()


def classifier_of(library: Any, source: Source) -> Classifier:  # noqa: ANN401 (any Searchable)
    """Return the classifier of what made a library: as it is kept there, or of the weights.

    What is read from the weights is kept from then on, where the folder can be written.

    Raises
    ------
    QueryError
        If the backbone has none.
    BackboneError
        If its weights are others than those that made the library.
    WeightsError
        If they cannot be loaded, and the library keeps nothing that this user has written.
    """
    known = _known.get(library)
    if known is None or known[0] != source.fingerprint:
        known = _known[library] = source.fingerprint, _kept_or_loaded(library, source)
    return known[1]


def _kept_or_loaded(library: Any, source: Source) -> Classifier:  # noqa: ANN401
    stored = getattr(library, "stored", None)
    if stored is None:  # of arrays, or on a server
        return load_classifier(source.backbone, source.weights_file, source.fingerprint)
    folder: Path = stored[0]
    kept = read_classifier(folder, source.fingerprint)
    if kept is not None:
        return kept
    try:
        made = load_classifier(source.backbone, source.weights_file, source.fingerprint)
    except WeightsError as error:
        if not (folder / f"{NAME}.json").is_file():
            raise
        raise WeightsError(
            f"{error}; this library keeps the rows of its classifier, which do not bear your mark, "
            "or are damaged: simsearch.trust_library(outputs) (`simsearch trust OUTPUTS`) if it is "
            "yours"
        ) from error
    with suppress(OSError, Timeout):  # a full or read-only disk, or another process writes them
        _write(folder, source.fingerprint, made)
    return made


def read_classifier(folder: Path, fingerprint: str) -> Classifier | None:
    """Read what is kept in a folder; None unless it is whole, of this backbone and this user's."""
    try:
        check_plain(folder / f"{NAME}.json")
        record = json.loads((folder / f"{NAME}.json").read_text("utf-8"))
        if not is_signed(record, NAME) or record["format"] != FORMAT:
            return None
        check_plain(folder / f"{NAME}.npy")
        data = (folder / f"{NAME}.npy").read_bytes()
        if hashlib.sha256(data).hexdigest() != record["file"]["sha256"]:
            return None
        found = Classifier(tuple(record["names"]), np.load(io.BytesIO(data), allow_pickle=False))
        return found if record["fingerprint"] == fingerprint and _is_usable(found) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _is_usable(found: Classifier) -> bool:
    rows = found.rows
    if rows.dtype != np.float32 or rows.ndim != 2 or len(rows) != len(found.names):
        return False
    return bool((np.abs(np.linalg.norm(rows, axis=1) - 1) < UNIT_NORM_ERROR).all())


def _write(folder: Path, fingerprint: str, made: Classifier) -> None:
    """Write the rows; the record comes last, and tells whether they are whole."""
    file = folder / f"{NAME}.npy"
    with FileLock(folder / f".{NAME}.lock", timeout=0):
        with atomic_write(file) as stream:
            np.save(stream, made.rows, allow_pickle=False)
        record = {
            "format": FORMAT,
            "fingerprint": fingerprint,
            "names": made.names,
            "file": file_record(file),
        }
        write_text(folder / f"{NAME}.json", json.dumps(signed(record, NAME), indent=2))
