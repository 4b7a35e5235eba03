"""Export of a library: paths, embeddings, metadata, and what made them, as one Parquet file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from simsearch.csv_file import saving
from simsearch.errors import LibraryError, QueryError
from simsearch.files import atomic_write, iter_blocks
from simsearch.library.foreign import without_weights
from simsearch.library.library import ImageLibrary
from simsearch.library.metadata import attached_table
from simsearch.library.parquet import (
    EMBEDDING,
    FACTS,
    PATH,
    PATH_BYTES,
    Facts,
    load_pyarrow,
)
from simsearch.library.recorded import source_to_record
from simsearch.printable import valid_unicode

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from typing import Literal

    import pandas as pd

GROUP_ROWS = 8192  # of a row group, which is in memory at a time


def export_library(
    library: ImageLibrary,
    file: str | os.PathLike[str],
    kind: Literal["parquet", "fiftyone"] = "parquet",
) -> Path:
    """Write a library for other programs, as one Parquet file or as a dataset of FiftyOne.

    Columns of the Parquet file are `path`, relative to the dataset's root; `embedding`, a list of D
    float32 numbers of unit norm; and those of the attached metadata, with their types. The metadata
    of the schema, under the key `simsearch`, holds as JSON what made the embeddings: the backbone
    with its fingerprint and the head. A path that is not valid Unicode is written readably, and as
    it is in a column `path_bytes`. Parts, sizes and times of files are not in it, and weights by
    name alone. `import_library` reads it. It is written in groups of rows, and is there whole or
    not at all.

    A dataset of FiftyOne is a folder that `fiftyone.Dataset.from_dir` imports as
    `fiftyone.types.FiftyOneDataset`: absolute paths, the label by the folder as `ground_truth`,
    `embedding` as a vector, and the columns of the metadata, days and times as text. What made the
    embeddings is the same JSON, in the dataset's `info["simsearch"]`.

    Parameters
    ----------
    library
        From `embed_dataset` or `ImageLibrary.load`, perhaps with a table (`attach`).
    file
        Where to write; a file that is there is replaced. For FiftyOne, a new folder.
    kind
        What to write.

    Returns
    -------
    pathlib.Path
        The file, or the folder.

    Raises
    ------
    LibraryError
        If it is no library of files or arrays, a path or a column of its metadata cannot be stored,
        or a folder is not empty.
    QueryError
        If the file cannot be written, or there is no such kind.
    BackboneError
        If the backbone is known by name alone, and cannot be loaded.
    MissingExtraError
        If pyarrow is not installed, which Parquet needs.
    """
    if kind == "fiftyone":
        from simsearch.library.fiftyone_export import write_dataset

        _check_kind_of_library(library)
        return write_dataset(library, file, _facts(library).to_json(library.names).decode())
    if kind != "parquet":
        raise QueryError(f"kind={kind!r}: give one of 'parquet', 'fiftyone'")
    pa = load_pyarrow()
    schema, groups = arrow_groups(library)
    texts = [field.name for field in schema if field.name != EMBEDDING]
    options = {"write_page_checksum": True, "use_dictionary": texts}
    with (
        saving(file) as place,
        atomic_write(place) as stream,
        pa.parquet.ParquetWriter(stream, schema, **options) as writer,
    ):
        for group in groups:
            writer.write_table(group, GROUP_ROWS)
    return place


def arrow_groups(
    library: ImageLibrary, extra: Mapping[str, Any] | None = None
) -> tuple[Any, Iterator[Any]]:
    """Return the schema of a library's rows in Arrow, and an iterator of tables of some rows each.

    Parameters
    ----------
    library
        To be written elsewhere.
    extra
        Further columns, as arrays of Arrow.

    Raises
    ------
    LibraryError
        If it is no library of files or arrays, or a column of its metadata cannot be stored.
    """
    pa = load_pyarrow()
    _check_kind_of_library(library)
    columns = _paths(pa, library.names) | _facts_columns(pa, library.metadata, len(library))
    columns |= extra or {}
    width = pa.list_(pa.float32(), library.dim)
    fields = {name: cells.type for name, cells in columns.items()}
    fields = {PATH: fields.pop(PATH), EMBEDDING: width, **fields}
    text = _facts(library).to_json(library.names)
    schema = pa.schema(list(fields.items()), metadata={FACTS: text})
    return schema, _groups(pa, schema, library, columns)


def _check_kind_of_library(library: object) -> None:
    if not isinstance(library, ImageLibrary):
        raise LibraryError(
            f"a {type(library).__name__} cannot be exported: give an ImageLibrary, as one of files"
        )


def _groups(
    pa: Any,  # noqa: ANN401
    schema: Any,  # noqa: ANN401
    library: ImageLibrary,
    columns: Mapping[str, Any],
) -> Iterator[Any]:
    for rows in iter_blocks(len(library), GROUP_ROWS):
        numbers = pa.array(np.ascontiguousarray(library.row_lookup[rows]).reshape(-1))
        cells = {name: column[rows] for name, column in columns.items()}
        cells[EMBEDDING] = pa.FixedSizeListArray.from_arrays(numbers, library.dim)
        yield pa.Table.from_arrays([cells[name] for name in schema.names], schema=schema)


def _paths(pa: Any, names: list[str]) -> dict[str, Any]:  # noqa: ANN401
    try:
        return {PATH: pa.array(names, pa.string())}
    except UnicodeEncodeError:
        shown = pa.array(map(valid_unicode, names), pa.string())
    try:
        raw = [name.encode("utf-8", "surrogateescape") for name in names]
    except UnicodeEncodeError as error:
        raise LibraryError(f"the path {error.object!r} can be no name of a file") from error
    return {PATH: shown, PATH_BYTES: pa.array(raw, pa.binary())}


def _facts_columns(pa: Any, table: pd.DataFrame | None, count: int) -> dict[str, Any]:  # noqa: ANN401
    """Turn the metadata of `count` rows into columns."""
    if table is None:
        return {}
    if len(table) != count:
        raise LibraryError(f"the metadata has {len(table):,} lines, and the library {count:,} rows")
    columns: dict[str, Any] = {}
    for place, name in enumerate(map(str, table.columns)):
        if name in {PATH, EMBEDDING, PATH_BYTES, *columns}:
            raise LibraryError(f"a column {name!r} of the metadata is one too many; rename it")
        columns[name] = _column(pa, name, table.iloc[:, place])
    return columns


def _column(pa: Any, name: str, cells: pd.Series[Any]) -> Any:  # noqa: ANN401
    try:
        name.encode()
        made = pa.array(cells, from_pandas=True)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise LibraryError(
            f"the column {name!r} of the metadata cannot be stored as Parquet ({error}): turn it "
            "into text, or attach a table without it"
        ) from error
    return made.combine_chunks() if isinstance(made, pa.ChunkedArray) else made


def _facts(library: ImageLibrary) -> Facts:
    source = without_weights(source_to_record(library))
    attached = attached_table(library)
    names = attached.metadata.columns if attached else ()
    read = {str(name): attached.reading(name) for name in names} if attached else {}
    readings = {name: reading for name, reading in read.items() if reading}
    return Facts(library.root, source, library.head, list(library.captions), readings)
