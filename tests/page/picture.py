"""Take the picture of the page for docs/http.md: ``python -m tests.page.picture``."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

from tests.service import Service

PICTURE = Path(__file__).parent / "page.png"


def take(program: str) -> None:
    """Step a new service's sequence a while, look up a term, and take the picture."""
    with tempfile.TemporaryDirectory() as directory, sync_playwright() as playwright:
        service = Service([], Path(directory) / "state.log", [])
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
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
        browser.close()
        service.process.kill()
        service.process.communicate()
    print(PICTURE)


if __name__ == "__main__":
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("chromium is not installed")
    take(chromium)
