"""`QuantisedBackbone`: a network in int8, calibrated on pictures by NNCF and run by OpenVINO.

Its rows mix with no others, so its fingerprint holds the digest of the quantised network itself.
That network is kept in the user's own cache, by its digest, and read from nowhere else.
"""

from __future__ import annotations

import io
import logging
import re
from contextlib import redirect_stdout
from importlib import metadata
from typing import TYPE_CHECKING

import numpy as np

from simsearch.backbones.backbone import Backbone
from simsearch.backbones.runtime import INT8, OpenVinoNetwork, StoredNetwork, import_quietly
from simsearch.backbones.runtime_cache import (
    cache_folder,
    entry_file,
    network_digest,
    read_entry,
    write_entry,
)
from simsearch.backbones.runtime_convert import backbone_record, convert, stored_network
from simsearch.errors import BackboneError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

    from numpy.typing import NDArray

logger = logging.getLogger("simsearch")
CHECKED_PICTURES = 64  # whose rows are compared with those of float32
MIN_COSINE = 0.9  # of their rows, mean; after the mean row is subtracted, from 8 pictures on
CENTRED_PICTURES = 8
FORMER_NAMES = re.compile(rb'<attribute name="fused_names"[^>]*/>')


class QuantisedBackbone(Backbone):
    """A backbone whose rows come from its network in int8, and from nothing else.

    PyTorch still has the network in float32, for heat maps and fine-tuning.

    Parameters
    ----------
    base
        The backbone in float32, on a processor.
    stored
        Its network, quantised.
    """

    def __init__(self, base: Backbone, stored: StoredNetwork) -> None:
        self.__dict__.update(base.__dict__)
        self.set_local_state(base.own_spec)
        self._wanted, self.precision = "torch", "int8"
        self.fingerprint = f"{base.fingerprint}-{INT8}-{network_digest(stored)}"
        self._network = OpenVinoNetwork(stored)

    def move(self, device: str) -> None:
        """Refuse any device but the processor.

        Raises
        ------
        BackboneError
            If it is another one.
        """
        if device != "cpu":
            raise BackboneError(f"{self!r} runs on processors only, not on {device!r}")
        network = self._network
        super().move(device)
        self._network = network

    def embed_by_torch(self, batch: NDArray[Any]) -> NoReturn:
        """Refuse, since rows in float32 do not mix with those in int8.

        Raises
        ------
        BackboneError
            In any case.
        """
        raise BackboneError(
            f"{self!r} embeds pictures of the shape that it was calibrated on only, by OpenVINO, "
            f'and not {batch.shape[1:]}; choose precision="float32"'
        )


def quantise(base: Backbone, pictures: Sequence[NDArray[Any]]) -> QuantisedBackbone:
    """Quantise a network to int8, and keep it in the user's cache.

    The same pictures give the same network, with the same versions on the same kind of processor;
    the same network gives the same rows on processors with VNNI and without.

    Parameters
    ----------
    base
        In float32, on a processor.
    pictures
        As `base.prepare` makes them; they are what the network is calibrated on.

    Raises
    ------
    MissingExtraError
        If NNCF or OpenVINO is not installed.
    BackboneError
        If the network cannot be quantised, loses too much, or cannot be kept.
    """
    _check_packages(calibrating=True)
    try:
        stored = _calibrated(convert(base), pictures)
        backbone = QuantisedBackbone(base, stored)
    except Exception as error:  # converters raise nearly anything on unusual modules
        reason = " ".join(str(error).split())[:200]
        raise BackboneError(f"{base.name} cannot be quantised to int8: {reason}") from error
    _check_rows(backbone, base, np.stack(pictures[:CHECKED_PICTURES]))
    file = entry_file(backbone.name, backbone.fingerprint, INT8)
    write_entry(file, stored, backbone_record(backbone))
    if read_entry(file) is None:
        raise BackboneError(
            f"the network in int8 cannot be kept in {str(cache_folder())!r}, without which no new "
            "picture could join: let only yourself write there, make room, or set XDG_CACHE_HOME"
        )
    return backbone


def open_quantised(base: Backbone, fingerprint: str) -> QuantisedBackbone:
    """Open the quantised network of a fingerprint, from the user's cache.

    Raises
    ------
    MissingExtraError
        If OpenVINO is not installed.
    BackboneError
        If it is not there, or is of another network than `base`.
    """
    _check_packages(calibrating=False)
    if not fingerprint.startswith(f"{base.fingerprint}-{INT8}-"):
        raise BackboneError(f"{base!r} is not what was quantised to {fingerprint!r}")
    entry = read_entry(entry_file(base.name, fingerprint, INT8))
    if entry is None:
        raise BackboneError(
            f"the network in int8 that made this library, {fingerprint}, is not in "
            f"{str(cache_folder())!r}: run embed_dataset on the same pictures again, which makes "
            "it anew if they are unchanged, or embed them with another precision"
        )
    return QuantisedBackbone(base, entry[0])


def _check_packages(*, calibrating: bool) -> None:
    needed = ("openvino", "nncf") if calibrating else ("openvino",)
    if not all(map(_is_installed, needed)):
        raise MissingExtraError('precision="int8" needs: pip install "simsearch[int8]"')


def _is_installed(package: str) -> bool:
    try:
        return bool(metadata.version(package))
    except metadata.PackageNotFoundError:
        return False


def _calibrated(stored: StoredNetwork, pictures: Sequence[NDArray[Any]]) -> StoredNetwork:
    """Quantise a converted network: (B, ...) of prepared images to (B, D), as before."""
    nncf, openvino = import_quietly("nncf"), import_quietly("openvino")
    level = nncf.nncf_logger.level
    nncf.set_log_level(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):  # of its bars
            model = nncf.quantize(
                openvino.Core().read_model(stored.graph, openvino.Tensor(stored.weights)),
                nncf.Dataset([picture[None] for picture in pictures]),
                subset_size=len(pictures),
                fast_bias_correction=False,  # slower to make, nearer to float32
                advanced_parameters=nncf.AdvancedQuantizationParameters(
                    # Weights of half the range: without VNNI, sums of products overflow otherwise.
                    overflow_fix=nncf.OverflowFix.ENABLE
                ),
            )
    finally:
        nncf.set_log_level(level)
    model.set_friendly_name(INT8)  # names that count on through a process differ from run to run
    for number, operation in enumerate(model.get_ordered_ops()):
        operation.set_friendly_name(f"{number}")
    made = stored_network(model, INT8)
    return made._replace(graph=FORMER_NAMES.sub(b"", made.graph))


def _check_rows(quantised: Backbone, base: Backbone, batch: NDArray[Any]) -> None:
    """Compare rows of pictures in int8 with those in float32."""
    cosine = _mean_cosine(quantised.embed(batch), base.embed(batch))
    if not cosine >= MIN_COSINE:
        raise BackboneError(
            f"{base.name} loses too much in int8: the cosine of its rows with those in float32 is "
            f"{cosine:.3f}, and {MIN_COSINE} is needed; choose another precision"
        )
    logger.info("Rows of %s in int8 have a cosine of %.3f with float32.", base.name, cosine)


def _mean_cosine(rows: NDArray[np.float32], exact: NDArray[np.float32]) -> float:
    """Return the mean cosine of rows of the same pictures."""
    if len(rows) >= CENTRED_PICTURES:
        centre = exact.mean(axis=0)
        rows, exact = rows - centre, exact - centre
    norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(exact, axis=1)
    return float(((rows * exact).sum(axis=1) / np.maximum(norms, 1e-12)).mean())
