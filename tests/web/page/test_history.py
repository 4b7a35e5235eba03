"""The URL of the page holds its state."""

import pytest
from page_cases import (
    DEFAULT_K,
    box_in_url,
    choose,
    drag,
    expect,
    expect_matches,
    matches,
    open_panel,
    press_action,
    search,
)

import simsearch as ss

pytestmark = pytest.mark.slow


def test_back_and_forward_restore_earlier_searches(page, site, other_photos):
    row = site.row("grass/0001.jpg")
    page.locator(f"#library [data-row='{row}'] .picture").click()
    first = search(site, row)
    expect_matches(page, first)
    matches(page).nth(1).locator(".picture").click()
    second = search(site, first[1].row)
    expect_matches(page, second)
    press_action(page, second[0].row, "like")
    recommended = ss.recommend(site.library, [first[1].row, second[0].row], k=DEFAULT_K)
    expect_matches(page, recommended)
    choose(page, other_photos / "cat.jpg")
    uploaded = search(site, other_photos / "cat.jpg")
    expect_matches(page, uploaded)
    for found in (recommended, second, first):
        page.go_back()
        expect_matches(page, found)
    page.go_back()
    expect(page.locator("#library .card").first).to_be_visible()
    for found in (first, second, recommended, uploaded):
        page.go_forward()
        expect_matches(page, found)


def test_copied_url_opens_the_same_search(page, new_page, site):
    row = site.row("cat/0007.jpg")
    page.locator(f"#library [data-row='{row}'] .picture").click()
    drag(page, (0.1, 0.1), (0.7, 0.7))
    open_panel(page)
    page.get_by_label("price to").fill("50")
    page.get_by_label("price to").press("Tab")
    page.locator("#unique").click()
    where = {"price": (None, 50)}
    found = search(site, row, where=where, box=box_in_url(page), unique=True)
    expect_matches(page, found)
    other = new_page(page.url.removeprefix(site.address))
    expect_matches(other, found)
    expect(other.locator(".crop-box")).to_be_visible()
    expect(other.locator("figcaption .caption")).to_have_text(site.library.caption(row))


def test_upload_survives_a_reload_in_its_own_browser_alone(page, new_page, site, other_photos):
    choose(page, other_photos / "cat.jpg")
    found = search(site, other_photos / "cat.jpg")
    expect_matches(page, found)
    page.reload()
    expect_matches(page, found)
    expect(page.locator("figcaption .caption")).to_have_text("cat.jpg")
    expect(page.locator(".crop-area.ready img")).to_be_visible()
    page.goto(site.address)
    page.go_back()
    expect_matches(page, found)
    address = page.url.removeprefix(site.address)
    page = new_page(address)
    expect(page.get_by_role("heading", name="Your picture is no longer here")).to_be_visible()
    choose(page, other_photos / "coffee.jpg")
    expect_matches(page, search(site, other_photos / "coffee.jpg"))
