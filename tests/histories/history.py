"""Histories: the requests of clients, the replies, and the times of both."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from tests.histories.model import At, Kind, Request, State, Status, answers

NEVER = 1 << 63
"""The return of an operation whose effect may show at any later time."""


class Reply(NamedTuple):
    """What a client was answered.

    Attributes:
        status: Whether it was done.
        positions: The positions that the reply may mean, as 1 is both F(1) and F(2); None if it
            shows none.
        version: The version that it shows, None if it shows none.
    """

    status: Status
    positions: frozenset[int] | None = None
    version: int | None = None

    @property
    def place(self) -> tuple[int, int | None] | None:
        """Position and version, where it shows one position."""
        return (min(self.positions), self.version) if self.positions else None


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

    def outcomes(self, state: State) -> Iterator[State]:
        """Yield the states after it is done in this one, where it may be answered as it was."""
        for status, after in answers(state, self.request):
            if not self.reply:
                yield after
            elif status is not self.reply.status:
                pass
            elif after is None or self.reply.positions is None:
                yield after
            elif after.position in self.reply.positions:
                if self.reply.version is None:
                    yield after
                elif after.may_have(self.reply.version):
                    yield At(after.position, self.reply.version)

    def __str__(self) -> str:
        took = "never" if self.returned == NEVER else f"{(self.returned - self.invoked) / 1e6:.3f}"
        asked = f"{self.request.kind.value} {self.request.amount}"
        if self.request.expected is not None:
            asked += f" if at {self.request.expected}-{self.request.version}"
        shown = "unknown"
        if self.reply:
            at = self.reply.positions
            where = f"{sorted(at)}-{self.reply.version}" if at is not None else ""
            shown = f"{self.reply.status.value} {where}"
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
