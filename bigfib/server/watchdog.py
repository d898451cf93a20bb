"""Report to a supervisor, at intervals, that the event loop is alive."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import CodeType, FrameType


@contextlib.contextmanager
def notifying(notify: Callable[[], None], timeout: float | None, *loop: CodeType) -> Iterator[None]:
    """Call ``notify`` now, and four times in every ``timeout`` seconds while the loop is alive.

    bjoern has no timers, but checks for signals ten times a second. Python also runs a signal
    handler within a request, which may never end. So the loop counts as alive if it is between two
    calls of the application, or within another call than last time.

    Args:
        notify: Reports to the supervisor.
        timeout: Seconds within which the supervisor expects each report; None if there is none.
        loop: The functions that make up the loop; the outermost is called within the ``with``.
    """
    last: FrameType | None = None

    def alarm(_signal: int, frame: FrameType | None) -> None:
        nonlocal last
        call = None
        while frame and frame.f_code not in loop:
            call, frame = frame, frame.f_back
        if call is None or call is not last:
            notify()
        last = call

    notify()
    if timeout:
        signal.signal(signal.SIGALRM, alarm)
        signal.setitimer(signal.ITIMER_REAL, timeout / 4, timeout / 4)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
