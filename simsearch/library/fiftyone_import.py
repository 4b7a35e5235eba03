"""Import of a dataset that FiftyOne or `export_library` has exported: two files of JSON."""

from __future__ import annotations

import base64
import io
import json
import logging
import os
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from simsearch.errors import LibraryError
from simsearch.files import iter_blocks
from simsearch.library.fiftyone_export import LABEL, METADATA, SAMPLES, TAKEN
from simsearch.library.incoming_rows import (
    BLOCK_ROWS,
    EMBEDDING_NAMES,
    IncomingRows,
    PathTable,
    check_file,
    reading,
)
from simsearch.library.parquet import FACTS, Facts, read_facts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

logger = logging.getLogger("simsearch")

VECTOR_BYTES = 2**22  # that the file of one embedding may have
DTYPES = {"BooleanField": "boolean", "IntField": "Int64", "FloatField": "Float64"}
DTYPES |= {"StringField": "string"}
PLAIN = (bool, int, float, str, type(None))


class Dataset(NamedTuple):
    """What a folder of FiftyOne holds for a library."""

    rows: IncomingRows
    table: PathTable
    facts: Facts


def read_dataset(folder: Path) -> Dataset:
    """Read what `fiftyone.types.FiftyOneDataset` or `export_library` wrote.

    All samples are in memory at a time; embeddings are unpacked block by block.

    Raises
    ------
    LibraryError
        If a file is missing or damaged, or there is no field of embeddings.
    """
    name = f"{folder.name}/{SAMPLES}"
    with reading(name):
        samples = json.loads(check_file(folder / SAMPLES).read_bytes())["samples"]
        if not isinstance(samples, list) or not all(isinstance(each, dict) for each in samples):
            raise TypeError("its samples are no list of documents")
    with reading(f"{folder.name}/{METADATA}"):
        header = json.loads(check_file(folder / METADATA).read_bytes())
        info = header.get("info") or {}
        text = info.get(FACTS.decode())
        fields = {key: str(kind) for key, kind in _fields(header).items()}
    column = _embedding_field(samples, name)
    paths = [_place(sample, row, folder, name) for row, sample in enumerate(samples)]
    facts = Facts()
    if isinstance(text, str):
        paths, facts = _facts(text, paths, name)
    left = {column, *(TAKEN - {LABEL, "tags"}), *([LABEL] if facts != Facts() else [])}
    frame = _frame(samples, fields, left)
    rows = IncomingRows(name, _blocks(samples, column, name), len(samples))
    return Dataset(rows, PathTable(paths, frame), facts)


def _fields(header: Mapping[str, Any]) -> dict[str, Any]:
    """Return the kind of each field, which FiftyOne writes in two ways."""
    fields = header.get("sample_fields") or {}
    if isinstance(fields, dict):
        return fields
    return {one["name"]: f"{one['ftype']}" for one in fields}


def _place(sample: Mapping[str, Any], row: int, folder: Path, name: str) -> str:
    """Return where the picture of a sample is; relative ones are below the folder."""
    path = sample.get("filepath")
    if not isinstance(path, str) or not path:
        raise LibraryError(f"sample {row} (from 0) of {name} has no filepath")
    return path if os.path.isabs(path) else os.path.normpath(folder / path)  # noqa: PTH117


def _facts(text: str, paths: list[str], name: str) -> tuple[list[str], Facts]:
    """Return names of pictures, and what made the embeddings; a part of the samples will do."""
    with reading(name):
        record = json.loads(text)
        root, rows = record["root"], record["rows"]
    if rows != len(paths):  # chosen in FiftyOne; the mark of the user is then none
        text = json.dumps({**record, "rows": len(paths)})
    top = f"{os.path.abspath(root)}/" if isinstance(root, str) else ""  # noqa: PTH100
    if top and all(path.startswith(top) for path in paths):
        names = [path[len(top) :] for path in paths]
        facts = read_facts(text.encode(), names, name)
        if facts.own:
            return names, facts
    return paths, read_facts(text.encode(), paths, name)


# Embeddings


def _embedding_field(samples: Sequence[Mapping[str, Any]], name: str) -> str:
    first = samples[0] if samples else {}
    known = [field for field in EMBEDDING_NAMES if field in first]
    packed = [field for field, value in first.items() if _is_packed(value)]
    if known or len(packed) == 1:
        return [*known, *packed][0]
    raise LibraryError(
        f"{name} has no field {EMBEDDING_NAMES[0]!r} of embeddings, and {len(packed)} fields of "
        "numbers; compute them, or rename the field"
    )


def _is_packed(value: object) -> bool:
    return isinstance(value, dict) and "$binary" in value


def _blocks(samples: list[dict[str, Any]], field: str, name: str) -> Iterator[NDArray[Any]]:
    width = None
    for block in iter_blocks(len(samples), BLOCK_ROWS):
        vectors = []
        for row in range(block.start, block.stop):
            with reading(f"the field {field!r} of sample {row} (from 0) of {name}"):
                vector = _unpacked(samples[row].get(field))
            width = len(vector) if width is None else width
            if len(vector) != width:
                raise LibraryError(
                    f"sample {row} (from 0) of {name} has an embedding of {len(vector)} numbers, "
                    f"and the first has {width}; leave it out"
                )
            vectors.append(vector)
        yield np.stack(vectors)


def _unpacked(value: object) -> NDArray[Any]:
    """Return an array that FiftyOne has stored: an .npy file, compressed; or a list."""
    if isinstance(value, dict):
        packed = base64.b64decode(value["$binary"]["base64"], validate=True)
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(packed, VECTOR_BYTES)
        if not unpacker.eof:
            raise ValueError(f"it has more than {VECTOR_BYTES:,} bytes, or ends early")
        value = np.load(io.BytesIO(data), allow_pickle=False)
    vector = np.asarray(value)
    if vector.ndim != 1 or vector.dtype.kind not in "fiu":
        raise ValueError(f"shape {vector.shape}, {vector.dtype} is no list of numbers")
    return vector


# Other fields


def _frame(
    samples: Sequence[Mapping[str, Any]], fields: Mapping[str, str], left: set[str]
) -> pd.DataFrame:
    """Return the fields of numbers, texts, lists of texts, days and classes, a column each."""
    import pandas as pd

    names = dict.fromkeys(key for sample in samples for key in sample if key not in left)
    made, lost = {}, []
    for field in names:
        if field.startswith("_"):
            continue
        cells = [_cell(sample.get(field)) for sample in samples]
        if any(cell is NotImplemented for cell in cells):
            lost.append(field)
        elif any(cell is not None for cell in cells) and not (field == "tags" and not any(cells)):
            kind = DTYPES.get(fields.get(field, "").rpartition(".")[2])
            plain = all(isinstance(cell, PLAIN) for cell in cells)
            made[field] = pd.Series(cells, dtype=kind if kind and plain else object)
    if lost:
        logger.warning(
            "left out fields that are no numbers, texts or classes: %s", ", ".join(sorted(lost))
        )
    return pd.DataFrame(made, index=range(len(samples)))


def _cell(value: object) -> Any:  # noqa: ANN401
    """Return the value of a cell; NotImplemented for what a table cannot hold."""
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return value
    if not isinstance(value, dict):
        return value if isinstance(value, PLAIN) else NotImplemented
    if value.get("_cls") == "Classification":
        return value.get("label")
    if "$numberDouble" in value:
        return float(value["$numberDouble"])
    return _day(value["$date"]) if "$date" in value else NotImplemented


def _day(stated: Any) -> str:  # noqa: ANN401
    """Return a time of the database, text or milliseconds, by ISO 8601."""
    import pandas as pd

    if isinstance(stated, str):
        return str(pd.to_datetime(stated, utc=True).isoformat())
    return str(pd.to_datetime(stated, unit="ms", utc=True).isoformat())
