"""Parquet files of libraries: names of their columns, and the facts in their schema's metadata."""

from __future__ import annotations

import base64
import json
import tempfile
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from simsearch.backbones.heads import head_bytes, read_head
from simsearch.errors import LibraryError, MissingExtraError
from simsearch.files import atomic_write
from simsearch.library.columns import ColumnReading
from simsearch.library.ownership import is_signed
from simsearch.library.source import Source
from simsearch.library.user_key import signed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from simsearch.backbones.heads import Head
    from simsearch.library.library import ImageLibrary

FORMAT = 1
PATH, EMBEDDING = "path", "embedding"
PATH_BYTES = "path_bytes"  # where a path is no valid Unicode, which the text of Parquet has to be
FACTS = b"simsearch"  # the key in the schema's metadata
MARKED = "library.parquet"  # what the mark of the user is made for


def load_pyarrow() -> Any:  # noqa: ANN401
    """Import pyarrow with its Parquet module.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError(
            'Parquet files need pyarrow: pip install "simsearch[parquet]"'
        ) from error
    return pa


class Facts(NamedTuple):
    """What a file of this package says of its rows, besides its columns.

    Attributes
    ----------
    root : str or None
        The dataset's folder, which the paths are relative to.
    source : Source or None
        The backbone that made the embeddings.
    head : Head or None
        What they have passed through since.
    captions : list of str
        Columns that stand under a match.
    readings : dict
        How columns of text are read.
    own : bool
        Whether this user wrote the file, with these paths.
    """

    root: str | None = None
    source: Source | None = None
    head: Head | None = None
    captions: Sequence[str] = ()
    readings: Mapping[str, ColumnReading] = {}
    own: bool = False

    def to_json(self, names: Sequence[str]) -> bytes:
        """Write the facts, with this user's mark on them and on the names of the rows."""
        made_by = self.head or self.source
        record = {
            "format": FORMAT,
            "rows": len(names),
            "root": self.root,
            "fingerprint": made_by.fingerprint if made_by else "",
            "source": asdict(self.source) if self.source else None,
            "head": base64.b64encode(head_bytes(self.head)).decode() if self.head else None,
            "captions": list(self.captions),
            "readings": {name: each.to_record() for name, each in self.readings.items()},
            "paths": _digest(names),
        }
        return json.dumps(signed(record, MARKED)).encode()


def read_facts(text: bytes, names: Sequence[str], file: str) -> Facts:
    """Read the facts of a file with these names of rows.

    Raises
    ------
    LibraryError
        If they are damaged, of a later version, or do not fit each other.
    """
    try:
        record = json.loads(text)
        if record["format"] != FORMAT:
            raise ValueError(f"its format is {record['format']!r}, not {FORMAT}")
        facts = _facts(record)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise LibraryError(
            f"{file} is an exported library, and what it says of itself cannot be read ({error}); "
            "export the library again"
        ) from error
    made_by = facts.head or facts.source
    if record["rows"] != len(names) or record["fingerprint"] != getattr(made_by, "fingerprint", ""):
        raise LibraryError(
            f"{file} says that it has {record['rows']!r} rows of {record['fingerprint']!r}, and "
            f"has {len(names):,} of {made_by!r}; export the library again"
        )
    own = is_signed(record, MARKED) and record["paths"] == _digest(names)
    return facts._replace(own=own)


def _facts(record: Mapping[str, Any]) -> Facts:
    source, root, captions = record["source"], record["root"], list(record["captions"])
    readings = {name: ColumnReading.from_record(one) for name, one in record["readings"].items()}
    texts = [*captions, *(source.values() if source else ()), "" if root is None else root]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("something is no text")
    head = _head_of(record["head"]) if record["head"] else None
    return Facts(root, Source(**source) if source else None, head, captions, readings)


def _digest(names: Sequence[str]) -> str:
    return sha256("\0".join(names).encode("utf-8", "surrogatepass")).hexdigest()


def _head_of(text: str) -> Head:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "head.safetensors")
        with atomic_write(file) as stream:
            stream.write(base64.b64decode(text, validate=True))
        return read_head(file)


def attach_stored(library: ImageLibrary, frame: pd.DataFrame, facts: Facts) -> None:
    """Attach the metadata that was stored beside a library's rows, one line per row."""
    from simsearch.library.metadata import AttachedTable

    if not frame.columns.size:
        return
    read = {name: one for name, one in facts.readings.items() if name in frame.columns}
    named = [name for name in facts.captions if name in frame.columns]
    library.metadata = frame
    library.attached = AttachedTable(frame, readings=read)
    library.captions = named if facts.readings or named else list(frame.columns[:2])
