"""How many files the page loads, and how often."""

RESOURCES = """performance.getEntriesByType("resource")
    .filter(({name}) => name.includes("/static/"))
    .map(({name, transferSize}) => [name, transferSize])"""


def test_page_loads_few_files_and_keeps_them(page, site):
    page.goto(site.address)
    page.locator("#library img.ready").first.wait_for()
    names = [name for name, _ in page.evaluate(RESOURCES)]
    assert len({name for name in names if not name.endswith("icon.svg")}) == 3
    page.goto(f"{site.address}/?row=1")
    page.locator("#matches img.ready").first.wait_for()
    kept = {name: size for name, size in page.evaluate(RESOURCES) if "/static/page/" in name}
    assert list(kept.values()) == [0, 0, 0]  # bytes: none was fetched again
