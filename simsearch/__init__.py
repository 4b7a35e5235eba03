"""Image similarity search: a folder of pictures in, the most alike ones out.

import simsearch as ss

library = ss.embed_dataset("dataset", "outputs")
matches = ss.search(library, "dataset/seg_pred/102.jpg", k=5)
ss.show_matches(matches)
"""

from simsearch.backbones import Backbone, load_backbone
from simsearch.embedding import embed_dataset, embed_images
from simsearch.errors import (
    BackboneError,
    DatasetError,
    ImageError,
    LibraryBusyError,
    LibraryError,
    MissingExtraError,
    QueryError,
    SimsearchError,
    WeightsError,
)
from simsearch.images import find_images, load_image
from simsearch.library import ImageLibrary
from simsearch.samples import make_sample
from simsearch.search import Match, Matches, search
from simsearch.viz import show_images, show_map, show_matches

__all__ = [
    "Backbone",
    "BackboneError",
    "DatasetError",
    "ImageError",
    "ImageLibrary",
    "LibraryBusyError",
    "LibraryError",
    "Match",
    "Matches",
    "MissingExtraError",
    "QueryError",
    "SimsearchError",
    "WeightsError",
    "embed_dataset",
    "embed_images",
    "find_images",
    "load_backbone",
    "load_image",
    "make_sample",
    "search",
    "show_images",
    "show_map",
    "show_matches",
]
__version__ = "0.1.0"
