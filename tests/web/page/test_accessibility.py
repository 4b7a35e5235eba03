"""The page by keyboard, on a phone, in both themes, and checked by axe."""

import re

import pytest
from page_cases import DEFAULT_K, axe, expect, expect_matches, matches, open_panel, search

import simsearch as ss

pytestmark = pytest.mark.slow


def test_keyboard_reaches_every_function(page, site):
    expect(page.locator("#library .card:not(.skeleton)")).to_have_count(60)
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#results")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator("#filters")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator("#open-collections")).to_be_focused()
    page.keyboard.press("Tab")
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "ArrowDown", "ArrowUp"):
        page.keyboard.press(key)
    second = page.locator("#library .card").nth(1)
    expect(second.locator(".picture")).to_be_focused()
    row = int(second.get_attribute("data-row"))
    page.keyboard.press("Enter")
    expect_matches(page, search(site, row))
    expect(page.locator("#heading")).to_be_focused()

    page.locator("#select-part").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".crop-box")).to_be_focused()
    for key in ("ArrowRight", "ArrowRight", "ArrowUp", "Shift+ArrowDown", "Shift+ArrowLeft"):
        page.keyboard.press(key)
    expect(page).to_have_url(re.compile("box=0.29,0.23,0.77,0.75$"))
    expect_matches(page, search(site, row, box=(0.29, 0.23, 0.77, 0.75)))
    page.keyboard.press("Escape")
    expect(page.locator("#select-part")).to_be_focused()
    found = search(site, row)
    expect_matches(page, found)

    matches(page).nth(2).locator(".picture").focus()
    page.keyboard.press("l")
    expect_matches(page, ss.recommend(site.library, [row, found[2].row], k=DEFAULT_K))
    expect(matches(page).nth(2).locator(".like")).to_be_focused()
    page.locator("#filters").press("Enter")
    expect(page.get_by_label("Number of matches")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#filters")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#library .card").first).to_be_visible()


def overflow(page):
    return page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )


def test_phone_layout_reaches_every_control_without_overflow(new_page, site):
    page = new_page(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    expect(page.locator("#take-photo")).to_be_attached()
    expect(page.get_by_text("Take a photo")).to_be_visible()
    page.locator("#library .card:not(.skeleton) .picture").first.tap()
    expect(matches(page)).to_have_count(DEFAULT_K)
    assert overflow(page) == 0
    page.locator("#filters").tap()
    page.get_by_label("cat 23").check()
    expect(page.locator("#chips li")).to_have_count(1)
    assert overflow(page) == 0
    page.get_by_role("button", name="Show the pictures").tap()
    matches(page).first.locator(".like").tap()
    expect(page.locator("#feedback li")).to_have_count(1)
    expect(matches(page).first.locator(".like")).to_be_visible()
    cats = int(site.library.where({"folder": "cat"}).sum())
    expect(matches(page)).to_have_count(cats - 1)  # without the liked one
    assert overflow(page) == 0
    sides = page.locator("button:visible, a:visible, input:visible").evaluate_all(
        "all => all.map((each) => each.getBoundingClientRect()).map((at) => [at.left, at.right])"
    )
    placed = [side for side in sides if side[1] - side[0] > 1]  # not for a screen reader alone
    assert len(placed) > 100
    assert all(0 <= left < right <= 360 for left, right in placed)
    page.goto(site.address + "/static/login.html")
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    assert overflow(page) == 0


def test_chosen_theme_survives_a_reload(new_page):
    page = new_page(color_scheme="light")

    def ground():
        return page.locator("body").evaluate("body => getComputedStyle(body).backgroundColor")

    light = ground()
    page.get_by_role("button", name="Dark theme").click()
    dark = ground()
    assert dark != light
    page.reload()
    assert ground() == dark
    page.emulate_media(color_scheme="dark")
    page.evaluate("localStorage.clear()")
    page.reload()
    assert ground() == dark


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_accessibility_violation(new_page, site, scheme):
    page = new_page(color_scheme=scheme, reduced_motion="reduce")
    checker = axe.Axe()

    def check():
        found = checker.run(page).response["violations"]  # of any weight
        assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []

    expect(page.locator("#library .card:not(.skeleton)").first).to_be_visible()
    check()
    row = site.row("cat/0001.jpg")
    page.goto(f"{site.address}/?row={row}&liked={row + 1}&box=.1,.1,.6,.6&unique=1&folder=cat")
    expect(matches(page).first).to_be_visible()
    open_panel(page)
    check()
    matches(page).first.hover()
    matches(page).first.locator(".select").click()
    matches(page).first.locator(".explain").click()
    expect(page.locator("#heat-legend")).to_be_visible()
    check()
    page.get_by_role("button", name="Add to a collection").click()
    check()
    page.keyboard.press("Escape")
    matches(page).nth(1).hover()
    matches(page).nth(1).locator(".open").click()
    expect(page.locator("#detail .strip img.ready").first).to_be_visible()
    check()
    page.goto(f"{site.address}/static/login.html")
    check()


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_the_page_of_an_unknown_address(new_page, console, scheme, width):
    page = new_page("/nowhere", color_scheme=scheme, viewport={"width": width, "height": 800})
    expect(page.get_by_role("link", name="Open the library")).to_be_visible()
    found = axe.Axe().run(page).response["violations"]
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert "404" in console.pop()
