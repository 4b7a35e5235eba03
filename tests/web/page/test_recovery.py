"""What a page does after a failure: pictures come back, errors give way, dead controls rest."""

import re

import numpy as np
import pytest
from page_cases import (
    TOKEN,
    choose,
    expect,
    expect_matches,
    matches,
    search,
    serve,
)

import simsearch as ss

pytestmark = pytest.mark.slow


def test_query_picture_comes_back_with_the_server(new_page, site, console):
    row = site.row("cat/0001.jpg")
    page = new_page()
    page.route("**/thumbnail?*size=512*", lambda route: route.abort())
    page.route("**/api/search*", lambda route: route.abort(), times=1)
    page.locator(f"#library [data-row='{row}'] .picture").click()
    expect(page.locator("#query .placeholder")).to_have_text("The picture could not be loaded.")
    page.unroute("**/thumbnail?*size=512*")
    expect_matches(page, search(site, row))
    page.locator("#unique").click()
    expect(page.locator(".crop-area.ready img")).to_be_visible()
    assert all("ERR_FAILED" in console.pop() for _ in list(console))


def test_only_the_error_of_the_latest_file_is_shown(page, site, other_photos, console, tmp_path):
    (tmp_path / "broken.jpg").write_bytes((other_photos / "cat.jpg").read_bytes()[:300])
    choose(page, tmp_path / "broken.jpg")
    expect(page.locator("#message")).to_be_visible()
    (tmp_path / "notes.pdf").write_text("no picture")
    choose(page, tmp_path / "notes.pdf")
    expect(page.locator("#upload-error")).to_be_visible()
    expect(page.locator("#message")).to_be_hidden()
    choose(page, tmp_path / "broken.jpg")
    expect(page.locator("#message")).to_be_visible()
    expect(page.locator("#upload-error")).to_be_hidden()
    assert all("422" in console.pop() for _ in list(console))


def test_controls_that_cannot_work_are_off(new_page, site, console):
    page = new_page("/?row=123456")
    expect(page.get_by_role("heading", name="Picture not found")).to_be_visible()
    expect(page.locator("#unique")).to_be_disabled()
    expect(page.locator("#heatmaps")).to_be_disabled()
    page.get_by_role("button", name="Back to the library").click()
    page.locator("#library .card:not(.skeleton) .picture").first.click()
    expect(matches(page).first).to_be_visible()
    expect(page.locator("#unique")).to_be_enabled()
    assert "404" in console.pop()


def test_pressed_control_can_be_released_though_nothing_is_found(new_page):
    page = new_page("/?row=0&threshold=1&unique=1")
    expect(page.get_by_role("heading", name="No matches")).to_be_visible()
    expect(page.locator("#heatmaps")).to_be_disabled()
    page.locator("#unique").click()
    expect(page.locator("#unique")).to_be_disabled()


def test_library_without_a_backbone_offers_its_own_pictures_alone(
    new_page, site, other_photos, tmp_path
):
    ss.ImageLibrary(np.array(site.library.embeddings), site.library.paths).save(tmp_path)
    address, stop = serve(tmp_path)
    try:
        page = new_page("/", address)
        expect(page.get_by_role("heading", level=1)).to_have_text("Find similar pictures")
        expect(page.get_by_text("Choose a picture", exact=True)).to_be_hidden()
        choose(page, other_photos / "cat.jpg")  # as a drop would
        expect(page.locator("#upload-error")).to_contain_text("cannot be searched with new")
        page.locator("#library .card:not(.skeleton) .picture").first.click()
        expect(matches(page).first).to_be_visible()
        expect(page.locator("#select-part")).to_be_hidden()
        expect(page.locator("#heatmaps")).to_be_hidden()
        matches(page).first.hover()
        expect(matches(page).first.locator(".explain")).to_be_hidden()
        expect(matches(page).first.locator(".like")).to_be_visible()
        page.close()
    finally:
        stop()


def test_shared_link_survives_the_log_in(new_page, site, console):
    address, stop = serve(site.outputs, token=TOKEN)
    row = site.row("cat/0001.jpg")
    try:
        page = new_page(f"/?row={row}&folder=cat", address)
        page.get_by_label("Token").fill("not this one")
        page.get_by_label("Token").press("Enter")
        expect(page.locator("#wrong-token")).to_be_visible()
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_label("Token").press("Enter")
        expect(page).to_have_url(re.compile(rf"/\?row={row}&folder=cat$"))
        expect_matches(page, search(site, row, where={"folder": "cat"}))
        assert all("401" in console.pop() for _ in list(console))
        page.close()
    finally:
        stop()


def test_unknown_address_leads_to_the_library(new_page, console):
    page = new_page("/nowhere")
    expect(page.get_by_role("heading")).to_have_text("There is no page at this address")
    page.get_by_role("link", name="Open the library").click()
    expect(page.locator("#library .card:not(.skeleton)").first).to_be_visible()
    assert "404" in console.pop()
