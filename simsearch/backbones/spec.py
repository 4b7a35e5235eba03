"""`ModelSpec`: a network's module, preprocessing and pooling, and the fingerprint of the three."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from types import CodeType
from typing import TYPE_CHECKING

import numpy as np

from simsearch.backbones.preprocessing import Preprocessing, fingerprint_record

if TYPE_CHECKING:
    from typing import Literal

    import torch
    from numpy.typing import NDArray

    from simsearch.backbones.preprocessing import Transform


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
        digest = hashlib.sha256(f"{stable_repr(self.transform)} {self.pooling}".encode())
        for key, tensor in sorted(self.module.state_dict().items()):
            digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(_bytes(tensor).data)
        return digest.hexdigest()[:16]


def _bytes(tensor: torch.Tensor) -> NDArray[np.uint8]:
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy() if flat.numel() else np.empty(0, np.uint8)


def stable_repr(value: object) -> str:
    """Describe a transform, a function's code included, identically in every process.

    A plain `repr` holds a memory address, and says nothing of what a function does.
    """
    if isinstance(value, Preprocessing):
        return fingerprint_record(value)
    if isinstance(value, CodeType):
        constants = [stable_repr(constant) for constant in value.co_consts]
        return f"{value.co_code.hex()} {value.co_names} {constants}"
    if isinstance(value, frozenset):  # whose order differs between processes
        return str(sorted(map(stable_repr, value)))
    if (code := getattr(value, "__code__", None)) is not None:
        held = [cell.cell_contents for cell in getattr(value, "__closure__", None) or ()]
        settings = (getattr(value, "__defaults__", None), held)
        return f"{getattr(value, '__qualname__', '')} {stable_repr(code)} {stable_repr(settings)}"
    return re.sub(r" at 0x[0-9A-Fa-f]+", "", repr(value))


def pool(output: torch.Tensor, pooling: Literal["own", "avg"]) -> torch.Tensor:
    """Average a (B, D, H, W) map over its positions, where the network does not: (B, D)."""
    return output.mean(dim=(2, 3)) if pooling == "avg" else output
