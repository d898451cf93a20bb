"""The page at ``/`` in a real Chromium, before a real service."""

import json
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from urllib.parse import urlsplit

import pytest
from flint import fmpz, nmod_mat
from playwright.sync_api import Locator, Page, Request, Route, expect

from tests.page.conftest import Open
from tests.service import Serve, Service, full_disk

MINUS = "\N{MINUS SIGN}"

SHARED = "/api1/sequences/shared"

expect.set_options(timeout=20_000)


def fib(n: int) -> str:
    return fmpz.fib_ui(fmpz(n)).str()


def put(service: Service, position: int) -> None:
    """Put the shared sequence there, as another client would."""
    body = b'{"position":"%d"}' % position
    reply, _ = service.ask(SHARED, "PUT", {"Content-Type": "application/json"}, body)
    assert reply.status == 200


def position(service: Service, path: str = SHARED) -> str:
    """Return where the service says that a sequence is."""
    answer: str = json.loads(service.ask(path)[1])["position"]
    return answer


def digits(term: Locator) -> str:
    """Return the digits that are seen of a term; … for those that are left out."""
    return "…".join(term.locator(".digits:not(:empty)").all_text_contents())


def is_at(page: Page, n: int) -> None:
    """Return once the page shows F(n), which is short."""
    expect(page.locator("#position")).to_have_text(f"{n:,}")
    expect(page.locator("#name")).to_have_text(f"{n:,}")
    expect(page.locator("#digits")).to_have_text(str(len(fib(n))))
    expect(page.locator("#said")).to_have_text(re.compile(re.escape(f"F({n:,})")))
    assert digits(page.locator("#current")) == fib(n)


def seek(page: Page, n: str) -> None:
    page.get_by_label("to position").fill(n)
    page.get_by_role("button", name="Go").click()


def show(page: Page, n: str, what: str = "Digits") -> None:
    page.get_by_label("n, the index").fill(n)
    page.locator("#explorer").get_by_text(what, exact=True).click()
    page.get_by_role("button", name="Show", exact=True).click()


def later(page: Page) -> None:
    """Let the page look whether anything has changed, as it does when it is looked at again."""
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


@contextmanager
def paused(service: Service) -> Iterator[None]:
    """Let the service be there, and answer nothing."""
    service.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        service.process.send_signal(signal.SIGCONT)


def steps_sent(page: Page) -> list[str]:
    """Return where to the page sends steps from now on; the list grows."""
    paths: list[str] = []

    def see(request: Request) -> None:
        if request.method == "POST":
            paths.append(urlsplit(request.url).path)

    page.on("request", see)
    return paths


class TestSequence:
    def test_next_previous_and_by(self, serve: Serve, open_page: Open) -> None:
        service = serve()
        page = open_page(service)
        is_at(page, 0)
        page.get_by_role("button", name="Next").click()
        is_at(page, 1)
        page.get_by_label("by how many terms").fill("099")
        page.get_by_role("button", name="Next").click()
        is_at(page, 100)
        expect(page.locator("#said")).to_have_text("F(100) = 354224848179261915075")
        page.get_by_label("by how many terms").fill("10")
        page.get_by_role("button", name="Previous").click()
        is_at(page, 90)
        assert position(service) == "90"

    def test_groups_are_counted_from_the_end(self, serve: Serve, open_page: Open) -> None:
        service = serve()
        put(service, 31)
        page = open_page(service)
        is_at(page, 31)
        groups = page.locator("#current .digits > span")
        assert groups.all_text_contents() == ["1", "346", "269"]

    def test_presses_are_not_lost(self, serve: Serve, open_page: Open) -> None:
        service = serve()
        page = open_page(service)
        is_at(page, 0)
        page.evaluate("for (let i = 0; i < 30; i += 1) document.getElementById('next').click()")
        is_at(page, 30)
        assert position(service) == "30"

    def test_seek(self, serve: Serve, open_page: Open) -> None:
        service = serve()
        page = open_page(service)
        is_at(page, 0)
        seek(page, "01 20")
        is_at(page, 120)
        seek(page, "0")
        is_at(page, 0)
        assert position(service) == "0"

    def test_a_long_term_is_shortened(self, serve: Serve, open_page: Open) -> None:
        service = serve()
        put(service, 12_345)
        page = open_page(service)
        expect(page.locator("#digits")).to_have_text("2,580")
        term = page.locator("#current")
        whole = fib(12_345)
        assert digits(term) == f"{whole[:60]}…{whole[-60:]}"
        said = f"F(12,345) has 2,580 digits: {whole[:12]} … {whole[-12:]}"
        expect(page.locator("#said")).to_have_text(said)
        more = page.get_by_role("button", name="2,460 more digits")
        expect(more).to_have_attribute("aria-expanded", "false")
        more.click()
        expect(more).to_have_attribute("aria-expanded", "true")
        region = page.get_by_role("group", name="All digits of F(12,345)")
        expect(region.locator("p")).to_have_count(3)
        paragraphs = region.locator("p").all_text_contents()
        assert paragraphs[0] == whole[:999]
        assert "".join(paragraphs) == whole
        more.click()
        expect(region).to_be_hidden()
        expect(more).to_have_attribute("aria-expanded", "false")

    def test_two_million_digits(self, serve: Serve, open_page: Open) -> None:
        service = serve("--durability", "os")
        page = open_page(service)
        is_at(page, 0)
        seek(page, "10000000")
        bar = page.get_by_role("progressbar", name=re.compile(r"Computing F\(10,000,00[01]\)"))
        expect(bar).to_be_visible()
        expect(page.locator("#position")).to_have_text("10,000,000", timeout=60_000)
        expect(bar).to_be_hidden()
        page.get_by_role("button", name="Next").click()
        expect(page.locator("#position")).to_have_text("10,000,001")
        expect(page.locator("#digits")).to_have_text("2,089,877")
        page.get_by_role("button", name="2,089,755 more digits").click()
        term = page.locator("#current")
        term.get_by_label("Go to digit").fill("2,089,877")
        term.get_by_role("button", name="Find").click()
        whole = fib(10_000_001)
        expect(term.locator("output")).to_have_text(f"Digit 2,089,877 is {whole[-1]}.")
        text = term.locator(".whole").evaluate("whole => whole.textContent")
        assert len(text) > 1000
        assert whole.endswith(text)

    def test_steps_of_others_are_seen(self, serve: Serve, open_page: Open) -> None:
        service = serve()
        page = open_page(service)
        is_at(page, 0)
        put(service, 40)
        later(page)
        is_at(page, 40)

    def test_no_number_is_rounded(self, serve: Serve, open_page: Open) -> None:
        """Neither a position nor a count passes through a floating point number."""
        service = serve()
        n, count, value = "9007199254740993", "18014398509481989", "1" * 200

        def answer(route: Route) -> None:
            document = {"id": "shared", "position": n, "digits": count, "value": value}
            route.fulfill(json=document)

        page = open_page(service)
        is_at(page, 0)
        page.route(f"**{SHARED}/next*", answer)
        page.get_by_role("button", name="Next").click()
        expect(page.locator("#position")).to_have_text("9,007,199,254,740,993")
        expect(page.locator("#digits")).to_have_text("18,014,398,509,481,989")


class TestOwnSequence:
    def test_is_ones_own(self, serve: Serve, open_page: Open) -> None:
        service = serve()
        put(service, 7)
        page = open_page(service)
        is_at(page, 7)
        page.get_by_role("button", name="Private").click()
        is_at(page, 0)
        fragment = re.fullmatch(r".*/(#[0-9a-f]{32})", page.url)
        assert fragment
        seek(page, "50")
        is_at(page, 50)
        assert position(service) == "7"
        page.reload()
        is_at(page, 50)
        page.get_by_role("button", name="Shared").click()
        is_at(page, 7)
        assert "#" not in page.url
        page.get_by_role("button", name="Private").click()
        is_at(page, 50)
        page.get_by_role("button", name="Remove…").click()
        page.go_back()
        is_at(page, 7)
        # Else it would now be answered for the other sequence.
        expect(page.get_by_role("dialog")).to_be_hidden()
        # It can be opened elsewhere.
        elsewhere = open_page(service, fragment[1])
        is_at(elsewhere, 50)
        # Who turns to the other one takes with him nothing that he has asked for of this one.
        page.get_by_role("button", name="Private").click()
        is_at(page, 50)
        sent = steps_sent(page)
        with paused(service):
            for _ in range(3):
                page.get_by_role("button", name="Next").click()
            page.go_back()
        is_at(page, 7)
        expect(page.locator("#problem")).to_contain_text("Not done")
        page.get_by_role("button", name="Next").click()
        is_at(page, 8)
        expect(page.locator("#problem")).to_be_empty()
        own = f"/api1/sequences/{fragment[1][1:]}"
        assert sent == [f"{own}/next", f"{SHARED}/next"]
        assert position(service, own) == "51"
        expect(page.locator("#chart circle")).to_have_count(1)

    def test_is_opened_by_who_is_in_a_hurry(self, serve: Serve, open_page: Open) -> None:
        service = serve()
        put(service, 7)
        page = open_page(service)
        is_at(page, 7)
        at_once = "document.getElementById('own').click(); document.getElementById('next').click()"
        page.evaluate(at_once)
        is_at(page, 0)
        # It could not be stepped yet, and the shared one was not meant.
        expect(page.locator("#problem")).to_contain_text("Not done")
        page.get_by_role("button", name="Shared").click()
        is_at(page, 7)
        page.evaluate(at_once)
        is_at(page, 1)
        expect(page.locator("#problem")).to_be_empty()
        assert position(service) == "7"

    @pytest.mark.parametrize("name", ["getItem", "setItem"])
    def test_in_a_browser_that_keeps_nothing(
        self, serve: Serve, open_page: Open, name: str
    ) -> None:
        service = serve()
        put(service, 7)
        page = open_page(service)
        is_at(page, 7)
        page.evaluate(f"void (Storage.prototype.{name} = () => {{ throw Error('no') }})")
        page.get_by_role("button", name="Private").click()
        is_at(page, 0)
        own = page.url
        page.get_by_role("button", name="Shared").click()
        is_at(page, 7)
        page.get_by_role("button", name="Private").click()
        is_at(page, 0)
        assert page.url == own
        assert position(service) == "7"

    @pytest.mark.parametrize("choice", ["Keep it", "Forget it here", "Delete it"])
    def test_is_removed(self, serve: Serve, open_page: Open, choice: str) -> None:
        service = serve()
        put(service, 7)
        page = open_page(service)
        page.get_by_role("button", name="Private").click()
        is_at(page, 0)
        path = f"/api1/sequences/{page.url.rpartition('#')[2]}"
        page.get_by_role("button", name="Remove…").click()
        page.get_by_role("dialog").get_by_role("button", name=choice).click()
        expect(page.get_by_role("dialog")).to_be_hidden()
        is_at(page, 0 if choice == "Keep it" else 7)
        assert service.ask(path)[0].status == (404 if choice == "Delete it" else 200)
        page.get_by_role("button", name="Private").click()
        is_at(page, 0)
        assert (path.rpartition("/")[2] in page.url) == (choice == "Keep it")

    def test_whose_creation_was_not_answered_is_created_once(
        self, serve: Serve, open_page: Open
    ) -> None:
        service = serve()
        page = open_page(service)
        is_at(page, 0)
        created = []

        def lose(route: Route) -> None:
            created.append((route.fetch().status, urlsplit(route.request.url).path))
            route.abort("connectionreset")

        page.route(lambda url: not url.endswith("/shared") and "/sequences/" in url, lose)
        page.get_by_role("button", name="Private").click()
        expect(page.locator("#back")).to_have_text("The service is back.")
        page.unroute_all()
        page.get_by_role("button", name="Private").click()
        expect(page.locator("#keep")).to_be_visible()
        is_at(page, 0)
        assert created == [(201, f"/api1/sequences/{page.url.rpartition('#')[2]}")]

    def test_that_is_gone(self, serve: Serve, open_page: Open) -> None:
        service = serve()
        page = open_page(service, "#" + "0" * 32)
        problem = page.locator("#problem")

        def is_gone() -> None:
            expect(problem).to_contain_text("There is no such sequence")
            expect(problem).not_to_contain_text("POST")
            expect(page.locator("#current")).to_be_hidden()
            expect(page.locator("#keep")).to_be_hidden()

        is_gone()
        page.get_by_role("button", name="Next").click()
        is_gone()
        page.get_by_role("button", name="Create one").click()
        is_at(page, 0)
        expect(problem).to_be_empty()
        expect(page.locator("#keep")).to_be_visible()
        own = page.url
        # The one that this browser knows is not lost to a new one.
        page.evaluate("location.hash = '1'.repeat(32)")
        is_gone()
        page.get_by_role("button", name="Open my private sequence").click()
        is_at(page, 0)
        assert page.url == own
        service.ask(f"/api1/sequences/{own.rpartition('#')[2]}", "DELETE")
        page.get_by_role("button", name="Next").click()
        is_gone()
        page.get_by_role("button", name="Shared").click()
        is_at(page, 0)
        expect(problem).to_be_empty()

    def test_is_stepped_only_from_where_it_is_seen(self, serve: Serve, open_page: Open) -> None:
        service = serve()
        page = open_page(service)
        page.get_by_role("button", name="Private").click()
        is_at(page, 0)
        path = f"/api1/sequences/{page.url.rpartition('#')[2]}"
        # The page does not see what happens elsewhere.
        page.route(f"**{path}", lambda route: route.fulfill(status=304))
        service.ask(f"{path}/next?by=5000", "POST")
        page.get_by_role("button", name="Next").click()
        problem = page.locator("#problem")
        expect(problem).to_contain_text("The sequence has been moved meanwhile")
        expect(problem).to_contain_text("It is at position 5,000, no longer at 0")
        expect(problem).not_to_contain_text("If-Match")
        assert position(service, path) == "5000"
        page.unroute(f"**{path}")
        later(page)
        expect(page.locator("#position")).to_have_text("5,000")
        page.get_by_role("button", name="Next").click()
        expect(page.locator("#position")).to_have_text("5,001")


class TestProblems:
    def test_before_the_start(self, serve: Serve, open_page: Open) -> None:
        page = open_page(serve())
        is_at(page, 0)
        page.get_by_role("button", name="Previous").click()
        problem = page.locator("#problem")
        expect(problem).to_have_attribute("role", "alert")
        expect(problem).to_contain_text("It does not go that far back")
        expect(problem).to_contain_text("there is no term before F(0); it is at position 0")
        problem.get_by_role("button", name="Close").click()
        expect(problem).to_be_empty()
        page.get_by_role("button", name="Previous").click()
        expect(problem).to_contain_text("It does not go that far back")
        page.get_by_role("button", name="Next").click()
        is_at(page, 1)
        expect(problem).to_be_empty()

    def test_a_full_disk(self, serve: Serve, open_page: Open) -> None:
        service = serve()
        page = open_page(service)
        is_at(page, 0)
        with full_disk(service):
            page.get_by_role("button", name="Next").click()
            expect(page.locator("#problem")).to_contain_text("The service has no space left")
        is_at(page, 0)
        page.get_by_role("button", name="Next").click()
        is_at(page, 1)

    def test_too_far(self, serve: Serve, open_page: Open) -> None:
        page = open_page(serve())
        is_at(page, 0)
        page.get_by_label("by how many terms").fill("1" + "0" * 30)
        page.get_by_role("button", name="Next").click()
        expect(page.locator("#problem")).to_contain_text("That cannot be done")
        is_at(page, 0)

    def test_what_is_no_number_is_not_sent(self, serve: Serve, open_page: Open) -> None:
        service = serve()
        page = open_page(service)
        is_at(page, 0)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.method))
        page.get_by_label("by how many terms").fill("x")
        page.get_by_role("button", name="Next").click()
        page.get_by_role("button", name="Previous").click()
        expect(page.get_by_label("by how many terms")).to_be_focused()
        show(page, "x")
        expect(page.get_by_label("n, the index")).to_be_focused()
        assert "POST" not in asked

    def test_of_a_proxy(self, serve: Serve, open_page: Open) -> None:
        page = open_page(serve())
        is_at(page, 0)
        page.route("**/next*", lambda route: route.fulfill(status=429, body="<h1>429</h1>"))
        page.get_by_role("button", name="Next").click()
        expect(page.locator("#problem")).to_contain_text("Too Many Requests")

    def test_of_a_store_that_is_away(self, serve: Serve, open_page: Open) -> None:
        page = open_page(serve())
        is_at(page, 0)
        problem = {"type": "about:blank", "title": "Service Unavailable", "status": 503}
        problem["detail"] = "The store cannot be asked now; nothing has changed."

        def answer(route: Route) -> None:
            headers = {"Content-Type": "application/problem+json", "Retry-After": "1"}
            route.fulfill(status=503, body=json.dumps(problem), headers=headers)

        page.route(f"**{SHARED}*", answer)
        later(page)
        expect(page.locator("#away")).to_contain_text("The store cannot be asked now")
        page.unroute(f"**{SHARED}*")
        expect(page.locator("#away")).to_be_empty()


class TestAway:
    def test_the_service_goes_and_comes_back(self, serve: Serve, open_page: Open) -> None:
        service = serve()
        page = open_page(service)
        page.get_by_label("by how many terms").fill("12")
        page.get_by_role("button", name="Next").click()
        is_at(page, 12)
        service.stop(signal.SIGKILL)
        # The page notices by itself.
        away = page.locator("#away")
        expect(away).to_have_attribute("role", "alert")
        expect(away).to_contain_text("The service does not answer")
        page.get_by_role("button", name="Next").click()
        expect(away).to_contain_text("Not sent")
        is_at(page, 12)
        page.get_by_role("button", name="Try now").click()
        again = serve("-p", str(service.port))
        expect(away).to_be_empty()
        expect(page.locator("#back")).to_have_text("The service is back.")
        is_at(page, 12)
        expect(page.locator("#problem")).to_be_empty()
        page.get_by_role("button", name="Next").click()
        is_at(page, 24)
        assert position(again) == "24"

    def test_a_step_whose_answer_is_lost_is_not_made_twice(
        self, serve: Serve, open_page: Open
    ) -> None:
        service = serve()
        put(service, 5)
        page = open_page(service)
        is_at(page, 5)
        sent = []

        def lose(route: Route) -> None:
            sent.append(route.fetch().status)
            route.abort("connectionreset")

        page.route("**/next*", lose)
        page.get_by_role("button", name="Next").click()
        problem = page.locator("#problem")
        expect(problem).to_contain_text("may or may not have been made")
        expect(problem).to_contain_text("was at position 5 when it was sent")
        is_at(page, 6)
        expect(page.locator("#away")).to_be_empty()
        assert sent == [200]
        assert position(service) == "6"

    def test_a_step_to_a_service_that_is_killed(self, serve: Serve, open_page: Open) -> None:
        service = serve()
        page = open_page(service)
        is_at(page, 0)

        def kill(route: Route) -> None:
            service.stop(signal.SIGKILL)
            route.continue_()

        page.route("**/next*", kill)
        page.get_by_role("button", name="Next").click()
        expect(page.locator("#away")).to_contain_text("The service does not answer")
        serve("-p", str(service.port))
        expect(page.locator("#problem")).to_contain_text("was at position 0 when it was sent")
        is_at(page, 0)

    def test_a_service_that_says_nothing(self, serve: Serve, open_page: Open) -> None:
        service = serve()
        page = open_page(service)
        # Its ten seconds of patience need not be ours.
        began = datetime(2026, 1, 1)
        page.clock.install(time=began)
        page.reload()
        is_at(page, 0)
        with page.expect_response(f"**{SHARED}"):
            page.clock.pause_at(began + timedelta(hours=1))
        controls, away = page.locator("#controls"), page.locator("#away")
        following = page.get_by_role("button", name="Next")
        sent = steps_sent(page)
        with paused(service):
            following.click()
            expect(controls).not_to_have_attribute("aria-busy", "true")
            page.clock.run_for(300)
            expect(controls).to_have_attribute("aria-busy", "true")
            expect(away).to_be_empty()
            with page.expect_request(f"**{SHARED}"):
                page.clock.fast_forward(10_000)
            expect(away).to_contain_text("The service does not answer")
            expect(controls).not_to_have_attribute("aria-busy", "true")
            # It is being asked whether it is back.
            following.click()
            following.click()
            expect(away).to_contain_text("Not sent")
        expect(away).to_be_empty()
        problem = page.locator("#problem")
        expect(problem).to_contain_text("may or may not have been made")
        # The step may still wait in the service, and be made after it has told where it is.
        expect(problem).to_contain_text("was at position 0 when it was sent")
        expect(problem).to_contain_text("may still change")
        assert sent == [f"{SHARED}/next"]


class TestExplorer:
    def test_digits(self, serve: Serve, open_page: Open) -> None:
        page = open_page(serve())
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

    def test_a_negative_term(self, serve: Serve, open_page: Open) -> None:
        page = open_page(serve())
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

    def test_summary_and_residue_of_thousands_of_digits(
        self, serve: Serve, open_page: Open
    ) -> None:
        page = open_page(serve())
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
        expect(refusal).to_contain_text("That cannot be done")
        refusal.get_by_role("button", name="Close").click()
        expect(refusal).to_be_empty()

    def test_a_huge_one_is_waited_for(self, serve: Serve, open_page: Open) -> None:
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

    def test_a_huge_one_is_cancelled(self, serve: Serve, open_page: Open) -> None:
        service = serve()
        page = open_page(service)
        show(page, "99999999")
        work = page.locator("#computation")
        work.get_by_role("button", name="Cancel").click()
        expect(page.locator("#found-said")).to_have_text("Cancelled.")
        expect(work).to_be_hidden()
        assert service.ask("/api1/terms/99999999/job")[0].status == 404

    def test_download(self, serve: Serve, open_page: Open) -> None:
        page = open_page(serve())
        show(page, "1000000")
        with page.expect_download() as download:
            page.locator("#found-term").get_by_role("button", name="Download").click()
        assert download.value.suggested_filename == "fibonacci-1000000.txt"
        assert download.value.path().read_text() == fib(1_000_000)

    def test_download_of_the_current_term(self, serve: Serve, open_page: Open) -> None:
        service = serve()
        put(service, 500)
        page = open_page(service)
        with page.expect_download() as download:
            page.locator("#current").get_by_role("button", name="Download").click()
        assert download.value.suggested_filename == "fibonacci-500.txt"
        assert download.value.path().read_text() == fib(500)

    def test_beyond_the_limit_there_is_a_summary(self, serve: Serve, open_page: Open) -> None:
        page = open_page(serve())
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
        # By floor(n log10(phi) - log10(sqrt 5)) + 1 to a thousand bits, elsewhere.
        count = int(
            "20898764024997873376927208923755541682245923991821"
            "09535392875613974104853496745963277658556235103535"
        )
        expect(page.locator("#found-summary dd").first).to_have_text(f"{count:,}")


def in_base(number: fmpz, base: int) -> str:
    """Return the number in a base, with the digits 0-9a-z; above 36, 0-9A-Za-z."""
    lower, upper = "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    alphabet = "0123456789" + (lower if base <= 36 else upper + lower)
    written = ""
    while number:
        number, digit = divmod(number, base)
        written = alphabet[int(digit)] + written
    return written or "0"


def residue_of_power(exponent: int, modulus: int) -> int:
    """Return F(10^exponent) modulo ``modulus``, by powers of a matrix."""
    matrix = nmod_mat(2, 2, [1, 1, 1, 0], modulus)
    for _ in range(exponent):
        matrix = matrix**10
    return int(matrix[0, 1])


def last_digits(exponent: int) -> str:
    """Return the last twenty digits of F(10^exponent)."""
    # Two moduli that fit into a word, and the Chinese remainder of both.
    two, five = 2**20, 5**20
    left, right = residue_of_power(exponent, two), residue_of_power(exponent, five)
    number = left + two * ((right - left) * pow(two, -1, five) % five)
    return f"{number:020}"


class TestChart:
    def test_grows(self, serve: Serve, open_page: Open) -> None:
        page = open_page(serve())
        chart = page.locator("#chart")
        expect(chart).to_contain_text("Press Next: each step becomes a point here.")
        is_at(page, 0)
        page.get_by_label("by how many terms").fill("50")
        for n in (50, 100, 150):
            page.get_by_role("button", name="Next").click()
            is_at(page, n)
        expect(chart.locator("circle")).to_have_count(3)
        expect(chart.locator(".micros path")).to_have_count(3)
        expect(page.locator("#took")).to_have_text(re.compile(r"[\d.]+ ms"))
        picture = chart.get_by_role("img")
        expect(picture).to_have_accessible_name(
            re.compile(
                r"Digits, Milliseconds, Position: 3 steps, positions 50 to 150; "
                r"the last one has 31 digits and took [\d.]+ ms\."
            )
        )
        lefts = [float(x or "") for x in places(chart, "circle", "cx")]
        assert lefts == sorted(lefts)
        assert lefts[1] - lefts[0] == pytest.approx(lefts[2] - lefts[1], abs=0.2)
        # 11, 21 and 31 digits lie on a line; up is less.
        heights = [float(y or "") for y in places(chart, "circle", "cy")]
        assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.2)
        assert heights[0] > heights[1]
        chart.get_by_text("The last steps in numbers").click()
        rows = [re.split(r"\s+", row) for row in chart.locator("tbody tr").all_inner_texts()]
        assert [row[:2] for row in rows] == [["150", "31"], ["100", "21"], ["50", "11"]]
        assert all(float(row[2]) > 0 for row in rows)

    def test_fits_whatever_the_width(self, serve: Serve, open_page: Open) -> None:
        page = open_page(serve())
        is_at(page, 0)
        far = 10_000_000

        def answer(route: Route) -> None:
            n = far + page.locator("#chart circle").count()
            route.fulfill(json={"id": "shared", "position": str(n), "digits": "1", "value": "1"})

        page.route("**/next*", answer)
        for n in range(far, far + 4):
            page.get_by_role("button", name="Next").click()
            expect(page.locator("#position")).to_have_text(f"{n:,}")
        for width in (1200, 400, 320):
            page.set_viewport_size({"width": width, "height": 800})
            box = page.locator("#chart").evaluate("figure => figure.clientWidth")
            expect(page.locator("#chart svg")).to_have_attribute("width", str(box))
            # No label leaves the chart or touches another.
            labels = page.locator("#chart .axis .tick").evaluate_all(
                "all => all.map(one => one.getBBox()).map(box => [box.x, box.x + box.width])"
            )
            edges = [edge for label in labels for edge in label]
            assert len(edges) >= 4
            assert edges == sorted(edges)
            assert edges[0] >= 0
            assert edges[-1] < box + 1  # As exact as fonts are measured.


def places(chart: Locator, mark: str, coordinate: str) -> list[str | None]:
    return [one.get_attribute(coordinate) for one in chart.locator(mark).all()]


class TestKeyboard:
    def test_reaches_everything_in_order_and_is_seen(self, serve: Serve, open_page: Open) -> None:
        service = serve()
        put(service, 1000)
        page = open_page(service)
        page.get_by_role("button", name="Private").click()
        is_at(page, 0)
        seek(page, "1000")
        expect(page.locator("#position")).to_have_text("1,000")
        page.locator("#current .more").press("Enter")
        page.locator("h1").click()
        reached: list[str] = []
        for _ in range(30):
            page.keyboard.press("Tab")
            focused = page.evaluate(
                """() => {
                    const at = document.activeElement;
                    const seen = at.type === "radio" ? at.nextElementSibling : at;
                    const style = getComputedStyle(seen);
                    const text = at.textContent.trim().split(" ")[0].slice(0, 8);
                    return [at.id || text || at.name, at.tagName,
                            style.outlineStyle !== "none" && style.outlineWidth === "2px"];
                }"""
            )
            if focused[1] == "BODY":
                break
            reached.append(focused[0])
            assert focused[2], focused
        assert reached == [
            *("show-keys", "API", "shared", "own", "remove"),
            *("previous", "by", "next", "target", "Go"),
            *("87", "Copy", "Download", "digit", "Find", "43466557"),
            *("The", "n", "what", "base", "Show"),
            *("value", "Check"),
        ]

    def test_does_everything(self, serve: Serve, open_page: Open) -> None:
        service = serve()
        page = open_page(service)
        is_at(page, 0)

        def tab_to(name: str) -> None:
            for _ in range(30):
                page.keyboard.press("Tab")
                if page.evaluate("document.activeElement.id") == name:
                    return
            raise AssertionError(f"Tab does not lead to {name}")

        tab_to("own")
        page.keyboard.press("Space")
        expect(page.locator("#keep")).to_be_visible()
        is_at(page, 0)
        tab_to("by")
        page.keyboard.type("7")  # What was there is selected.
        page.keyboard.press("Enter")
        is_at(page, 7)
        tab_to("next")
        page.keyboard.press("Space")
        is_at(page, 14)
        tab_to("target")
        page.keyboard.type("30")
        page.keyboard.press("Enter")
        is_at(page, 30)
        tab_to("remove")
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_be_hidden()
        expect(page.locator("#remove")).to_be_focused()
        tab_to("n")
        page.keyboard.type("10")
        page.keyboard.press("Tab")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        tab_to("modulo")
        page.keyboard.type("7")
        page.keyboard.press("Enter")
        expect(page.locator("#found-said")).to_have_text("F(10) mod 7")
        assert digits(page.locator("#found-term")) == "6"


def test_nothing_moves_for_those_who_want_it_so(serve: Serve, open_page: Open) -> None:
    page = open_page(serve(), reduced_motion="reduce")
    durations = page.evaluate(
        "[...document.querySelectorAll('*')].map(e => getComputedStyle(e).transitionDuration)"
    )
    assert set(durations) == {"0s"}


def test_the_policy_is_enforced(serve: Serve, open_page: Open) -> None:
    page = open_page(serve())
    page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.hasRun = true";
            document.body.append(script);
        }"""
    )
    assert page.evaluate("window.hasRun") is None
    inline = len(open_page.wrong)
    assert inline > 0
    assert page.evaluate("fetch('http://127.0.0.1:9/').catch(error => error.name)") == "TypeError"
    assert len(open_page.wrong) > inline
    open_page.wrong.clear()


def test_without_it_another_host_is_noticed(serve: Serve, open_page: Open) -> None:
    page = open_page(serve(), bypass_csp=True)
    page.evaluate("fetch('http://127.0.0.1:9/').catch(error => error.name)")
    assert open_page.wrong == ["asks for http://127.0.0.1:9/"]
    open_page.wrong.clear()
