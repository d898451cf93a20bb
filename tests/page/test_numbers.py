"""Whole numbers as people write them into the page's fields."""

from playwright.sync_api import expect

from tests.page.actions import is_at, position, seek, show
from tests.page.conftest import Open
from tests.service import Service

READ = {
    "0": "0",
    "-0": "0",
    "007": "7",
    "1_000_000": "1000000",
    "1,000,000": "1000000",
    "1 000 000": "1000000",
    "1\N{NO-BREAK SPACE}000": "1000",
    "1\N{NARROW NO-BREAK SPACE}000": "1000",
    " 12 ": "12",
    "-8": "-8",
    "\N{MINUS SIGN}8": "-8",
    "1e6": "1000000",
    "1E6": "1000000",
    "1e+6": "1000000",
    "1.5e6": "1500000",
    "1.e3": "1000",
    "2.50e1": "25",
    "-1e3": "-1000",
    "0e5": "0",
    "1e0": "1",
    "10^6": "1000000",
    "2^10": "1024",
    "-2^3": "-8",
    "10^0": "1",
    "2 ^ 10": "1024",
    "9" * 12_000: "9" * 12_000,
    "1e9999": "1" + "0" * 9_999,
    "10^9999": "1" + "0" * 9_999,
}

NOT_READ = [
    *("", " ", "x", "1x", "--1", "+", "-", "1.5", "1.", ".5e1", "1.25e1", "1e-6", "e6", "1e", "^6"),
    *(
        "10^",
        "10^-1",
        "10^1.5",
        "2^3^2",
        "1e6e6",
        "0x10",
        "\N{ARABIC-INDIC DIGIT ONE}",
        "\N{SUPERSCRIPT TWO}",
        "1e10000",
        "10^10000",
    ),
    *("9^99999", "10^99999999999", "1e99999999999", "Infinity", "NaN"),
]


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
