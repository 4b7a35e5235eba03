"""The widget without a browser: what clicks do, what Python reads, and its bundle."""

import builtins
import importlib.util
import shutil
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

import simsearch as ss
from simsearch.notebook.session import Session

ROOT = Path(ss.__file__).parents[1]
STATIC = ROOT / "simsearch/notebook/static"


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("browse"), np.random.default_rng(0)
    paths = [f"{folder.as_posix()}/{i}.png" for i in range(60)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).save(path)
    return ss.ImageLibrary(rng.normal(size=(60, 8)), paths)


@pytest.fixture
def click(library):
    """A widget, and what clicks in it."""
    widget = ss.browse(library, k=4)
    return widget, lambda action, **values: widget._on_message(
        widget, values | {"action": action}, []
    )


def test_a_library_is_browsed_page_by_page(click):
    widget, do = click
    assert (widget.query, widget.matches, len(widget.state["cards"])) == (None, None, 48)
    assert widget.state["cards"][0]["thumbnail"].startswith("data:image/jpeg;base64,")
    do("more")
    assert (len(widget.state["cards"]), widget.state["more"]) == (60, False)


def test_a_click_searches_as_python_does(click, library):
    widget, do = click
    do("query", row=7)
    assert widget.query == library.paths[7]
    assert widget.matches.paths == ss.search(library, 7, k=4).paths
    assert [card["row"] for card in widget.state["cards"]] == [m.row for m in widget.matches]
    do("more")
    assert widget.matches.paths == ss.search(library, 7, k=8).paths
    do("clear")
    assert (widget.query, widget.matches) == (None, None)


def test_likes_and_dislikes_recommend(click, library):
    widget, do = click
    do("query", row=7)
    do("like", row=9)
    do("dislike", row=20)
    assert (widget.liked, widget.disliked) == ([library.paths[9]], [library.paths[20]])
    assert widget.matches.paths == ss.recommend(library, [7, 9], [20], k=4).paths
    do("dislike", row=9)  # never on both lists
    assert (widget.liked, widget.disliked) == ([], [*library.paths[[20, 9]]])
    do("dislike", row=9)
    assert widget.disliked == [library.paths[20]]


def test_what_cannot_be_done_is_said_and_undone(click):
    widget, do = click
    do("query", row=7)
    before = widget.matches
    for action, values, words in (
        ("query", {"row": 999}, "rows 0 to 59"),
        ("box", {"box": [0, 0, 0.5, 1]}, "does not know what made its embeddings"),
        ("text", {"text": "a cat"}, "words"),
    ):
        do(action, **values)
        assert words in widget.state["error"]
        assert (widget.matches, widget.box) == (before, None)
    do("query", row=8)
    assert widget.state["error"] == ""


@pytest.mark.parametrize(
    "message",
    [
        None,
        [],
        {"action": "query"},
        {"action": "query", "row": "7"},
        {"action": "query", "row": True},
        {"action": "box", "box": [0, 0, 9, 1]},
        {"action": "box", "box": [float("nan")] * 4},
        {"action": "text", "text": "x" * 5000},
        {"action": "_find"},
        {"action": "__init__"},
    ],
    ids=repr,
)
def test_anything_else_that_a_browser_sends_is_ignored(click, message):
    widget, do = click
    do("query", row=7)
    before = widget.state
    widget._on_message(widget, message, [])
    assert widget.state == before


def test_options_hold_for_each_search(library):
    session = Session(library, 3, where="*1*.png")
    session.act("query", row=7)
    assert session.matches.paths == ss.search(library, 7, k=3, where="*1*.png").paths
    with pytest.raises(ss.QueryError, match="k=0"):
        ss.browse(library, k=0)


def test_a_picture_that_is_gone_has_no_thumbnail(library, tmp_path):
    gone = ss.ImageLibrary(np.eye(2), [str(tmp_path / "a.jpg"), str(tmp_path / "b.jpg")])
    session = Session(gone, 1)
    session.act("query", row=0)
    assert [card["thumbnail"] for card in session.state()["cards"]] == [""]


def test_where_no_widget_runs_it_is_a_figure(click, library):
    before = plt.get_fignums()
    widget, do = click
    data, _ = widget._repr_mimebundle_()
    assert b64decode(data["image/png"]).startswith(b"\x89PNG")
    do("query", row=7)
    _, metadata = widget._repr_mimebundle_()
    assert Path(library.paths[7]).name in metadata["image/png"]["alt"]
    assert plt.get_fignums() == before  # or the notebook would show it a second time


def test_a_widget_with_nothing_to_draw_is_shown_all_the_same(click, monkeypatch):
    def nothing(*_):
        raise ss.ImageError("no pictures")

    monkeypatch.setattr("simsearch.notebook.widget.draw_pictures", nothing)
    data, _ = click[0]._repr_mimebundle_()
    assert data.keys() == {"application/vnd.jupyter.widget-view+json", "text/plain"}


def test_without_the_extra_there_is_a_figure(library, monkeypatch, caplog):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "simsearch.notebook.widget":
            raise ImportError
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    assert isinstance(ss.browse(library), Figure)
    assert 'pip install "simsearch[notebook]"' in caplog.text


@pytest.fixture(scope="module")
def bundling():
    spec = importlib.util.spec_from_file_location("bundle", ROOT / "docs" / "bundle.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("name", "shared"), [("browse", 3), ("map", 2)])
def test_a_bundle_is_of_the_sources_as_they_are(bundling, name, shared):
    """If this fails: python docs/bundle.py."""
    first, _, code = (STATIC / f"{name}.bundle.js").read_text("utf-8").partition("\n")
    sources = first.partition(" from ")[2].partition(";")[0].split()
    assert f"simsearch/notebook/static/{name}.js" in sources
    assert sum("web/static" in source for source in sources) >= shared  # one grid, box and map
    assert f"{first}\n" == bundling.head(sources)
    assert len(code) > 2000


@pytest.mark.parametrize("name", ["browse", "map"])
def test_a_bundle_is_what_esbuild_makes(bundling, name):
    if shutil.which("npx") is None:
        pytest.skip("no node on this machine")
    try:
        made = bundling.bundle(STATIC / f"{name}.js")
    except bundling.subprocess.CalledProcessError:
        pytest.skip("no esbuild on this machine, and no network to fetch it")
    assert made == (STATIC / f"{name}.bundle.js").read_text("utf-8")
