"""The backbone in int8 of a dataset: that of its library, or one calibrated on its own pictures.

What a library is embedded with stays: new rows are made by the same network, or not at all.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from simsearch.backbones.backbone import SUFFIX, Backbone, load_backbone, with_windows
from simsearch.backbones.quantised import QuantisedBackbone, open_quantised, quantise
from simsearch.backbones.runtime_cache import cache_folder
from simsearch.embedding.recovery import unfinished_source
from simsearch.errors import BackboneError, DatasetError, ImageError
from simsearch.files import check_plain, write_text
from simsearch.images.decode import load_image
from simsearch.library.paths import in_folder

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    import torch
    from numpy.typing import NDArray

    from simsearch.images.find import ImageFile
    from simsearch.library.library import ImageLibrary
    from simsearch.library.source import Source

CALIBRATION_PICTURES = 128
RECORD = "int8_pictures.json"  # beside the library: what its network was calibrated on
PREFIX = "-int8-"  # in the fingerprint of a quantised backbone, after that of the network


class Calibration:
    """The pictures of a dataset that a network is calibrated on.

    Parameters
    ----------
    root
        The dataset's folder or address.
    files
        Its pictures.
    folder
        The outputs, where the names of those taken are kept.
    progress
        Show a progress bar.
    """

    def __init__(self, root: str, files: Sequence[ImageFile], folder: Path, progress: bool) -> None:
        self._root, self._folder, self._progress = root, folder, progress
        self._names = [file.name for file in files]

    def quantise(self, base: Backbone) -> QuantisedBackbone:
        """Quantise a network by pictures spread evenly over the dataset.

        Raises
        ------
        DatasetError
            If no picture can be read.
        BackboneError
            As `quantised.quantise`.
        """
        names, pictures = self._read(base, self._spread())
        if not pictures:
            raise DatasetError(
                f"none of the {len(self._names):,} images below {self._root!r} can be read, to "
                "calibrate int8 on them"
            )
        made = quantise(base, pictures)
        record = {"fingerprint": made.fingerprint, "pictures": names}
        write_text(self._folder / RECORD, json.dumps(record))
        return made

    def open(self, base: Backbone, fingerprint: str) -> QuantisedBackbone:
        """Open a quantised network from the cache, or make it anew if that gives the same one.

        Raises
        ------
        BackboneError
            If it is not there, and the pictures or what quantises them has changed.
        """
        try:
            return open_quantised(base, fingerprint)
        except BackboneError as error:
            names = self._recorded(fingerprint)
            made = quantise(base, self._read(base, names)[1]) if names else None
            if made is None or made.fingerprint != fingerprint:
                raise BackboneError(
                    f"the network in int8 that made the library in {str(self._folder)!r} is gone "
                    f"from {str(cache_folder())!r} and cannot be made again, since pictures or "
                    "packages have changed: put it back, or choose another outputs folder or "
                    "another precision to embed all pictures again"
                ) from error
            return made

    def unfinished(self) -> Source | None:
        """Return what embeds in a run that was stopped before it had made a library."""
        return unfinished_source(self._folder)

    def _spread(self) -> list[str]:
        """Order all names so that the first ones are spread evenly over the dataset."""
        steps = max(1, len(self._names) // CALIBRATION_PICTURES)
        return [name for start in range(steps) for name in self._names[start::steps]]

    def _read(self, base: Backbone, names: Sequence[str]) -> tuple[list[str], list[NDArray[Any]]]:
        """Prepare the first pictures that can be read."""
        read: list[str] = []
        pictures: list[NDArray[Any]] = []
        total = min(CALIBRATION_PICTURES, len(names))
        with tqdm(desc="Calibrating", total=total, unit="image", disable=not self._progress) as bar:
            for name in names:
                if len(read) == total:
                    break
                try:
                    image = load_image(in_folder(self._root, name), base.min_side)
                except ImageError:  # the run tells
                    continue
                read.append(name)
                pictures.append(base.prepare(image))
                bar.update()
        return read, pictures

    def _recorded(self, fingerprint: str) -> list[str]:
        """Return the pictures that a network was calibrated on; none if that is not known."""
        try:
            check_plain(self._folder / RECORD)
            record = json.loads((self._folder / RECORD).read_text("utf-8"))
            known = set(self._names).issuperset(record["pictures"])
            return record["pictures"] if known and record["fingerprint"] == fingerprint else []
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return []


def load_for_dataset(  # noqa: PLR0917
    name: str | Backbone | torch.nn.Module,
    weights: str | os.PathLike[str] | None,
    device: str | None,
    precision: Any,  # noqa: ANN401
    old: ImageLibrary | None,
    calibration: Calibration,
) -> Backbone:
    """Load what embeds a dataset, where that is to be int8 or its library is.

    Raises
    ------
    BackboneError
        If int8 should run on another device than a processor, or the library's own network is
        not there.
    """
    if precision not in {"auto", "int8"}:
        return load_backbone(name, weights, device=device, precision=precision)
    loaded = load_backbone(name, weights, device=device or "cpu", precision="float32")
    base = with_windows(loaded, windows=False)
    if isinstance(base, QuantisedBackbone):
        return base
    for source in (old and old.source, calibration.unfinished()):
        if source and source.fingerprint.startswith(base.fingerprint + PREFIX):
            return calibration.open(base, source.fingerprint.removesuffix(SUFFIX))
    if precision == "auto":  # another network than that of the library
        return load_backbone(name, weights, device=device)
    if base.device.type != "cpu" or base.precision != "float32":
        raise BackboneError(
            f'precision="int8" is made from float32 on a processor, not from {base!r}: leave '
            'device= out, and give a name or load_backbone(..., device="cpu", precision="float32")'
        )
    return calibration.quantise(base)
