"""Digits on the page: grouped, copied, and found anywhere in a term of any length."""

import re
from typing import Any

import pytest
from flint import fmpz
from playwright.sync_api import Locator, Page, expect

from tests.page.actions import fib, is_at, put, show
from tests.page.conftest import Open
from tests.service import Service

pytestmark = pytest.mark.campaign

CLIPBOARD: dict[str, Any] = {"permissions": ["clipboard-read", "clipboard-write"]}

# Draw what `::after` draws, which is not text, and omit hidden elements.
SEEN = """place => {
    const all = [...place.querySelectorAll(".digits > span, .whole span")];
    const comma = (span) => getComputedStyle(span, "::after").content === '","' ? "," : "";
    return all.map((span) => span.textContent + comma(span)).join("");
}"""


def seen(place: Locator) -> str:
    text: str = place.evaluate(SEEN)
    return text


def find_digit(term: Locator, k: str) -> None:
    term.get_by_label("Go to digit").fill(k)
    term.get_by_role("button", name="Find").click()


def pasted(page: Page) -> str:
    """Return what pasting puts into a field."""
    field = page.get_by_label("n, the index")
    field.fill("")
    field.press("Control+v")
    return field.input_value()


def test_digits_are_grouped_alike_wherever_they_are_shown(
    service: Service, open_page: Open
) -> None:
    put(service, 100)
    page = open_page(service)
    is_at(page, 100)
    expected = f"{int(fib(100)):,}"
    assert seen(page.locator("#current")) == expected
    show(page, "100")
    expect(page.locator("#found-said")).to_have_text("F(100), 21 digits")
    assert seen(page.locator("#found-term")) == expected
    show(page, "1000")
    expect(page.locator("#found-said")).to_have_text("F(1,000), 209 digits")
    term = page.locator("#found-term")
    term.get_by_role("button", name="more digits").click()
    whole = term.get_by_role("group")
    expect(whole).to_be_visible()
    commas = int(fib(1000)).__format__(",")
    expect(whole).to_contain_text(fib(1000)[-3:])
    assert seen(term.locator(".all")) == commas
    # Text that the browser itself copies has no commas.
    assert whole.evaluate("one => one.textContent") == fib(1000)
    show(page, "1000", "Summary")
    summary = page.locator("#found-summary dd")
    expect(summary.nth(2)).to_have_text(fib(1000)[-20:])
    assert seen(page.locator("#found-summary div").nth(1)) == commas[: len(commas) - 189 // 3 * 4]
    assert seen(page.locator("#found-summary div").nth(2)) == f"{int(fib(1000)[-20:]):,}"


@pytest.mark.parametrize("n", [0, 100, 12_345])
def test_digits_of_the_current_term_are_copied(service: Service, open_page: Open, n: int) -> None:
    put(service, n)
    page = open_page(service, **CLIPBOARD)
    expect(page.locator("#position")).to_have_text(f"{n:,}")
    copy = page.locator("#current").get_by_role("button", name="Copy digits")
    copy.click()
    copied = page.locator("#current .copy")
    expect(copied).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == fib(n)
    expect(copied).to_have_text("Copy digits")


def test_digits_of_a_negative_term_are_copied_with_their_sign(
    service: Service, open_page: Open
) -> None:
    page = open_page(service, **CLIPBOARD)
    show(page, "-20000")
    page.locator("#found-term").get_by_role("button", name="Copy digits").click()
    expect(page.locator("#found-term .copy")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == f"-{fib(20_000)}"


def test_digits_are_copied_where_the_browser_has_no_clipboard_for_pages(
    service: Service, open_page: Open
) -> None:
    """Use the page over HTTP, as from another computer."""
    put(service, 300)
    page = open_page(service, **CLIPBOARD)
    page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    expect(page.locator("#position")).to_have_text("300")
    copy = page.locator("#current .copy")
    copy.click()
    expect(copy).to_have_text("Copied")
    expect(copy).to_be_focused()
    assert pasted(page) == fib(300)


def test_what_cannot_be_copied_is_reported(service: Service, open_page: Open) -> None:
    page = open_page(service)
    show(page, "20000")
    expect(page.locator("#found-said")).to_have_text("F(20,000), 4,180 digits")
    page.route("**/api1/terms/20000", lambda route: route.abort())
    page.locator("#found-term .copy").click()
    expect(page.locator("#found-term .copy")).to_have_text("Not copied")
    expect(page.locator("#refusal")).to_contain_text("The service does not answer")


def test_any_digit_is_found_by_its_number(service: Service, open_page: Open) -> None:
    page = open_page(service)
    n = 300_000
    whole = fib(n)
    show(page, "-300000")
    expect(page.locator("#found-said")).to_have_text("F(\N{MINUS SIGN}300,000), 62,696 digits")
    term = page.locator("#found-term")
    term.get_by_role("button", name="more digits").click()
    for k in (1, 2, 3, 9_991, 9_992, 9_993, 31_234, 62_695, 62_696):
        find_digit(term, f"{k:,}")
        expect(term.locator("output")).to_have_text(f"Digit {k:,} is {whole[k - 1]}.")
        mark = term.locator("mark")
        expect(mark).to_have_text(whole[k - 1])
        expect(mark).to_be_in_viewport()
        first, last = re.findall(r"[\d,]+", term.locator(".range").inner_text())[:2]
        shown = whole[int(first.replace(",", "")) - 1 : int(last.replace(",", ""))]
        assert term.get_by_role("group").evaluate("one => one.textContent") == shown
    for wrong in ("0", "62,697", "-1", "x"):
        find_digit(term, wrong)
        expect(term.get_by_label("Go to digit")).to_be_focused()
        expect(term.locator("output")).to_have_text(f"Digit 62,696 is {whole[-1]}.")


def test_pages_of_digits_are_the_whole_term(service: Service, open_page: Open) -> None:
    n = 200_000
    put(service, n)
    page = open_page(service)
    term = page.locator("#current")
    term.get_by_role("button", name="more digits").click()
    region = term.get_by_role("group")
    earlier = term.get_by_role("button", name="Earlier")
    later = term.get_by_role("button", name="Later")
    expect(earlier).to_be_disabled()
    pieces: list[str] = []
    for _ in range(5):
        expect(region.locator("p").first).to_have_attribute(
            "data-from", f"{sum(map(len, pieces)) + 1:,}"
        )
        pieces.append(region.evaluate("one => one.textContent"))
        if later.is_enabled():
            later.click()
    assert "".join(pieces) == fib(n)
    expect(later).to_be_disabled()
    earlier.click()
    expect(region.locator("p").last).to_contain_text(pieces[3][-999:])
    # After a step, the page shows the same part of the next term.
    page.get_by_role("button", name="Next").click()
    following = fib(n + 1)[len("".join(pieces[:3])) :]
    expect(region.locator("p").last).to_contain_text(following[:9_990][-900:])


# Frames must come at least this often while the page has millions of digits; on a machine under
# load, an idle page gets as few.
LONGEST_FRAME_MS = 1_000

WATCH_FRAMES = """() => {
    window.longest = 0;
    let last = performance.now();
    const see = () => {
        const now = performance.now();
        window.longest = Math.max(window.longest, now - last);
        last = now;
        requestAnimationFrame(see);
    };
    requestAnimationFrame(see);
}"""


def test_twenty_million_digits_do_not_freeze_the_page(service: Service, open_page: Open) -> None:
    page = open_page(service)
    is_at(page, 0)
    page.evaluate(WATCH_FRAMES)
    n = "95,700,000"
    show(page, n)
    expect(page.locator("#found-said")).to_have_text(f"F({n}), 20,000,117 digits", timeout=120_000)
    term = page.locator("#found-term")
    term.get_by_role("button", name="more digits").click()
    expect(term.locator(".range")).to_have_text(re.compile("of 20,000,117"))
    # The service sends it from another place in its file.
    reply, body = service.ask(
        "/api1/terms/95700000", headers={"Accept": "text/plain", "Range": "bytes=12345677-12345677"}
    )
    assert reply.status == 206
    find_digit(term, "12,345,678")
    expect(term.locator("output")).to_have_text(f"Digit 12,345,678 is {body.decode()}.")
    page.get_by_text("How often each digit occurs").click()
    expect(page.locator("#frequencies tbody tr")).to_have_count(10, timeout=60_000)
    cells = page.locator("#frequencies tbody td:last-child").all_inner_texts()
    counts = [int(cell.split()[0].replace(",", "")) for cell in cells]
    assert sum(counts) == 20_000_117
    with page.expect_download() as download:
        term.get_by_role("button", name="Download").click()
    text = download.value.path().read_bytes()
    assert [text.count(b"%d" % digit) for digit in range(10)] == counts
    # Its last digits, from the period of the last six.
    assert int(text[-6:]) == int(fmpz.fib_ui(fmpz(95_700_000 % 1_500_000)) % 10**6)
    longest = page.evaluate("longest")
    print("longest frame:", round(longest), "ms")
    assert longest < LONGEST_FRAME_MS
