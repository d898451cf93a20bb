"""The page sends back the tags by which the service names versions of a sequence."""

import json

from playwright.sync_api import Route, expect

from tests.page.actions import is_at, later, own_path
from tests.page.conftest import Open
from tests.service import Service


def test_the_tag_of_a_sequence_is_sent_back_as_it_came(service: Service, open_page: Open) -> None:
    """A tag may contain more than the position."""
    page = open_page(service)
    page.get_by_role("button", name="Private").click()
    is_at(page, 0)
    path = own_path(page)
    stepped: list[str | None] = []

    def answer(route: Route) -> None:
        document = {"id": "x", "position": "5", "digits": "1", "value": "5"}
        route.fulfill(json=document, headers={"ETag": '"5-17"'})

    def refuse(route: Route) -> None:
        stepped.append(route.request.header_value("If-Match"))
        problem = {"title": "Precondition Failed", "detail": "It has been moved.", "status": 412}
        headers = {"Content-Type": "application/problem+json", "ETag": '"8-20"'}
        route.fulfill(status=412, headers=headers, body=json.dumps(problem))

    page.route(f"**{path}", answer)
    page.route(f"**{path}/next*", refuse)
    is_at(page, 5)
    with page.expect_request(f"**{path}") as looked:
        later(page)
    assert looked.value.header_value("If-None-Match") == '"5-17"'
    page.get_by_role("button", name="Next").click()
    expect(page.locator("#problem")).to_contain_text("It is at position 8, no longer at 5")
    assert stepped == ['"5-17"']
