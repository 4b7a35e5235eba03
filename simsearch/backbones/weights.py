"""Weights of backbones, loaded from state dicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
        from simsearch.backbones.weights_error import weights_error

        raise weights_error(file, type(module).__name__, error) from error
