"""Handle signals, and have a child process end with its parent."""

import os
import signal
from collections.abc import Callable
from typing import Any, Final

# From <sys/prctl.h>.
_PR_SET_PDEATHSIG: Final = 1


def set_handler(
    handler: Callable[[int, Any], Any] | signal.Handlers, *numbers: signal.Signals
) -> None:
    """Set the handler of signals, except of those that this process was started to ignore.

    nohup ignores SIGHUP, and a shell ignores SIGINT for a background command.
    """
    for number in numbers:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def die_with(parent: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel send this process a signal when its parent ends.

    Raises:
        SystemExit: The parent has ended already.
    """
    import ctypes

    # Without prctl in the C library an orphan runs on until it writes to its closed pipe.
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl:
        prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        raise SystemExit(1)
