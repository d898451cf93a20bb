"""The shared sequence on the page: step, seek, and see every digit."""

import re

from playwright.sync_api import Route, expect

from tests.page.actions import SHARED, digits, fib, hide_changes, is_at, later, position, put, seek
from tests.page.conftest import Open
from tests.service import Serve, Service


class TestSequence:
    def test_next_and_previous_step_by_the_number_given(
        self, service: Service, open_page: Open
    ) -> None:
        page = open_page(service)
        is_at(page, 0)
        page.get_by_role("button", name="Next").click()
        is_at(page, 1)
        page.get_by_label("by how many terms").fill("099")
        page.get_by_role("button", name="Next").click()
        is_at(page, 100)
        expect(page.locator("#said")).to_have_text("F(100) = 354224848179261915075")
        page.get_by_label("by how many terms").fill("10")
        page.get_by_role("button", name="Previous").click()
        is_at(page, 90)
        assert position(service) == "90"

    def test_groups_of_digits_are_counted_from_the_end(
        self, service: Service, open_page: Open
    ) -> None:
        put(service, 31)
        page = open_page(service)
        is_at(page, 31)
        groups = page.locator("#current .digits > span")
        assert groups.all_text_contents() == ["1", "346", "269"]

    def test_presses_in_a_burst_are_not_lost(self, service: Service, open_page: Open) -> None:
        page = open_page(service)
        is_at(page, 0)
        page.evaluate("for (let i = 0; i < 30; i += 1) document.getElementById('next').click()")
        is_at(page, 30)
        assert position(service) == "30"

    def test_go_leads_to_the_position(self, service: Service, open_page: Open) -> None:
        page = open_page(service)
        is_at(page, 0)
        seek(page, "01 20")
        is_at(page, 120)
        seek(page, "0")
        is_at(page, 0)
        assert position(service) == "0"

    def test_long_term_is_shortened_until_it_is_unfolded(
        self, service: Service, open_page: Open
    ) -> None:
        put(service, 12_345)
        page = open_page(service)
        expect(page.locator("#digits")).to_have_text("2,580")
        term = page.locator("#current")
        whole = fib(12_345)
        assert digits(term) == f"{whole[:60]}…{whole[-60:]}"
        said = f"F(12,345) has 2,580 digits: {whole[:12]} … {whole[-12:]}"
        expect(page.locator("#said")).to_have_text(said)
        more = page.get_by_role("button", name="2,460 more digits")
        expect(more).to_have_attribute("aria-expanded", "false")
        more.click()
        expect(more).to_have_attribute("aria-expanded", "true")
        region = page.get_by_role("group", name="All digits of F(12,345)")
        expect(region.locator("p")).to_have_count(3)
        paragraphs = region.locator("p").all_text_contents()
        assert paragraphs[0] == whole[:999]
        assert "".join(paragraphs) == whole
        more.click()
        expect(region).to_be_hidden()
        expect(more).to_have_attribute("aria-expanded", "false")

    def test_position_of_two_million_digits_is_waited_for_and_searched(
        self, serve: Serve, open_page: Open
    ) -> None:
        service = serve("--durability", "os")
        page = open_page(service)
        is_at(page, 0)
        seek(page, "10000000")
        bar = page.get_by_role("progressbar", name=re.compile(r"Computing F\(10,000,00[01]\)"))
        expect(bar).to_be_visible()
        expect(page.locator("#position")).to_have_text("10,000,000", timeout=60_000)
        expect(bar).to_be_hidden()
        page.get_by_role("button", name="Next").click()
        expect(page.locator("#position")).to_have_text("10,000,001")
        expect(page.locator("#digits")).to_have_text("2,089,877")
        page.get_by_role("button", name="2,089,755 more digits").click()
        term = page.locator("#current")
        term.get_by_label("Go to digit").fill("2,089,877")
        term.get_by_role("button", name="Find").click()
        whole = fib(10_000_001)
        expect(term.locator("output")).to_have_text(f"Digit 2,089,877 is {whole[-1]}.")
        text = term.locator(".whole").evaluate("whole => whole.textContent")
        assert len(text) > 1000
        assert whole.endswith(text)

    def test_steps_of_others_are_shown(self, service: Service, open_page: Open) -> None:
        page = open_page(service)
        is_at(page, 0)
        put(service, 40)
        later(page)
        is_at(page, 40)

    def test_no_number_is_rounded(self, service: Service, open_page: Open) -> None:
        """Positions and counts never pass through a floating-point number."""
        n, count, value = "9007199254740993", "18014398509481989", "1" * 200

        def answer(route: Route) -> None:
            document = {"id": "shared", "position": n, "digits": count, "value": value}
            route.fulfill(json=document)

        page = open_page(service)
        is_at(page, 0)
        hide_changes(page)
        page.route(f"**{SHARED}/next*", answer)
        page.get_by_role("button", name="Next").click()
        expect(page.locator("#position")).to_have_text("9,007,199,254,740,993")
        expect(page.locator("#digits")).to_have_text("18,014,398,509,481,989")
