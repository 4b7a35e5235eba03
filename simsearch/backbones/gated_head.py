"""`GatedHead`: a projection head that leaves images alone which are unlike those it was taught."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simsearch.backbones.heads import Layer, ProjectionHead, unit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Self

    from numpy.typing import NDArray


class GatedHead(ProjectionHead):
    """A projection head whose learned part fades where a gate is closed.

    The gate is a number from 0 to 1 for each image, the logistic function of a linear layer: near 1
    for images like those that were trained on. At 1 the embedding is that of `ProjectionHead`; at 0
    it is the kept part alone, so that two such images have the backbone's own cosine, centred.

    Parameters
    ----------
    layers, source, kept, keep
        Those of `ProjectionHead`; there has to be a kept part.
    gate
        Weight (1, dim_in) and bias (1,).

    Raises
    ------
    ValueError
        If the layers do not fit each other.

    Examples
    --------
    >>> one, two = (np.array([row]) for row in ([1.0, 0.0], [0.0, 1.0]))
    >>> none = np.zeros(1)
    >>> head = GatedHead([(one, none)], kept=(two, none), keep=0.5, gate=(99 * one, none - 50))
    >>> head(np.array([[0.8, 0.6], [0.28, 0.96]], np.float32)).round(3)
    array([[0.707, 0.707],
           [1.   , 0.   ]], dtype=float32)
    """

    kind = "gated"

    def __init__(
        self,
        layers: Sequence[Layer],
        source: str = "",
        kept: Layer | None = None,
        keep: float = 0.0,
        *,
        gate: Layer,
    ) -> None:
        super().__init__(layers, source, kept, keep)
        weight, bias = (np.ascontiguousarray(part, np.float32) for part in gate)
        if weight.shape != (1, self.dim_in) or bias.shape != (1,) or self.kept is None:
            raise ValueError(
                f"a gate of {weight.shape} and {bias.shape} needs a kept part, and does not fit "
                f"layers that take {self.dim_in}"
            )
        self.gate: Layer = weight, bias

    def __call__(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map embeddings: (N, dim_in) to (N, dim)."""
        mapped = super().__call__(embeddings)
        mapped[:, self._kept_width :] *= self.openness(embeddings)[:, None]
        return unit(mapped)

    @property
    def _kept_width(self) -> int:
        return self.dim - len(self.layers[-1][0])

    def openness(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return how far the gate is open for each of (N, dim_in) embeddings: (N,) from 0 to 1."""
        weight, bias = self.gate
        logits = np.clip(embeddings @ weight[0] + bias, -60, 60)  # where exp stays finite
        return np.asarray(1 / (1 + np.exp(-logits)), np.float32)

    def keeping(self, keep: float) -> Self:
        """Return the same head with another weight of the kept part, in (0, 1)."""
        return type(self)(self.layers, self.source, self.kept, keep, gate=self.gate)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return those of `ProjectionHead`, `weight_gate` and `bias_gate`."""
        weight, bias = self.gate
        return super().arrays() | {"weight_gate": weight, "bias_gate": bias}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], source: str) -> Self:
        """Make a head from `arrays()`."""
        gate = arrays["weight_gate"], arrays["bias_gate"]
        rest = {name: array for name, array in arrays.items() if not name.endswith("_gate")}
        return cls.gated(ProjectionHead.from_arrays(rest, source), gate)

    @classmethod
    def gated(cls, head: ProjectionHead, gate: Layer) -> Self:
        """Return a head with a gate before its learned part."""
        return cls(head.layers, head.source, head.kept, head.keep, gate=gate)
