"""Whole numbers as people write them into the page's fields."""

from playwright.sync_api import expect

from tests.numbers.notations import NOT_READ, READ
from tests.page.actions import is_at, position, seek, show
from tests.page.conftest import Open
from tests.service import Service


def test_numbers_are_read_as_people_write_them(service: Service, open_page: Open) -> None:
    page = open_page(service)
    script = """async (written) => {
        const { read } = await import("/page/numbers.js");
        return written.map((one) => read(one));
    }"""
    assert dict(zip(READ, page.evaluate(script, list(READ)), strict=True)) == READ
    assert page.evaluate(script, NOT_READ) == [None] * len(NOT_READ)


def test_every_field_reads_numbers_in_every_notation(service: Service, open_page: Open) -> None:
    page = open_page(service)
    is_at(page, 0)
    page.get_by_label("by how many terms").fill("1e2")
    page.get_by_role("button", name="Next").click()
    is_at(page, 100)
    seek(page, "2^6")
    is_at(page, 64)
    assert position(service) == "64"
    show(page, "-1_000")
    expect(page.locator("#found-said")).to_have_text("F(\N{MINUS SIGN}1,000), 209 digits")
    page.locator("#explorer").get_by_text("Modulo", exact=True).click()
    page.locator("#modulo").fill("10^9")
    show(page, "1e1000", "Modulo")
    expect(page.locator("#found-said")).to_have_text("F(100000000000…000000) mod 1,000,000,000")


def test_what_is_no_number_is_refused_with_an_example(service: Service, open_page: Open) -> None:
    page = open_page(service)
    is_at(page, 0)
    for label, press, example in (
        ("by how many terms", "Next", "Write a whole number, such as 10, 1,000 or 1e6."),
        ("to position", "Go", "Write a whole number, such as 1000, 1,000,000 or 1e6."),
        (
            "n, the index",
            "Show",
            "Write a whole number, such as 100, \N{MINUS SIGN}8, 1,000,000, 1e6 or 10^6.",
        ),
    ):
        field = page.get_by_label(label)
        for wrong in ("x", "1.5", "10^"):
            field.fill(wrong)
            page.get_by_role("button", name=press, exact=True).click()
            expect(field).to_be_focused()
            assert field.evaluate("one => one.validationMessage") == example
        field.fill("1e1")
        assert field.evaluate("one => one.validationMessage") == ""
    page.get_by_label("to position").fill("-8")
    assert page.get_by_label("to position").evaluate("one => one.validity.customError")
