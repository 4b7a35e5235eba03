"""An image library: embeddings, paths, labels and metadata of a dataset, and how it is derived.

Nothing here opens an image.
"""

from __future__ import annotations

import copy
import math
import os
import posixpath
import statistics
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from simsearch.backbones.backbone import Backbone
from simsearch.backbones.heads import chain, read_head
from simsearch.errors import BackboneError, LibraryError, QueryError
from simsearch.library.files import (
    EMBEDDINGS,
    HEAD,
    PATHS,
    STATS,
    open_array,
    open_file,
    read_manifest,
    replace_library,
    unfit_library,
    writing,
)
from simsearch.library.metadata import align, caption, matching, read_table, summary
from simsearch.library.types import (
    Overview,
    Searchable,
    Source,
    as_posix,
    as_root,
    in_folder,
    is_unchanged,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from typing import Any, TypeAlias

    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    from simsearch.backbones.heads import Head
    from simsearch.library.types import Rows


Labels: TypeAlias = "str | Sequence[object] | NDArray[Any] | Mapping[str, object]"
"""What `ImageLibrary.label_rows` takes: "folder", a column of the metadata, a label a row, or a
mapping of path to label."""

_SAMPLE = 512  # rows whose pairs tell what a score means; 130,816 pairs
_BLOCK = 4096  # rows that are looked at together
_ROUNDING = 1e-5  # by which the norm of a float32 unit row may be off


class ImageLibrary(Searchable):
    """Embeddings and the paths of their images, ready to be searched.

    Parameters
    ----------
    embeddings
        (N, D) floats, one row an image; rows that are not of unit L2 norm are normalised.
    paths
        N paths, as a reader would open them.
    backbone
        What made the embeddings, a `Backbone` or a name; needed only to embed new queries.

    Attributes
    ----------
    embeddings : numpy.ndarray
        (N, D) float32, C order, rows of unit L2 norm; memory-mapped where it comes from a file.
    paths : numpy.ndarray
        (N,) unicode, POSIX separators.
    stats : numpy.ndarray or None
        (N, 2) int64, the size in bytes and the modification time in ns of each file when it was
        embedded.
    root : str or None
        The dataset's folder, as it was given.
    source : Source or None
        What made the embeddings, for a library that was loaded from its files.
    head : Head or None
        What the backbone's embeddings have passed through since; see `with_head`.
    metadata : pandas.DataFrame or None
        A line a row; see `attach`.

    Raises
    ------
    LibraryError
        If the two do not belong together, or a row has no direction.

    Examples
    --------
    >>> ImageLibrary([[3.0, 4.0], [0.0, 1.0]], ["a.jpg", "b.jpg"]).embeddings
    array([[0.6, 0.8],
           [0. , 1. ]], dtype=float32)
    """

    def __init__(
        self,
        embeddings: ArrayLike,
        paths: Sequence[str | os.PathLike[str]] | NDArray[Any],
        backbone: Backbone | str | None = None,
    ) -> None:
        self.embeddings = _unit_rows(embeddings)
        self.paths: NDArray[np.str_] = np.array([as_posix(path) for path in paths], "U")
        if len(self.paths) != len(self.embeddings):
            raise LibraryError(
                f"{len(self.embeddings)} embeddings and {len(self.paths)} paths do not belong "
                "together; give one path a row"
            )
        self.stats: NDArray[np.int64] | None = None
        self.root: str | None = None
        self.source = Source.of(backbone) if isinstance(backbone, Backbone) else None
        self.head: Head | None = None
        self.metadata: pd.DataFrame | None = None
        self._backbone = backbone
        self._origin: tuple[NDArray[np.float32], Path, str] | None = None

    @classmethod
    def load(
        cls,
        outputs: str | os.PathLike[str] = "outputs",
        root: str | os.PathLike[str] | None = None,
        backbone: Backbone | str | None = None,
    ) -> ImageLibrary:
        """Open a library that `embed_dataset` has made.

        Parameters
        ----------
        outputs
            The folder that holds the library.
        root
            Where the dataset lies now, if it has moved.
        backbone
            The backbone that made the library, if it was a module of your own.

        Raises
        ------
        LibraryError
            If files are missing, damaged, or do not belong together.
        """
        folder = Path(outputs).expanduser()
        while True:
            manifest = read_manifest(folder)
            try:
                library = cls._open(folder, manifest, backbone)
            except (KeyError, TypeError) as error:
                raise unfit_library(folder, f"manifest.json is incomplete ({error!r})") from error
            except LibraryError:
                if read_manifest(folder) == manifest:
                    raise
            else:
                if read_manifest(folder) == manifest:
                    return library if root is None else library._moved_to(root)
            # Otherwise a writer has just put the next library in place: open that one.

    @classmethod
    def _open(
        cls, folder: Path, manifest: dict[str, Any], backbone: Backbone | str | None
    ) -> ImageLibrary:
        library = cls.__new__(cls)
        library.embeddings = open_array(folder, EMBEDDINGS, manifest, mapped=True)
        library.paths = open_array(folder, PATHS, manifest)
        library.stats = open_array(folder, STATS, manifest) if STATS in manifest["files"] else None
        library.root = manifest["root"]
        source = manifest["source"]
        library.source = Source(**source).beside(folder) if source else None
        library.head = open_file(folder, HEAD, manifest, read_head) if manifest["head"] else None
        library.metadata = None
        library._backbone = backbone
        digest = manifest["files"][EMBEDDINGS]["sha256"]
        library._origin = library.embeddings, folder.absolute(), digest
        if library.embeddings.shape != (manifest["rows"], manifest["dim"]) or len(
            library.paths
        ) != len(library.embeddings):
            raise unfit_library(folder, "its two arrays are of different lengths")
        if library.head and (
            library.head.fingerprint != manifest["head"] or library.head.dim != library.dim
        ):
            raise unfit_library(folder, f"{HEAD} is not the head that its rows have passed through")
        return library

    def _moved_to(self, root: str | os.PathLike[str]) -> ImageLibrary:
        """Point every path at the dataset's new place."""
        prefix = as_root(root)
        self.paths = np.array([in_folder(prefix, name) for name in self.names], "U")
        self.root = prefix
        return self

    def save(self, outputs: str | os.PathLike[str]) -> None:
        """Write this library's files into a folder, in place of the library that is there.

        Raises
        ------
        LibraryError
            If the disk is full or refuses; the library that was there is then untouched.
        LibraryBusyError
            If another process is writing there.
        """
        with writing(outputs) as folder:
            blocks = (self.embeddings[i : i + _BLOCK] for i in range(0, len(self), _BLOCK))
            replace_library(
                folder,
                blocks,
                self.paths,
                stats=self.stats,
                root=self.root,
                source=self.source,
                head=self.head,
            )

    def with_head(self, head: Head) -> ImageLibrary:
        """Derive a library whose embeddings have passed through a head; no image is decoded.

        New queries pass through the library's backbone and then the same head. A library that
        has a head already keeps it: the new one comes after it.

        Parameters
        ----------
        head
            From `train_head`, `load_head`, or another library.

        Returns
        -------
        ImageLibrary
            The same images, with (N, head.dim) embeddings in memory.

        Raises
        ------
        BackboneError
            If the head was made for other embeddings than these.
        LibraryError
            If the head gives a row no direction, or cannot come after the one that is there.

        Examples
        --------
        >>> from simsearch.heads import ProjectionHead
        >>> library = ImageLibrary([[0.6, 0.8]], ["a.jpg"])
        >>> head = ProjectionHead([(np.diag([4.0, 3.0]), np.zeros(2))])
        >>> library.with_head(head).embeddings.round(3)
        array([[0.707, 0.707]], dtype=float32)
        """
        if head.dim_in != self.dim or (
            head.source and self.fingerprint and head.source != self.fingerprint
        ):
            raise BackboneError(
                f"{head!r} takes {head.dim_in}-d embeddings of {head.source or 'any'}, and these "
                f"are {self.dim}-d, of {self.fingerprint or 'unknown origin'}: use the library "
                "that it was trained on, or train one on this library; a fine-tuned one comes with "
                "its backbone, by trained.apply(library, outputs)"
            )
        derived = copy.copy(self)
        derived.__dict__.pop("background", None)  # of the rows as they were
        derived.head = chain(self.head, head)
        embeddings = np.empty((len(self), head.dim), np.float32)
        start = 0
        for block in head.rows(self.embeddings):
            embeddings[start : start + len(block)] = block
            start += len(block)
        derived.embeddings = _unit_rows(embeddings)
        return derived

    @property
    def stored(self) -> tuple[Path, str] | None:
        """Folder and digest of the file that holds these embeddings; None if they came otherwise.

        A derived library is a copy of its parent with other embeddings: the file is not theirs.
        """
        if self._origin is None or self._origin[0] is not self.embeddings:
            return None
        return self._origin[1:]

    def __len__(self) -> int:
        return len(self.embeddings)

    def __repr__(self) -> str:
        made_by = f", made by {self.source.backbone}" if self.source else ""
        made_by += f" with {self.head!r}" if self.head else ""
        return f"ImageLibrary({len(self):,} images, {self.dim}-d{made_by})"

    def describe(self) -> str:
        """Say in a few lines what the library holds and what made it."""
        counts = Counter(self.folders.tolist())
        lines = [f"{len(self):,} images, {self.dim}-d embeddings"]
        if self.source:
            made_by = self.source
            lines += [
                f"backbone   {made_by.backbone} ({made_by.weights}, {made_by.precision})",
                f"made from  {self.root}",
            ]
        lines += [f"head       {self.head!r}"] if self.head else []
        lines += [f"{count:>9,}  {folder}" for folder, count in sorted(counts.items())]
        return "\n".join(lines)

    @property
    def dim(self) -> int:
        """Width of an embedding."""
        return int(self.embeddings.shape[1])

    @cached_property
    def names(self) -> list[str]:
        """Path of each image relative to the dataset's root."""
        if self.root is None:
            return list(self.paths.tolist())
        before, after = map(len, in_folder(self.root, "\0").split("\0"))
        return [path[before : len(path) - after] for path in self.paths.tolist()]

    @cached_property
    def folders(self) -> NDArray[np.str_]:
        """Folder of each image relative to the dataset's root: (N,) unicode, "." for the root."""
        return np.array([posixpath.dirname(name) or "." for name in self.names], "U")

    @cached_property
    def labels(self) -> NDArray[np.str_]:
        """Name of the last folder of each image: (N,) unicode, "" where that names no class.

        Beside `seg_train/forest` and its like, the images right in `seg_pred` are those without a
        class: a folder less deep than is usual names none.
        """
        folders, which = np.unique(self.folders, return_inverse=True)
        depths = [folder.count("/") for folder in folders.tolist()]
        usual = statistics.median_high(depths)
        names = [
            "" if folder == "." or depth < usual else posixpath.basename(folder)
            for folder, depth in zip(folders.tolist(), depths, strict=True)
        ]
        return np.array(names, "U")[which]

    def label_rows(self, labels: Labels = "folder") -> NDArray[np.str_]:
        """Label each image.

        Parameters
        ----------
        labels
            "folder" for `labels`; the name of a column of the metadata; one label a row, such as
            a column of a frame; or a mapping of path, whole or relative to the dataset's root, to
            label. None, NaN and "" are no label.

        Returns
        -------
        numpy.ndarray
            (N,) unicode, "" where there is no label.

        Raises
        ------
        QueryError
            If the labels do not fit this library.
        """
        if isinstance(labels, str):
            if labels == "folder":
                return self.labels
            if self.metadata is None or labels not in self.metadata.columns:
                raise QueryError(
                    f'labels={labels!r}: give "folder", a column of the attached metadata, or a '
                    "label for each image"
                )
            column = self.metadata[labels]
            labels = column.astype(object).where(column.notna(), None).tolist()
        if isinstance(labels, Mapping):
            paths = zip(self.paths.tolist(), self.names, strict=True)
            labels = [labels.get(path, labels.get(name)) for path, name in paths]
            if all(label is None for label in labels):
                raise QueryError(f"no key of the labels is an image such as {self.names[0]!r}")
        if len(labels) != len(self):
            raise QueryError(f"{len(labels)} labels for {len(self)} images; give one an image")
        return np.array(["" if _is_missing(label) else str(label) for label in labels], "U")

    def attach(
        self,
        table: pd.DataFrame | str | os.PathLike[str],
        caption: str | Sequence[str] | None = None,
    ) -> ImageLibrary:
        """Attach a table of facts about the images, to filter by (`where`) and to show.

        Parameters
        ----------
        table
            A CSV file (``.tsv`` with tabs) or a pandas frame, with a line an image: a `path`
            column (or index), whole or relative to the dataset's root, and any others, such as
            product id, title, price, tags. Lines of other images are left aside.
        caption
            The column or columns that stand under a match; by default the first two.

        Returns
        -------
        ImageLibrary
            This library. The table is not stored with it.

        Raises
        ------
        QueryError
            If the table cannot be read, or no line is an image of this library.

        Examples
        --------
        >>> import pandas as pd
        >>> library = ImageLibrary([[3.0, 4.0], [0.0, 1.0]], ["a.jpg", "b.jpg"])
        >>> table = pd.DataFrame({"path": ["b.jpg", "a.jpg"], "price": [20, 30]})
        >>> library.attach(table).where({"price": (None, 25)})
        array([False,  True])
        """
        metadata = align(read_table(table), self.paths.tolist(), self.names)
        columns = [caption] if isinstance(caption, str) else caption
        if unknown := set(columns or ()).difference(metadata.columns):
            raise QueryError(
                f"no column {min(unknown)!r} for the caption; there are "
                f"{', '.join(metadata.columns)}"
            )
        self.metadata = metadata
        self._captions = list(metadata.columns[:2] if columns is None else columns)
        return self

    def facts(self, row: int) -> dict[str, Any]:
        """Return the metadata of an image by column, without what is empty."""
        if self.metadata is None:
            return {}
        line = self.metadata.iloc[row].dropna().to_dict()
        return {str(name): getattr(cell, "item", lambda: cell)() for name, cell in line.items()}  # noqa: B023

    @property
    def captions(self) -> list[str]:
        """Columns of the metadata that stand under a match."""
        return [] if self.metadata is None else self._captions

    def caption(self, row: int) -> str:
        """Put the metadata of an image in words; "" without any."""
        return "" if self.metadata is None else caption(self.facts(row), self._captions)

    def _column(self, name: str) -> pd.Series[Any]:
        """Return a column of the metadata; `path` and `folder` are always there."""
        import pandas as pd

        if self.metadata is not None and name in self.metadata.columns:
            return self.metadata[name]
        own = {"path": self.names, "folder": self.folders}
        if name in own:
            return pd.Series(own[name], name=name, dtype=object)
        known = [*own, *(self.metadata.columns if self.metadata is not None else ())]
        raise QueryError(
            f"no column {name!r}; there are {', '.join(known)}"
            + ("" if self.metadata is not None else ": library.attach(table) adds others")
        )

    def where(self, rows: Rows = None) -> NDArray[np.bool_]:
        """Tell which images meet a condition.

        Parameters
        ----------
        rows
            A glob over paths relative to the dataset's root, whose ``*`` also crosses folders
            (``"seg_train/*"``); or conditions on columns of the metadata, all to be met, such as
            ``{"price": (None, 50), "tags": ["red", "blue"], "path": "shoes/*"}``: a tuple is a
            range, a list any of its members, text a glob for a whole cell or one of its tags; or a
            mask of N booleans; or row numbers; or None for all.

        Returns
        -------
        numpy.ndarray
            (N,) bool.

        Raises
        ------
        QueryError
            If there is no such column, or the mask does not fit.
        """
        if rows is None:
            return np.ones(len(self), bool)
        if isinstance(rows, str):
            return np.array([fnmatchcase(name, rows) for name in self.names], bool)
        if isinstance(rows, Mapping):
            met = [self._meets(name, condition) for name, condition in rows.items()]
            return np.all(met, axis=0) if met else self.where()
        return self._mask(np.asarray(rows))

    def _meets(self, name: str, condition: object) -> NDArray[np.bool_]:
        column = self._column(name)
        if name in {"path", "folder"} and isinstance(condition, str):  # as a bare glob is met
            return np.array([fnmatchcase(cell, condition) for cell in column.tolist()], bool)
        return matching(column, condition)

    def among(self, rows: Rows, without: Collection[int] = ()) -> NDArray[np.bool_] | None:
        """Return the mask of rows that may be found, (N,) bool; None for all rows."""
        if rows is None and not without:
            return None
        chosen = self.where(rows).copy()
        chosen[list(without)] = False
        return chosen

    def page(self, offset: int = 0, limit: int = 50, where: Rows = None) -> list[int]:
        """Return the rows of images that meet a condition, in the order of their paths.

        Parameters
        ----------
        offset, limit
            How many to pass over, and how many to return at most.
        where
            As in `where`.
        """
        chosen = self._by_path[self.where(where)[self._by_path]]
        return [int(row) for row in chosen[offset : offset + limit]]

    def count(self, where: Rows = None) -> int:
        """Count the images that meet a condition."""
        return len(self) if where is None else int(np.count_nonzero(self.where(where)))

    def overview(self) -> Overview:
        """Sum up folders and metadata, for a menu of filters."""
        folders = sorted(Counter(self.folders.tolist()).items())
        table = self.metadata
        columns = [] if table is None else [summary(table[name]) for name in table.columns]
        return Overview(folders, columns)

    def select(self, rows: Rows = None) -> NDArray[np.bool_]:
        """Choose images, as `where` does, and at least one.

        Raises
        ------
        QueryError
            If nothing is chosen, there is no such column, or the mask does not fit.
        """
        chosen = self.where(rows)
        if not chosen.any():
            raise QueryError(f"{rows!r} chooses no image; there are such as {self.names[0]!r}")
        return chosen

    def _mask(self, rows: NDArray[Any]) -> NDArray[np.bool_]:
        if rows.dtype == bool and rows.shape == (len(self),):
            return rows
        numbers = rows.ndim == 1 and rows.dtype.kind in "iu"
        if not numbers or not ((rows >= 0) & (rows < len(self))).all():
            raise QueryError(
                f"an array of shape {rows.shape} and dtype {rows.dtype} chooses no rows: give a "
                f"mask of {len(self)} booleans, or row numbers from 0 to {len(self) - 1}"
            )
        chosen = np.zeros(len(self), bool)
        chosen[rows] = True
        return chosen

    @cached_property
    def background(self) -> NDArray[np.float32]:
        """Cosines of pairs of different random images, sorted: what a score has to be held against.

        Every pair among 512 rows drawn with a fixed seed, so up to 130,816 of them; empty for a
        library of one image.
        """
        rng = np.random.default_rng(0)
        rows = np.sort(rng.choice(len(self), min(_SAMPLE, len(self)), replace=False))
        sample = np.asarray(self.embeddings[rows])
        return np.sort((sample @ sample.T)[np.triu_indices(len(rows), k=1)])

    def find(self, path: str | os.PathLike[str]) -> int | None:
        """Row of the image at a path, given in any form that leads to the same file.

        Returns
        -------
        int or None
            None if the library does not hold it.
        """
        with suppress(ValueError):  # a null character, which is in no path
            for form in self._forms(os.path.expanduser(path)):  # noqa: PTH111 (addresses keep "//")
                row = bisect_left(self._by_path, form, key=self.paths.__getitem__)
                if row < len(self) and self.paths[self._by_path[row]] == form:
                    return int(self._by_path[row])
        return None

    @cached_property
    def _by_path(self) -> NDArray[np.intp]:
        """Rows in the order of their paths: quick, since they mostly are in it already."""
        return np.argsort(self.paths, kind="stable")

    def is_current(self, row: int) -> bool:
        """Tell whether the file of a row is still the one that was embedded, or has gone."""
        stat = None if self.stats is None else self.stats[row].tolist()
        return is_unchanged(str(self.paths[row]), stat)

    def has_row(self, row: int) -> bool:
        """Tell whether there is such a row."""
        return 0 <= row < len(self)

    def through_head(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Pass what the backbone gives, (Q, D) of unit norm, through the head."""
        return self.head.query(embeddings, self.embeddings) if self.head else embeddings


def _is_missing(label: object) -> bool:
    """Tell a label that is not there: pandas has NaN for it, Python None."""
    return label is None or (isinstance(label, float) and math.isnan(label))


def _unit_rows(embeddings: ArrayLike) -> NDArray[np.float32]:
    """Check foreign embeddings, and normalise them if they are not."""
    rows = np.asanyarray(embeddings)
    if rows.ndim != 2 or not rows.size or rows.dtype.kind not in "fiu":
        raise LibraryError(
            f"embeddings of shape {rows.shape} and dtype {rows.dtype} are not (N, D) numbers"
        )
    norms = np.concatenate(
        [
            np.linalg.norm(rows[i : i + _BLOCK].astype(np.float64), axis=1)
            for i in range(0, len(rows), _BLOCK)
        ]
    )
    if (bad := np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))).size:
        raise LibraryError(f"row {bad[0]} of the embeddings is zero or not finite; leave it out")
    if np.abs(norms - 1).max() <= _ROUNDING:
        return np.require(rows, np.float32, "C")
    units = np.empty(rows.shape, np.float32)
    for i in range(0, len(rows), _BLOCK):
        units[i : i + _BLOCK] = rows[i : i + _BLOCK] / norms[i : i + _BLOCK, None]
    return units
