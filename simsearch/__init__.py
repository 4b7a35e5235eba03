"""Image similarity search: a folder of pictures in, the most alike ones out.

import simsearch as ss

library = ss.embed_dataset("dataset", "outputs")
matches = ss.search(library, "dataset/seg_pred/102.jpg", k=5)
ss.show_matches(matches)
"""

from simsearch.backbones import Backbone, load_backbone
from simsearch.calibration import SuggestedThreshold, suggest_threshold
from simsearch.cluster.publishing import Published, publish
from simsearch.cluster.ray_engine import RayEngine
from simsearch.cluster.remote import RemoteLibrary
from simsearch.duplicates import NEAR_DUPLICATE, DuplicateGroup, Duplicates, duplicates
from simsearch.embedding import embed_dataset, embed_images
from simsearch.errors import (
    BackboneError,
    DatasetError,
    EngineError,
    ImageError,
    LibraryBusyError,
    LibraryError,
    MissingExtraError,
    QueryError,
    RemoteError,
    SimsearchError,
    StaleIndexError,
    StaleVersionError,
    TrainingError,
    WeightsError,
)
from simsearch.explain import heat_map
from simsearch.faiss_index import FaissIndex, IndexReport, build_index, load_index
from simsearch.heads import Head, ProjectionHead, load_head, save_head
from simsearch.images import find_images, load_image
from simsearch.library import ImageLibrary
from simsearch.matches import Match, Matches
from simsearch.metrics import Evaluation, evaluate
from simsearch.refine import refine
from simsearch.samples import make_sample
from simsearch.search import recommend, search
from simsearch.triplet import TrainedHead, train_head
from simsearch.viz import (
    show_confusion,
    show_duplicates,
    show_history,
    show_images,
    show_map,
    show_matches,
    show_precision_recall,
    show_worst,
)

__all__ = [
    "NEAR_DUPLICATE",
    "Backbone",
    "BackboneError",
    "DatasetError",
    "DuplicateGroup",
    "Duplicates",
    "EngineError",
    "Evaluation",
    "FaissIndex",
    "Head",
    "ImageError",
    "ImageLibrary",
    "IndexReport",
    "LibraryBusyError",
    "LibraryError",
    "Match",
    "Matches",
    "MissingExtraError",
    "ProjectionHead",
    "Published",
    "QueryError",
    "RayEngine",
    "RemoteError",
    "RemoteLibrary",
    "SimsearchError",
    "StaleIndexError",
    "StaleVersionError",
    "SuggestedThreshold",
    "TrainedHead",
    "TrainingError",
    "WeightsError",
    "build_index",
    "duplicates",
    "embed_dataset",
    "embed_images",
    "evaluate",
    "find_images",
    "heat_map",
    "load_backbone",
    "load_head",
    "load_image",
    "load_index",
    "make_sample",
    "publish",
    "recommend",
    "refine",
    "save_head",
    "search",
    "show_confusion",
    "show_duplicates",
    "show_history",
    "show_images",
    "show_map",
    "show_matches",
    "show_precision_recall",
    "show_worst",
    "suggest_threshold",
    "train_head",
]
__version__ = "0.1.0"
