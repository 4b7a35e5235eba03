"""`Backbone`: a frozen network on a device, in a precision; images in, unit embeddings out.

No training, no pool of workers, no folder of images. PyTorch is imported on use.
"""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
from PIL import Image

from simsearch.backbones.precision import choose_precision, fold_batch_norms, has_depthwise
from simsearch.backbones.preprocessing import Preprocessing, normalise
from simsearch.backbones.spec import OWN_WEIGHTS, build_spec, pool
from simsearch.errors import BackboneError, ImageError, WeightsError
from simsearch.files import iter_blocks
from simsearch.images.decode import describe, load_image

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    import torch
    from numpy.typing import NDArray

    from simsearch.backbones.feature_map import FeatureMapHook
    from simsearch.backbones.precision import Precision
    from simsearch.backbones.preprocessing import Transform
    from simsearch.backbones.runtime import OpenVinoNetwork
    from simsearch.backbones.spec import ModelSpec
    from simsearch.images.decode import ImageSource


CPU_BATCH_IMAGES, GPU_BATCH_IMAGES = 8, 64
DEPTHWISE_BATCH_IMAGES = 2  # on a processor; larger maps of such networks overflow its caches
SUFFIX = "-windows"  # of the fingerprint of what embeds long pictures by windows along them
_other_way: WeakKeyDictionary[Backbone, Backbone] = WeakKeyDictionary()


class Backbone:
    """A frozen network on a device, in a precision: images in, unit embeddings out.

    Made by `load_backbone`. Safe to call from several threads at once.

    Attributes
    ----------
    name, weights, fingerprint : str
        What made an embedding; the fingerprint changes with the weights, the preprocessing or
        the pooling, and not with the device or the precision.
    dim : int
        Width of an embedding.
    device : torch.device
    precision : {"float32", "bfloat16", "float16", "int8"}
    """

    def __init__(
        self, spec: ModelSpec, device: str | torch.device, precision: Precision, runtime: str
    ) -> None:
        import torch

        self.name, self.weights, self.fingerprint = spec.name, spec.weights, spec.fingerprint
        self.transform = spec.transform
        self.device = torch.device(device)
        self.precision = choose_precision(spec.module, self.device, precision)
        self.pooling = spec.pooling
        self._dtype: torch.dtype = getattr(torch, self.precision)
        self.set_local_state(spec if spec.weights == OWN_WEIGHTS else None)
        example = normalise(torch.from_numpy(self.probe()), spec.transform)
        self.module = fold_batch_norms(spec.module, example)
        self.module.to(self.device, self._dtype).to(memory_format=torch.channels_last)
        self._wanted = runtime
        self._cpu_batch = DEPTHWISE_BATCH_IMAGES if has_depthwise(spec.module) else CPU_BATCH_IMAGES
        self.dim = self.embed_by_torch(self.probe()).shape[1]
        if runtime == "openvino":
            self.optimise()

    def set_local_state(self, own_spec: ModelSpec | None) -> None:
        """Set what does not go to another process: locks, the hook, a user's own module."""
        self._device_lock, self.hook_lock = threading.Lock(), threading.Lock()
        self.map_hook: FeatureMapHook | None = None
        self._network: OpenVinoNetwork | None = None
        self.own_spec = own_spec

    def __getstate__(self) -> dict[str, Any]:
        from simsearch.backbones.sent import state_to_send

        return state_to_send(self.__dict__)

    def __setstate__(self, state: dict[str, Any]) -> None:
        from simsearch.backbones.sent import restore

        restore(self, state)

    def move(self, device: str) -> None:
        """Move the network to another device, in the precision that it has."""
        import torch

        self.device, self._network = torch.device(device), None
        self.module.to(self.device)

    @property
    def runtime(self) -> str:
        """What runs the network: "torch" or "openvino"."""
        return "openvino" if self._network else "torch"

    def optimise(self) -> None:
        """Embed with OpenVINO from now on, where it is installed and quicker; it takes seconds."""
        if self._wanted != "torch" and self.device.type == "cpu":
            from simsearch.backbones.runtime_convert import choose_network

            self._network, self._wanted = choose_network(self, self._wanted), "torch"

    def __repr__(self) -> str:
        return (
            f"Backbone({self.name!r}, weights={self.weights!r}, dim={self.dim}, "
            f"device={str(self.device)!r}, precision={self.precision!r})"
        )

    @property
    def min_side(self) -> int | None:
        """Shortest side in pixels that a decoder must keep for this backbone; None for no limit."""
        return self.transform.resize if isinstance(self.transform, Preprocessing) else None

    def prepare(self, image: Image.Image) -> NDArray[Any]:
        """Turn an upright RGB image into this network's input.

        Returns
        -------
        numpy.ndarray
            (S, S, 3) uint8, (n, S, S, 3) of a long image, or (3, H, W) float32 of an own transform.
        """
        prepared = self.transform(image)
        return prepared if isinstance(prepared, np.ndarray) else prepared.float().numpy()

    def read(self, source: ImageSource) -> NDArray[Any]:
        """Decode one image and prepare it."""
        return self.prepare(load_image(source, self.min_side))

    @property
    def batch_size(self) -> int:
        """Images per forward pass, where the caller does not choose."""
        return self._cpu_batch if self.device.type == "cpu" else GPU_BATCH_IMAGES

    def encode(self, images: Sequence[ImageSource]) -> NDArray[np.float32]:
        """Decode, prepare and embed images, a batch at a time, in this thread.

        Parameters
        ----------
        images
            What `load_image` takes: paths, URLs, bytes, PIL images or arrays.

        Returns
        -------
        numpy.ndarray
            (N, D) float32, C order, rows of unit L2 norm, in the order of the images.

        Raises
        ------
        ImageError
            For the first image that cannot be read, or that has no finite embedding.
        ArrayError
            If an array may be embeddings, not a picture.
        """
        if not isinstance(images, list) or any(isinstance(each, np.ndarray) for each in images):
            from simsearch.images.arrays import check_pictures

            check_pictures(images, self.dim)
        embeddings = np.empty((len(images), self.dim), np.float32)
        for block in iter_blocks(len(images), self.batch_size):
            embeddings[block] = self.embed_all([self.read(image) for image in images[block]])
            lost = np.flatnonzero(np.isnan(embeddings[block, 0]))
            if len(lost):
                raise ImageError(self.non_finite_reason, describe(images[block.start + lost[0]]))
        return embeddings

    @property
    def non_finite_reason(self) -> str:
        """The reason of the `ImageError` for an image whose row is NaN."""
        return f'no finite embedding in {self.precision}; try precision="float32"'

    def embed(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Embed a batch of prepared images.

        Parameters
        ----------
        batch
            (B, S, S, 3) uint8 or (B, 3, H, W) float32, as `prepare` makes them.

        Returns
        -------
        numpy.ndarray
            (B, D) float32, C order, rows of unit L2 norm; NaN where there is no finite direction.
        """
        if batch.ndim > 4:  # of long images
            return self.embed_all(list(batch))
        network = self._network
        quick = network is not None and network.takes(batch)
        embeddings = network.embed(batch) if network and quick else self.embed_by_torch(batch)
        embeddings[~np.isfinite(embeddings).all(axis=1)] = np.nan
        return embeddings

    def embed_all(self, inputs: list[NDArray[Any]]) -> NDArray[np.float32]:
        """Embed prepared images, each of one input or, if it is long, of several."""
        if any(each.ndim > 3 for each in inputs):
            from simsearch.backbones.long_pictures import embed_mixed

            return embed_mixed(self, inputs)
        return self.embed(np.stack(inputs))

    def embed_by_torch(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Embed as `embed` does, whatever else could run the network."""
        return self.run(lambda inputs: self.unit_rows(self.module(inputs)), batch)

    def unit_rows(self, output: torch.Tensor) -> torch.Tensor:
        """Turn what the network gives into unit rows: (B, D) float32."""
        import torch

        pooled = pool(output.float(), self.pooling)
        units: torch.Tensor = pooled / torch.linalg.vector_norm(pooled, dim=1, keepdim=True)
        return units

    def feature_map(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Embed each cell of the last map before pooling: (B, h, w, D); see `embed_cells`."""
        from simsearch.backbones.feature_map import embed_cells

        return embed_cells(self, batch)

    def run(
        self, forward: Callable[[torch.Tensor], torch.Tensor], batch: NDArray[Any]
    ) -> NDArray[np.float32]:
        """Move a prepared batch to the device, run a forward pass, and move the result back."""
        import torch

        def run(inputs: torch.Tensor) -> NDArray[np.float32]:
            with torch.inference_mode():
                output = forward(normalise(inputs, self.transform).to(self._dtype))
                result: NDArray[np.float32] = output.float().contiguous().cpu().numpy()
            return result

        inputs = torch.from_numpy(batch)
        if self.device.type == "cpu":
            return run(inputs)
        from simsearch.backbones.transfer import run_in_memory

        with self._device_lock:  # the device has one queue: more threads would only fill its memory
            return run_in_memory(run, inputs, self.device)

    def probe(self) -> NDArray[Any]:
        """Prepare an image of noise, a batch of one, on which a network can be tried."""
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        return self.prepare(Image.fromarray(noise))[None]


def load_backbone(
    name: str | torch.nn.Module | Backbone = "auto",
    weights: str | os.PathLike[str] | None = None,
    *,
    transform: Transform | None = None,
    device: str | torch.device | None = None,
    precision: Precision = "auto",
    runtime: str = "auto",
) -> Backbone:
    """Load a frozen network, ready to embed.

    Parameters
    ----------
    name
        - ``"resnet50"``: torchvision's, cut before the classifier, 2048-d, `IMAGENET1K_V1`;
        - ``"efficientnet_lite0"``: 1280-d, its ImageNet weights come in an installed package;
        - ``"auto"``: ResNet50 if its weights are here or can be fetched, otherwise the bundled
          model, with a warning in the log; with `weights`, always ResNet50;
        - any other torchvision classifier, such as ``"resnet18"`` or ``"vit_b_16"``;
        - ``"timm:NAME"``, or with a size ``"timm:NAME@224"`` (``pip install "simsearch[timm]"``);
        - ``"scenes"``, ``"products"``, ``"copies"``: what `list_backbones` has for them;
        - ``"clip:NAME:TAG"``: open_clip's models, which embed words, too (``[clip]``);
        - your own module that gives (B, D) features or a (B, D, H, W) map, with `transform`.
    weights
        A local state dict (``.pth``, or ``.safetensors``) instead of the published weights.
    transform
        For your own module: from a PIL image (RGB) to a (3, H, W) float tensor.
    device
        Default: CUDA, then Apple's MPS, then the processor.
    precision
        ``"auto"`` takes half precision where the device is fast, and the network accurate, in it.
    runtime
        ``"torch"`` or ``"openvino"`` (``pip install "simsearch[fast]"``, processors only); "auto",
        or what ``SIMSEARCH_RUNTIME`` has in its place, measures them when a dataset is embedded.

    Raises
    ------
    BackboneError
        If the name is unknown, or the module does not give features.
    WeightsError
        If the weights cannot be loaded, or do not fit.
    MissingExtraError
        If the optional package of this backbone is not installed.
    """
    if isinstance(name, Backbone):
        return name
    if precision not in ("auto", "float32", "bfloat16", "float16"):
        raise BackboneError(
            f"precision={precision!r}: choose auto, float32, bfloat16 or float16; int8 is for "
            "embed_dataset, which calibrates it on its pictures"
        )
    runtime = os.environ.get("SIMSEARCH_RUNTIME", runtime) if runtime == "auto" else runtime
    if runtime not in ("auto", "torch", "openvino"):
        raise BackboneError(f"runtime={runtime!r}: choose auto, torch or openvino")
    if device is not None:
        from simsearch.backbones.transfer import check_device
    device = _best_device() if device is None else check_device(device)
    if not isinstance(name, str):
        from simsearch.backbones.adapters.own import own_spec

        return Backbone(own_spec(name, transform, weights), device, precision, runtime)
    if transform is not None:
        raise BackboneError(f"transform= goes with a module of your own; {name!r} brings its own")
    file = None if weights is None else Path(weights).expanduser().resolve()
    if file and not file.is_file():
        raise WeightsError(f"no such weights file: {os.fspath(file)!r}")
    version = file.stat().st_mtime_ns if file else None  # a replaced file is read again
    if name == "auto":
        from simsearch.backbones.weights_download import auto_backbone_name

        name = "resnet50" if file else auto_backbone_name()
    return _load_named(name, file, version, device, precision, runtime)


@lru_cache(maxsize=4)  # a query costs a forward pass, not a load
def _load_named(
    name: str,
    file: Path | None,
    _version: int | None,
    device: str,
    precision: Precision,
    runtime: str,
) -> Backbone:
    return Backbone(build_spec(name, file), device, precision, runtime)


def with_windows(backbone: Backbone, *, windows: bool = True) -> Backbone:
    """Return what embeds long pictures by windows, or by their centre, if it crops that itself."""
    transform = backbone.transform
    if type(transform) is not Preprocessing or backbone.fingerprint.endswith(SUFFIX) == windows:
        return backbone
    if backbone not in _other_way:
        same = _other_way[backbone] = object.__new__(type(backbone))
        vars(same).update(vars(backbone), transform=replace(transform, windows=windows))
        same.fingerprint = backbone.fingerprint.removesuffix(SUFFIX) + SUFFIX * windows
    return _other_way[backbone]


def _best_device() -> str:
    import torch

    on_mac = torch.backends.mps.is_available()
    return "cuda" if torch.cuda.is_available() else "mps" if on_mac else "cpu"
