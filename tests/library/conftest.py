"""Fixtures of these tests, from `tests/support/library_cases.py`."""

from library_cases import folder  # noqa: F401
