"""Addresses of published collections, on Milvus or in LanceDB; what reads them is loaded on use."""

from __future__ import annotations

import re
from pathlib import Path

_MILVUS_SCHEME = re.compile(r"(https?|tcp|unix)://", re.IGNORECASE)


def split_address(text: str) -> tuple[str, str] | None:
    """Split ``URI#COLLECTION``; None for the path of a folder.

    Examples
    --------
    >>> split_address("https://milvus.example.org:19530#shop")
    ('https://milvus.example.org:19530', 'shop')
    >>> split_address("outputs")
    """
    uri, mark, collection = text.rpartition("#")
    return (uri, collection) if mark and not Path(text).exists() else None


def is_lance(uri: str) -> bool:
    """Tell whether a database is LanceDB's: `*.lancedb`, a folder of tables, or an object store.

    Milvus Lite keeps its "files" as folders, too, in which no table of LanceDB lies.

    Examples
    --------
    >>> is_lance("images.lancedb"), is_lance("s3://bucket/images")
    (True, True)
    >>> is_lance("images.db"), is_lance("https://milvus.example.org:19530")
    (False, False)
    """
    if "://" in uri:
        return not _MILVUS_SCHEME.match(uri)
    if uri.rstrip("/").endswith(".lancedb"):
        return True
    folder = Path(uri).expanduser()
    return folder.is_dir() and (any(folder.glob("*.lance")) or not any(folder.iterdir()))
