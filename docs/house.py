"""Draw docs/images/house.svg, the packages and who may import whom: `python docs/house.py`.

Order and groups are those of the import contracts in pyproject.toml, so that picture and rules
agree. The picture has a background of its own: it reads the same in light and dark.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs/images/house.svg"

# What each package does, in lines that fit its box.
JOBS = {
    "images": ("find files;", "decode to", "upright RGB"),
    "backbones": ("frozen network,", "preprocessing,", "heads"),
    "library": ("files in outputs/,", "metadata,", "filters"),
    "embedding": ("batches, resume,", "executors,", "commit"),
    "retrieval": ("a query", "becomes", "matches"),
    "plotting": ("figures of", "matches", "and images"),
    "evaluation": ("metrics,", "thresholds"),
    "training": ("heads,", "fine-tuning"),
    "analysis": ("duplicates, heat", "maps, expansion"),
    "cluster": ("Ray, Milvus",),
    "notebook": ("a widget",),
    "web": ("page and REST API",),
    "cli": ("command line",),
}
WIDTH, HEIGHT, MARGIN, GAP = 960, 560, 30, 24  # pixels
STAGE, OPTIONAL, TOP, BASE = "#dbeafe", "#dcfce7", "#fef3c7", "#e5e7eb"  # fills
STYLE = """\
text { font: 13px sans-serif; fill: #1f2937 }
.name { font-weight: bold; font-size: 15px }
.rule { font-size: 13px; fill: #374151 }
.box { stroke: #6b7280 }
.arrow { stroke: #374151; stroke-width: 1.5; fill: none; marker-end: url(#head) }"""


def layers(contract: str) -> list[list[str]]:
    """Read a layers contract, lowest first; each layer as the list of its siblings."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    (found,) = (each for each in settings["contracts"] if each["id"] == contract)
    return [re.findall(r"\w+", layer) for layer in reversed(found["layers"])]


def draw() -> str:
    """Return the picture as SVG."""
    base, stages = _split(layers("stages"))
    optional, top = _sides(layers("optional-packages"))
    parts: list[str] = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        "<title>The packages of simsearch and who may import whom</title>",
        f"<style>{STYLE}</style>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" fill="#374151"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="12" fill="#ffffff"/>',
        *_row(top, 20, 56, TOP),
        *_row(optional, 130, 76, OPTIONAL),
        *_row(stages, 280, 100, STAGE),
        *_row([", ".join(base)], 428, 40, BASE),
        *_rule("may import everything below", 98),
        *_rule(
            "optional: import stages, and no other optional package"
            " (except training → evaluation); no stage imports them",
            228,
        ),
        *_rule("stages: data moves right; a stage imports only stages to its left", 270),
        *_rule("below all: imported by every package", 420),
        *_flow(len(stages), 330),
        _arrow(MARGIN + 20, 496, WIDTH - MARGIN - 20, 496),
        _text(WIDTH / 2, 522, "dataset/ → upright RGB → (N, D) embeddings → outputs/*.npy → top-k "
              "matches → figures", "rule"),
        "</svg>",
    ]  # fmt: skip
    return "\n".join(parts) + "\n"


def _split(rows: list[list[str]]) -> tuple[list[str], list[str]]:
    """Tell what stands below all from the stages, which have a job of their own."""
    names = [name for row in rows for name in row]
    return [n for n in names if n not in JOBS], [n for n in names if n in JOBS]


def _sides(rows: list[list[str]]) -> tuple[list[str], list[str]]:
    """Tell the optional packages from those that may import everything."""
    names = [name for row in rows for name in row]
    return [n for n in names if n not in {"web", "cli"}], [n for n in names if n in {"web", "cli"}]


def _places(count: int) -> list[tuple[float, float]]:
    width = (WIDTH - 2 * MARGIN - GAP * (count - 1)) / count
    return [(MARGIN + i * (width + GAP), width) for i in range(count)]


def _row(names: list[str], y: float, height: float, fill: str) -> Iterator[str]:
    for name, (x, width) in zip(names, _places(len(names)), strict=True):
        yield (
            f'<rect class="box" x="{x:.0f}" y="{y}" width="{width:.0f}" height="{height}" rx="8" '
            f'fill="{fill}"/>'
        )
        middle, jobs = x + width / 2, JOBS.get(name, ())
        yield _text(middle, y + 25, name, "name")
        yield from (_text(middle, y + 45 + 17 * i, job) for i, job in enumerate(jobs))


def _flow(count: int, y: float) -> Iterator[str]:
    places = _places(count)
    yield from (_arrow(x + width + 2, y, x + width + GAP - 3, y) for x, width in places[:-1])


def _rule(text: str, y: float) -> Iterable[str]:
    return [_text(WIDTH / 2, y, text, "rule")]


def _arrow(*ends: float) -> str:
    x, y, to_x, to_y = (f"{end:.0f}" for end in ends)
    return f'<path class="arrow" d="M{x} {y} {to_x} {to_y}"/>'


def _text(x: float, y: float, text: str, style: str = "") -> str:
    kind: Any = f' class="{style}"' if style else ""
    return f'<text{kind} x="{x:.0f}" y="{y}" text-anchor="middle">{escape(text)}</text>'


if __name__ == "__main__":
    PICTURE.write_text(draw(), "utf-8")
    sys.stdout.write(f"{PICTURE}\n")
