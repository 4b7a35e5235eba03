"""Fixtures of these tests, from `tests/support/milvus_cases.py` and `milvus_server.py`."""

from milvus_cases import library, remote, time_limit  # noqa: F401
from milvus_server import milvus_server  # noqa: F401
