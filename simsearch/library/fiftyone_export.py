"""Export of a library as a dataset that FiftyOne imports: two files of JSON, without FiftyOne.

It is the form without a version, which each version of `fiftyone.types.FiftyOneDataset` reads.
"""

from __future__ import annotations

import base64
import io
import json
import os
import zlib
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simsearch.csv_file import saving
from simsearch.errors import LibraryError
from simsearch.files import atomic_write, iter_blocks, write_text
from simsearch.images.address import is_uri
from simsearch.library.parquet import EMBEDDING, FACTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd
    from numpy.typing import NDArray

    from simsearch.library.library import ImageLibrary

BLOCK_ROWS = 1024  # of embeddings, which are in memory at a time
METADATA, SAMPLES = "metadata.json", "samples.json"
LABEL = "ground_truth"
# Fields that each sample of FiftyOne has, and those of this export.
TAKEN = {"id", "pk", "filepath", "tags", "metadata", "created_at", "last_modified_at", "frames"}
TAKEN |= {"media_reference", "media_type", "dataset_id", "rand", LABEL, EMBEDDING}
_FIELDS = "fiftyone.core.fields."
_TEXT = f"{_FIELDS}StringField"
_KINDS = {
    "bool": f"{_FIELDS}BooleanField",
    "int": f"{_FIELDS}IntField",
    "float": f"{_FIELDS}FloatField",
    "text": _TEXT,
    "texts": f"{_FIELDS}ListField({_TEXT})",
}


def write_dataset(library: ImageLibrary, folder: str | os.PathLike[str], facts: str) -> Path:
    """Write `metadata.json` and then `samples.json`, without which FiftyOne reads nothing.

    Parameters
    ----------
    library
        Of files or arrays.
    folder
        A new one, or one that is empty.
    facts
        What made the embeddings, as JSON, for the dataset's `info`.

    Raises
    ------
    LibraryError
        If the folder holds something, or FiftyOne cannot store a path or a column.
    QueryError
        If the folder cannot be written.
    """
    columns = _columns(library)
    places = [_place(path) for path in library.paths.tolist()]
    labels = [_unicode(label, "label") for label in library.labels.tolist()]
    fields = {name: kind for name, (kind, _) in columns.items()}
    fields |= {EMBEDDING: f"{_FIELDS}VectorField"}
    fields |= {LABEL: f"{_FIELDS}EmbeddedDocumentField(fiftyone.core.labels.Classification)"}
    info = {FACTS.decode(): facts, "classes": sorted({*labels} - {""})}
    header = {"media_type": "image", "sample_fields": fields, "info": info}
    cells = {name: values for name, (_, values) in columns.items()}
    with saving(folder) as made:
        made.mkdir(exist_ok=True)
        if {each.name for each in made.iterdir()} - {METADATA, f"{SAMPLES}.part"}:
            raise LibraryError(f"{os.fspath(folder)!r} is not empty: give a new folder")
        write_text(made / METADATA, json.dumps(header))
        with atomic_write(made / SAMPLES) as stream:
            for row, vector in enumerate(_vectors(library)):
                sample: dict[str, Any] = {"filepath": places[row], "tags": [], "metadata": None}
                sample[EMBEDDING] = {"$binary": {"base64": _packed(vector), "subType": "00"}}
                if labels[row]:
                    sample[LABEL] = {"_cls": "Classification", "tags": [], "label": labels[row]}
                sample |= {name: values[row] for name, values in cells.items()}
                stream.write(b",\n" if row else b'{"samples": [\n')
                stream.write(json.dumps(sample).encode())
            stream.write(b"\n]}\n")
    return made


def _vectors(library: ImageLibrary) -> Iterator[NDArray[np.float32]]:
    for rows in iter_blocks(len(library), BLOCK_ROWS):
        yield from library.row_lookup[rows]


def _packed(vector: NDArray[np.float32]) -> str:
    """Return an array as FiftyOne stores one: an .npy file, compressed."""
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(vector, np.float32), allow_pickle=False)
    return base64.b64encode(zlib.compress(file.getvalue())).decode()


def _place(path: str) -> str:
    if is_uri(path):
        raise LibraryError(f"FiftyOne opens pictures in folders, and not at {path!r:.200}")
    return _unicode(os.path.abspath(path), "path")  # noqa: PTH100


def _unicode(text: str, what: str) -> str:
    """Return a text that the database of FiftyOne can hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise LibraryError(
            f"the {what} {text!r:.200} is not valid Unicode, and FiftyOne cannot store it; rename "
            "it, or export as Parquet"
        ) from error
    return text


# Metadata


def _columns(library: ImageLibrary) -> Mapping[str, tuple[str, list[Any]]]:
    """Return the kind of field and the values of each column."""
    table = library.metadata
    if table is None:
        return {}
    if len(table) != len(library):
        raise LibraryError(
            f"the metadata has {len(table):,} lines, and the library {len(library):,} rows"
        )
    made: dict[str, tuple[str, list[Any]]] = {}
    for place, name in enumerate(map(str, table.columns)):
        if name in made or not _is_field(name):
            raise LibraryError(
                f"a column {name!r} of the metadata can be no field of FiftyOne; rename it"
            )
        made[name] = _field(_unicode(name, "column"), table.iloc[:, place])
    return made


def _is_field(name: str) -> bool:
    return bool(name) and name[0] != "_" and not {*name} & {".", "$", "\0"} and name not in TAKEN


def _field(name: str, column: pd.Series[Any]) -> tuple[str, list[Any]]:
    known = column.notna().tolist()
    cells = column.astype(object).tolist()
    read = [
        _cell(name, cell) if there else ("", None) for cell, there in zip(cells, known, strict=True)
    ]
    kinds = {kind for kind, _ in read} - {""}
    if kinds == {"int", "float"}:
        kinds = {"float"}
    if len(kinds) > 1:
        raise _refusal(name, f"it holds {' and '.join(sorted(kinds))}")
    kind = kinds.pop() if kinds else "text"
    return _KINDS[kind], [float(v) if kind == "float" and v is not None else v for _, v in read]


def _cell(name: str, cell: object) -> tuple[str, Any]:
    """Return the kind and the value of a cell, a day or time as text by ISO 8601."""
    cell = cell.item() if isinstance(cell, np.generic) else cell
    if isinstance(cell, bool):
        return "bool", cell
    if isinstance(cell, int) and -(2**63) <= cell < 2**63:
        return "int", cell
    if isinstance(cell, float):
        return "float", cell
    if isinstance(cell, date):
        return "text", cell.isoformat()
    if isinstance(cell, str):
        return "text", _unicode(cell, f"cell of {name!r}")
    if isinstance(cell, (list, tuple, np.ndarray)) and all(isinstance(one, str) for one in cell):
        return "texts", [_unicode(one, f"cell of {name!r}") for one in cell]
    raise _refusal(name, f"{cell!r:.80}")


def _refusal(name: str, why: str) -> LibraryError:
    return LibraryError(
        f"the column {name!r} of the metadata can be no field of FiftyOne ({why}): turn it into "
        "text, or attach a table without it"
    )
