"""Fixtures of the tests of shortened copies, which large libraries have."""

import pytest

from simsearch.retrieval import exact, pruned_copy, pruned_store


@pytest.fixture
def small(monkeypatch):
    """Let small libraries have a copy, as large ones with wide rows have."""
    monkeypatch.setattr(exact, "PRUNED_FROM_BYTES", 0)
    monkeypatch.setattr(pruned_copy, "LEVEL_COLUMNS", (2, 4, 8))
    monkeypatch.setattr(pruned_copy, "MAX_COLUMNS", 16)
    monkeypatch.setattr(exact, "GATHER_ROW_COST", 0.0)


@pytest.fixture
def made(monkeypatch):
    """Libraries whose copy was made from nothing, in order."""
    made, make = [], pruned_store.make_copy
    monkeypatch.setattr(
        pruned_store, "make_copy", lambda library, **kw: made.append(library) or make(library, **kw)
    )
    return made
