"""The page below a path: behind a proxy, and with several libraries in one server."""

import re

import pytest
from page_cases import axe, expect, expect_matches, matches, run_app, search

from simsearch.web.app import create_app
from simsearch.web.settings import Settings
from simsearch.web.several import create_libraries_app

pytestmark = pytest.mark.slow


def behind_proxy(app, prefix):
    """Take a prefix off, as a proxy does; all other addresses are not this server's."""

    async def proxy(scope, receive, send):
        if scope["type"] == "http":
            if not scope["path"].startswith(f"{prefix}/"):
                await send({"type": "http.response.start", "status": 502, "headers": []})
                await send({"type": "http.response.body", "body": b"not this server"})
                return
            scope = {**scope, "path": scope["path"].removeprefix(prefix)}
        await app(scope, receive, send)

    return proxy


@pytest.fixture(params=["/photos", ""], ids=["told", "not told"])
def address(site, request):
    """Serve behind a proxy whose prefix the server was told, or not: the page finds its way."""
    settings = Settings(str(site.outputs), root_path=request.param, **site.settings)
    address, stop = run_app(behind_proxy(create_app(settings), "/photos"))
    yield address
    stop()


def test_every_part_of_the_page_works_behind_a_proxy(new_page, site, address):
    page = new_page("/photos/", address)
    row = site.row("cat/0005.jpg")
    page.locator(f"#library [data-row='{row}'] .picture").click()
    expect_matches(page, search(site, row))
    assert page.url == f"{address}/photos/?row={row}"
    expect(page.locator("#matches .picture img.ready").first).to_be_visible()
    expect(page.locator(".crop-area.ready img")).to_be_visible()
    matches(page).nth(2).hover()
    matches(page).nth(2).locator(".explain").click()
    expect(page.locator("#matches .heatmap")).to_be_visible()
    matches(page).nth(1).hover()
    matches(page).nth(1).locator(".open").click()
    expect(page.locator("#detail .strip img.ready").first).to_be_visible()
    page.keyboard.press("Escape")
    page.reload()
    expect_matches(page, search(site, row))
    page.locator("#home").click()
    assert page.url == f"{address}/photos/"
    page.get_by_role("link", name="Duplicates").click()
    expect(page.get_by_role("button", name="Find duplicates")).to_be_visible()
    page.get_by_role("link", name="API").click()
    expect(page.locator(".opblock").first).to_be_visible()
    page.get_by_role("link", name="Search", exact=True).click()
    expect(page.locator("#library .picture img.ready").first).to_be_visible()


def test_several_libraries_are_listed_and_switched_between(new_page, site):
    names = ["all", "again"]
    address, stop = run_app(
        create_libraries_app(
            {name: Settings(str(site.outputs), name=name, libraries=names) for name in names}
        )
    )
    page = new_page("/", address)
    cards = page.locator("#libraries a")
    expect(cards).to_have_count(2)
    expect(cards.first).to_contain_text(f"{len(site.library)} pictures")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        found = axe.Axe().run(page).response["violations"]
        assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []
    cards.nth(1).click()
    expect(page).to_have_url(f"{address}/again/")
    expect(page.locator("#library .picture img.ready").first).to_be_visible()
    page.get_by_label("Library to search").select_option("all")
    expect(page).to_have_url(f"{address}/all/")
    row = site.row("cat/0005.jpg")
    page.locator(f"#library [data-row='{row}'] .picture").click()
    expect(page).to_have_url(re.compile(rf"/all/\?row={row}$"))
    expect_matches(page, search(site, row))
    stop()


GAPS = """nav => [...nav.children].map((each) => each.getBoundingClientRect())
  .map(({ left, right }, i, all) => (i ? left - all[i - 1].right : left))"""


@pytest.fixture
def several(site):
    names = ["holidays", "catalogue-of-2024"]
    settings = {name: Settings(str(site.outputs), name=name, libraries=names) for name in names}
    address, stop = run_app(create_libraries_app(settings))
    yield address
    stop()


@pytest.mark.parametrize("width", [1440, 820, 390, 360])
def test_links_stand_apart_from_each_other_beside_the_libraries(new_page, several, width):
    phone = {"has_touch": True, "is_mobile": True} if width < 1000 else {}
    page = new_page(
        "/catalogue-of-2024/", several, viewport={"width": width, "height": 800}, **phone
    )
    for view in ("", "map", "duplicates"):
        page.goto(f"{several}/catalogue-of-2024/{view}")
        expect(page.locator("#libraries")).to_be_visible()
        assert min(page.locator(".top nav").evaluate(GAPS)) >= 0
        for link in page.locator(".top nav > *").all():  # each with its text in its own room
            assert link.evaluate("each => each.scrollWidth <= each.clientWidth")
        brand, switch = (page.locator(each).bounding_box() for each in (".brand", "#libraries"))
        assert brand["x"] + brand["width"] <= switch["x"]
        assert switch["width"] >= 100
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


@pytest.mark.parametrize("view", ["map", "duplicates"])
def test_map_and_duplicates_are_switched_to_another_library(new_page, several, view):
    page = new_page(f"/holidays/{view}", several)
    expect(page.get_by_label("Library")).to_have_value("holidays")
    page.get_by_label("Library").select_option("catalogue-of-2024")
    expect(page).to_have_url(f"{several}/catalogue-of-2024/{view}")
    expect(page.get_by_label("Library")).to_have_value("catalogue-of-2024")
    page.close()


def test_one_library_shows_no_switch(page, site):
    expect(page.locator("#size")).to_have_text(f"{len(site.library)} pictures")
    expect(page.get_by_label("Library to search")).to_be_hidden()
