"""The command line as a person meets it: in a real process, on a real terminal where it matters."""

import json
import os
import pty
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from flint import fmpz

from bigfib.sequences import SHARED
from bigfib.state import reader
from bigfib.state.log import Durability, Log
from tests.service import Serve, seconds_of_work, until

Done = subprocess.CompletedProcess[str]


@pytest.fixture
def bigfib(path: Path) -> "Command":
    return Command(path)


@pytest.fixture
def stranger(require: Callable[[str], str]) -> list[str]:
    """What runs a command as a user whom the system does not know, and who runs nothing else."""
    if os.geteuid() != 0:
        pytest.skip("only root can run a command as another user")
    user = str(100_000 + os.getpid())
    before = [require("setpriv"), "--reuid", user, "--regid", user, "--clear-groups"]
    tried = subprocess.run(
        [*before, sys.executable, "-c", "import gmpy2, bigfib"], capture_output=True, check=False
    )
    if tried.returncode != 0:
        pytest.skip("another user cannot run this Python")
    return before


class Command:
    """Runs ``python -m bigfib`` with its state log at ``file``."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.before: list[str] = []
        self.environ = {**os.environ, "BIGFIB_FILE": str(file)}

    def __call__(self, *arguments: str) -> Done:
        return subprocess.run(
            [*self.before, sys.executable, "-m", "bigfib", *arguments],
            capture_output=True,
            text=True,
            env=self.environ,
            timeout=30,
            check=False,
        )

    def prints(self, *arguments: str) -> str:
        """Run, and return what a command that succeeds prints on stdout; it says nothing else."""
        done = self(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def fails(self, *arguments: str) -> str:
        """Run, and return the one line on stderr of a command that fails."""
        done = self(*arguments)
        assert done.returncode in (1, 2)
        assert done.stdout == ""
        assert re.fullmatch(r"bigfib: [^\n]+\n", done.stderr), done.stderr
        assert "Traceback" not in done.stderr
        return f"{done.returncode}: {done.stderr}"

    def on_terminal(self, *arguments: str) -> str:
        """Run on a terminal and return what appears there."""
        terminal, end = pty.openpty()
        with subprocess.Popen(
            [sys.executable, "-m", "bigfib", *arguments],
            stdin=end,
            stdout=end,
            stderr=end,
            env=self.environ,
        ):
            os.close(end)
            shown = b""
            while True:
                try:
                    piece = os.read(terminal, 65536)
                except OSError:  # EIO: the last user of the terminal has left it
                    break
                shown += piece
        os.close(terminal)
        return shown.decode()


def term(n: int) -> str:
    return str(fmpz.fib_ui(fmpz(n)))


@contextmanager
def answering(*answers: bytes) -> Iterator[str]:
    """Serve a request with each of these, whatever it asks, and give the address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve_each_once() -> None:
            for answer in answers:
                with listener.accept()[0] as connection:
                    connection.recv(65536)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve_each_once)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except FileNotFoundError:
        return []
    return [int(child) for child in text.split()]


def status(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text()


@contextmanager
def computing(
    target: Path, *command: str, before: Sequence[str] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """Compute a large term into a file, in a process group, until two processes are busy with it.

    Args:
        target: The file.
        command: What to run instead of ``term 400000000``.
        before: A program that runs it.
    """

    def second_is_busy() -> bool:
        seconds = [second for child in children(process.pid) for second in children(child)]
        return any(seconds_of_work(second) > 0.05 for second in seconds)

    with subprocess.Popen(
        [
            *(*before, sys.executable, "-m", "bigfib"),
            *(command or ("term", "400000000")),
            *("-o", target),
        ],
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            until(second_is_busy)
            yield process
        finally:
            process.kill()


def require_nobody_left(group: int) -> None:
    """Return when no process of the group is left."""

    def is_empty() -> bool:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        return False

    until(is_empty)


class TestStepping:
    def test_the_session_of_the_contract(self, bigfib: Command) -> None:
        commands = ["current", "next", "next", "next", "previous", "c", "n", "p", "c"]
        shown = [bigfib.prints(command) for command in commands]
        assert shown == ["0\n", "1\n", "1\n", "2\n", "1\n", "1\n", "2\n", "1\n", "1\n"]

    def test_previous_at_the_start(self, bigfib: Command) -> None:
        assert bigfib.fails("previous").startswith(
            "1: bigfib: nothing has changed: there is no term before F(0)"
        )
        assert bigfib.prints("current") == "0\n"

    def test_by(self, bigfib: Command) -> None:
        assert bigfib.prints("next", "--by", "300") == f"{term(300)}\n"
        assert bigfib.prints("p", "--by", "299") == "1\n"
        assert "there is no term before F(0)" in bigfib.fails("p", "--by", "2")
        for by in ("0", "-1", "x"):
            assert bigfib.fails("n", f"--by={by}").startswith("2: ")
        assert json.loads(bigfib.prints("c", "--json"))["position"] == "1"

    def test_seek(self, bigfib: Command) -> None:
        assert bigfib.prints("seek", "100") == f"{term(100)}\n"
        assert bigfib.prints("next") == f"{term(101)}\n"
        assert "position 999999999 at most" in bigfib.fails("seek", "1000000000")
        for position in ("-1", "x", "007"):
            assert bigfib.fails("seek", position).startswith("2: ")
        assert bigfib.prints("current") == f"{term(101)}\n"

    @pytest.mark.parametrize("flag", ["-f", "--file", "--store"])
    def test_current_of_a_named_log_that_is_missing_fails(
        self, bigfib: Command, tmp_path: Path, flag: str
    ) -> None:
        missing = tmp_path / "missing.log"
        refusal = bigfib.fails("current", flag, str(missing))
        assert refusal.startswith(f"1: bigfib: there is no state log at {missing} yet; ")
        assert not missing.exists()

    def test_current_syncs_before_it_shows(
        self, bigfib: Command, require: Callable[[str], str], tmp_path: Path
    ) -> None:
        """What is written, and not yet synced by a service, must not be shown too early."""
        trace = tmp_path / "trace"
        with Log(bigfib.file) as log:
            log.append(SHARED, 7)
            bigfib.before = [
                *(require("strace"), "-f", "-y", "-s", "50", "-o", str(trace)),
                *("-e", "trace=fsync,write"),
            ]
            assert bigfib.prints("current") == "13\n"
        order = re.findall(
            rf"fsync\(\d+<({re.escape(str(bigfib.file))})>\) += 0|write\(1<[^,]*, .(13)",
            trace.read_text(),
        )
        assert order == [(str(bigfib.file), ""), ("", "13")]

    def test_current_is_as_late_as_the_sync(
        self, serve: Serve, bigfib: Command, require: Callable[[str], str], tmp_path: Path
    ) -> None:
        """Beside a service whose syncs are slow, on a disk that is as slow for `current`."""
        slow = [require("strace"), "-D", "-f", "-o", str(tmp_path / "trace")]
        service = serve(before=[*slow, "-e", "inject=fdatasync:delay_enter=3000000"])
        answer = threading.Thread(target=service.value, args=["next"])
        answer.start()
        until(lambda: reader.read(service.file).position(SHARED) == 1)
        bigfib.before = [require("strace"), "-f", "-o", "/dev/null"]
        bigfib.before += ["-e", "inject=fsync:error=EIO"]
        refusal = bigfib.fails("current")
        assert answer.is_alive(), "the service was faster"
        assert "Input/output error" in refusal
        answer.join()

    def test_current_creates_nothing(self, bigfib: Command) -> None:
        assert bigfib.prints("current") == "0\n"
        assert not bigfib.file.exists()

    def test_json(self, bigfib: Command) -> None:
        for _ in range(7):
            bigfib.prints("next")
        expected = {"id": "shared", "position": "7", "digits": "2", "value": "13"}
        assert json.loads(bigfib.prints("current", "--json")) == expected

    def test_verbose_says_more_on_stderr(self, bigfib: Command) -> None:
        bigfib("next")
        done = bigfib("next", "-v")
        assert done.stdout == "1\n"
        size = bigfib.file.stat().st_size
        assert done.stderr.splitlines() == [
            "position: 2",
            "digits: 1",
            f"log: {bigfib.file}",
            f"log bytes: {size}",
            "log records: 2",
        ]
        assert bigfib("current", "-v").stderr == done.stderr

    @pytest.mark.parametrize("before", [["-f"], ["--file"]])
    def test_the_file_may_come_before_the_command(
        self, bigfib: Command, tmp_path: Path, before: list[str]
    ) -> None:
        other = str(tmp_path / "other.log")
        assert bigfib.prints(*before, other, "next") == "1\n"
        assert bigfib.prints("current", *before, other) == "1\n"
        assert not bigfib.file.exists()

    def test_a_long_term(self, bigfib: Command) -> None:
        with Log(bigfib.file) as opened:
            opened.append(b"shared", 50_000)
        whole = str(fmpz.fib_ui(fmpz(50_000)))
        assert bigfib.prints("current") == whole + "\n"
        shown = bigfib.on_terminal("current")
        assert shown == f"{whole[:40]}...{whole[-40:]} (10450 digits; --full shows them)\r\n"
        assert bigfib.on_terminal("current", "--full") == whole + "\r\n"

    def test_a_reader_that_has_seen_enough(self, bigfib: Command) -> None:
        with Log(bigfib.file) as opened:
            opened.append(b"shared", 5_000_000)
        with subprocess.Popen(
            [sys.executable, "-m", "bigfib", "current"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=bigfib.environ,
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.read(10)
            process.stdout.close()
            assert process.stderr.read() == b""

    @pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
    def test_closed_streams(self, bigfib: Command, closed: str) -> None:
        """The state log must not take the place of a stream that messages go to."""
        for _ in range(2):
            done = subprocess.run(
                ["sh", "-c", f"{sys.executable} -m bigfib next {closed}"],
                capture_output=True,
                env=bigfib.environ,
                check=False,
            )
            unheard = ">&-" in closed.replace("2>&-", "")
            assert done.returncode == (1 if unheard else 0)
            assert done.stdout == (b"" if unheard else b"1\n")
            if unheard and "2>&-" not in closed:
                assert b"Bad file descriptor; the step was made: see `current`" in done.stderr
            else:
                assert done.stderr == b""
        assert reader.read(bigfib.file).position(b"shared") == 2
        assert reader.read(bigfib.file).fault is None

    def test_help_that_nobody_hears(self) -> None:
        command = f"{sys.executable} -m bigfib --help >&-"
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert done.stderr == "bigfib: cannot write the answer: Bad file descriptor\n"

    @pytest.mark.parametrize(
        ("command", "and_says"), [("current", ""), ("next", "; the step was made: see `current`")]
    )
    def test_an_answer_that_cannot_be_written(
        self, bigfib: Command, command: str, and_says: str
    ) -> None:
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "bigfib", command],
                stdout=full,
                stderr=subprocess.PIPE,
                env=bigfib.environ,
                text=True,
                check=False,
            )
        assert done.returncode == 1
        assert (
            done.stderr == f"bigfib: cannot write the answer: No space left on device{and_says}\n"
        )
        assert bigfib.prints("current") == ("1\n" if command == "next" else "0\n")

    @pytest.mark.parametrize(
        ("arguments", "status"),
        [(["next", "-v"], 0), (["previous"], 1), (["next", "--by", "x"], 2), (["next", "-x"], 2)],
    )
    def test_messages_that_cannot_be_written_change_no_exit_status(
        self, bigfib: Command, arguments: list[str], status: int
    ) -> None:
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "bigfib", *arguments],
                stdout=subprocess.PIPE,
                stderr=full,
                env=bigfib.environ,
                text=True,
                check=False,
            )
        assert (done.returncode, done.stdout) == (status, "" if status else "1\n")
        assert bigfib.prints("current") == ("0\n" if status else "1\n")


class TestBesideAService:
    def test_current_reads(self, serve: Serve, bigfib: Command) -> None:
        service = serve()
        service.value("next")
        assert bigfib.prints("current") == "1\n"

    def test_a_step_is_told_who_holds_the_log(self, serve: Serve, bigfib: Command) -> None:
        service = serve()
        refusal = bigfib.fails("next")
        assert f"in use by process {service.process.pid}" in refusal
        assert f"use --url {service.url}" in refusal
        assert service.value("current") == 0

    def test_url(self, serve: Serve, bigfib: Command) -> None:
        # With --per-client, which is of /api0 only, too.
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
        # Six numbers of as many bytes as digits, log10(phi) of them an index, in 64 MiB.
        assert "position 53519005 at most" in refusal
        assert service.value("current") == 0, "the client's own sequence has moved"

    def test_a_sequence_of_ones_own(self, serve: Serve, bigfib: Command) -> None:
        service = serve()
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
            ["terms", "0", "301", "--bfile"],
            ["terms", "-2", "5", "--json"],
            # More than the service has in a reply.
            ["terms", "0", "10002"],
        ],
    )
    def test_terms_are_the_same_from_afar(
        self, serve: Serve, bigfib: Command, arguments: list[str]
    ) -> None:
        service = serve()
        assert bigfib.prints(*arguments, "--url", service.url) == bigfib.prints(*arguments)

    @pytest.mark.parametrize("more", [[], ["--json"]])
    def test_a_far_term_is_waited_for(
        self, serve: Serve, bigfib: Command, tmp_path: Path, more: list[str]
    ) -> None:
        n = "-7000000"
        url = serve().url
        target = tmp_path / "term.txt"
        assert bigfib.prints("term", n, "--url", url, "-o", str(target), *more) == ""
        assert target.read_text() == bigfib.prints("term", n, *more)

    def test_the_progress_of_a_far_term(self, serve: Serve, bigfib: Command) -> None:
        n = 12_000_000
        digits = fmpz.fib_ui(fmpz(n)).str(base=10)
        shown = bigfib.on_terminal("term", str(n), "--url", serve().url)
        assert f"F({n})" in shown
        # What is left to do is known after each doubling, of which some are seen.
        assert set(re.findall(r"(\d+)%", shown)) & {"12", "25", "50", "100"}
        assert f"{digits[:40]}...{digits[-40:]} ({len(digits)} digits" in shown

    def test_a_far_term_that_fails(self, serve: Serve, bigfib: Command, tmp_path: Path) -> None:
        service = serve("--cache-dir", "/proc/none")
        target = tmp_path / "term.txt"
        said = bigfib.fails("term", "1000001", "--url", service.url, "-o", str(target))
        assert "F(1000001) could not be computed: its digits cannot be kept" in said
        assert not target.exists()

    @pytest.mark.parametrize(
        "answer",
        [
            b"HTTP/1.1 202 Accepted\r\nRetry-After: 1\r\n\r\n{}",
            b'HTTP/1.1 202 Accepted\r\n\r\n{"progress":0}',
            b'HTTP/1.1 202 Accepted\r\nRetry-After: x\r\n\r\n{"progress":0}',
            b'HTTP/1.1 202 Accepted\r\nRetry-After: 1\r\n\r\n{"progress":"x"}',
        ],
    )
    def test_a_computation_of_something_else(self, bigfib: Command, answer: bytes) -> None:
        with answering(answer) as url:
            assert "no bigfib answers at" in bigfib.fails("term", "1000001", "--url", url)

    @pytest.mark.parametrize(
        ("answer", "says"),
        [
            (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n1\x1b3", "is not a term"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n13", "is lost"),
        ],
    )
    def test_a_term_that_is_none(self, bigfib: Command, answer: bytes, says: str) -> None:
        with answering(
            b"HTTP/1.1 206 Partial Content\r\nConnection: close\r\n\r\n1", answer
        ) as url:
            assert says in bigfib("term", "7", "--url", url).stderr

    def test_a_term_that_is_gone_again(self, bigfib: Command) -> None:
        """As when the next connection leads to another process of the service."""
        close = b"Connection: close\r\n"
        there = b"HTTP/1.1 206 Partial Content\r\n" + close + b"\r\n5"
        gone = b"HTTP/1.1 202 Accepted\r\n" + close + b"\r\n"
        term = b"HTTP/1.1 200 OK\r\n" + close + b"\r\n55"
        with answering(there, gone, there, term) as url:
            assert bigfib.prints("term", "10", "--url", url) == "55\n"

    def test_a_term_into_a_file(self, serve: Serve, bigfib: Command, tmp_path: Path) -> None:
        target = tmp_path / "term.txt"
        url = serve().url
        assert bigfib.prints("term", "1000", "-o", str(target), "--url", url) == ""
        assert target.read_text() == f"{term(1000)}\n"
        # What is refused leaves it as it is.
        assert "summary" in bigfib.fails("term", "100000001", "-o", str(target), "--url", url)
        assert target.read_text() == f"{term(1000)}\n"
        assert sorted(entry.name for entry in tmp_path.glob("term*")) == ["term.txt"]

    @pytest.mark.parametrize(
        "url",
        ["http://127.0.0.1:1", "127.0.0.1:8080", "nonsense", "", "http://", "file:///etc/passwd"],
    )
    def test_no_service_there(self, bigfib: Command, url: str) -> None:
        assert "no bigfib answers at" in bigfib.fails("current", "--url", url)

    @pytest.mark.parametrize(
        "answer",
        [
            b'{"value":5}',
            b'{"value":null}',
            b'{"value":["x"]}',
            b'{"value":"\\ud800"}',
            b'{"value":"\\u001b[31m"}',
            b"[]",
            b"[" * 200_000,
            b"\xff",
        ],
        ids=range(8),
    )
    def test_something_else_there(self, bigfib: Command, answer: bytes) -> None:
        with answering(b"HTTP/1.1 200 OK\r\n\r\n" + answer) as url:
            assert "no bigfib answers at" in bigfib.fails("current", "--url", url)

    @pytest.mark.parametrize("command", [["next"], ["seek", "7"], ["create"]])
    def test_a_lost_answer_is_said_to_be_lost(self, bigfib: Command, command: list[str]) -> None:
        with answering(b"") as url:
            assert "whether it has changed" in bigfib.fails(*command, "--url", url)
        with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{") as url:
            assert "whether it has changed" in bigfib.fails(*command, "--url", url)

    def test_terms_in_a_row_of_something_else(self, bigfib: Command) -> None:
        with answering(b"HTTP/1.1 200 OK\r\n\r\n\x1b[31m\n") as url:
            assert "is not a row of terms" in bigfib.fails("terms", "0", "5", "--url", url)

    def test_a_problem_that_may_not_be_shown(self, bigfib: Command) -> None:
        answer = b'HTTP/1.1 404 Not\r\n\r\n{"detail":"\\u001b[31m"}'
        with answering(answer) as url:
            assert "answers 404 Not" in bigfib.fails("current", "--url", url)

    def test_another_service_there(self, serve: Serve, bigfib: Command) -> None:
        service = serve()
        refusal = bigfib.fails("current", "--url", f"{service.url}/elsewhere")
        assert "There is nothing at /elsewhere/api1/sequences/shared" in refusal


class TestTerm:
    @pytest.mark.parametrize(
        ("n", "value"), [("0", "0"), ("10", "55"), ("-1", "1"), ("-6", "-8"), ("-7", "13")]
    )
    def test_small(self, bigfib: Command, n: str, value: str) -> None:
        assert bigfib.prints("term", n) == value + "\n"

    def test_large(self, bigfib: Command) -> None:
        assert bigfib.prints("term", "100000") == f"{fmpz.fib_ui(fmpz(100_000))}\n"

    def test_json(self, bigfib: Command) -> None:
        document = json.loads(bigfib.prints("term", "-6", "--json"))
        assert document == {"n": "-6", "digits": "1", "value": "-8"}
        document = json.loads(bigfib.prints("term", "10", "--base", "2", "--json"))
        assert document == {"n": "10", "digits": "6", "value": "110111", "base": "2"}

    def test_base(self, bigfib: Command) -> None:
        assert bigfib.prints("term", "300", "--base", "16") == f"{int(fmpz.fib_ui(fmpz(300))):x}\n"

    def test_modulo(self, bigfib: Command) -> None:
        # 60 is the Pisano period of 10, and 10^1000 = 40 mod 60: F(40) = 102334155.
        n = "1" + "0" * 1000
        assert bigfib.prints("term", n, "--modulo", "10") == "5\n"
        document = json.loads(bigfib.prints("term", n, "--modulo", "10", "--json"))
        assert document == {"n": n, "modulo": "10", "residue": "5"}

    def test_ten_thousand_digits(self, bigfib: Command) -> None:
        n = "9" * 10_000
        assert "largest term computed in full is F(1000000000)" in bigfib.fails("term", n)
        # 1 less than a multiple of 20, the Pisano period of 5: F(19) = 4181.
        assert bigfib.prints("term", n, "--modulo", "5") == "1\n"
        assert "at most 10000 digits" in bigfib.fails("term", n + "9", "--modulo", "5")

    def test_terms_in_a_row(self, bigfib: Command) -> None:
        shown = bigfib.prints("terms", "-6", "10").split()
        assert list(map(int, shown)) == [-8, 5, -3, 2, -1, 1, 0, 1, 1, 2]
        assert bigfib.prints("terms", "300", "1", "--bfile") == f"300 {term(300)}\n"
        documents = bigfib.prints("terms", "-2", "2", "--json").splitlines()
        assert documents == [
            '{"n":"-2","digits":"1","value":"-1"}',
            '{"n":"-1","digits":"1","value":"1"}',
        ]
        assert bigfib.fails("terms", "0", "0").startswith("2: bigfib: COUNT is")

    def test_summary(self, bigfib: Command) -> None:
        whole = str(fmpz.fib_ui(fmpz(12_345)))
        size = (int(fmpz.fib_ui(fmpz(12_345))).bit_length()) // 8 + 1
        assert bigfib.prints("term", "12345", "--summary").splitlines() == [
            "n: 12345",
            f"digits: {len(whole)}",
            f"leading: {whole[:20]}",
            f"trailing: {whole[-20:]}",
            f"bytes: {size}",
        ]
        document = json.loads(bigfib.prints("term", "-6", "--summary", "--json"))
        assert document == {
            "n": "-6",
            "digits": "1",
            "leading": "-8",
            "trailing": "8",
            "bytes": "1",
        }

    def test_into_a_file(self, bigfib: Command, tmp_path: Path) -> None:
        target = tmp_path / "term.txt"
        for n in (100_000, 1000):
            assert bigfib.prints("term", str(n), "-o", str(target)) == ""
            assert target.read_text() == f"{fmpz.fib_ui(fmpz(n))}\n"
        assert [entry.name for entry in tmp_path.iterdir()] == ["term.txt"]
        assert bigfib.prints("term", "10", "-o", "/dev/stdout") == "55\n"

    def test_progress_on_a_terminal(self, bigfib: Command) -> None:
        n = 7_000_000
        digits = fmpz.fib_ui(fmpz(n)).str(base=10)
        shown = bigfib.on_terminal("term", f"-{n}")
        assert f"F(-{n})" in shown
        assert "0%" in shown
        assert "100%" in shown
        assert f"-{digits[:39]}...{digits[-40:]} ({len(digits)} digits" in shown
        assert bigfib.prints("term", f"-{n}") == f"-{digits}\n"

    def test_a_far_position(self, bigfib: Command) -> None:
        n = 7_000_000
        digits = [fmpz.fib_ui(fmpz(n + i)).str(base=10) for i in range(2)]
        assert bigfib.prints("seek", str(n)) == digits[0] + "\n"
        assert bigfib.prints("next") == digits[1] + "\n"
        assert bigfib.prints("current") == digits[1] + "\n"
        assert bigfib.prints("previous") == digits[0] + "\n"
        shown = bigfib.on_terminal("current")
        assert f"F({n})" in shown
        assert "100%" in shown
        assert f"{digits[0][:40]}...{digits[0][-40:]}" in shown

    def test_a_far_term_in_every_form(self, bigfib: Command) -> None:
        n = 1_000_002
        digits = fmpz.fib_ui(fmpz(n)).str(base=10)
        document = json.loads(bigfib.prints("term", f"-{n}", "--json"))
        assert document == {"n": f"-{n}", "digits": str(len(digits)), "value": f"-{digits}"}
        in_hexadecimal = f"{int(fmpz.fib_ui(fmpz(n))):x}"
        assert bigfib.prints("term", str(n), "--base", "16") == in_hexadecimal + "\n"
        document = json.loads(bigfib.prints("term", str(n), "--base", "16", "--json"))
        assert document["digits"] == str(len(in_hexadecimal))
        assert (document["value"], document["base"]) == (in_hexadecimal, "16")

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
    def test_ended(self, tmp_path: Path, number: int) -> None:
        with computing(tmp_path / "term.txt") as process:
            process.send_signal(number)
            assert process.wait(1) == 128 + number
            assert list(tmp_path.iterdir()) == []
            require_nobody_left(process.pid)

    @pytest.mark.parametrize(
        ("number", "before"),
        [
            (signal.SIGHUP, ["nohup"]),
            (signal.SIGINT, ["sh", "-c", "trap '' INT; exec \"$@\"", "sh"]),
            (signal.SIGTERM, ["sh", "-c", "trap '' TERM; exec \"$@\"", "sh"]),
        ],
    )
    def test_a_signal_that_the_parent_ignores_stays_ignored(
        self, tmp_path: Path, number: signal.Signals, before: list[str]
    ) -> None:
        """In the process and in its children."""
        n = 50_000_000
        target = tmp_path / "term"
        with computing(target, "term", str(n), before=before) as process:
            (child,) = children(process.pid)

            def is_stopped() -> bool:
                """Stop the process that computes a square, so that it does not end meanwhile."""
                for pid in children(child):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGSTOP)
                return any("T (stopped)" in status(pid) for pid in children(child))

            until(is_stopped)
            (second,) = children(child)
            os.killpg(process.pid, number)
            for pid in (process.pid, child, second):
                ignored = re.search(r"SigIgn:\s+(\w+)", status(pid))
                assert ignored
                assert int(ignored[1], 16) & 1 << number - 1
            os.kill(second, signal.SIGCONT)
            assert process.wait(60) == 0
        assert target.read_text() == fmpz.fib_ui(fmpz(n)).str(base=10) + "\n"

    def test_a_signal_ends_its_process_without_running_the_handler_of_the_command(
        self, tmp_path: Path
    ) -> None:
        with computing(tmp_path / "term") as process:
            os.kill(children(process.pid)[0], signal.SIGTERM)
            assert process.wait(20) == 1
            assert process.stderr is not None
            said = process.stderr.read().decode()
            assert said.endswith("that computed F(400000000) was killed (SIGTERM)\n"), said

    @pytest.mark.parametrize("all_at_once", [True, False])
    def test_interrupted(self, tmp_path: Path, all_at_once: bool) -> None:
        """As a terminal does it, which tells all processes; and as another program may."""
        target = tmp_path / "term.txt"
        with computing(target) as process:
            if all_at_once:
                os.killpg(process.pid, signal.SIGINT)
            else:
                process.send_signal(signal.SIGINT)
            # At once: the last product alone takes longer.
            assert process.wait(1) == 130
            assert process.stderr is not None
            assert process.stderr.read() == b""
            assert list(tmp_path.iterdir()) == []
            require_nobody_left(process.pid)

    def test_killed(self, tmp_path: Path) -> None:
        with computing(tmp_path / "term.txt") as process:
            # So that neither notices by itself that nobody reads any more.
            (child,) = children(process.pid)
            for pid in (child, *children(child)):
                os.kill(pid, signal.SIGSTOP)
            process.kill()
            process.wait()
            require_nobody_left(process.pid)

    @pytest.mark.parametrize(
        ("number", "says"),
        [
            (signal.SIGKILL, "the process that computed F(400000000) was killed (SIGKILL)"),
            (signal.SIGABRT, "there is not enough memory to compute F(400000000)"),
        ],
    )
    def test_its_process_is_killed(self, tmp_path: Path, number: int, says: str) -> None:
        with computing(tmp_path / "term.txt") as process:
            os.kill(children(process.pid)[0], number)
            assert process.wait(20) == 1
            assert process.stderr is not None
            assert process.stderr.read().decode() == f"bigfib: {says}\n"
            assert list(tmp_path.iterdir()) == []
            require_nobody_left(process.pid)

    @pytest.mark.parametrize("more", [[], ["--base", "3"]])
    def test_without_memory(self, bigfib: Command, more: list[str]) -> None:
        bigfib.before = ["prlimit", "--data=60000000"]
        said = bigfib.fails("term", "500000000", *more)
        assert said == "1: bigfib: there is not enough memory to compute F(500000000)\n"

    def test_without_a_process_for_it_the_reason_is_named(
        self, bigfib: Command, stranger: list[str]
    ) -> None:
        bigfib.before = ["prlimit", "--nproc=1", *stranger]
        for command in (("term", "20000000"), ("terms", "20000000", "2")):
            said = bigfib.fails(*command)
            assert said.startswith("1: bigfib: cannot start a process to compute ")
            assert "F(20000000)" in said
            assert "Resource temporarily unavailable; end other processes, or raise" in said

    def test_without_a_process_for_the_second_core_one_is_enough(
        self, bigfib: Command, stranger: list[str]
    ) -> None:
        n = 30_000_000
        bigfib.before = ["prlimit", "--nproc=2", *stranger]
        assert bigfib.prints("term", str(n)) == fmpz.fib_ui(fmpz(n)).str(base=10) + "\n"

    @pytest.mark.parametrize("row", [("500000000", "2"), ("-500000000", "2", "--json")])
    def test_a_row_without_memory_fails_with_one_line(
        self, bigfib: Command, row: tuple[str, ...]
    ) -> None:
        bigfib.before = ["prlimit", "--data=60000000"]
        said = bigfib.fails("terms", *row)
        assert said == (
            f"1: bigfib: there is not enough memory to compute the terms from F({row[0]}) on\n"
        )

    def test_to_seek_a_large_term_without_memory_changes_nothing(self, bigfib: Command) -> None:
        n = 30_000_000
        # For a term by itself it is enough.
        bigfib.before = ["prlimit", "--data=65000000"]
        said = bigfib.fails("seek", str(n))
        assert said == "1: bigfib: there is not enough memory for terms as large as these\n"
        assert reader.read(bigfib.file).position(b"shared") == 0

    def test_a_row_that_is_interrupted_ends_at_once_and_leaves_nothing(
        self, tmp_path: Path
    ) -> None:
        with computing(tmp_path / "row", "terms", "400000000", "2") as process:
            process.send_signal(signal.SIGINT)
            assert process.wait(1) == 130
            assert process.stderr is not None
            assert process.stderr.read() == b""
            assert list(tmp_path.iterdir()) == []
            require_nobody_left(process.pid)

    @pytest.mark.parametrize("first", [7_000_000, -7_000_001, 999_999])
    def test_a_row_of_large_terms_is_exact(self, bigfib: Command, first: int) -> None:
        digits = [
            "-" * (n < 0 and n % 2 == 0) + fmpz.fib_ui(fmpz(abs(n))).str(base=10)
            for n in range(first, first + 3)
        ]
        row = ("terms", str(first), "3")
        assert bigfib.prints(*row).split() == digits
        shown = bigfib.prints(*row, "--bfile").splitlines()
        assert shown == [f"{first + number} {value}" for number, value in enumerate(digits)]
        documents = [json.loads(line) for line in bigfib.prints(*row, "--json").splitlines()]
        assert [document["value"] for document in documents] == digits
        assert [document["n"] for document in documents] == [
            str(first + number) for number in range(3)
        ]
        assert [document["digits"] for document in documents] == [
            str(len(value.lstrip("-"))) for value in digits
        ]

    def test_a_row_of_large_terms_shows_progress_on_a_terminal(
        self, bigfib: Command, tmp_path: Path
    ) -> None:
        shown = bigfib.on_terminal("terms", "7000000", "1", "-o", str(tmp_path / "row"))
        assert "the terms from F(7000000) on" in shown
        assert "100%" in shown

    def test_into_a_link(self, bigfib: Command, tmp_path: Path) -> None:
        target, link = tmp_path / "target", tmp_path / "link"
        target.touch()
        target.chmod(0o640)
        link.symlink_to(target)
        bigfib.prints("term", "10", "-o", str(link))
        assert link.is_symlink()
        assert target.read_text() == "55\n"
        assert target.stat().st_mode & 0o777 == 0o640

    @pytest.mark.parametrize("stale", ["ln -s ../elsewhere", "mkfifo", "touch"])
    def test_into_a_file_whose_unfinished_name_is_taken(
        self, bigfib: Command, tmp_path: Path, stale: str
    ) -> None:
        target = tmp_path / "directory" / "term"
        target.parent.mkdir()
        bigfib.before = ["sh", "-c", f'{stale} {target}.$$.part; exec "$@"', "sh"]
        assert bigfib.prints("term", "10", "-o", str(target)) == ""
        assert target.read_text() == "55\n"
        assert not target.is_symlink()
        assert [entry.name for entry in tmp_path.iterdir()] == ["directory"]

    def test_into_standard_output_by_its_common_name(
        self, bigfib: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert bigfib.prints("term", "10", "-o", "-") == "55\n"
        assert bigfib.prints("terms", "10", "2", "-o", "-") == "55\n89\n"
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("target", ["/nowhere/x", "/proc/x", "."])
    def test_into_no_file(self, bigfib: Command, target: str) -> None:
        assert "cannot write" in bigfib.fails("term", "10", "-o", target)

    def test_into_a_full_file_system(self, bigfib: Command) -> None:
        assert "No space left on device" in bigfib.fails("term", "100000", "-o", "/dev/full")


class TestMisuse:
    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["term", "abc"], "'abc' is not an index"),
            (["term", "1e9"], "'1e9' is not an index"),
            (["term", "007"], "not an index"),
            (["term", ""], "not an index"),
            (["term"], "required: N"),
            (["term", "5", "--modulo", "0"], "at least 1"),
            (["term", "5", "--modulo", "x"], "'x' is not a modulus"),
            (["term", "5", "--base", "0100"], "from 2 to 62"),
            (["-p", "00655350"], "from 0 to 65535"),
            (["term", "5", "--base", "1"], "from 2 to 62"),
            (["term", "5", "--base", "99999999999999999999"], "from 2 to 62"),
            (["term", "5", "--base", "7", "--summary"], "not allowed with"),
            (["bogus"], "'bogus'"),
            (["serve", "--bogus"], "--bogus"),
            (["-p", "70000"], "from 0 to 65535"),
            (["-p", "-1"], "-p"),
            (["-p", "8o80"], "from 0 to 65535"),
            (["--durability", "maybe"], "--durability: invalid choice: 'maybe'"),
            (["log"], "verify, dump, compact or repair"),
            (["current", "-f", "~nobody-of-that-name/x"], "no such home directory"),
        ],
    )
    def test_exits_2_with_one_line(self, bigfib: Command, arguments: list[str], says: str) -> None:
        refusal = bigfib.fails(*arguments)
        assert refusal.startswith("2: ")
        assert says in refusal
        assert not bigfib.file.exists()

    def test_variables_are_refused_by_name(self, bigfib: Command) -> None:
        bigfib.environ["BIGFIB_PORT"] = "http"
        assert "BIGFIB_PORT 'http': a port is" in bigfib.fails("serve")

    @pytest.mark.parametrize("command", ["current", "next", "serve"])
    def test_a_file_that_is_no_log(self, bigfib: Command, command: str) -> None:
        bigfib.file.write_text("something else")
        port = ["-p", "0"] if command == "serve" else []
        refusal = bigfib.fails(command, *port)
        assert "does not begin with the magic bytes" in refusal
        assert refusal.rstrip().endswith("; name another file with --file")
        assert bigfib.file.read_text() == "something else"

    def test_no_permission(self, bigfib: Command, require: Callable[[str], str]) -> None:
        bigfib("next")
        bigfib.file.chmod(0)
        if os.geteuid() == 0:
            # Root without its power to ignore permissions.
            powers = "-dac_override,-dac_read_search"
            bigfib.before = [require("setpriv"), "--bounding-set", powers, "--inh-caps", powers]
        for command in ("current", "next", "serve"):
            assert "Permission denied" in bigfib.fails(command)

    @pytest.mark.parametrize("command", ["current", "next"])
    def test_no_file(self, bigfib: Command, tmp_path: Path, command: str) -> None:
        """A pipe would be waited for, a device be replaced."""
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        for other in (pipe, Path("/dev/null")):
            assert "it is not a file" in bigfib.fails(command, "-f", str(other))
        assert pipe.is_fifo()
        assert Path("/dev/null").is_char_device()

    @pytest.mark.parametrize("command", ["verify", "dump", "compact", "repair"])
    def test_a_name_that_is_too_long(self, bigfib: Command, command: str) -> None:
        refusal = bigfib.fails("log", command, "-f", "a" * 300)
        assert "File name too long; name another" in refusal

    def test_a_name_that_is_no_text(self, bigfib: Command, tmp_path: Path) -> None:
        odd = os.fsencode(tmp_path) + b"/\xff.log"
        bigfib.environ["PYTHONIOENCODING"] = "utf-8:strict"
        assert bigfib.prints("next", "-f", os.fsdecode(odd)) == "1\n"
        assert "dcff.log" in bigfib.prints("log", "verify", "-f", os.fsdecode(odd))

    def test_no_permission_to_write(self, bigfib: Command) -> None:
        refusal = bigfib.fails("next", "-f", "/proc/bigfib/state.log")
        assert "cannot use /proc/bigfib/state.log as state log" in refusal


class TestLog:
    def test_verify(self, bigfib: Command) -> None:
        for _ in range(3):
            bigfib("next")
        size = bigfib.file.stat().st_size
        whole = f"{bigfib.file}: records 3, sequences 1, bytes {size}: whole\n"
        assert bigfib.prints("log", "verify") == whole
        with bigfib.file.open("ab") as file:
            file.write(b"\x10")
        assert f"bytes {size}: torn: at offset {size} there is" in bigfib.prints("log", "verify")
        assert bigfib.file.stat().st_size == size + 1

    def test_dump(self, bigfib: Command) -> None:
        other = b"\xab" * 16
        with Log(bigfib.file, clock=lambda: 20_000 * 86_400) as opened:
            ends = [opened.end]
            for sequence_id, position in ((b"shared", 1), (other, 10**30), (other, None)):
                opened.append(sequence_id, position)
                opened.commit(opened.end)
                ends.append(opened.end)
        assert bigfib.prints("log", "dump").splitlines() == [
            f"{ends[0]} shared 1 20000 {ends[0]}",
            f"{ends[1]} {'ab' * 16} {10**30} 20000 {ends[1]}",
            f"{ends[2]} {'ab' * 16} removed 20000 {ends[2]}",
        ]

    def test_dump_as_json(self, bigfib: Command) -> None:
        other = b"\xab" * 16
        with Log(bigfib.file, clock=lambda: 20_000 * 86_400) as opened:
            start = opened.end
            opened.append(other, 10**30)
            opened.append(other, None)
        lines = [json.loads(line) for line in bigfib.prints("log", "dump", "--json").splitlines()]
        assert [(line["id"], line["position"], line["day"]) for line in lines] == [
            ("ab" * 16, str(10**30), 20_000),
            ("ab" * 16, None, 20_000),
        ]
        assert lines[0]["offset"] == lines[0]["durable"] == lines[1]["durable"] == start
        assert start < lines[1]["offset"] < bigfib.file.stat().st_size

    def test_dump_of_many_takes_no_more_memory(self, bigfib: Command) -> None:
        def peak(count: int) -> int:
            with Log(bigfib.file, Durability.OS) as opened:
                for n in range(count):
                    opened.append(n.to_bytes(16, "big"), n)
            arguments = [sys.executable, "-m", "bigfib", "log", "dump", "--json"]
            with subprocess.Popen(
                arguments, stdout=subprocess.PIPE, env=bigfib.environ, text=True
            ) as dump:
                assert dump.stdout is not None
                # What is left does not fit into the pipe, so that it cannot have ended.
                for _ in range(count - 2_000):
                    dump.stdout.readline()
                status = Path(f"/proc/{dump.pid}/status").read_text()
                dump.stdout.read()
            assert dump.returncode == 0
            bigfib.file.unlink()
            found = re.search(r"VmHWM:\s+(\d+) kB", status)
            assert found
            return int(found[1])

        # All of them in a dictionary take 17 MB.
        assert peak(100_000) < peak(3_000) + 8_000

    def test_compact(self, bigfib: Command) -> None:
        for _ in range(5):
            bigfib("next")
        before = bigfib.file.stat().st_size
        shown = bigfib.prints("log", "compact")
        after = bigfib.file.stat().st_size
        assert after < before
        assert shown == f"{bigfib.file}: bytes {before} before, {after} now\n"
        assert bigfib.prints("current") == "5\n"

    @pytest.mark.parametrize(
        "command", [["log", "compact"], ["next"], ["previous"], ["seek", "5"], ["log", "repair"]]
    )
    def test_no_command_expires_a_sequence(
        self, bigfib: Command, tmp_path: Path, command: list[str]
    ) -> None:
        """Whatever settings it runs under, and whatever the clock says."""
        with Log(bigfib.file, Durability.OS, clock=lambda: time.time() - 100 * 86_400) as log:
            for position in range(1, 10):
                for name in (SHARED, bytes(16)):
                    log.append(name, position)
        if command == ["log", "repair"]:
            harmed = bytearray(bigfib.file.read_bytes())
            harmed[5] ^= 1
            bigfib.file.write_bytes(harmed)
        (tmp_path / "sitecustomize.py").write_text(
            "import time\nnow = time.time\ntime.time = lambda: now() + 73 * 365 * 86_400\n"
        )
        bigfib.environ |= {
            "PYTHONPATH": str(tmp_path),
            "BIGFIB_SEQUENCE_TTL": "1",
            "BIGFIB_REWRITE_BYTES": "1",
        }
        assert bigfib(*command).returncode == 0
        left = bigfib.file
        if command == ["log", "repair"]:
            left = left.with_name("state.log.repaired")
        contents = reader.read(left)
        assert contents.position(bytes(16)) == 9
        assert contents.records < 5, "the log was not rewritten"

    def test_compact_of_a_mount_point_fails(
        self, bigfib: Command, require: Callable[[str], str]
    ) -> None:
        with Log(bigfib.file, Durability.OS) as log:
            for position in range(1, 10):
                log.append(SHARED, position)
        bigfib.environ["BIGFIB_REWRITE_BYTES"] = "1"
        before = bigfib.file.read_bytes()
        mounted = subprocess.run(
            [require("mount"), "--bind", bigfib.file, bigfib.file], capture_output=True, check=False
        )
        if mounted.returncode != 0:
            pytest.skip("mounting is not permitted")
        try:
            refusal = bigfib.fails("log", "compact")
        finally:
            subprocess.run(["umount", "-l", bigfib.file], check=True)
        assert refusal.startswith(f"1: bigfib: state log {bigfib.file} cannot be compacted now: ")
        assert "Device or resource busy; it is unchanged" in refusal
        assert bigfib.file.read_bytes() == before
        assert not bigfib.file.with_name("state.log.new").exists()

    def test_compact_in_a_directory_that_cannot_be_written_fails(
        self, bigfib: Command, require: Callable[[str], str]
    ) -> None:
        bigfib.prints("next")
        # Root may write anywhere but here.
        protect = require("chattr")
        if subprocess.run([protect, "+i", bigfib.file.parent], check=False).returncode != 0:
            pytest.skip("this file system protects no directories")
        try:
            refusal = bigfib.fails("log", "compact")
        finally:
            subprocess.run([protect, "-i", bigfib.file.parent], check=True)
        assert "cannot be compacted now: Operation not permitted; it is unchanged" in refusal
        assert bigfib.prints("current") == "1\n"

    def test_compact_beside_a_service(self, serve: Serve, bigfib: Command) -> None:
        service = serve()
        assert f"in use by process {service.process.pid}" in bigfib.fails("log", "compact")

    def test_damage(self, bigfib: Command) -> None:
        with Log(bigfib.file) as opened:
            ends = []
            for position in range(1, 11):
                ends.append(opened.append(b"shared", position))
                opened.commit(ends[-1])
        harmed = bytearray(bigfib.file.read_bytes())
        harmed[ends[3] + 3] ^= 1
        bigfib.file.write_bytes(harmed)
        damage = f"state log {bigfib.file} is damaged: at offset {ends[3]} there is a"
        for command in (["current"], ["next"], ["log", "verify"], ["log", "compact"], ["-p", "0"]):
            assert damage in bigfib.fails(*command)
        listed = bigfib("log", "dump")
        assert listed.returncode == 1
        assert len(listed.stdout.splitlines()) == 4
        assert f"at offset {ends[3]}" in listed.stderr
        assert bigfib.prints("log", "repair").splitlines() == [
            f"{bigfib.file}.repaired: sequences 1, from records 9",
            f"lost: bytes {ends[3]} to {ends[4] - 1}",
            "A sequence whose last record was there now stands at an earlier position.",
            f"Put it in place with: mv {bigfib.file}.repaired {bigfib.file}",
        ]
        assert bigfib.file.read_bytes() == harmed
        bigfib.file.with_name("state.log.repaired").rename(bigfib.file)
        assert bigfib.prints("current") == "55\n"
        assert bigfib.prints("log", "repair") == f"{bigfib.file}: needs no repair\n"

    def test_repair_quotes_the_command_to_paste(self, tmp_path: Path) -> None:
        file = tmp_path / "the 'state' log"
        bigfib = Command(file)
        with Log(file) as opened:
            for position in (1, 2):
                opened.commit(opened.append(b"shared", position))
        harmed = bytearray(file.read_bytes())
        harmed[opened.end // 2] ^= 1
        file.write_bytes(harmed)
        advice = bigfib.prints("log", "repair").splitlines()[-1].partition("with: ")[2]
        assert shlex.split(advice) == ["mv", f"{file}.repaired", str(file)]

    def test_dump_of_half_a_header(self, bigfib: Command) -> None:
        bigfib.file.write_bytes(b"\x89big")
        assert "a header that is cut off" in bigfib.fails("log", "dump")

    def test_nothing_there(self, bigfib: Command) -> None:
        for command in ("verify", "dump", "compact", "repair"):
            assert "there is no state log" in bigfib.fails("log", command)


class TestExitStatus:
    """Each that `--help` names, but for those that other tests have seen on their way."""

    def test_is_documented(self, bigfib: Command) -> None:
        shown = bigfib.prints("--help").partition("exit status:\n")[2].partition("\n\n")[0]
        assert re.findall(r"^  (\d+)", shown, re.MULTILINE) == ["0", "1", "2", "130", "128"]

    def test_0_1_and_2(self, bigfib: Command) -> None:
        statuses = [bigfib(*arguments).returncode for arguments in (["c"], ["p"], ["bogus"])]
        assert statuses == [0, 1, 2]

    @pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_of_a_command_that_is_ended(
        self, tmp_path: Path, number: signal.Signals, status: int
    ) -> None:
        with computing(tmp_path / "term") as process:
            process.send_signal(number)
            assert process.wait(timeout=20) == status
            require_nobody_left(process.pid)

    def test_of_a_command_that_is_interrupted_while_it_is_imported(
        self, bigfib: Command, tmp_path: Path
    ) -> None:
        # In place of a module that bigfib imports.
        (tmp_path / "shtab.py").write_text(
            "import time; print('imported', flush=True); time.sleep(30)"
        )
        with subprocess.Popen(
            [sys.executable, "-m", "bigfib", "current"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**bigfib.environ, "PYTHONPATH": str(tmp_path)},
            text=True,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "imported\n"
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=20)[1] == ""
            # For a shell that is 130.
            assert process.returncode == -signal.SIGINT

    def test_of_a_service(self, serve: Serve) -> None:
        assert serve().stop(signal.SIGINT) == 0


class TestColours:
    FAR = ("term", "20000000", "-o", "/dev/null")
    COLOUR = re.compile(r"\x1b\[[0-9;]*m")

    def test_on_a_terminal(self, bigfib: Command) -> None:
        bigfib.environ |= {"TERM": "xterm-256color"}
        bigfib.environ.pop("NO_COLOR", None)
        assert self.COLOUR.search(bigfib.on_terminal(*self.FAR))

    @pytest.mark.parametrize("variable", ["NO_COLOR=1", "TERM=dumb"])
    def test_not_where_they_are_not_wanted(self, bigfib: Command, variable: str) -> None:
        name, _, value = variable.partition("=")
        bigfib.environ |= {"TERM": "xterm-256color", name: value}
        assert not self.COLOUR.search(bigfib.on_terminal(*self.FAR))
        for command in (["settings"], ["--help"], ["bogus"]):
            assert "\x1b" not in bigfib.on_terminal(*command)

    def test_not_in_a_pipe(self, bigfib: Command) -> None:
        bigfib.environ |= {"TERM": "xterm-256color", "FORCE_COLOR": "1", "TTY_COMPATIBLE": "1"}
        done = bigfib(*self.FAR)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert "\x1b" not in bigfib.prints("settings")


class TestHelp:
    def test_version(self, bigfib: Command) -> None:
        assert re.fullmatch(r"bigfib \d+\.\d+\.\d+\n", bigfib.prints("--version"))

    def test_names_every_command(self, bigfib: Command) -> None:
        shown = bigfib.prints("--help")
        for command in ("serve", "current", "next", "previous", "term", "log"):
            assert command in shown

    def test_with_a_percent_sign_in_a_default(self, bigfib: Command) -> None:
        for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
            bigfib.environ[name] = "/50%d"
        assert bigfib.prints("serve", "--help").count("/50%d/bigfib") == 3

    def test_names_variables_and_defaults(self, bigfib: Command) -> None:
        shown = " ".join(bigfib.prints("serve", "--help").split())
        assert "[BIGFIB_PORT, default: 8080]" in shown
        assert "[BIGFIB_DURABILITY, default: fsync]" in shown


class TestNoHome:
    """Where neither HOME nor the system knows a home directory."""

    @pytest.fixture(params=[{}, {"HOME": ""}, {"HOME": "relative"}])
    def bigfib(self, path: Path, stranger: list[str], request: pytest.FixtureRequest) -> "Command":
        command = Command(path)
        command.before = stranger
        command.environ = request.param
        return command

    def test_what_needs_no_path_works(self, bigfib: Command) -> None:
        assert bigfib.prints("term", "5") == "5\n"
        assert "default: none without a home directory]" in " ".join(
            bigfib.prints("serve", "--help").split()
        )
        document = json.loads(bigfib.prints("settings", "--json"))
        for name in ("file", "cache_dir"):
            source = "default: none without a home directory"
            assert document[name] == {"value": "", "source": source}

    def test_what_needs_a_path_names_its_setting(self, bigfib: Command) -> None:
        says = "2: bigfib: there is no home directory, where {0} has its default; give {0} or {1}\n"
        for command in (["current"], ["next"], ["log", "verify"]):
            assert bigfib.fails(*command) == says.format("--file", "BIGFIB_FILE")
        said = bigfib.fails("-p", "0", "-f", "/nowhere/log")
        assert said == says.format("--cache-dir", "BIGFIB_CACHE_DIR")

    def test_what_is_given_its_path_works(self, bigfib: Command) -> None:
        with tempfile.TemporaryDirectory() as directory:
            Path(directory).chmod(0o777)
            file = str(Path(directory) / "log")
            assert bigfib.prints("next", "-f", file) == "1\n"
            assert bigfib.prints("current", "-f", file) == "1\n"


class TestUnknownVariables:
    @pytest.mark.parametrize(
        ("name", "advice"),
        [("BIGFIB_PROT", "did you mean BIGFIB_PORT?"), ("BIGFIB_XYZ", "see `bigfib settings`")],
    )
    def test_are_warned_of_once_and_ignored(self, bigfib: Command, name: str, advice: str) -> None:
        bigfib.environ[name] = "1"
        warning = f"bigfib: the variable {name!r} is no setting and is ignored; {advice}\n"
        for command in (["next"], ["current"], ["settings"], ["log", "compact"]):
            done = bigfib(*command)
            assert (done.returncode, done.stderr) == (0, warning)
        # Other commands have no settings.
        assert bigfib.prints("term", "10") == "55\n"

    def test_of_a_service_are_in_the_format_of_its_log(self, bigfib: Command) -> None:
        bigfib.environ["BIGFIB_PROT"] = "1"
        done = bigfib("-p", "0", "--log-format", "json", "--workers", "2")
        messages = [json.loads(line)["message"] for line in done.stderr.splitlines()]
        assert len(messages) == 2
        assert "'BIGFIB_PROT' is no setting" in messages[0]

    def test_do_not_include_those_that_are_empty_or_known(
        self, bigfib: Command, tmp_path: Path
    ) -> None:
        config = tmp_path / "bigfib.toml"
        config.touch()
        bigfib.environ |= {"BIGFIB_PROT": "", "BIGFIB_CONFIG": str(config), "BIGFIB_PORT": "1"}
        assert bigfib.prints("current") == "0\n"


def test_current_needs_no_web_framework(bigfib: Command) -> None:
    program = (
        "import sys; from bigfib.cli import main; main(['current']);"
        "print([name for name in ('falcon', 'bjoern', 'http') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=bigfib.environ,
        check=True,
    )
    assert done.stdout == "0\n[]\n"


def test_serves_without_a_command(bigfib: Command) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "bigfib", "-p", "0"],
        stderr=subprocess.PIPE,
        env=bigfib.environ,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert "listens on http://127.0.0.1:" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert reader.read(bigfib.file).latest == {}
