"""Pages filled in from what they share: every icon and module that a page uses is on it."""

import re

import pytest

from simsearch.web.page_template import STATIC, modules, read_page
from simsearch.web.pages import PAGES

FILLED = ["index.html", "map.html", "duplicates.html", "docs.html", "libraries.html"]


@pytest.mark.parametrize("name", FILLED)
def test_page_has_every_icon_that_it_or_its_modules_name(name):
    page, _ = read_page(name)
    assert not re.findall(r"<!-- \w+:", page)
    there = set(re.findall(r'<symbol id="([\w-]+)"', page))
    assert set(re.findall(r'<use href="#([\w-]+)"', page)) <= there
    ids = re.findall(r' id="([\w-]+)"', page)
    assert len(ids) == len(set(ids))
    main = name.replace(".html", ".js").replace("index", "main")
    for module in {"messages.js", "feedback.js", "detail.js"} & {main, *modules(main)}:
        code = (STATIC / module).read_text("utf-8")
        assert set(re.findall(r'\bicon\("([\w-]+)"\)', code)) <= there


def test_first_page_is_asked_for_at_the_address_that_the_modules_use():
    size = re.search(r"PAGE_SIZE = (\d+)", (STATIC / "browse.js").read_text("utf-8"))[1]
    early = (STATIC / "early.js").read_text("utf-8")
    assert f'"api/images?offset=0&limit={size}&shapes=true"' in early


def test_every_module_of_a_page_is_fetched_at_once():
    page, _ = read_page("index.html")
    loaded = re.findall(r'rel="modulepreload" href="static/([\w.]+)"', page)
    assert loaded == modules("main.js")
    assert {"lines.js", "cardEvents.js", "zip.js"} <= set(loaded)


def test_page_that_the_browser_has_is_not_sent_again(client):
    for path in PAGES:
        first = client.get(path)
        assert first.status_code == 200
        again = client.get(path, headers={"if-none-match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
