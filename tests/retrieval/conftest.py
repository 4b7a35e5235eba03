"""Fixtures of these tests, from `search_cases` and `pruned_cases` in `tests/support`."""

from pruned_cases import made, small  # noqa: F401
from search_cases import library, matches, shelf, views  # noqa: F401
