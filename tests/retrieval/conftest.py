"""Fixtures of these tests, from `tests/support/search_cases.py`."""

from search_cases import library, matches, shelf, views  # noqa: F401
