"""Rows that were made elsewhere, of .npy or Parquet files, read and checked block by block."""

from __future__ import annotations

import os
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from simsearch.errors import LibraryError
from simsearch.files import iter_blocks
from simsearch.library.metadata import read_table
from simsearch.library.parquet import EMBEDDING, FACTS, PATH, PATH_BYTES, load_pyarrow
from simsearch.library.unit_rows import UNIT_NORM_ERROR

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import pandas as pd
    from numpy.typing import NDArray

BLOCK_ROWS = 4096  # in memory at a time
PATH_NAMES = (PATH, "image_path", "file_name")  # of others: clip-retrieval, Hugging Face
EMBEDDING_NAMES = (EMBEDDING, "embeddings", "image_embedding")


class PathTable(NamedTuple):
    """Paths of rows, and what else is known of each.

    Attributes
    ----------
    paths : list of str
        N of them.
    frame : pandas.DataFrame
        N lines, without the paths.
    facts : bytes or None
        What an exported library says of itself.
    """

    paths: list[str]
    frame: pd.DataFrame
    facts: bytes | None = None


class IncomingRows:
    """Embeddings that are checked while they are read.

    Parameters
    ----------
    name
        Of the file, for messages.
    blocks
        Arrays of (n, D) numbers.
    count
        How many rows there are.

    Attributes
    ----------
    dim : int
        Their width.
    scaled : int
        How many rows, of those read until now, had another norm than 1.
    """

    def __init__(self, name: str, blocks: Iterable[NDArray[Any]], count: int) -> None:
        self.name, self.count, self.scaled, self._blocks = name, count, 0, iter(blocks)
        self._first = next(self._blocks, None)
        if self._first is None or not self._first.size:
            raise LibraryError(f"{name} has no rows")
        self.dim = int(self._first.shape[1])

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        start, block = 0, self._first
        while block is not None:
            yield self._unit(block, start)
            start, block = start + len(block), next(self._blocks, None)
        if start != self.count:
            raise LibraryError(f"{self.name} has {start:,} rows, and says {self.count:,}")

    def _unit(self, block: NDArray[Any], start: int) -> NDArray[np.float32]:
        """Return rows of unit norm; those that have it stay as they are."""
        with np.errstate(all="ignore"):
            norms = np.linalg.norm(block.astype(np.float64), axis=1)
        good = np.isfinite(norms) & (norms > 0)
        if not good.all():
            row = start + int(good.argmin())
            raise LibraryError(
                f"row {row} of {self.name} (from 0) is zero or not finite; leave it out, and its "
                "path"
            )
        off = np.abs(norms - 1) > UNIT_NORM_ERROR
        self.scaled += int(off.sum())
        norms[~off] = 1
        return np.ascontiguousarray(block / norms[:, None], np.float32)


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn whatever decoders raise for a damaged file into one error.

    Raises
    ------
    LibraryError
    """
    try:
        yield
    except LibraryError:
        raise
    except Exception as error:  # decoders of damaged files raise nearly anything
        why = getattr(error, "strerror", None) or str(error) or repr(error)
        raise LibraryError(f"{name} cannot be read: {why:.300}; is it whole?") from error


def check_file(file: str | os.PathLike[str]) -> Path:
    """Return the path of a file that is there.

    Raises
    ------
    LibraryError
        If it is none, such as a folder.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise LibraryError(f"{os.fspath(file)!r}: no such file")
    return path


# Of NumPy


def open_npy(file: Path) -> IncomingRows:
    """Open an .npy file of (N, D) numbers, mapped.

    Raises
    ------
    LibraryError
        If it holds anything else, or is damaged.
    """
    with reading(file.name):
        rows = np.load(file, mmap_mode="r", allow_pickle=False)
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.dtype.kind not in "fiu":
        what = f"shape {rows.shape}, {rows.dtype}" if isinstance(rows, np.ndarray) else "archive"
        raise LibraryError(f"{file.name} ({what}) does not hold (N, D) numbers, one row a picture")
    blocks = (np.asarray(rows[block]) for block in iter_blocks(len(rows), BLOCK_ROWS))
    return IncomingRows(file.name, blocks, len(rows))


# Of Parquet


def open_parquet(file: Path) -> Any:  # noqa: ANN401
    """Open a Parquet file; pages that were written with a checksum are checked."""
    pa = load_pyarrow()
    with reading(file.name):
        return pa.parquet.ParquetFile(file, page_checksum_verification=True)


def parquet_rows(opened: Any, name: str) -> IncomingRows:  # noqa: ANN401
    """Read the embeddings of an open Parquet file.

    Raises
    ------
    LibraryError
        If there are none, they are no lists of numbers, or of different lengths.
    """
    column = _find(opened.schema_arrow.names, EMBEDDING_NAMES, name, "embeddings")
    _check_lists(opened.schema_arrow.field(column).type, column, name)
    with reading(name):
        count = opened.metadata.num_rows
        return IncomingRows(name, _parquet_blocks(opened, column, name), count)


def _parquet_blocks(opened: Any, column: str, name: str) -> Iterator[NDArray[Any]]:  # noqa: ANN401
    start, width = 0, None
    with reading(name):
        for batch in opened.iter_batches(BLOCK_ROWS, columns=[column]):
            lists = batch.column(column)
            lengths = np.diff(np.asarray(_offsets(lists)))
            width = int(lengths[0]) if width is None else width
            odd = np.flatnonzero(lengths != width)
            if odd.size or lists.null_count:
                row = int(odd[0]) if odd.size else int(np.asarray(lists.is_null()).argmax())
                raise LibraryError(
                    f"row {start + row} of {name} (from 0) has not {width} numbers, as the first "
                    "has; leave it out"
                )
            yield lists.flatten().to_numpy(zero_copy_only=False).reshape(len(lists), width)
            start += len(lists)


def _offsets(lists: Any) -> Any:  # noqa: ANN401
    """Return where each list begins and the last one ends; a missing one has no length."""
    if hasattr(lists.type, "list_size"):
        return np.arange(len(lists) + 1) * lists.type.list_size
    return lists.offsets


def _check_lists(kind: Any, column: str, name: str) -> None:  # noqa: ANN401
    types = load_pyarrow().types
    is_list = any(
        is_kind(kind) for is_kind in (types.is_list, types.is_large_list, types.is_fixed_size_list)
    )
    if not is_list or not (types.is_floating(kind.value_type) or types.is_integer(kind.value_type)):
        raise LibraryError(
            f"the column {column!r} of {name} holds {kind}, and not lists of numbers"
        )


def _find(names: Sequence[str], known: Sequence[str], file: str, what: str) -> str:
    found = [name for name in known if name in names]
    if not found:
        raise LibraryError(
            f"{file} has no column {known[0]!r}, only {', '.join(names) or 'none'}; rename the one "
            f"with the {what}"
        )
    return found[0]


def parquet_table(opened: Any, name: str) -> PathTable:  # noqa: ANN401
    """Read the paths of an open Parquet file, and its columns beside the embeddings."""
    schema = opened.schema_arrow
    key = _find(schema.names, PATH_NAMES, name, "paths")
    if len(set(schema.names)) < len(schema.names):
        raise LibraryError(f"{name} has two columns of one name; rename or remove one")
    facts = (schema.metadata or {}).get(FACTS)
    left = {key, *EMBEDDING_NAMES, *([PATH_BYTES] if facts else [])}
    columns = [column for column in schema.names if column not in left]
    with reading(name):
        wanted = [each for each in schema.names if each not in EMBEDDING_NAMES]
        table = opened.read(wanted)
        paths = table.column(key).to_pylist()
        if facts and PATH_BYTES in schema.names:
            raw = table.column(PATH_BYTES).to_pylist()
            paths = [each.decode("utf-8", "surrogateescape") for each in raw]
        return PathTable(paths, _frame(table, columns), facts)


def _frame(table: Any, columns: Sequence[str]) -> pd.DataFrame:  # noqa: ANN401
    import pandas as pd

    made = {name: _cells(table.column(name)) for name in columns}
    return pd.DataFrame(made, index=range(len(table)))


def _cells(column: Any) -> pd.Series[Any]:  # noqa: ANN401
    import pandas as pd

    types = load_pyarrow().types
    if types.is_nested(column.type):
        return pd.Series(column.to_pylist(), dtype=object)
    made: pd.Series[Any] = column.to_pandas(types_mapper=_pandas_type)
    return made


def _pandas_type(kind: Any) -> Any:  # noqa: ANN401
    """Return pandas' own type with a mark for what is missing; None for the usual one."""
    import pandas as pd

    types = load_pyarrow().types
    if types.is_string(kind) or types.is_large_string(kind):
        return pd.StringDtype()
    if types.is_integer(kind) or kind in {"float", "double"} or types.is_boolean(kind):
        name = {"bool": "boolean", "float": "Float32", "double": "Float64"}.get(str(kind))
        return pd.api.types.pandas_dtype(name or str(kind).replace("i", "I").replace("uI", "UI"))
    return None


def csv_table(file: Path) -> PathTable:
    """Read a CSV file of paths and facts; see `ImageLibrary.attach`.

    Raises
    ------
    QueryError
        If it cannot be read, or has no path column.
    """
    source = read_table(file)
    return PathTable(source.paths, source.frame)


def read_paths(file: Path) -> PathTable:
    """Read a table of paths, a Parquet or a CSV file."""
    if file.suffix.lower() != ".parquet":
        return csv_table(file)
    with closing(open_parquet(file)) as opened:
        return parquet_table(opened, file.name)._replace(facts=None)
