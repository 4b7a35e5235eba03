"""Conversion of a backbone's network from PyTorch to OpenVINO, and the choice between the two.

A conversion takes seconds, once: the network is kept in the user's cache. It is compared with
PyTorch's, and timed against it, before it is used.
"""

from __future__ import annotations

import copy
import logging
import math
import tempfile
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from simsearch.backbones.backbone import SUFFIX
from simsearch.backbones.precision import restore_torch_threads
from simsearch.backbones.preprocessing import Preprocessing, normalise
from simsearch.backbones.runtime import HINTS, OpenVinoNetwork, StoredNetwork, import_quietly
from simsearch.backbones.runtime_cache import (
    entry_file,
    openvino_version,
    read_entry,
    write_entry,
)
from simsearch.backbones.spec import OWN_WEIGHTS, pool
from simsearch.errors import MissingExtraError

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from simsearch.backbones.backbone import Backbone

logger = logging.getLogger("simsearch")
MAX_DIFFERENCE = 1e-4  # of a number in a float32 row of unit norm
MIN_COSINE = 0.999  # of the same image's rows in bfloat16, which rounds otherwise
MIN_GAIN = 1.1  # times PyTorch's pace, for a change of runtime
TIMING_ROUNDS = 5


def choose_network(backbone: Backbone, wanted: str) -> OpenVinoNetwork | None:
    """Return the network in OpenVINO; for "auto" only where it is quicker than PyTorch here.

    Raises
    ------
    MissingExtraError
        If "openvino" is wanted, and cannot be had.
    """
    network = openvino_network(backbone)
    if network is None and wanted == "openvino":
        raise MissingExtraError(
            f'OpenVINO cannot run {backbone!r}; pip install "simsearch[fast]", on a processor'
        )
    return network if network and (wanted != "auto" or is_faster(network, backbone)) else None


def openvino_network(backbone: Backbone) -> OpenVinoNetwork | None:
    """Return a backbone's network in OpenVINO, from the cache or converted; None if it cannot be.

    The reason is in the log, unless it is that OpenVINO is not installed, or not made for this.
    """
    on_cpu = backbone.device.type == "cpu"
    if not on_cpu or backbone.precision not in HINTS or not openvino_version():
        return None
    is_own = backbone.weights == OWN_WEIGHTS  # its fingerprint does not tell its layers
    plain = backbone.fingerprint.removesuffix(SUFFIX)  # one network, however it is asked
    file = entry_file(backbone.name, plain, backbone.precision)
    if not is_own and (entry := read_entry(file)):
        network = _tried(entry[0], backbone)
        if network:
            return network
    made = _converted(backbone)
    network = made and _tried(made, backbone)
    if made and network and not is_own:
        write_entry(file, made, backbone_record(backbone))
    return network


def _converted(backbone: Backbone) -> StoredNetwork | None:
    try:
        return convert(backbone)
    except Exception as error:  # converters raise nearly anything on unusual modules
        _say_unusable(backbone, error)
        return None


def _say_unusable(backbone: Backbone, error: Exception) -> None:
    reason = " ".join(str(error).split())[:200]
    logger.warning("OpenVINO cannot run %s, PyTorch does: %s", backbone.name, reason)


def _tried(stored: StoredNetwork, backbone: Backbone) -> OpenVinoNetwork | None:
    """Compile a network; None, with the reason in the log, where PyTorch has to do it."""
    try:
        network = _checked(stored, backbone)
    except Exception as error:  # as for a cache that was changed
        _say_unusable(backbone, error)
        return None
    if network is None:
        logger.warning("OpenVINO's rows of %s differ; PyTorch embeds.", backbone.name)
    return network


def backbone_record(backbone: Backbone) -> dict[str, Any]:
    """Return what has to be known of a backbone, besides its network, to embed by it."""
    facts = {name: getattr(backbone, name) for name in ("name", "weights", "precision")}
    transform = backbone.transform  # None stands for a user's own function
    fields = None
    if isinstance(transform, Preprocessing):
        fields = asdict(transform) | {"kind": type(transform).__name__}
        del fields["windows"]  # of a library, not of the network
    plain = backbone.fingerprint.removesuffix(SUFFIX)
    return {**facts, "fingerprint": plain, "transform": fields}


def convert(backbone: Backbone) -> StoredNetwork:
    """Convert a folded network with its normalisation and pooling: prepared images to (B, D)."""
    import torch

    openvino = import_quietly("openvino")
    module = copy.deepcopy(backbone.module).float()
    transform, pooling = backbone.transform, backbone.pooling

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return pool(self.module(normalise(inputs, transform)), pooling)

    example = torch.from_numpy(np.repeat(backbone.probe(), 2, axis=0))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of tracing; the rows are compared afterwards
        model = openvino.convert_model(Whole().eval(), example_input=example)
    model.reshape([-1, *example.shape[1:]])
    return stored_network(model, backbone.precision)


def stored_network(model: Any, precision: str) -> StoredNetwork:  # noqa: ANN401
    """Return a model of OpenVINO as it is written."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "network.xml"
        import_quietly("openvino").serialize(model, file, file.with_suffix(".bin"))
        weights = np.fromfile(file.with_suffix(".bin"), np.uint8)
        return StoredNetwork(file.read_bytes(), weights, precision)


def _checked(stored: StoredNetwork, backbone: Backbone) -> OpenVinoNetwork | None:
    """Compile a network, and return it if its rows are those of PyTorch."""
    network = OpenVinoNetwork(stored)
    probe = backbone.probe()
    faded = (probe * np.float32(0.5)).astype(probe.dtype)
    batch = np.concatenate([probe, probe[:, ::-1], faded])
    expected = backbone.embed_by_torch(batch)
    rows = network.embed(batch)
    if rows.shape != expected.shape:
        return None
    if backbone.precision == "float32":
        same = np.abs(rows - expected).max() <= MAX_DIFFERENCE
    else:
        same = (rows * expected).sum(axis=1).min() >= MIN_COSINE
    return network if same else None


def is_faster(network: OpenVinoNetwork, backbone: Backbone) -> bool:
    """Time both on one core, alternately, so that other load on the machine slows both."""
    import torch

    batch: NDArray[Any] = np.repeat(backbone.probe(), backbone.batch_size, axis=0)
    best = [math.inf, math.inf]
    with restore_torch_threads():
        torch.set_num_threads(1)
        for number in range(TIMING_ROUNDS + 1):
            for i, run in enumerate((network.embed, backbone.embed_by_torch)):
                start = time.perf_counter()
                run(batch)
                if number:  # the first round warms up
                    best[i] = min(best[i], time.perf_counter() - start)
    return best[0] * MIN_GAIN < best[1]
