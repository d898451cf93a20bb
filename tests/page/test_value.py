"""The section "Is it a Fibonacci number?" of the page."""

import pytest
from flint import fmpz
from playwright.sync_api import Page, expect

from tests.page.conftest import Open
from tests.service import Serve

pytestmark = pytest.mark.campaign


def find(page: Page, value: str) -> None:
    page.get_by_label("value", exact=True).fill(value)
    page.get_by_role("button", name="Check", exact=True).click()


def test_value_is_answered_with_its_term_or_its_neighbours(serve: Serve, open_page: Open) -> None:
    page = open_page(serve())
    answer = page.locator("#value-answer")
    for value, said in {
        "354,224,848,179,261,915,075": "Yes, it is F(100)",
        "1": "Yes, it is F(1) and F(2)",
        "\N{MINUS SIGN}8": "Yes, it is F(\N{MINUS SIGN}6)",
        "10^6": "No, it is between F(30) and F(31)",
        fmpz.fib_ui(fmpz(100_000)).str(base=10): "Yes, it is F(100,000)",
    }.items():
        find(page, value)
        expect(answer).to_have_text(said)
    answer.get_by_role("button", name="F(100,000)").click()
    expect(page.locator("#found-said")).to_have_text("F(100,000), 20,899 digits")


@pytest.mark.parametrize("value", ["x", "1.5"])
def test_what_is_no_whole_number_is_not_sent(serve: Serve, open_page: Open, value: str) -> None:
    page = open_page(serve())
    find(page, "55")
    expect(page.locator("#value-answer")).to_have_text("Yes, it is F(10)")
    find(page, value)
    assert "a whole number" in page.locator("#value").evaluate("field => field.validationMessage")
    expect(page.locator("#value-answer")).to_have_text("Yes, it is F(10)")


def test_value_that_is_refused_shows_why(serve: Serve, open_page: Open) -> None:
    page = open_page(serve("--max-term", "1000000"))
    find(page, "1" * 1_048_000)
    expect(page.locator("#value-refusal")).to_contain_text("from F(-1,000,000) to F(1,000,000)")
