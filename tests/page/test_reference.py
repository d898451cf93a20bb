"""The reference of the API, to read and to try."""

import pytest
from playwright.sync_api import expect

from tests.page.conftest import Open
from tests.service import Serve

pytestmark = pytest.mark.campaign


def test_reference_leads_from_the_page_to_a_term_that_is_tried(
    serve: Serve, open_page: Open
) -> None:
    """Nothing violates the policy, and nothing is asked of another host: see `Open`."""
    service = serve()
    page = open_page(service)
    page.get_by_role("link", name="API").click()
    assert page.url == f"{service.url}/docs"
    operation = page.locator("#operations-terms-getTerm")
    operation.get_by_role("button").first.click()
    operation.locator("[data-param-name=n] input").fill("100")
    operation.get_by_role("button", name="Execute").click()
    live = operation.locator(".live-responses-table")
    expect(live.locator(".response-col_status").last).to_contain_text("200")
    expect(live).to_contain_text('"value": "354224848179261915075"')
