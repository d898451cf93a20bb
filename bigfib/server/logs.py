"""Log to standard error, as lines of text or of JSON, without endless repeats.

Text lines have no time: systemd's journal and other collectors add one.
"""

import json
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TextIO

from bigfib.settings import LogFormat

QUIET_SECONDS: Final = 10.0
"""Seconds during which repeats of a warning or an error are only counted."""


def configure(log_format: LogFormat = LogFormat.TEXT, *, debug: bool = False) -> None:
    """Log in this format; with ``debug``, also bigfib's own debug messages."""
    formatter = _Json() if log_format is LogFormat.JSON else _Text()
    handler = RepeatLimiter(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.getLogger("bigfib").setLevel(logging.DEBUG if debug else logging.NOTSET)


class RepeatLimiter(logging.StreamHandler):  # type: ignore[type-arg]  # not in Python 3.10
    """Write messages, but repeats of a warning or an error at most every `QUIET_SECONDS`.

    Before a different message of the same logger, the number of repeats is written. (A
    `logging.Filter` could drop repeats, but not write their number.)
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream)
        self._clock = clock
        self._last: dict[str, _Last] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, or count it as a repeat."""
        if record.levelno < logging.WARNING:
            super().emit(record)
            return
        now = self._clock()
        last = self._last.get(record.name)
        if last and last.record.getMessage() == record.getMessage():
            last.repeats += 1
            if now < last.quiet_until:
                return
            self._write_repeats(last)
            last.quiet_until = now + QUIET_SECONDS
            return
        if last:
            self._write_repeats(last)
        self._last[record.name] = _Last(record, now + QUIET_SECONDS)
        super().emit(record)

    def close(self) -> None:
        """Write the numbers of repeats that are not written yet."""
        for last in self._last.values():
            self._write_repeats(last)
        super().close()

    def _write_repeats(self, last: "_Last") -> None:
        if last.repeats:
            record = logging.makeLogRecord(last.record.__dict__)
            record.msg, record.args = f"{last.record.getMessage()} ({last.repeats} times more)", ()
            super().emit(record)
            last.repeats = 0


@dataclass
class _Last:
    """The last warning or error of a logger, and its repeats since the last line."""

    record: logging.LogRecord
    quiet_until: float
    repeats: int = 0


class _Text(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("bigfib: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        # A record with members, such as a line of the access log, is complete by itself.
        return record.getMessage() if hasattr(record, "members") else super().format(record)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        document: dict[str, Any] = {
            "time": f"{seconds}.{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
        }
        document |= getattr(record, "members", None) or {"message": record.getMessage()}
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return json.dumps(document)
