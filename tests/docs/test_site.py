"""The built site: it builds without a warning or a network, and loads nothing from another host."""

import importlib
import os
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from page_commands import ROOT, environment

LOADED = {"src", "srcset", "data", "poster"}  # attributes that a browser fetches by itself
ELSEWHERE = re.compile(r"^\s*(https?:)?//")
IN_STYLES = re.compile(r"""(?:url\(\s*["']?|@import\s+["'])((?:https?:)?//[^"')\s]+)""")


class Assets(HTMLParser):
    """Collects the addresses that a page loads, and those that it only links to."""

    def __init__(self, text):
        super().__init__()
        self.loaded, self.links = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in LOADED or (tag == "link" and name == "href"):
                self.loaded.append(value)
            elif name == "href":
                self.links.append(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site as `make docs` builds it, where no proxy answers."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment() | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    return folder


@pytest.mark.docs
@pytest.mark.slow
def test_no_page_loads_anything_from_another_host(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        assets = Assets(page.read_text("utf-8"))
        assert any(address.endswith(".css") for address in assets.loaded), page.name
        assert [each for each in assets.loaded if each and ELSEWHERE.match(each)] == [], page.name
    for style in [*site.rglob("*.css"), *pages]:
        assert IN_STYLES.findall(style.read_text("utf-8")) == [], style.name


@pytest.mark.docs
@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("reference/api/search.html", "exclude_query"),
        ("reference/api/embed.html", "ImageLibrary"),
        ("reference/cli.html", "--false-match-rate"),
        ("reference/rest.html", "/api/recommend"),
        ("notebooks/training.html", "train_head"),
        ("benchmarks/index.html", "recall@10"),
        ("changelog.html", "Unreleased"),
    ],
)
def test_a_generated_page_has_its_content(site, page, text):
    assert text in (site / page).read_text("utf-8")


@pytest.mark.docs
@pytest.mark.slow
def test_the_pages_hold_no_path_of_this_machine(site):
    for page in site.rglob("*.html"):
        assert os.fspath(ROOT) not in page.read_text("utf-8"), page.name


def test_the_picture_of_the_packages_is_that_of_the_contracts():
    pytest.importorskip("tomllib")
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        house = importlib.import_module("house")
    finally:
        sys.path.remove(str(ROOT / "docs"))
    assert house.PICTURE.read_text("utf-8") == house.draw(), "run python docs/house.py"
