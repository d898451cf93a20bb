"""axe-core finds no fault in the page: in every state, at both sizes, in both colour schemes."""

import re
import signal
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from tests.page.actions import is_at, seek, show
from tests.page.conftest import PHONE, Open
from tests.service import Serve, Service

pytestmark = pytest.mark.campaign

# axe-core 4.14.1, as in its npm package; see axe.LICENSE.
AXE = (Path(__file__).parent / "axe.min.js").read_text()

SIZES_AND_SCHEMES: dict[str, dict[str, Any]] = {
    f"{width}x{height} {scheme}": {
        "viewport": {"width": width, "height": height},
        "color_scheme": scheme,
    }
    for width, height in ((1280, 720), (390, 844))
    for scheme in ("light", "dark")
}


def check(page: Page, state: str) -> None:
    """Fail if axe-core finds anything, or if the page must be scrolled sideways."""
    found = page.evaluate("axe.run()")
    violations = [
        (state, violation["id"], node["html"], node["failureSummary"])
        for violation in found["violations"]
        for node in violation["nodes"]
    ]
    assert violations == []
    assert len(found["passes"]) > 10
    assert page.evaluate("document.documentElement.scrollWidth") == page.evaluate("innerWidth")


# One of these takes as long as twenty other tests of the page.
@pytest.mark.parametrize(
    "look",
    [
        "390x844 dark",
        # The other size and the other colour scheme.
        "1280x720 light",
    ],
)
def test_axe_finds_nothing_in_what_a_visitor_opens(
    service: Service, open_page: Open, look: str
) -> None:
    # A little more than one page of digits, because axe-core checks each visible group.
    page = open_page(service, "?n=48,000", **SIZES_AND_SCHEMES[look])
    page.evaluate(AXE)
    is_at(page, 0)
    expect(page.locator("#found-said")).to_have_text("F(48,000), 10,032 digits")
    check(page, "first")
    page.get_by_role("button", name="Private").click()
    expect(page.locator("#keep")).to_be_visible()
    is_at(page, 0)
    for n in range(1, 4):
        page.get_by_role("button", name="Next").click()
        is_at(page, n)
    seek(page, "48,000")
    expect(page.locator("#position")).to_have_text("48,000")
    for term in ("#current", "#found-term"):
        page.locator(f"{term} .more").click()
        page.locator(term).get_by_label("Go to digit").fill("10,005")
        page.locator(term).get_by_role("button", name="Find").click()
        expect(page.locator(f"{term} output")).to_have_text(re.compile(r"Digit 10,005 is \d\."))
    page.get_by_text("How often each digit occurs").click()
    expect(page.locator("#frequencies tbody tr")).to_have_count(10)
    page.get_by_text("As curl, Python or JavaScript").click()
    page.get_by_text("The last steps in numbers").click()
    expect(page.locator("#chart .axis .title")).to_have_text("Position (logarithmic)")
    check(page, "with everything open")
    page.get_by_role("button", name="Keyboard").click()
    check(page, "with the list of keys")
    page.keyboard.press("Escape")
    _check_refusals_and_progress(page)


def _check_refusals_and_progress(page: Page) -> None:
    page.route("**/api1/terms/40000", lambda route: route.abort())
    show(page, "40000")
    expect(page.locator("#refusal")).to_contain_text("The service does not answer")

    def answer(route: Route) -> None:
        route.fulfill(status=202, headers={"Location": "/api1/terms/7/job"}, json={})

    page.route("**/api1/terms/7", answer)
    page.route(
        "**/api1/terms/7/job",
        lambda route: route.fulfill(
            json={"n": "7", "state": "running", "progress": 0.5, "seconds_left": 1}
        ),
    )
    show(page, "7")
    expect(page.locator("#computation .percent")).to_have_text("50 %")
    check(page, "with progress")
    show(page, "1e12")
    expect(page.locator("#refusal")).to_contain_text("Terms are given in full")
    page.get_by_role("button", name="Show its summary").click()
    expect(page.locator("#found-summary")).to_contain_text("208,987,640,250")
    expect(page.get_by_role("radio", name="Summary")).to_be_checked()
    check(page, "with a summary")


LOOKS: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1280, "height": 900}},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "phone": PHONE,
}


@pytest.mark.parametrize(
    "look",
    [
        "phone",
        "light",
        "dark",
    ],
)
def test_axe_finds_nothing_while_things_fail(serve: Serve, open_page: Open, look: str) -> None:
    service = serve()
    page = open_page(service, **LOOKS[look])
    page.evaluate(AXE)
    page.get_by_role("button", name="Private").click()
    expect(page.locator("#keep")).to_be_visible()
    is_at(page, 0)
    page.get_by_role("button", name="Previous").click()
    expect(page.locator("#problem")).to_contain_text("starts at F(0)")
    show(page, "1000000000000")
    expect(page.locator("#refusal")).to_contain_text("Terms are given in full")
    check(page, "with errors")
    page.get_by_label("by how many terms").fill("5000")
    page.get_by_role("button", name="Next").click()
    expect(page.locator("#position")).to_have_text("5,000")
    page.locator("#current .more").click()
    page.locator("#chart summary").click()
    show(page, "7" * 300, "Summary")
    expect(page.locator("#found-summary")).to_be_visible()
    page.evaluate("document.getElementById('controls').setAttribute('aria-busy', 'true')")
    check(page, "with a long term, and busy")
    page.evaluate("document.getElementById('controls').removeAttribute('aria-busy')")
    page.get_by_role("button", name="Remove…").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    check(page, "with a dialog")
    page.keyboard.press("Escape")
    show(page, "99999999")
    expect(page.get_by_role("progressbar")).to_be_visible()
    service.stop(signal.SIGKILL)
    expect(page.locator("#away")).to_contain_text("The service does not answer")
    check(page, "with the service away")


def test_paper_in_the_dark_is_dark(service: Service, open_page: Open) -> None:

    def paper(look: str) -> list[int]:
        page = open_page(service, **LOOKS[look])
        colour = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        return [int(part) for part in re.findall(r"\d+", colour)]

    assert max(paper("dark")) < 60
    assert min(paper("light")) > 200


def test_page_under_reduced_motion_has_no_transitions(service: Service, open_page: Open) -> None:
    page = open_page(service, reduced_motion="reduce")
    durations = page.evaluate(
        "[...document.querySelectorAll('*')].map(e => getComputedStyle(e).transitionDuration)"
    )
    assert set(durations) == {"0s"}
