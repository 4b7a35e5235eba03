"""Bundle the notebook's widgets into a module each: `python docs/bundle.py`, which needs node.

The head of a bundle names its sources and their digest, so that a test without node can tell
whether it is current.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
STATIC = ROOT / "simsearch/notebook/static"
BUNDLES = {STATIC / f"{name}.js": STATIC / f"{name}.bundle.js" for name in ("browse", "map")}
ESBUILD = "esbuild@0.28.2"
FLAGS = ("--bundle", "--format=esm", "--target=es2022", "--minify", "--legal-comments=none")


def head(sources: list[str]) -> str:
    """Return the first line of the bundle of these sources, named from the root of the project."""
    digest = hashlib.sha256()
    for name in sources:
        digest.update(f"{name}\n".encode() + (ROOT / name).read_bytes())
    return f"// By {ESBUILD} from {' '.join(sources)}; sha256 {digest.hexdigest()}\n"


def bundle(source: Path) -> str:
    """Return the bundle of a widget's sources as they are now."""
    with tempfile.TemporaryDirectory() as folder:
        out, meta = Path(folder, "out.js"), Path(folder, "meta.json")
        command = ["npx", "--yes", ESBUILD, source.relative_to(ROOT).as_posix(), *FLAGS]
        subprocess.run(  # noqa: S603
            [*command, f"--outfile={out}", f"--metafile={meta}", "--log-level=warning"],
            cwd=ROOT,
            check=True,
        )
        sources = sorted(json.loads(meta.read_text("utf-8"))["inputs"])
        return head(sources) + out.read_text("utf-8")


if __name__ == "__main__":
    for source, target in BUNDLES.items():
        target.write_text(bundle(source), "utf-8")
        print(f"{target.relative_to(ROOT)}: {target.stat().st_size:,} bytes")
