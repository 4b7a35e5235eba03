"""The backbone of a library: loaded from its record, and recorded when the library is saved."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simsearch.backbones.backbone import SUFFIX, Backbone, load_backbone, with_windows
from simsearch.backbones.long_pictures import made_like
from simsearch.backbones.spec import OWN_WEIGHTS
from simsearch.errors import BackboneError
from simsearch.library.source import Source

if TYPE_CHECKING:
    from simsearch.library.library import ImageLibrary
    from simsearch.library.source import EmbeddingSpace


def load_recorded(space: EmbeddingSpace, given: Backbone | str | None) -> Backbone:
    """Load the backbone that was given with a library, or else the one that it records.

    Raises
    ------
    BackboneError
        If neither is there, or it cannot be loaded.
    """
    name, source = type(space).__name__, space.source
    if source and source.precision == "int8":
        return _load_quantised(source, given)
    if given is not None:
        loaded = load_backbone(given)
        return made_like(loaded, source.fingerprint) if source else loaded
    if source is None:
        raise BackboneError(
            "this library does not know what made its embeddings: pass backbone= to "
            f"{name}, or query with a row number or an embedding"
        )
    if source.weights == OWN_WEIGHTS:
        opened = "ImageLibrary.load(outputs" if name == "ImageLibrary" else f"{name}(uri, name"
        raise BackboneError(
            f"this library was made by {source.backbone}, a module of your own: pass it, "
            f"as {opened}, backbone=load_backbone(module, transform=...))"
        )
    return made_like(load_backbone(source.backbone, source.weights_file), source.fingerprint)


def unfit(space: EmbeddingSpace, backbone: Backbone) -> BackboneError:
    """Return the error for a backbone that did not make the embeddings."""
    dim = space.head.dim_in if space.head else space.dim
    return BackboneError(
        f"{backbone!r} is not what made this library ({dim}-d, {space.source}); "
        "pass the backbone that did, or embed the dataset again"
    )


def _load_quantised(source: Source, given: Backbone | str | None) -> Backbone:
    """Load what made a library in int8: the network in float32, and that of the user's cache."""
    from simsearch.backbones.quantised import open_quantised

    if isinstance(given, Backbone):
        base = with_windows(given, windows=False)
    else:
        base = load_backbone(
            given or source.backbone,
            None if given else source.weights_file,
            device="cpu",
            precision="float32",
        )
    quantised = open_quantised(base, source.fingerprint.removesuffix(SUFFIX))
    return made_like(quantised, source.fingerprint)


def query_encoder(space: EmbeddingSpace, given: Backbone | str | None) -> Backbone:
    """Return what embeds queries: without PyTorch, if its network was converted before.

    Raises
    ------
    BackboneError
        As for `EmbeddingSpace.backbone`.
    """
    source = space.source
    if given is None and source is not None:
        from simsearch.backbones.runtime_cache import cached_backbone

        plain = source.fingerprint.removesuffix(SUFFIX)
        found = cached_backbone(source.backbone, plain, source.precision)
        fitted = found and made_like(found, source.fingerprint)
        if fitted and space.fits(fitted):
            return fitted
    return space.backbone


def source_to_record(library: ImageLibrary) -> Source | None:
    """Return what made the embeddings; a backbone that is known by name is loaded for that.

    Raises
    ------
    BackboneError
        If it cannot be loaded, or is not what made the library.
    """
    if library.source is not None or not library.has_backbone:
        return library.source
    try:
        return Source.of(library.backbone)
    except BackboneError as error:
        raise BackboneError(
            f"the backbone of this library cannot be recorded with it: {error}; give the one that "
            "made the embeddings, or leave backbone= out to save without one"
        ) from error
