"""Fixtures of these tests, from `tests/support/security_cases.py`."""

from security_cases import (  # noqa: F401
    internet,
    library,
    no_request_is_left_counted,
    open_server,
    site,
    token_server,
)
