"""Weights of a network, saved as a safetensors file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from simsearch.files import atomic_write

if TYPE_CHECKING:
    from simsearch.backbones.spec import ModelSpec


def save_weights(network: ModelSpec, file: str | os.PathLike[str]) -> None:
    """Write a network's state dict as safetensors, atomically.

    `load_backbone(network.name, weights=file)` loads it again, unless the module is a user's own.
    """
    import torch
    from safetensors.torch import save

    # Copies: tensors that share memory, or lie channels-last, cannot be written.
    state = {
        key: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, tensor in network.module.state_dict().items()
    }
    with atomic_write(Path(file)) as stream:
        stream.write(save(state))
