"""Bundle the notebook's widget into one module: `python docs/bundle.py`, which needs node.

The head of the bundle names its sources and their digest, so that a test without node can tell
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
SOURCE, BUNDLE = STATIC / "browse.js", STATIC / "browse.bundle.js"
ESBUILD = "esbuild@0.28.2"
FLAGS = ("--bundle", "--format=esm", "--target=es2022", "--minify", "--legal-comments=none")


def head(sources: list[str]) -> str:
    """Return the first line of the bundle of these sources, named from the root of the project."""
    digest = hashlib.sha256()
    for name in sources:
        digest.update(f"{name}\n".encode() + (ROOT / name).read_bytes())
    return f"// By {ESBUILD} from {' '.join(sources)}; sha256 {digest.hexdigest()}\n"


def bundle() -> str:
    """Return the bundle of the widget's sources as they are now."""
    with tempfile.TemporaryDirectory() as folder:
        out, meta = Path(folder, "out.js"), Path(folder, "meta.json")
        command = ["npx", "--yes", ESBUILD, SOURCE.relative_to(ROOT).as_posix(), *FLAGS]
        subprocess.run(  # noqa: S603
            [*command, f"--outfile={out}", f"--metafile={meta}", "--log-level=warning"],
            cwd=ROOT,
            check=True,
        )
        sources = sorted(json.loads(meta.read_text("utf-8"))["inputs"])
        return head(sources) + out.read_text("utf-8")


if __name__ == "__main__":
    BUNDLE.write_text(bundle(), "utf-8")
    print(f"{BUNDLE.relative_to(ROOT)}: {BUNDLE.stat().st_size:,} bytes")
