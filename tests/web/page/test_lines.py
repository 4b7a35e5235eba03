"""The lines of the library: what a new card, a search and another width cost and change."""

import json

import pytest
from page_cases import expect, matches

pytestmark = pytest.mark.slow
FEW = 60  # elements, of more than a thousand on the page

ADD_A_CARD = """async () => {
  const line = document.querySelector("#library").firstElementChild; // in view
  line.append(line.lastElementChild.cloneNode(true));
  await new Promise((drawn) => requestAnimationFrame(() => setTimeout(drawn)));
}"""
WIDTHS = """() => [...document.querySelectorAll("#library .line")].slice(0, -1).map((line) => ({
  cards: line.children.length,
  gap: document.querySelector("#library").getBoundingClientRect().right
    - line.lastElementChild.getBoundingClientRect().right,
}))"""


def styled(browser, page, trace, action):
    """Return how many elements the browser styles anew, of each of its turns, during an action."""
    browser.start_tracing(page=page, path=trace, categories=["devtools.timeline"])
    action()
    browser.stop_tracing()
    events = json.loads(trace.read_text("utf-8"))["traceEvents"]
    return [
        event["args"]["elementCount"]
        for event in events
        if event["name"] == "UpdateLayoutTree" and "elementCount" in event["args"]
    ]


def test_new_card_leaves_the_styles_of_the_others_alone(browser, page, tmp_path):
    expect(page.locator("#library .card:not(.skeleton)")).to_have_count(60)
    page.wait_for_timeout(500)
    counts = styled(browser, page, tmp_path / "trace.json", lambda: page.evaluate(ADD_A_CARD))
    assert counts
    assert max(counts) < FEW


def test_search_leaves_the_styles_of_the_library_alone(browser, page, tmp_path):
    expect(page.locator("#library .card:not(.skeleton)")).to_have_count(60)
    page.wait_for_timeout(500)
    page.route("**/api/search*", lambda route: None)  # never answered

    def press():
        page.locator("#library .card .picture").first.press("Enter")
        expect(page.locator("#main")).to_have_class("searching")

    # Skeletons of matches are styled, which are new; no card of the library is.
    counts = styled(browser, page, tmp_path / "trace.json", press)
    assert max(counts) < 3 * FEW
    expect(page.locator("#library")).to_be_hidden()


@pytest.mark.parametrize("width", [1440, 390])
def test_lines_fill_each_width_and_keep_the_focus(new_page, width):
    page = new_page(viewport={"width": 900, "height": 900})
    expect(page.locator("#library .card:not(.skeleton)")).to_have_count(60)
    rows = "all => all.map((each) => each.dataset.row)"
    before = page.locator("#library .card").evaluate_all(rows)
    page.locator("#library .picture").nth(3).focus()
    page.set_viewport_size({"width": width, "height": 900})
    page.wait_for_timeout(300)
    lines = page.evaluate(WIDTHS)
    assert all(abs(line["gap"]) < 6 for line in lines if line["cards"] > 1)
    assert page.locator("#library .card").evaluate_all(rows) == before
    expect(page.locator("#library .picture").nth(3)).to_be_focused()


def test_library_is_as_it_was_after_a_search(page):
    expect(page.locator("#library .card:not(.skeleton)")).to_have_count(60)
    page.locator("#library .card .picture").nth(40).scroll_into_view_if_needed()
    before = page.evaluate("scrollY")
    page.locator("#library .card .picture").nth(40).press("Enter")
    expect(matches(page).first).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#library .card").nth(40)).to_be_in_viewport()
    assert abs(page.evaluate("scrollY") - before) < 50
