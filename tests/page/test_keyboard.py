"""The page by keyboard alone."""

import pytest
from playwright.sync_api import expect

from tests.page.actions import digits, is_at, put, seek
from tests.page.conftest import Open
from tests.service import Service

pytestmark = pytest.mark.campaign


class TestKeyboard:
    def test_tab_reaches_everything_in_order_and_is_seen(
        self, service: Service, open_page: Open
    ) -> None:
        put(service, 1000)
        page = open_page(service)
        page.get_by_role("button", name="Private").click()
        is_at(page, 0)
        seek(page, "1000")
        expect(page.locator("#position")).to_have_text("1,000")
        page.locator("#current .more").press("Enter")
        page.locator("h1").click()
        reached: list[str] = []
        for _ in range(30):
            page.keyboard.press("Tab")
            focused = page.evaluate(
                """() => {
                    const at = document.activeElement;
                    const seen = at.type === "radio" ? at.nextElementSibling : at;
                    const style = getComputedStyle(seen);
                    const text = at.textContent.trim().split(" ")[0].slice(0, 8);
                    return [at.id || text || at.name, at.tagName,
                            style.outlineStyle !== "none" && style.outlineWidth === "2px"];
                }"""
            )
            if focused[1] == "BODY":
                break
            reached.append(focused[0])
            assert focused[2], focused
        assert reached == [
            *("show-keys", "API", "shared", "own", "remove"),
            *("previous", "by", "next", "target", "Go"),
            *("87", "Copy", "Download", "digit", "Find", "43466557"),
            *("The", "n", "what", "base", "Show"),
            *("value", "Check"),
        ]

    def test_keyboard_alone_does_everything(self, service: Service, open_page: Open) -> None:
        page = open_page(service)
        is_at(page, 0)

        def tab_to(name: str) -> None:
            for _ in range(30):
                page.keyboard.press("Tab")
                if page.evaluate("document.activeElement.id") == name:
                    return
            raise AssertionError(f"Tab does not lead to {name}")

        tab_to("own")
        page.keyboard.press("Space")
        expect(page.locator("#keep")).to_be_visible()
        is_at(page, 0)
        tab_to("by")
        page.keyboard.type("7")  # The previous text is selected.
        page.keyboard.press("Enter")
        is_at(page, 7)
        tab_to("next")
        page.keyboard.press("Space")
        is_at(page, 14)
        tab_to("target")
        page.keyboard.type("30")
        page.keyboard.press("Enter")
        is_at(page, 30)
        tab_to("remove")
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_be_hidden()
        expect(page.locator("#remove")).to_be_focused()
        tab_to("n")
        page.keyboard.type("10")
        page.keyboard.press("Tab")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        tab_to("modulo")
        page.keyboard.type("7")
        page.keyboard.press("Enter")
        expect(page.locator("#found-said")).to_have_text("F(10) mod 7")
        assert digits(page.locator("#found-term")) == "6"
