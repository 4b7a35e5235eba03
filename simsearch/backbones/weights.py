"""Weights of backbones, loaded from state dicts."""

from __future__ import annotations

import pickle
import textwrap
from typing import TYPE_CHECKING

from simsearch.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    import torch


def load_weights(module: torch.nn.Module, file: Path, ignore: str | tuple[str, ...] = ()) -> None:
    """Load a state dict into a module, without the entries of the classifier that was cut."""
    import torch

    prefixes = tuple(f"{key}." for key in ([ignore] if isinstance(ignore, str) else ignore))
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Mapping[str, Any] = load_file(file)
        else:  # weights_only: a pickle could run code
            state = torch.load(file, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state)
        state = {key.removeprefix("module."): value for key, value in state.items()}
        module.load_state_dict({k: v for k, v in state.items() if not k.startswith(prefixes)})
    except Exception as error:  # torch, pickle, zip and safetensors each raise their own
        unsafe = isinstance(error, pickle.UnpicklingError)  # whose message says how to run it
        reason = "it is not made of tensors alone" if unsafe else textwrap.shorten(str(error), 200)
        raise WeightsError(
            f"{file} does not hold weights for {type(module).__name__}: {reason}; give a state "
            "dict of this architecture, or delete a damaged file to have it fetched again"
        ) from error
