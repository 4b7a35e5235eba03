"""Fixtures of these tests, from `tests/support/milvus_cases.py`."""

from milvus_cases import library, remote, time_limit  # noqa: F401
