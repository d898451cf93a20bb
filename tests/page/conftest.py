"""A real Chromium, and rules that every page in it must keep."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.service import TIMEOUT, Service

SCREENSHOTS = Path(__file__).parent.parent.parent / ".screenshots"

PHONE: dict[str, Any] = {
    "viewport": {"width": 360, "height": 740},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
    "color_scheme": "dark",
}


expect.set_options(timeout=1000 * TIMEOUT)


# While Playwright's event loop runs, asyncio.run() refuses to start another: end it soon.
@pytest.fixture(scope="package")
def browser(require: Callable[[str], str]) -> Iterator[Browser]:
    program = require("chromium")
    with sync_playwright() as playwright:
        # Names that a page of another site may have.
        arguments = ["--host-resolver-rules=MAP *.example 127.0.0.1"]
        # As root Chromium refuses to start with its sandbox.
        arguments += ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


class Open:
    """Opens pages.

    Attributes:
        wrong: What no page may do and one has done: let a script fail, violate the policy, ask
            another host for anything.
    """

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self.pages: list[Page] = []
        self.wrong: list[str] = []

    def __call__(self, service: Service, fragment: str = "", **context: Any) -> Page:
        """Open a service's page in a context of its own."""
        page = self._browser.new_context(**context).new_page()
        page.set_default_timeout(1000 * TIMEOUT)
        self.pages.append(page)

        def see_request(url: str) -> None:
            if urlsplit(url).scheme != "blob" and not url.startswith(f"{service.url}/"):
                self.wrong.append(f"asks for {url}")

        def see_message(text: str) -> None:
            if "Content Security Policy" in text:
                self.wrong.append(text)

        page.on("request", lambda request: see_request(request.url))
        page.on("console", lambda message: see_message(message.text))
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.goto(f"{service.url}/{fragment}")
        return page


@pytest.fixture
def open_page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Open]:
    """Open pages, and save how the last one looks in `SCREENSHOTS`."""
    opened = Open(browser)
    yield opened
    if opened.pages:
        name = re.sub(r"\W+", "-", request.node.name).strip("-")
        opened.pages[-1].screenshot(
            path=SCREENSHOTS / f"{name}.jpg", type="jpeg", full_page=True, scale="css"
        )
    for page in opened.pages:
        page.context.close()
    assert opened.wrong == []
