"""Types of libraries: what `search` needs of one, wherever its rows lie, and what callers pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Mapping, Sequence
    from typing import Any, Self, TypeAlias

    import numpy as np
    from numpy.typing import NDArray

    from simsearch.backbones.backbone import Backbone
    from simsearch.backbones.heads import Head
    from simsearch.library.source import Source

Rows: TypeAlias = "str | Mapping[str, object] | Sequence[bool] | NDArray[Any] | None"
"""What `ImageLibrary.where` takes: a glob, conditions on columns, a mask, row numbers, or None for
every row."""

Labels: TypeAlias = "str | Sequence[object] | NDArray[Any] | Mapping[str, object]"
"""What `ImageLibrary.label_rows` takes: "folder", a column of the metadata, one label per row, or a
mapping of path to label."""


class RowLookup(Protocol):
    """An array, or what stands for one: looked up by row number, or by several at once."""

    def __getitem__(self, rows: Any, /) -> Any:  # noqa: ANN401
        """Return the value of a row, or an array of the values of several."""


class Searchable(Protocol):
    """What `search` needs of a library: rows that have a path and an embedding of unit norm."""

    @property
    def dim(self) -> int:
        """Width of an embedding."""

    @property
    def paths(self) -> RowLookup:
        """Path of each image."""

    @property
    def embeddings(self) -> RowLookup:
        """Embedding of each image: (D,) or (n, D) float32, rows of unit L2 norm."""

    @property
    def random_pair_scores(self) -> NDArray[np.float32]:
        """Cosines of random pairs of images, sorted."""

    @property
    def index(self) -> Any:  # noqa: ANN401 (an `Index` of the next stage)
        """What ranks its rows; None for the exact search."""

    @property
    def row_lookup(self) -> RowLookup:
        """The embeddings again, read in a way that finds damage of the file that holds them."""

    def __len__(self) -> int:
        """How many images it holds."""

    def has_row(self, row: int) -> bool:
        """Tell whether there is such a row."""

    def find(self, path: str | os.PathLike[str]) -> int | None:
        """Row of the image at a path; None if it is not there."""

    def is_current(self, row: int) -> bool:
        """Tell whether the file of a row is still the one that was embedded, or is gone."""

    def encode(self, images: Sequence[Any]) -> NDArray[np.float32]:
        """Embed images as the rows were: (Q, D) float32, rows of unit L2 norm."""

    def row_filter(self, where: Rows, exclude: Collection[int] = ()) -> Any:  # noqa: ANN401
        """Return the rows that may be found, as its index takes them; None for all."""

    def threshold(self, false_match_rate: float = ...) -> float:
        """Cosine that no more than this share of random pairs reach."""

    def facts(self, row: int) -> dict[str, Any]:
        """Return the metadata of an image by column, without what is empty."""

    def caption(self, row: int) -> str:
        """Put the metadata of an image in words; "" without any."""


class EmbeddingFacts:
    """What the libraries define that share `EmbeddingSpace`, for type checkers alone."""

    @property
    def dim(self) -> int:
        """Width of an embedding."""
        raise NotImplementedError

    @property
    def random_pair_scores(self) -> NDArray[np.float32]:
        """Cosines of random pairs of images, sorted."""
        raise NotImplementedError

    def _apply_head(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Pass what the backbone gives, (Q, D) of unit norm, through the head."""
        raise NotImplementedError


class Browsable(Searchable, Protocol):
    """What a page or a figure needs of a library besides: folders, conditions, the backbone."""

    @property
    def names(self) -> RowLookup:
        """Path of each image relative to the dataset's root."""

    @property
    def root(self) -> str | None:
        """The dataset's folder, as it was given."""

    @property
    def source(self) -> Source | None:
        """What made the embeddings."""

    @property
    def head(self) -> Head | None:
        """What the backbone's embeddings have passed through since."""

    @property
    def backbone(self) -> Backbone:
        """The backbone that made the embeddings, loaded at first use."""

    def with_backbone(self, backbone: Backbone | str) -> Self:
        """Return the same library, whose new queries are embedded by this backbone."""

    def page(self, offset: int = 0, limit: int = 50, where: Rows = None) -> list[int]:
        """Rows of images that meet a condition, in the order of their paths."""

    def count(self, where: Rows = None) -> int:
        """How many images meet a condition."""

    def overview(self) -> Overview:
        """Summarise folders and metadata, for a menu of filters."""


class Overview(NamedTuple):
    """What a menu of filters needs to know of a library.

    Attributes
    ----------
    folders
        Each folder relative to the dataset's root, with how many images lie right in it.
    columns
        Each column of the metadata: `name`, `kind` ("number" or "text"), and `min` and `max`, or
        the up to 100 most frequent `values`.
    """

    folders: list[tuple[str, int]]
    columns: list[dict[str, Any]]
