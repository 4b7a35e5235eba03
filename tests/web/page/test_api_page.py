"""The API page at /docs."""

import pytest
from page_cases import expect

pytestmark = pytest.mark.slow


def test_api_page_lists_every_call_with_a_command(page, site):
    described = page.request.get(f"{site.address}/api/openapi.json").json()
    page.get_by_role("link", name="API").click()
    calls = {(method.upper(), path) for path, each in described["paths"].items() for method in each}
    expect(page.locator(".call")).to_have_count(len(calls))
    heads = page.locator(".call h2").evaluate_all(
        "all => all.map((head) => [head.firstChild.textContent, head.lastChild.textContent])"
    )
    assert {(method, path) for method, path in heads} == calls
    command = page.locator("#post-api-search pre").inner_text()
    assert command.split() == [
        "curl",
        f"{site.address}/api/search",
        "\\",
        "-F",
        "image=@photo.jpg",
        "\\",
        "-F",
        "k=10",
    ]
    expect(page.locator("#post-api-search .fields").first).to_contain_text("threshold")
