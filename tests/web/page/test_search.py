"""Searching with the page: the library, ways to give an image, selected parts, feedback."""

import base64
import re
from pathlib import Path
from urllib.parse import urljoin

import pytest
from page_cases import (
    DEFAULT_K,
    box_in_url,
    card,
    choose,
    drag,
    expect,
    expect_matches,
    matches,
    press_action,
    rows_of,
    search,
    wait_until,
)

import simsearch as ss
from simsearch.images.crop import crop
from simsearch.images.decode import load_image

pytestmark = pytest.mark.slow

TRANSFER = """([kind, code]) => {
    const bytes = Uint8Array.from(atob(code), (letter) => letter.charCodeAt(0));
    const data = new DataTransfer();
    data.items.add(new File([bytes], "photo.jpg", { type: "image/jpeg" }));
    const options = { bubbles: true, cancelable: true };
    document.body.dispatchEvent(kind === "paste"
        ? new ClipboardEvent("paste", { ...options, clipboardData: data })
        : new DragEvent("drop", { ...options, dataTransfer: data }));
}"""


def test_library_grid_loads_more_on_scroll(page, site):
    cards = page.locator("#library .card:not(.skeleton)")
    expect(cards).to_have_count(60)
    page.locator("#more").scroll_into_view_if_needed()
    expect(cards).to_have_count(len(site.library))
    expect(page.locator("#more")).to_be_hidden()
    expect(page.locator("#size")).to_have_text(f"{len(site.library)} pictures")


def test_click_on_a_picture_or_a_match_searches_with_it(page, site):
    row = site.row("cat/0005.jpg")
    page.locator(f"#library [data-row='{row}'] .picture").click()
    found = search(site, row)
    expect_matches(page, found)
    first = matches(page).first
    expect(first.locator("b")).to_have_text(f"{found[0].score:.3f}")
    expect(first.locator(".caption")).to_have_attribute("title", found[0].caption)
    expect(first.locator(".caption-name")).to_have_text(found[0].caption.split(" · ")[0])
    expect(first.locator(".caption-detail")).to_have_text(
        " · ".join(found[0].caption.split(" · ")[1:])
    )
    expect(first.locator(".percentile")).to_have_text(re.compile(r"^top [\d.]+%$"))
    expect(page.locator("#heading")).to_be_focused()
    expect(page.locator("#status")).to_have_text(f"{DEFAULT_K} matches")
    first.locator(".picture").click()
    expect_matches(page, search(site, found[0].row))
    original = matches(page).first.locator(".open")
    answer = page.request.get(urljoin(page.url, original.get_attribute("href")))
    assert answer.body() == Path(site.library.paths[rows_of(page)[0]]).read_bytes()


def take_photo(page, file):
    page.locator("#take-photo").set_input_files(file)


def transfer(kind):
    def give(page, file):
        page.evaluate(TRANSFER, [kind, base64.b64encode(file.read_bytes()).decode()])

    give.__name__ = kind
    return give


@pytest.mark.parametrize("give", [choose, take_photo, transfer("paste"), transfer("drop")])
def test_image_can_be_chosen_photographed_pasted_or_dropped(page, site, other_photos, give):
    expect(page.locator("#library .picture img").first).to_be_visible()
    give(page, other_photos / "cat.jpg")
    expect_matches(page, search(site, other_photos / "cat.jpg"))
    expect(page.locator(".crop-area.ready img")).to_be_visible()


def test_box_drawn_with_the_mouse_searches_with_that_part(new_page, site):
    row = site.row("coffee/0004.jpg")
    page = new_page(f"/?row={row}")
    expect_matches(page, search(site, row))
    drag(page, (0.5, 0.1), (0.95, 0.6))
    box = box_in_url(page)
    assert box == pytest.approx((0.5, 0.1, 0.95, 0.6), abs=0.01)
    expect_matches(page, search(site, row, box=box))
    drag(page, (0.7, 0.3), (0.6, 0.5))  # moves it
    expect(page).not_to_have_url(re.compile(re.escape(",".join(f"{side:g}" for side in box))))
    moved = box_in_url(page)
    assert moved == pytest.approx((0.4, 0.3, 0.85, 0.8), abs=0.01)
    expect_matches(page, search(site, row, box=moved))
    drag(page, moved[2:], (1, 1))  # takes its lower right corner
    expect(page).to_have_url(re.compile("box=[^&]*,1,1"))
    expect_matches(page, search(site, row, box=box_in_url(page)))
    page.locator("#clear-part").click()
    expect_matches(page, search(site, row))
    assert "box" not in page.url


def swipe(page, *places):
    """Swipe over the query picture: places in fractions of it."""
    area = page.locator(".crop-area.ready").bounding_box()
    devtools = page.context.new_cdp_session(page)
    for kind, place in zip(("Start", *["Move"] * 9), places, strict=False):
        point = {
            "x": area["x"] + place[0] * area["width"],
            "y": area["y"] + place[1] * area["height"],
        }
        devtools.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": [point]})
    devtools.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def test_box_drawn_by_touch_searches_once_a_part_is_to_be_chosen(new_page, site, other_photos):
    page = new_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    choose(page, other_photos / "coffee.jpg")
    expect_matches(page, search(site, other_photos / "coffee.jpg"))
    before = page.evaluate("scrollY")
    swipe(page, (0.5, 0.9), (0.5, 0.7), (0.5, 0.4), (0.5, 0.1))
    wait_until(page, lambda: page.evaluate("scrollY") > before + 40, wanted=True)
    expect(page.locator(".crop-box")).to_be_hidden()
    assert "box" not in page.url
    page.evaluate("scrollTo(0, 0)")
    page.get_by_role("button", name="Choose a part").tap()
    box_in_url(page)
    swipe(page, (0.05, 0.05), (0.3, 0.3), (0.6, 0.6))  # beside the first box
    expect(page).to_have_url(re.compile(r"box=0\.0[45]"))
    box = box_in_url(page)
    assert box == pytest.approx((0.05, 0.05, 0.6, 0.6), abs=0.02)
    assert page.evaluate("scrollY") == 0
    expect_matches(page, search(site, other_photos / "coffee.jpg", box=box))
    page.reload()  # as from a shared link: a swipe scrolls again
    expect_matches(page, search(site, other_photos / "coffee.jpg", box=box))
    swipe(page, (0.5, 0.9), (0.5, 0.5), (0.5, 0.1))
    expect(page.get_by_role("button", name="Change the part")).to_be_visible()
    assert box_in_url(page) == box


def test_likes_and_dislikes_change_the_matches(new_page, site):
    row = site.row("cat/0003.jpg")
    page = new_page(f"/?row={row}")
    found = search(site, row)
    expect_matches(page, found)
    liked, disliked = found[5].row, found[2].row
    press_action(page, liked, "like")
    expect_matches(page, ss.recommend(site.library, [row, liked], k=DEFAULT_K))
    press_action(page, disliked, "dislike")
    expect_matches(page, ss.recommend(site.library, [row, liked], [disliked], k=DEFAULT_K))
    expect(page.locator("#feedback li")).to_have_count(2)
    page.locator("#feedback .feedback-list").first.get_by_role("button").click()
    expect_matches(page, ss.recommend(site.library, [row], [disliked], k=DEFAULT_K))
    page.locator("#clear-feedback").click()
    expect_matches(page, found)
    expect(page.locator("#feedback")).to_be_hidden()


def test_feedback_keeps_an_upload_or_a_selected_part_as_liked_query(new_page, site, other_photos):
    page = new_page()
    choose(page, other_photos / "cat.jpg")
    liked = search(site, other_photos / "cat.jpg")[4].row
    press_action(page, liked, "like")
    expect_matches(page, ss.recommend(site.library, [other_photos / "cat.jpg", liked], k=DEFAULT_K))
    row, box = site.row("coffee/0004.jpg"), (0.1, 0.1, 0.7, 0.8)
    page.goto(f"{site.address}/?row={row}&box=0.1,0.1,0.7,0.8&liked={liked}")
    part = crop(load_image(site.library.paths[row]), box)
    recommended = ss.recommend(site.library, [part, liked], k=DEFAULT_K, exclude=[row])
    expect(matches(page)).to_have_count(DEFAULT_K)
    # The browser decodes JPEG slightly differently: neighbouring ranks may swap.
    assert len(set(rows_of(page)) & {match.row for match in recommended}) >= DEFAULT_K - 1
    assert rows_of(page)[0] == recommended[0].row
    assert row not in rows_of(page)


def test_near_duplicates_are_grouped_and_can_be_expanded(new_page, site):
    row = site.row("cat/0001.jpg")
    page = new_page(f"/?row={row}&k=40")
    expect_matches(page, search(site, row, k=40))
    page.locator("#unique").click()
    found = search(site, row, k=40, unique=True)
    expect_matches(page, found)
    grouped = next(match for match in found if match.duplicates)
    inside = card(page, grouped.row)
    expect(inside.locator(".duplicates")).to_be_hidden()
    inside.get_by_role("button", name=f"+{len(grouped.duplicates)} near-duplicate").click()
    expect(inside.locator(".duplicates img")).to_have_count(len(grouped.duplicates))
    inside.locator(".duplicates a").first.click()
    other = site.library.find(grouped.duplicates[0])
    expect_matches(page, search(site, other, k=40, unique=True))


def test_heat_maps_are_shown_for_one_or_all_matches(new_page, site):
    row = site.row("coffee/0002.jpg")
    page = new_page(f"/?row={row}")
    found = search(site, row)
    expect_matches(page, found)
    first = card(page, found[0].row)
    first.hover()
    first.locator(".explain").click()
    drawn = first.get_by_alt_text("Heat map: bright where the pictures are similar")
    expect(drawn).to_be_visible()
    width, height = load_image(found[0].path).size
    wait_until(
        page,
        lambda: drawn.evaluate("map => [map.naturalWidth, map.naturalHeight]"),
        [width, height],  # of the thumbnail, which is no larger than the image
    )
    first.locator(".explain").click()
    expect(drawn).to_be_hidden()
    page.locator("#heatmaps").click()
    expect(page.locator("#matches .heatmap").nth(3)).to_be_visible()
    expect(page).to_have_url(re.compile("heat=1"))
    page.locator("#heatmaps").click()
    expect(page.locator("#matches .heatmap:visible")).to_have_count(0)
