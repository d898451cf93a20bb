"""Fixtures for the tests of the command line."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.command import Command


@pytest.fixture
def bigfib(path: Path) -> "Command":
    return Command(path)


@pytest.fixture
def stranger(require: Callable[[str], str]) -> list[str]:
    """Return a command prefix that runs a command as a user unknown to the system."""
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
