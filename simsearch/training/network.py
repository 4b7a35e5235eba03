"""The head while it learns: standardisation, linear layers, and the kept principal axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simsearch.backbones.heads import ProjectionHead
from simsearch.library.library import ImageLibrary

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray

    from simsearch.backbones.heads import Layer
from simsearch.training.config import TrainConfig

SAMPLE_ROWS = 20_000  # rows that tell the mean, the spread and the principal axes


SCALE_FLOOR = 0.05  # of the mean spread, added to each: a feature that hardly varies stays small


class HeadNetwork:
    """The learning part of a `ProjectionHead`, and the standardisation before it."""

    def __init__(self, library: ImageLibrary, rows: NDArray[np.intp], config: TrainConfig) -> None:
        sample = np.random.default_rng(config.seed).permutation(rows)[:SAMPLE_ROWS]
        rows = np.asarray(library.embeddings[np.sort(sample)])
        self.mean, spread = rows.mean(axis=0), rows.std(axis=0)
        self.scale = spread + max(SCALE_FLOOR * spread.mean(), np.finfo(np.float32).tiny)
        self.keep, self.kept = config.keep, None
        if config.keep:
            self.kept = _principal(rows - self.mean, self.mean, config.dim // 2)
        self.dim = config.dim - (len(self.kept[0]) if self.kept else 0)
        self.module = _layers([library.dim, config.hidden, self.dim], config.dropout)
        self.parameters = self.module.parameters

    def __call__(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Map (B, D) embeddings to (B, dim) of unit norm."""
        import torch

        mean, scale = (torch.from_numpy(x).to(embeddings.device) for x in (self.mean, self.scale))
        return torch.nn.functional.normalize(self.module((embeddings - mean) / scale))

    def head(self, source: str = "") -> ProjectionHead:
        """Fold the standardisation into the first layer."""
        from torch import nn

        linear = [x for x in self.module if isinstance(x, nn.Linear)]
        layers = [
            (x.weight.detach().cpu().numpy().copy(), x.bias.detach().cpu().numpy().copy())
            for x in linear
        ]
        weight, bias = layers[0]
        layers[0] = weight / self.scale, bias - (weight / self.scale) @ self.mean
        return ProjectionHead(layers, source, self.kept, self.keep)


def _layers(widths: Sequence[int | None], dropout: float) -> torch.nn.Sequential:
    """Make linear layers with ReLU and dropout between them; a width of None is no layer."""
    from torch import nn

    sizes = [width for width in widths if width]
    layers: list[nn.Module] = []
    for i, width in enumerate(sizes[1:]):
        layers += [nn.ReLU()] if i else []
        layers += [nn.Dropout(dropout), nn.Linear(sizes[i], width)]
    return nn.Sequential(*layers)


def _principal(centred: NDArray[np.float32], mean: NDArray[np.float32], dim: int) -> Layer:
    """Make the layer that centres and rotates onto the widest directions."""
    _, axes = np.linalg.eigh(centred.T.astype(np.float64) @ centred)
    weight = axes.T[::-1][:dim].astype(np.float32)  # (dim, D)
    return weight, -weight @ mean
