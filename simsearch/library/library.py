"""An image library: the embeddings of a dataset, with the paths of its images and what is known.

Nothing here opens an image.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from simsearch import registry
from simsearch.backbones.backbone import Backbone
from simsearch.images.address import is_uri
from simsearch.library.files import LibraryFiles, open_latest
from simsearch.library.paths import Placed, find_row, is_unchanged
from simsearch.library.source import EmbeddingSpace, Source
from simsearch.library.table import RowTable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from numpy.typing import ArrayLike, NDArray

    from simsearch.backbones.heads import Head
    from simsearch.library.report import EmbedReport
    from simsearch.library.row_file import RowFile

SAMPLE_ROWS = 512  # whose pairs tell what a score means: 130,816 pairs


class ImageLibrary(EmbeddingSpace, RowTable):
    """Embeddings and the paths of their images, ready to be searched.

    Parameters
    ----------
    embeddings
        (N, D) floats, one row per image; rows that are not of unit L2 norm are normalised.
    paths
        N paths, as a reader would open them.
    backbone
        What made the embeddings, a `Backbone` or a name; needed only to embed new queries.

    Attributes
    ----------
    embeddings : numpy.ndarray
        (N, D) float32, C order, rows of unit L2 norm; memory-mapped where it comes from a file.
    paths : numpy.ndarray
        (N,) unicode, POSIX separators; absolute once `os.chdir` has made them lead elsewhere.
    stats : numpy.ndarray or None
        (N, 2) int64, the size in bytes and the modification time in ns of each file when it was
        embedded.
    root : str or None
        The dataset's folder, as it was given, or absolute where that leads elsewhere by now.
    source : Source or None
        What made the embeddings, for a library that was loaded from its files.
    head : Head or None
        What the backbone's embeddings have passed through since; see `with_head`.
    metadata : pandas.DataFrame or None
        One line per row; see `attach`.
    table_report, label_report : TableReport or None
        Lines of the last table, or of labels, without a picture, and pictures without a line.
    index : None
        What ranks the rows: the exact search, unless `search` is given an index.

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

    embeddings: NDArray[np.float32]
    paths = Placed["NDArray[np.str_]"]()
    root = Placed["str | None"](None)
    opened_in: str = ""  # the folder that relative paths are relative to
    stats: NDArray[np.int64] | None = None
    digests: NDArray[np.uint8] | None = None  # (N, 16), of the files' bytes; zeros if unknown
    head: Head | None = None
    index: Any = None
    absolute_root: str | None = None  # where the dataset was when it was embedded
    run: Mapping[str, Any] | None = None  # counts of the run that made it, for `report`
    row_file: RowFile | None = None  # of a large one that was opened
    _origin: tuple[NDArray[np.float32], Path, str] | None = None
    manifest: Mapping[str, Any] | None = None  # of its files
    own: bool = True  # whether this user wrote its files; see `locate`
    versions: Mapping[str, str | None] = {}  # of the folder it was opened in

    def __init__(
        self,
        embeddings: ArrayLike,
        paths: Sequence[str | os.PathLike[str]] | NDArray[Any],
        backbone: Backbone | str | None = None,
    ) -> None:
        from simsearch.library.unit_rows import listed_paths, unit_rows

        self.embeddings = unit_rows(embeddings)
        self.paths = listed_paths(paths, len(self.embeddings))
        self.source = Source.of(backbone) if isinstance(backbone, Backbone) else None
        self._backbone = backbone

    @classmethod
    def load(
        cls,
        outputs: str | os.PathLike[str] = "outputs",
        root: str | os.PathLike[str] | None = None,
        backbone: Backbone | str | None = None,
    ) -> ImageLibrary:
        """Open a library that `embed_dataset` has made, and look where its images are.

        A warning in the log says which are not there; a dataset that moved with them is found.

        Parameters
        ----------
        outputs
            The folder that holds the library; or an address, from which it is copied here.
        root
            Where the dataset lies now, if it has moved.
        backbone
            The backbone that made the library, if it was a module of your own.

        Raises
        ------
        LibraryError
            If files are missing, damaged, or do not belong together.
        """
        from simsearch.library.location import locate

        library = cls.as_stored(outputs, backbone)
        locate(library, root)
        return library

    @classmethod
    def as_stored(
        cls, outputs: str | os.PathLike[str], backbone: Backbone | str | None = None
    ) -> ImageLibrary:
        """Open a library with the paths that its files list, wherever those lead from here."""
        if is_uri(outputs):
            outputs = registry.resolve("library", "fetch")(outputs)
        return cls.of_files(open_latest(Path(outputs).expanduser()), backbone)

    @classmethod
    def of_files(cls, files: LibraryFiles, backbone: Backbone | str | None = None) -> ImageLibrary:
        """Make a library of what `open_latest` has opened."""
        library = cls.__new__(cls)
        library.row_file = None if isinstance(files.embeddings, np.ndarray) else files.embeddings
        library.embeddings = library.row_file.mapped if library.row_file else files.embeddings
        library._backbone, library.manifest = backbone, files.manifest
        for name in ("paths", "root", "stats", "digests", "absolute_root", "source", "head"):
            setattr(library, name, getattr(files, name))
        library._origin = library.embeddings, files.folder, files.digest
        library.versions = {os.path.realpath(files.folder): files.version}
        return library

    @property
    def row_lookup(self) -> NDArray[np.float32] | RowFile:
        """The embeddings, to look up by number: of a large library, read and checked one by one."""
        return self.row_file if self.row_file and self.stored else self.embeddings

    @cached_property
    def report(self) -> EmbedReport:
        """What a run read and left out; of a library that was loaded, what its files tell."""
        from simsearch.library.report import make_report

        return make_report(self)

    def save(self, outputs: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write this library's files into a folder, in place of the library that is there.

        A backbone that is known by name is loaded, to record what made the embeddings. With
        `overwrite`, a newer library than the one that was opened is replaced, too.

        Raises
        ------
        LibraryError
            If the disk is full or refuses, or what was opened there has been replaced since; the
            library that is there is then untouched.
        BackboneError
            If the backbone cannot be loaded, or did not make the embeddings.
        LibraryBusyError
            If another process is writing there.
        """
        from simsearch.library.save import save_library

        save_library(self, outputs, overwrite=overwrite)

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
        """
        from simsearch.library.derive import apply_head

        return apply_head(self, head)

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
        from simsearch.library.derive import name_library

        return name_library(self)

    def describe(self) -> str:
        """Say in a few lines what the library holds and what made it."""
        from simsearch.library.derive import describe_library

        return describe_library(self)

    @property
    def dim(self) -> int:
        """Width of an embedding."""
        return int(self.embeddings.shape[1])

    @cached_property
    def random_pair_scores(self) -> NDArray[np.float32]:
        """Cosines of pairs of different random images, sorted: what a score is compared with.

        Every pair among 512 rows drawn with a fixed seed, so up to 130,816 of them; empty for a
        library of one image.
        """
        rng = np.random.default_rng(0)
        rows = np.sort(rng.choice(len(self), min(SAMPLE_ROWS, len(self)), replace=False))
        sample = self.row_lookup[rows]
        return np.sort((sample @ sample.T)[np.triu_indices(len(rows), k=1)])

    def find(self, path: str | os.PathLike[str]) -> int | None:
        """Row of the image at a path in any form that leads to the file; None without one."""
        return find_row(path, self.root, self.paths, self._by_path)

    def is_current(self, row: int) -> bool:
        """Tell whether the file of a row is still the one that was embedded, or is gone."""
        stat = None if self.stats is None else self.stats[row].tolist()
        return is_unchanged(str(self.paths[row]), stat)

    def _apply_head(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        return self.head.query(embeddings, self.embeddings) if self.head else embeddings
