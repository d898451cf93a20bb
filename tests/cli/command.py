"""Run bigfib as users do: in a real process, and on a real terminal where that matters."""

import os
import pty
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from flint import fmpz

from tests.service import seconds_of_work, until

Done = subprocess.CompletedProcess[str]


class Command:
    """A runner of ``python -m bigfib`` with its state log at ``file``."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.before: list[str] = []
        self.environ = {**os.environ, "BIGFIB_FILE": str(file)}

    def __call__(self, *arguments: str, stdin: str | None = None) -> Done:
        return subprocess.run(
            [*self.before, sys.executable, "-m", "bigfib", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            env=self.environ,
            timeout=30,
            check=False,
        )

    def prints(self, *arguments: str) -> str:
        """Run a command that must succeed, without messages; return what it prints."""
        done = self(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def fails(self, *arguments: str) -> str:
        """Run a command that must fail; return its one line on stderr."""
        done = self(*arguments)
        assert done.returncode in (1, 2)
        assert done.stdout == ""
        assert re.fullmatch(r"bigfib: [^\n]+\n", done.stderr), done.stderr
        assert "Traceback" not in done.stderr
        return f"{done.returncode}: {done.stderr}"

    def on_terminal(
        self, *arguments: str, program: Sequence[str] = (sys.executable, "-m", "bigfib")
    ) -> str:
        """Run on a terminal, and return what it shows."""
        terminal, end = pty.openpty()
        with subprocess.Popen(
            [*program, *arguments],
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
                except OSError:  # EIO: no process has the terminal open any more
                    break
                shown += piece
        os.close(terminal)
        return shown.decode()


def term(n: int) -> str:
    return str(fmpz.fib_ui(fmpz(n)))


@contextmanager
def answering(*answers: bytes) -> Iterator[str]:
    """Serve, answering successive requests by these replies; yield the address."""
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
    """Compute a large term into a file, in a process group, until a process is busy with it.

    Args:
        target: The file.
        command: What to run instead of ``term 900000000``.
        before: A program that runs it.
    """

    def is_busy() -> bool:
        return any(seconds_of_work(child) > 0.05 for child in children(process.pid))

    with subprocess.Popen(
        [
            *(*before, sys.executable, "-m", "bigfib"),
            *(command or ("term", "900000000")),
            *("-o", target),
        ],
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            until(is_busy)
            yield process
        finally:
            process.kill()


def require_nobody_left(group: int) -> None:
    """Wait until no process of the group is left."""

    def is_empty() -> bool:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        return False

    until(is_empty)
