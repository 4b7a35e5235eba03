"""Pictures in their own shapes, filters beside them and over them, and targets for fingers."""

import pytest
from page_cases import (
    DEFAULT_K,
    expect,
    expect_matches,
    matches,
    open_panel,
    search,
    wait_until,
)

import simsearch as ss
from simsearch.images.decode import load_image

pytestmark = pytest.mark.slow

BOXES = """cards => cards.map((card) => {
    const box = card.querySelector(".picture").getBoundingClientRect();
    const { left, top, width, height } = box;
    return { row: Number(card.dataset.row), left, top, width, height };
})"""


def boxes(page, where="#library"):
    return page.locator(f"{where} .card:not(.skeleton)").evaluate_all(BOXES)


@pytest.mark.parametrize("width", [1440, 820, 390])
def test_pictures_keep_their_shapes_in_lines_of_one_height(new_page, site, width):
    page = new_page(viewport={"width": width, "height": 900})
    expect(page.locator("#library .card:not(.skeleton)")).to_have_count(60)
    found = boxes(page)[:24]
    lines = {}
    for box in found:
        picture = load_image(site.library.paths[box["row"]])
        assert box["width"] / box["height"] == pytest.approx(picture.width / picture.height, 0.03)
        lines.setdefault(round(box["top"]), []).append(box)
    assert len(lines) > 1
    for line in lines.values():
        heights = [box["height"] for box in line]
        assert max(heights) - min(heights) < 2
        assert max(box["left"] + box["width"] for box in line) <= width


def test_filters_stand_beside_the_pictures_on_wide_screens(new_page):
    page = new_page(viewport={"width": 1440, "height": 900})
    open_panel(page)
    expect(page.locator("#library .card:not(.skeleton)").first).to_be_visible()
    panel = page.locator("#panel").bounding_box()
    first = boxes(page)[0]
    assert panel["x"] + panel["width"] <= first["left"]
    assert abs(panel["y"] - first["top"]) < 40
    page.reload()  # it was left open
    expect(page.locator("#panel")).to_be_visible()
    page.locator("#filters").click()
    expect(page.locator("#panel")).to_be_hidden()
    page.reload()
    expect(page.locator("#library .card:not(.skeleton)").first).to_be_visible()
    expect(page.locator("#panel")).to_be_hidden()


def test_filters_are_a_sheet_on_phones(new_page, site):
    page = new_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page.locator("#filters").tap()
    panel = page.locator("#panel")
    expect(panel).to_be_visible()
    box = panel.bounding_box()
    assert (box["x"], box["width"]) == (0, 390)
    assert box["y"] + box["height"] == pytest.approx(844, abs=1)
    page.get_by_label("coffee 21").check()
    page.get_by_role("button", name="Show the pictures").tap()
    expect(panel).to_be_hidden()
    expect(page.locator("#library .card")).to_have_count(21)
    page.locator("#filters").tap()
    page.touchscreen.tap(195, 40)  # beside the sheet
    expect(panel).to_be_hidden()
    page.locator("#filters").tap()
    page.keyboard.press("Escape")
    expect(panel).to_be_hidden()
    expect(page.locator("#filters")).to_be_focused()


def test_range_has_a_slider_with_two_handles(new_page, site):
    row = site.row("cat/0001.jpg")
    page = new_page(f"/?row={row}")
    open_panel(page)
    low, high = page.get_by_label("Lowest price"), page.get_by_label("Highest price")
    low.focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    step = float(low.get_attribute("step"))
    expect_matches(page, search(site, row, where={"price": (5 * step, None)}))
    high.focus()
    page.keyboard.press("Home")  # stops at the other handle
    assert float(high.input_value()) == pytest.approx(5 * step)
    expect(page.locator("#chips li")).to_have_count(1)
    assert float(page.get_by_label("Price from").input_value()) == pytest.approx(5 * step)
    low.focus()
    page.keyboard.press("Home")
    high.focus()
    page.keyboard.press("End")
    expect(page.locator("#chips li")).to_have_count(0)
    expect_matches(page, search(site, row))


FOLDERS = [
    {"name": "a", "images": 1},
    {"name": "a/x", "images": 2},
    {"name": "a/y", "images": 3},
    {"name": "b", "images": 4},
    {"name": ".", "images": 5},
]


def test_folders_are_a_tree_in_which_one_stands_for_those_within(page):
    found = page.evaluate(
        """async (folders) => {
            const { treeOf, folderTree } = await import("/static/folderTree.js");
            const tree = treeOf(folders);
            const chosen = [];
            const { node, show } = folderTree(tree, (values) => chosen.push(values));
            document.body.append(node);
            const box = (value) => node.querySelector(`input[value="${value}"]`);
            const at = (value) => {
                const { checked, disabled, indeterminate } = box(value);
                return [checked, disabled, indeterminate];
            };
            show(["a/x"]);
            const some = ["a/", "a/x", "a/y"].map(at);
            show(["a/"]);
            const all = ["a/", "a/x", "a/y", "b"].map(at);
            box("b").click();
            node.remove();
            return { counts: tree.map(({ value, images }) => [value, images]), some, all, chosen };
        }""",
        FOLDERS,
    )
    assert found["counts"] == [["a/", 6], ["b", 4], [".", 5]]
    assert found["some"] == [[False, False, True], [True, False, False], [False, False, False]]
    assert found["all"] == [
        [True, False, False],
        [True, True, False],
        [True, True, False],
        [False, False, False],
    ]
    assert found["chosen"] == [["a/", "b"]]


def test_folder_with_a_slash_filters_by_all_within(page):
    where = page.evaluate(
        """async () => (await import("/static/request.js")).whereOf(
            { folders: ["a[1]/", "b"], columns: {}, collection: null })"""
    )
    assert where == {"folder": ["a[[]1]", "a[[]1]/*", "b"]}


SMALL = """all => all.filter((each) => each.checkVisibility({ visibilityProperty: true }))
    .map((each) => [each.closest("label") ?? each, each])
    .map(([target, each]) => [target.getBoundingClientRect(), each])
    .filter(([box]) => box.width > 1 && (box.width < 43.5 || box.height < 43.5))
    .map(([box, each]) => `${each.outerHTML.slice(0, 90)} ${box.width}x${box.height}`)"""


@pytest.mark.parametrize("width", [820, 390])
def test_every_control_is_large_enough_for_a_finger(new_page, site, width):
    page = new_page(viewport={"width": width, "height": 844}, has_touch=True, is_mobile=True)
    controls = "a[href]:not(.skip), button, input:not([type=file]), select, summary"

    def check():
        assert page.locator(controls).evaluate_all(SMALL) == []

    expect(page.locator("#library .card:not(.skeleton)")).to_have_count(60)
    check()
    row = site.row("cat/0001.jpg")
    page.goto(f"{site.address}/?row={row}&liked={row + 5}&unique=1&k=40&folder=cat")
    expect(matches(page).first).to_be_visible()
    page.locator(".duplicates-toggle").first.tap()
    check()
    open_panel(page)
    check()
    page.keyboard.press("Escape")
    matches(page).first.locator(".open").tap()
    expect(page.locator("#detail .strip img.ready").first).to_be_visible()
    check()
    page.goto(f"{site.address}/map")
    expect(page.locator("#near a").first).to_be_visible()
    check()
    page.goto(f"{site.address}/duplicates")
    expect(page.get_by_role("button", name="Find duplicates")).to_be_visible()
    check()


def test_likes_are_in_the_details_where_cards_have_no_room(new_page, site):
    row = site.row("cat/0003.jpg")
    page = new_page(
        f"/?row={row}", viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
    )
    found = search(site, row)
    expect_matches(page, found)
    expect(matches(page).first.locator(".dislike")).to_be_hidden()
    matches(page).nth(2).locator(".open").tap()
    page.get_by_role("button", name="Less like this").first.tap()
    page.keyboard.press("Escape")
    expect_matches(page, ss.recommend(site.library, [row], [found[2].row], k=DEFAULT_K))


def test_heat_map_has_a_legend_and_no_hard_edge(new_page, site):
    row = site.row("coffee/0002.jpg")
    page = new_page(f"/?row={row}")
    expect_matches(page, search(site, row))
    expect(page.locator("#heat-legend")).to_be_hidden()
    matches(page).first.hover()
    matches(page).first.locator(".explain").click()
    expect(page.locator("#matches .heatmap")).to_be_visible()
    expect(page.locator("#heat-legend")).to_be_visible()
    jump = page.locator("#matches .heatmap").evaluate(
        """async (map) => {
            await map.decode();
            const canvas = document.createElement("canvas");
            [canvas.width, canvas.height] = [map.naturalWidth, map.naturalHeight];
            const context = canvas.getContext("2d");
            context.drawImage(map, 0, 0);
            const { data, width, height } = context.getImageData(0, 0, canvas.width, canvas.height);
            const alpha = (x, y) => data[4 * (y * width + x) + 3];
            let jump = 0;
            for (let y = 0; y < height; y++)
                for (let x = 1; x < width; x++)
                    jump = Math.max(jump, Math.abs(alpha(x, y) - alpha(x - 1, y)));
            return jump;
        }"""
    )
    assert 0 < jump <= 24  # of 255, from one pixel to the next
    matches(page).first.locator(".explain").click()
    expect(page.locator("#heat-legend")).to_be_hidden()


def test_more_pictures_come_while_scrolling_and_keep_their_places(page, site):
    cards = page.locator("#library .card:not(.skeleton)")
    expect(cards).to_have_count(60)
    before = boxes(page)[:10]
    page.locator("#more").scroll_into_view_if_needed()
    expect(cards).to_have_count(len(site.library))
    page.evaluate("scrollTo(0, 0)")
    wait_until(page, lambda: page.evaluate("scrollY"), 0)
    assert boxes(page)[:10] == before
