"""The map: similar pictures lie close together, and are searched with from there."""

import re

import pytest
from page_cases import axe, expect, expect_matches, matches, rows_of, search

pytestmark = pytest.mark.slow


@pytest.fixture
def mapped(new_page):
    page = new_page("/map")
    expect(page.locator("#near a").first).to_be_visible()
    return page


def near(page):
    """Return the rows beside the map, once it has come to rest."""
    page.wait_for_load_state("networkidle")
    before = None
    while (rows := listed(page)) != before:
        before = rows
        page.wait_for_timeout(400)
    return rows


def listed(page):
    links = page.locator("#near a").evaluate_all("all => all.map((a) => a.getAttribute('href'))")
    return [int(re.search(r"row=(\d+)", link)[1]) for link in links]


def canvas_box(page):
    return page.locator("#map").bounding_box()


def test_map_is_drawn_with_its_pictures_and_folders(mapped, site):
    expect(mapped.locator("#note")).to_have_text(f"{len(site.library)} pictures")
    expect(mapped.locator("#map-legend")).to_contain_text("coffee")
    mapped.wait_for_load_state("networkidle")
    painted = mapped.locator("#map").evaluate(
        "map => new Set(map.getContext('2d').getImageData(0, 0, map.width, map.height).data).size"
    )
    assert painted > 50  # thumbnails have many colours


def test_zoom_and_arrow_keys_change_what_is_in_the_middle(mapped, site):
    whole = near(mapped)
    assert len(whole) == 12
    mapped.locator("#map").focus()
    for _ in range(2):
        mapped.keyboard.press("+")
    for _ in range(14):  # 840 pixels: a third of the map at this zoom
        mapped.keyboard.press("ArrowRight")
    expect(mapped.locator("#near a").first).not_to_have_attribute("href", f"./?row={whole[0]}")
    mapped.get_by_role("button", name="The whole map").click()
    expect(mapped.locator("#near a").first).to_have_attribute("href", f"./?row={whole[0]}")
    mapped.locator("#map").focus()
    mapped.keyboard.press("Enter")
    expect_matches(mapped, search(site, whole[0]))


def test_pictures_that_are_drawn_around_are_searched_with(mapped):
    box = canvas_box(mapped)
    mapped.get_by_role("button", name="Draw around").click()
    corners = [(0.02, 0.02), (0.98, 0.02), (0.98, 0.98), (0.02, 0.98)]
    points = [(box["x"] + u * box["width"], box["y"] + v * box["height"]) for u, v in corners]
    mapped.mouse.move(*points[0])
    mapped.mouse.down()
    for point in points[1:]:
        mapped.mouse.move(*point, steps=5)
    mapped.mouse.up()
    expect(mapped.locator("#near-heading")).to_have_text("66 pictures selected")
    mapped.keyboard.press("Escape")
    expect(mapped.locator("#near-heading")).to_have_text("In the middle of the map")
    mapped.get_by_role("button", name="Draw around").click()
    mapped.mouse.move(*points[0])
    mapped.mouse.down()
    for point in (
        points[1],
        ((points[1][0] + points[3][0]) / 2, (points[1][1] + points[3][1]) / 2),
    ):
        mapped.mouse.move(*point, steps=5)
    mapped.mouse.up()
    expect(mapped.locator("#near-heading")).to_contain_text("selected")
    mapped.get_by_role("link", name="Find similar").click()
    expect(matches(mapped).first).to_be_visible()
    assert rows_of(mapped)


def test_map_moves_by_drag_and_wheel(mapped):
    whole = near(mapped)
    box = canvas_box(mapped)
    at = box["x"] + box["width"] * 0.2, box["y"] + box["height"] * 0.2
    mapped.mouse.move(*at)
    for _ in range(2):
        mapped.mouse.wheel(0, -300)
    expect(mapped.locator("#near a").first).not_to_have_attribute("href", f"./?row={whole[0]}")
    zoomed = near(mapped)
    mapped.mouse.move(box["x"] + box["width"] * 0.95, box["y"] + box["height"] * 0.95)
    mapped.mouse.down()
    mapped.mouse.move(box["x"] + 10, box["y"] + 10, steps=4)
    mapped.mouse.up()
    expect(mapped.locator("#near a").first).not_to_have_attribute("href", f"./?row={zoomed[0]}")


def test_neighbours_are_another_map(mapped):
    with mapped.expect_response(re.compile("method=tsne")) as answer:
        mapped.get_by_role("button", name="Group similar pictures").click()
    assert answer.value.status == 200
    expect(mapped.locator("#near a")).to_have_count(12)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_the_map(new_page, scheme):
    page = new_page("/map", color_scheme=scheme, reduced_motion="reduce")
    expect(page.locator("#near a").first).to_be_visible()
    found = axe.Axe().run(page).response["violations"]
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []


@pytest.mark.parametrize("width", [390, 820, 1440])
def test_legend_covers_no_picture(new_page, width):
    page = new_page("/map", viewport={"width": width, "height": 844})
    expect(page.locator("#map-legend")).to_be_visible()
    drawn, legend = canvas_box(page), page.locator("#map-legend").bounding_box()
    assert drawn["height"] > 200
    assert legend["y"] >= drawn["y"] + drawn["height"] - 1
