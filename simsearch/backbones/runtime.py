"""`OpenVinoNetwork`: a network compiled for this processor; prepared images in, rows out.

PyTorch is not imported: `runtime_convert` makes networks, and `runtime_cache` keeps them.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simsearch.backbones.precision import usable_cores

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

INT8 = "int8"  # of a network that is quantised; what is not in it is computed in float32
HINTS = {"float32": "f32", "bfloat16": "bf16", INT8: "f32"}  # OpenVINO's word for each precision
TELEMETRY = "openvino_telemetry"  # reports imports and conversions to Google Analytics


class StoredNetwork(NamedTuple):
    """A network as OpenVINO writes it: the graph in XML, and the weights that it points into."""

    graph: bytes
    weights: NDArray[np.uint8]
    precision: str


class OpenVinoNetwork:
    """A network compiled for this processor: prepared images in, unit embeddings out.

    Safe to call from several threads at once: each has a request of its own.

    Parameters
    ----------
    stored
        The network: (B, S, S, 3) uint8 or (B, 3, H, W) float32 to (B, D).
    """

    def __init__(self, stored: StoredNetwork) -> None:
        openvino = import_quietly("openvino")
        self.stored = stored  # the graph points into its weights
        self._core = openvino.Core()
        self._model = self._core.read_model(stored.graph, openvino.Tensor(stored.weights))
        self._compiled: dict[int, Any] = {}
        self._lock, self._requests = threading.Lock(), threading.local()
        shape = self._model.input(0).partial_shape
        self._input_shape = tuple(dimension.get_length() for dimension in list(shape)[1:])
        self.dim: int = self._model.output(0).partial_shape[1].get_length()

    def takes(self, batch: NDArray[Any]) -> bool:
        """Tell whether prepared images have the shape that the network was converted for."""
        return batch.shape[1:] == self._input_shape

    def embed(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Embed a batch of prepared images.

        Returns
        -------
        numpy.ndarray
            (B, D) float32, C order, rows of unit L2 norm; not finite where the network gave no
            direction.
        """
        output = self._request().infer(batch)[0].astype(np.float32)
        with np.errstate(all="ignore"):
            units: NDArray[np.float32] = output / np.linalg.norm(output, axis=1, keepdims=True)
        return units

    def _request(self) -> Any:  # noqa: ANN401
        """Return this thread's request; it computes on as many cores as PyTorch would."""
        threads = thread_count()
        requests = self._requests.__dict__.setdefault("by_threads", {})
        if threads not in requests:
            with self._lock:
                if threads not in self._compiled:
                    self._compiled[threads] = self._compile(threads)
            requests[threads] = self._compiled[threads].create_infer_request()
        return requests[threads]

    def _compile(self, threads: int) -> Any:  # noqa: ANN401
        """Compile for calls that use this many threads each, as many at once as there are cores."""
        streams = max(1, usable_cores() // threads)
        settings = {
            "INFERENCE_PRECISION_HINT": HINTS[
                self.stored.precision
            ],  # or OpenVINO chooses by itself
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams * threads,
            "ENABLE_CPU_PINNING": False,  # other processes use these cores, too
        }
        return self._core.compile_model(self._model, "CPU", settings)


def thread_count() -> int:
    """Return the threads of one call: what PyTorch was told, or else `OMP_NUM_THREADS`, or all."""
    if "torch" in sys.modules:
        import torch

        return min(torch.get_num_threads(), usable_cores())
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return min(int(first), usable_cores()) if first.isdecimal() and int(first) else usable_cores()


def import_quietly(name: str) -> Any:  # noqa: ANN401
    """Import OpenVINO, or what belongs to it, without its telemetry."""
    if name in sys.modules:
        return sys.modules[name]
    before = {TELEMETRY: sys.modules[TELEMETRY]} if TELEMETRY in sys.modules else {}
    sys.modules[TELEMETRY] = None  # type: ignore[assignment]  # as if it were not installed
    try:
        return importlib.import_module(name)
    finally:
        del sys.modules[TELEMETRY]
        sys.modules.update(before)
