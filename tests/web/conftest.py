"""Fixtures of these tests, from `tests/support/api_cases.py`."""

from api_cases import client, dataset, library, outputs, table  # noqa: F401
