"""A part finds its picture: recall by the size of the part, and what parts cost.

    python benchmarks/parts.py            # recall, on the photos (minutes)
    python benchmarks/parts.py --scenes 40      # the same on so many Intel scenes of each class
    python benchmarks/parts.py --scale 100000   # bytes, and milliseconds of a query
    python benchmarks/parts.py --scale 100000 --keep FOLDER  # what is made stays, for another run

Queries are crops of random place and shape of every second photo (the settings were chosen on the
others); the gallery is all photos. Each figure is the mean over seeds, with their lowest and
highest. Crops are also rescaled, recompressed and turned by 10 degrees, and photos are pasted into
collages of two to four, which have to be found by each.
"""

from __future__ import annotations

import argparse
import io
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import INTEL, PHOTOS, verdict
from PIL import Image

import simsearch as ss
from simsearch.backbones.windows import encode_views
from simsearch.library.files import PARTS
from simsearch.library.part_writer import PartWriter
from simsearch.library.parts import INDEX_FOLDER, PartRecord, open_parts, part_dtype, picture_keys
from simsearch.retrieval import part_index

SHARES, SEEDS = (5, 10, 20, 40), (0, 1, 2)
GOALS = {("grid", 5): 0.90, ("grid", 10): 0.99, ("regions", 10): 0.94}
EACH = 13  # windows of a photo that is not long
QUERIES = 40  # of a kind, for the milliseconds
LAYOUTS = ((1, 2), (1, 3), (2, 2))  # rows and columns of a collage

Change = Callable[[Image.Image], Image.Image]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--scale", type=int, metavar="N", help="pictures of made-up rows")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="of what --scale makes")
    parser.add_argument("--photos", type=int, metavar="N", help="use the first so many alone")
    parser.add_argument("--scenes", type=int, metavar="N", help="of each Intel class, not photos")
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    parser.add_argument("--collages", action="store_true", help="collages alone")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.scale:
            measure_scale(given.keep or Path(folder), given.scale)
        elif given.collages:
            files = sorted(PHOTOS.iterdir())[: given.photos]
            measure_collages(Path(folder), files, range(given.seeds))
        else:
            files = sorted(PHOTOS.iterdir())[: given.photos]
            measure_recall(Path(folder), scenes(given.scenes) or files, range(given.seeds))


def scenes(count: int | None) -> list[Path]:
    """List some test scenes of each class, whose names differ."""
    folders = sorted((INTEL / "seg_test").iterdir()) if count else []
    return [file for folder in folders for file in sorted(folder.iterdir())[:count]]


def measure_recall(folder: Path, files: Sequence[Path], seeds: Sequence[int]) -> None:
    copy_photos(folder, files)
    names = [file.name for file in files]
    libraries = {kind: embed(folder, "photos", kind) for kind in ("grid", "regions")}
    asked = range(1, len(files), 2)  # the settings were chosen on the others
    print("recall@1 by the crop's share of the area: mean over seeds (lowest, highest)")
    for change, make in CHANGES.items():
        for share in SHARES if change == "as it is" else SHARES[1:2]:
            found: dict[str, list[float]] = {kind: [] for kind in ("none", *libraries)}
            for seed in seeds:
                queries = dict(crops(files, asked, share, seed, make))
                for kind, value in recalls(libraries, queries, names).items():
                    found[kind].append(value)
            for kind, values in found.items():
                goal = GOALS.get((kind, share)) if change == "as it is" else None
                report(f"{kind}, {share}%, {change}", values, goal)


def copy_photos(folder: Path, files: Sequence[Path]) -> None:
    (folder / "photos").mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copy2(file, folder / "photos")


def embed(folder: Path, name: str, kind: str) -> ss.ImageLibrary:
    """Embed a folder; print what the parts cost beside the pictures."""
    outputs = folder / f"{name}-{kind}"
    start = time.process_time()
    library = ss.embed_dataset(folder / name, outputs, "efficientnet_lite0", progress=False)
    whole = time.process_time() - start
    start = time.process_time()
    library = ss.embed_dataset(folder / name, outputs, parts=kind, progress=False)
    parts = time.process_time() - start
    size = sum(file.stat().st_size for file in outputs.glob("parts*"))
    print(
        f"      {name}, {kind}: {1e3 * whole / len(library):.0f} ms of the processor a picture, "
        f"parts {1e3 * parts / len(library):.0f} ms ({parts / whole:.1f} times), "
        f"{size / len(library) / 1024:.1f} KiB a picture",
        flush=True,
    )
    return library


def crop_of(image: Image.Image, share: float, rng: np.random.Generator) -> Image.Image:
    """Crop at random: so much of the area, of a shape from 3:4 to 4:3."""
    shape = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
    area = share / 100 * image.width * image.height
    width = min(image.width, round(math.sqrt(area * shape)))
    height = min(image.height, round(area / width))
    left, top = (int(rng.integers(0, n + 1)) for n in (image.width - width, image.height - height))
    return image.crop((left, top, left + width, top + height))


def crops(
    files: Sequence[Path], asked: Sequence[int], share: float, seed: int, change: Change
) -> Iterator[tuple[int, Image.Image]]:
    rng = np.random.default_rng([seed, int(share)])
    for i in asked:
        yield i, change(crop_of(ss.load_image(files[i]), share, rng))


def rescaled(image: Image.Image) -> Image.Image:
    return image.resize([max(8, side * 3 // 5) for side in image.size])


def recompressed(image: Image.Image) -> Image.Image:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=30)
    return Image.open(data).convert("RGB")


def turned(image: Image.Image) -> Image.Image:
    """Turn by 10 degrees, and cut off the empty corners."""
    width, height = (side * 0.76 for side in image.size)
    left, top = (image.width - width) / 2, (image.height - height) / 2
    whole = image.rotate(10, Image.Resampling.BICUBIC)
    return whole.crop((round(left), round(top), round(left + width), round(top + height)))


CHANGES: dict[str, Change] = {
    "as it is": lambda image: image,
    "rescaled to 60%": rescaled,
    "JPEG of quality 30": recompressed,
    "turned by 10 degrees": turned,
}


def recalls(
    libraries: dict[str, ss.ImageLibrary], queries: dict[int, Image.Image], names: Sequence[str]
) -> dict[str, float]:
    """Return the share of queries whose own picture comes first: without parts, and with each."""
    library = libraries["grid"]
    pictures = list(queries.values())  # each is embedded once for all kinds, as `search` does it
    whole, views = library.encode(pictures), encode_views(library.backbone, pictures)
    truths = [names[i] for i in queries]

    def share(library: ss.ImageLibrary, vectors: np.ndarray, parts: bool) -> float:
        found = ss.search(library, list(vectors), k=1, parts=parts)
        firsts = [Path(matches[0].path).name for matches in found]
        return float(np.mean([first == truth for first, truth in zip(firsts, truths, strict=True)]))

    with_parts = {kind: share(each, views, True) for kind, each in libraries.items()}
    return {"none": share(library, whole, False), **with_parts}


def report(name: str, found: Sequence[float], goal: float | None) -> None:
    mean, spread = float(np.mean(found)), f"({min(found):.3f}, {max(found):.3f})"
    if goal is None:
        print(f"      {name:<58} {mean:8.3f}  {spread}", flush=True)
    else:
        verdict(f"{name} {spread}", mean, goal)


def measure_collages(folder: Path, files: Sequence[Path], seeds: Sequence[int]) -> None:
    """Paste photos into collages, each into one; every second photo has to find its collage."""
    found: dict[tuple[str, int], list[float]] = {}
    for seed in seeds:
        name = f"collages-{seed}"
        homes = make_collages(folder / name, files, seed)
        libraries = {kind: embed(folder, name, kind) for kind in ("grid", "regions")}
        for size in (2, 3, 4):
            chosen = [i for i, (_, count) in homes.items() if count == size and i % 2]
            asked = {i: ss.load_image(files[i]) for i in chosen}
            names = [f"{homes[i][0] if i in homes else -1:03d}.jpg" for i in range(len(files))]
            for kind, value in recalls(libraries, asked, names).items():
                found.setdefault((kind, size), []).append(value)
    for (kind, size), values in sorted(found.items(), key=lambda each: each[0][1]):
        report(f"{kind}, collages of {size}", values, None)


def make_collages(folder: Path, files: Sequence[Path], seed: int) -> dict[int, tuple[int, int]]:
    """Store collages of two to four photos; return the collage of each photo, and of how many."""
    folder.mkdir()
    homes: dict[int, tuple[int, int]] = {}
    order, number = np.random.default_rng(seed).permutation(len(files)).tolist(), 0
    while len(order) >= 4:
        rows, columns = LAYOUTS[number % len(LAYOUTS)]
        chosen = [order.pop() for _ in range(rows * columns)]
        sheet = paste([ss.load_image(files[i]) for i in chosen], rows, columns)
        sheet.save(folder / f"{number:03d}.jpg", quality=90)
        homes |= dict.fromkeys(chosen, (number, rows * columns))
        number += 1
    return homes


def paste(pictures: Sequence[Image.Image], rows: int, columns: int) -> Image.Image:
    """Lay pictures out in cells of 300 by 240 pixels, each fitted whole."""
    sheet = Image.new("RGB", (300 * columns, 240 * rows), "white")
    for i, picture in enumerate(pictures):
        picture.thumbnail((300, 240))
        left, top = 300 * (i % columns), 240 * (i // columns)
        corner = left + (300 - picture.width) // 2, top + (240 - picture.height) // 2
        sheet.paste(picture, corner)
    return sheet


def measure_scale(folder: Path, count: int) -> None:
    """Time queries over made-up pictures: each mixes two photos, window by window.

    Half of the photos are mixed. Windows of the others ask as new pictures; own ones are rows of
    parts, with a third of another one.
    """
    photos, rng = photo_parts(folder), np.random.default_rng(0)
    library = store_mixtures(folder / "outputs", photos[::2], count, rng)
    asked = {
        "own": mix(photos[::2, 1:], rng, QUERIES, 0.3)[:, 0],
        "new": photos[1::2][
            rng.permutation(len(photos) // 2)[:QUERIES], rng.integers(1, 14, QUERIES)
        ],
    }
    measure_files(library)
    index = measure_index(library)
    for kind, queries in asked.items():
        time_queries(f"{kind}: whole pictures", library, queries, {})
        exact = time_queries(f"{kind}: parts", library, queries, {"parts": True})
        found = time_queries(f"{kind}: index", library, queries, {"parts": True, "index": index})
        pairs = [share_found(*each) for each in zip(found, exact, strict=True)]
        report(f"{kind}: of the ten pictures, the index finds", pairs, None)
    vars(part_index)["SHORT_FROM_PARTS"] = 10**12  # so that none is
    same = time_queries("all parts read", library, asked["new"][:3], {"parts": True})
    assert [each.paths for each in same] == [each.paths for each in exact[:3]]


def measure_files(library: ss.ImageLibrary) -> None:
    """Print the sizes of parts and of their shortened copy, which is made if it is not there."""
    folder, _ = library.stored or (Path(), "")
    start = time.process_time()
    part_index.prepare_parts(library)
    took = time.process_time() - start
    short = sum(file.stat().st_size for file in folder.glob("parts*.short"))
    size = sum(file.stat().st_size for file in folder.glob("parts*")) - short
    print(f"      {len(library):,} pictures: {size / 2**20:,.0f} MiB of parts", flush=True)
    print(f"      the shortened copy: {short / 2**20:,.0f} MiB, {took:,.1f} CPU s", flush=True)


def measure_index(library: ss.ImageLibrary) -> ss.FaissIndex:
    """Build an index of the parts, or open the one that is there; print what it says of itself."""
    folder, _ = library.stored or (Path(), "")
    start = time.process_time()
    if not (folder / INDEX_FOLDER).exists():
        ss.build_index(library, progress=False, parts=True)
        print(f"      the index: {time.process_time() - start:,.1f} CPU s", flush=True)
    index = ss.load_index(library, parts=True)
    print(str(index.report), flush=True)
    return index


def share_found(found: ss.Matches, exact: ss.Matches) -> float:
    """Return the share of the exact answer that is found; equal scores count as well."""
    last = exact.scores[-1] - 1e-6
    return float(np.mean(found.scores[:10] >= last)) * len(found) / len(exact)


def photo_parts(folder: Path) -> np.ndarray:
    """Embed the photos: (M, 14, D), the whole and the 13 windows of each that is not long."""
    copy_photos(folder, sorted(PHOTOS.iterdir()))
    library = embed(folder, "photos", "grid")
    parts = open_parts(library)
    assert parts is not None
    rows = [
        np.concatenate([library.embeddings[row : row + 1], parts.parts[parts.of(row)]["row"]])
        for row in range(len(library))
        if parts.of(row).stop - parts.of(row).start == EACH
    ]
    return np.array(rows, np.float32)


def mix(photos: np.ndarray, rng: np.random.Generator, count: int, share: float) -> np.ndarray:
    """Mix pairs of photos: (count, windows, D), unit norm."""
    first, second = (photos[rng.integers(0, len(photos), count)] for _ in range(2))
    mixed = first + share * second
    return np.asarray(mixed / np.linalg.norm(mixed, axis=-1, keepdims=True))


def store_mixtures(
    outputs: Path, photos: np.ndarray, count: int, rng: np.random.Generator
) -> ss.ImageLibrary:
    """Store a library of mixed photos with their parts, or open the one that is there."""
    seeds = rng.integers(0, 2**31, -(-count // 1000))

    def blocks(windows: np.ndarray) -> Iterator[np.ndarray]:
        for i, seed in enumerate(seeds):
            made = np.random.default_rng(seed)
            yield mix(windows, made, min(1000, count - 1000 * i), float(made.uniform(0.5, 1)))

    if (outputs / PARTS).exists():
        return ss.ImageLibrary.as_stored(outputs)
    wholes = np.concatenate([block[:, 0] for block in blocks(photos[:, :1])])
    ss.ImageLibrary(wholes, [f"{i:06d}.jpg" for i in range(count)]).save(outputs)
    library = ss.ImageLibrary.as_stored(outputs)
    keys, dim = picture_keys(library, "grid"), library.dim
    parts = np.zeros(EACH, part_dtype(dim))
    parts["box"], parts["label"] = [0, 0, 300, 200], -1
    with PartWriter(outputs, PartRecord("grid", 1, library.fingerprint, dim)) as writer:
        pictures = (picture for block in blocks(photos[:, 1:]) for picture in block)
        for key, picture in zip(keys, pictures, strict=True):
            parts["row"] = picture
            writer.append(key, (500, 375), parts)
        writer.commit(np.arange(count), [])
    return library


def time_queries(
    name: str, library: ss.ImageLibrary, queries: np.ndarray, options: Any
) -> list[ss.Matches]:
    """Print the median time of a query; return the answers."""
    walls, cpus, answers = [], [], []
    ss.search(library, queries[0], k=10, **options)  # which looks at pairs, too
    for query in queries:
        wall, cpu = time.perf_counter(), time.process_time()
        answers.append(ss.search(library, query, k=10, **options))
        walls.append(1e3 * (time.perf_counter() - wall))
        cpus.append(1e3 * (time.process_time() - cpu))
    print(
        f"      {name}: a query takes {np.median(cpus):8.1f} ms of the processor "
        f"({min(cpus):.1f} to {max(cpus):.1f}), {np.median(walls):.1f} ms",
        flush=True,
    )
    return answers


if __name__ == "__main__":
    main()
