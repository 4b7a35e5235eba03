"""One table of what users and saved files name by a word, with the dotted path that defines it.

Nothing is imported until a name is used, so that a stage of the pipeline needs no optional package.
"""

from __future__ import annotations

from pkgutil import resolve_name
from typing import Any

LARGE_BYTES = 10**8  # of rows, from which on a search reads a shortened copy of them
PATHS = {
    "backbone": {  # by name, or by prefix with its colon; "" for all others
        "efficientnet_lite0": "simsearch.backbones.adapters.efficientnet_lite0:efficientnet_lite0",
        "clip:": "simsearch.backbones.adapters.clip:clip_model",
        "timm:": "simsearch.backbones.adapters.timm:timm_model",
        "sscd_disc_mixup": "simsearch.backbones.adapters.sscd:sscd_network",
        **dict.fromkeys(("scenes", "products", "copies"), "simsearch.backbones.profiles:profile"),
        "": "simsearch.backbones.adapters.torchvision:torchvision_classifier",
    },
    "head": {  # by the kind that a saved head records
        "projection": "simsearch.backbones.heads:ProjectionHead",
        "chain": "simsearch.backbones.heads:HeadChain",
        "refine": "simsearch.backbones.refine_head:RefineHead",
        "gated": "simsearch.backbones.gated_head:GatedHead",
    },
    "index": {  # of the exact search, by what suits the size
        "pruned": "simsearch.retrieval.pruned:PrunedIndex",
        "prepare": "simsearch.retrieval.pruned_background:prepare",
        "prepare_parts": "simsearch.retrieval.part_index:prepare_parts",
    },
    "library": {  # several as one; at an address
        "several": "simsearch.cluster.shards:Shards",
        "fetch": "simsearch.library.object_store:fetch",
        "embed": "simsearch.library.object_store:embed_to_address",
    },
    "engine": {"": "simsearch.embedding.executors:choose_executor"},
    "rerank": {"k-reciprocal": "simsearch.retrieval.k_reciprocal:read_rerank"},
    "parts": {"embed": "simsearch.embedding.parts:embed_parts"},
    "executor": {  # by `embed_dataset(engine=...)`
        "local": "simsearch.embedding.batching:embed_batches",
        "ray": "simsearch.cluster.ray:RayEngine",
    },
    "download": {"public": "simsearch.web.url_fetch:fetch_public_url"},
    "widget": {"map": "simsearch.notebook.map_widget:LibraryMap"},
    "explainer": {"heat_maps": "simsearch.analysis.explain:overlay_heat_maps"},  # of matches
}


def resolve(role: str, name: str) -> Any:  # noqa: ANN401 (whatever the table points to)
    """Import what a name of a role stands for; a KeyError if the role has no such name."""
    return resolve_name(PATHS[role][name])
