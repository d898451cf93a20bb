"""Start services by fork, from a process that has imported what they need.

Most of the CPU time of a short life are imports. Everything else is as in a service that a shell
starts: `bigfib.__main__` runs in a new process, with one thread and with descriptors of its own.

``python -m tests.power.forks`` is that process. Each line of JSON on its standard input asks for a
service, or for the exit status of one; each is answered by a line on standard output.
"""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.service import Service, until

BOOT_ID = "/proc/sys/kernel/random/boot_id"


class Forks:
    """The process that services are forked from."""

    def __init__(self, boot_id: Path) -> None:
        """Start it; its services read the boot of the machine in the file ``boot_id``."""
        mounting = f'mount --bind "$0" {BOOT_ID} && exec "$@"'
        self._process = subprocess.Popen(
            [
                *("unshare", "--mount", "sh", "-c", mounting, str(boot_id)),
                *(sys.executable, "-m", "tests.power.forks"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )

    def ask(self, **order: Any) -> Any:
        """Return the answer to an order."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def remove(self) -> None:
        """End the process, whose services have ended."""
        self._process.communicate(timeout=20)


class Forked(Service):
    """A service that was forked; without a `process`, which is no child of this one."""

    def __init__(self, forks: Forks, arguments: list[str], file: Path) -> None:
        self._forks = forks
        self._status: int | None = None
        reading, writing = os.pipe()
        self._said = os.fdopen(reading)
        arguments = ["serve", "-p", "0", "-f", str(file), *arguments]
        self._pid = forks.ask(arguments=arguments, stderr=f"/proc/{os.getpid()}/fd/{writing}")
        os.close(writing)
        if not self.listens(self._said):
            self.wait()
            raise AssertionError(f"the service did not start: {self.said}")

    def stop(self, signal_number: int) -> int:
        """Send the signal, read what is still said, and return the exit status."""
        if not self._has_ended():
            os.kill(self._pid, signal_number)
        return self.wait()

    def wait(self) -> int:
        """Wait for the end of the process, and return the exit status."""
        with self._said:
            self.said.append(self._said.read())
        until(self._has_ended)
        assert self._status is not None
        return self._status

    def _has_ended(self) -> bool:
        if self._status is None:
            self._status = self._forks.ask(status_of=self._pid)
        return self._status is not None


def _serve(arguments: list[str], stderr: int) -> None:
    """Be a service; its end is that of the process."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd, opened in enumerate((nothing, nothing, stderr)):
        os.dup2(opened, fd)
    os.close(nothing)
    os.close(stderr)
    sys.argv = ["bigfib", *arguments]
    runpy.run_module("bigfib", run_name="__main__", alter_sys=True)


def main() -> None:
    import bigfib.server.logs
    import bigfib.server.serve  # noqa: F401
    from bigfib.cli.main import parser

    # It imports the commands.
    parser()

    for line in sys.stdin:
        order = json.loads(line)
        if "status_of" in order:
            pid, status = os.waitpid(order["status_of"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            stderr = os.open(order["stderr"], os.O_WRONLY)
            answer = os.fork()
            if not answer:
                _serve(order["arguments"], stderr)
            os.close(stderr)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
