"""Fixtures of the tests of decoding and finding."""

import tempfile
from pathlib import Path

import pytest

from simsearch.images import decode


@pytest.fixture(autouse=True)
def prepared():
    """Register the decoders within each test: pytest undoes their warning filters after it."""
    decode.register_formats.cache_clear()
    decode.register_formats()


@pytest.fixture
def public():
    """A folder that nobody can reach, too (pytest's own are closed to others)."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
