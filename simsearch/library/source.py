"""What made the embeddings of a library, and how new images are embedded in the same way."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING

from simsearch.backbones.backbone import Backbone

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    import numpy as np
    from numpy.typing import NDArray

    from simsearch.backbones.heads import Head
    from simsearch.images.decode import ImageSource
    from simsearch.library.types import EmbeddingFacts
else:
    EmbeddingFacts = object


@dataclass(frozen=True)
class Source:
    """What made the embeddings of a library, as the manifest records it."""

    backbone: str
    weights: str
    fingerprint: str
    precision: str

    @classmethod
    def of(cls, backbone: Backbone) -> Source:
        """Describe a backbone."""
        return cls(backbone.name, backbone.weights, backbone.fingerprint, backbone.precision)

    @property
    def weights_file(self) -> str | None:
        """Path of the weights, where they are a local file."""
        return self.weights if os.path.isabs(self.weights) else None  # noqa: PTH117

    def beside(self, folder: Path) -> Source:
        """Return the same with the weights that a library carries, if it has moved since."""
        file = folder / PureWindowsPath(self.weights).name  # which knows both separators
        moved = file.is_file() and not Path(self.weights).is_file()
        return replace(self, weights=str(file.resolve())) if moved else self


class EmbeddingSpace(EmbeddingFacts):
    """What a library of files and one on a server have in common: where their embeddings come from.

    Attributes
    ----------
    source : Source or None
        What made the embeddings.
    head : Head or None
        What the backbone's embeddings have passed through since.
    """

    source: Source | None
    head: Head | None
    _backbone: Backbone | str | None

    @property
    def background(self) -> NDArray[np.float32]:
        """The former name of `random_pair_scores`."""
        return self.random_pair_scores

    @property
    def fingerprint(self) -> str:
        """Digest of all that made these embeddings, the backbone and the head; "" if unknown."""
        if self.head:
            return self.head.fingerprint
        return self.source.fingerprint if self.source else ""

    def threshold(self, false_match_rate: float = 1e-3) -> float:
        """Cosine that no more than this share of random pairs of the library reach.

        Two images that have nothing to do with each other then count as a match about that often,
        or less often, since some of the random pairs are alike.

        Raises
        ------
        QueryError
            If the rate is not between 0 and 1, or the library has no pairs.
        """
        from simsearch.library.thresholds import threshold_of

        return threshold_of(self.random_pair_scores, false_match_rate)

    def encode(self, images: Sequence[ImageSource]) -> NDArray[np.float32]:
        """Embed images as the rows of this library were: by the backbone, then the head.

        Parameters
        ----------
        images
            Paths, http(s) URLs, bytes, PIL images or arrays.

        Returns
        -------
        numpy.ndarray
            (Q, D) float32, rows of unit L2 norm.

        Raises
        ------
        ImageError
            If an image cannot be read.
        BackboneError
            If the backbone cannot be loaded, or is not the one that made the library.
        """
        from simsearch.library.recorded import query_encoder

        return self._apply_head(query_encoder(self, self._backbone).encode(images))

    def fits(self, backbone: Backbone) -> bool:
        """Tell whether a backbone is the one that made the embeddings, as far as that is known."""
        dim = self.head.dim_in if self.head else self.dim
        made_by = self.source.fingerprint if self.source else backbone.fingerprint
        return backbone.dim == dim and backbone.fingerprint == made_by

    @property
    def backbone(self) -> Backbone:
        """The backbone that made the embeddings (before the head), loaded at first use.

        Raises
        ------
        BackboneError
            If it is unknown, cannot be loaded, or is not the one that made the library.
        """
        if not (isinstance(self._backbone, Backbone) and self.fits(self._backbone)):
            self._backbone = self._load_backbone()
        if not self.fits(self._backbone):
            from simsearch.library.recorded import unfit

            raise unfit(self, self._backbone)
        self.source = self.source or Source.of(self._backbone)
        return self._backbone

    @property
    def has_backbone(self) -> bool:
        """Whether it is known what embeds new images; it may still have to be loaded."""
        return self._backbone is not None or self.source is not None

    def with_backbone(self, backbone: Backbone | str) -> Self:
        """Return the same library with what made it, loaded or by name; checked at first use."""
        same = copy.copy(self)
        same._backbone = backbone
        return same

    def _load_backbone(self) -> Backbone:
        from simsearch.library.recorded import load_recorded

        return load_recorded(self, self._backbone)
