"""Small CLIP networks of five architectures with seeded weights, and a tokenizer of a file."""

import json

import open_clip
import torch
from open_clip import factory, pretrained
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from simsearch.backbones.clip_text import load_clip_text

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
VIT = {"image_size": 224, "patch_size": 32, "width": 32, "layers": 2, "head_width": 16}
TIMM = {"timm_model_pretrained": False, "timm_pool": "map"}
SIGLIP = {"clean": "canonicalize"}
# Small networks of five architectures: of OpenAI's two, SigLIP2's, PE-Core's and CoCa's.
CONFIGS = {
    "tiny-ViT": {"embed_dim": 16, "vision_cfg": VIT, "text_cfg": TEXT},
    "tiny-RN": {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
        "text_cfg": TEXT,
    },
    "tiny-SigLIP2": {
        "embed_dim": 192,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": TIMM
        | {"image_size": 224, "timm_model_name": "vit_tiny_patch16_224", "timm_proj": "none"},
        "text_cfg": TEXT
        | {"context_length": 12, "vocab_size": 60, "hf_tokenizer_name": "timm/tiny"}
        | {"no_causal_mask": True, "pool_type": "last", "tokenizer_kwargs": SIGLIP},
    },
    "tiny-PE": {
        "embed_dim": 512,
        "custom_text": True,
        "vision_cfg": TIMM
        | {"image_size": 384, "timm_model_name": "vit_pe_core_tiny_patch16_384", "timm_proj": None},
        "text_cfg": TEXT | {"context_length": 32},
    },
    "tiny-CoCa": {
        "embed_dim": 16,
        "custom_text": True,
        "vision_cfg": VIT
        | {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
        "text_cfg": TEXT | {"context_length": 76, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {"context_length": 76, "vocab_size": 49408, "width": 32, "heads": 2}
        | {"layers": 1, "attn_pooler_heads": 2},
    },
}
TAGS = {
    "tiny-ViT": {"plain": pretrained._pcfg(), "quick": pretrained._pcfg(quick_gelu=True)},
    "tiny-SigLIP2": {"webli": pretrained._slpcfg()},
    "tiny-PE": {"meta": pretrained._pecfg(hf_hub="timm/tiny-PE/")},
}
NAMES = ["tiny-ViT:plain", "tiny-ViT:quick", *[name for name in CONFIGS if name != "tiny-ViT"]]


def add_tiny_models(monkeypatch):
    """Let open_clip know the small networks."""
    for name, config in CONFIGS.items():
        monkeypatch.setitem(factory._MODEL_CONFIGS, name, config)
        monkeypatch.setitem(pretrained._PRETRAINED, name, TAGS.get(name, {}))
    load_clip_text.cache_clear()


def make_network(name, file):
    """Make a network of open_clip's own with seeded weights, and save these."""
    model, _, tag = name.partition(":")
    tags = TAGS.get(model, {})
    settings = tags.get(tag) or next(iter(tags.values()), {})
    keys = {"mean", "std", "interpolation", "resize_mode"} & settings.keys()
    torch.manual_seed(0)
    network = open_clip.create_model(
        model,
        force_quick_gelu=settings.get("quick_gelu", False),
        force_preprocess_cfg={key: settings[key] for key in keys},
    ).eval()
    torch.save(network.state_dict(), file)
    return network


def save_tokenizer(folder, words="a street at night dog", **settings):
    """Save a tokenizer as the hub has SigLIP2's: the end of a text is marked, the rest filled."""
    vocabulary = ["<pad>", "<eos>", "<unk>", *words.split()]
    numbers = {word: number for number, word in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(numbers, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("$A <eos>", None, [("<eos>", 1)])
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<pad>"} | settings))
