"""Private sequences on the page: create, remember, remove."""

import re
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Route, expect

from tests.page.actions import (
    SHARED,
    hide_changes,
    is_at,
    later,
    own_path,
    paused,
    position,
    put,
    seek,
    steps_sent,
)
from tests.page.conftest import Open
from tests.service import Serve, Service


class TestOwnSequence:
    def test_private_sequence_is_apart_from_the_shared_one(
        self, serve: Serve, open_page: Open
    ) -> None:
        service = serve()
        put(service, 7)
        page = open_page(service)
        is_at(page, 7)
        page.get_by_role("button", name="Private").click()
        is_at(page, 0)
        fragment = re.fullmatch(r".*/(#[0-9a-f]{32})", page.url)
        assert fragment
        seek(page, "50")
        is_at(page, 50)
        assert position(service) == "7"
        page.reload()
        is_at(page, 50)
        page.get_by_role("button", name="Shared").click()
        is_at(page, 7)
        assert "#" not in page.url
        page.get_by_role("button", name="Private").click()
        is_at(page, 50)
        page.get_by_role("button", name="Remove…").click()
        page.go_back()
        is_at(page, 7)
        # Otherwise it would be answered for the other sequence.
        expect(page.get_by_role("dialog")).to_be_hidden()
        # It can be opened in another browser.
        elsewhere = open_page(service, fragment[1])
        is_at(elsewhere, 50)
        # Actions on one sequence are dropped when the user opens another.
        page.get_by_role("button", name="Private").click()
        is_at(page, 50)
        sent = steps_sent(page)
        with paused(service):
            for _ in range(3):
                page.get_by_role("button", name="Next").click()
            page.go_back()
        is_at(page, 7)
        expect(page.locator("#problem")).to_contain_text("Not done")
        page.get_by_role("button", name="Next").click()
        is_at(page, 8)
        expect(page.locator("#problem")).to_be_empty()
        own = f"/api1/sequences/{fragment[1][1:]}"
        assert sent == [f"{own}/next", f"{SHARED}/next"]
        assert position(service, own) == "51"
        expect(page.locator("#chart circle")).to_have_count(1)

    def test_next_before_the_private_sequence_is_open_is_not_made(
        self, service: Service, open_page: Open
    ) -> None:
        put(service, 7)
        page = open_page(service)
        is_at(page, 7)
        at_once = "document.getElementById('own').click(); document.getElementById('next').click()"
        page.evaluate(at_once)
        is_at(page, 0)
        # It could not be stepped yet, and the shared one was not meant.
        expect(page.locator("#problem")).to_contain_text("Not done")
        page.get_by_role("button", name="Shared").click()
        is_at(page, 7)
        page.evaluate(at_once)
        is_at(page, 1)
        expect(page.locator("#problem")).to_be_empty()
        assert position(service) == "7"

    @pytest.mark.parametrize("name", ["getItem", "setItem"])
    def test_private_sequence_in_a_browser_without_storage_is_kept_by_the_page(
        self, service: Service, open_page: Open, name: str
    ) -> None:
        put(service, 7)
        page = open_page(service)
        is_at(page, 7)
        page.evaluate(f"void (Storage.prototype.{name} = () => {{ throw Error('no') }})")
        page.get_by_role("button", name="Private").click()
        is_at(page, 0)
        own = page.url
        page.get_by_role("button", name="Shared").click()
        is_at(page, 7)
        page.get_by_role("button", name="Private").click()
        is_at(page, 0)
        assert page.url == own
        assert position(service) == "7"

    @pytest.mark.parametrize("choice", ["Keep it", "Forget it here", "Delete it"])
    def test_private_sequence_is_removed_as_chosen(
        self, service: Service, open_page: Open, choice: str
    ) -> None:
        put(service, 7)
        page = open_page(service)
        page.get_by_role("button", name="Private").click()
        is_at(page, 0)
        path = own_path(page)
        page.get_by_role("button", name="Remove…").click()
        page.get_by_role("dialog").get_by_role("button", name=choice).click()
        expect(page.get_by_role("dialog")).to_be_hidden()
        is_at(page, 0 if choice == "Keep it" else 7)
        assert service.ask(path)[0].status == (404 if choice == "Delete it" else 200)
        page.get_by_role("button", name="Private").click()
        is_at(page, 0)
        assert (path.rpartition("/")[2] in page.url) == (choice == "Keep it")

    def test_private_sequence_whose_creation_was_not_answered_is_created_once(
        self, service: Service, open_page: Open
    ) -> None:
        page = open_page(service)
        is_at(page, 0)
        created = []

        def lose(route: Route) -> None:
            created.append((route.fetch().status, urlsplit(route.request.url).path))
            route.abort("connectionreset")

        page.route(lambda url: not url.endswith("/shared") and "/sequences/" in url, lose)
        page.get_by_role("button", name="Private").click()
        expect(page.locator("#back")).to_have_text("The service is back.")
        page.unroute_all()
        page.get_by_role("button", name="Private").click()
        expect(page.locator("#keep")).to_be_visible()
        is_at(page, 0)
        assert created == [(201, own_path(page))]

    def test_private_sequence_that_is_gone_is_reported_and_replaced(
        self, service: Service, open_page: Open
    ) -> None:
        page = open_page(service, "#" + "0" * 32)
        problem = page.locator("#problem")

        def is_gone() -> None:
            expect(problem).to_contain_text("There is no such sequence")
            expect(problem).not_to_contain_text("POST")
            expect(page.locator("#current")).to_be_hidden()
            expect(page.locator("#keep")).to_be_hidden()

        is_gone()
        page.get_by_role("button", name="Next").click()
        is_gone()
        page.get_by_role("button", name="Create one").click()
        is_at(page, 0)
        expect(problem).to_be_empty()
        expect(page.locator("#keep")).to_be_visible()
        own = page.url
        # A new sequence does not replace the one that this browser remembers.
        page.evaluate("location.hash = '1'.repeat(32)")
        is_gone()
        page.get_by_role("button", name="Open my private sequence").click()
        is_at(page, 0)
        assert page.url == own
        service.ask(f"/api1/sequences/{own.rpartition('#')[2]}", "DELETE")
        page.get_by_role("button", name="Next").click()
        is_gone()
        page.get_by_role("button", name="Shared").click()
        is_at(page, 0)
        expect(problem).to_be_empty()

    def test_private_sequence_moved_elsewhere_is_not_stepped_until_it_is_seen(
        self, service: Service, open_page: Open
    ) -> None:
        page = open_page(service)
        page.get_by_role("button", name="Private").click()
        is_at(page, 0)
        path = own_path(page)
        hide_changes(page, path)
        service.ask(f"{path}/next?by=5000", "POST")
        page.get_by_role("button", name="Next").click()
        problem = page.locator("#problem")
        expect(problem).to_contain_text("The sequence has been moved meanwhile")
        expect(problem).to_contain_text("It is at position 5,000, no longer at 0")
        expect(problem).not_to_contain_text("If-Match")
        assert position(service, path) == "5000"
        page.unroute(f"**{path}")
        later(page)
        expect(page.locator("#position")).to_have_text("5,000")
        page.get_by_role("button", name="Next").click()
        expect(page.locator("#position")).to_have_text("5,001")
