"""Words of the error of weights that do not fit."""

from __future__ import annotations

import pickle
import textwrap
from typing import TYPE_CHECKING

from simsearch.errors import WeightsError

if TYPE_CHECKING:
    from pathlib import Path

    import torch


def weights_error(file: Path, module: torch.nn.Module, error: Exception) -> WeightsError:
    """Return the error of a file that does not hold a module's weights."""
    unsafe = isinstance(error, pickle.UnpicklingError)  # whose message says how to run it
    reason = "it is not made of tensors alone" if unsafe else textwrap.shorten(str(error), 200)
    return WeightsError(
        f"{file} does not hold weights for {type(module).__name__}: {reason}; give a state "
        "dict of this architecture, or delete a damaged file to have it fetched again"
    )
