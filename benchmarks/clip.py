"""Towers and preprocessing of `clip:` backbones beside open_clip's own, on seeded weights.

    python benchmarks/clip.py [NAME ...]

Published weights cannot be fetched everywhere, so that networks of open_clip's architectures are
filled with random numbers of one seed. Needs 8 GB of memory for the largest, SigLIP2's.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from common import verdict
from open_clip.pretrained import get_pretrained_cfg
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

import simsearch as ss
from simsearch.backbones.clip_text import ClipTextEncoder

NAMES = ("ViT-S-32", "RN50:openai", "PE-Core-T-16-384", "MobileCLIP2-S0", "ViT-B-32-SigLIP2-256")
TEXTS = ["a street at night", "word " * 200, "日本語 naïve", "it's 5 o'clock & raining"]
SETTINGS = ("mean", "std", "interpolation", "resize_mode")


def main() -> None:
    for name in sys.argv[1:] or NAMES:
        with tempfile.TemporaryDirectory() as folder:
            compare(name, Path(folder) / "weights.pt")


def compare(name: str, file: Path) -> None:
    network = random_network(name, file)
    started = time.process_time()
    backbone = ss.load_backbone(f"clip:{name}", file, device="cpu", precision="float32")
    seconds = time.process_time() - started
    print(f"{name}: {backbone.dim}-d, loaded in {seconds:.1f} CPU s")
    prepare = image_transform_v2(PreprocessCfg(**network.visual.preprocess_cfg), is_train=False)
    noise = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    pictures = [Image.fromarray(noise).resize(size) for size in ((600, 400), (512, 512))]
    with torch.inference_mode():
        wanted = network.encode_image(torch.stack(list(map(prepare, pictures))), normalize=True)
    verdict(
        "pictures: 1e6 × largest difference",
        1e6 * gap(backbone.encode(pictures), wanted),
        10,
        at_most=True,
    )
    if "SigLIP" in name:
        print("      words: the tokenizer is a file that is not here")
        return
    with torch.inference_mode():
        tokens = open_clip.get_tokenizer(name.partition(":")[0])(TEXTS)
        wanted = network.encode_text(tokens, normalize=True)
    tower = ClipTextEncoder(f"clip:{name}", file)
    verdict(
        "words: 1e6 × largest difference", 1e6 * gap(tower.encode(TEXTS), wanted), 10, at_most=True
    )
    differs = float(tower.fingerprint != backbone.fingerprint)
    verdict("fingerprints that differ", differs, 0, at_most=True)


def random_network(name: str, file: Path) -> Any:
    model, _, tag = name.partition(":")
    tags = open_clip.list_pretrained_tags_by_model(model)
    published = get_pretrained_cfg(model, tag or tags[0]) if tags else {}
    torch.manual_seed(0)
    network = open_clip.create_model(
        model,
        force_quick_gelu=published.get("quick_gelu", False),
        force_preprocess_cfg={key: published[key] for key in SETTINGS if key in published},
    ).eval()
    torch.save(network.state_dict(), file)
    return network


def gap(found: np.ndarray, wanted: torch.Tensor) -> float:
    return float(np.abs(found - wanted.numpy()).max())


if __name__ == "__main__":
    main()
