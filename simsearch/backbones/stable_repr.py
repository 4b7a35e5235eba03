"""A description of transforms that is the same in every process."""

from __future__ import annotations

import re
from types import CodeType

from simsearch.backbones.preprocessing import Preprocessing, fingerprint_record


def stable_repr(value: object) -> str:
    """Describe a transform, a function's code included, identically in every process.

    A plain `repr` holds a memory address, and says nothing of what a function does.
    """
    if isinstance(value, Preprocessing):
        return fingerprint_record(value)
    if isinstance(value, CodeType):
        constants = [stable_repr(constant) for constant in value.co_consts]
        return f"{value.co_code.hex()} {value.co_names} {constants}"
    if isinstance(value, frozenset):  # whose order differs between processes
        return str(sorted(map(stable_repr, value)))
    if (code := getattr(value, "__code__", None)) is not None:
        held = [cell.cell_contents for cell in getattr(value, "__closure__", None) or ()]
        settings = (getattr(value, "__defaults__", None), held)
        return f"{getattr(value, '__qualname__', '')} {stable_repr(code)} {stable_repr(settings)}"
    return re.sub(r" at 0x[0-9A-Fa-f]+", "", repr(value))
