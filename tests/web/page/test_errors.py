"""Bad input, a busy or absent server, and a library that changes."""

import re
import shutil
from contextlib import suppress

import pytest
from page_cases import (
    CAPTION,
    DEFAULT_K,
    HTML_NAME,
    MAX_BYTES,
    TOKEN,
    Site,
    choose,
    copy_views,
    expect,
    expect_matches,
    matches,
    press_action,
    rows_of,
    search,
    serve,
    sync_api,
    wait_until,
)
from PIL import Image

pytestmark = pytest.mark.slow


def test_html_in_names_and_captions_is_shown_as_text(new_page, site, other_photos, tmp_path):
    row = site.row(HTML_NAME)
    page = new_page(f"/?row={row}")
    assert site.library.caption(row).startswith(CAPTION)
    expect(page.locator("figcaption .caption")).to_contain_text(CAPTION)
    expect_matches(page, search(site, row))
    matches(page).first.locator(".picture").click()
    expect(page.locator(f"#matches [data-row='{row}'] .caption")).to_contain_text(CAPTION)
    file = tmp_path / HTML_NAME
    shutil.copy2(other_photos / "cat.jpg", file)
    choose(page, file)
    expect(page.locator("figcaption .caption")).to_have_text(HTML_NAME)
    expect_matches(page, search(site, file))
    expect(page).to_have_title(f"{HTML_NAME} – simsearch")


def test_unreadable_image_shows_an_error_and_the_next_one_works(
    page, site, other_photos, console, tmp_path
):
    (tmp_path / "broken.jpg").write_bytes((other_photos / "cat.jpg").read_bytes()[:300])
    choose(page, tmp_path / "broken.jpg")
    expect(page.get_by_role("alert").get_by_role("heading")).to_have_text(
        "This search is not possible"
    )
    (tmp_path / "notes.pdf").write_text("no picture")
    choose(page, tmp_path / "notes.pdf")
    expect(page.locator("#upload-error")).to_contain_text("“notes.pdf” is not a picture")
    choose(page, other_photos / "cat.jpg")
    expect_matches(page, search(site, other_photos / "cat.jpg"))
    expect(page.locator("#upload-error")).to_be_hidden()
    assert all("422" in console.pop() for _ in list(console))


def test_large_file_that_is_no_picture_is_refused_by_the_page(page, tmp_path):
    (tmp_path / "long.jpg").write_bytes(bytes(MAX_BYTES + 1))
    choose(page, tmp_path / "long.jpg")
    expect(page.locator("#upload-error")).to_contain_text("“long.jpg” is 1.0 MB; the limit is 1 MB")
    expect(page.locator("#library .card").first).to_be_visible()


def test_large_photos_are_shrunk_in_the_browser(page, site, other_photos, tmp_path):
    view = Image.open(other_photos / "cat.jpg").convert("RGB")
    view.resize((12000, 9000)).save(tmp_path / "phone.jpg", quality=90)  # 108 million pixels
    assert (tmp_path / "phone.jpg").stat().st_size > 3 * MAX_BYTES  # the server would refuse it
    choose(page, tmp_path / "phone.jpg")
    expect(page.locator("figcaption .caption")).to_have_text("phone.jpg")
    expect(page.locator("#upload-error")).to_be_hidden()
    expect(matches(page)).to_have_count(DEFAULT_K)
    found = search(site, other_photos / "cat.jpg", k=5)
    assert {match.row for match in found} & set(rows_of(page)[:5])
    area = page.locator(".crop-area.ready").bounding_box()
    assert area["width"] / area["height"] == pytest.approx(4 / 3, abs=0.05)


def test_missing_row_offers_the_way_back_to_the_library(new_page, console):
    page = new_page("/?row=123456")
    expect(page.get_by_role("heading", name="Picture not found")).to_be_visible()
    page.get_by_role("button", name="Back to the library").click()
    expect(page.locator("#library .card").first).to_be_visible()
    assert "404" in console.pop()


def test_unknown_column_in_a_link_is_told_with_the_right_one(new_page, console):
    page = new_page("/?is.color=red")
    expect(page.locator("#message")).to_contain_text("No column 'color'; did you mean 'colour'?")
    page.locator("#message").get_by_role("button", name="Clear filters").click()
    expect(page.locator("#library .card:not(.skeleton)").first).to_be_visible()
    assert "422" in console.pop()


def test_busy_server_is_retried(page, site, console):
    refused = []

    def refuse(route):
        refused.append(route)
        route.fulfill(status=503, headers={"Retry-After": "1"}, json={"detail": "full"})

    page.route("**/api/search*", refuse, times=2)
    row = site.row("cat/0001.jpg")
    page.locator(f"#library [data-row='{row}'] .picture").click()
    expect(page.locator("#note")).to_have_text("The server is busy; trying again in 1 s")
    expect_matches(page, search(site, row))
    assert len(refused) == 2
    assert all("503" in console.pop() for _ in list(console))


def test_late_answer_does_not_replace_a_newer_one(page, site):
    held = []

    def hold(route):
        held.append(route)

    page.route("**/api/search*", hold, times=1)
    slow, quick = site.row("cat/0001.jpg"), site.row("coffee/0001.jpg")
    page.locator(f"#library [data-row='{slow}'] .picture").click()
    wait_until(page, lambda: len(held), 1)
    page.locator("#home").click()
    page.locator(f"#library [data-row='{quick}'] .picture").click()
    expect_matches(page, search(site, quick))
    with suppress(sync_api.Error):  # the page has cancelled the request
        held[0].continue_()
    press_action(
        page, search(site, quick)[0].row, "explain"
    )  # leaves time for the late answer to arrive
    expect(page.locator("#matches .heatmap")).to_be_visible()
    expect_matches(page, search(site, quick))


def test_page_recovers_when_the_server_returns(page, site, console):
    row = site.row("cat/0001.jpg")
    page.locator(f"#library [data-row='{row}'] .picture").click()
    found = search(site, row)
    expect_matches(page, found)
    site.stop()
    matches(page).nth(1).locator(".picture").click()
    expect(page.locator("#banner")).to_contain_text("The server does not answer")
    expect(page.get_by_role("button", name="Try now")).to_be_visible()
    site.restart()
    expect_matches(page, search(site, found[1].row))
    expect(page.locator("#banner")).to_be_hidden()
    assert all("ERR_" in console.pop() for _ in list(console))


def test_page_stops_retrying_an_answer_that_never_arrives(page, site, console):
    page.route("**/api/search*", lambda route: route.abort())
    page.locator("#library .card:not(.skeleton) .picture").first.click()
    expect(page.locator("#banner")).to_be_visible()
    expect(page.locator("#message")).to_contain_text("its answer does not arrive")
    page.unroute("**/api/search*")
    page.get_by_role("button", name="Try again").click()
    expect(matches(page)).to_have_count(DEFAULT_K)
    expect(page.locator("#banner")).to_be_hidden()
    assert all("ERR_FAILED" in console.pop() for _ in list(console))


def test_query_row_is_found_again_after_the_library_changed(new_page, sample, console, tmp_path):
    copy_views(sample, tmp_path / "dataset", {"cat": 5, "coffee": 3})
    site = Site(tmp_path)
    try:
        page = new_page(f"/?row={site.row('cat/0004.jpg')}", site.address)
        before = search(site, site.row("cat/0004.jpg"))
        expect_matches(page, before)
        (site.dataset / "cat/0001.jpg").unlink()  # every row number now belongs to another image
        version = page.request.get(f"{site.address}/api/health").json()["version"]
        site.embed()
        wait_until(
            page,
            lambda: page.request.get(f"{site.address}/api/health").json()["version"] != version,
            wanted=True,
        )
        page.locator("#unique").click()
        row = site.row("cat/0004.jpg")
        expect_matches(page, search(site, row, unique=True))
        expect(page).to_have_url(re.compile(f"row={row}&"))
        expect(page.locator("#size")).to_have_text("7 pictures")
        assert all("status of 4" in console.pop() for _ in list(console))
        page.close()
    finally:
        site.stop()


def test_url_form_searches_where_the_server_allows_urls(new_page, site, console):
    address, stop = serve(site.outputs, urls=True)
    try:
        page = new_page("/", address)
        page.get_by_label("Address of an image").fill("http://127.0.0.1:9/private.jpg")
        with page.expect_request("**/api/search*") as asked:
            page.get_by_label("Address of an image").press("Enter")
        assert "http://127.0.0.1:9/private.jpg" in asked.value.post_data
        expect(page.get_by_role("heading", name="This search is not possible")).to_be_visible()
        expect(page).to_have_url(re.compile("url=http"))
        assert "422" in console.pop()
        page.close()
    finally:
        stop()


def test_login_accepts_only_the_token(new_page, site, console):
    address, stop = serve(site.outputs, token=TOKEN)
    try:
        page = new_page("/", address)
        expect(page.get_by_role("heading", name="Log in")).to_be_visible()
        expect(page.locator("#wrong-token")).to_be_hidden()
        page.get_by_label("Token").fill("not this one")
        page.get_by_label("Token").press("Enter")
        expect(page.locator("#wrong-token")).to_be_visible()
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_label("Token").press("Enter")
        expect(page.locator("#library .card:not(.skeleton)").first).to_be_visible()
        assert all("401" in console.pop() for _ in list(console))
        page.close()  # before its thumbnails are requested from a stopped server
    finally:
        stop()
