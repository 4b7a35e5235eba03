"""The API page at /docs: Swagger UI, served from here."""

import pytest
from page_cases import expect

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


def test_a_call_can_be_tried(page, site):
    page.goto(f"{site.address}/docs")
    call = open_call(page, "get", "/api/library")
    call.get_by_role("button", name="Execute").click()
    expect(call.locator(".live-responses-table")).to_contain_text('"images"')
    expect(call.locator(".live-responses-table .response .response-col_status")).to_contain_text(
        "200"
    )


def test_a_search_can_be_tried(page, site):
    page.goto(f"{site.address}/docs")
    call = open_call(page, "post", "/api/search")
    row = call.locator('tr[data-property-name="row"]')
    row.get_by_role("button", name="Add integer item").click()
    row.locator("input").first.fill("1")
    for name in ("k", "where", "box", "weights"):  # they have examples, which are filled in
        call.locator(f'tr[data-property-name="{name}"] input').first.fill("")
    call.get_by_role("button", name="Execute").click()
    expect(call.locator(".live-responses-table")).to_contain_text('"matches"')
