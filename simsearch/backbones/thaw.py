"""Networks of backbones to be trained: thawed copies, and their weights saved to files."""

from __future__ import annotations

import copy
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from simsearch.backbones.backbone import SUFFIX
from simsearch.backbones.spec import build_spec
from simsearch.errors import BackboneError
from simsearch.files import atomic_write

if TYPE_CHECKING:
    from simsearch.backbones.backbone import Backbone
    from simsearch.backbones.spec import ModelSpec


def thaw(backbone: Backbone) -> ModelSpec:
    """Return a float32 copy of a network on the processor, as it was before it was frozen.

    Raises
    ------
    BackboneError
        If its weights have changed since the backbone was loaded.
    """
    file = Path(backbone.weights) if os.path.isabs(backbone.weights) else None  # noqa: PTH117
    spec = backbone.own_spec or build_spec(backbone.name, file)
    if spec.fingerprint != backbone.fingerprint.removesuffix(SUFFIX):
        raise BackboneError(
            f"the weights of {backbone.name} ({backbone.weights}) have changed since they were "
            "loaded: load the backbone again, and embed the dataset with it"
        )
    return replace(spec, module=copy.deepcopy(spec.module).cpu().float().eval())


def save_weights(network: ModelSpec, file: Path) -> None:
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
    with atomic_write(file) as stream:
        stream.write(save(state))
