"""Types of the public names, and where each is defined: `__init__.py` loads them on use."""

from .analysis.album_levels import Album, AlbumLevel, Albums
from .analysis.albums import albums, show_albums
from .analysis.duplicates import DuplicateGroup, Duplicates, duplicates, show_duplicates
from .analysis.explain import heat_map
from .analysis.health import Finding, HealthReport, check_dataset, show_health
from .analysis.map import show_map
from .analysis.query_expansion import refine
from .backbones.backbone import Backbone, load_backbone
from .backbones.catalogue import BackboneInfo, list_backbones
from .backbones.heads import Head, ProjectionHead, load_head, save_head
from .cleanup.apply import CleanupResult, apply_cleanup
from .cleanup.plan import CleanupPlan, PlannedCopy, read_plan
from .cleanup.rules import plan_cleanup
from .cleanup.undo import UndoResult, undo_cleanup
from .cluster.lance import LanceLibrary
from .cluster.milvus.publish import Published, publish
from .cluster.milvus.remote_library import RemoteLibrary
from .cluster.ray import RayEngine
from .cluster.shards import Shards
from .embedding.dataset import embed_dataset
from .embedding.images import embed_images
from .errors import (
    ArrayError,
    BackboneError,
    DamagedLibraryError,
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
from .evaluation.evaluation import Evaluation, evaluate
from .evaluation.plots import show_confusion, show_precision_recall, show_worst
from .evaluation.thresholds import SuggestedThreshold, suggest_threshold
from .images.decode import load_image
from .images.listing import find_images
from .library.import_library import import_library
from .library.library import ImageLibrary
from .library.not_duplicates import mark_not_duplicates
from .library.parquet_export import export_library
from .library.verify import VerifyReport, verify_library
from .notebook.browse import browse
from .plotting.matches import show_matches
from .plotting.sheet import show_images
from .retrieval.faiss import FaissIndex, load_index
from .retrieval.faiss_build import build_index
from .retrieval.faiss_report import IndexReport
from .retrieval.k_reciprocal import KReciprocal
from .retrieval.matches import Match, Matches
from .retrieval.options import NEAR_DUPLICATE, RankingOptions, SearchOptions
from .retrieval.recommend import recommend
from .retrieval.search import search
from .retrieval.trust import TrustReport, trust_library
from .retrieval.words import Words
from .samples import make_sample
from .training.config import TrainConfig
from .training.head import train_head
from .training.report import TrainedHead, show_history

__all__ = [
    "NEAR_DUPLICATE",
    "Album",
    "AlbumLevel",
    "Albums",
    "ArrayError",
    "Backbone",
    "BackboneError",
    "BackboneInfo",
    "CleanupPlan",
    "CleanupResult",
    "DamagedLibraryError",
    "DatasetError",
    "DuplicateGroup",
    "Duplicates",
    "EngineError",
    "Evaluation",
    "FaissIndex",
    "Finding",
    "Head",
    "HealthReport",
    "ImageError",
    "ImageLibrary",
    "IndexReport",
    "KReciprocal",
    "LanceLibrary",
    "LibraryBusyError",
    "LibraryError",
    "Match",
    "Matches",
    "MissingExtraError",
    "PlannedCopy",
    "ProjectionHead",
    "Published",
    "QueryError",
    "RankingOptions",
    "RayEngine",
    "RemoteError",
    "RemoteLibrary",
    "SearchOptions",
    "Shards",
    "SimsearchError",
    "StaleIndexError",
    "StaleVersionError",
    "SuggestedThreshold",
    "TrainConfig",
    "TrainedHead",
    "TrainingError",
    "TrustReport",
    "UndoResult",
    "VerifyReport",
    "WeightsError",
    "Words",
    "albums",
    "apply_cleanup",
    "browse",
    "build_index",
    "check_dataset",
    "duplicates",
    "embed_dataset",
    "embed_images",
    "evaluate",
    "export_library",
    "find_images",
    "heat_map",
    "import_library",
    "list_backbones",
    "load_backbone",
    "load_head",
    "load_image",
    "load_index",
    "make_sample",
    "mark_not_duplicates",
    "plan_cleanup",
    "publish",
    "read_plan",
    "recommend",
    "refine",
    "save_head",
    "search",
    "show_albums",
    "show_confusion",
    "show_duplicates",
    "show_health",
    "show_history",
    "show_images",
    "show_map",
    "show_matches",
    "show_precision_recall",
    "show_worst",
    "suggest_threshold",
    "train_head",
    "trust_library",
    "undo_cleanup",
    "verify_library",
]
__version__: str
