"""Selecting pictures: export, collections, likes in the library, and the trail."""

import csv
import io
import re
import zipfile
from pathlib import Path

import pytest
from page_cases import (
    DEFAULT_K,
    card,
    expect,
    expect_matches,
    matches,
    press_action,
    rows_of,
    search,
)

import simsearch as ss

pytestmark = pytest.mark.slow


def select(page, row, where="#library", **options):
    one = page.locator(f"{where} .card[data-row='{row}']")
    one.hover()
    one.locator(".select").click(**options)


def download(page, name):
    with page.expect_download() as started:
        page.locator("#selection").get_by_role("button", name=name).click()
    return Path(started.value.path()).read_bytes()


def test_selected_pictures_are_exported_as_table_paths_and_zip(page, site):
    expect(page.locator("#library .card:not(.skeleton)")).to_have_count(60)
    first = int(page.locator("#library .card").first.get_attribute("data-row"))
    rows = [first + 1, first + 2, first + 3]
    select(page, rows[0])
    select(page, rows[2], modifiers=["Shift"])
    expect(page.locator("#selection")).to_contain_text("3 selected")
    names = [site.library.names[row] for row in rows]
    table = list(csv.DictReader(io.StringIO(download(page, "CSV").decode())))
    assert [line["path"] for line in table] == names
    assert [line["title"] for line in table] == [site.library.facts(row)["title"] for row in rows]
    assert download(page, "Paths").decode().split("\n") == [*names, ""]
    with zipfile.ZipFile(io.BytesIO(download(page, "ZIP"))) as packed:
        assert packed.testzip() is None
        assert packed.namelist() == names
        for row, name in zip(rows, names, strict=True):
            assert packed.read(name) == Path(site.library.paths[row]).read_bytes()
    page.keyboard.press("Escape")
    expect(page.locator("#selection")).to_be_hidden()
    expect(page.locator(".card.selected")).to_have_count(0)


def test_table_holds_no_formula_and_keeps_every_character(page):
    cells = ["=1+1", "@x", 'a "b", c', "line\nline", "-5", "Été"]
    text = page.evaluate(
        """async (cells) => {
            const { csv } = await import("/static/exports.js");
            const image = (title, i) => ({ path: `${i}.jpg`, metadata: { title, price: -5 } });
            return csv(cells.map(image));
        }""",
        cells,
    )
    lines = list(csv.reader(io.StringIO(text)))
    assert lines[0] == ["path", "title", "price"]
    assert [line[1] for line in lines[1:]] == [
        f"'{cell}" if cell[0] in "=@-" else cell for cell in cells
    ]
    assert {line[2] for line in lines[1:]} == {"-5"}  # a number is none


def test_zip_keeps_names_below_its_folder(page):
    data = page.evaluate(
        """async () => {
            const { zip } = await import("/static/zip.js");
            const data = new TextEncoder().encode("x");
            const names = ["../../a", "/b/./c", "..\\\\d", "é/ü"];
            const blob = zip(names.map((name) => ({ name, data })));
            return [...new Uint8Array(await blob.arrayBuffer())];
        }"""
    )
    with zipfile.ZipFile(io.BytesIO(bytes(data))) as packed:
        assert packed.namelist() == ["a", "b/c", "d", "é/ü"]
        assert packed.testzip() is None


def test_several_selected_pictures_are_searched_with_together(page, site):
    rows = [site.row("cat/0005.jpg"), site.row("cat/0006.jpg")]
    for row in rows:
        select(page, row)
    page.get_by_role("button", name="Find similar").click()
    expect_matches(page, ss.recommend(site.library, rows, k=DEFAULT_K))
    expect(page.locator("#feedback li")).to_have_count(2)


def test_likes_in_the_library_lead_to_pictures_like_them(page, site):
    rows = [site.row("cat/0007.jpg"), site.row("cat/0008.jpg")]
    for row in rows:
        one = page.locator(f"#library .card[data-row='{row}']")
        one.hover()
        one.locator(".like").click()
        expect(one.locator(".like")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#heading")).to_have_text("Library")
    expect(page.locator("#selection")).to_contain_text("2 liked")
    page.get_by_role("button", name="Find pictures like these").click()
    expect_matches(page, ss.recommend(site.library, rows, k=DEFAULT_K))
    expect(page).to_have_url(re.compile("likes=1"))
    page.reload()
    expect_matches(page, ss.recommend(site.library, rows, k=DEFAULT_K))
    press_action(page, rows_of(page)[0], "dislike")
    expect(page.locator("#feedback li")).to_have_count(3)


def test_collection_is_kept_in_the_browser_and_shown(page, site):
    rows = [site.row("cat/0005.jpg"), site.row("coffee/0004.jpg")]
    for row in rows:
        select(page, row)
    page.get_by_role("button", name="Add to a collection").click()
    page.get_by_label("Name of a new collection").fill("For the wall")
    page.get_by_role("button", name="Create").click()
    page.keyboard.press("Escape")
    page.reload()
    page.get_by_role("button", name="Collections").click()
    expect(page.get_by_role("dialog")).to_contain_text("2 pictures")
    page.get_by_role("button", name="Show For the wall").click()
    cards = page.locator("#library .card:not(.skeleton)")
    expect(cards).to_have_count(2)
    expect(page.locator("#chips")).to_contain_text("Collection: For the wall")
    select(page, rows[0])
    page.get_by_role("button", name="Remove from the collection").click()
    expect(cards).to_have_count(1)
    page.get_by_role("button", name="Remove the filter Collection").click()
    expect(cards).to_have_count(60)
    page.get_by_role("button", name="Collections").click()
    page.set_viewport_size({"width": 390, "height": 844})
    remove = page.get_by_role("button", name="Remove For the wall")
    ends = [each.bounding_box() for each in (remove, page.get_by_role("dialog"))]
    assert ends[0]["x"] + ends[0]["width"] < ends[1]["x"] + ends[1]["width"]
    remove.click()
    expect(page.get_by_role("dialog")).to_contain_text("There are no collections yet")


def test_collection_of_another_browser_says_so(new_page):
    page = new_page("/?collection=Elsewhere")
    expect(page.get_by_role("heading", name="The collection “Elsewhere” is empty")).to_be_visible()
    page.get_by_role("button", name="Clear filters").first.click()
    expect(page.locator("#library .card:not(.skeleton)")).to_have_count(60)


def test_trail_leads_back_to_the_pictures_before(new_page, site):
    start = site.row("cat/0005.jpg")
    page = new_page(f"/?row={start}")
    expect_matches(page, search(site, start))
    second = rows_of(page)[3]
    card(page, second).locator(".picture").click()
    expect_matches(page, search(site, second))
    third = rows_of(page)[4]
    card(page, third).locator(".picture").click()
    expect_matches(page, search(site, third))
    steps = page.get_by_role("navigation", name="Pictures that led here").get_by_role("link")
    expect(steps).to_have_count(3)
    expect(steps.nth(2)).to_have_attribute("aria-current", "step")
    steps.first.click()
    expect_matches(page, search(site, start))
    expect(steps).to_have_count(3)
    expect(steps.first).to_have_attribute("aria-current", "step")
    page.locator("#home").click()
    expect(steps.first).to_be_hidden()


def test_selection_works_by_keyboard(page):
    expect(page.locator("#library .card:not(.skeleton)")).to_have_count(60)
    page.locator("#library .picture").first.focus()
    page.keyboard.press("x")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("x")
    expect(page.locator("#selection")).to_contain_text("2 selected")
    page.keyboard.press("x")
    expect(page.locator("#selection")).to_contain_text("1 selected")


def test_matches_are_selected_with_their_scores(new_page, site):
    row = site.row("cat/0005.jpg")
    page = new_page(f"/?row={row}")
    found = search(site, row)
    expect_matches(page, found)
    matches(page).first.hover()
    matches(page).first.locator(".select").click()
    (line,) = csv.DictReader(io.StringIO(download(page, "CSV").decode()))
    assert float(line["score"]) == pytest.approx(found[0].score, abs=1e-6)


def test_bar_takes_two_lines_on_a_phone(new_page):
    page = new_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page.locator("#library .card:not(.skeleton) .select").first.tap()
    bar = page.locator("#selection")
    expect(bar).to_contain_text("1 selected")
    tops = bar.locator("button").evaluate_all("all => all.map((each) => each.offsetTop)")
    assert len(set(tops)) == 2
    box = bar.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390
    heights = bar.locator("button").evaluate_all("all => all.map((each) => each.offsetHeight)")
    assert min(heights) >= 44
