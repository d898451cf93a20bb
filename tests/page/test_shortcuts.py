"""Keyboard shortcuts of the page."""

import pytest
from playwright.sync_api import expect

from tests.page.actions import is_at, position
from tests.page.conftest import Open
from tests.service import Service

pytestmark = pytest.mark.campaign


def test_keys_do_what_buttons_do(service: Service, open_page: Open) -> None:
    page = open_page(service, permissions=["clipboard-read", "clipboard-write"])
    is_at(page, 0)
    for n in range(1, 8):
        page.keyboard.press("ArrowRight")
        is_at(page, n)
    page.keyboard.press("ArrowLeft")
    is_at(page, 6)
    page.keyboard.press("c")
    expect(page.locator("#current .copy")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "8"
    page.keyboard.press("g")
    expect(page.get_by_label("to position")).to_be_focused()
    page.keyboard.type("90")
    page.keyboard.press("Enter")
    is_at(page, 90)
    page.locator("h1").click()
    page.keyboard.press("/")
    expect(page.get_by_label("n, the index")).to_be_focused()
    page.keyboard.type("1e3")  # The previous text is selected.
    page.keyboard.press("Enter")
    expect(page.locator("#found-said")).to_have_text("F(1,000), 209 digits")
    page.locator("h1").click()
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keyboard shortcuts")
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


def test_keys_in_fields_and_dialogs_are_theirs(service: Service, open_page: Open) -> None:
    page = open_page(service)
    is_at(page, 0)
    page.get_by_label("n, the index").press("ArrowRight")
    page.get_by_text("Summary", exact=True).click()
    page.keyboard.press("ArrowRight")
    page.get_by_role("button", name="Keyboard").click()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    for modifier in ("ctrlKey", "altKey", "metaKey"):
        page.locator("h1").dispatch_event(
            "keydown", {"key": "ArrowRight", "bubbles": True, modifier: True}
        )
    page.locator("h1").click()
    page.keyboard.press("ArrowRight")
    is_at(page, 1)
    assert position(service) == "1"


def test_keys_can_be_switched_off(service: Service, open_page: Open) -> None:
    page = open_page(service)
    is_at(page, 0)
    page.get_by_role("button", name="Keyboard").click()
    page.get_by_label("Use these keys").uncheck()
    page.get_by_role("button", name="Close").click()
    for _ in range(2):
        page.locator("h1").click()
        page.keyboard.press("g")
        expect(page.get_by_label("to position")).not_to_be_focused()
        page.reload()
        is_at(page, 0)
    page.get_by_role("button", name="Keyboard").click()
    page.get_by_label("Use these keys").check()
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    expect(page.get_by_label("to position")).to_be_focused()


def test_a_key_that_is_refused_is_reported_where_it_is_seen(
    service: Service, open_page: Open
) -> None:
    page = open_page(service, viewport={"width": 390, "height": 844})
    is_at(page, 0)
    page.locator("#explorer-title").scroll_into_view_if_needed()
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    page.keyboard.press("ArrowLeft")
    problem = page.locator("#problem")
    expect(problem).to_contain_text("there is no term before F(0)")
    expect(problem).to_be_in_viewport()
