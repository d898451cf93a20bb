"""Histories: the requests of clients, the replies, and the times of both."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from tests.histories.model import Answer, Kind, Request, Status

NEVER = 1 << 63
"""The return of an operation whose effect may show at any later time."""


class Reply(NamedTuple):
    """What a client was answered.

    Attributes:
        status: Whether it was done.
        positions: The positions that the reply may mean, as 1 is both F(1) and F(2); None if it
            shows none.
    """

    status: Status
    positions: frozenset[int] | None = None

    def agrees_with(self, answer: Answer) -> bool:
        """Return whether this answer is consistent with the reply to a client."""
        if self.status is not answer.status:
            return False
        return self.positions is None or answer.position in self.positions


@dataclass(frozen=True)
class Operation:
    """A request that had an effect, or may have had one.

    Attributes:
        client: Who sent it.
        sequence: The sequence that it was sent to.
        request: What it asked for.
        reply: What it was answered, None if the outcome is unknown: then it was done between
            invocation and return, or never.
        invoked: When it was sent, in nanoseconds.
        returned: When it was answered. With an unknown outcome: when it had been done, if ever.
    """

    client: int
    sequence: str
    request: Request
    reply: Reply | None
    invoked: int
    returned: int

    @property
    def changes_nothing(self) -> bool:
        """Whether it cannot have changed the sequence; a put might, even if this one did not."""
        return self.request.kind is Kind.READ or (
            self.reply is not None and self.reply.status is not Status.DONE
        )

    def __str__(self) -> str:
        took = "never" if self.returned == NEVER else f"{(self.returned - self.invoked) / 1e6:.3f}"
        asked = f"{self.request.kind.value} {self.request.amount}"
        if self.request.expected is not None:
            asked += f" if at {self.request.expected}"
        shown = "unknown"
        if self.reply:
            at = self.reply.positions
            shown = f"{self.reply.status.value} {sorted(at) if at is not None else ''}"
        sent = f"{self.invoked / 1e6:.3f} ms + {took}"
        return f"{sent}: client {self.client} asks {self.sequence} to {asked}: {shown}"


class Recorder:
    """Collect the operations of all clients, which are threads of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._operations: list[Operation] = []
        self.failed = 0

    def now(self) -> int:
        return time.perf_counter_ns()

    def add(self, operation: Operation) -> None:
        """Add an operation that was answered, or whose outcome is unknown."""
        if operation.reply is None and operation.request.kind is Kind.READ:
            return
        with self._lock:
            self._operations.append(operation)

    def refused(self) -> None:
        """Count an operation that was answered as having had no effect: it proves nothing else."""
        with self._lock:
            self.failed += 1

    def settle(self) -> None:
        """Note that operations without a reply have had their effect by now, or never will.

        That is so when the process that was asked has ended.
        """
        now = self.now()
        with self._lock:
            self._operations = [
                replace(one, returned=now) if one.returned == NEVER else one
                for one in self._operations
            ]

    def histories(self) -> dict[str, list[Operation]]:
        """Return the operations by sequence."""
        found = defaultdict(list)
        with self._lock:
            for operation in self._operations:
                found[operation.sequence].append(operation)
        return dict(found)

    def counts(self) -> dict[str, int]:
        """Return the number of operations by outcome."""
        with self._lock:
            unknown = sum(one.reply is None for one in self._operations)
            answered = len(self._operations) - unknown
        return {"answered": answered, "unknown": unknown, "failed": self.failed}


def around(operations: Iterable[Operation], place: Operation, count: int = 12) -> str:
    """Return the operations up to a place, as text for people."""
    before = [one for one in operations if one.invoked <= place.returned]
    before.sort(key=lambda one: min(one.returned, place.returned))
    return "\n".join(map(str, before[-count:]))
