"""The widgets in a real JupyterLab and a real Notebook 7, in Chromium."""

import re
from pathlib import Path

import pytest
from notebook_pages import read_cell

import simsearch as ss


@pytest.fixture(scope="module")
def page(lab, open_notebook):
    """The notebook, run until the widget is there."""
    with open_notebook(f"{lab}/lab/tree/browse.ipynb?token=secret") as page:
        page.locator(".simsearch-browse .card").first.wait_for()
        yield page


@pytest.fixture
def read(page):
    """Run the second cell, and return what it prints of the widget."""
    return lambda: read_cell(page, 1)


def card(page, name):
    return page.locator(".simsearch-browse .card", has_text=name)


def status(page, words):
    page.locator(".simsearch-browse .status", has_text=words).wait_for()


def test_clicks_boxes_likes_and_words_reach_python(page, read, folder):
    status(page, "12 of 12 pictures")
    assert page.locator(".simsearch-browse .card img").count() == 12
    card(page, "03.png").locator(".picture").click()
    status(page, "5 matches")
    library = ss.ImageLibrary.load(folder / "outputs")
    names = [Path(path).name for path in ss.search(library, 3, k=5).paths]
    shown = page.locator(".simsearch-browse .card .caption-name").all_inner_texts()
    assert shown == names
    assert read().startswith("dataset/03.png [] [] None ['dataset/")

    area = page.locator(".simsearch-browse .crop-area").bounding_box()
    page.mouse.move(area["x"] + 5, area["y"] + 5)
    page.mouse.down()
    page.mouse.move(area["x"] + area["width"] / 2, area["y"] + area["height"] - 5, steps=4)
    page.mouse.up()
    page.locator(".simsearch-browse figure button", has_text="Whole picture").wait_for()
    box = [float(edge) for edge in re.search(r"\(([\d., ]+)\)", read())[1].split(",")]
    assert box == pytest.approx([0.03, 0.03, 0.5, 0.96], abs=0.04)

    page.locator(".simsearch-browse figure button", has_text="Whole picture").click()
    page.locator(".simsearch-browse .crop-box").wait_for(state="hidden")
    first, second = names[:2]
    card(page, first).locator(".picture").click(modifiers=["Shift"])
    page.locator(".simsearch-browse .chosen .like").wait_for()
    card(page, second).locator(".picture").click(modifiers=["Alt"])
    page.locator(".simsearch-browse .chosen .dislike").wait_for()
    assert f"['dataset/{first}'] ['dataset/{second}']" in read()

    page.locator(".simsearch-browse input").fill("a red square")
    page.locator(".simsearch-browse form button").click()
    page.locator(".simsearch-browse .words, .simsearch-browse .status.error").first.wait_for()


def test_the_keyboard_does_the_same(page, read):
    page.locator(".simsearch-browse button", has_text="All pictures").click()
    status(page, "12 of 12 pictures")
    card(page, "00.png").locator(".picture").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    status(page, "5 matches")
    assert read().startswith("dataset/01.png [] []")


def test_the_figure_for_the_documentation(page, tmp_path):
    """Nothing of the widget is cut off, and no picture is broken."""
    wide = page.evaluate(
        "() => { const top = document.querySelector('.simsearch-browse'); "
        "return top.scrollWidth - top.clientWidth; }"
    )
    assert wide <= 0
    broken = page.evaluate(
        "() => [...document.querySelectorAll('.simsearch-browse img')]"
        ".filter((each) => each.complete && !each.naturalWidth).length"
    )
    assert broken == 0


def test_notebook_7_runs_the_widget_as_well(notebook7, open_notebook):
    with open_notebook(f"{notebook7}/notebooks/browse.ipynb?token=secret") as page:
        status(page, "12 of 12 pictures")
        card(page, "03.png").locator(".picture").click()
        status(page, "5 matches")
        assert read_cell(page, 1).startswith("dataset/03.png [] [] None ['dataset/")


@pytest.fixture(scope="module")
def map_page(lab, open_notebook):
    """The notebook of the map, run until the widget is there; in a workspace of its own."""
    with open_notebook(f"{lab}/lab/workspaces/map/tree/map.ipynb?token=secret") as page:
        page.locator(".simsearch-map canvas").wait_for()
        yield page


def map_button(page, words):
    return page.locator(".simsearch-map button", has_text=words)


def test_a_line_around_pictures_gives_their_rows(map_page, folder):
    area = map_page.locator(".simsearch-map canvas").bounding_box()
    x, y, wide, high = area["x"], area["y"], area["width"], area["height"]
    map_button(map_page, "Draw around").click()
    map_page.mouse.move(x + 2, y + 2)
    map_page.mouse.down()
    for across, down in ((0.5, 0), (0.5, 1), (0, 1), (0, 0)):  # the left half
        map_page.mouse.move(x + 2 + across * (wide - 4), y + 2 + down * (high - 4), steps=3)
    map_page.mouse.up()
    map_page.locator(".simsearch-map .status", has_text="chosen").wait_for()
    library = ss.ImageLibrary.load(folder / "outputs")
    across = ss.show_map(library, interactive=True).places["x"]
    assert eval(read_cell(map_page, 1)) == [row for row in range(12) if across[row] < 5000]
    shown = map_page.locator(".simsearch-map .chosen img")
    shown.first.wait_for()
    assert shown.count() == sum(each < 5000 for each in across)


def test_rows_that_are_set_in_python_are_shown(map_page):
    assert read_cell(map_page, 2) == "['dataset/03.png', 'dataset/05.png']"
    map_page.locator(".simsearch-map .status", has_text="2 pictures chosen").wait_for()
    map_button(map_page, "Clear").click()
    map_page.locator(".simsearch-map .status", has_text="chosen").wait_for(state="hidden")
    assert read_cell(map_page, 1) == "[]"


def test_a_picture_is_shown_under_the_pointer_and_chosen_by_a_click(map_page, folder):
    library = ss.ImageLibrary.load(folder / "outputs")
    places = ss.show_map(library, interactive=True).places
    map_button(map_page, "+").click()  # zooms around the middle
    map_button(map_page, "Whole map").click()
    canvas = map_page.locator(".simsearch-map canvas")
    canvas.scroll_into_view_if_needed()
    area = canvas.bounding_box()
    sides = area["width"] - 56, area["height"] - 56
    at = [
        area[edge] + 28 + places[edge][4] / places["size"] * side
        for edge, side in zip(("x", "y"), sides, strict=True)
    ]
    map_page.mouse.move(*at)
    card = map_page.locator(".simsearch-map .card")
    card.locator("img").wait_for()
    assert "04.png" in card.inner_text()
    map_page.mouse.click(*at)
    map_page.locator(".simsearch-map .status", has_text="1 picture chosen").wait_for()
    assert read_cell(map_page, 1) == "[4]"
