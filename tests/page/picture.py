"""Take the pictures of the page: ``python -m tests.page.picture``.

One is for docs/http.md; the card is what other sites show beside a link to the page (OpenGraph).
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, expect, sync_playwright

import bigfib
from tests.service import Service

PICTURE = Path(__file__).parent / "page.png"

PAGE = Path(bigfib.__file__).parent / "page"

CARD = """
<style>
  body { align-content: center; background: #15140f; color: #efeadd; font: 44px Arial, sans-serif;
    height: 630px; margin: 0; text-align: center; }
  svg { height: 110px; width: 110px; }
  p { margin: 24px 0; }
  .term { font: 92px Times New Roman, serif; }
  .quiet { color: #a9a28f; }
</style>
"""


def take_page(browser: Browser) -> None:
    """Step the sequence of a new service a while, look up a term, and take the picture."""
    with tempfile.TemporaryDirectory() as directory:
        service = Service([], Path(directory) / "state.log", [])
        page = browser.new_page(viewport={"width": 1200, "height": 1000}, device_scale_factor=1.5)
        page.goto(service.url)
        position = page.locator("#position")
        for n in range(1, 48):
            page.get_by_role("button", name="Next").click()
            expect(position).to_have_text(str(n))
        page.get_by_label("n, the index").fill("1000000")
        page.get_by_role("button", name="Show", exact=True).click()
        expect(page.locator("#found-said")).to_have_text("F(1,000,000), 208,988 digits")
        page.locator("h1").click()
        page.mouse.move(0, 0)
        page.screenshot(path=PICTURE, full_page=True)
        service.process.kill()
        service.process.communicate()
    print(PICTURE)


def take_card(browser: Browser) -> None:
    """Draw the card."""
    page = browser.new_page(viewport={"width": 1200, "height": 630})
    icon = (PAGE / "icon.svg").read_text()
    page.set_content(
        f"{CARD}{icon}<p>The Fibonacci sequence without a ceiling</p>"
        '<p class="term">354,224,848,179,261,915,075</p><p class="quiet">bigfib: F(100)</p>'
    )
    page.screenshot(path=PAGE / "card.png")
    print(PAGE / "card.png")


def take(program: str) -> None:
    """Take both pictures."""
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        take_page(browser)
        take_card(browser)
        browser.close()


if __name__ == "__main__":
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("chromium is not installed")
    take(chromium)
