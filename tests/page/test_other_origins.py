"""What pages of other origins can do to the service, in a browser that keeps to its rules."""

from pathlib import Path

from playwright.sync_api import Browser, Page

from tests.service import Serve

FETCH = """([url, options]) => fetch(url, options).then(
    async (reply) => [reply.status, reply.headers.get("ETag"), await reply.text()],
    (error) => error.name,
)"""


def test_page_that_rebinds_its_name_is_refused(serve: Serve, browser: Browser) -> None:
    service = serve()
    page = browser.new_page()
    reply = page.goto(f"http://rebound.example:{service.port}/")
    assert reply
    assert reply.status == 421
    # A page that was loaded before the name changed asks with the same name.
    step = [f"http://rebound.example:{service.port}/api0/next", {}]
    assert page.evaluate(FETCH, step)[0] == 421
    assert service.value("current") == 0
    page.close()


def test_page_of_a_named_origin_reads_terms_and_steps_nothing(
    serve: Serve, browser: Browser, path: Path
) -> None:
    other = serve("--allowed-host", "pages.example", "--file", str(path.with_name("other.log")))
    origin = f"http://pages.example:{other.port}"
    service = serve("--cors-origin", origin)
    page = browser.new_page()
    page.goto(f"{origin}/livez")

    def fetch(page: Page, target: str, **options: object) -> object:
        return page.evaluate(FETCH, [f"{service.url}{target}", options])

    text = {"Accept": "text/plain"}
    assert fetch(page, "/api1/terms/10", headers=text) == [200, '"10..plain"', "55"]
    # With a preflight.
    known = text | {"If-None-Match": '"1..plain"'}
    assert fetch(page, "/api1/terms/10", headers=known) == [200, '"10..plain"', "55"]
    for target in ("/api1/sequences/shared", "/api0/current", "/api0/next"):
        assert fetch(page, target) == "TypeError"
    assert fetch(page, "/api1/sequences/shared/next", method="POST") == "TypeError"
    assert service.value("current") == 0
    page.goto(f"http://unnamed.localhost:{other.port}/livez")
    assert fetch(page, "/api1/terms/10") == "TypeError"
    page.close()
