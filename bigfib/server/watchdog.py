"""Whether the event loop turns, told again and again to who watches over the process."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import CodeType, FrameType


@contextlib.contextmanager
def telling(tell: Callable[[], None], patience: float | None, *loop: CodeType) -> Iterator[None]:
    """Call ``tell``, and again four times in every ``patience`` seconds, while the loop turns.

    bjoern has no timers, but looks for signals ten times a second. Python, however, runs a handler
    within a request, too, and that may be one that never ends. So the loop is taken to have turned
    when it is between two calls, or within another one than the last time.

    Args:
        tell: What is called.
        patience: Within how many seconds somebody wants to hear of it; None if nobody does.
        loop: The functions that make up the loop; the outermost is called within the ``with``.
    """
    last: FrameType | None = None

    def alarm(_signal: int, frame: FrameType | None) -> None:
        nonlocal last
        call = None
        while frame and frame.f_code not in loop:
            call, frame = frame, frame.f_back
        if call is None or call is not last:
            tell()
        last = call

    tell()
    if patience:
        signal.signal(signal.SIGALRM, alarm)
        signal.setitimer(signal.ITIMER_REAL, patience / 4, patience / 4)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
