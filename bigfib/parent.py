"""The end of a process with its parent's, however that comes."""

import ctypes
import os
import signal
from typing import Final

# From <sys/prctl.h>.
_PR_SET_PDEATHSIG: Final = 1


def end_with(parent: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Let the kernel send this process, a child of ``parent``, a signal when that ends.

    Raises:
        SystemExit: it has ended before.
    """
    # A C library without it lets an orphan go on until it finds out by itself.
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl:
        prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        raise SystemExit(1)
