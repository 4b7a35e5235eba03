"""Fixtures of these tests, from `tests/support/faiss_cases.py`."""

from faiss_cases import (  # noqa: F401
    folder,
    index,
    indexes,
    library,
    no_scan,
    one_thread,
    queries,
    stored,
)
