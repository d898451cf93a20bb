"""What the process says on standard error: what matters, once, as text or as lines of JSON.

systemd's journal, and whatever else collects it, adds the time; JSON has it.
"""

import json
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TextIO

from bigfib.settings import LogFormat

QUIET_SECONDS: Final = 10.0
"""How long a warning or an error is not said again; then it is said how often it has come."""


def configure(log_format: LogFormat = LogFormat.TEXT) -> None:
    """Say all from now on in this format."""
    formatter = _Json() if log_format is LogFormat.JSON else _Text()
    handler = OnceInAWhile(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    for before in root.handlers.copy():
        if isinstance(before, OnceInAWhile):
            root.removeHandler(before)
            before.close()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    # What cannot be written cannot be complained of either, and that takes time.
    logging.raiseExceptions = False


if TYPE_CHECKING:
    _Handler = logging.StreamHandler[TextIO]
else:
    _Handler = logging.StreamHandler  # Python 3.10 does not take the brackets.


class OnceInAWhile(_Handler):
    """Writes each message, but a warning or an error that comes again and again only now and then.

    It does so until its logger says something else, so that what was said last is how things are.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream)
        self._clock = clock
        self._last: dict[str, _Last] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Write it, or count it."""
        if record.levelno < logging.WARNING:
            super().emit(record)
            return
        now = self._clock()
        last = self._last.get(record.name)
        if last and last.record.getMessage() == record.getMessage():
            last.unsaid += 1
            if now < last.quiet_until:
                return
            self._tell(last)
            last.quiet_until = now + QUIET_SECONDS
            return
        if last:
            self._tell(last)
        self._last[record.name] = _Last(record, now + QUIET_SECONDS)
        super().emit(record)

    def close(self) -> None:
        """Write what has only been counted."""
        for last in self._last.values():
            self._tell(last)
        super().close()

    def _tell(self, last: "_Last") -> None:
        if last.unsaid:
            told = logging.makeLogRecord(last.record.__dict__)
            told.msg, told.args = f"{last.record.getMessage()} ({last.unsaid} times more)", ()
            super().emit(told)
            last.unsaid = 0


@dataclass
class _Last:
    """The warning or error that a logger has said last.

    Attributes:
        record: It.
        quiet_until: When it is to be said again, by the clock of the handler.
        unsaid: How often it has come since it was said.
    """

    record: logging.LogRecord
    quiet_until: float
    unsaid: int = 0


class _Text(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("bigfib: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        # A record with members, such as a line of the access log, is complete by itself.
        return record.getMessage() if hasattr(record, "members") else super().format(record)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        said: dict[str, Any] = {
            "time": f"{seconds}.{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
        }
        said |= getattr(record, "members", None) or {"message": record.getMessage()}
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said)
