"""The chart of the steps made on the page."""

import re

import pytest
from playwright.sync_api import Locator, Route, expect

from tests.page.actions import hide_changes, is_at
from tests.page.conftest import Open
from tests.service import Service

pytestmark = pytest.mark.campaign


def places(chart: Locator, mark: str, coordinate: str) -> list[str | None]:
    return [one.get_attribute(coordinate) for one in chart.locator(mark).all()]


class TestChart:
    def test_chart_grows_by_a_point_a_step(self, service: Service, open_page: Open) -> None:
        page = open_page(service)
        chart = page.locator("#chart")
        expect(chart).to_contain_text("Press Next: each step becomes a point here.")
        is_at(page, 0)
        page.get_by_label("by how many terms").fill("50")
        for n in (50, 100, 150):
            page.get_by_role("button", name="Next").click()
            is_at(page, n)
        expect(chart.locator("circle")).to_have_count(3)
        expect(chart.locator(".micros path")).to_have_count(3)
        expect(page.locator("#took")).to_have_text(re.compile(r"[\d.]+ ms"))
        # What the service did of that.
        ms = r"\d+\.\d\d"
        shown = re.compile(rf"^commit {ms}, text {ms}, compute {ms}$")
        expect(page.locator("#phases")).to_have_text(shown)
        picture = chart.get_by_role("img")
        expect(picture).to_have_accessible_name(
            re.compile(
                r"Digits, Milliseconds, Position: 3 steps, positions 50 to 150; "
                r"the last one has 31 digits and took [\d.]+ ms\."
            )
        )
        lefts = [float(x or "") for x in places(chart, "circle", "cx")]
        assert lefts == sorted(lefts)
        assert lefts[1] - lefts[0] == pytest.approx(lefts[2] - lefts[1], abs=0.2)
        # 11, 21 and 31 digits are on a line; higher is less.
        heights = [float(y or "") for y in places(chart, "circle", "cy")]
        assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.2)
        assert heights[0] > heights[1]
        chart.get_by_text("The last steps in numbers").click()
        rows = [re.split(r"\s+", row) for row in chart.locator("tbody tr").all_inner_texts()]
        assert [row[:2] for row in rows] == [["150", "31"], ["100", "21"], ["50", "11"]]
        assert all(float(row[2]) > 0 for row in rows)

    def test_chart_fits_whatever_the_width(self, service: Service, open_page: Open) -> None:
        page = open_page(service)
        is_at(page, 0)
        far = 10_000_000

        def answer(route: Route) -> None:
            n = far + page.locator("#chart circle").count()
            route.fulfill(json={"id": "shared", "position": str(n), "digits": "1", "value": "1"})

        # The service itself is still at 0.
        hide_changes(page)
        page.route("**/next*", answer)
        for n in range(far, far + 4):
            page.get_by_role("button", name="Next").click()
            expect(page.locator("#position")).to_have_text(f"{n:,}")
        for width in (1200, 400, 320):
            page.set_viewport_size({"width": width, "height": 800})
            box = page.locator("#chart").evaluate("figure => figure.clientWidth")
            expect(page.locator("#chart svg")).to_have_attribute("width", str(box))
            # No label leaves the chart or touches another.
            labels = page.locator("#chart .axis .tick").evaluate_all(
                "all => all.map(one => one.getBBox()).map(box => [box.x, box.x + box.width])"
            )
            edges = [edge for label in labels for edge in label]
            assert len(edges) >= 4
            assert edges == sorted(edges)
            assert edges[0] >= 0
            assert edges[-1] < box + 1  # as exact as fonts are measured
