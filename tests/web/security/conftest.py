"""Fixtures of these tests, from `tests/support/attack.py`."""

from attack import internet, library, locked, open_server, site  # noqa: F401
