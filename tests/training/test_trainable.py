"""The trainable stage of a backbone, and its precision."""

import numpy as np
import pytest
import tiny_tune
import torch
from PIL import Image
from tiny_tune import LAST_EPOCH, SETTINGS, mean_average_precision, same_result
from torch import nn
from torchvision import models

import simsearch as ss
from simsearch.errors import BackboneError, TrainingError
from simsearch.training import trainable, trainer
from simsearch.training.trainable import TrainableBackbone, last_stage

pytestmark = pytest.mark.usefixtures("quick_training")


class TestTrainableBackbone:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("resnet18", ("layer4",)),
            ("resnet50", ("layer4",)),
            ("resnet152", ("layer4",)),
            ("convnext_tiny", ("features.7", "classifier")),  # of which a norm is left
            ("densenet121", ("features.denseblock4", "features.norm5")),
            ("swin_t", ("features.7", "norm")),
            (
                "vit_b_16",
                (*(f"encoder.layers.encoder_layer_{i}" for i in (8, 9, 10, 11)), "encoder.ln"),
            ),
        ],
    )
    def test_last_stage_of_known_networks(self, name, expected):
        with torch.device("meta"):
            module = models.get_model(name)
        linear = [key for key, x in module.named_modules() if isinstance(x, nn.Linear)][-1]
        module.set_submodule(linear, nn.Identity())
        sizes = {key: weight.numel() for key, weight in module.named_parameters()}
        assert last_stage(module, sizes) == expected

    def test_last_stage_holds_a_quarter_of_the_used_parameters(self):
        """EfficientNet-Lite0 has a classifier of a quarter of its weights, which is not used."""
        stage = TrainableBackbone(ss.load_backbone("efficientnet_lite0", device="cpu"))
        assert stage.names == ("_blocks.15", "_conv_head", "_bn1")
        weights = dict(stage.network.module.named_parameters())
        used = sum(weight.numel() for key, weight in weights.items() if "_fc" not in key)
        opened = sum(weight.numel() for weight in stage.parameters.values())
        assert 0.25 <= opened / used < 0.4
        assert {key for key, x in weights.items() if x.requires_grad} == set(stage.parameters)

    def test_network_without_child_modules(self):
        class Line(nn.Module):
            def __init__(self):
                super().__init__()
                self.weight = nn.Parameter(torch.ones(5, 3))

            def forward(self, images):
                return images.mean(dim=(2, 3)) @ self.weight.T

        assert TrainableBackbone(tiny_tune.load(Line())).names == ("weight",)

    def test_embeddings_equal_those_of_the_backbone(self, library):
        """An image more, so that what is compared is no multiple of anything."""
        backbone = ss.load_backbone("efficientnet_lite0", device="cpu", precision="float32")
        images = [Image.open(path).resize((300, 260)) for path in library.paths[:3]]
        batch = np.stack([backbone.prepare(image) for image in images])
        found = TrainableBackbone(backbone)(batch)
        np.testing.assert_allclose(found.detach().numpy(), backbone.embed(batch), atol=1e-4)
        assert found.requires_grad

    def test_chosen_modules_are_trained(self, library):
        trained = ss.train_head(library, stage=["stem.0", "last.0"], **LAST_EPOCH)
        after, before = trained.tuned.module.state_dict(), tiny_tune.two_stages().state_dict()
        changed = {key for key, value in after.items() if not torch.equal(value, before[key])}
        assert changed == {f"{name}.0.{kind}" for name in ("stem", "last") for kind in KINDS}
        assert trained.stage == ("stem.0", "last.0")

    @pytest.mark.parametrize("names", ["first", ["last", "lasts"], [], "last.2"])
    def test_unknown_modules_are_refused(self, library, names):
        with pytest.raises(TrainingError, match=r"is no module .*; the modules are stem, "):
            ss.train_head(library, stage=names, **SETTINGS)

    def test_network_without_gradients_is_refused(self):
        class Still(nn.Module):
            def __init__(self):
                super().__init__()
                self.inner = tiny_tune.two_stages()

            @torch.no_grad()
            def forward(self, images):
                return self.inner(images)

        with pytest.raises(TrainingError, match="Still gives no gradients"):
            TrainableBackbone(tiny_tune.load(Still()))

    def test_changed_weights_are_refused(self):
        module = tiny_tune.two_stages()
        backbone = tiny_tune.load(module)
        with torch.no_grad():
            module.last[0].weight.add_(1)
        with pytest.raises(BackboneError, match="have changed since"):
            TrainableBackbone(backbone)


KINDS = ("weight", "bias")


class TestPrecision:
    @pytest.mark.parametrize("precision", ["bfloat16", "float16"])
    def test_half_precision_learns_and_is_kept_on_resume(
        self, library, trained, monkeypatch, tmp_path, precision
    ):
        """The processor stands in for a GPU: float16 with its scaled gradients works on both."""
        monkeypatch.setattr(trainable, "training_precision", lambda device: precision)
        options = SETTINGS | {"epochs": 8, "patience": 8}
        half = ss.train_head(library, checkpoint=tmp_path, **options)
        assert mean_average_precision(half.after) > mean_average_precision(half.alone) + 0.1
        weights = half.tuned.module.state_dict().values()
        assert {weight.dtype for weight in weights if weight.is_floating_point()} == {torch.float32}
        stored = torch.load(tmp_path / trainer.FILE_NAME, weights_only=True)["state"]["tuner"]
        assert stored["precision"] == ["cpu", precision]
        assert ("scale" in stored["scaler"]) == (precision == "float16")
        monkeypatch.setattr(trainable, "training_precision", lambda device: "float32")
        assert same_result(half, ss.train_head(library, checkpoint=tmp_path, **options))

    @pytest.mark.parametrize(
        ("device", "bfloat16", "expected"),
        [
            ("cuda", True, "bfloat16"),
            ("cuda", False, "float16"),
            ("cpu", True, "bfloat16"),
            ("cpu", False, "float32"),
            ("mps", True, "float32"),
        ],
    )
    def test_precision_is_chosen_by_device(self, monkeypatch, device, bfloat16, expected):
        monkeypatch.setattr(trainable, "bfloat16_is_fast", lambda: bfloat16)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: bfloat16)
        assert trainable.training_precision(torch.device(device)) == expected
