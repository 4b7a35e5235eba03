"""The interactive map without a browser: what it is given, what Python reads and sets."""

import builtins
import sys
from base64 import b64decode

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

import simsearch as ss
from simsearch.analysis import projection


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("map"), np.random.default_rng(0)
    paths = [f"{folder.as_posix()}/{'ab'[i % 2]}/{i:02}.png" for i in range(40)]
    for path in paths[:3]:
        (folder / path).parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).save(path)
    return ss.ImageLibrary(rng.normal(size=(40, 8)), paths)


@pytest.fixture
def widget(library):
    return ss.show_map(library, interactive=True)


def test_the_widget_has_the_places_of_the_figure(library, widget):
    points, _ = projection.project(library.embeddings, "pca", 0)
    places = widget.places
    assert places["rows"] == list(range(40))
    np.testing.assert_allclose(np.array(places["x"]) / places["size"], points[:, 0], atol=1e-4)
    np.testing.assert_allclose(1 - np.array(places["y"]) / places["size"], points[:, 1], atol=1e-4)
    assert [places["groups"][i] for i in places["group"]] == library.labels.tolist()
    assert widget.title.startswith("PCA of 40 images")


def test_of_a_large_library_the_rows_are_those_drawn(library, monkeypatch):
    monkeypatch.setitem(projection.MAX_ROWS, "pca", 10)
    widget = ss.show_map(library, interactive=True, color_by=["", "x"] * 20)
    assert len(widget.places["rows"]) == 10
    groups = dict(zip(widget.places["rows"], widget.places["group"], strict=True))
    assert all(group == (0 if row % 2 else -1) for row, group in groups.items())


def test_rows_are_read_and_set(library, widget):
    widget.rows = [np.int64(3), 5]
    assert widget.rows == [3, 5]
    assert all(type(row) is int for row in widget.rows)
    assert widget.paths == [library.paths[3], library.paths[5]]


@pytest.mark.parametrize("rows", [[40], [-1], ["3"], [True], [1.0], [None], [float("nan")]])
def test_what_is_no_row_is_refused(widget, rows):
    widget.rows = [1]
    with pytest.raises(ss.QueryError, match="none of 0 to 39"):
        widget.rows = rows
    assert widget.rows == [1]


def asked(widget, message, monkeypatch):
    sent = []
    monkeypatch.setattr(widget, "send", sent.append)
    widget._on_message(widget, message, [])
    return sent


def test_thumbnails_are_sent_when_asked_for(library, widget, monkeypatch):
    (answer,) = asked(widget, {"thumbnails": [2, 30, 99, "x", True, None]}, monkeypatch)
    seen, gone = answer["thumbnails"]
    assert (seen["row"], seen["name"]) == (2, library.paths[2])
    assert seen["url"].startswith("data:image/jpeg;base64,")
    assert (gone["row"], gone["url"]) == (30, "")


@pytest.mark.parametrize("message", [None, 3, {}, {"thumbnails": "all"}, {"rows": [1]}])
def test_anything_else_that_a_browser_sends_is_ignored(widget, message, monkeypatch):
    assert asked(widget, message, monkeypatch) == []


def test_where_no_widget_runs_it_is_the_figure(widget):
    before = plt.get_fignums()
    data, metadata = widget._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    assert b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert "PCA of 40 images" in metadata["image/png"]["alt"]
    assert plt.get_fignums() == before  # or the notebook would show it a second time


def without(monkeypatch, missing):
    real = builtins.__import__
    monkeypatch.setattr(
        builtins,
        "__import__",
        lambda name, *args, **kwargs: (
            real("no_such_package") if name == missing else real(name, *args, **kwargs)
        ),
    )


def test_without_the_extra_there_is_a_figure(library, monkeypatch, caplog):
    for module in ("map_widget", "pictured"):
        monkeypatch.delitem(sys.modules, f"simsearch.notebook.{module}", raising=False)
    without(monkeypatch, "anywidget")
    assert isinstance(ss.show_map(library, interactive=True, images=0)[0], Figure)
    assert 'pip install "simsearch[notebook]"' in caplog.text


def test_umap_without_its_extra_says_what_to_install(library, monkeypatch):
    without(monkeypatch, "umap")
    with pytest.raises(ss.MissingExtraError, match=r'pip install "simsearch\[umap\]"'):
        ss.show_map(library, method="umap")
