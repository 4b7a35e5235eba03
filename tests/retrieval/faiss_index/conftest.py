"""Fixtures of these tests, from `tests/support/faiss_cases.py`."""

import pytest

pytest.importorskip("faiss")

from faiss_cases import folder, index, indexes, library, no_scan, one_thread, queries, stored  # noqa: F401
