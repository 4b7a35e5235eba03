"""Pages filled in from what they share: every icon and module that a page uses is on it."""

import re

import pytest

from simsearch.web.page_bundle import in_order, join_modules
from simsearch.web.page_template import STATIC, read_page
from simsearch.web.pages import PAGES

INCLUDE_MODULE = re.compile(r"<!-- module: (\S+) -->")
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
    for module in {"messages.js", "feedback.js", "detail.js"} & set(modules(main)):
        code = (STATIC / module).read_text("utf-8")
        assert set(re.findall(r'\bicon\("([\w-]+)"\)', code)) <= there


def test_first_page_is_asked_for_at_the_address_that_the_modules_use():
    size = re.search(r"PAGE_SIZE = (\d+)", (STATIC / "browse.js").read_text("utf-8"))[1]
    early = (STATIC / "early.js").read_text("utf-8")
    assert f'"api/images?offset=0&limit={size}&shapes=true"' in early


def modules(name):
    """A module and all that it imports."""
    return in_order(name, lambda each: (STATIC / each).read_text("utf-8"))


def addresses(page):
    return re.findall(r'(?:src|href)="(static/page/[^"]+)"', page)


@pytest.mark.parametrize("name", FILLED)
def test_what_a_page_loads_is_one_file_of_each_kind_that_the_browser_keeps(name, client):
    main = INCLUDE_MODULE.search((STATIC / name).read_text("utf-8"))
    found = addresses(read_page(name)[0])
    assert [address.partition(".")[2].partition(".")[2] for address in found] == (
        ["css", "head.js", "js"] if main else ["head.js"]
    )
    for address in found:
        response = client.get(f"/{address}")
        assert response.status_code == 200
        assert "immutable" in response.headers["cache-control"]
        assert response.headers["content-encoding"] == "gzip"
        plain = client.get(f"/{address}", headers={"accept-encoding": "identity"})
        assert (plain.content, plain.headers.get("content-encoding")) == (response.content, None)
    if main:
        for module in modules(main[1]):
            assert response.text.count(f"const ${module.removesuffix('.js')} = ") == 1


def test_joined_file_of_another_version_is_the_present_one_and_is_not_kept(client):
    (address,) = (each for each in addresses(read_page("index.html")[0]) if each.endswith(".css"))
    old = re.sub(r"[0-9a-f]{16}", "0" * 16, address)
    response = client.get(f"/{old}")
    assert (response.text, response.headers["cache-control"]) == (
        client.get(f"/{address}").text,
        "no-cache",
    )
    for unknown in ("index.css", f"nothing.{'0' * 16}.css", f"docs.{'0' * 16}.css", "../app.py"):
        assert client.get(f"/static/page/{unknown}").status_code == 404


def test_modules_run_before_those_that_import_them_and_once():
    code = {
        "main.js": 'import * as one from "./one.js";\nimport { b as c, d } from "./two.js";\n',
        "one.js": 'export { b } from "./two.js";\nexport async function a() {}\n',
        "two.js": "export const b = 1;\nexport class d {}\n",
    }
    assert in_order("main.js", code.__getitem__) == ["two.js", "one.js", "main.js"]
    joined = join_modules("main.js", code.__getitem__)
    assert "const one = $one;\nconst { b: c, d } = $two;\n" in joined
    assert "async function a() {}\nreturn { a, b: $two.b };" in joined
    assert "const b = 1;\nclass d {}\nreturn { b, d };" in joined


@pytest.mark.parametrize(
    "line", ["export default 1;", "export let a = 1;", 'import "./b.js";', "await 1;"]
)
def test_module_that_cannot_be_joined_is_an_error(line):
    with pytest.raises(ValueError, match=r"a\.js: .* cannot be joined"):
        join_modules("a.js", {"a.js": f"{line}\n", "b.js": ""}.__getitem__)


def test_modules_in_a_circle_are_an_error():
    code = {"a.js": 'import { b } from "./b.js";\n', "b.js": 'import { a } from "./a.js";\n'}
    with pytest.raises(ValueError, match=r"a\.js imports itself"):
        join_modules("a.js", code.__getitem__)


def test_page_that_the_browser_has_is_not_sent_again(client):
    for path in PAGES:
        first = client.get(path)
        assert first.status_code == 200
        again = client.get(path, headers={"if-none-match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
