"""The API page at /docs: Swagger UI, served from here."""

import re

import pytest
from page_cases import TOKEN, axe, expect, serve

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def known_warnings(console, page):
    """Swagger UI warns that it draws the choice of a file by its general component."""
    yield
    console[:] = [text for text in console if text != NO_OWN_COMPONENT]


NO_OWN_COMPONENT = "Could not find component: JsonSchema_string_binary"


def open_call(page, method, path):
    """Unfold a call, and return it."""
    call = page.locator(f".opblock-{method}").filter(
        has=page.locator(f'.opblock-summary-path[data-path="{path}"]')
    )
    call.locator(".opblock-summary-control").click()
    return call


def test_api_page_lists_and_describes_every_call(page, site):
    described = page.request.get(f"{site.address}/api/openapi.json").json()
    page.get_by_role("link", name="API").click()
    calls = {(method, path) for path, each in described["paths"].items() for method in each}
    expect(page.locator(".opblock")).to_have_count(len(calls))
    shown = page.locator(".opblock").evaluate_all(
        """all => all.map((call) => [
            call.querySelector(".opblock-summary-method").textContent.toLowerCase(),
            call.querySelector(".opblock-summary-path").dataset.path,
        ])"""
    )
    assert {(method, path) for method, path in shown} == calls
    for each in ("Describe the served library", "Find the images that are most similar"):
        expect(page.locator(".opblock-summary-description").filter(has_text=each)).to_have_count(1)
    search = open_call(page, "post", "/api/search")
    expect(search).to_contain_text("How many matches to return")
    expect(search).to_contain_text("The library has changed since.")


def execute(call):
    """Send a call, and return its answer."""
    call.get_by_role("button", name="Execute").click()
    answer = call.locator(".live-responses-table .response")
    expect(answer).to_be_visible()
    return answer


def test_call_can_be_tried(page, site):
    page.goto(f"{site.address}/docs")
    expect(page.get_by_role("button", name="Authorize")).to_have_count(0)  # no token is needed
    answer = execute(open_call(page, "get", "/api/library"))
    expect(answer.locator(".response-col_status")).to_contain_text("200")
    expect(answer).to_contain_text('"images"')


def test_search_by_row_can_be_tried(page, site):
    page.goto(f"{site.address}/docs")
    call = open_call(page, "post", "/api/search")
    row = call.locator('tr[data-property-name="row"]')
    row.get_by_role("button", name="Add integer item").click()
    row.locator("input").first.fill("1")
    expect(execute(call)).to_contain_text('"matches"')


def test_search_by_upload_can_be_tried(page, site):
    page.goto(f"{site.address}/docs")
    call = open_call(page, "post", "/api/search")
    image = call.locator('tr[data-property-name="image"]')
    image.get_by_role("button", name="Add string item").click()
    image.locator('input[type="file"]').set_input_files(site.library.paths[0])
    call.locator('tr[data-property-name="k"] input').first.fill("2")
    expect(execute(call)).to_contain_text('"matches"')


def test_problem_is_shown_as_described(page, site, console):
    page.goto(f"{site.address}/docs")
    call = open_call(page, "post", "/api/search")
    answer = execute(call)
    expect(answer.locator(".response-col_status")).to_contain_text("422")
    expect(answer).to_contain_text("no query")
    console[:] = [text for text in console if "422" not in text]  # the browser logs it


@pytest.mark.parametrize("way", ["cookie", "token"])
def test_calls_can_be_tried_with_cookie_or_token(page, site, way):
    address, stop = serve(site.outputs, token=TOKEN)
    try:
        page.goto(f"{address}/?token={TOKEN}")
        page.goto(f"{address}/docs")
        expect(page.locator(".opblock").first).to_be_visible()
        health = page.locator(".opblock").filter(has_text="/api/health")
        expect(page.locator(".authorization__btn")).not_to_have_count(0)
        expect(health.locator(".authorization__btn")).to_have_count(0)  # it needs no token
        if way == "token":
            page.context.clear_cookies()
            page.get_by_role("button", name="Authorize").click()
            page.locator(".auth-container input").fill(TOKEN)
            page.get_by_role("button", name="Apply credentials").click()
            page.get_by_role("button", name="Close").click()
        answer = execute(open_call(page, "get", "/api/library"))
        expect(answer.locator(".response-col_status")).to_contain_text("200")
    finally:
        stop()


def test_api_page_fits_a_phone(page, site):
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{site.address}/docs")
    open_call(page, "post", "/api/search")
    field = page.locator('tr[data-property-name="where"] input').first
    expect(field).to_be_visible()
    box = field.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390
    about = page.get_by_text("Whether to read width and height of each image.").bounding_box()
    assert about["width"] > 200  # in lines of several words
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def brightness(page, place, what):
    """Return the mean of red, green and blue, 0 to 255, of an element's colour or ground."""
    colour = page.locator(place).first.evaluate(f"each => getComputedStyle(each).{what}")
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3


def test_api_page_has_both_themes(page, site):
    texts = ("#api .opblock-description-wrapper p", "#api .opblock-summary-path", ".brand")
    page.emulate_media(color_scheme="dark", reduced_motion="reduce")
    page.goto(f"{site.address}/docs")
    open_call(page, "post", "/api/search")
    expect(page.locator(texts[0]).first).to_be_visible()
    assert brightness(page, "body", "backgroundColor") < 60
    assert min(brightness(page, text, "color") for text in texts) > 150
    assert violations(page, context={"exclude": ["#api"]}) == {}
    page.get_by_role("button", name="Dark theme").click()
    assert brightness(page, "body", "backgroundColor") == 255
    assert max(brightness(page, text, "color") for text in texts) < 100
    page.goto(f"{site.address}/")  # the browser keeps the choice
    page.goto(f"{site.address}/docs")
    expect(page.locator(texts[1]).first).to_be_visible()
    assert brightness(page, "body", "backgroundColor") == 255
    assert brightness(page, texts[1], "color") < 100


# What Swagger UI itself brings, by axe's rules: its templates are not ours to change.
KNOWN_VIOLATIONS = {
    "color-contrast": "white text on the colours that stand for GET and POST, and grey on grey",
    "heading-order": "from the title, a heading of level 1, to tags of level 3",
    "landmark-unique": "a call's responses are a region without a name",
    "nested-interactive": "the button that unfolds a call holds a link to it",
    "region": "title and schemas stand beside the main part, which holds the calls",
    "scrollable-region-focusable": "an example that is wider than its box is no stop of Tab",
    "select-name": "a field's name stands beside its list of choices, without a label",
}


def violations(page, **context):
    """Return axe's rules, of any weight, that the page breaks, each with the elements."""
    found = axe.Axe().run(page, **context).response["violations"]
    return {each["id"]: [node["html"] for node in each["nodes"]] for each in found}


def unexpected_violations(page):
    """Return the violations around Swagger UI, and those of rules that it is not known for."""
    around = violations(page, context={"exclude": ["#api"]})
    return around, {
        rule: elements
        for rule, elements in violations(page).items()
        if rule not in KNOWN_VIOLATIONS
    }


@pytest.fixture
def unfolded(page, site):
    """The API page with a call of each kind unfolded, and one tried."""
    page.goto(f"{site.address}/docs")
    open_call(page, "post", "/api/search")
    open_call(page, "get", "/api/images/{row}/thumbnail")
    execute(open_call(page, "get", "/api/library"))
    return page


def test_axe_finds_what_swagger_ui_is_known_for_alone(unfolded):
    assert unexpected_violations(unfolded) == ({}, {})
    assert violations(unfolded).keys() == KNOWN_VIOLATIONS.keys()  # none has been mended


def test_axe_finds_new_violations_around_and_within_swagger_ui(unfolded):
    for place, html in {
        "header": "<select><option>known in Swagger UI alone</option></select>",
        "#api": "<img src=/static/icon.svg><button></button>",
        "body": "<main></main>",
    }.items():
        unfolded.locator(place).first.evaluate(
            "(place, html) => place.insertAdjacentHTML('beforeend', html)", html
        )
    around, unknown = unexpected_violations(unfolded)
    assert around.keys() == {"select-name", "landmark-no-duplicate-main"}
    assert unknown.keys() == {"image-alt", "button-name", "landmark-no-duplicate-main"}
