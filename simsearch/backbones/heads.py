"""Heads: maps from a backbone's embeddings to better ones, applied with numpy alone.

Saved as safetensors, which cannot run code. No training, no PyTorch and no library here.
"""

from __future__ import annotations

import hashlib
import json
import os
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from simsearch import registry
from simsearch.errors import LibraryError
from simsearch.files import atomic_write, iter_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any, ClassVar, Self, TypeAlias

    from numpy.typing import NDArray


BLOCK_ROWS = 4096  # mapped at once


class Head(ABC):
    """A map from embeddings to embeddings.

    A subclass names its `kind`, by which `load_head` finds it. It maps single embeddings
    (`__call__`); one that also depends on a library's other rows overrides `rows` and `query`
    and sets `whole`.

    Attributes
    ----------
    kind : str
        Name of the class in a saved file.
    whole : bool
        Whether a row depends on the other rows of the library. Such a head is the last one of a
        library, and a library with it cannot grow by single images.
    source : str
        Fingerprint of what made the embeddings that it takes; "" if that is not known.
    dim_in, dim : int
        Width of the embeddings that it takes, and of those that it gives.
    """

    kind: ClassVar[str]
    whole: ClassVar[bool] = False
    source: str
    dim_in: int
    dim: int

    @property
    def reach(self) -> int:
        """How many of the nearest rows `query` depends on; 0 for none."""
        return 0

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        _CLASSES[cls.kind] = cls

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.dim_in} -> {self.dim}, {self.fingerprint})"

    @abstractmethod
    def __call__(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map embeddings, each one independently.

        Parameters
        ----------
        embeddings
            (N, dim_in) float32, rows of unit L2 norm.

        Returns
        -------
        numpy.ndarray
            (N, dim) float32, C order, rows of unit L2 norm.
        """

    def rows(self, embeddings: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        """Map all rows of a library, in order, as (n, dim) blocks."""
        for block in iter_blocks(len(embeddings), BLOCK_ROWS):
            yield self(np.asarray(embeddings[block]))

    def query(
        self,
        embeddings: NDArray[np.float32],
        gallery: NDArray[np.float32],  # noqa: ARG002 (for subclasses)
    ) -> NDArray[np.float32]:
        """Map new queries: (Q, dim_in) to (Q, dim).

        Parameters
        ----------
        embeddings
            (Q, dim_in) float32, rows of unit L2 norm.
        gallery
            (N, dim) float32, the library's rows, as this head has mapped them.
        """
        return self(embeddings)

    @abstractmethod
    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all parameters by name, as `from_arrays` takes them."""

    @classmethod
    @abstractmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], source: str) -> Self:
        """Make a head from its arrays; a KeyError or ValueError where they do not fit."""

    @cached_property
    def fingerprint(self) -> str:
        """Digest of kind, source and parameters (16 hex digits)."""
        digest = hashlib.sha256(f"{self.kind} {self.source}".encode())
        for name, array in sorted(self.arrays().items()):
            digest.update(f"{name} {array.shape} {array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:16]


_CLASSES: dict[str, type[Head]] = {}  # by kind; users' subclasses, too


def _head_class(kind: str) -> type[Head]:
    """Return the class of a saved head; a KeyError if the kind is unknown."""
    if kind not in _CLASSES and kind in registry.PATHS["head"]:
        registry.resolve("head", kind)  # importing the module adds the class
    return _CLASSES[kind]


Layer: TypeAlias = "tuple[NDArray[Any], NDArray[Any]]"
"""Weight (D_out, D_in) and bias (D_out,), as `torch.nn.Linear` has them."""


class ProjectionHead(Head):
    """Linear layers with ReLUs between them, beside a part kept from the backbone.

    An embedding is both parts concatenated, each of unit norm before it is weighted, so that the
    cosine of two images is keep × the cosine of their kept parts + (1 - keep) × the cosine of
    their projected parts.

    Parameters
    ----------
    layers
        One or more, each taking the output of the one before it.
    source
        Fingerprint of what made the embeddings that it takes.
    kept
        The layer that makes the kept part, such as a rotation onto principal axes.
    keep
        Weight of the kept part, in [0, 1).

    Raises
    ------
    ValueError
        If the layers do not fit each other.

    Examples
    --------
    >>> swap = ProjectionHead([(np.array([[0.0, 2.0], [1.0, 0.0]]), np.zeros(2))])
    >>> swap(np.array([[0.8, 0.6]], np.float32)).round(3)
    array([[0.832, 0.555]], dtype=float32)
    """

    kind = "projection"

    def __init__(
        self,
        layers: Sequence[Layer],
        source: str = "",
        kept: Layer | None = None,
        keep: float = 0.0,
    ) -> None:
        self.layers = [_layer(layer) for layer in layers]
        self.kept = _layer(kept) if kept else None
        self.keep, self.source = float(keep), source
        self.dim_in = self.layers[0][0].shape[1]
        self.dim = len(self.layers[-1][0]) + (len(self.kept[0]) if self.kept else 0)
        inputs, outputs = zip(*(weight.shape[::-1] for weight, _ in self.layers), strict=True)
        if inputs[1:] != outputs[:-1] or (self.kept and self.kept[0].shape[1] != self.dim_in):
            raise ValueError(f"layers that take {inputs} and give {outputs} do not fit together")
        if not 0 <= keep < 1 or (keep > 0) != (self.kept is not None):
            raise ValueError(f"keep={keep} needs a kept layer, and lies between 0 and 1")

    def __call__(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map embeddings: (N, dim_in) to (N, dim)."""
        *hidden, last = self.layers
        activations = embeddings
        for layer in hidden:
            activations = np.maximum(_linear(activations, layer), 0)
        learned = unit(_linear(activations, last))
        if not self.kept:
            return learned
        kept = unit(_linear(embeddings, self.kept))
        parts = [np.float32(self.keep) ** 0.5 * kept, np.float32(1 - self.keep) ** 0.5 * learned]
        return unit(np.hstack(parts).astype(np.float32))

    def keeping(self, keep: float) -> Self:
        """Return the same head with another weight of the kept part, in (0, 1)."""
        return type(self)(self.layers, self.source, self.kept, keep)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return `keep`, `weight0`, `bias0`, `weight1`, ..., `weight_kept` and `bias_kept`."""
        layers = {str(i): layer for i, layer in enumerate(self.layers)}
        layers |= {"_kept": self.kept} if self.kept else {}
        arrays = {"keep": np.array([self.keep])}
        for name, (weight, bias) in layers.items():
            arrays |= {f"weight{name}": weight, f"bias{name}": bias}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], source: str) -> Self:
        """Make a head from `arrays()`."""
        pairs = {
            name.removeprefix("weight"): (array, arrays[name.replace("weight", "bias")])
            for name, array in arrays.items()
            if name.startswith("weight")
        }
        kept = pairs.pop("_kept", None)
        return cls([pairs[str(i)] for i in range(len(pairs))], source, kept, arrays["keep"].item())


def _linear(rows: NDArray[np.float32], layer: Layer) -> NDArray[np.float32]:
    weight, bias = layer
    return np.asarray(rows @ weight.T + bias)


def _layer(layer: Layer) -> Layer:
    """Return a layer as float32 arrays in C order, checked."""
    weight, bias = (np.ascontiguousarray(part, np.float32) for part in layer)
    if weight.ndim != 2 or bias.shape != weight.shape[:1]:
        raise ValueError(f"a weight of shape {weight.shape} and a bias of shape {bias.shape}")
    return weight, bias


class HeadChain(Head):
    """Heads one after another, such as a trained one and then a query expansion.

    Only the last may depend on a library's other rows: those between the heads are not kept.

    Raises
    ------
    LibraryError
        If a head before the last does.
    """

    kind = "chain"

    def __init__(self, heads: Sequence[Head]) -> None:
        self.heads = list(heads)
        for head, after in zip(self.heads, self.heads[1:], strict=False):
            if head.whole:
                raise LibraryError(
                    f"{after!r} cannot follow {head!r}, which needs the library's rows: apply "
                    "that one last"
                )
        self.source, self.dim_in = self.heads[0].source, self.heads[0].dim_in
        self.dim = self.heads[-1].dim
        self.whole = self.heads[-1].whole  # type: ignore[misc]

    @property
    def reach(self) -> int:
        """How many of the nearest rows the last head depends on."""
        return self.heads[-1].reach

    def __call__(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map embeddings through all heads."""
        for head in self.heads:
            embeddings = head(embeddings)
        return embeddings

    def query(
        self, embeddings: NDArray[np.float32], gallery: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Map new queries; the last head sees the gallery."""
        for head in self.heads[:-1]:
            embeddings = head(embeddings)
        return self.heads[-1].query(embeddings, gallery)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays of all heads, as `{position}.{kind}.{name}`."""
        return {
            f"{i}.{head.kind}.{name}": array
            for i, head in enumerate(self.heads)
            for name, array in head.arrays().items()
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], source: str) -> Self:
        """Make the heads from `arrays()`; the source of each is the head before it."""
        by_head: dict[tuple[int, str], dict[str, NDArray[Any]]] = {}
        for key, array in arrays.items():
            position, kind, name = key.split(".", 2)
            by_head.setdefault((int(position), kind), {})[name] = array
        heads: list[Head] = []
        for (_, kind), parts in sorted(by_head.items()):
            heads.append(_head_class(kind).from_arrays(parts, source))
            source = heads[-1].fingerprint
        return cls(heads)


def chain(first: Head | None, then: Head) -> Head:
    """Return the head that applies one head after another."""
    if first is None:
        return then
    before = first.heads if isinstance(first, HeadChain) else [first]
    after = then.heads if isinstance(then, HeadChain) else [then]
    return HeadChain(before + after)


def unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Divide each row by its L2 norm; a row of zeros becomes NaN."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def save_head(head: Head, file: str | os.PathLike[str]) -> None:
    """Write a head as a safetensors file, atomically."""
    with atomic_write(Path(file)) as stream:
        stream.write(head_bytes(head))


def head_bytes(head: Head) -> bytes:
    """Return the contents of a head's file."""
    from safetensors.numpy import save

    metadata = {"kind": head.kind, "source": head.source, "fingerprint": head.fingerprint}
    arrays = {name: np.ascontiguousarray(array) for name, array in head.arrays().items()}
    return save(arrays, {"simsearch": json.dumps(metadata)})


def load_head(file: str | os.PathLike[str]) -> Head:
    """Load a head of any kind.

    Raises
    ------
    LibraryError
        If the file is missing or damaged, or of a kind that this version does not know.
    """
    try:
        return read_head(file)
    except (OSError, ValueError) as error:
        raise LibraryError(f"{os.fspath(file)!r} holds no head: {error}; train it again") from error


def read_head(file: str | os.PathLike[str]) -> Head:
    """Load a head; an OSError or a ValueError where that fails."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(os.fspath(file), framework="numpy") as stored:
            metadata = json.loads((stored.metadata() or {})["simsearch"])
            arrays = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        head = _head_class(metadata["kind"]).from_arrays(arrays, metadata["source"])
    except (SafetensorError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"not a head that this version knows ({error!r})") from error
    if head.fingerprint != metadata["fingerprint"]:
        raise ValueError("its contents are not what its fingerprint says")
    return head
