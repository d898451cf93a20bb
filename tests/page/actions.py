"""Do things on the page, and read from it."""

import json
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from flint import fmpz
from playwright.sync_api import Locator, Page, Request, expect

from tests.service import Service

MINUS = "\N{MINUS SIGN}"

SHARED = "/api1/sequences/shared"


def fib(n: int) -> str:
    return fmpz.fib_ui(fmpz(n)).str()


def put(service: Service, position: int) -> None:
    """Put the shared sequence at a position, as another client would."""
    body = b'{"position":"%d"}' % position
    reply, _ = service.ask(SHARED, "PUT", {"Content-Type": "application/json"}, body)
    assert reply.status == 200


def position(service: Service, path: str = SHARED) -> str:
    """Return the position of a sequence from the service."""
    answer: str = json.loads(service.ask(path)[1])["position"]
    return answer


def digits(term: Locator) -> str:
    """Return the visible digits of a term, with … for omitted ones."""
    return "…".join(term.locator(".digits:not(:empty)").all_text_contents())


def is_at(page: Page, n: int) -> None:
    """Wait until the page shows F(n), which is short."""
    expect(page.locator("#position")).to_have_text(f"{n:,}")
    expect(page.locator("#name")).to_have_text(f"{n:,}")
    expect(page.locator("#digits")).to_have_text(str(len(fib(n))))
    expect(page.locator("#said")).to_have_text(re.compile(re.escape(f"F({n:,})")))
    assert digits(page.locator("#current")) == fib(n)


def own_path(page: Page) -> str:
    """Return the path of the private sequence that the page shows, once it does."""
    expect(page).to_have_url(re.compile("#[0-9a-f]{32}$"))
    return f"/api1/sequences/{page.url.rpartition('#')[2]}"


def seek(page: Page, n: str) -> None:
    page.get_by_label("to position").fill(n)
    page.get_by_role("button", name="Go").click()


def show(page: Page, n: str, what: str = "Digits") -> None:
    page.get_by_label("n, the index").fill(n)
    page.locator("#explorer").get_by_text(what, exact=True).click()
    page.get_by_role("button", name="Show", exact=True).click()


def later(page: Page) -> None:
    """Make the page check for changes, as it does when it becomes visible again."""
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def hide_changes(page: Page, path: str = SHARED) -> None:
    """Hide changes of a sequence by others from the page, until the route is removed."""
    page.route(f"**{path}", lambda route: route.fulfill(status=304))
    # The page makes one check at a time; wait until one that began before has ended.
    with page.expect_response(f"**{path}"):
        later(page)


@contextmanager
def paused(service: Service) -> Iterator[None]:
    """Pause the service: it accepts connections, and answers nothing."""
    service.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        service.process.send_signal(signal.SIGCONT)


def steps_sent(page: Page) -> list[str]:
    """Return the targets of steps that the page sends from now on; the list grows."""
    paths: list[str] = []

    def see(request: Request) -> None:
        if request.method == "POST":
            paths.append(urlsplit(request.url).path)

    page.on("request", see)
    return paths


def in_base(number: fmpz, base: int) -> str:
    """Return the number in a base, with the digits 0-9a-z; above 36, 0-9A-Za-z."""
    lower, upper = "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    alphabet = "0123456789" + (lower if base <= 36 else upper + lower)
    written = ""
    while number:
        number, digit = divmod(number, base)
        written = alphabet[int(digit)] + written
    return written or "0"
