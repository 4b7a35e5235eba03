"""Details of a picture, captions, weak matches, and results that go on."""

import re
from pathlib import Path

import pandas as pd
import pytest
from page_cases import (
    axe,
    card,
    choose,
    expect,
    expect_matches,
    matches,
    open_panel,
    rows_of,
    search,
    serve,
)

pytestmark = pytest.mark.slow


def open_details(page, row):
    card(page, row).hover()
    card(page, row).locator(".open").click()
    expect(page.locator("#detail")).to_be_visible()
    return page.locator("#detail")


def test_details_show_the_picture_and_all_that_is_known(new_page, site):
    row = site.row("cat/0001.jpg")
    page = new_page(f"/?row={row}")
    found = search(site, row)
    expect_matches(page, found)
    detail = open_details(page, found[1].row)
    path = Path(found[1].path).relative_to(site.dataset).as_posix()
    expect(detail.locator("header .caption-name")).to_have_text(path.split("/")[-1])
    expect(detail.locator("header .caption-detail")).to_have_text("2 of 24")
    expect(detail.locator(".detail-score")).to_contain_text(f"Similarity {found[1].score:.3f}")
    expect(detail.locator("dl")).to_contain_text(path)
    for name, value in site.library.facts(found[1].row).items():
        expect(detail.locator("dl")).to_contain_text(f"{name.capitalize()}{value}")
    with page.expect_download() as download:
        detail.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename == path.split("/")[-1]
    assert Path(download.value.path()).read_bytes() == Path(found[1].path).read_bytes()
    alike = search(site, found[1].row, k=8)
    expect(detail.locator(".strip button")).to_have_count(8)
    detail.locator(".strip button").first.click()
    name = Path(alike[0].path).name
    expect(detail.locator("header .caption-name")).to_have_text(name)
    detail.get_by_role("link", name="Find similar").click()
    expect(detail).to_be_hidden()
    expect_matches(page, search(site, alike[0].row))


def test_details_are_moved_through_by_arrow_keys(new_page, site):
    row = site.row("cat/0001.jpg")
    page = new_page(f"/?row={row}")
    found = search(site, row)
    expect_matches(page, found)
    card(page, found[0].row).locator(".picture").focus()
    page.keyboard.press("i")
    position = page.locator("#detail header .caption-detail")
    expect(position).to_have_text("1 of 24")
    expect(page.get_by_role("button", name="Previous picture")).to_be_disabled()
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    expect(position).to_have_text("3 of 24")
    page.keyboard.press("ArrowLeft")
    expect(position).to_have_text("2 of 24")
    page.keyboard.press("Escape")
    expect(page.locator("#detail")).to_be_hidden()
    expect(card(page, found[1].row).locator(".picture")).to_be_focused()
    expect_matches(page, found)  # the search stays


def test_picture_is_compared_with_the_query_side_by_side(page, site, other_photos):
    choose(page, other_photos / "cat.jpg")
    found = search(site, other_photos / "cat.jpg")
    expect_matches(page, found)
    detail = open_details(page, found[0].row)
    expect(detail.locator(".large img")).to_have_count(1)
    detail.get_by_role("button", name="Compare with your picture").click()
    pictures = detail.locator(".large img")
    expect(pictures).to_have_count(2)
    first, second = pictures.evaluate_all("all => all.map((each) => each.src)")
    assert first.startswith("blob:")
    assert f"/api/images/{found[0].row}?" in second
    boxes = [pictures.nth(i).bounding_box() for i in range(2)]
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    page.keyboard.press("ArrowRight")
    expect(pictures).to_have_count(2)


def test_question_mark_lists_the_keys(new_page, site):
    page = new_page(f"/?row={site.row('cat/0001.jpg')}")
    expect(matches(page).first).to_be_visible()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard")).to_contain_text("Details of a picture")
    found = axe.Axe().run(page).response["violations"]
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []
    page.keyboard.press("Escape")
    expect(page.locator("#help")).to_be_hidden()
    expect(matches(page).first).to_be_visible()  # the search stays
    page.locator("#filters").click()
    page.get_by_label("File name contains").press("?")
    expect(page.locator("#help")).to_be_hidden()


def test_path_is_copied(new_page, site):
    page = new_page()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("#library .card:not(.skeleton)").first.hover()
    page.locator("#library .card .open").first.click()
    page.get_by_role("button", name="Copy path").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == site.library.names[0]


def test_matches_go_on_and_tell_where_they_become_weak(new_page, site):
    row = site.row("cat/again.jpg")  # which has one close match
    page = new_page(f"/?row={row}&k=6")
    expect_matches(page, search(site, row, k=6))
    first = page.locator("#matches .card").first.element_handle()
    page.get_by_role("button", name="Show more matches").click()
    found = search(site, row, k=54)
    expect_matches(page, found)
    assert first.evaluate("card => card.isConnected")  # what was there is kept
    page.locator("#more-matches").scroll_into_view_if_needed()
    expect_matches(page, search(site, row, k=len(site.library)))
    expect(page.locator("#more-matches")).to_be_hidden()
    weak = [match.row for match in found if match.score < site.library.threshold()]
    assert weak[0] != found[0].row
    line = page.locator(".weak-line")
    expect(line).to_contain_text("No close matches from here on")
    after = line.evaluate("line => Number(line.nextElementSibling.dataset.row)")
    assert after == weak[0]
    expect(page.locator("#legend")).to_contain_text("Similarity is 1 for the same picture")


def test_query_unlike_all_pictures_is_told_so(new_page, site):
    page = new_page(f"/?row={site.row('cat/0001.jpg')}&folder=grass")
    expect(page.locator(".weak-line b")).to_have_text("No close match")
    assert page.locator("#matches > *").first.get_attribute("class") == "weak-line"


def test_captions_have_a_line_for_the_name_and_one_for_the_folder(new_page, site):
    address, stop = serve(site.outputs)  # without a table
    try:
        page = new_page("/", address)
        first = page.locator("#library .card:not(.skeleton)").nth(1)
        expect(first.locator("bdi.caption-name")).to_have_text("0001.jpg")
        expect(first.locator("bdi.caption-detail")).to_have_text("cat")
        expect(first.locator(".caption")).to_have_attribute("title", "cat/0001.jpg")
        wide = first.locator(".caption-name").evaluate(
            "name => { name.textContent = 'long '.repeat(60);"
            " const style = getComputedStyle(name);"
            " return [style.textOverflow, style.whiteSpace, name.clientWidth < name.scrollWidth]; }"
        )
        assert wide == ["ellipsis", "nowrap", True]
        page.close()
    finally:
        stop()


def test_captions_in_any_script_are_read_in_full_on_focus(new_page, site, tmp_path):
    titles = [f"תמונה (מס' {i}) " + "ארוכה " * 30 for i in range(len(site.library))]
    address, stop = serve_with_titles(site, titles, tmp_path)
    try:
        page = new_page("/", address)
        first = page.locator("#library .card:not(.skeleton)").first
        name = first.locator("bdi.caption-name")
        expect(name).to_have_text(titles[0].strip())
        assert name.evaluate("name => name.matches(':dir(rtl)')")
        cut = "name => name.clientWidth < name.scrollWidth"
        assert name.evaluate(cut)
        first.locator(".picture").focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowLeft")  # focus by keyboard is shown
        assert not name.evaluate(cut)
        page.close()
    finally:
        stop()


def test_titles_with_commas_are_searched_as_text(new_page, site, tmp_path):
    titles = [f"Harbour, no. {i}, at noon" if i % 9 == 0 else f"Hill {i}" for i in range(66)]
    address, stop = serve_with_titles(site, titles, tmp_path)
    try:
        page = new_page("/", address)
        open_panel(page)
        expect(page.get_by_label("Title contains")).to_be_visible()
        expect(page.locator("#panel label", has_text="no. 9")).to_have_count(0)
        page.get_by_label("Title contains").fill("no. 9, at")
        expect(page.locator("#library .card:not(.skeleton)")).to_have_count(1)
        page.close()
    finally:
        stop()


def serve_with_titles(site, titles, folder):
    table = pd.DataFrame({"path": site.library.names, "title": titles})
    table.to_csv(folder / "titles.csv", index=False)
    return serve(site.outputs, metadata=str(folder / "titles.csv"))


def test_filters_have_counts_and_readable_names(new_page, site):
    page = new_page()
    page.locator("#filters").click()
    counts = site.library.metadata["colour"].value_counts()
    label = page.locator("#panel label", has_text="red")
    expect(label).to_have_text(re.compile(rf"^red\s*{counts['red']}$"))
    expect(page.locator("#panel legend", has_text="Colour")).to_have_text("Colour")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_the_details(new_page, site, scheme):
    row = site.row("cat/0001.jpg")
    page = new_page(f"/?row={row}&k=60", color_scheme=scheme, reduced_motion="reduce")
    expect(page.locator(".weak-line")).to_be_visible()
    found = axe.Axe().run(page).response["violations"]
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []
    open_details(page, rows_of(page)[0])
    expect(page.locator("#detail .strip img.ready").nth(3)).to_be_visible()
    page.get_by_role("button", name="Compare with your picture").click()
    found = axe.Axe().run(page).response["violations"]
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []


@pytest.mark.parametrize("width", [390, 820, 1440])
@pytest.mark.parametrize("address", ["/", "/?row=3"])
def test_buttons_of_the_details_fill_their_lines_in_equal_widths(new_page, site, address, width):
    page = new_page(address, viewport={"width": width, "height": 900})
    grid = page.locator("#matches" if "row" in address else "#library")
    grid.locator(".card:not(.skeleton) .open").first.evaluate("button => button.click()")
    expect(page.locator("#detail .large img")).to_be_visible()
    boxes = page.locator("#detail .buttons").evaluate(
        """all => [all, ...all.children].map((each) => {
            const { left, top, right, width } = each.getBoundingClientRect();
            return { left, top, right, width };
        })"""
    )
    whole, buttons = boxes[0], boxes[1:]
    lines = {}
    for box in buttons:
        lines.setdefault(round(box["top"]), []).append(box)
    assert max(map(len, lines.values())) == 2
    assert sum(len(line) == 1 for line in lines.values()) <= 3  # search, comparison, one left over
    for line in lines.values():
        assert abs(line[0]["left"] - whole["left"]) < 1
        assert abs(line[-1]["right"] - whole["right"]) < 1
        assert max(each["width"] for each in line) - min(each["width"] for each in line) < 1


def test_details_fit_on_a_phone(new_page, site):
    page = new_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page.locator("#library .card .open").first.tap()
    expect(page.locator("#detail .large img")).to_be_visible()
    assert page.locator("#detail").evaluate("view => view.scrollWidth <= view.clientWidth")
    sizes = page.locator("#detail button:visible, #detail .buttons a").evaluate_all(
        "all => all.map((each) => each.getBoundingClientRect().height)"
    )
    assert min(sizes) >= 44
    assert matches(page).count() == 0
