"""`ModelSpec`, all that decides an embedding; its fingerprint; and its making, by name."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from simsearch import registry
from simsearch.backbones.preprocessing import Preprocessing, fingerprint_record

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Literal

    import torch

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
        import torch

        if isinstance(self.transform, Preprocessing):
            record = fingerprint_record(self.transform)
        else:
            from simsearch.backbones.adapters.own import stable_repr

            record = stable_repr(self.transform)
        digest = hashlib.sha256(f"{record} {self.pooling}".encode())
        for key, tensor in sorted(self.module.state_dict().items()):
            digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}".encode())
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
        return digest.hexdigest()[:16]


def build_spec(name: str, file: Path | None) -> ModelSpec:
    """Build the network of a name, with local weights if given.

    Raises
    ------
    BackboneError
        If the name is unknown.
    WeightsError
        If the weights cannot be loaded, or do not fit.
    MissingExtraError
        If the package of this family is not installed.
    """
    prefix, colon, _ = name.partition(":")
    family = prefix + colon if prefix + colon in registry.PATHS["backbone"] else ""
    spec: ModelSpec = registry.resolve("backbone", family)(name, file)
    return spec


def pool(output: torch.Tensor, pooling: Literal["own", "avg"]) -> torch.Tensor:
    """Average a (B, D, H, W) map over its positions, where the network does not: (B, D)."""
    return output.mean(dim=(2, 3)) if pooling == "avg" else output
