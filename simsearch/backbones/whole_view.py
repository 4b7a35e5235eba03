"""Whether a backbone is given whole pictures, squeezed into its input, or the middle of them."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from simsearch.backbones.backbone import Backbone
from simsearch.backbones.preprocessing import Preprocessing
from simsearch.backbones.spec import OWN_WEIGHTS
from simsearch.backbones.squash import SquashPreprocessing
from simsearch.errors import SimsearchError

if TYPE_CHECKING:
    from typing import Any


def sees_whole(library: Any) -> bool:  # noqa: ANN401 (any Searchable)
    """Tell whether nothing is known to be cut off long pictures of a library, or of its queries.

    The preprocessing of a network that is loaded says so; otherwise that of its name.
    """
    backbone, source = getattr(library, "_backbone", None), getattr(library, "source", None)
    if isinstance(backbone, Backbone):
        transform = backbone.transform
        return isinstance(transform, SquashPreprocessing) or not isinstance(
            transform, Preprocessing
        )
    if source is None or source.weights == OWN_WEIGHTS:  # a transform of one's own may see all
        return True
    return squeezes(source.backbone)


@lru_cache(maxsize=16)
def squeezes(name: str) -> bool:
    """Tell whether a backbone squeezes pictures, without loading it; True where that is unknown."""
    try:
        if name.startswith("clip:"):
            from simsearch.backbones.adapters.clip import clip_mode

            return clip_mode(name) is SquashPreprocessing
        if name.startswith("timm:"):
            from simsearch.backbones.adapters.timm import timm_mode

            return timm_mode(name) is SquashPreprocessing
    except SimsearchError:  # its package is not installed, or knows it no longer
        return True
    return name == "sscd_disc_mixup"
