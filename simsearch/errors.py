"""What can go wrong, one class per thing a caller can act on.

Each message names the value at fault and the call that mends it.
"""


class SimsearchError(Exception):
    """Any error that simsearch raises on purpose."""

    def _render_traceback_(self) -> list[str]:
        """Return what a notebook shows: the message, which says what to mend."""
        return [f"{type(self).__name__}: {self}"]


class ImageError(SimsearchError):
    """An image cannot be read: damaged, too large, missing, or not an image at all.

    Attributes
    ----------
    reason : str
        What is wrong, without the name of the image.
    """

    def __init__(self, reason: str, source: str | None = None) -> None:
        super().__init__(reason if source is None else f"cannot read {source}: {reason}")
        self.reason = reason


class DatasetError(SimsearchError):
    """A folder holds nothing to embed, or is not there."""


class BackboneError(SimsearchError):
    """A backbone is unknown, or not the one that made the library."""


class WeightsError(BackboneError):
    """The weights of a backbone cannot be loaded, or do not fit it."""


class LibraryError(SimsearchError):
    """The files of a library are missing, damaged, or do not belong together."""


class DamagedLibraryError(LibraryError):
    """What a file of a library holds is not what was written: damaged, or changed in its place."""


class StaleIndexError(LibraryError):
    """An index was built for another library than the one that is searched."""


class LibraryBusyError(LibraryError):
    """Another process is writing this library."""


class RemoteError(LibraryError):
    """A collection on a server, or in a Milvus Lite file, cannot be reached, read or written."""


class StaleVersionError(RemoteError):
    """An open `RemoteLibrary` is of a version whose rows have gone: `refresh` it."""


class QueryError(SimsearchError):
    """A search was asked for something that it cannot answer."""


class ArrayError(QueryError, ImageError):
    """An array may be a picture or an embedding, or is neither: say which is meant."""


class TrainingError(SimsearchError):
    """A head cannot be trained from what was given."""


class EngineError(SimsearchError):
    """An engine is unknown, or its cluster cannot do the work."""


class MissingExtraError(SimsearchError, ImportError):
    """An optional package is needed and not installed."""
