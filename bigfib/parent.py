"""What a process has from its parent: signals that it ignores, and its end."""

import os
import signal
from collections.abc import Callable
from typing import Any, Final

# From <sys/prctl.h>.
_PR_SET_PDEATHSIG: Final = 1


def handle(handler: Callable[[int, Any], Any] | signal.Handlers, *numbers: signal.Signals) -> None:
    """Set the handler of signals, except those that this process was started to ignore.

    nohup has SIGHUP ignored, and a shell SIGINT for a command in the background.
    """
    for number in numbers:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def end_with(parent: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Let the kernel send this process, a child of ``parent``, a signal when that ends.

    Raises:
        SystemExit: it has ended before.
    """
    import ctypes

    # A C library without it lets an orphan go on until it finds out by itself.
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl:
        prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        raise SystemExit(1)
