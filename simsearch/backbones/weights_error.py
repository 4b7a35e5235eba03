"""Words of the errors of weights that do not fit."""

from __future__ import annotations

import pickle
import textwrap
from typing import TYPE_CHECKING

from simsearch.errors import BackboneError, WeightsError

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


def changed_error(name: str, found: str, fingerprint: str) -> BackboneError:
    """Return the error of weights whose fingerprint is another than that of a library."""
    return BackboneError(
        f"the weights of {name} have changed since the library was made "
        f"({found}, not {fingerprint}): embed the dataset again"
    )
