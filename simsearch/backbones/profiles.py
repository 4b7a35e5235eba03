"""Backbones by what they are for: "scenes", "products" and "copies", with a fallback."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from simsearch.backbones.spec import build_spec
from simsearch.backbones.weights_download import auto_backbone_name
from simsearch.errors import BackboneError, MissingExtraError, WeightsError

if TYPE_CHECKING:
    from pathlib import Path

    from simsearch.backbones.spec import ModelSpec

logger = logging.getLogger("simsearch")

PROFILES = {
    "scenes": "timm:vit_small_patch14_dinov2.lvd142m@224",
    "products": "timm:vit_base_patch16_siglip_224.v2_webli",
    "copies": "sscd_disc_mixup",
}


def profile(name: str, file: Path | None) -> ModelSpec:
    """Build the network that a profile stands for; without its weights, that of "auto".

    The library records the network that was taken, by its own name.

    Raises
    ------
    BackboneError
        If weights are given, which belong to a network.
    """
    wanted = PROFILES[name]
    if file:
        raise BackboneError(f'weights= goes with the name of a network: backbone="{wanted}"')
    try:
        return build_spec(wanted, None)
    except (WeightsError, MissingExtraError) as error:
        reason = str(error).split(";")[0]
        instead = auto_backbone_name()
        logger.warning("Using %s in place of %s for %r: %s.", instead, wanted, name, reason)
        return build_spec(instead, None)
