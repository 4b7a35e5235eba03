"""The last stage of a backbone learns from images: augmentation, gradients, a checkpoint an epoch.

Who is in a batch, and what the loss is, comes from outside. What is drawn at random follows from
the seed, the epoch and the place in the batch alone: a training that was killed goes on as if it
had never stopped, however many threads decode.

All before the stage stays frozen, and batch norms keep their statistics. That the head learns
first, on the frozen features, and only then both together, is from [1]_: a random head's gradients
would spoil what the backbone knows. The crops are those of [2]_.

.. [1] A. Kumar, A. Raghunathan, R. Jones, T. Ma, P. Liang. Fine-Tuning can Distort Pretrained
   Features and Underperform Out-of-Distribution. ICLR 2022.
.. [2] C. Szegedy, W. Liu, Y. Jia, et al. Going Deeper with Convolutions. CVPR 2015.
"""

from __future__ import annotations

import io
import json
import logging
import math
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from filelock import FileLock, Timeout
from PIL import Image, ImageEnhance

from simsearch.backbones.precision import bfloat16_is_fast
from simsearch.backbones.preprocessing import Preprocessing, normalise
from simsearch.backbones.spec import OWN_WEIGHTS, pool
from simsearch.errors import ImageError, TrainingError
from simsearch.images.decode import load_image
from simsearch.training.trainer import check_loss, check_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Future
    from contextlib import AbstractContextManager
    from typing import Any, TypeAlias

    import torch
    from numpy.typing import NDArray

    from simsearch.backbones.backbone import Backbone
    from simsearch.backbones.spec import ModelSpec

    Loss: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    Plan: TypeAlias = Callable[[int], Iterable[tuple[NDArray[np.intp], NDArray[np.intp]]]]

logger = logging.getLogger("simsearch")

CHECKPOINT = "checkpoint.pt"

_SHARE = 0.25  # of the parameters that the last stage holds at least
_LARGE = 0.8  # of them in one module: it is no stage, its parts are
_AREA, _RATIO = (0.35, 1.0), (3 / 4, 4 / 3)  # of a random crop
_JITTER = 0.2  # by which brightness, contrast and colour vary
_MAX_WORKERS = 16  # beyond that, threads wait for the interpreter's lock
_AHEAD = 2  # batches that are decoded while one is learned from
_BATCH = 64  # images that are embedded together
_WARM_UP = 0.1  # of all steps


class Stage:
    """A backbone whose last stage learns: prepared images in, unit embeddings with gradients out.

    Parameters
    ----------
    backbone
        The frozen one; it stays as it is.
    names
        Of the modules to open, as `named_modules` has them; None for `last_stage`.

    Attributes
    ----------
    network : Network
        A copy of its own, in float32.
    names : tuple of str
    parameters : dict of str to torch.nn.Parameter
        Those that learn.

    Raises
    ------
    TrainingError
        If the names are none of this network's, or it gives no gradients.
    """

    def __init__(self, backbone: Backbone, names: str | Sequence[str] | None = None) -> None:
        import torch

        self.backbone, self.network = backbone, backbone.thaw()
        module = self.network.module.requires_grad_(True)
        gradients = _gradients(self.network, backbone)
        sizes = {name: weight.numel() for name, weight in gradients.items()}
        self.names = last_stage(module, sizes) if names is None else _known(module, sizes, names)
        module.requires_grad_(False)
        module.to(backbone.device).to(memory_format=torch.channels_last)
        weights = dict(module.named_parameters())
        self.parameters = {
            name: weights[name].requires_grad_(True)
            for name in gradients
            if _within(name, self.names)
        }
        self.precision = _training_precision(backbone.device)

    def __call__(self, batch: NDArray[Any]) -> torch.Tensor:
        """Embed prepared images: (B, S, S, 3) uint8 or (B, 3, H, W) float32 to (B, D) float32."""
        import torch

        inputs = torch.from_numpy(batch).to(self.backbone.device)
        with self._autocast():
            output = self.network.module(normalise(inputs, self.network.transform))
        pooled = pool(output.float(), self.network.pooling)
        return torch.nn.functional.normalize(pooled)

    def _autocast(self) -> AbstractContextManager[Any]:
        import torch

        mixed = self.precision != "float32"
        dtype = getattr(torch, self.precision) if mixed else None
        return torch.autocast(self.backbone.device.type, dtype, enabled=mixed)

    def tuned(self) -> ModelSpec:
        """Return the network as it is now, on the processor; the stage is of no use afterwards."""
        import torch

        self.network.module.to("cpu").to(memory_format=torch.contiguous_format)
        own = self.network.weights == OWN_WEIGHTS
        return self.network if own else replace(self.network, weights="fine-tuned")


def _gradients(network: ModelSpec, backbone: Backbone) -> dict[str, torch.nn.Parameter]:
    """Return the parameters that an embedding depends on; a cut classifier's are not among them."""
    import torch

    probe = torch.from_numpy(backbone.probe())
    output = network.module(normalise(probe, network.transform))
    found: dict[str, torch.nn.Parameter] = {}
    if output.requires_grad:
        output.sum().backward()
        found = {k: v for k, v in network.module.named_parameters() if v.grad is not None}
    network.module.zero_grad()
    if not found:
        raise TrainingError(
            f"{network.name} gives no gradients, so nothing of it can learn: its forward must not "
            "switch them off"
        )
    return found


def last_stage(module: torch.nn.Module, sizes: Mapping[str, int]) -> tuple[str, ...]:
    """Name the last modules, as many as hold a quarter of the parameters.

    Modules are taken from the back, in the order in which they were registered; one that holds
    more than 80% of the parameters is taken apart. This gives `layer4` of every ResNet, the last
    stage of ConvNeXt, the last blocks of EfficientNets and vision transformers.

    Parameters
    ----------
    module
        The network.
    sizes
        How many numbers each of its parameters holds; those that are not used are left out.
    """

    def held(unit: str) -> int:
        return sum(size for name, size in sizes.items() if _within(name, (unit,)))

    total = sum(sizes.values())
    units = [name for name, _ in module.named_children()]
    while large := next((unit for unit in units if held(unit) > _LARGE * total), None):
        inner = [f"{large}.{name}" for name, _ in module.get_submodule(large).named_children()]
        if not inner:
            break
        place = units.index(large)
        units[place : place + 1] = inner
    names: list[str] = []
    for unit in reversed(units):
        if held(unit):
            names.insert(0, unit)
        if sum(map(held, names)) >= _SHARE * total:
            break
    return tuple(names or sizes)  # a network without parts is its own last stage


def _within(parameter: str, names: Sequence[str]) -> bool:
    return any(parameter == name or parameter.startswith(f"{name}.") for name in names)


def _known(
    module: torch.nn.Module, sizes: Mapping[str, int], names: str | Sequence[str]
) -> tuple[str, ...]:
    """Check names of a stage that a user chose."""
    chosen = (names,) if isinstance(names, str) else tuple(names)
    for name in chosen or ("",):
        if not any(_within(key, (name,)) for key in sizes):
            known = [key for key, _ in module.named_children()] or list(sizes)
            raise TrainingError(
                f"stage={name!r} names nothing that could learn; there are "
                f"{', '.join(known[:20])}, and their parts"
            )
    return chosen


def _training_precision(device: torch.device) -> str:
    """Half precision for the products, where the device is fast at it.

    bfloat16 has float32's range, so that its gradients need no scaling; float16's do.
    """
    import torch

    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    return "bfloat16" if device.type == "cpu" and bfloat16_is_fast() else "float32"


def augment(image: Image.Image, rng: np.random.Generator, side: int | None = None) -> Image.Image:
    """Cut a random part, mirror it or not, and vary brightness, contrast and colour a little.

    Not by torchvision's transforms: those draw from one generator that all threads share, so that
    the outcome would depend on which thread comes first.

    Parameters
    ----------
    image
        RGB.
    rng
        Of this image alone.
    side
        Resize the part to a square of this many pixels; None leaves it as it was cut.
    """
    area = image.width * image.height * rng.uniform(*_AREA)
    ratio = math.exp(rng.uniform(math.log(_RATIO[0]), math.log(_RATIO[1])))
    width = min(image.width, max(1, round(math.sqrt(area * ratio))))
    height = min(image.height, max(1, round(math.sqrt(area / ratio))))
    left = int(rng.integers(image.width - width, endpoint=True))
    top = int(rng.integers(image.height - height, endpoint=True))
    box = (left, top, left + width, top + height)
    size = (side, side) if side else (width, height)
    image = image.resize(size, Image.Resampling.BILINEAR, box)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = change(image).enhance(rng.uniform(1 - _JITTER, 1 + _JITTER))
    return image


class _Task(NamedTuple):
    """A batch to be decoded."""

    rows: NDArray[np.intp]
    codes: NDArray[np.intp]
    seeds: tuple[int, ...] | None  # of the augmentation; None for the images as they are


class Pictures:
    """The images of a library, decoded in threads, ahead of the network.

    Attributes
    ----------
    unreadable : dict of int to str
        Row and reason of each image that could not be read; it is left out of its batches.
    """

    def __init__(self, paths: NDArray[np.str_], backbone: Backbone) -> None:
        self.paths, self.backbone = paths, backbone
        self.unreadable: dict[int, str] = {}
        transform = backbone.transform
        self._side = transform.crop if isinstance(transform, Preprocessing) else None
        # So many pixels of the whole that the smallest crop still has enough.
        self._detail = round(self._side / math.sqrt(_AREA[0])) if self._side else None

    def batches(self, tasks: Iterable[_Task]) -> Generator[tuple[NDArray[Any], _Task]]:
        """Yield prepared images, and the task less those that could not be read."""
        waiting: deque[tuple[_Task, list[Future[NDArray[Any] | None]]]] = deque()
        threads = ThreadPoolExecutor(min(os.cpu_count() or 1, _MAX_WORKERS), "simsearch-finetune")
        try:
            for task in tasks:
                waiting.append(
                    (task, [threads.submit(self._load, task, i) for i in range(len(task.rows))])
                )
                if len(waiting) > _AHEAD:
                    yield from self._collect(*waiting.popleft())
            while waiting:
                yield from self._collect(*waiting.popleft())
        finally:
            threads.shutdown(cancel_futures=True)

    def _collect(
        self, task: _Task, loading: Sequence[Future[NDArray[Any] | None]]
    ) -> Iterator[tuple[NDArray[Any], _Task]]:
        images = [future.result() for future in loading]
        good = [i for i, image in enumerate(images) if image is not None]
        if good:
            stacked = np.stack([image for image in images if image is not None])
            yield stacked, task._replace(rows=task.rows[good], codes=task.codes[good])

    def _load(self, task: _Task, i: int) -> NDArray[Any] | None:
        row = int(task.rows[i])
        if row in self.unreadable:
            return None
        plain = task.seeds is None
        try:
            image = load_image(
                str(self.paths[row]), self.backbone.min_side if plain else self._detail
            )
        except ImageError as error:
            self.unreadable[row] = error.reason
            return None
        if task.seeds is None:
            return self.backbone.prepare(image)
        image = augment(image, np.random.default_rng([*task.seeds, i]), self._side)
        return np.array(image) if self._side else self.backbone.prepare(image)

    def none(self) -> TrainingError:
        """Say that not a single image can be read."""
        row, reason = next(iter(self.unreadable.items()))
        return TrainingError(
            f"none of the images can be read: {self.paths[row]}: {reason}; "
            'ImageLibrary.load(outputs, root="new/place") opens a library that has moved'
        )


class Tuner:
    """What learns epoch by epoch: a stage, and the modules that follow it.

    Parameters
    ----------
    stage, pictures
        The backbone, and the images.
    modules
        What learns beside the stage, by name, on the stage's device.
    loss
        Of (B, D) embeddings and (B,) class numbers.
    plan
        The batches of an epoch, by its number: (B,) rows and class numbers.
    steps
        How many an epoch has.
    epochs
        How many there are, so that the learning rate falls to zero in the end.
    rate, stage_rate, weight_decay
        Of AdamW; the rate of the modules, and that of the stage.
    seed
        Of the augmentation and of dropout.
    """

    name, unit = "Fine-tuning", "batch"

    def __init__(
        self,
        stage: Stage,
        pictures: Pictures,
        modules: Mapping[str, torch.nn.Module],
        loss: Loss,
        plan: Plan,
        *,
        steps: int,
        epochs: int,
        rate: float,
        stage_rate: float,
        weight_decay: float,
        seed: int,
    ) -> None:
        import torch

        self.stage, self.pictures, self.modules = stage, pictures, modules
        self.ticks, self.seed = steps, seed
        self._loss, self._plan, self._total = loss, plan, steps * epochs
        others = [weight for module in modules.values() for weight in module.parameters()]
        self._optimizer = torch.optim.AdamW(
            [
                {"params": others, "lr": rate, "rate": rate},
                {"params": [*stage.parameters.values()], "lr": stage_rate, "rate": stage_rate},
            ],
            weight_decay=weight_decay,
        )
        self._scaler = torch.amp.GradScaler(
            stage.backbone.device.type, enabled=stage.precision == "float16"
        )

    def learn(self, number: int, tick: Callable[[float], object]) -> float:
        """Train for one epoch; return the mean loss."""
        import torch

        torch.manual_seed(self.seed * 100_003 + number)  # of dropout
        tasks = (
            _Task(rows, codes, (self.seed, number, i))
            for i, (rows, codes) in enumerate(self._plan(number))
        )
        losses: list[float] = []
        with closing(self.pictures.batches(tasks)) as batches:  # its threads end with an error, too
            for images, task in batches:
                codes = torch.from_numpy(task.codes).to(self.stage.backbone.device)
                loss = self._loss(self.stage(images), codes)
                losses.append(check_loss(loss, number))
                self._step(loss, (number - 1) * self.ticks + len(losses))
                tick(losses[-1])
        if not losses:
            raise self.pictures.none()
        check_weights(
            (weight for group in self._optimizer.param_groups for weight in group["params"]), number
        )
        return sum(losses) / len(losses)

    def _step(self, loss: torch.Tensor, step: int) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = group["rate"] * _schedule(step / self._total)
        self._optimizer.zero_grad()
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._scaler.step(self._optimizer)
        self._scaler.update()

    def embed(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Embed images as they are: (n, D) float32, unit norm; NaN where one cannot be read."""
        import torch

        width = self.stage.backbone.dim
        embeddings = np.full((len(rows), width), np.nan, np.float32)
        places = np.arange(len(rows))
        tasks = (
            _Task(rows[i : i + _BATCH], places[i : i + _BATCH], None)
            for i in range(0, len(rows), _BATCH)
        )
        with torch.no_grad():
            for images, task in self.pictures.batches(tasks):
                embeddings[task.codes] = self.stage(images).cpu().numpy()
        return embeddings

    def weights(self) -> dict[str, Any]:
        """Return copies of all that learns."""
        named = {name: module.state_dict() for name, module in self.modules.items()}
        named["stage"] = dict(self.stage.parameters)
        return {
            name: {key: weight.detach().cpu().clone() for key, weight in state.items()}
            for name, state in named.items()
        }

    def restore(self, weights: Mapping[str, Any]) -> None:
        """Take weights over."""
        import torch

        for name, module in self.modules.items():
            module.load_state_dict(weights[name])
        with torch.no_grad():
            for key, weight in self.stage.parameters.items():
                weight.copy_(weights["stage"][key])

    def state(self) -> dict[str, Any]:
        """Return all that the next epoch depends on."""
        return {
            "weights": self.weights(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "precision": [self.stage.backbone.device.type, self.stage.precision],
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.restore(state["weights"])
        self._optimizer.load_state_dict(state["optimizer"])
        device, precision = state["precision"]
        if device == self.stage.backbone.device.type:
            self.stage.precision = precision  # a busy processor may have judged otherwise today
        if state["scaler"] and self._scaler.is_enabled():
            self._scaler.load_state_dict(state["scaler"])


def _schedule(passed: float) -> float:
    """Return the share of the learning rate: a short linear rise, then half a cosine to zero."""
    if passed < _WARM_UP:
        return passed / _WARM_UP
    return (1 + math.cos(math.pi * (passed - _WARM_UP) / (1 - _WARM_UP))) / 2


class Checkpoint:
    """One file that holds a training after its last whole epoch.

    Written beside its place and renamed over it; it holds tensors and plain values, no code.

    Parameters
    ----------
    folder
        Made if need be.
    settings
        All that decides how the training goes, ready for JSON: another training's file is refused.

    Raises
    ------
    TrainingError
        If the file cannot be read or written, or is another training's.
    """

    def __init__(self, folder: str | os.PathLike[str], settings: Mapping[str, Any]) -> None:
        self.file = Path(folder).expanduser() / CHECKPOINT
        self._settings: dict[str, Any] = json.loads(json.dumps(settings, default=str))

    @contextmanager
    def hold(self) -> Iterator[dict[str, Any] | None]:
        """Keep other processes out; give the state that was written last, None if there is none."""
        lock = FileLock(self.file.with_name(".lock"), timeout=0)
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            raise TrainingError(
                f"another process is training in {self.file.parent.as_posix()!r}; wait for it, "
                "or choose another checkpoint="
            ) from None
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            yield self._read()
        finally:
            lock.release()

    def _unwritable(self, error: OSError) -> TrainingError:
        return TrainingError(
            f"cannot write {self.file.as_posix()!r}: {error.strerror or error}; the epochs that "
            "were written are kept: make room and run again"
        )

    def _read(self) -> dict[str, Any] | None:
        import torch

        if not self.file.exists():
            return None
        try:
            stored = torch.load(self.file, map_location="cpu", weights_only=True)
            settings, state = json.loads(stored["settings"]), stored["state"]
        except Exception as error:  # torch, pickle and zip each raise their own
            raise self._refused(f"is damaged ({type(error).__name__})") from error
        names = sorted(settings.keys() | self._settings.keys())
        changed = [
            f"{name} was {settings.get(name)!r} and is {self._settings.get(name)!r}"
            for name in names
            if settings.get(name) != self._settings.get(name)
        ]
        if changed:
            raise self._refused(f"is of another training ({'; '.join(changed)})")
        found: dict[str, Any] = state
        return found

    def _refused(self, what: str) -> TrainingError:
        return TrainingError(
            f"the checkpoint {self.file.as_posix()!r} {what}; delete it to start anew, or choose "
            "another checkpoint="
        )

    def write(self, state: Mapping[str, Any]) -> None:
        """Replace the state; once this returns, killing the process does not lose it."""
        import torch

        part = self.file.with_name(f"{CHECKPOINT}.part")
        whole = io.BytesIO()  # torch.save hides what a full disk says
        torch.save({"settings": json.dumps(self._settings), "state": dict(state)}, whole)
        try:
            with part.open("wb") as stream:
                stream.write(whole.getbuffer())
                stream.flush()
                os.fsync(stream.fileno())
            part.replace(self.file)
        except OSError as error:
            part.unlink(missing_ok=True)  # half a checkpoint would keep a full disk full
            raise self._unwritable(error) from error
