"""Words as queries, beside a picture as query and beside chance.

    python benchmarks/words.py [OUTPUTS]

Scenes: the phrases of ../shared/data/phrases.csv, 40 more and 24 of an earlier run, over the photos
of `seg_test`. Photos: the name of each of the 250, which finds it or not; 40 kinds of things, and
those of the 40 scenes that they show. The settings were chosen
on `seg_train` with 59 other phrases (`words_settings.py`), and on the photos, whose figure is
therefore no proof. Words that ImageNet's classes know, and words that they do not: how often that
is said. OUTPUTS keeps the embeddings.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from common import INTEL, PHOTOS, verdict
from words_phrases import FORTY, FORTY_OF_PHOTOS, KNOWN, SCENES_OF_PHOTOS, UNKNOWN

import simsearch as ss
from simsearch.retrieval.concepts import find_concept

# Of an earlier run, written down before it.
EARLIER = {
    "buildings": ("houses", "a modern glass tower", "old town houses", "a temple"),
    "forest": ("a forest in winter", "tall trees", "a path through the woods", "undergrowth"),
    "glacier": ("a frozen lake", "blue ice", "a snowy landscape", "an ice cave"),
    "mountain": (
        "a valley between mountains",
        "a hiking trail in the hills",
        "summit",
        "the Himalayas",
    ),
    "sea": ("waves on the shore", "a sailing boat", "sunset over the ocean", "a bay"),
    "street": ("a busy road", "pedestrians in a city", "a narrow lane", "cars at a crossing"),
}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        outputs = Path(sys.argv[1] if len(sys.argv) > 1 else folder)
        scenes = ss.embed_dataset(INTEL, outputs / "intel", "efficientnet_lite0")
        photos = ss.embed_dataset(PHOTOS, outputs / "photos", "efficientnet_lite0")
        measure_scenes(scenes)
        measure_photos(photos)
        measure_phrases_of_photos(photos)
        measure_absent(photos)
        measure_concepts()
        measure_cost(scenes, outputs)


def measure_scenes(library: ss.ImageLibrary) -> None:
    with (PHOTOS.parent / "phrases.csv").open(newline="") as file:
        given = [(line["phrase"], line["class"]) for line in csv.DictReader(file)]
    lists = {"26 phrases": given, "40 more": by_scene(FORTY), "24 earlier": by_scene(EARLIER)}
    where = library.where("seg_test/*")
    rows = np.flatnonzero(where)
    labels = library.labels[rows]
    found: list[tuple[str, float]] = []
    for title, phrases in lists.items():
        scores = [precision(library, ss.Words(phrase), scene, where) for phrase, scene in phrases]
        report(title, scores, goals=title.startswith("26"))
        found += zip((phrase for phrase, _ in phrases), np.array(scores)[:, 0], strict=True)
    report_unknown(found)
    told = [phrase for phrase, _ in found if tells_absent(library, phrase)]
    print(f"      no picture shows this: told of {len(told)} of {len(found)}: {', '.join(told)}")
    drawn = np.random.default_rng(0).choice(rows, 200, replace=False).tolist()
    report("a picture", [precision(library, row, library.labels[row], where) for row in drawn])
    chance = np.mean([(labels == scene).mean() for _, scene in given])
    print(f"      chance                            precision@10 {chance:.3f}  mAP {chance:.3f}")


def by_scene(phrases: Mapping[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    return [(phrase, scene) for scene, several in phrases.items() for phrase in several]


def precision(
    library: ss.ImageLibrary, query: ss.Words | int, scene: str, where: np.ndarray
) -> tuple[float, float]:
    """Precision@10 and average precision over the whole gallery."""
    matches = ss.search(library, query, k=int(where.sum()), where=where)
    right = np.array([library.labels[match.row] == scene for match in matches])
    hits = np.flatnonzero(right)
    return float(right[:10].mean()), float((np.arange(1, len(hits) + 1) / (hits + 1)).mean())


def report(
    title: str,
    scores: list[tuple[float, float]],
    first: str = "precision@10",
    *,
    goals: bool = False,
) -> None:
    at_10, mean = np.mean(scores, axis=0)
    spread = np.std(scores, axis=0) / np.sqrt(len(scores))
    found = f"{first} {at_10:.3f} ± {spread[0]:.3f}  mAP {mean:.3f} ± {spread[1]:.3f}"
    print(f"      {title:<33} {found}")
    if goals:
        verdict("precision@10", at_10, 0.85)
        verdict("mAP", mean, 0.75)


def measure_photos(library: ss.ImageLibrary) -> None:
    """Ask for each photo by its name; names of files are `n01518878_ostrich.JPEG`."""
    names = [Path(path).stem.partition("_")[2].replace("_", " ") for path in library.paths]
    ranks = []
    for name in sorted(set(names)):
        found = ss.search(library, ss.Words(name), k=len(library))
        ranks.append(next(match.rank for match in found if names[match.row] == name))
    first = float(np.mean(np.array(ranks) == 1))
    chance = 1 / len(names)
    print(f"      {len(ranks)} photos by their names        first {first:.3f}, chance {chance:.3f}")


def report_unknown(found: list[tuple[str, float]]) -> None:
    """Print how well phrases found that were said to be unknown, beside the others."""
    known = np.array([find_concept(phrase, "efficientnet_lite0").is_known for phrase, _ in found])
    scores = np.array([score for _, score in found])
    told = [f"{found[i][0]} {found[i][1]:.1f}" for i in np.flatnonzero(~known)]
    print(
        f"      {(~known).sum()} of {len(known)} said to be unknown: their mean is "
        f"{scores[~known].mean():.3f}, that of the others {scores[known].mean():.3f}"
    )
    print(f"      {', '.join(told)}")


def measure_absent(library: ss.ImageLibrary) -> None:
    """Print how often it is told that no picture shows the words, of which a photo does or not."""
    names = np.array(
        [Path(path).stem.partition("_")[2].replace("_", " ") for path in library.paths]
    )
    lists = {name: names == name for name in np.unique(names)}
    kinds = np.array([Path(path).stem.partition("_")[2] for path in library.paths])
    for title, shown in (
        ("names", lists),
        ("kinds", {text: np.isin(kinds, kind) for text, kind in FORTY_OF_PHOTOS.items()}),
    ):
        wrong = [text for text in shown if tells_absent(library, text)]
        right = [
            text for text, rows in shown.items() if tells_absent(rows_of(library, ~rows), text)
        ]
        print(
            f"      no picture shows this: told of {len(right)} of {len(shown)} {title} without "
            f"their photos, and of {len(wrong)} with them ({', '.join(wrong)})"
        )


def tells_absent(library: ss.ImageLibrary, text: str) -> bool:
    return "no picture clearly shows" in ss.search(library, text=text, k=1).query


def rows_of(library: ss.ImageLibrary, rows: np.ndarray) -> ss.ImageLibrary:
    return ss.ImageLibrary(library.embeddings[rows], library.paths[rows].tolist(), library.backbone)


def measure_phrases_of_photos(library: ss.ImageLibrary) -> None:
    """Ask for kinds of things, of which the photos show one or several."""
    names = np.array([Path(path).stem.partition("_")[2] for path in library.paths])
    lists = {
        "photos, 40 more": FORTY_OF_PHOTOS,
        "photos, scenes of the 40": {
            phrase: SCENES_OF_PHOTOS[scene]
            for phrase, scene in by_scene(FORTY)
            if scene in SCENES_OF_PHOTOS
        },
    }
    for title, phrases in lists.items():
        kinds = [np.isin(names, kind) for kind in phrases.values()]
        queries = zip(map(ss.Words, phrases), kinds, strict=True)
        scores = [first_and_mean(library, query, kind) for query, kind in queries]
        report(title, scores, "first")
        report_unknown(list(zip(phrases, np.array(scores)[:, 0], strict=True)))
        pictures = [(row, kind) for kind in kinds for row in np.flatnonzero(kind).tolist()]
        several = [(row, kind) for row, kind in pictures if kind.sum() > 1]
        report("  a picture", [first_and_mean(library, *each) for each in several], "first")
        share = np.mean([kind.mean() for kind in kinds])
        print(f"      {'  chance':<33} first {share:.3f}  mAP {chance_map(kinds):.3f}")


def first_and_mean(
    library: ss.ImageLibrary, query: ss.Words | int, kind: np.ndarray
) -> tuple[float, float]:
    """Whether the first match is of a kind, and average precision; a picture leaves itself out."""
    found = ss.search(library, query, k=len(library))
    hits = np.flatnonzero([kind[match.row] for match in found])
    return float(hits[0] == 0), float((np.arange(1, len(hits) + 1) / (hits + 1)).mean())


def chance_map(kinds: list[np.ndarray]) -> float:
    """Mean average precision of rankings drawn with a fixed seed."""
    rng, scores = np.random.default_rng(0), []
    for kind in kinds * 50:
        hits = np.flatnonzero(rng.permutation(kind))
        scores.append((np.arange(1, len(hits) + 1) / (hits + 1)).mean())
    return float(np.mean(scores))


def measure_concepts() -> None:
    """Print precision and recall of the notice that no concept is near."""
    known = [find_concept(phrase, "efficientnet_lite0").is_known for phrase in KNOWN]
    unknown = [find_concept(phrase, "efficientnet_lite0").is_known for phrase in UNKNOWN]
    right, wrong = unknown.count(False), known.count(False)
    print(
        f"      the notice, of {len(UNKNOWN)} unknown words and {len(KNOWN)} known ones: "
        f"recall {right / len(UNKNOWN):.3f}, precision {right / max(1, right + wrong):.3f}"
    )
    silent = [phrase for phrase, passes in zip(UNKNOWN, unknown, strict=True) if passes]
    told = [phrase for phrase, passes in zip(KNOWN, known, strict=True) if not passes]
    print(f"      in silence: {', '.join(silent)}; told of known ones: {', '.join(told)}")


COLD = """
import sys, time
from pathlib import Path
import simsearch as ss

def mebibytes(entry="VmRSS"):
    return int(Path("/proc/self/status").read_text().split(f"{entry}:")[1].split()[0]) / 1024

library = ss.ImageLibrary.load(sys.argv[1])
before, start = mebibytes(), time.process_time()
ss.search(library, text="a street at night")
seconds, more = time.process_time() - start, mebibytes() - before
start = time.process_time()
for number in range(20):
    ss.search(library, text=f"a street with {number} cars")
warm = 1000 * (time.process_time() - start) / 20
print(f"{seconds:.1f} CPU s, {more:.0f} MiB more than the open library", end="; ")
print(f"20 more: {warm:.1f} CPU ms each, {mebibytes() - before - more:.0f} MiB more", end="; ")
print(f"peak {mebibytes('VmHWM'):.0f} MiB")
"""


def measure_cost(library: ss.ImageLibrary, outputs: Path) -> None:
    """Of a warm query, the process that ran before having loaded all; then of new processes."""
    seconds = []
    for number in range(50):
        start = time.process_time()
        ss.search(library, text=f"a street with {number} cars")
        seconds.append(time.process_time() - start)
    print(f"      a warm query among {len(library):,}: {1000 * np.median(seconds):.1f} CPU ms")
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"XDG_CACHE_HOME": cache}
        for title in ("the first of a user", "the first of a process"):
            command = [sys.executable, "-c", COLD, str(outputs / "intel")]
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=True
            )
            print(f"      {title}: {done.stdout.strip() or done.stderr[-300:]}")


if __name__ == "__main__":
    main()
