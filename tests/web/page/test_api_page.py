"""The API page at /docs: Swagger UI, served from here."""

import pytest
from page_cases import TOKEN, expect, serve

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
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
