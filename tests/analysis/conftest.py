"""Fixtures of these tests, from `tests/support/figures.py`."""

from figures import clean, evaluation, library, noisy  # noqa: F401
