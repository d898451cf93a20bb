"""The commands of sequences, without a service."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from flint import fmpz

from bigfib.sequences import SHARED
from bigfib.state import reader
from bigfib.state.log import Durability, Log
from tests.cli.command import (
    Command,
    term,
)
from tests.service import Serve, until


class TestStepping:
    def test_session_of_the_contract_prints_its_values(self, bigfib: Command) -> None:
        commands = ["current", "next", "next", "next", "previous", "c", "n", "p", "c"]
        shown = [bigfib.prints(command) for command in commands]
        assert shown == ["0\n", "1\n", "1\n", "2\n", "1\n", "1\n", "2\n", "1\n", "1\n"]

    def test_previous_at_the_start_changes_nothing(self, bigfib: Command) -> None:
        assert bigfib.fails("previous").startswith(
            "1: bigfib: nothing has changed: there is no term before F(0)"
        )
        assert bigfib.prints("current") == "0\n"

    def test_by_makes_as_many_steps(self, bigfib: Command) -> None:
        assert bigfib.prints("next", "--by", "300") == f"{term(300)}\n"
        assert bigfib.prints("p", "--by", "299") == "1\n"
        assert "there is no term before F(0)" in bigfib.fails("p", "--by", "2")
        for by in ("0", "-1", "x"):
            assert bigfib.fails("n", f"--by={by}").startswith("2: ")
        assert json.loads(bigfib.prints("c", "--json"))["position"] == "1"

    def test_seek_moves_to_any_allowed_position(self, bigfib: Command) -> None:
        assert bigfib.prints("seek", "100") == f"{term(100)}\n"
        assert bigfib.prints("next") == f"{term(101)}\n"
        assert "position 999999999 at most" in bigfib.fails("seek", "1000000000")
        for position in ("-1", "x", "0x7"):
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
        """A record that is written, but not synced by a service, must not be shown."""
        trace = tmp_path / "trace"
        # Without syncs, a commit leaves its record as a service does just before a sync.
        with Log(bigfib.file, Durability.OS) as log:
            log.note(SHARED, 7)
            log.commit()
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
        """The syncs of the service are slow, and so is the disk for `current`."""
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

    def test_json_has_id_position_digits_and_value(self, bigfib: Command) -> None:
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

    def test_long_term_is_shortened_on_a_terminal_only(self, bigfib: Command) -> None:
        with Log(bigfib.file) as opened:
            opened.note(b"shared", 50_000)
        whole = str(fmpz.fib_ui(fmpz(50_000)))
        assert bigfib.prints("current") == whole + "\n"
        shown = bigfib.on_terminal("current")
        assert shown == f"{whole[:40]}...{whole[-40:]} (10450 digits; --full shows them)\r\n"
        assert bigfib.on_terminal("current", "--full") == whole + "\r\n"

    def test_reader_that_closes_the_pipe_causes_no_message(self, bigfib: Command) -> None:
        with Log(bigfib.file) as opened:
            opened.note(b"shared", 5_000_000)
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
    def test_closed_streams_are_never_taken_by_the_log(self, bigfib: Command, closed: str) -> None:
        """The state log must not get the descriptor of a standard stream."""
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

    def test_help_on_a_closed_stdout_fails(self) -> None:
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
