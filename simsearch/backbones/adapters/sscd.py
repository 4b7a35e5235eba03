"""SSCD, a network that finds copies: ResNet50, generalised mean pooling, 512 dimensions.

After Pizzi et al., "A self-supervised descriptor for image copy detection", CVPR 2022
(arXiv:2202.10261), whose weights are under the MIT licence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torchvision import models

from simsearch.backbones.spec import ModelSpec
from simsearch.backbones.squash import SquashPreprocessing
from simsearch.backbones.weights import load_weights
from simsearch.backbones.weights_download import fetch_weights

if TYPE_CHECKING:
    from pathlib import Path

URL = "https://dl.fbaipublicfiles.com/sscd-copy-detection/sscd_disc_mixup.torchvision.pt"
DIM, SIDE = 512, 320  # of the descriptor; pixels of the input, into which pictures are squeezed


class GemPool(torch.nn.Module):
    """Generalised mean over the positions of a map, (B, C, H, W) to (B, C, 1, 1)."""

    power, smallest = 3.0, 1e-6

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Pool a map."""
        powers = maps.clamp(min=self.smallest).pow(self.power)
        return powers.mean(dim=(2, 3), keepdim=True).pow(1 / self.power)


class SscdNetwork(torch.nn.Module):
    """The network, with the parameters' names of the published weights."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = models.resnet50(num_classes=DIM)
        self.backbone.avgpool = GemPool()

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Embed a batch, (B, 3, H, W) to (B, 512)."""
        features: torch.Tensor = self.backbone(batch)
        return features


def sscd_network(name: str, file: Path | None) -> ModelSpec:
    """Adapt `sscd_disc_mixup`, the network that its authors recommend.

    Raises
    ------
    WeightsError
        If the weights cannot be fetched, or do not fit.
    """
    module = SscdNetwork()
    load_weights(module, file or fetch_weights(URL))
    preprocessing = SquashPreprocessing(SIDE, SIDE, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return ModelSpec(name, str(file or URL.rpartition("/")[2]), module, preprocessing)
