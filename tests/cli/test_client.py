"""Commands that use a service, next to it or by its address; and an address of something else."""

import json
import re
from pathlib import Path

import pytest

from bigfib.numbers import fibonacci, kernel
from tests.cli.command import (
    Command,
    answering,
    term,
)
from tests.lossy import lossy
from tests.service import Serve, Service

ATTEMPTS = 6

FOUND = (
    b'HTTP/1.1 200 OK\r\nConnection: close\r\nETag: "x"\r\n\r\n'
    b'{"id":"shared","position":"1","digits":"1","value":"1"}'
)


class TestBesideAService:
    def test_current_reads_the_log_of_a_running_service(
        self, serve: Serve, bigfib: Command
    ) -> None:
        serve().value("next")
        assert bigfib.prints("current") == "1\n"

    def test_step_beside_a_service_names_its_process_and_url(
        self, serve: Serve, bigfib: Command
    ) -> None:
        service = serve()
        refusal = bigfib.fails("next")
        assert f"in use by process {service.process.pid}" in refusal
        assert f"use --url {service.url}" in refusal
        assert service.value("current") == 0

    def test_url_steps_the_shared_sequence_of_a_service(
        self, serve: Serve, bigfib: Command
    ) -> None:
        # With --per-client, which concerns only /api0.
        service = serve("--per-client")
        commands = ["current", "n", "n", "next", "p", "c"]
        shown = [bigfib.prints(command, "--url", service.url) for command in commands]
        assert shown == ["0\n", "1\n", "1\n", "2\n", "1\n", "1\n"]
        assert bigfib.prints("c", "--url", service.url + "/", "--json") == (
            '{"id":"shared","position":"2","digits":"1","value":"1"}\n'
        )
        assert bigfib("c", "-v", "--url", service.url).stderr == "position: 2\ndigits: 1\n"
        for expected in ("1\n", "0\n"):
            assert bigfib.prints("p", "--url", service.url) == expected
        assert "there is no term before F(0)" in bigfib.fails("p", "--url", service.url)
        assert bigfib.prints("next", "--by", "300", "--url", service.url) == f"{term(300)}\n"
        assert bigfib.prints("p", "--by", "299", "--url", service.url) == "1\n"
        assert bigfib.prints("seek", "10000", "--url", service.url) == f"{term(10_000)}\n"
        refusal = bigfib.fails("seek", "100000001", "--url", service.url)
        # Six numbers with a byte a digit, log10(phi) digits an index, in 64 MiB; or `--max-term`.
        farthest = 100_000_000 if kernel.load() else 53_519_005
        assert f"position {farthest} at most" in refusal
        assert service.value("current") == 0, "the client's own sequence has moved"

    def test_private_sequence_is_created_moved_and_deleted(
        self, service: Service, bigfib: Command
    ) -> None:
        own = bigfib.prints("create", "--url", service.url).strip()
        assert re.fullmatch(re.escape(service.url) + "/api1/sequences/[0-9a-f]{32}", own)
        assert bigfib.prints("next", "--url", own) == "1\n"
        assert bigfib.prints("seek", "6", "--url", own) == "8\n"
        document = json.loads(bigfib.prints("current", "--json", "--url", own))
        assert document == {"id": own[-32:], "position": "6", "digits": "1", "value": "8"}
        assert service.value("current") == 0
        assert bigfib.prints("delete", "--url", own) == ""
        for command in (["current"], ["next"], ["previous"], ["seek", "5"], ["delete"]):
            assert "There is no such sequence" in bigfib.fails(*command, "--url", own)

    @pytest.mark.parametrize(
        "arguments",
        [
            ["term", "100000"],
            ["term", "-6"],
            ["term", "-6", "--json"],
            ["term", "300", "--base", "62"],
            ["term", "300", "--base", "16", "--json"],
            ["term", "1" + "0" * 50, "--modulo", "1" + "0" * 30],
            ["term", "12345", "--modulo", "7", "--json"],
            ["term", "-1" + "0" * 50, "--summary"],
            ["term", "12345", "--summary", "--json"],
            ["terms", "-6", "20"],
            ["term", "-100", "--group"],
            ["terms", "100", "20", "--group"],
            ["terms", "0", "301", "--bfile"],
            ["terms", "-2", "5", "--json"],
            # More terms than the service sends in one reply.
            ["terms", "0", "10002"],
        ],
    )
    def test_terms_of_a_service_are_those_computed_here(
        self, service: Service, bigfib: Command, arguments: list[str]
    ) -> None:
        assert bigfib.prints(*arguments, "--url", service.url) == bigfib.prints(*arguments)

    @pytest.mark.parametrize("more", [[], ["--json"]])
    def test_large_term_is_waited_for(
        self, serve: Serve, bigfib: Command, tmp_path: Path, more: list[str]
    ) -> None:
        n = "-7000000"
        url = serve().url
        target = tmp_path / "term.txt"
        assert bigfib.prints("term", n, "--url", url, "-o", str(target), *more) == ""
        assert target.read_text() == bigfib.prints("term", n, *more)

    def test_large_term_shows_its_progress(self, serve: Serve, bigfib: Command) -> None:
        n = 100_000_000
        first, last = fibonacci.leading_digits(n, 40), fibonacci.trailing_digits(n, 40)
        shown = bigfib.on_terminal("term", str(n), "--url", serve().url)
        assert f"F({n})" in shown
        # The progress bar shows part of the work.
        assert set(re.findall(r"(\d+)%", shown)) - {"0"}
        assert f"{first}...{last} (20898764 digits" in shown

    def test_large_term_that_fails_names_the_reason(
        self, serve: Serve, bigfib: Command, tmp_path: Path
    ) -> None:
        service = serve("--cache-dir", "/proc/none")
        target = tmp_path / "term.txt"
        said = bigfib.fails("term", "6000001", "--url", service.url, "-o", str(target))
        assert "F(6000001) could not be computed: its digits cannot be stored" in said
        assert not target.exists()

    @pytest.mark.parametrize(
        "answer",
        [
            b"HTTP/1.1 202 Accepted\r\n\r\n{}",
            b'HTTP/1.1 202 Accepted\r\n\r\n{"progress":"x","seconds_left":1}',
            b'HTTP/1.1 202 Accepted\r\n\r\n{"progress":0.5}',
            b"HTTP/1.1 202 Accepted\r\n\r\nx",
        ],
    )
    def test_progress_that_is_none_of_a_bigfib_is_refused(
        self, bigfib: Command, answer: bytes
    ) -> None:
        with answering(answer) as url:
            assert "no bigfib answers at" in bigfib.fails("term", "6000001", "--url", url)

    def test_term_that_is_cut_off_is_reported_as_lost(self, bigfib: Command) -> None:
        ready = b"HTTP/1.1 206 Partial Content\r\nConnection: close\r\n\r\n1"
        cut_off = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n13"
        with answering(ready, cut_off, *(ATTEMPTS - 1) * [b""]) as url:
            assert "is lost" in bigfib("term", "7", "--url", url).stderr

    def test_a_term_that_is_gone_again(self, bigfib: Command) -> None:
        """As if the next connection reached another process of the service."""
        close = b"Connection: close\r\n"
        there = b"HTTP/1.1 206 Partial Content\r\n" + close + b"\r\n5"
        gone = b"HTTP/1.1 202 Accepted\r\n" + close + b"\r\n"
        term = b"HTTP/1.1 200 OK\r\n" + close + b"\r\n55"
        with answering(there, gone, there, term) as url:
            assert bigfib.prints("term", "10", "--url", url) == "55\n"

    def test_term_by_a_service_is_written_to_a_file(
        self, service: Service, bigfib: Command, tmp_path: Path
    ) -> None:
        target = tmp_path / "term.txt"
        url = service.url
        assert bigfib.prints("term", "1000", "-o", str(target), "--url", url) == ""
        assert target.read_text() == f"{term(1000)}\n"
        # A refused change has no effect.
        assert "summary" in bigfib.fails("term", "100000001", "-o", str(target), "--url", url)
        assert target.read_text() == f"{term(1000)}\n"
        assert sorted(entry.name for entry in tmp_path.glob("term*")) == ["term.txt"]

    @pytest.mark.parametrize(
        "url",
        ["http://127.0.0.1:1", "127.0.0.1:8080", "nonsense", "", "http://", "file:///etc/passwd"],
    )
    def test_missing_service_is_named(self, bigfib: Command, url: str) -> None:
        assert "no bigfib answers at" in bigfib.fails("current", "--url", url)

    @pytest.mark.parametrize(
        "answer",
        [
            b'{"value":5}',
            b'{"value":null}',
            b'{"value":["x"]}',
            b"[]",
            b"{}",
            b'{"name":"x"}',
            b"[" * 200_000,
            b"\xff",
        ],
        ids=range(8),
    )
    def test_document_of_another_program_is_refused(self, bigfib: Command, answer: bytes) -> None:
        with answering(b"HTTP/1.1 200 OK\r\n\r\n" + answer) as url:
            assert "no bigfib answers at" in bigfib.fails("current", "--url", url)

    @pytest.mark.parametrize("command", [["next"], ["seek", "7"]])
    def test_a_lost_answer_is_said_to_be_lost(self, bigfib: Command, command: list[str]) -> None:
        with answering(FOUND, *ATTEMPTS * [b""]) as url:
            assert "whether it has changed" in bigfib.fails(*command, "--url", url)
        cut_off = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"
        with answering(FOUND, *ATTEMPTS * [cut_off]) as url:
            assert "whether it has changed" in bigfib.fails(*command, "--url", url)

    def test_change_that_is_refused_for_long_is_not_waited_for(self, bigfib: Command) -> None:
        later = b"HTTP/1.1 503 x\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n"
        with answering(FOUND, later) as url:
            assert "answers 503" in bigfib.fails("next", "--url", url)

    def test_creation_whose_answer_is_lost_is_sent_again(
        self, service: Service, bigfib: Command
    ) -> None:
        with lossy(service) as proxy:
            created = bigfib.prints("create", "--url", proxy.url)
            assert proxy.passed == 2 * [f"PUT {created.strip().removeprefix(proxy.url)}"]
            assert bigfib.prints("next", "--url", created.strip()) == "1\n"
            assert bigfib.prints("delete", "--url", created.strip()) == ""
        with answering(*ATTEMPTS * [b""]) as url:
            assert "whether it has changed" in bigfib.fails("create", "--url", url)
        full = b"HTTP/1.1 507 x\r\nContent-Length: 0\r\n\r\n"
        with answering(b"", full) as url:
            assert "answers 507" in bigfib.fails("create", "--url", url)

    @pytest.mark.parametrize("body", [b"x", b"[]", b"{}", b"5", b"[" * 200_000, b"\xff"])
    def test_error_without_a_detail_is_named_by_its_status(
        self, bigfib: Command, body: bytes
    ) -> None:
        with answering(b"HTTP/1.1 404 Not\r\n\r\n" + body) as url:
            assert "answers 404 Not" in bigfib.fails("current", "--url", url)

    def test_service_that_is_not_bigfib_is_named(self, service: Service, bigfib: Command) -> None:
        refusal = bigfib.fails("current", "--url", f"{service.url}/elsewhere")
        assert "There is nothing at /elsewhere/api1/sequences/shared" in refusal
