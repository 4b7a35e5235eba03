"""MkDocs hook: adds the pages that are generated or stand elsewhere in the repository."""

from __future__ import annotations

import re
from pathlib import Path

import generated
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]

# Links that are right where the file stands in the repository, and their counterpart on the site.
LINKS = {
    "scale.md": {"../benchmarks/README.md": "benchmarks/index.md"},
    "trust.md": {"../benchmarks/README.md": "benchmarks/index.md"},
    "guides/backbones.md": {"../../benchmarks/README.md": "../benchmarks/index.md"},
    "contributing.md": {"docs/architecture.md": "architecture.md"},
}
FILES = {
    "benchmarks/index.md": "benchmarks/README.md",
    "benchmarks/search.json": "benchmarks/search.json",
    "benchmarks/search.png": "benchmarks/search.png",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add each page under the name that `nav` gives it."""
    for name, source in FILES.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / source)))
    for name, text in generated.pages().items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_content(html: str, page: Page, **_: object) -> str:
    """Remove the reStructuredText of references, which docstrings have for `help()`."""
    if page.file.src_uri.startswith("reference/api/"):
        html = re.sub(r" \[\d\]_|\.\. (?=\[\d\] )", "", html)
    return html


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Point links to where a page stands on the site."""
    for link, target in LINKS.get(page.file.src_uri, {}).items():
        markdown = markdown.replace(f"]({link})", f"]({target})")
    return markdown
