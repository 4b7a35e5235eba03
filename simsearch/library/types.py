"""What can be searched: rows that have a path and an embedding, wherever they lie.

What a library of files and one on a server have in common. Nothing here reads a row.
"""

from __future__ import annotations

import copy
import os
import posixpath
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path, PurePath, PureWindowsPath
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simsearch.backbones.backbone import Backbone, load_backbone
from simsearch.backbones.spec import OWN_WEIGHTS
from simsearch.errors import BackboneError, QueryError
from simsearch.images.remote import is_uri, local_path

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from typing import Any, TypeAlias

    from numpy.typing import NDArray
    from typing_extensions import Self

    from simsearch.backbones.heads import Head


Rows: TypeAlias = "str | Mapping[str, object] | Sequence[bool] | NDArray[Any] | None"
"""What `ImageLibrary.where` takes: a glob, conditions on columns, a mask, row numbers, or None for
every row."""


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


class Searchable(ABC):
    """Images that can be searched.

    Attributes
    ----------
    paths, names, embeddings
        Looked up by row number, or by several at once: the path of an image, the same relative to
        the dataset's root, and its embedding of unit norm, (D,) or (n, D) float32.
    root : str or None
        The dataset's folder, as it was given.
    source : Source or None
        What made the embeddings.
    head : Head or None
        What the backbone's embeddings have passed through since.
    engine
        What ranks its rows, as an `Index` does; None for the scan of all.
    """

    paths: Any
    names: Any
    embeddings: Any
    root: str | None
    source: Source | None
    head: Head | None
    engine: Any = None
    _backbone: Backbone | str | None

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def dim(self) -> int:
        """Width of an embedding."""

    @property
    @abstractmethod
    def background(self) -> NDArray[np.float32]:
        """Cosines of pairs of random images, sorted."""

    @abstractmethod
    def has_row(self, row: int) -> bool:
        """Tell whether there is such a row."""

    @abstractmethod
    def among(self, rows: Rows, without: Collection[int] = ()) -> Any:  # noqa: ANN401
        """Return what the engine takes for a condition; None for all rows."""

    @abstractmethod
    def find(self, path: str | os.PathLike[str]) -> int | None:
        """Row of the image at a path; None if it is not there."""

    @abstractmethod
    def is_current(self, row: int) -> bool:
        """Tell whether the file of a row is still the one that was embedded, or has gone."""

    @abstractmethod
    def facts(self, row: int) -> dict[str, Any]:
        """Return the metadata of an image by column, without what is empty."""

    @abstractmethod
    def caption(self, row: int) -> str:
        """Put the metadata of an image in words; "" without any."""

    @abstractmethod
    def page(self, offset: int = 0, limit: int = 50, where: Rows = None) -> list[int]:
        """Rows of images that meet a condition, in the order of their paths."""

    @abstractmethod
    def count(self, where: Rows = None) -> int:
        """How many images meet a condition."""

    @abstractmethod
    def overview(self) -> Overview:
        """Sum up folders and metadata, for a menu of filters."""

    @abstractmethod
    def through_head(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Pass what the backbone gives, (Q, D) of unit norm, through the head."""

    @property
    def fingerprint(self) -> str:
        """Digest of all that made these embeddings, the backbone and the head; "" if unknown."""
        if self.head:
            return self.head.fingerprint
        return self.source.fingerprint if self.source else ""

    def threshold(self, false_match_rate: float = 1e-3) -> float:
        """Cosine that no more than such a share of random pairs of this library reach.

        Two images that have nothing to do with each other then count as a match about that often,
        or less often, since some pairs of the background are alike.

        Raises
        ------
        QueryError
            If the rate is not between 0 and 1, or the library has no pairs.
        """
        if not 0 < false_match_rate < 1:
            raise QueryError(f"false_match_rate={false_match_rate}: give a share between 0 and 1")
        if not len(self.background):
            raise QueryError("a library of one image has no background; give a cosine")
        place = len(self.background) - 1 - int(false_match_rate * len(self.background))
        return float(np.nextafter(self.background[place], np.float32(2)))

    @property
    def backbone(self) -> Backbone:
        """The backbone that made the embeddings (before the head), loaded at first use.

        Raises
        ------
        BackboneError
            If it is unknown, cannot be loaded, or is not the one that made the library.
        """
        if not isinstance(self._backbone, Backbone):
            self._backbone = self._load_backbone()
        made_by = self.source.fingerprint if self.source else self._backbone.fingerprint
        dim = self.head.dim_in if self.head else self.dim
        if self._backbone.dim != dim or self._backbone.fingerprint != made_by:
            raise BackboneError(
                f"{self._backbone!r} is not what made this library ({dim}-d, {self.source}); "
                "pass the backbone that did, or embed the dataset again"
            )
        return self._backbone

    def with_backbone(self, backbone: Backbone | str) -> Self:
        """Return the same library, whose new queries are embedded by this backbone.

        Parameters
        ----------
        backbone
            The one that made the library, loaded already or by name; it is checked at first use.
        """
        same = copy.copy(self)
        same._backbone = backbone
        return same

    def _load_backbone(self) -> Backbone:
        if self._backbone is not None:
            return load_backbone(self._backbone)
        name = type(self).__name__
        if self.source is None:
            raise BackboneError(
                "this library does not know what made its embeddings: pass backbone= to "
                f"{name}, or query with a row number or an embedding"
            )
        if self.source.weights == OWN_WEIGHTS:
            opened = "ImageLibrary.load(outputs" if name == "ImageLibrary" else f"{name}(uri, name"
            raise BackboneError(
                f"this library was made by {self.source.backbone}, a module of your own: pass it, "
                f"as {opened}, backbone=load_backbone(module, transform=...))"
            )
        return load_backbone(self.source.backbone, self.source.weights_file)

    def _forms(self, path: str | os.PathLike[str]) -> Iterator[str]:
        """Yield the ways in which this library may list a path, the cheapest first."""
        yield as_posix(path)
        folder = self.root or "."
        for resolve in (Path.absolute, os.path.realpath):  # a link may be listed, or its target
            file, root = Path(resolve(Path(path))), Path(resolve(Path(folder)))
            if file.is_relative_to(root):
                yield in_folder(folder, file.relative_to(root).as_posix())
            yield file.as_posix()


def is_unchanged(path: str, stat: Sequence[int] | None) -> bool:
    """Tell whether a file has this size and time still, or has gone, or nobody knows them."""
    if stat is None:
        return True
    try:
        status = Path(local_path(path)).stat()
    except OSError:
        return True
    return (status.st_size, status.st_mtime_ns) == tuple(stat)


def as_root(folder: str | os.PathLike[str]) -> str:
    """Write a dataset's folder as a library records it; an address stays as it is."""
    return str(folder) if is_uri(folder) else Path(folder).expanduser().as_posix()


def in_folder(folder: str, name: str) -> str:
    """Join POSIX paths, with nothing before the name where the folder is the current one.

    Of a chained address, such as `zip://photos::s3://bucket/all.zip`, the first part goes on.
    """
    if folder in ("", "."):
        return name
    inner, chain, outer = folder.partition("::") if is_uri(folder) else (folder, "", "")
    return posixpath.join(inner, name) + chain + outer


def as_posix(path: str | os.PathLike[str]) -> str:
    """Write a path with POSIX separators; an address keeps its two slashes."""
    text = os.fspath(path)
    return text if "://" in text else PurePath(text).as_posix()
