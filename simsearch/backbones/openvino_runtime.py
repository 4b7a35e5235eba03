"""The same network run by OpenVINO, where that is quicker on a processor than PyTorch.

A network is converted once, and the result is kept in the user's own cache. Whatever is wrong with
it (another version, damage, a module that cannot be converted) ends in PyTorch, never in an error.
"""

from __future__ import annotations

import copy
import logging
import math
import os
import re
import stat
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from simsearch.backbones.precision import restore_torch_threads
from simsearch.backbones.preprocessing import normalise

if TYPE_CHECKING:
    from typing import Any

    import torch
    from numpy.typing import NDArray

    from simsearch.backbones.backbone import Backbone

logger = logging.getLogger("simsearch")
HINTS = {"float32": "f32", "bfloat16": "bf16"}  # of precision, which is else chosen by OpenVINO
LARGEST_ERROR = {"float32": 1e-4, "bfloat16": 5e-3}  # of a number in a unit row, to PyTorch's
TIMED_IMAGES, TIMED_RUNS = 2, 5
WORTH_IT = 0.9  # share of PyTorch's time from which on it is not worth another runtime


class OpenVinoRuntime:
    """A converted network: a batch of prepared images in, unit rows out. Safe in any thread.

    Parameters
    ----------
    model
        As converted, or the file of it.
    precision
        "float32" or "bfloat16".
    threads
        Cores to use: one for each batch, all for a single image that comes alone.
    """

    def __init__(self, model: Any, precision: str, threads: int) -> None:  # noqa: ANN401
        import openvino

        core = openvino.Core()
        self._model = core.read_model(model) if isinstance(model, Path) else model
        sides = self._model.input(0).partial_shape[1:]
        self.shape = tuple(int(side.get_length()) for side in sides)
        self.dtype: np.dtype[Any] = np.dtype(self._model.input(0).element_type.to_dtype())
        self._core, self._hint, self._threads = core, HINTS[precision], threads
        self._batches = self._compile(streams=threads)
        self._single: Any = self._batches if threads == 1 else None
        self._lock, self._active = threading.Lock(), 0
        self._requests = threading.local()

    def _compile(self, streams: int) -> Any:  # noqa: ANN401
        settings = {
            "INFERENCE_PRECISION_HINT": self._hint,
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": self._threads,
        }
        return self._core.compile_model(self._model, "CPU", settings)

    def fits(self, batch: NDArray[Any]) -> bool:
        """Tell whether a batch has the shape and dtype that were converted."""
        return batch.shape[1:] == self.shape and batch.dtype == self.dtype

    def __call__(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Embed a batch: (B, D) float32."""
        with self._lock:
            alone = len(batch) == 1 and not self._active
            self._active += 1
            if alone and self._single is None:
                self._single = self._compile(streams=1)
        try:
            kind = "single" if alone else "batches"
            request = getattr(self._requests, kind, None)
            if request is None:
                request = (self._single if alone else self._batches).create_infer_request()
                setattr(self._requests, kind, request)
            return np.array(request.infer({0: np.ascontiguousarray(batch)})[0], np.float32)
        finally:
            with self._lock:
                self._active -= 1


def choose_runtime(backbone: Backbone, wanted: str) -> OpenVinoRuntime | None:
    """Return a runtime that gives the rows of PyTorch, for "auto" if it is quicker; or None."""
    runtime = openvino_runtime(backbone, backbone.embed_by_torch(backbone.probe()))
    return runtime if runtime and (wanted != "auto" or is_quicker(runtime, backbone)) else None


def openvino_runtime(backbone: Backbone, expected: NDArray[np.float32]) -> OpenVinoRuntime | None:
    """Return a runtime that gives the rows of PyTorch; None if there is none: the log says why."""
    import torch

    probe, threads = backbone.probe(), torch.get_num_threads()
    if backbone.precision not in HINTS:
        return None
    file = _cache_file(backbone, probe)
    for source in ("cache", "conversion"):
        try:
            if source == "conversion":
                model = _convert(backbone, probe)
                runtime = OpenVinoRuntime(model, backbone.precision, threads)
            elif file is None or not file.exists():
                continue
            else:
                runtime = OpenVinoRuntime(file, backbone.precision, threads)
            error = float(np.abs(runtime(probe) - expected).max())
            if not error <= LARGEST_ERROR[backbone.precision]:  # NaN is an error, too
                raise ValueError(f"its rows differ by {error:.1g}")
        except Exception as error:  # of any kind, from another library: PyTorch does it as well
            logger.debug("OpenVINO cannot run %s (%s): %s", backbone.name, source, error)
            continue
        if source == "conversion" and file is not None:
            _store(model, file)
        return runtime
    return None


def is_quicker(runtime: OpenVinoRuntime, backbone: Backbone) -> bool:
    """Time both on one core each, alternately, so that other load on the machine slows both."""
    import torch

    batch = np.repeat(backbone.probe(), TIMED_IMAGES, axis=0)
    best = {"openvino": math.inf, "torch": math.inf}
    with restore_torch_threads():
        torch.set_num_threads(1)
        for _ in range(TIMED_RUNS):
            for name, run in (("openvino", runtime), ("torch", backbone.embed_by_torch)):
                start = time.perf_counter()
                run(batch)
                best[name] = min(best[name], time.perf_counter() - start)
    return best["openvino"] < WORTH_IT * best["torch"]


def _convert(backbone: Backbone, probe: NDArray[Any]) -> Any:  # noqa: ANN401
    """Convert preprocessing, network, pooling and norm, for any number of images."""
    import openvino
    import torch

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = copy.deepcopy(backbone.module).float()

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return backbone.unit_rows(self.module(normalise(batch, backbone.transform)))

    example = torch.from_numpy(np.repeat(probe, 2, axis=0))  # a batch of one would be a constant
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing, for those who write networks
        return openvino.convert_model(
            Whole().eval(),
            example_input=example,
            input=[openvino.PartialShape([-1, *example.shape[1:]])],
        )


def _cache_file(backbone: Backbone, probe: NDArray[Any]) -> Path | None:
    """Where the converted network is kept; None if the user's cache cannot be used."""
    import openvino

    version = re.sub(r"[^\w.-]", "_", openvino.__version__)
    shape = "x".join(map(str, probe.shape[1:]))
    folder = user_cache_folder("openvino")
    return folder and folder / f"{backbone.fingerprint}-{shape}-{version}.xml"


def user_cache_folder(name: str) -> Path | None:
    """Make a folder in the user's cache that only the user can read; None if that cannot be."""
    base = os.environ.get("LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME")
    folder = (Path(base) if base else Path("~/.cache").expanduser()) / "simsearch" / name
    try:
        folder.mkdir(0o700, parents=True, exist_ok=True)
        status = folder.lstat()
    except (OSError, RuntimeError):  # the latter where there is no home
        return None
    own = os.name == "nt" or (status.st_uid == os.getuid() and not status.st_mode & 0o022)
    return folder if stat.S_ISDIR(status.st_mode) and own else None


def _store(model: Any, file: Path) -> None:  # noqa: ANN401
    """Write the model beside its place, the weights first, and move it there."""
    import openvino

    try:
        with tempfile.TemporaryDirectory(prefix=".part-", dir=file.parent) as part:
            openvino.save_model(model, Path(part, file.name), compress_to_fp16=False)
            for suffix in (".bin", ".xml"):
                Path(part, file.name).with_suffix(suffix).replace(file.with_suffix(suffix))
    except (OSError, RuntimeError) as error:
        logger.debug("the converted network is not kept: %s", error)
