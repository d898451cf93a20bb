"""Large terms on the command line: progress, signals, shortage of memory and processes."""

import json
import os
import re
import signal
from pathlib import Path

import pytest
from flint import fmpz

from bigfib.state import reader
from tests.cli.command import (
    Command,
    children,
    computing,
    require_nobody_left,
    status,
)


class TestLargeTerm:
    def test_large_term_on_a_terminal_shows_progress(self, bigfib: Command) -> None:
        n = 7_000_000
        digits = fmpz.fib_ui(fmpz(n)).str(base=10)
        shown = bigfib.on_terminal("term", f"-{n}")
        assert f"F(-{n})" in shown
        assert "0%" in shown
        assert "100%" in shown
        assert f"-{digits[:39]}...{digits[-40:]} ({len(digits)} digits" in shown
        assert bigfib.prints("term", f"-{n}") == f"-{digits}\n"

    def test_sequence_at_a_large_position_is_stepped(self, bigfib: Command) -> None:
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

    def test_large_term_is_exact_in_every_form(self, bigfib: Command) -> None:
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
    def test_term_ended_by_a_signal_leaves_no_file_and_no_process(
        self, tmp_path: Path, number: int
    ) -> None:
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
        """The failure may be in the process or in its children."""
        n = 100_000_000
        target = tmp_path / "term"
        with computing(target, "term", str(n), before=before) as process:
            (child,) = children(process.pid)
            # So that it does not end meanwhile.
            os.kill(child, signal.SIGSTOP)
            for pid in (process.pid, child):
                ignored = re.search(r"SigIgn:\s+(\w+)", status(pid))
                assert ignored
                assert int(ignored[1], 16) & 1 << number - 1
            os.killpg(process.pid, number)
            os.kill(child, signal.SIGCONT)
            assert process.wait(60) == 0
        # OEIS A068070 has the number of digits; the last six digits have a period of 1,500,000.
        text = target.read_text()
        assert len(text) == 20_898_764 + len("\n")
        assert int(text[-7:]) == int(fmpz.fib_ui(fmpz(n % 1_500_000)) % 10**6)

    def test_a_signal_ends_its_process_without_running_the_handler_of_the_command(
        self, tmp_path: Path
    ) -> None:
        with computing(tmp_path / "term") as process:
            os.kill(children(process.pid)[0], signal.SIGTERM)
            assert process.wait(20) == 1
            assert process.stderr is not None
            said = process.stderr.read().decode()
            assert said.endswith(
                "cannot compute F(900000000): its process was killed (SIGTERM)\n"
            ), said

    @pytest.mark.parametrize("all_at_once", [True, False])
    def test_term_interrupted_by_ctrl_c_ends_at_once(
        self, tmp_path: Path, all_at_once: bool
    ) -> None:
        """A terminal signals all processes; another program may signal only one."""
        target = tmp_path / "term.txt"
        with computing(target) as process:
            if all_at_once:
                os.killpg(process.pid, signal.SIGINT)
            else:
                process.send_signal(signal.SIGINT)
            # At once: the last product alone would take longer.
            assert process.wait(1) == 130
            assert process.stderr is not None
            assert process.stderr.read() == b""
            assert list(tmp_path.iterdir()) == []
            require_nobody_left(process.pid)

    def test_command_that_is_killed_leaves_no_process(self, tmp_path: Path) -> None:
        with computing(tmp_path / "term.txt") as process:
            # Stopped, so that neither notices by itself that its pipe is closed.
            os.kill(children(process.pid)[0], signal.SIGSTOP)
            process.kill()
            process.wait()
            require_nobody_left(process.pid)

    @pytest.mark.parametrize(
        ("number", "says"),
        [
            (signal.SIGKILL, "its process was killed (SIGKILL)"),
            (signal.SIGABRT, "there is not enough memory"),
        ],
    )
    def test_term_whose_process_is_killed_fails_with_the_reason(
        self, tmp_path: Path, number: int, says: str
    ) -> None:
        with computing(tmp_path / "term.txt") as process:
            os.kill(children(process.pid)[0], number)
            assert process.wait(20) == 1
            assert process.stderr is not None
            assert (
                process.stderr.read().decode() == f"bigfib: cannot compute F(900000000): {says}\n"
            )
            assert list(tmp_path.iterdir()) == []
            require_nobody_left(process.pid)

    @pytest.mark.parametrize("more", [[], ["--base", "3"]])
    def test_term_without_memory_fails_with_one_line(
        self, bigfib: Command, more: list[str]
    ) -> None:
        bigfib.before = ["prlimit", "--data=60000000"]
        said = bigfib.fails("term", "500000000", *more)
        assert said == "1: bigfib: cannot compute F(500000000): there is not enough memory\n"

    def test_without_a_process_for_it_the_reason_is_named(
        self, bigfib: Command, stranger: list[str]
    ) -> None:
        bigfib.before = ["prlimit", "--nproc=1", *stranger]
        for command in (("term", "20000000"), ("terms", "20000000", "2")):
            said = bigfib.fails(*command)
            assert said.startswith("1: bigfib: cannot start a process to compute ")
            assert "F(20000000)" in said
            assert "Resource temporarily unavailable; end other processes, or raise" in said

    @pytest.mark.parametrize("row", [("500000000", "2"), ("-500000000", "2", "--json")])
    def test_a_row_without_memory_fails_with_one_line(
        self, bigfib: Command, row: tuple[str, ...]
    ) -> None:
        bigfib.before = ["prlimit", "--data=60000000"]
        said = bigfib.fails("terms", *row)
        assert said == "1: bigfib: cannot compute F(500000000): there is not enough memory\n"

    def test_to_seek_a_large_term_without_memory_changes_nothing(self, bigfib: Command) -> None:
        n = 30_000_000
        # A single term fits into this memory.
        bigfib.before = ["prlimit", "--data=65000000"]
        said = bigfib.fails("seek", str(n))
        assert said == "1: bigfib: there is not enough memory for terms as large as these\n"
        assert reader.read(bigfib.file).position(b"shared") == 0

    def test_a_row_that_is_interrupted_ends_at_once_and_leaves_nothing(
        self, tmp_path: Path
    ) -> None:
        with computing(tmp_path / "row", "terms", "900000000", "2") as process:
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
        assert "F(7000000)" in shown
        assert "100%" in shown
