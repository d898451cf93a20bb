"""Commit changes to the store before the replies that show them leave.

**A state log** commits once for all requests of a loop iteration. bjoern reads requests in one
iteration of its event loop and writes their replies in the next; in between
`bigfib.server.bjoern.loop` calls `Committer.end_iteration`. With 64 connections, this serves ten
times as many replies a second as one ``fdatasync`` for each. If iterations cannot be hooked, each
reply commits before it begins.

**A shared store** has nothing left to commit: each change is durable when it is made.
"""

import logging
import time
from collections.abc import Callable
from typing import NoReturn

from bigfib.state.store import CommitFailed, Store

_logger = logging.getLogger(__name__)


def stop_process(error: CommitFailed) -> NoReturn:
    """Log the error and end the process: none of the replies that wait for the log may be sent.

    Raises:
        SystemExit: Always; bjoern then ends the process with status 1.
    """
    _logger.critical("%s", error)
    raise SystemExit(1) from error


class Committer:
    """Commit changes before the replies that show them leave."""

    def __init__(self, store: Store) -> None:
        """Commit to ``store``."""
        self._store = store
        self._by_iterations = False
        self._at_once = True
        self._calls: list[Callable[[], None]] = []

    def end_iteration(self) -> None:
        """Commit the changes that the replies of this loop iteration show; tend the store."""
        # The first call shows that iterations are hooked.
        self._by_iterations, self._at_once = True, False
        try:
            self._store.commit()
            self._store.tend(time.monotonic())
        except CommitFailed as error:
            stop_process(error)
        for call in self._calls:
            call()
        self._calls.clear()

    def commit(self) -> None:
        """Commit all changes before a reply begins, unless `end_iteration` will."""
        if self._at_once:
            try:
                self._store.commit()
            except CommitFailed as error:
                stop_process(error)

    def begin_at_once(self) -> None:
        """Have `commit` leave nothing to `end_iteration`, until `end_at_once`."""
        self._at_once = True

    def end_at_once(self) -> None:
        """Let `commit` leave changes to `end_iteration` again, if that is called."""
        self._at_once = not self._by_iterations

    def when_replies_leave(self, call: Callable[[], None]) -> None:
        """Call a function when the reply to this request may leave: now, or in `end_iteration`.

        It must not raise: that would end the process.
        """
        if self._by_iterations:
            self._calls.append(call)
        else:
            call()
