"""Libraries of random rows with parts, and what a full scan of them finds."""

import numpy as np
from library_cases import unit_rows

import simsearch as ss
from simsearch.library.part_writer import PartWriter
from simsearch.library.parts import PartRecord, open_parts, part_dtype, picture_keys

DIM = 8


def store_parts(folder, counts, rng, labels=(), *, copied=False, equal=False, gone=False, dim=DIM):
    """A library of random rows, with so many random parts for each; some parts are equal.

    With `copied`, every second picture has the content of the one before, and shares its parts;
    with `equal`, all pictures have the same parts; with `gone`, the first parts are of a picture
    that has left the library.
    """
    paths = [f"dataset/{i // 3}/{i:02d}.jpg" for i in range(len(counts))]
    library = ss.ImageLibrary(unit_rows(len(counts), dim, int(rng.integers(99))), paths)
    if copied:
        contents = np.arange(len(counts)) // 2 + 1
        library.digests = np.repeat(contents.astype(np.uint8)[:, None], 16, axis=1)
    library.save(folder)
    library = ss.ImageLibrary.as_stored(folder)
    with PartWriter(folder, PartRecord("grid", 1, library.fingerprint, dim)) as writer:
        if gone:
            parts = np.zeros(2, part_dtype(dim))
            parts["row"] = unit_rows(2, dim, 1)
            writer.append(np.full(16, 255, np.uint8), (60, 40), parts)
        for row, count in enumerate(counts):
            if count is None:
                continue
            parts = np.zeros(count, part_dtype(dim))
            seed = 1 if equal else int(rng.integers(4))
            parts["row"] = unit_rows(count, dim, seed) if count else 0
            parts["box"] = rng.integers(0, 50, (count, 4))
            parts["label"] = rng.integers(-1, len(labels), count)
            writer.append(picture_keys(library, "grid")[row], (60, 40), parts)
        writer.commit(np.arange(len(writer.pictures)), list(labels))
    return library


def scan(library, vectors):
    """Score each picture by the best of its whole and its parts, in float64."""
    scores = (library.embeddings.astype(float) @ vectors.T.astype(float)).max(axis=1)
    parts = open_parts(library)
    for row in range(len(library)):
        rows = parts.parts[parts.of(row)]["row"].astype(float)
        for vector in rows / np.linalg.norm(rows, axis=1, keepdims=True):
            scores[row] = max(scores[row], (vectors.astype(float) @ vector).max())
    return scores


def check_box(library, match, vectors):
    """The box is that of a part with this score, or the whole picture."""
    parts = open_parts(library)
    if parts.stored[match.row] < 0:
        assert match.box is None
        return
    assert match.size == (60, 40)
    some = parts.parts[parts.of(match.row)]
    rows = some["row"].astype(float)
    cosines = vectors @ (rows / np.linalg.norm(rows, axis=1, keepdims=True)).T
    fits = np.isclose(cosines.max(axis=0), match.score, atol=1e-6) if len(rows) else []
    boxes = [tuple(box.tolist()) for box in some["box"][np.flatnonzero(fits)]]
    whole = np.isclose((vectors @ library.embeddings[match.row]).max(), match.score, atol=1e-6)
    assert match.box in ([*boxes, (0, 0, 60, 40)] if whole else boxes)
