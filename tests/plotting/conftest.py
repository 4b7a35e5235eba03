"""Fixtures of these tests, from `tests/support/figures.py`."""

from figures import evaluation, library, noisy  # noqa: F401
