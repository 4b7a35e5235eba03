"""Filters and settings of the page."""

import pytest
from page_cases import expect, expect_matches, open_panel, search

pytestmark = pytest.mark.slow


def test_filters_by_folder_number_and_text(new_page, site):
    row = site.row("cat/0001.jpg")
    page = new_page(f"/?row={row}")
    open_panel(page)
    page.get_by_label("coffee 21").check()
    expect_matches(page, search(site, row, where={"folder": "coffee"}))
    page.get_by_label("price from").fill("30")
    page.get_by_label("price to").fill("40")
    page.get_by_label("price to").press("Enter")
    expect_matches(page, search(site, row, where={"folder": "coffee", "price": (30, 40)}))
    page.get_by_label("green").check()
    where = {"folder": "coffee", "price": (30, 40), "colour": ["green"]}
    expect_matches(page, search(site, row, where=where))
    expect(page.locator("#chips li")).to_have_count(3)
    page.locator("#chips button", has_text="price").click()
    del where["price"]
    expect_matches(page, search(site, row, where=where))
    page.get_by_label("File name contains").fill("/001")
    where["path"] = "*/001*"
    expect_matches(page, search(site, row, where=where))
    page.locator("#home").click()  # the library is filtered, too
    expect(page.locator("#library .card")).to_have_count(int(site.library.where(where).sum()))
    page.locator("#clear-filters").click()
    expect(page.locator("#heading")).to_have_text("Library")


def press_keys(page, name, keys):
    for key in keys:
        page.get_by_label(name).press(key)


def test_sliders_set_k_and_threshold(new_page, site):
    row = site.row("cat/0001.jpg")
    page = new_page(f"/?row={row}")
    open_panel(page)
    press_keys(page, "Number of matches", ["Home", "ArrowRight", "ArrowRight"])
    expect_matches(page, search(site, row, k=3))
    press_keys(page, "Number of matches", ["End"])
    expect_matches(page, search(site, row, k=len(site.library)))
    page.get_by_label("Auto", exact=False).check()
    expect_matches(page, search(site, row, k=len(site.library), threshold="auto"))
    expect(page.locator("#chips li")).to_have_text("Similar enough (automatic)")
    expect(page.locator("#filter-count")).to_have_text("1")
    page.get_by_role("button", name="Remove the filter Similar enough").click()
    expect_matches(page, search(site, row, k=len(site.library)))
    expect(page.locator("#chips li")).to_have_count(0)
    page.get_by_label("At least").check()
    press_keys(page, "Lowest similarity", ["End", "ArrowLeft"])
    expect(page.get_by_role("heading", name="No matches")).to_be_visible()
    expect(page.locator("#status")).to_have_text("0 matches")
    page.get_by_role("button", name="Allow any similarity").click()
    expect_matches(page, search(site, row, k=len(site.library)))


def test_long_folder_name_ends_before_its_count(page):
    sizes = page.evaluate(
        """async () => {
            const { treeOf, folderTree } = await import("/static/folderTree.js");
            const long = { name: "long ".repeat(40), images: 2 };
            const folders = [{ name: "a", images: 1 }, long];
            const box = document.createElement("div");
            box.style.width = "260px";
            box.append(folderTree(treeOf(folders), () => {}).node);
            document.body.append(box);
            const right = (node) => node.getBoundingClientRect().right;
            return [right(box), ...[...box.querySelectorAll("small")].map(right)];
        }"""
    )
    assert len(sizes) == 3
    assert max(sizes[1:]) <= sizes[0]


def test_toolbar_covers_the_ring_of_a_selected_picture(new_page, site):
    page = new_page(viewport={"width": 390, "height": 844})
    first = page.locator("#library .card:not(.skeleton)").first
    first.locator(".select").evaluate("button => button.click()")
    toolbar, picture = (
        page.locator(".toolbar").bounding_box(),
        first.locator(".picture").bounding_box(),
    )
    ring = first.locator(".picture").evaluate(
        """node => ["outlineWidth", "outlineOffset"].map(
            (name) => parseFloat(getComputedStyle(node)[name])
        )"""
    )
    assert sum(ring) > 3
    assert toolbar["x"] <= picture["x"] - sum(ring)
