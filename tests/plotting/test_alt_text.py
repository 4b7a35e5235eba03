"""Figures in a notebook have an alternative text: what is written in them, without their axes."""

from types import SimpleNamespace

import pytest

from simsearch.plotting.alt_text import MAX_LETTERS, alt_text
from simsearch.plotting.grid import new_figure

formatters = pytest.importorskip("IPython.core.formatters")
pylabtools = pytest.importorskip("IPython.core.pylabtools")


def test_it_says_what_is_written_once_and_no_ticks():
    fig = new_figure(3, 2, "Three albums")
    ax = fig.add_subplot(title="  two\nlines ", xlabel="cosine")
    ax.plot([0, 12345], [0, 1])
    ax.text(0, 0, "cosine")
    fig.draw_without_rendering()
    said = alt_text(fig)
    assert said.startswith("Figure: ")
    assert sorted(said.removeprefix("Figure: ").split("; ")) == [
        "Three albums",
        "cosine",
        "two lines",
    ]
    assert alt_text(new_figure(1, 1)) == "Figure without text"


def test_a_long_one_ends_between_two_texts():
    fig = new_figure(3, 2)
    names = [f"dataset/picture number {i}.jpg" for i in range(100)]
    for name in names:
        fig.text(0, 0, name)
    said = alt_text(fig)
    assert len(said) <= len("Figure: ") + MAX_LETTERS + len("; ...")
    *whole, dots = said.removeprefix("Figure: ").split("; ")
    assert (whole, dots) == (names[: len(whole)], "...")
    assert len(whole) > 20


def test_a_notebook_gets_it_beside_the_picture(monkeypatch):
    shell = SimpleNamespace(display_formatter=formatters.DisplayFormatter())
    monkeypatch.setattr("IPython.core.getipython.get_ipython", lambda: shell)
    pylabtools.select_figure_formats(shell, {"png"})
    new_figure(3, 2)  # from the first one on, and once
    fig = new_figure(3, 2, "Three albums")
    fig.add_subplot()
    data, facts = shell.display_formatter.format(fig, include={"image/png"})
    assert data["image/png"]
    assert facts["image/png"]["alt"] == "Figure: Three albums"


def test_without_a_notebook_nothing_is_changed(monkeypatch):
    monkeypatch.setattr("IPython.core.getipython.get_ipython", lambda: None)
    assert alt_text(new_figure(3, 2, "Three albums")) == "Figure: Three albums"
