"""What an index states, and what pictures get that are in no library.

    python benchmarks/index.py SCENES PHOTOS --rows 100000 --cache views.npz
    python benchmarks/index.py SCENES PHOTOS --peers lorann=/tmp/lorann/bin/python   # beside ours
    python benchmarks/index.py SCENES PHOTOS --rows 1000000 --keep FOLDER   # what is made stays

Views (crops, mirrored or not, other light and colour) of pictures are embedded: six of each of
1,500 scenes and 200 photos make the library, a seventh asks as a picture like the library's, and
1,500 other scenes and the other photos ask as new ones. Beyond the rows that these give, the
library is extended: a made-up picture is a mixture of two real ones, and its views differ from it
as those of a third real picture do. Processor time of one thread; the truth is the exact search.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import verdict
from index_peers import compare_peers
from PIL import Image, ImageEnhance, ImageOps

import simsearch as ss
from simsearch.retrieval.exact import ExactIndex

VIEWS, SCENES, PHOTOS = 6, 1500, 200  # pictures in the library
QUERIES, K = 100, 10
SHARES = (0.01, 0.1, 0.5)  # of the rows that a filter leaves
BLOCK = 64


def main() -> None:
    import faiss

    options = parse()
    faiss.omp_set_num_threads(1)
    views, kinds = load_views(options)
    library = stored_library(views, options)
    if options.peers:
        asked = {name: queries[:QUERIES] for name, queries in kinds.items()}
        found = {name: ExactIndex().top_k(library, some, K) for name, some in asked.items()}
        truth = {name: np.stack([best.rows for best in some]) for name, some in found.items()}
        compare_peers(options.peers, library.embeddings, asked, truth)
    for kind in options.kinds:
        index = kept_index(library, kind, options)
        for name, queries in kinds.items():
            report(library, index, name, queries[:QUERIES])
        everybody = np.concatenate([queries[:25] for queries in kinds.values()])
        for share in SHARES:
            mask = np.random.default_rng(1).random(len(library)) < share
            report(library, index, f"all, {share:.0%} of the rows", everybody, mask)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare stated and true recall of indexes.")
    parser.add_argument("scenes", type=Path, help="folder of pictures, most of them in the library")
    parser.add_argument("photos", type=Path, help="folder of others, most of them in the library")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--kinds", nargs="+", default=["rabitq"])
    parser.add_argument("--peers", nargs="+", default=[], metavar="NAME=PYTHON")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="of the library and its index")
    parser.add_argument("--cache", type=Path, help="file that keeps the embeddings of the views")
    return parser.parse_args()


def stored_library(views: np.ndarray, options: argparse.Namespace) -> ss.ImageLibrary:
    """Return the library of so many rows: in memory, or in the folder that keeps it."""
    names = [f"{i:07d}.jpg" for i in range(options.rows)]
    if options.keep is None:
        rows = np.empty((options.rows, views.shape[-1]), np.float32)
        extend(views, rows)
        return ss.ImageLibrary(rows, names)
    if not (options.keep / "manifest.json").exists():
        with tempfile.NamedTemporaryFile(dir=options.keep.parent) as file:
            rows = np.memmap(file, np.float32, "r+", shape=(options.rows, views.shape[-1]))
            extend(views, rows)
            ss.ImageLibrary(rows, names).save(options.keep)
    return ss.ImageLibrary.load(options.keep)


def kept_index(library: ss.ImageLibrary, kind: Any, options: argparse.Namespace) -> Any:
    """Open the index beside the library if it is of this kind, or build it; print its report."""
    started = time.process_time()
    try:
        index = ss.load_index(library) if options.keep else None
    except ss.LibraryError:
        index = None
    if index is None or index.kind != kind:
        index = ss.build_index(library, kind, progress=False)
        print(f"\n{time.process_time() - started:.0f} CPU s with measuring")
    print(f"\n{index.report}", flush=True)
    return index


def load_views(options: argparse.Namespace) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the views of the library's pictures, (P, 6, D), and queries of four kinds."""
    if options.cache and options.cache.exists():
        known = dict(np.load(options.cache))
    else:
        rng, known = np.random.default_rng(0), {}
        for name, folder, count in (
            ("photo", options.photos, PHOTOS),
            ("scene", options.scenes, SCENES),
        ):
            names = [image.name for image in ss.find_images(folder)[0]]
            files = rng.permutation(sorted(str(folder / name) for name in names))
            pictures = [
                view(file, n, n and i) for i, file in enumerate(files[:count]) for n in range(7)
            ]
            known[f"library {name}"] = embed(pictures).reshape(count, VIEWS + 1, -1)
            known[f"new {name}"] = embed([view(file, 0, 0) for file in files[count : 2 * count]])
        if options.cache:
            np.savez(options.cache, **known)
    rows = np.concatenate([known["library photo"], known["library scene"]])
    own = {f"own {name}": known[f"library {name}"][:, VIEWS] for name in ("photo", "scene")}
    return rows[:, :VIEWS], own | {name: known[name] for name in ("new photo", "new scene")}


def view(file: str, number: int, seed: int) -> Image.Image:
    """Return a picture, or from number 1 on a part of it in other light and colour."""
    image = Image.open(file).convert("RGB")
    image.thumbnail((400, 400))
    if not number:
        return image
    rng = np.random.default_rng((seed, number))
    size = np.array(image.size)
    part = (size * rng.uniform(0.6, 1)).astype(int)
    left, top = rng.integers(0, size - part + 1)
    image = image.crop((left, top, left + part[0], top + part[1]))
    image = ImageOps.mirror(image) if rng.random() < 0.5 else image
    image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.7, 1.3))
    return ImageEnhance.Color(image).enhance(rng.uniform(0.5, 1.5))


def embed(images: list[Image.Image]) -> np.ndarray:
    return np.concatenate(
        [
            ss.embed_images(images[i : i + BLOCK], "efficientnet_lite0")
            for i in range(0, len(images), BLOCK)
        ]
    )


def extend(views: np.ndarray, rows: np.ndarray) -> None:
    """Fill unit rows, (count, D): with the views, then with those of made-up pictures."""
    rng, (count, dim) = np.random.default_rng(0), rows.shape
    centres = views.mean(axis=1)
    differences = views - centres[:, None]
    done = min(count, views.size // dim)
    rows[:done] = views.reshape(-1, dim)[:done]
    while done < count:
        one, other, third = rng.integers(0, len(views), (3, 2000))
        weight = rng.uniform(0.3, 0.7, (2000, 1)).astype(np.float32)
        mixed = weight * centres[one] + (1 - weight) * centres[other]
        more = (mixed[:, None] + differences[third]).reshape(-1, dim)[: count - done]
        rows[done : done + len(more)] = more / np.linalg.norm(more, axis=1, keepdims=True)
        done += len(more)


def report(
    library: ss.ImageLibrary, index: Any, name: str, queries: np.ndarray, mask: Any = None
) -> None:
    """Print recall and processor time, and judge the recall beside the one that is stated."""
    truth = [best.rows for best in ExactIndex().top_k(library, queries, K, mask)]
    found, taken = [], []
    for one in queries:
        started = time.thread_time()
        found.append(next(index.top_k(library, one[None], K, mask)).rows)
        taken.append(1e3 * (time.thread_time() - started))
    shares = [len(np.intersect1d(a, b)) / len(b) for a, b in zip(found, truth, strict=True)]
    low, late = np.quantile(shares, 0.05), np.quantile(taken, 0.9)
    print(
        f"      {name}: {np.median(taken):.2f} CPU ms a query (mean {np.mean(taken):.2f}, 90th "
        f"percentile {late:.2f}), 5th percentile of recall {low:.2f}{lists_read(index, queries)}",
        flush=True,
    )
    stated = min(index.report.recall_at_10, 0.999)
    verdict(f"{name}: recall@10", float(np.mean(shares)), stated - 0.01)


def lists_read(index: Any, queries: np.ndarray) -> str:
    """Say how many lists a query reads, where their centres tell that."""
    if not index.candidates.knows_near_lists:
        return ""
    near = index.candidates.near_lists(queries)
    return f"; without a filter {np.median(near):.0f} lists are read"


if __name__ == "__main__":
    main()
