"""While the page changes, controls do not move, and outdated messages disappear."""

import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.page.actions import is_at, position, put, show
from tests.page.conftest import Open
from tests.service import Serve, Service

pytestmark = pytest.mark.campaign

SIZES: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": {"width": 1280, "height": 720}},
    "phone": {"viewport": {"width": 390, "height": 844}},
    "phone in the dark": {
        "viewport": {"width": 390, "height": 844},
        "color_scheme": "dark",
        "is_mobile": True,
        "has_touch": True,
    },
}


def centre(page: Page, name: str) -> tuple[float, float]:
    box = page.get_by_role("button", name=name).bounding_box()
    assert box
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


@pytest.mark.parametrize(("size", "hundreds"), [("desktop", 7), ("phone", 2)])
def test_clicks_on_one_spot_make_as_many_steps(
    serve: Serve, open_page: Open, size: str, hundreds: int
) -> None:
    service = serve("--durability", "os")
    page = open_page(service, **SIZES[size])
    is_at(page, 0)
    spot = centre(page, "Next")
    for hundred in range(1, 1 + hundreds):
        for _ in range(100):
            page.mouse.click(*spot)
        expect(page.locator("#position")).to_have_text(f"{hundred}00")
    assert position(service) == f"{hundreds}00"
    assert centre(page, "Next") == spot
    is_long = page.get_by_role("button", name=re.compile("more digits"))
    expect(is_long).to_be_visible(visible=hundreds == 7)


def test_controls_stay_where_they_are_when_the_service_goes(serve: Serve, open_page: Open) -> None:
    service = serve()
    page = open_page(service, **SIZES["phone"])
    is_at(page, 0)
    spot = centre(page, "Next")
    page.get_by_role("button", name="Previous").click()
    expect(page.locator("#problem")).to_contain_text("starts at F(0)")
    service.process.kill()
    away = page.locator("#away")
    expect(away).to_contain_text("The service does not answer")
    assert centre(page, "Next") == spot
    # Every point of the notice belongs to it, and it is not covered.
    covered = page.evaluate(
        """() => {
            const over = (a, b) => a.right > b.left && b.right > a.left
                && a.bottom > b.top && b.bottom > a.top;
            const away = document.getElementById("away");
            const area = away.getBoundingClientRect();
            return [...document.querySelectorAll("body *")]
                .filter((one) => !one.contains(away) && !away.contains(one))
                .filter((one) => one.matches(":not(.unseen)") && one.getClientRects().length)
                .filter((one) => !one.closest(".unseen"))
                .filter((one) => over(one.getBoundingClientRect(), area))
                .map((one) => one.outerHTML.slice(0, 80));
        }"""
    )
    assert covered == []


def test_the_bar_of_a_large_term_goes_when_another_term_is_looked_up(
    serve: Serve, open_page: Open
) -> None:
    page = open_page(serve())
    show(page, "99999999")
    bar = page.get_by_role("progressbar", name="Computing F(99,999,999)")
    expect(bar).to_be_visible()
    show(page, "10")
    expect(page.locator("#found-said")).to_have_text("F(10), 2 digits")
    expect(bar).to_have_count(0)
    expect(page.locator("#computation")).to_be_empty()
    # The large term is waited for again, and its computation can be cancelled.
    show(page, "99999998")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#found-said")).to_have_text("Cancelled.")
    expect(page.locator("#refusal")).to_be_empty()


def test_cancelling_what_is_cancelled_already_is_no_error(serve: Serve, open_page: Open) -> None:
    service = serve()
    page = open_page(service)
    # The page does not notice by itself.
    page.route(
        "**/job",
        lambda route: (
            route.continue_()
            if route.request.method == "DELETE"
            else route.fulfill(
                json={"n": "99999999", "state": "running", "progress": 0.5, "seconds_left": 1}
            )
        ),
    )
    show(page, "99999999")
    cancel = page.get_by_role("button", name="Cancel")
    expect(cancel).to_be_visible()
    assert service.ask("/api1/terms/99999999/job", "DELETE")[0].status == 204
    cancel.click()
    expect(page.locator("#found-said")).to_have_text("Cancelled.")
    expect(page.locator("#refusal")).to_be_empty()


def test_a_step_of_another_client_shows_within_two_seconds(
    service: Service, open_page: Open
) -> None:
    page = open_page(service)
    is_at(page, 0)
    for n in (40, 41, 60):
        put(service, n)
        expect(page.locator("#position")).to_have_text(str(n), timeout=2_000)
