"""Make docs/images/search.png, a search in the sample dataset: `python docs/pictures.py`.

The sample and its library are made in a temporary folder, with the backbone that needs no download.
`--dataset` and `--query` take other images.
"""

from __future__ import annotations

import argparse
import tempfile
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
from PIL import Image

import simsearch as ss

PICTURE = Path(__file__).with_name("images") / "search.png"
QUERIES = ("seg_test/coffee/0005.jpg", "seg_test/flower/0002.jpg")
COLOURS = 256  # enough for a README, at a third of the size
DPI = 110
SIZE_INCHES = 2.1  # of an image: wide enough for the longest caption


def main() -> None:
    """Embed, search, draw, and keep few colours."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", type=Path, help="folder of images; the sample by default")
    parser.add_argument("--query", nargs="+", default=QUERIES, help="paths below it")
    parser.add_argument("-k", type=int, default=5)
    options = parser.parse_args()
    mpl.use("agg")
    with tempfile.TemporaryDirectory() as folder:
        dataset = options.dataset or ss.make_sample(Path(folder, "dataset"))
        outputs = Path(folder, "outputs")
        library = ss.embed_dataset(dataset, outputs, "efficientnet_lite0", progress=False)
        queries = [dataset / query for query in options.query]
        figure, _ = ss.show_matches(ss.search(library, queries, k=options.k), size=SIZE_INCHES)
        picture = BytesIO()
        figure.savefig(picture, dpi=DPI, bbox_inches="tight")
    PICTURE.parent.mkdir(exist_ok=True)
    small = Image.open(picture).convert("RGB").quantize(COLOURS, kmeans=3)
    small.save(PICTURE, optimize=True)


if __name__ == "__main__":
    main()
