"""Pictures on the page: the chart when one step dwarfs the others, and the digits of a term."""

import re
from itertools import pairwise

import pytest
from flint import fmpz
from playwright.sync_api import Page, Route, expect

from tests.page.actions import hide_changes, is_at, seek, show
from tests.page.conftest import Open
from tests.service import Service

pytestmark = pytest.mark.campaign


def circles(page: Page) -> list[tuple[float, float]]:
    """Return the points of the chart of digits, in the order of the steps."""
    places: list[tuple[float, float]] = page.locator("#chart circle").evaluate_all(
        "all => all.map(one => [Number(one.getAttribute('cx')), Number(one.getAttribute('cy'))])"
    )
    return places


def test_one_jump_does_not_flatten_the_chart(service: Service, open_page: Open) -> None:
    page = open_page(service)
    is_at(page, 0)
    page.get_by_label("by how many terms").fill("30")
    for n in (30, 60, 90, 120):
        page.get_by_role("button", name="Next").click()
        expect(page.locator("#position")).to_have_text(str(n))
    chart = page.locator("#chart")
    expect(chart.locator(".digits .title")).to_have_text("Digits")
    expect(chart.locator(".axis .title")).to_have_text("Position")
    seek(page, "900000")
    expect(page.locator("#position")).to_have_text("900,000")
    expect(chart.locator(".digits .title")).to_have_text("Digits (logarithmic)")
    expect(chart.locator(".axis .title")).to_have_text("Position (logarithmic)")
    # On linear axes the first four points would share a pixel.
    places = circles(page)
    assert all(right[0] - left[0] > 5 for left, right in pairwise(places))
    assert all(low[1] - high[1] > 1 for low, high in pairwise(places))
    ticks = chart.locator(".digits text:not(.title)").all_text_contents()
    assert ticks[0] == "0"
    assert {int(tick.replace(",", "")) for tick in ticks[1:]} <= {10**power for power in range(7)}
    expect(chart.get_by_role("img")).to_have_accessible_name(re.compile("logarithmic"))
    labels = chart.locator(".axis .tick").evaluate_all(
        "all => all.map(one => one.getBBox()).map(box => [box.x, box.x + box.width])"
    )
    edges = [edge for label in labels for edge in label]
    assert len(edges) >= 6
    assert edges == sorted(edges)


def test_a_logarithmic_axis_takes_any_number(service: Service, open_page: Open) -> None:
    page = open_page(service)
    is_at(page, 0)
    positions = [0, 5, 10**40, 10**400]

    def answer(route: Route) -> None:
        n = positions[page.locator("#chart circle").count()]
        document = {"id": "shared", "position": str(n), "digits": str(n + 1), "value": "1"}
        route.fulfill(json=document)

    hide_changes(page)
    page.route("**/next*", answer)
    for count, _ in enumerate(positions, 1):
        page.get_by_role("button", name="Next").click()
        expect(page.locator("#chart circle")).to_have_count(count)
    places = circles(page)
    # 0, 5, 10^40 and 10^400 by their logarithms.
    lefts = [left for left, _ in places]
    assert lefts[1] - lefts[0] < 1
    ratio = (lefts[2] - lefts[0]) / (lefts[3] - lefts[0])
    assert ratio == pytest.approx(0.1, abs=0.005)


@pytest.mark.parametrize("n", ["-1000000", "3000"])
def test_digits_of_a_term_are_counted(service: Service, open_page: Open, n: str) -> None:
    page = open_page(service)
    show(page, n)
    expect(page.locator("#found-said")).to_contain_text("digits")
    page.get_by_text("How often each digit occurs").click()
    picture = page.locator("#frequencies").get_by_role("img")
    expect(picture).to_have_accessible_name(re.compile("How often each digit occurs: "))
    whole = fmpz.fib_ui(fmpz(abs(int(n)))).str()
    rows = page.locator("#frequencies tbody tr")
    expect(rows).to_have_count(10)
    for digit in range(10):
        first = whole[:1000].count(str(digit)) if len(whole) >= 1000 else None
        count = whole.count(str(digit))
        cells = [] if first is None else [f"{first:,} ({first / 10:.2f} %)"]
        cells.append(f"{count:,} ({100 * count / len(whole):.2f} %)")
        assert rows.nth(digit).locator("td").all_text_contents() == cells
    # A higher bar means more digits, unless rounding hides the difference.
    heights = [
        float(height)
        for height in picture.locator("rect.all[height]").evaluate_all(
            "all => all.slice(-10).map(one => one.getAttribute('height'))"
        )
    ]
    shares = [whole.count(str(digit)) / len(whole) for digit in range(10)]
    assert heights == pytest.approx([share * heights[0] / shares[0] for share in shares], abs=0.2)


def test_short_terms_and_other_bases_have_no_picture(service: Service, open_page: Open) -> None:
    page = open_page(service)
    picture = page.get_by_text("How often each digit occurs")
    show(page, "100")
    expect(page.locator("#found-said")).to_have_text("F(100), 21 digits")
    expect(picture).to_be_hidden()
    page.get_by_label("base").fill("16")
    show(page, "20000")
    expect(page.locator("#found-said")).to_contain_text("in base 16")
    expect(picture).to_be_hidden()


def test_a_count_that_fails_is_reported_and_can_be_repeated(
    service: Service, open_page: Open
) -> None:
    page = open_page(service)
    show(page, "30000")
    expect(page.locator("#found-said")).to_have_text("F(30,000), 6,270 digits")
    page.route("**/api1/terms/30000", lambda route: route.fulfill(status=503))
    page.get_by_text("How often each digit occurs").click()
    status = page.locator("#frequencies .counting")
    expect(status).to_contain_text("could not be counted (status 503)")
    page.unroute("**/api1/terms/30000")
    page.get_by_text("How often each digit occurs").click()
    page.get_by_text("How often each digit occurs").click()
    expect(page.locator("#frequencies tbody tr")).to_have_count(10)
    expect(status).to_be_empty()
