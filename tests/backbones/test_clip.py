"""CLIP models: both towers and the preprocessing equal to open_clip's own, on seeded weights."""

import numpy as np
import open_clip
import pytest
import torch
from clip_networks import NAMES, add_tiny_models, make_network, save_tokenizer
from open_clip import pretrained
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

import simsearch as ss
from simsearch.backbones import clip_text
from simsearch.backbones.backbone import load_backbone
from simsearch.backbones.clip_text import ClipTextEncoder, load_clip_text, load_tokenizer
from simsearch.errors import BackboneError, MissingExtraError, WeightsError

TEXTS = [
    "a street at night",
    "Dog",
    "word " * 200,
    "日本語 🎉 naïve",
    "it's 5 o'clock &amp; raining",
]


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    add_tiny_models(monkeypatch)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Make a network of open_clip's own, once: the module, its file, and ours."""
    known = {}

    def make(name):
        if name not in known:
            file = tmp_path_factory.mktemp("clip") / "weights.pt"
            known[name] = make_network(name, file), file, load(name, file)
        return known[name]

    return make


def load(name, file, **options):
    return load_backbone(f"clip:{name}", file, device="cpu", precision="float32", **options)


@pytest.mark.parametrize("name", NAMES)
def test_the_image_tower_equals_open_clips(name, made, photos):
    network, file, backbone = made(name)
    photos = photos[:2]  # of which no pixel is rounded otherwise
    prepare = image_transform_v2(PreprocessCfg(**network.visual.preprocess_cfg), is_train=False)
    with torch.inference_mode():
        pictures = torch.stack([prepare(photo) for photo in photos])
        wanted = network.encode_image(pictures, normalize=True).numpy()
    assert (backbone.dim, backbone.weights) == (wanted.shape[1], str(file))
    np.testing.assert_allclose(backbone.encode(photos), wanted, atol=2e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_text_tower_equals_open_clips(name, made):
    network, file, backbone = made(name)
    save_tokenizer(file.parent)
    tokens = load_tokenizer(f"clip:{name}", file)(TEXTS)
    if name != "tiny-SigLIP2":  # whose tokenizer open_clip would fetch
        assert torch.equal(tokens, open_clip.get_tokenizer(name.partition(":")[0])(TEXTS))
    with torch.inference_mode():
        wanted = network.encode_text(tokens, normalize=True).numpy()
    tower = ClipTextEncoder(f"clip:{name}", file)
    np.testing.assert_allclose(tower.encode(TEXTS), wanted, atol=1e-5)
    assert tower.fingerprint == backbone.fingerprint


@pytest.mark.parametrize("size", [(640, 427), (427, 640), (1200, 300), (33, 35), (225, 224)])
@pytest.mark.parametrize("name", ["tiny-ViT:plain", "tiny-SigLIP2", "tiny-PE"])
def test_prepared_pictures_equal_open_clips(name, size, made):
    network, _file, backbone = made(name)
    noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)
    picture = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
    config = PreprocessCfg(**network.visual.preprocess_cfg)
    wanted = image_transform_v2(config, is_train=False)(picture).numpy()
    mean, std = (np.array(each)[:, None, None] for each in (config.mean, config.std))
    found = backbone.prepare(picture).transpose(2, 0, 1)
    levels = np.abs(found - 255 * (wanted * std + mean))
    if config.resize_mode == "squash":
        assert levels.max() < 0.01
    else:  # Pillow may resize rows before columns, or after them, and rounds in between
        assert np.quantile(levels, 0.999) < 1.01
        assert levels.max() < 8


def test_the_fingerprint_tells_of_both_towers_and_the_preprocessing(made, tmp_path):
    network, file, _ = made("tiny-ViT:plain")
    state = network.state_dict()
    prints = {load("tiny-ViT:plain", file).fingerprint, load("tiny-ViT:quick", file).fingerprint}
    for key in ("text_projection", "visual.proj"):
        torch.save(state | {key: state[key] + 1}, tmp_path / "other.pt")
        prints.add(load("tiny-ViT:plain", tmp_path / "other.pt").fingerprint)
        ss.backbones.backbone._load_named.cache_clear()
    assert len(prints) == 3  # the activation is no preprocessing, nor a weight
    assert load("tiny-ViT:plain", file).fingerprint in prints


def test_openvino_embeds_as_pytorch_does(made, photos):
    _, file, _ = made("tiny-RN")
    wanted = load("tiny-RN", file, runtime="torch").encode(photos)
    backbone = load("tiny-RN", file, runtime="openvino")
    assert backbone.runtime == "openvino"
    np.testing.assert_allclose(backbone.encode(photos), wanted, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-B-33", "open_clip has no model 'ViT-B-33'; did you mean 'ViT-B-32'"),
        ("vit-b-32:openai", "did you mean 'ViT-B-32'"),
        ("ViT-B-32:opnai", "no weights 'opnai' of ViT-B-32; did you mean 'openai'.; it has openai"),
        ("ViT-B-32", "several weights; say which"),
        ("ViT-S-32:laion", "none are published; pass weights=FILE"),
        ("", "open_clip has no model ''"),
    ],
)
def test_unknown_names_and_tags_are_told_with_the_closest(name, message):
    with pytest.raises(BackboneError, match=message):
        load(name, None)


def test_a_model_without_published_weights_needs_a_file():
    with pytest.raises(WeightsError, match="no weights of tiny-RN are published"):
        load("tiny-RN", None)


def test_a_file_of_a_model_with_several_preprocessings_needs_a_tag(made):
    _, file, _ = made("tiny-ViT:plain")
    with pytest.raises(BackboneError, match=r"clip:tiny-ViT:plain.*, or quick"):
        load("tiny-ViT", file)


def test_weights_that_cannot_be_fetched_are_told(monkeypatch):
    monkeypatch.setattr(pretrained, "download_pretrained", _no_network)
    with pytest.raises(WeightsError, match=r"clip:tiny-PE \(meta\) cannot be fetched.*no network"):
        load("tiny-PE", None)


def _no_network(*_):
    raise OSError("no network")


def test_weights_of_another_model_are_told(made, tmp_path):
    _, file, _ = made("tiny-RN")
    with pytest.raises(WeightsError, match="does not hold weights for tiny-PE"):
        load("tiny-PE", file)
    (tmp_path / "broken.safetensors").write_bytes(b"broken")
    with pytest.raises(WeightsError, match=r"broken.safetensors does not hold weights"):
        load("tiny-PE", tmp_path / "broken.safetensors")


def test_without_open_clip_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "open_clip", None)
    with pytest.raises(MissingExtraError, match=r"simsearch\[clip\]"):
        load("tiny-PE", None)


def test_a_tower_of_other_weights_than_the_librarys_is_refused(made):
    _, file, _ = made("tiny-RN")
    with pytest.raises(BackboneError, match="have changed since the library was made"):
        load_clip_text("clip:tiny-RN", str(file), "0" * 16)
    fingerprint = load("tiny-RN", file).fingerprint
    assert load_clip_text("clip:tiny-RN", str(file), f"{fingerprint}-int8-12").fingerprint


def test_a_tokenizer_beside_the_weights_is_read(made):
    _, file, _ = made("tiny-SigLIP2")
    save_tokenizer(file.parent)
    tokens = load_tokenizer("clip:tiny-SigLIP2", file)(["A street, at night!", "dog " * 30])
    assert tokens.tolist() == [[3, 4, 5, 6, 1, *[0] * 7], [*[7] * 11, 1]]
    save_tokenizer(file.parent, padding_side="left")
    tokens = load_tokenizer("clip:tiny-SigLIP2", file)(["dog"])
    assert tokens.tolist() == [[*[0] * 10, 7, 1]]


def test_a_tokenizer_that_does_not_fit_is_refused(made, monkeypatch, tmp_path):
    _, file, _ = made("tiny-SigLIP2")
    save_tokenizer(file.parent, " ".join(f"word{i}" for i in range(99)))
    with pytest.raises(WeightsError, match="102 tokens, and the network knows 60"):
        load_tokenizer("clip:tiny-SigLIP2", file)
    (file.parent / "tokenizer.json").write_text("{}")
    with pytest.raises(WeightsError, match="cannot be read"):
        load_tokenizer("clip:tiny-SigLIP2", file)
    save_tokenizer(file.parent, pad_token="<none>")
    with pytest.raises(WeightsError, match="names no pad_token"):
        load_tokenizer("clip:tiny-SigLIP2", file)


def test_a_tokenizer_that_cannot_be_fetched_is_told(made, monkeypatch):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", _no_network)
    with pytest.raises(WeightsError, match=r"put tokenizer.json and .* of timm/tiny beside"):
        load_tokenizer("clip:tiny-SigLIP2", None)
    assert clip_text.TOKENIZER == "tokenizer.json"


def test_a_reason_with_a_semicolon_is_told_whole(made, monkeypatch):
    def refuse(*_, **__):
        raise OSError("403; no access")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    with pytest.raises(WeightsError, match=r"\(403; no access\); put tokenizer.json"):
        load_tokenizer("clip:tiny-SigLIP2", None)
