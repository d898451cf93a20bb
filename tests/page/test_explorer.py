"""Terms looked up on the page: digits, residues and summaries."""

import json
import re

from flint import fmpz, nmod_mat
from playwright.sync_api import expect

from tests.page.actions import (
    MINUS,
    digits,
    fib,
    in_base,
    put,
    show,
)
from tests.page.conftest import Open
from tests.service import Serve, Service


def residue_of_power(exponent: int, modulus: int) -> int:
    """Return F(10^exponent) modulo ``modulus``, by powers of a matrix."""
    matrix = nmod_mat(2, 2, [1, 1, 1, 0], modulus)
    for _ in range(exponent):
        matrix = matrix**10
    return int(matrix[0, 1])


def last_digits(exponent: int) -> str:
    """Return the last twenty digits of F(10^exponent)."""
    # Use two moduli that fit into a word, and the Chinese remainder theorem.
    two, five = 2**20, 5**20
    left, right = residue_of_power(exponent, two), residue_of_power(exponent, five)
    number = left + two * ((right - left) * pow(two, -1, five) % five)
    return f"{number:020}"


class TestExplorer:
    def test_digits_of_a_term_are_shown_in_its_base(
        self, service: Service, open_page: Open
    ) -> None:
        page = open_page(service)
        term = page.locator("#found-term")
        for n, base, said in (
            ("100", 10, "F(100), 21 digits"),
            ("0", 10, "F(0), 1 digit"),
            ("-0", 10, "F(0), 1 digit"),
            ("007", 10, "F(7), 2 digits"),
            ("1,000", 16, "F(1,000) in base 16, 174 digits"),
            ("300", 62, "F(300) in base 62, 35 digits"),
            ("20000", 10, "F(20,000), 4,180 digits"),
        ):
            page.get_by_label("base").fill(str(base))
            show(page, n)
            expect(page.locator("#found-said")).to_have_text(said)
            whole = in_base(fmpz.fib_ui(fmpz(n.replace(",", ""))), base)
            if len(whole) <= 132:
                assert digits(term) == whole
                continue
            assert digits(term) == f"{whole[: 60 + len(whole) % 3]}…{whole[-60:]}"
            term.get_by_role("button", name="more digits").click()
            paragraphs = term.get_by_role("group").locator("p")
            expect(paragraphs).to_have_count(-(-len(whole) // 999))
            assert "".join(paragraphs.all_text_contents()) == whole

    def test_negative_term_has_its_sign_everywhere(self, service: Service, open_page: Open) -> None:
        page = open_page(service)
        show(page, f"{MINUS}1000")
        expect(page.locator("#found-said")).to_have_text(f"F({MINUS}1,000), 209 digits")
        term = page.locator("#found-term")
        expect(term.locator(".sign")).to_have_text(MINUS)
        whole = fib(1000)
        assert digits(term) == f"{whole[:62]}…{whole[-60:]}"
        term.get_by_role("button", name="87 more digits").click()
        expect(term.get_by_role("group").locator("p")).to_have_text(whole)
        with page.expect_download() as download:
            term.get_by_role("button", name="Download").click()
        assert download.value.suggested_filename == "fibonacci--1000.txt"
        assert download.value.path().read_text() == f"-{whole}"

    def test_summary_and_residue_of_an_index_of_3000_digits_are_exact(
        self, service: Service, open_page: Open
    ) -> None:
        page = open_page(service)
        n = "1" + "0" * 3000
        show(page, n, "Summary")
        summary = page.locator("#found-summary")
        expect(summary).to_contain_text("Last digits")
        assert summary.locator("dd").all_text_contents()[2] == last_digits(3000)
        expect(page.get_by_label("base")).to_be_hidden()
        show(page, n, "Modulo")
        expect(page.locator("#found-said")).to_have_text("F(100000000000…000000) mod 1,000,000,007")
        residue = digits(page.locator("#found-term"))
        assert residue == str(residue_of_power(3000, 1_000_000_007))
        page.locator("#modulo").fill("0")
        page.get_by_role("button", name="Show", exact=True).click()
        refusal = page.locator("#refusal")
        expect(refusal).to_contain_text("That is not possible")
        refusal.get_by_role("button", name="Close").click()
        expect(refusal).to_be_empty()

    def test_large_term_is_waited_for_with_progress(self, serve: Serve, open_page: Open) -> None:
        service = serve()
        page = open_page(service)
        show(page, "40000000")
        bar = page.get_by_role("progressbar", name="Computing F(40,000,000)")
        expect(bar).to_be_visible()
        expect(page.locator("#computation .percent")).to_have_text(re.compile(r"\d+ %"))
        expect(page.locator("#found-said")).to_have_text(
            "F(40,000,000), 8,359,506 digits", timeout=60_000
        )
        expect(bar).to_be_hidden()
        summary = json.loads(service.ask("/api1/terms/40000000/summary?digits=60")[1])
        leading, trailing = digits(page.locator("#found-term")).split("…")
        assert leading == summary["leading"]
        assert trailing == summary["trailing"]

    def test_large_term_that_is_cancelled_is_not_computed(
        self, serve: Serve, open_page: Open
    ) -> None:
        service = serve()
        page = open_page(service)
        show(page, "99999999")
        work = page.locator("#computation")
        work.get_by_role("button", name="Cancel").click()
        expect(page.locator("#found-said")).to_have_text("Cancelled.")
        expect(work).to_be_hidden()
        assert service.ask("/api1/terms/99999999/job")[0].status == 404

    def test_downloads_of_any_term_and_of_the_current_one_are_their_digits(
        self, service: Service, open_page: Open
    ) -> None:
        put(service, 500)
        page = open_page(service)
        show(page, "1000000")
        for place, n in (("#found-term", 1_000_000), ("#current", 500)):
            with page.expect_download() as download:
                page.locator(place).get_by_role("button", name="Download").click()
            assert download.value.suggested_filename == f"fibonacci-{n}.txt"
            assert download.value.path().read_text() == fib(n)

    def test_term_beyond_the_limit_leads_to_its_summary(
        self, service: Service, open_page: Open
    ) -> None:
        page = open_page(service)
        show(page, "1000000000000")
        refusal = page.locator("#refusal")
        expect(refusal).to_have_attribute("role", "alert")
        expect(refusal).to_contain_text("Terms are given in full from F(-100,000,000)")
        refusal.get_by_role("button", name="Show its summary").click()
        expect(page.locator("#found-said")).to_have_text("F(1,000,000,000,000)")
        expect(page.locator("#found-summary")).to_contain_text("208,987,640,250")
        expect(page.locator("#found-summary")).to_contain_text("42584226889958835886")
        expect(refusal).to_be_empty()
        # The number of digits of a googolth term, exactly.
        show(page, "1" + "0" * 100, "Summary")
        # Computed by another program: floor(n log10(phi) - log10(sqrt 5)) + 1 to a thousand bits.
        count = int(
            "20898764024997873376927208923755541682245923991821"
            "09535392875613974104853496745963277658556235103535"
        )
        expect(page.locator("#found-summary dd").first).to_have_text(f"{count:,}")
