"""Fixtures of these tests, from `tests/support/page_cases.py`."""

from contextlib import suppress

import pytest

with suppress(pytest.skip.Exception):  # without a browser's driver each test file skips itself
    from page_cases import browser, console, new_page, other_photos, page, site  # noqa: F401
