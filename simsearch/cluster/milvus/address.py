"""Addresses of published collections; what reads them is loaded on use."""

from __future__ import annotations

from pathlib import Path


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
