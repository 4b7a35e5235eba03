"""JSON that every reader takes: no Infinity and no NaN, but null; numpy's numbers as numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def plain(value: Any) -> Any:  # noqa: ANN401
    """Return a value with what JSON has for it: None for a number that is not finite.

    Numpy's scalars and arrays become Python's, tuples become lists. What JSON has no form for,
    such as a date, stays as it is.
    """
    if isinstance(value, Mapping):
        return {
            key if isinstance(key, str) else str(key): plain(member)
            for key, member in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [plain(member) for member in value]
    if isinstance(value, (np.datetime64, np.timedelta64)):
        return None if np.isnat(value) else value
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return None if type(value).__name__ in {"NaTType", "NAType"} else value  # of pandas


def dumps(value: Any, indent: int | None = None, **options: Any) -> str:  # noqa: ANN401
    """Write a value as JSON text; what JSON has no form for becomes text, as `str` writes it."""
    return json.dumps(plain(value), indent=indent, allow_nan=False, default=str, **options)
