"""Converted networks, kept in the user's own cache directory, and the backbone that they make.

An entry that is damaged, or that another user could have written, counts as none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import zipfile
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from simsearch.backbones.backbone import CPU_BATCH_IMAGES, Backbone
from simsearch.backbones.preprocessing import Preprocessing
from simsearch.backbones.runtime import HINTS, INT8, OpenVinoNetwork, StoredNetwork
from simsearch.backbones.squash import SquashPreprocessing
from simsearch.backbones.whole_view import squeezes
from simsearch.files import atomic_write, user_folder

logger = logging.getLogger("simsearch")
KEPT_NETWORKS = 8  # converted ones; that used longest ago goes first. Quantised ones stay
FORMAT_VERSION = 1  # of an entry, and of what its graph computes


def openvino_version() -> str:
    """Return the version of OpenVINO, or "" where it is not installed; it is not imported."""
    try:
        return metadata.version("openvino")
    except metadata.PackageNotFoundError:
        return ""


def cache_folder() -> Path:
    """Return where this user's converted networks lie; the folder need not exist."""
    return user_folder("cache") / "networks"


def entry_file(name: str, fingerprint: str, precision: str) -> Path:
    """Return the file of a network, of one precision, for the OpenVINO that is installed.

    A quantised one, whose fingerprint holds its digest, is for any.
    """
    version = (precision, f"openvino{openvino_version()}", f"v{FORMAT_VERSION}")
    words = (name, fingerprint, *(() if precision == INT8 else version))
    return cache_folder() / (re.sub(r"[^\w.-]+", "_", "-".join(words)) + ".npz")


def network_digest(stored: StoredNetwork) -> str:
    """Return a digest of a network: 32 hex digits."""
    return hashlib.sha256(hashlib.sha256(stored.graph).digest() + stored.weights.data).hexdigest()[
        :32
    ]


def read_entry(file: Path) -> tuple[StoredNetwork, dict[str, Any]] | None:
    """Read a network and its record; None where there is none, or none that can be trusted."""
    if not is_private(file.parent) or not file.is_file():
        return None
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            # a zip file, which checks its sums
            record = json.loads(arrays["record"].tobytes())
            graph = arrays["graph"].tobytes()
            stored = StoredNetwork(graph, arrays["weights"], record["precision"])
        if stored.precision == INT8 and network_digest(stored) not in record["fingerprint"]:
            raise ValueError("it is not the one that was quantised")
        with contextlib.suppress(OSError):
            os.utime(file)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        logger.warning("The converted network %s is damaged (%s), and not used.", file, error)
        return None
    return stored, record


def write_entry(file: Path, stored: StoredNetwork, record: dict[str, Any]) -> None:
    """Write a network and its record atomically; a cache that cannot be written is left out."""
    arrays = {
        "record": np.frombuffer(json.dumps(record).encode(), np.uint8),
        "graph": np.frombuffer(stored.graph, np.uint8),
        "weights": stored.weights,
    }
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not is_private(file.parent):
            raise OSError("other users may write there")
        with atomic_write(file, shared=True) as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]
        converted = (one for one in file.parent.glob("*.npz") if f"-{INT8}-" not in one.name)
        for old in sorted(converted, key=lambda one: one.stat().st_mtime)[:-KEPT_NETWORKS]:
            old.unlink(missing_ok=True)
    except OSError as error:
        logger.warning("The converted network is not kept in %s: %s.", file.parent, error)


def is_private(folder: Path) -> bool:
    """Tell whether a folder is this user's, and no other may write into it."""
    try:
        status = folder.stat()
    except OSError:
        return False
    if not hasattr(os, "getuid"):  # Windows: the user's profile is theirs
        return True
    return status.st_uid == os.getuid() and not status.st_mode & 0o022


class CachedBackbone(Backbone):
    """A backbone that only embeds, by a converted network: PyTorch is not imported.

    Parameters
    ----------
    network
        What embeds.
    record
        What was written with it.
    """

    def __init__(self, network: OpenVinoNetwork, record: dict[str, Any]) -> None:
        self.name, self.weights = record["name"], record["weights"]
        self.fingerprint, self.precision = record["fingerprint"], record["precision"]
        self.transform = _preprocessing(record["transform"], self.name)
        self.device: Any = SimpleNamespace(type="cpu")
        self.dim, self._network = network.dim, network
        self._cpu_batch = CPU_BATCH_IMAGES


def _preprocessing(fields: dict[str, Any], name: str) -> Preprocessing:
    """Make what JSON has as lists into tuples again; earlier entries have no kind."""
    known = fields.get("kind")
    squeezed = known == SquashPreprocessing.__name__ if known else squeezes(name)
    made: Any = {
        key: tuple(each) if isinstance(each, list) else each
        for key, each in fields.items()
        if key != "kind"
    }
    return SquashPreprocessing(**made) if squeezed else Preprocessing(**made)


@lru_cache(maxsize=2)  # a query costs a forward pass, not a load
def cached_backbone(name: str, fingerprint: str, precision: str) -> CachedBackbone | None:
    """Return the backbone of a network that is in the cache, or None."""
    is_off = os.environ.get("SIMSEARCH_RUNTIME") == "torch" and precision != INT8
    if is_off or precision not in HINTS or not openvino_version():
        return None
    entry = read_entry(entry_file(name, fingerprint, precision))
    if entry is None or entry[1].get("fingerprint") != fingerprint or not entry[1]["transform"]:
        return None
    try:
        return CachedBackbone(OpenVinoNetwork(entry[0]), entry[1])
    except Exception as error:  # OpenVINO raises RuntimeError and others; ImportError if broken
        logger.warning("The converted network of %s cannot be used: %s.", name, error)
        return None
