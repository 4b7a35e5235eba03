"""The specification of a network: module, preprocessing, pooling, and their fingerprint."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from types import CodeType
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from typing import Literal

    import torch
    from numpy.typing import NDArray

    from simsearch.backbones.preprocessing import Preprocessing, Transform


OWN_WEIGHTS = "own"  # of a module of the user's own, which no name can load again


@dataclass(frozen=True)
class ModelSpec:
    """What an adapter of the registry returns: everything that decides an embedding."""

    name: str
    weights: str  # a label, or the path of a local file
    module: torch.nn.Module
    transform: Preprocessing | Transform
    pooling: Literal["own", "avg"] = "own"  # "avg": the module gives a map, averaged over positions

    @property
    def fingerprint(self) -> str:
        """Digest of the weights, the preprocessing and the pooling (16 hex digits)."""
        digest = hashlib.sha256(f"{_identify(self.transform)} {self.pooling}".encode())
        for key, tensor in sorted(self.module.state_dict().items()):
            digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(_bytes(tensor).data)
        return digest.hexdigest()[:16]


def _bytes(tensor: torch.Tensor) -> NDArray[np.uint8]:
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy() if flat.numel() else np.empty(0, np.uint8)


def _identify(value: object) -> str:
    """Tell one transform from another, alike in every process (a plain repr holds an address)."""
    if isinstance(value, CodeType):
        constants = [_identify(constant) for constant in value.co_consts]
        return f"{value.co_code.hex()} {value.co_names} {constants}"
    if isinstance(value, frozenset):  # whose order is another in each process
        return str(sorted(map(_identify, value)))
    if (code := getattr(value, "__code__", None)) is not None:
        held = [cell.cell_contents for cell in getattr(value, "__closure__", None) or ()]
        settings = (getattr(value, "__defaults__", None), held)
        return f"{getattr(value, '__qualname__', '')} {_identify(code)} {_identify(settings)}"
    return re.sub(r" at 0x[0-9A-Fa-f]+", "", repr(value))


def pool(output: torch.Tensor, pooling: Literal["own", "avg"]) -> torch.Tensor:
    """Average a (B, D, H, W) map over its positions, where the network does not: (B, D)."""
    return output.mean(dim=(2, 3)) if pooling == "avg" else output
