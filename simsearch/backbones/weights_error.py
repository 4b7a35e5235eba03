"""Words of the error of weights that do not fit."""

from __future__ import annotations

import pickle
import textwrap
from typing import TYPE_CHECKING

from simsearch.errors import WeightsError

if TYPE_CHECKING:
    from pathlib import Path


def weights_error(file: Path, network: str, error: Exception) -> WeightsError:
    """Return the error of a file that does not hold the weights of a network."""
    unsafe = isinstance(error, pickle.UnpicklingError)  # whose message says how to run it
    reason = "it is not made of tensors alone" if unsafe else textwrap.shorten(str(error), 200)
    return WeightsError(
        f"{file} does not hold weights for {network}: {reason}; give a state "
        "dict of this architecture, or delete a damaged file to have it fetched again"
    )
