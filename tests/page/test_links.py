"""Links to what the page shows, and programs that request it."""

import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from flint import fmpz
from playwright.sync_api import expect

from tests.page.actions import fib, in_base, is_at, show
from tests.page.conftest import Open
from tests.service import Serve, Service

pytestmark = pytest.mark.campaign

CLIPBOARD: dict[str, Any] = {"permissions": ["clipboard-read", "clipboard-write"]}


@pytest.mark.parametrize(
    ("link", "said", "canonical"),
    [
        ("?n=100", "F(100), 21 digits", "?n=100"),
        ("?n=1e3", "F(1,000), 209 digits", "?n=1000"),
        ("?n=1,000&base=16", "F(1,000) in base 16, 174 digits", "?n=1000&base=16"),
        ("?n=-8", "F(\N{MINUS SIGN}8), 2 digits", "?n=-8"),
        ("?n=10^3&modulo=1_000", "F(1,000) mod 1,000", "?n=1000&modulo=1000"),
        ("?n=10^20&show=summary", "F(100,000,000,000,000,000,000)", f"?n={10**20}&show=summary"),
    ],
)
def test_a_link_restores_what_was_shown(
    service: Service, open_page: Open, link: str, said: str, canonical: str
) -> None:
    page = open_page(service, link)
    expect(page.locator("#found-said")).to_have_text(said)
    assert page.url == f"{service.url}/{canonical}"
    # Entered by hand, the same term is shown, and has the same link.
    by_hand = open_page(service, **CLIPBOARD)
    is_at(by_hand, 0)
    by_hand.get_by_role("button", name="Private").click()
    expect(by_hand.locator("#keep")).to_be_visible()
    what = "Modulo" if "modulo" in link else "Summary" if "summary" in link else "Digits"
    by_hand.locator("#explorer").get_by_text(what, exact=True).click()
    if "modulo" in link:
        by_hand.locator("#modulo").fill("1000")
    if "base" in link:
        by_hand.get_by_label("base").fill("16")
    show(by_hand, re.findall(r"n=([^&]*)", link)[0], what)
    expect(by_hand.locator("#found-said")).to_have_text(said)
    assert re.fullmatch(re.escape(f"{service.url}/{canonical}") + "#[0-9a-f]{32}", by_hand.url)
    by_hand.get_by_role("button", name="Copy link").click()
    expect(by_hand.locator("#found-tools .copy")).to_have_text("Copied")
    # The link has no address of the private sequence.
    assert by_hand.evaluate("navigator.clipboard.readText()") == f"{service.url}/{canonical}"


def test_back_and_forward_show_the_terms_looked_up(service: Service, open_page: Open) -> None:
    page = open_page(service)
    is_at(page, 0)
    said = page.locator("#found-said")
    for n in ("10", "20", "20", "30"):
        show(page, n)
        expect(said).to_contain_text(f"F({n})")
    page.go_back()
    expect(said).to_have_text("F(20), 4 digits")
    expect(page.get_by_label("n, the index")).to_have_value("20")
    page.go_back()
    expect(said).to_have_text("F(10), 2 digits")
    page.go_forward()
    expect(said).to_have_text("F(20), 4 digits")
    page.go_back()
    page.go_back()
    expect(page.locator("#found")).to_be_hidden()
    assert page.url == f"{service.url}/"
    # Another notation of the same link adds no entry to the history.
    page.goto(f"{service.url}/?n=1e1")
    expect(said).to_have_text("F(10), 2 digits")
    page.go_back()
    assert page.url == f"{service.url}/"


@pytest.mark.parametrize("link", ["?n=x", "?n=", "?n=5&base=99", "?n=5&modulo=x"])
def test_a_link_that_names_no_term_is_reported(
    service: Service, open_page: Open, link: str
) -> None:
    page = open_page(service, link)
    expect(page.locator("#refusal")).to_contain_text("This link names no term")
    page.locator("#explorer").get_by_text("Digits", exact=True).click()
    page.get_by_label("base").fill("10")
    show(page, "10")
    expect(page.locator("#found-said")).to_have_text("F(10), 2 digits")
    expect(page.locator("#refusal")).to_be_empty()


def test_an_index_too_long_for_an_address_is_shown_without_link(
    service: Service, open_page: Open
) -> None:
    page = open_page(service)
    show(page, "10^3000", "Summary")
    expect(page.locator("#found-summary")).to_be_visible()
    assert page.url == f"{service.url}/"
    expect(page.get_by_role("button", name="Copy link")).to_be_hidden()


PROGRAMS = {
    "curl": ["bash", "-ec"],
    "Python": [sys.executable, "-c"],
    "JavaScript": ["node", "--input-type=module", "-e"],
}


PRINTED = {
    "?n=-100": f"-{fib(100)}",
    "?n=100&base=36": in_base(fmpz.fib_ui(fmpz(100)), 36),
    "?n=100&modulo=1000": "75",
    "?n=3&show=summary": '{"n":"3","digits":"1","leading":"2","trailing":"2","bytes":"1"}',
    "?n=600000": fib(600_000),
}


@pytest.mark.parametrize("link", PRINTED)
@pytest.mark.parametrize("language", PROGRAMS)
def test_a_program_prints_what_the_page_shows(
    service: Service,
    open_page: Open,
    require: Callable[[str], str],
    tmp_path: Any,
    language: str,
    link: str,
) -> None:
    command = PROGRAMS[language]
    require(command[0])
    page = open_page(service, link, **CLIPBOARD)
    page.get_by_text("As curl, Python or JavaScript").click()
    page.locator("#languages").get_by_text(language, exact=True).click()
    page.get_by_role("button", name="Copy program").click()
    expect(page.locator("#programs .copy")).to_have_text("Copied")
    program = page.evaluate("navigator.clipboard.readText()")
    assert program == page.locator("#program").inner_text()
    done = subprocess.run(
        [*command, program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == PRINTED[link]


@pytest.mark.parametrize("language", PROGRAMS)
def test_a_program_waits_for_a_large_term(
    serve: Serve,
    open_page: Open,
    require: Callable[[str], str],
    tmp_path: Any,
    language: str,
) -> None:
    command = PROGRAMS[language]
    require(command[0])
    page = open_page(serve(), "?n=1000000")
    expect(page.locator("#found-said")).to_have_text("F(1,000,000), 208,988 digits")
    page.get_by_text("As curl, Python or JavaScript").click()
    page.locator("#languages").get_by_text(language, exact=True).click()
    # The same program works for a term that is not computed yet.
    program = page.locator("#program").inner_text().replace("1000000", "20000000")
    done = subprocess.run(
        [*command, program], cwd=tmp_path, capture_output=True, text=True, timeout=90, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.strip()) == 4_179_753
    # The last six digits have a period of 1,500,000.
    assert done.stdout.strip()[-6:] == fib(20_000_000 % 1_500_000)[-6:]


def test_other_sites_find_a_card(service: Service, open_page: Open) -> None:
    page = open_page(service)
    properties = dict(
        page.locator("meta[property^='og:']").evaluate_all(
            "all => all.map(one => [one.getAttribute('property'), one.content])"
        )
    )
    # The four properties that OpenGraph requires.
    assert properties["og:type"] == "website"
    assert properties["og:title"]
    assert properties["og:url"] == f"{service.url}/"
    assert properties["og:image"] == f"{service.url}/page/card.png"
    reply, body = service.ask("/page/card.png")
    assert (reply.status, reply.getheader("Content-Type")) == (200, "image/png")
    assert body[16:24] == (1200).to_bytes(4, "big") + (630).to_bytes(4, "big")
    # Behind a proxy, with the proxy's address.
    forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": 'fib.example"><b>'}
    text = service.ask("/", headers=forwarded)[1].decode()
    assert 'content="https://fib.example&quot;&gt;&lt;b&gt;/page/card.png"' in text
