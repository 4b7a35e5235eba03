"""`ModelSpec`: a network's module, preprocessing and pooling, and the fingerprint of the three."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from simsearch.backbones.preprocessing import Preprocessing, fingerprint_record

if TYPE_CHECKING:
    from typing import Literal

    import torch
    from numpy.typing import NDArray

    from simsearch.backbones.preprocessing import Transform


BUNDLED = "efficientnet_lite0"  # the backbone whose weights an installed package holds
OWN_WEIGHTS = "own"  # label of a user's own module, which cannot be loaded by name


@dataclass(frozen=True)
class ModelSpec:
    """Everything that decides an embedding; each adapter of the registry returns one."""

    name: str
    weights: str  # a label, or the path of a local file
    module: torch.nn.Module
    transform: Preprocessing | Transform
    pooling: Literal["own", "avg"] = "own"  # "avg": the module gives a map, averaged over positions

    @property
    def fingerprint(self) -> str:
        """Digest of the weights, the preprocessing and the pooling (16 hex digits)."""
        if isinstance(self.transform, Preprocessing):
            record = fingerprint_record(self.transform)
        else:
            from simsearch.backbones.stable_repr import stable_repr

            record = stable_repr(self.transform)
        digest = hashlib.sha256(f"{record} {self.pooling}".encode())
        for key, tensor in sorted(self.module.state_dict().items()):
            digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(_bytes(tensor).data)
        return digest.hexdigest()[:16]


def _bytes(tensor: torch.Tensor) -> NDArray[np.uint8]:
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy() if flat.numel() else np.empty(0, np.uint8)


def pool(output: torch.Tensor, pooling: Literal["own", "avg"]) -> torch.Tensor:
    """Average a (B, D, H, W) map over its positions, where the network does not: (B, D)."""
    return output.mean(dim=(2, 3)) if pooling == "avg" else output
