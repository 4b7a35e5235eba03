"""Spots on the query picture: suggested parts of it, searched with by one press."""

from contextlib import suppress

import pytest
from page_cases import (
    box_in_url,
    choose,
    expect,
    expect_matches,
    matches,
    search,
    sync_api,
    wait_until,
)

from simsearch.analysis.suggested_parts import suggest_parts

# The wait for somebody who stays with a picture ends when the test says so.
NOBODY_STAYS = """() => {
  const wait = setTimeout;
  globalThis.setTimeout = (done, ms, ...values) =>
    ms === 2000 ? ((globalThis.stay = done), 0) : wait(done, ms, ...values);
}"""
pytestmark = pytest.mark.slow


def suggested(site, picture):
    return suggest_parts(site.library.backbone, str(picture))


def test_press_on_a_spot_searches_with_its_part(new_page, site):
    row = site.row("coffee/0001.jpg")
    parts = suggested(site, site.library.paths[row])
    page = new_page(f"/?row={row}")
    expect(page.locator(".spot")).to_have_count(len(parts))
    area, spot = (page.locator(each).first.bounding_box() for each in (".crop-area", ".spot"))
    left, top, right, bottom = parts[0]
    middle = (spot["x"] + spot["width"] / 2, spot["y"] + spot["height"] / 2)
    wanted = (
        area["x"] + area["width"] * (left + right) / 2,
        area["y"] + area["height"] * (top + bottom) / 2,
    )
    assert middle == pytest.approx(wanted, abs=1)
    page.locator(".spot").first.click()
    assert box_in_url(page) == pytest.approx(parts[0])
    expect_matches(page, search(site, row, box=parts[0]))
    expect(page.locator(".spot")).to_have_count(len(parts) - 1)
    expect(page.locator(".crop-box")).to_be_focused()
    page.get_by_role("button", name="Whole picture").click()
    expect(page.locator(".spot")).to_have_count(len(parts))
    expect_matches(page, search(site, row))
    page.locator("#home").click()
    page.locator(f"#library [data-row='{row}'] .picture").click()
    expect(page.locator(".spot")).to_have_count(len(parts))


def test_spots_of_an_uploaded_picture_are_reached_by_keyboard(page, site, other_photos):
    choose(page, other_photos / "coffee.jpg")
    parts = suggested(site, other_photos / "coffee.jpg")
    spot = page.locator(".spot").first
    expect(spot).to_have_accessible_name("Search with the part " + place(parts[0]))
    spot.focus()
    page.keyboard.press("Enter")
    assert box_in_url(page) == pytest.approx(parts[0])


def place(part):
    """Say where a part lies, as the page says it."""
    x, y = ((part[i] + part[i + 2]) / 2 for i in (0, 1))
    down = "top" if y < 0.4 else "bottom" if y > 0.6 else ""
    across = "left" if x < 0.4 else "right" if x > 0.6 else ""
    return (
        f"at the {down} {across}".replace("  ", " ").strip() if down + across else "in the middle"
    )


def test_spots_are_pressed_with_a_finger(new_page, site):
    row = site.row("coffee/0001.jpg")
    page = new_page(
        f"/?row={row}", viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
    )
    page.locator(".spot").first.tap()
    parts = suggested(site, site.library.paths[row])
    assert box_in_url(page) == pytest.approx(parts[0])


def test_late_suggestions_are_not_shown_on_another_picture(new_page, site):
    first, second = (site.row(f"coffee/000{i}.jpg") for i in (1, 2))
    held = []

    def hold(route):
        held.append(route)

    page = new_page()
    page.route("**/api/suggest", hold, times=1)
    page.locator(f"#library [data-row='{first}'] .picture").click()
    wait_until(page, lambda: len(held), 1)
    page.route("**/api/suggest", lambda route: route.fulfill(json={"parts": []}))
    page.locator("#home").click()
    page.locator(f"#library [data-row='{second}'] .picture").click()
    expect_matches(page, search(site, second))
    with suppress(sync_api.Error):  # the page has given this request up
        held[0].fulfill(json={"parts": [[0, 0, 0.5, 0.5]]})
    page.wait_for_timeout(300)
    expect(page.locator(".spot")).to_have_count(0)


def test_parts_are_asked_for_when_somebody_turns_to_the_picture(new_page, site):
    first, second = (site.row(f"coffee/000{i}.jpg") for i in (1, 2))
    page = new_page()
    page.evaluate(NOBODY_STAYS)
    asked = []
    page.on("request", lambda sent: sent.url.endswith("/api/suggest") and asked.append(sent))
    page.locator(f"#library [data-row='{first}'] .picture").press("Enter")
    expect_matches(page, search(site, first))
    page.locator(f"#matches [data-row='{second}'] .picture").press("Enter")
    expect_matches(page, search(site, second))
    assert not asked
    page.locator("#select-part").focus()
    expect(page.locator(".spot").first).to_be_visible()
    page.locator("#home").focus()
    page.locator("#select-part").focus()
    assert len(asked) == 1
    page.locator("#home").press("Enter")
    page.locator(f"#library [data-row='{first}'] .picture").press("Enter")
    expect_matches(page, search(site, first))
    assert len(asked) == 1
    page.evaluate("stay()")
    wait_until(page, lambda: len(asked), 2)


def test_search_goes_on_without_suggestions(new_page, site, console):
    row = site.row("coffee/0001.jpg")
    page = new_page()
    page.route("**/api/suggest", lambda route: route.fulfill(status=500, body="{}"))
    with page.expect_response("**/api/suggest"):
        page.locator(f"#library [data-row='{row}'] .picture").click()
    expect_matches(page, search(site, row))
    expect(matches(page).first).to_be_visible()
    expect(page.locator(".spot")).to_have_count(0)
    expect(page.locator("#message")).to_be_hidden()
    console.clear()  # the 500
