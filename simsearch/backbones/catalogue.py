"""Which backbone to take: what each is best at, its width, cost, licence and published figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from simsearch.backbones.profiles import PROFILES

OML = "https://github.com/OML-Team/open-metric-learning/blob/main/docs/readme/zoo.md"
DINOV2 = "https://github.com/facebookresearch/dinov2/blob/main/MODEL_CARD.md"
SIGLIP2 = (
    "https://github.com/google-research/big_vision/blob/main/big_vision/configs/proj/image_text/"
    "README_siglip2.md"
)
MIEB = "https://github.com/embeddings-benchmark/results/tree/main/results/"
SSCD = "https://github.com/facebookresearch/sscd-copy-detection/blob/main/docs/Evaluation.md"


@dataclass(frozen=True)
class BackboneInfo:
    """What is known of a backbone before it is loaded.

    Attributes
    ----------
    name : str
        What `load_backbone` takes.
    profile : str
        "scenes", "products" or "copies" if that stands for it; "" otherwise.
    best_for : str
        What it is best at.
    dim : int
        Width of its embeddings.
    cost : float
        Multiplications of a picture, beside ResNet50's 4.09 billion.
    licence : str
        Of the weights, and whether they may be used commercially.
    figures : str
        What its authors or a comparison published.
    source : str
        Where the figures stand.
    mieb : str
        Recall@1 in MIEB (arXiv:2504.10471): products are Stanford Online Products, birds CUB 200.
        "" where MIEB has no such network.
    mieb_source : str
        Where these stand.
    """

    name: str
    profile: str
    best_for: str
    dim: int
    cost: float
    licence: str
    figures: str
    source: str
    mieb: str = ""
    mieb_source: str = ""


def list_backbones() -> list[BackboneInfo]:
    """List the backbones that the guide recommends, and what is known of each.

    Any other torchvision classifier and timm model can be loaded as well. Nothing is downloaded.

    Returns
    -------
    list of BackboneInfo
        Also a table: ``pandas.DataFrame(list_backbones())``.

    Examples
    --------
    >>> from simsearch import list_backbones
    >>> [each.name for each in list_backbones() if each.profile == "copies"]
    ['sscd_disc_mixup']
    """
    profiles = {network: name for name, network in PROFILES.items()}
    return [BackboneInfo(row[0], profiles.get(row[0], ""), *row[1:]) for row in _ROWS]


_ROWS: tuple[tuple[Any, ...], ...] = (
    (
        "efficientnet_lite0",
        "no download, and the least work: a laptop, thousands of pictures",
        1280,
        0.09,
        "Apache-2.0, commercial use",
        "mAP 0.671 on the Intel scenes",
        "benchmarks/README.md",
    ),
    (
        "resnet50",
        "objects of ImageNet's kinds; heat maps; words",
        2048,
        1.0,
        "none is declared; ImageNet's pictures are for research",
        "CMC@1: products 0.515, clothes 0.284, birds 0.455, cars 0.247",
        OML,
    ),
    (
        "timm:vit_small_patch14_dinov2.lvd142m@224",
        "scenes, nature, single objects and places",
        384,
        1.5,
        "Apache-2.0, commercial use",
        "ImageNet k-NN 79.0%, iNaturalist 69.5%, Oxford hard mAP 43.2",
        DINOV2,
        "products 0.482, birds 0.835",
        MIEB + "facebook__dinov2-small",
    ),
    (
        "timm:vit_base_patch14_dinov2.lvd142m@224",
        "the same, better and slower",
        768,
        5.66,
        "Apache-2.0, commercial use",
        "ImageNet k-NN 82.1%, iNaturalist 76.3%, Oxford hard mAP 49.5",
        DINOV2,
        "products 0.481, birds 0.857",
        MIEB + "facebook__dinov2-base",
    ),
    (
        "timm:vit_base_patch16_siglip_224.v2_webli",
        "products, and kinds that captions tell apart",
        768,
        4.33,
        "Apache-2.0, commercial use",
        "ImageNet zero-shot 78.2%, COCO text to image R@1 52.1, image to text 68.9",
        SIGLIP2,
        "products 0.592, birds 0.686: SigLIP, which came before it",
        MIEB + "google__siglip-base-patch16-224",
    ),
    (
        "timm:vit_base_patch16_clip_224.openai",
        "products, cars, clothes",
        768,
        4.3,
        "Apache-2.0 as timm publishes it, commercial use",
        "CMC@1, projected to 512: products 0.648, clothes 0.606, birds 0.665, cars 0.767",
        OML,
        "products 0.503, birds 0.619",
        MIEB + "openai__clip-vit-base-patch16",
    ),
    (
        "sscd_disc_mixup",
        "copies, edited or pasted into others",
        512,
        2.04,
        "MIT, commercial use",
        "DISC2021 µAP 0.609, 0.718 with score normalisation; Copydays strong mAP 0.884, centred",
        SSCD,
    ),
)
