"""Griffe extension: signatures and docstrings of functions whose options come from a class.

The decorator `accepts` completes them when the module is imported; the source shows `**options`.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import griffe

DECORATOR = "accepts"


class OptionSignatures(griffe.Extension):
    """Replaces what the source says by what `help()` shows."""

    def on_function(self, *, func: griffe.Function, **_: object) -> None:
        """Complete a function that the decorator is on."""
        if any(str(each.value).startswith(f"{DECORATOR}(") for each in func.decorators):
            function = getattr(importlib.import_module(func.module.path), func.name)
            func.docstring = griffe.Docstring(inspect.getdoc(function) or "", parent=func)
            known = {parameter.name: parameter.annotation for parameter in func.parameters}
            func.parameters = griffe.Parameters(
                *(_parameter(p, known) for p in inspect.signature(function).parameters.values())
            )


def _parameter(parameter: inspect.Parameter, known: dict[str, Any]) -> griffe.Parameter:
    default = None if parameter.default is parameter.empty else repr(parameter.default)
    kind = griffe.ParameterKind[parameter.kind.name.lower()]
    return griffe.Parameter(
        parameter.name, annotation=known.get(parameter.name), kind=kind, default=default
    )
