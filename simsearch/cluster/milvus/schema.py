"""The stored form of a published library: its collections, fields and the record of a version.

What an earlier simsearch has published must stay readable: the stored names never change. Where
one differs from the name in the code, it stands here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping


Kind: TypeAlias = Literal["hnsw", "hnsw_sq8", "ivf", "flat"]
INDEX_TYPES: dict[str, str] = {
    "hnsw": "HNSW",
    "hnsw_sq8": "HNSW_SQ",
    "ivf": "IVF_FLAT",
    "flat": "FLAT",
}
INDEX_PARAMETERS: dict[str, dict[str, Any]] = {  # by Milvus' own name of the index
    "HNSW": {"M": 32, "efConstruction": 200},
    "HNSW_SQ": {"M": 32, "efConstruction": 200, "sq_type": "SQ8"},
    "IVF_FLAT": {"nlist": 1024},
    "FLAT": {},
}

FORMAT = 1
TEXT_BYTES = 65_535  # that a text field may hold
ORDER_CHUNK_ROWS = 4096  # whose order is stored together, as 8-byte ids

# Fields of a row, of which `row` stays with an image and `id` is of one state of it
PAYLOAD = "about"  # path, metadata and file state, as JSON
FILTER_TOKENS = "words"
NUMBER_FIELDS = [f"number_{i}" for i in range(8)]  # columns of numbers that the engine can compare

# Parts of a version
DELETED_IDS, RANDOM_PAIR_SCORES = "dead", "background"
COLUMNS, OVERVIEW, ORDER, HEAD = "columns", "overview", "order", "head"

STORED_KEYS = {"oldest_readable": "floor", "next_id": "next", "name_start": "start"}


@dataclass(frozen=True)
class VersionRecord:
    """One version of a published library. Writing its record makes the version visible, whole."""

    version: int
    oldest_readable: int  # version whose rows are still complete
    generation: int  # of the collection that holds the rows
    next_id: int  # states from here on are not part of it
    rows: int
    dim: int
    index: str  # Milvus' own name of its type
    root: str | None
    name_start: int  # where names begin in paths
    source: dict[str, Any] | None
    head: str | None  # fingerprint
    fingerprint: str
    captions: list[str]
    parts: dict[str, dict[str, Any]]  # by name, what `Store.read_part` needs
    early: bool = False  # whether rows have the form of `simsearch.cluster.milvus.early`

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> VersionRecord:
        """Read the stored form."""
        names = [field.name for field in fields(cls)]
        known = {name: STORED_KEYS.get(name, name) for name in names}
        found = {name: record[key] for name, key in known.items() if name != "early"}
        return cls(**found, early=bool(record.get("early")))

    def to_record(self) -> dict[str, Any]:
        """Return the stored form."""
        stored = {STORED_KEYS.get(name, name): value for name, value in vars(self).items()}
        if not self.early:  # a key that readers before it need not know
            del stored["early"]
        return {"format": FORMAT, "complete": True, **stored}


def records_schema() -> tuple[Any, Any]:
    """Return schema and index of the collection of records, which are looked up by id."""
    fields: dict[str, dict[str, Any]] = {
        "id": {"dtype": "VARCHAR", "is_primary": True, "max_length": 200},
        "version": {"dtype": "INT64"},
        "text": {"dtype": "VARCHAR", "max_length": TEXT_BYTES},
        "vector": {"dtype": "FLOAT_VECTOR", "dim": 2},  # every collection needs one
    }
    return _schema(fields, "FLAT")


def rows_schema(dim: int, index_type: str, *, early: bool = False) -> tuple[Any, Any]:
    """Return schema and index of a collection of rows."""
    from simsearch.cluster.milvus.early import early_fields

    fields: dict[str, dict[str, Any]] = {
        "id": {"dtype": "INT64", "is_primary": True},
        **{key: {"dtype": "INT64"} for key in ("row", "key", "digest")},
        **{key: {"dtype": "VARCHAR", "max_length": TEXT_BYTES} for key in (PAYLOAD, FILTER_TOKENS)},
        **{key: {"dtype": "DOUBLE", "nullable": True} for key in NUMBER_FIELDS},
        "vector": {"dtype": "FLOAT_VECTOR", "dim": dim},
    }
    return _schema(early_fields(fields) if early else fields, index_type)


def _schema(fields: Mapping[str, Mapping[str, Any]], index_type: str) -> tuple[Any, Any]:
    """Return a schema of fields with options each, and the index of the field of vectors."""
    from pymilvus import CollectionSchema, DataType, FieldSchema, MilvusClient

    def typed(options: Mapping[str, Any]) -> dict[str, Any]:
        kinds = {key: DataType[options[key]] for key in ("dtype", "element_type") if key in options}
        return {**options, **kinds}

    index = MilvusClient.prepare_index_params(
        "vector",
        index_type=index_type,
        metric_type="COSINE",
        params=INDEX_PARAMETERS[index_type],
    )
    named = [FieldSchema(name, **typed(options)) for name, options in fields.items()]
    return CollectionSchema(named, auto_id=False, enable_dynamic_field=False), index
