"""What the page shows if requests fail, or the service is away."""

import json
import signal
from datetime import datetime, timedelta

from playwright.sync_api import Route, expect

from tests.page.actions import (
    SHARED,
    is_at,
    later,
    paused,
    position,
    put,
    show,
    steps_sent,
)
from tests.page.conftest import Open
from tests.service import Serve, Service, full_disk


class TestProblems:
    def test_step_before_the_start_is_explained(self, service: Service, open_page: Open) -> None:
        page = open_page(service)
        is_at(page, 0)
        page.get_by_role("button", name="Previous").click()
        problem = page.locator("#problem")
        expect(problem).to_have_attribute("role", "alert")
        expect(problem).to_contain_text("The sequence starts at F(0)")
        expect(problem).to_contain_text("there is no term before F(0); it is at position 0")
        problem.get_by_role("button", name="Close").click()
        expect(problem).to_be_empty()
        page.get_by_role("button", name="Previous").click()
        expect(problem).to_contain_text("The sequence starts at F(0)")
        page.get_by_role("button", name="Next").click()
        is_at(page, 1)
        expect(problem).to_be_empty()

    def test_step_on_a_full_disk_is_explained_and_can_be_made_later(
        self, serve: Serve, open_page: Open
    ) -> None:
        service = serve()
        page = open_page(service)
        is_at(page, 0)
        with full_disk(service):
            page.get_by_role("button", name="Next").click()
            expect(page.locator("#problem")).to_contain_text("The service has no space left")
        is_at(page, 0)
        page.get_by_role("button", name="Next").click()
        is_at(page, 1)

    def test_step_too_far_is_explained(self, service: Service, open_page: Open) -> None:
        page = open_page(service)
        is_at(page, 0)
        page.get_by_label("by how many terms").fill("1" + "0" * 30)
        page.get_by_role("button", name="Next").click()
        expect(page.locator("#problem")).to_contain_text("That is not possible")
        is_at(page, 0)

    def test_text_that_is_no_number_is_not_sent(self, service: Service, open_page: Open) -> None:
        page = open_page(service)
        is_at(page, 0)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.method))
        page.get_by_label("by how many terms").fill("x")
        page.get_by_role("button", name="Next").click()
        page.get_by_role("button", name="Previous").click()
        expect(page.get_by_label("by how many terms")).to_be_focused()
        show(page, "x")
        expect(page.get_by_label("n, the index")).to_be_focused()
        assert "POST" not in asked

    def test_problem_of_a_proxy_is_explained(self, service: Service, open_page: Open) -> None:
        page = open_page(service)
        is_at(page, 0)
        page.route("**/next*", lambda route: route.fulfill(status=429, body="<h1>429</h1>"))
        page.get_by_role("button", name="Next").click()
        expect(page.locator("#problem")).to_contain_text("Too Many Requests")

    def test_store_that_is_away_is_explained_until_it_is_back(
        self, service: Service, open_page: Open
    ) -> None:
        page = open_page(service)
        is_at(page, 0)
        problem = {"type": "about:blank", "title": "Service Unavailable", "status": 503}
        problem["detail"] = "The store is unavailable now; nothing has changed."

        def answer(route: Route) -> None:
            headers = {"Content-Type": "application/problem+json", "Retry-After": "1"}
            route.fulfill(status=503, body=json.dumps(problem), headers=headers)

        page.route(f"**{SHARED}*", answer)
        later(page)
        expect(page.locator("#away")).to_contain_text("The store is unavailable now")
        page.unroute(f"**{SHARED}*")
        expect(page.locator("#away")).to_be_empty()


class TestAway:
    def test_service_that_goes_and_comes_back_is_noticed(
        self, serve: Serve, open_page: Open
    ) -> None:
        service = serve()
        page = open_page(service)
        page.get_by_label("by how many terms").fill("12")
        page.get_by_role("button", name="Next").click()
        is_at(page, 12)
        service.stop(signal.SIGKILL)
        # The page notices by itself.
        away = page.locator("#away")
        expect(away).to_have_attribute("role", "alert")
        expect(away).to_contain_text("The service does not answer")
        page.get_by_role("button", name="Next").click()
        expect(away).to_contain_text("Not sent")
        is_at(page, 12)
        page.get_by_role("button", name="Try now").click()
        again = serve("-p", str(service.port))
        expect(away).to_be_empty()
        expect(page.locator("#back")).to_have_text("The service is back.")
        is_at(page, 12)
        expect(page.locator("#problem")).to_be_empty()
        page.get_by_role("button", name="Next").click()
        is_at(page, 24)
        assert position(again) == "24"

    def test_step_whose_answer_is_lost_is_not_made_twice(
        self, service: Service, open_page: Open
    ) -> None:
        put(service, 5)
        page = open_page(service)
        is_at(page, 5)
        sent = []

        def lose(route: Route) -> None:
            sent.append(route.fetch().status)
            route.abort("connectionreset")

        page.route("**/next*", lose)
        page.get_by_role("button", name="Next").click()
        problem = page.locator("#problem")
        expect(problem).to_contain_text("may or may not have been made")
        expect(problem).to_contain_text("was at position 5 when it was sent")
        is_at(page, 6)
        expect(page.locator("#away")).to_be_empty()
        assert sent == [200]
        assert position(service) == "6"

    def test_step_to_a_service_that_is_killed_is_in_doubt(
        self, serve: Serve, open_page: Open
    ) -> None:
        service = serve()
        page = open_page(service)
        is_at(page, 0)

        def kill(route: Route) -> None:
            service.stop(signal.SIGKILL)
            route.continue_()

        page.route("**/next*", kill)
        page.get_by_role("button", name="Next").click()
        expect(page.locator("#away")).to_contain_text("The service does not answer")
        serve("-p", str(service.port))
        expect(page.locator("#problem")).to_contain_text("was at position 0 when it was sent")
        is_at(page, 0)

    def test_service_that_answers_nothing_is_noticed_after_ten_seconds(
        self, serve: Serve, open_page: Open
    ) -> None:
        service = serve()
        page = open_page(service)
        # Do not wait for its timeout of ten seconds.
        began = datetime(2026, 1, 1)
        page.clock.install(time=began)
        page.reload()
        is_at(page, 0)
        with page.expect_response(f"**{SHARED}"):
            page.clock.pause_at(began + timedelta(hours=1))
        controls, away = page.locator("#controls"), page.locator("#away")
        following = page.get_by_role("button", name="Next")
        sent = steps_sent(page)
        with paused(service):
            following.click()
            expect(controls).not_to_have_attribute("aria-busy", "true")
            page.clock.run_for(300)
            expect(controls).to_have_attribute("aria-busy", "true")
            expect(away).to_be_empty()
            with page.expect_request(f"**{SHARED}"):
                page.clock.fast_forward(10_000)
            expect(away).to_contain_text("The service does not answer")
            expect(controls).not_to_have_attribute("aria-busy", "true")
            # The page is asking whether the service is back.
            following.click()
            following.click()
            expect(away).to_contain_text("Not sent")
        expect(away).to_be_empty()
        problem = page.locator("#problem")
        expect(problem).to_contain_text("may or may not have been made")
        # The service may make the step after it has already shown the position.
        expect(problem).to_contain_text("was at position 0 when it was sent")
        expect(problem).to_contain_text("may still change")
        assert sent == [f"{SHARED}/next"]
