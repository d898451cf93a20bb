"""The progress bar of large terms, on a real terminal."""

import re
import sys

from tests.cli.command import Command

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

# `decimal` reports only when a doubling is done: at 1/16, 1/8, 1/4 and 1/2.
WITHOUT_KERNEL = (
    "from bigfib.numbers import kernel; kernel.load = lambda: None;"
    "from bigfib.cli.main import main; main(['term', '40000000', '-o', '/dev/null'])"
)


def test_bar_on_a_terminal_moves_between_doublings_and_shows_the_time_left(bigfib: Command) -> None:
    drawn = ESCAPE.sub("", bigfib.on_terminal(program=[sys.executable, "-c", WITHOUT_KERNEL]))
    shares = [int(share) for share in re.findall(r"(\d+)%", drawn)]
    assert shares == sorted(shares)
    assert len(set(shares)) > 10
    assert re.search(r"\d+% 0:0\d left", drawn)
